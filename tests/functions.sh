# functions.sh - what the test scripts share (sourced; bash)
# shellcheck shell=bash
set -euo pipefail

TOP=${TOP:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
O=${O:-$TOP/build}
case $O in /*) ;; *) O=$TOP/$O ;; esac
export TOP O
export VDISK=${VDISK:-$O/vdisk}
export PATH=$O:$PATH:/usr/sbin:/sbin

tmp=$(mktemp -d "${TMPDIR:-/tmp}/vdisk-test.XXXXXX")
pids=()
cleanup_fns=()

# cleanup_fn COMMAND...: run it when the test ends, last one first
cleanup_fn() { cleanup_fns+=("$(printf '%q ' "$@")"); }

finish() {
    local status=$? i
    set +e
    for ((i = ${#cleanup_fns[@]} - 1; i >= 0; i--)); do eval "${cleanup_fns[i]}"; done
    for i in "${pids[@]}"; do kill "$i" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$tmp"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

skip() { echo "SKIP: $*"; exit 77; }
fail() { echo "FAIL: $*" >&2; exit 1; }

# requires COMMAND...: skip the test where one is missing
requires() {
    local c
    for c in "$@"; do command -v "$c" >/dev/null || skip "$c is not installed"; done
}

# start COMMAND...: in the background, ended with the test; its pid in $started
start() {
    "$@" &
    started=$!
    pids+=("$started")
}

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
    local limit=$1 i
    shift
    for ((i = 0; i < limit * 20; i++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    fail "timed out waiting for: $*"
}

# expect STATUS COMMAND...: the command must end with this status; its output (both) is in $output
expect() {
    local want=$1 got=0
    shift
    output=$("$@" 2>&1) || got=$?
    [ "$got" = "$want" ] || fail "'$*' ended with $got, not $want: $output"
}

# like_output PATTERN: $output matches (extended regular expression)
like_output() { grep -qE -- "$1" <<< "$output" || fail "no '$1' in: $output"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# in_machine [OPTION]... -- COMMAND...: run it as root in the throw-away machine
# (tests/system/rig has the options), with this environment; its status is ours
in_machine() { "$TOP/tests/system/rig" "$@"; }

# guest_root DIR [ID]: the beginnings of a small guest's tree in $root: busybox, and a name
# (what /etc/os-release has as ID: test)
guest_root() {
    root=$1
    mkdir -p "$root"/{bin,sbin,etc,dev,proc,sys,root,tmp}
    cp "$(type -P busybox)" "$root/bin/"
    echo "ID=${2:-test}" > "$root/etc/os-release"
}
