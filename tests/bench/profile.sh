#!/bin/sh
# The profiling script with a stand-in for ncu: what it asks for, and what it says when nothing
# comes back.
#   profile.sh path/to/bench/profile.sh
set -u
script=$1
. "$(dirname "$0")/expect.sh"

executable "$work/ncu" <<'EOF'
#!/bin/sh
echo "ncu $*" >>"$CALLS"
case " $* " in
*" --import "*) echo "Section: GPU Speed Of Light"; exit 0 ;;
esac
[ "${NO_COUNTERS:-}" ] && echo "==ERROR== ERR_NVGPUCTRPERM" && exit 1
while [ $# -gt 0 ]; do
    [ "$1" = --export ] && [ -z "${NO_KERNEL:-}" ] && echo report >"$2.ncu-rep"
    shift
done
exit 0
EOF
executable "$work/kernel_bench" <<'EOF'
#!/bin/sh
EOF
export CALLS="$work/calls" NCU="$work/ncu"

log=$work/said
run() { # run CASE [VARIABLE=value ...] -- ARGUMENT...
    case=$1
    shift
    settings=
    while [ "$1" != -- ]; do settings="$settings $1" && shift; done
    shift
    # shellcheck disable=SC2086
    env $settings sh "$script" "$@" >"$log" 2>&1
    status=$?
}

run whole -- "$work/kernel_bench" "conv 3x3" conv_kernel "$work/deep/out"
expect "status 0" test "$status" = 0
expect "the text" grep -q "Speed Of Light" "$work/deep/out.txt"
expect "one launch of the kernel" \
    grep -q -- "--kernel-name regex:conv_kernel --launch-count 1" "$CALLS"
expect "the row" grep -q -- "--filter conv 3x3" "$CALLS"

run forbidden NO_COUNTERS=1 -- "$work/kernel_bench" "conv 3x3" conv_kernel "$work/none"
expect "status 1" test "$status" = 1
expect "the reason" grep -q ERR_NVGPUCTRPERM "$log"

run other-kernel NO_KERNEL=1 -- "$work/kernel_bench" "conv 3x3" other_kernel "$work/other"
expect "status 1" test "$status" = 1
expect "the kernel and the row" grep -q 'no counters of other_kernel in "conv 3x3"' "$log"

run too-few -- "$work/kernel_bench" "conv 3x3"
expect "status 2" test "$status" = 2

run no-program -- "$work/nothing" a b "$work/c"
expect "its name" grep -q "nothing: no program" "$log"

run no-ncu NCU=/nonexistent/ncu -- "$work/kernel_bench" a b "$work/c"
expect "its name" grep -q "/nonexistent/ncu is not here" "$log"

exit $bad
