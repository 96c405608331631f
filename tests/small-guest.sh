# small-guest.sh - a stock kernel with a busybox initrd, for tests of the machine (sourced; bash)
# shellcheck shell=bash
# (Sourced after functions.sh; $tmp is its.)

# cloud_kernel: the newest of Debian's cloud kernels in $kernel, its release in $release
cloud_kernel() {
    requires busybox cpio modprobe
    kernel=$(find /boot -name 'vmlinuz-*-cloud-amd64' | sort -V | tail -1)
    [ -n "$kernel" ] || skip 'no Debian cloud kernel in /boot'
    release=${kernel#*/vmlinuz-}
}

# small_root DIRECTORY MODULE...: an initrd's root with busybox, and in /m the modules with
# all that they need, to be loaded in the order of their names; without an init
small_root() {
    local root=$1 m n=100
    shift
    mkdir -p "$root"/{bin,dev,proc,sys,m}
    cp "$(command -v busybox)" "$root/bin/busybox"
    for m in "$@"; do
        modprobe -S "$release" --show-depends "$m"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' > "$root/.modules"
    while read -r m; do
        cp "$m" "$root/m/$n-${m##*/}"
        n=$((n + 1))
    done < "$root/.modules"
    rm "$root/.modules"
}

# pack_root DIRECTORY FILE
pack_root() { (cd "$1" && find . | cpio -o -H newc --quiet | gzip -1) > "$2"; }
