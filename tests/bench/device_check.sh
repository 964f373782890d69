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
executable "$work/bin/program" <<'EOF'
#!/bin/sh
name=$(basename "$0")
echo "$name $*" >>"$CALLS"
[ -z "${TWK_WITHOUT:-}" ] || echo "$name without $TWK_WITHOUT" >>"$CALLS"
words="$*"
while [ $# -gt 0 ]; do
    [ "$1" = --json ] && echo '{"gpu":"stand-in"}' >"$2"
    shift
done
case $name in
kernel_bench) exit "${BENCH_STATUS:-0}" ;;
tweedie)
    case $words in
    bench*) exit 0 ;;
    *) exit "${COMMAND_STATUS:-0}" ;;
    esac
    ;;
esac
[ "${NO_GPU:-}" ] && echo "Skipped: no CUDA device" && exit 0
[ "$name" = "${TEST_ENDS:-}_device_test" ] && [ "${TWK_WITHOUT:-}" != "${ENDS_UNLESS:-none}" ] &&
    echo "[ RUN      ] Planted.End" && exit 71
[ "$name" = "${TEST_HANGS:-}_device_test" ] && sleep 60
[ "$name" = "${TEST_FAILS:-}_device_test" ] && echo "[  FAILED  ] planted" && exit 1
exit 0
EOF
executable "$work/bin/programs" <<'EOF'
#!/bin/sh
# programs FOLDER PATH ...: as they are built
folder=$1
shift
for path; do
    mkdir -p "$(dirname "$folder/$path")"
    cp "$(dirname "$0")/program" "$folder/$path"
done
EOF
kernels="tests/kernels/noise_device_test tests/kernels/wrappers_device_test tests/kernels/group_norm_device_test"
models="host/tweedie tests/cuda/engine_device_test bench/engine_bench"
export kernels models
executable "$work/bin/cmake" <<'EOF'
#!/bin/sh
echo "cmake $*"
if [ "$1" != --build ]; then
    case "$4" in
    */"${CONFIGURE_FAILS:-none}") echo "stand-in: no jansson" && exit 1 ;;
    *) exit 0 ;;
    esac
fi
[ "${BUILD_FAILS:-}" = "$(basename "$2")" ] && echo "error: planted" && exit 1
# shellcheck disable=SC2086
case $2 in
*/all) programs "$2" $kernels $models bench/kernel_bench ;;
*/bench) programs "$2/.." bench/kernel_bench ;;
*/kernels) programs "$2/../.." $kernels ;;
esac
EOF

run() { # run CASE [VARIABLE=value ...]: status, and the results in $out
    case=$1
    shift
    out=$work/$case
    log=$out.log
    logs=$out.build/logs
    : >"$work/calls"
    env CALLS="$work/calls" PATH="$work/bin:$PATH" BUNDLE= CHECK_BUILD="$out.build" "$@" \
        sh "$check" "$out" >"$log" 2>&1
    status=$?
}

run passes
expect "status 0" test "$status" = 0
expect "the architecture of the GPU" grep -q CMAKE_CUDA_ARCHITECTURES=90a-real "$logs/configure.txt"
expect "the building blocks first" test "$(head -n 1 "$work/calls")" = "wrappers_device_test --gtest_filter=*"
expect "everything as passed" grep -q \
    '"gpu":"Stand-in GPU".*"passed":\["wrappers", "group_norm", "engine", "noise"\]' "$out/verified.json"
expect "each family once on the device" test "$(grep -c '^group_norm_device_test --gtest_filter=\*$' "$work/calls")" = 1
expect "the sanitizer over models" grep -q 'sanitizer --tool racecheck.*AStepAndASamplerRun' \
    "$logs/sanitizer-racecheck-models.txt"
expect "the sanitizer over the command" grep -q 'sanitizer --tool memcheck.*tweedie train' \
    "$logs/sanitizer-memcheck-train.txt"
expect "the sanitizer over kernels" test -s "$logs/sanitizer-synccheck-wrappers.txt"
expect "the command on the GPU" grep -q '^tweedie train .*--steps 20 --device cuda' "$work/calls"
expect "a run that the CPU resumes" grep -q '^tweedie train .*--resume .*--device cpu' "$work/calls"
expect "the kernels' lines" grep -q stand-in "$out/kernels.jsonl"
expect "the engine's lines" test "$(wc -l <"$out/engine.jsonl")" = 4
expect "the small shapes before the large ones" \
    test "$(grep -m 1 kernel_bench "$work/calls")" = "kernel_bench --small --alone --from 0 --row-seconds 8"
expect "the quick form" grep -q 'kernel_bench --quick --alone --json' "$work/calls"
expect "what the machine is" grep -q "Stand-in GPU, 1" "$out/summary.txt"
expect "how each part went" grep -q "whole models: passed" "$out/summary.txt"
expect "what is not measured" grep -q "not measured" "$out/summary.txt"
expect "few files" test "$(find "$out" -type f | wc -l)" -le 8
expect "what the parts said" sh -c "tar -tzf '$out/logs.tar.gz' | grep -q test-engine.txt"

