#!/bin/sh
# Runs the device check from one end to the other without a GPU: cmake, nvcc, nvidia-smi,
# compute-sanitizer and what they would build are stand-ins that write down how they were called.
#   device_check.sh path/to/bench/device_check.sh
set -u
check=$1
. "$(dirname "$0")/expect.sh"

# The programs on PATH. What a case wants of them stands in the environment.
mkdir "$work/bin"
executable "$work/bin/nvidia-smi" <<'EOF'
#!/bin/sh
[ "${NO_GPU:-}" ] && exit 9
case $* in
*compute_cap*) echo 9.0 ;;
*name,driver*) echo "name, driver"; echo "Stand-in GPU, 1" ;;
*) echo "Stand-in GPU" ;;
esac
EOF
executable "$work/bin/nvcc" <<'EOF'
#!/bin/sh
echo "release 0.0"
EOF
executable "$work/bin/compute-sanitizer" <<'EOF'
#!/bin/sh
echo "sanitizer $*"
exit "${SANITIZER_STATUS:-0}"
EOF
executable "$work/bin/python" <<'EOF'
#!/bin/sh
[ "$1" = -c ] && exit "${NO_TORCH:-0}"
echo "peers $*" >>"$CALLS"
while [ $# -gt 0 ]; do
    [ "$1" = --json ] && echo '{"peers":1}' >"$2"
    [ "$1" = --page ] && echo "# a page"
    shift
done
exit "${PEERS_STATUS:-0}"
EOF
executable "$work/bin/cmake" <<'EOF'
#!/bin/sh
echo "cmake $*"
[ "$1" = --build ] || exit 0
[ "${BUILD_FAILS:-}" = "$(basename "$2")" ] && exit 1
mkdir -p "$2"
program() {
    cat >"$2/$1" <<'END'
#!/bin/sh
name=$(basename "$0")
echo "$name $*" >>"$CALLS"
case $name in
kernel_bench)
    while [ $# -gt 0 ]; do
        [ "$1" = --json ] && echo '{"gpu":"stand-in"}' >"$2"
        shift
    done
    exit "${BENCH_STATUS:-0}" ;;
esac
[ "${NO_GPU:-}" ] && echo "Skipped: no CUDA device" && exit 0
[ "$name" = "${TEST_FAILS:-}_device_test" ] && echo "[  FAILED  ] planted" && exit 1
exit 0
END
    chmod +x "$2/$1"
}
case $2 in
*/bench) program kernel_bench "$2" ;;
*) for family in noise wrappers group_norm; do program "${family}_device_test" "$2"; done ;;
esac
EOF

run() { # run CASE [VARIABLE=value ...]: status, and the results in $out
    case=$1
    shift
    out=$work/$case
    log=$out.log
    : >"$work/calls"
    env CALLS="$work/calls" PATH="$work/bin:$PATH" "$@" sh "$check" "$out" >"$log" 2>&1
    status=$?
}

run passes
expect "status 0" test "$status" = 0
expect "the architecture of the GPU" grep -q CMAKE_CUDA_ARCHITECTURES=90a-real "$out/build-kernels.txt"
expect "the building blocks first" test "$(head -n 1 "$work/calls")" = "wrappers_device_test "
expect "each family once on the device" test "$(grep -c '^wrappers_device_test' "$work/calls")" = 1
expect "all families as passed" \
    grep -q '"gpu":"Stand-in GPU".*"passed":\["wrappers", "group_norm", "noise"\]' "$out/verified.json"
expect "the sanitizer's three tools" test "$(grep -c '^sanitizer' "$out/sanitizer.txt")" -ge 6
expect "the benchmark's lines" grep -q stand-in "$out/kernels.jsonl"
expect "the small shapes before the large ones" \
    test "$(grep -m 1 kernel_bench "$work/calls")" = "kernel_bench --small --alone"
expect "the quick form" grep -q 'kernel_bench --quick --alone --json' "$work/calls"
expect "what the machine is" grep -q "Stand-in GPU, 1" "$out/machine.txt"
expect "what is not measured" grep -q "not measured" "$out/first-things.txt"

run again # over the results of the last time
expect "status 0" test "$status" = 0
run again
expect "status 0 in a folder that was used" test "$status" = 0
expect "the building blocks again" grep -q '^wrappers_device_test' "$work/calls"
expect "the building blocks as passed" grep -q '"wrappers"' "$out/verified.json"

run whole QUICK=0 GTEST_SOURCE=/gtest
expect "the long form" grep -q 'kernel_bench --json' "$work/calls"
expect "GoogleTest's sources" grep -q TW_GTEST_SOURCE=/gtest "$out/build-kernels.txt"

run test-fails TEST_FAILS=noise
expect "status 1" test "$status" = 1
expect "only the others as passed" grep -q '"passed":\["wrappers", "group_norm"\]' "$out/verified.json"
expect "which one" grep -q "noise FAILED" "$log"
expect "the benchmark all the same" grep -q kernel_bench "$work/calls"

run blocks-fail TEST_FAILS=wrappers
expect "status 1" test "$status" = 1
expect "the others are still tried" grep -q '"passed":\["group_norm", "noise"\]' "$out/verified.json"

run sanitizer-cannot SANITIZER_STATUS=9
expect "status 0: it is reported only" test "$status" = 0
expect "its exit status" grep -q "exit status 9" "$log"

run bench-fails BENCH_STATUS=1
expect "status 1" test "$status" = 1
expect "the tests as passed" grep -q '"wrappers"' "$out/verified.json"

run peers PEERS=1 PYTHON="$work/bin/python"
expect "status 0" test "$status" = 0
expect "the quick form" grep -q -- "--device cuda .*--no-compile" "$work/calls"
expect "lines" test -s "$out/peers.jsonl"
expect "a page" grep -q "# a page" "$out/peers.md"

run peers-fail PEERS=1 PYTHON="$work/bin/python" PEERS_STATUS=1
expect "status 0: it is reported only" test "$status" = 0
expect "its exit status" grep -q "exit status 1" "$log"

run peers-unbuilt PEERS=1 PYTHON="$work/bin/python" BUILD_FAILS=engine
expect "status 0" test "$status" = 0
expect "what failed" grep -q "build of the engine failed" "$log"

run no-torch PEERS=1 NO_TORCH=1 PYTHON="$work/bin/python"
expect "status 0" test "$status" = 0
expect "why not" grep -q "has no PyTorch and diffusers" "$log"
expect "nothing of it" test ! -e "$out/peers.jsonl"

run build-fails
run build-fails BUILD_FAILS=bench
expect "status 1" test "$status" = 1
expect "what failed" grep -q "build of bench failed" "$log"
expect "no verification" test ! -e "$out/verified.json"

run no-gpu NO_GPU=1
expect "status 1" test "$status" = 1
expect "nothing as passed" grep -q '"passed":\[\]' "$out/verified.json"
expect "portable code" grep -q CMAKE_CUDA_ARCHITECTURES=80-virtual "$out/build-kernels.txt"

case=usage out=$work/usage log=$work/usage.log
sh "$check" >"$log" 2>&1
expect "status 2 without a folder" test $? = 2
exit $bad
