#!/bin/sh
# The profiling script with a stand-in for ncu: what it asks for, and what it says when nothing
# comes back.
#   profile.sh path/to/bench/profile.sh
set -u
script=$1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
bad=0
expect() { # expect WHAT CONDITION...
    what=$1
    shift
    "$@" || { echo "profile: $what"; cat "$work/said"; bad=1; }
}
cat >"$work/ncu" <<'EOF'
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
printf '#!/bin/sh\n' >"$work/kernel_bench"
chmod +x "$work/ncu" "$work/kernel_bench"
export CALLS="$work/calls" NCU="$work/ncu"
run() {
    sh "$script" "$@" >"$work/said" 2>&1
}
run "$work/kernel_bench" "conv 3x3" conv_kernel "$work/deep/out"
expect "a whole run succeeds" test $? -eq 0
expect "the text is there" grep -q "Speed Of Light" "$work/deep/out.txt"
expect "one launch of the kernel" grep -q -- "--kernel-name regex:conv_kernel --launch-count 1" "$CALLS"
expect "the row" grep -q -- "--filter conv 3x3" "$CALLS"
NO_COUNTERS=1 run "$work/kernel_bench" "conv 3x3" conv_kernel "$work/none"
expect "no permission fails" test $? -eq 1
expect "and is named" grep -q "ERR_NVGPUCTRPERM" "$work/said"
NO_KERNEL=1 run "$work/kernel_bench" "conv 3x3" other_kernel "$work/other"
expect "a kernel that the row does not run fails" grep -q 'no counters of other_kernel in "conv 3x3"' "$work/said"
run "$work/kernel_bench" "conv 3x3"
expect "missing arguments are a usage error" test $? -eq 2
run "$work/nothing" a b "$work/c"
expect "a missing program is named" grep -q "nothing: no program" "$work/said"
NCU=/nonexistent/ncu run "$work/kernel_bench" a b "$work/c"
expect "a missing ncu is named" grep -q "/nonexistent/ncu is not here" "$work/said"
exit $bad
