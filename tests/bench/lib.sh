# lib.sh - what the benchmarks share (sourced; bash)
# shellcheck shell=bash
#
# A benchmark runs us and the peers alternately in one run, so that both see
# the same machine, and prints for each: median wall time, CPU time and peak
# memory, and ours relative to the best peer.

. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"

ROUNDS=${ROUNDS:-3}

# bench_dirs: where to measure: memory and disk
bench_dirs() {
    local d
    for d in /dev/shm "${BENCH_DISK:-/var/tmp}"; do
        [ -w "$d" ] && echo "$d"
    done
}

# timed COMMAND...: run it; sets $wall, $cpu (seconds) and $peak (MiB, of which
# the kernel counts the 10 or so of the starting program in)
timed() {
    local out status=0
    out=$(python3 - "$@" <<'PY'
import os, shutil, sys, tempfile, time
errors = tempfile.TemporaryFile()
path = shutil.which(sys.argv[1]) or sys.exit(127)
start = time.monotonic()
pid = os.posix_spawn(path, sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, '/dev/null', os.O_WRONLY, 0), (os.POSIX_SPAWN_DUP2, errors.fileno(), 2)])
_, status, r = os.wait4(pid, 0)
wall = time.monotonic() - start
if status:
    errors.seek(0)
    sys.stderr.write(errors.read().decode(errors='replace'))
print(f'{wall:.3f} {r.ru_utime + r.ru_stime:.3f} {r.ru_maxrss / 1024:.1f}')
sys.exit(1 if status else 0)
PY
    ) || status=$?
    read -r wall cpu peak <<< "$out"
    [ "$status" = 0 ] || fail "'$*' failed"
}

# case_begin TITLE; contender NAME COMMAND... (the first one is us; $BEFORE is
# run before each); case_end
case_begin() {
    title=$1
    names=()
    commands=()
}

contender() {
    names+=("$1")
    shift
    commands+=("$(printf '%q ' "$@")")
}

median() { sort -n | sed -n "$(((ROUNDS + 1) / 2))p"; }

case_end() {
    local round k i n=${#names[@]} file ours_wall ours_cpu w c
    file=$(mktemp "$tmp/case.XXXXXX")
    # Who comes first after a pause pays for the memory that a virtual machine
    # gave back to its host meanwhile: one run that does not count, and each
    # round begins with another.
    eval "${BEFORE:-:}"
    eval "timed ${commands[n - 1]}"
    for ((round = 0; round < ROUNDS; round++)); do
        for ((k = 0; k < n; k++)); do
            i=$(((round + k) % n))
            eval "${BEFORE:-:}"
            eval "timed ${commands[i]}"
            echo "$i $wall $cpu $peak" >> "$file"
        done
    done
    printf '%s\n' "$title"
    for i in "${!names[@]}"; do
        w=$(awk -v i="$i" '$1 == i { print $2 }' "$file" | median)
        c=$(awk -v i="$i" '$1 == i { print $3 }' "$file" | median)
        [ "$i" != 0 ] || { ours_wall=$w ours_cpu=$c; }
        awk -v n="${names[i]}" -v w="$w" -v c="$c" -v ow="$ours_wall" -v oc="$ours_cpu" -v i="$i" \
            -v m="$(awk -v i="$i" '$1 == i && $4 > m { m = $4 } END { print m }' "$file")" 'BEGIN {
                printf "  %-34s %8.3f s  %8.3f s CPU  %6.1f MiB", n, w, c, m
                if (i > 0)
                    printf "   we are %.2f x as fast, %.2f x the CPU", w / (ow > 0 ? ow : 0.001), oc / (c > 0 ? c : 0.001)
                printf "\n" }'
    done
}
