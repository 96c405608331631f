#!/bin/bash
# A convert that is killed, interrupted or fails leaves nothing under the target's name.
. "$(dirname "$0")/../functions.sh"
requires qemu-img

head -c 200M /dev/urandom > "$tmp/src.raw"
mkdir "$tmp/out"

gone() { # gone SIGNAL FORMAT
    local i
    for i in 1 2 3; do
        "$VDISK" convert -j 1 -O "$2" "$tmp/src.raw" "$tmp/out/dst" &
        sleep "0.0$((i * 2))"
        kill "-$1" $! 2> /dev/null || true
        wait $! 2> /dev/null || true
        if [ -e "$tmp/out/dst" ]; then	# it was faster than we
            qemu-img compare -q -f raw -F "$2" "$tmp/src.raw" "$tmp/out/dst" ||
                fail "half an image under the final name after SIG$1"
            rm "$tmp/out/dst"
        elif [ "$1" != KILL ]; then
            [ -z "$(ls -A "$tmp/out")" ] || fail "left behind after SIG$1: $(ls -A "$tmp/out")"
        fi
        rm -f "$tmp"/out/.[!.]*
    done
}
for format in raw qcow2; do
    for signal in KILL INT TERM; do
        # a background process of a script ignores SIGINT
        if [ "$signal" = INT ]; then set -m; fi
        gone "$signal" "$format"
        set +m
    done
done

# what was there before stays until the new one is complete
echo old > "$tmp/out/dst"
"$VDISK" convert -j 1 -y -O qcow2 "$tmp/src.raw" "$tmp/out/dst" &
sleep 0.03
kill -KILL $! 2> /dev/null || true
wait $! 2> /dev/null || true
[ "$(head -c 3 "$tmp/out/dst")" = old ] || qemu-img compare -q -f raw "$tmp/src.raw" "$tmp/out/dst" ||
    fail "neither the old file nor the new one"
rm -f "$tmp"/out/* "$tmp"/out/.[!.]*

# no space: an error, status 1, nothing left
(ulimit -f 20000; trap '' XFSZ; "$VDISK" convert -O qcow2 "$tmp/src.raw" "$tmp/out/dst") 2> "$tmp/err" &&
    fail "convert into too little space succeeded"
grep -q 'too large\|No space' "$tmp/err" || fail "no reason given: $(cat "$tmp/err")"
[ -z "$(ls -A "$tmp/out")" ] || fail "left behind: $(ls -A "$tmp/out")"

# --sync and the mode of a new file
(umask 027; "$VDISK" convert --sync -O qcow2 "$tmp/src.raw" "$tmp/out/dst")
[ "$(stat -c %a "$tmp/out/dst")" = 640 ] || fail "mode $(stat -c %a "$tmp/out/dst")"

# a link stays a link
ln -s dst "$tmp/out/link"
"$VDISK" convert -y -O raw "$tmp/src.raw" "$tmp/out/link"
[ -L "$tmp/out/link" ] || fail "the link was replaced"
cmp "$tmp/src.raw" "$tmp/out/dst"
