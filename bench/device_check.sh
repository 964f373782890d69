#!/bin/sh
# Everything a machine with a GPU and nvcc can say about the kernels, in one call and under ten
# minutes: configure, build, compare the building blocks with the hardware, device tests,
# compute-sanitizer, benchmarks. Results are files in OUT.
#   device_check.sh OUT        [GTEST_SOURCE=dir] [QUICK=0] [JOBS=n] [PEERS=1] [PYTHON=python3]
# QUICK=0 measures longer and the libraries' plans beside, which takes half an hour.
# GTEST_SOURCE points at GoogleTest's sources where the system has no libraries of it. PEERS=1 adds
# the engine beside PyTorch, where PYTHON has that and diffusers: the eager settings in the quick
# form, for at most 200 seconds; QUICK=0 compiles too, which takes an hour. It does not count for
# the exit status.
# Exit status: 0 when the build and all device tests passed, else 1; compute-sanitizer is reported
# only, because some machines do not let it run.
set -u
out=${1:-}
[ -n "$out" ] || { echo "device_check.sh: which folder should the results go to?" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
build=$out/build
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}
quick="--quick --alone" limit=270
[ "${QUICK:-1}" = 0 ] && quick= limit=3600
status=0
rm -f "$out"/test-*.txt "$out"/kernels*.txt "$out/kernels.jsonl" "$out/verified.json" "$out"/peers.* # of an earlier run
say() { echo "device-check: $*"; }

commit=$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
if [ "$commit" != unknown ] && ! git -C "$root" diff --quiet HEAD -- 2>/dev/null; then
    commit=$commit-modified
fi
{
    echo "commit $commit"
    date -u +%Y-%m-%dT%H:%M:%SZ
    nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,memory.total \
        --format=csv 2>&1
    "${NVCC:-nvcc}" --version 2>&1 | tail -n 2
} >"$out/machine.txt"
cat "$out/machine.txt"

say "building"
# One architecture is enough here: the one of this GPU (sm_90a on compute capability 9.0).
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
case $arch in
90) arch=90a-real ;;
[0-9]*) if [ "$arch" -lt 90 ]; then arch=80-real; else arch=80-virtual; fi ;;
*) arch=80-virtual ;;
esac
for part in tests/kernels bench; do
    name=$(basename $part)
    if ! {
        cmake -S "$root/$part" -B "$build/$name" -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CUDA_ARCHITECTURES=$arch" \
            ${GTEST_SOURCE:+"-DTW_GTEST_SOURCE=$GTEST_SOURCE"} &&
            cmake --build "$build/$name" -j "$jobs"
    } >"$out/build-$name.txt" 2>&1; then
        say "build of $part failed:"
        tail -n 20 "$out/build-$name.txt"
        exit 1
    fi
done

say "device tests, the building blocks first"
passed=
device_test() {
    family=$(basename "$1" _device_test)
    if timeout 300 "$1" >"$out/test-$family.txt" 2>&1 &&
        ! grep -q "no CUDA device" "$out/test-$family.txt"; then
        say "  $family passed"
        passed="$passed${passed:+, }\"$family\""
    else
        say "  $family FAILED or skipped, see test-$family.txt"
        grep -m 5 -E "FAILED|Failure|no CUDA device" "$out/test-$family.txt"
        status=1
    fi
}
device_test "$build/kernels/wrappers_device_test"
for test in "$build"/kernels/*_device_test; do
    [ "$(basename "$test")" = wrappers_device_test ] || device_test "$test"
done

say "every row of the benchmark at a small shape, compared with float64"
if timeout 120 "$build/bench/kernel_bench" --small --alone >"$out/kernels-small.txt" 2>&1; then
    say "  passed"
else
    say "  some rows failed or are wrong:"
    grep -m 5 -E "failed|WRONG" "$out/kernels-small.txt"
    status=1
fi

say "compute-sanitizer"
: >"$out/sanitizer.txt"
sanitize() { # sanitize TOOL LABEL PROGRAM [ARGUMENT]
    tool=$1 label=$2
    shift 2
    echo "== $tool $label" >>"$out/sanitizer.txt"
    timeout 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$@" >>"$out/sanitizer.txt" 2>&1
    say "  $tool $label: exit status $? (0: nothing found; else see sanitizer.txt)"
}
if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck synccheck; do
        sanitize "$tool" wrappers "$build/kernels/wrappers_device_test"
        sanitize "$tool" group_norm "$build/kernels/group_norm_device_test" \
            "--gtest_filter=*Planted*:*Outliers*"
    done
    sanitize memcheck "small rows" "$build/bench/kernel_bench" --small --alone
else
    say "  not here"
    echo "compute-sanitizer was not found" >"$out/sanitizer.txt"
fi

say "benchmarks"
timeout $limit "$build/bench/kernel_bench" $quick --json "$out/kernels.jsonl" >"$out/kernels.txt" 2>&1 || {
    say "  some rows failed or the time ran out, see kernels.txt"
    status=1
}
cat "$out/kernels.txt"

{
    echo "Copy bandwidth, L2 read bandwidth and the bf16 matmul rate are in the first line of kernels.jsonl."
    echo "wgmma while TMA refills shared memory: not measured (belongs to the convolution kernels)"
    echo "one-row shift by descriptor base offset: not measured (belongs to the convolution kernels)"
    if [ "${QUICK:-1}" = 0 ]; then
        echo "cuDNN's and cuBLASLt's rates: peer and peer_cold_us in kernels.jsonl."
    else
        echo "cuDNN's and cuBLASLt's rates: not measured in the quick form (QUICK=0 or kernel_bench alone does)"
    fi
} >"$out/first-things.txt"

peers() {
    python=${PYTHON:-python3}
    "$python" -c "import torch, diffusers" 2>/dev/null || { say "  $python has no PyTorch and diffusers" && return; }
    if ! {
        cmake -S "$root" -B "$build/engine" -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CUDA_ARCHITECTURES=$arch" &&
            cmake --build "$build/engine" -j "$jobs" --target engine_bench
    } >"$out/build-engine.txt" 2>&1; then
        say "  build of the engine failed, see build-engine.txt"
        return
    fi
    set -- --seconds 5 --energy-seconds 2 --no-compile
    limit=200
    [ "$quick" ] || { set -- && limit=7200; }
    timeout "$limit" "$python" "$root/bench/peers/engine.py" --build "$build/engine" --device cuda \
        --json "$out/peers.jsonl" "$@" >"$out/peers.txt" 2>&1
    say "  exit status $? (124: the time ran out; else see peers.txt)"
    [ -s "$out/peers.jsonl" ] && "$python" "$root/bench/peers/engine.py" --page "$out/peers.jsonl" >"$out/peers.md"
}
if [ "${PEERS:-0}" = 1 ]; then
    say "beside PyTorch"
    peers
fi

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
printf '{"commit":"%s","gpu":"%s","date":"%s","passed":[%s]}\n' "$commit" "$gpu" \
    "$(date -u +%Y-%m-%d)" "$passed" >"$out/verified.json"
say "done, status $status; bench/results_page.py --add $out/verified.json puts it on the page"
exit $status