run again # over the results of the last time
expect "status 0" test "$status" = 0
run again
expect "status 0 in a folder that was used" test "$status" = 0
expect "the building blocks again" grep -q '^wrappers_device_test' "$work/calls"
expect "one line of each part" test "$(grep -c 'kernels, wrappers' "$out/summary.txt")" = 1

run whole QUICK=0
expect "the long form" grep -q 'kernel_bench --json' "$work/calls"

run test-fails TEST_FAILS=noise
expect "status 1" test "$status" = 1
expect "only the others as passed" \
    grep -q '"passed":\["wrappers", "group_norm", "engine"\]' "$out/verified.json"
expect "which one" grep -q "noise: FAILED" "$out/summary.txt"
expect "why" grep -q "planted" "$out/summary.txt"
expect "the benchmark all the same" grep -q kernel_bench "$work/calls"

expect "nothing left out" sh -c "! grep -q without '$work/calls'"

more="$kernels tests/kernels/conv_box_device_test tests/kernels/mma_device_test"
run blocks-end TEST_ENDS=mma "kernels=$more"
expect "status 1" test "$status" = 1
expect "that it ended" grep -q "Planted.End ended the program" "$out/summary.txt"
expect "the models without wgmma" grep -q "engine_device_test without wgmma$" "$work/calls"

run pairs-end TEST_ENDS=conv_box ENDS_UNLESS=clusters "kernels=$more"
expect "a second look" grep -q "without clusters: passed" "$out/summary.txt"
expect "the models without clusters" grep -q "engine_device_test without clusters$" "$work/calls"

run boxes-end TEST_ENDS=conv_box "kernels=$more"
expect "a second look" grep -q "without clusters: FAILED" "$out/summary.txt"
expect "the models without boxes" grep -q "engine_device_test without clusters tma$" "$work/calls"

run engine-fails TEST_FAILS=engine
expect "status 1" test "$status" = 1
expect "only the kernels as passed" \
    grep -q '"passed":\["wrappers", "group_norm", "noise"\]' "$out/verified.json"

run command-fails COMMAND_STATUS=1
expect "status 1" test "$status" = 1
expect "which part" grep -q "the command trains: FAILED" "$out/summary.txt"

run hangs TEST_HANGS=engine LIMIT=6
expect "status 1" test "$status" = 1
expect "that time ran out" grep -q "whole models: OUT OF TIME" "$out/summary.txt"
expect "an end" grep -q "done, status 1" "$out/summary.txt"

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

run no-torch PEERS=1 NO_TORCH=1 PYTHON="$work/bin/python"
expect "status 0" test "$status" = 0
expect "why not" grep -q "has no PyTorch and diffusers" "$log"
expect "nothing of it" test ! -e "$out/peers.jsonl"

run build-fails BUILD_FAILS=all
expect "status 1" test "$status" = 1
expect "what failed" grep -q "build: FAILED" "$log"
expect "no verification" test ! -e "$out/verified.json"

run no-libraries CONFIGURE_FAILS=all GTEST_SOURCE=/gtest
expect "status 1: the engine was not checked" test "$status" = 1
expect "what to do" grep -q "make device-bundle" "$out/summary.txt"
expect "the kernels as passed" grep -q '"passed":\["wrappers", "group_norm", "noise"\]' "$out/verified.json"
expect "GoogleTest's sources" grep -q TW_GTEST_SOURCE=/gtest "$logs/configure-kernels.txt"

run kernels-unbuilt CONFIGURE_FAILS=all BUILD_FAILS=bench
expect "status 1" test "$status" = 1
expect "what failed" grep -q "build of bench: FAILED" "$log"

# What was built elsewhere, as a folder and as its archive.
# shellcheck disable=SC2086
PATH="$work/bin:$PATH" programs "$work/bundle" $kernels $models bench/kernel_bench
echo 0123456789ab >"$work/bundle/COMMIT"
tar -czf "$work/bundle.tar" -C "$work/bundle" .
for bundle in bundle bundle.tar; do
    run "with-$bundle" BUNDLE="$work/$bundle"
    expect "status 0" test "$status" = 0
    expect "nothing built" test ! -e "$logs/configure.txt"
    expect "its commit" grep -q '"commit":"0123456789ab".*"engine"' "$out/verified.json"
done
run no-bundle BUNDLE="$work/nowhere.tar"
expect "status 1" test "$status" = 1
expect "what is missing" grep -q "nowhere.tar cannot be unpacked" "$log"

run no-gpu NO_GPU=1
expect "status 1" test "$status" = 1
expect "that there is none" grep -q "NO GPU" "$out/summary.txt"
expect "tests as skipped" grep -q "whole models: SKIPPED" "$out/summary.txt"
expect "nothing as passed" grep -q '"passed":\[\]' "$out/verified.json"
expect "portable code" grep -q CMAKE_CUDA_ARCHITECTURES=80-virtual "$logs/configure.txt"

case=usage out=$work/usage log=$work/usage.log
sh "$check" >"$log" 2>&1
expect "status 2 without a folder" test $? = 2
exit $bad
