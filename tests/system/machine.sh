#!/bin/bash
# The throw-away machine itself: status, environment, files, time limit, real KVM.
. "$(dirname "$0")/../functions.sh"
requires qemu-system-x86_64 linux.uml busybox

echo 'from the host' > "$tmp/file"
# shellcheck disable=SC2016 # expands in the machine
export GREETING="it's \"quoted\" \$HOME" inside='[ "$(id -u)" = 0 ] && cat "$0" &&
    printf "%s\n" "$GREETING" && echo new > "$0.new" && cat "$0.new" && exit 9'

for engine in tcg uml; do
    expect 9 in_machine --engine $engine -- bash -c "$inside" "$tmp/file"
    [ "$output" = "from the host
$GREETING
new" ] || fail "$engine: unexpected output: $output"
    [ ! -e "$tmp/file.new" ] || fail "$engine: wrote to the host"
    expect 124 in_machine --engine $engine --limit 6 -- sleep 60
    expect 2 in_machine --engine $engine
done

expect 0 in_machine --copy 'sfdisk' -- sh -c '[ ! -e /etc/passwd ] && sfdisk --version'
like_output util-linux

expect 0 in_machine --modules kvm-amd -- sh -c '[ -c /dev/kvm ] && grep -c ^kvm_amd /proc/modules'
