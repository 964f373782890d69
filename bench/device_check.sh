#!/bin/sh
# Everything a machine with a GPU can say about kernels and engine, in one call and under ten
# minutes: the building blocks compared with the hardware, device tests of the kernels and of whole
# models, the command, compute-sanitizer, benchmarks.
#   device_check.sh OUT   [BUNDLE=path] [GTEST_SOURCE=dir] [QUICK=0] [LIMIT=seconds] [JOBS=n]
#                         [PEERS=1] [PYTHON=python3] [CHECK_BUILD=dir]
# BUNDLE is what `make device-bundle` gathered elsewhere, a folder or its archive; by default
# build-bundle.tar.xz beside the sources, if it is there. Without one (BUNDLE=) all is built here, in
# CHECK_BUILD: the engine where its libraries are, else the kernels alone, which is reported as a
# failure; GTEST_SOURCE points at GoogleTest's sources where the system has no libraries of it.
# QUICK=0 measures longer and the libraries' plans beside, which takes half an hour and more.
# PEERS=1 adds the engine beside PyTorch, where PYTHON has that and diffusers: the eager settings in
# the quick form; QUICK=0 compiles too, which takes an hour. It does not count for the exit status.
# What says most comes first: the building blocks, then the kernels, whole models, rates. Every part
# has a time limit of its own, and all together LIMIT; a test or a row of the benchmark that does not
# end, or loses the device, costs seconds and itself alone (go_on.sh). OUT gets few files: summary.txt,
# which grows line by line, verified.json, kernels.txt, *.jsonl, peers.md, and the parts' output in
# logs.tar.gz.
# Exit status: 0 when all tests and the command passed on the GPU, else 1; compute-sanitizer is
# reported only, because some machines do not let it run.
set -u
out=${1:-}
[ -n "$out" ] || { echo "device_check.sh: which folder should the results go to?" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
build=${CHECK_BUILD:-$root/build-check}
logs=$build/logs
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}
quick="--quick --alone" bench_limit=150 row_limit=10 limit=${LIMIT:-570}
[ "${QUICK:-1}" = 0 ] && quick="" bench_limit=3600 row_limit=300 limit=${LIMIT:-14400}
deadline=$(($(date +%s) + limit))
status=0 passed=
rm -rf "$logs"
rm -f "$out"/summary.txt "$out"/verified.json "$out"/*.jsonl "$out"/peers.md "$out"/kernels.txt "$out"/logs.tar.gz # of an earlier run
mkdir -p "$logs" || exit 1

say() {
    echo "device-check: $*"
    echo "$*" >>"$out/summary.txt"
}
pack() { tar -czf "$out/logs.tar.gz" -C "$build" logs 2>/dev/null; }

quote() { cut -c 1-200 | sed 's/^/        /' | tee -a "$out/summary.txt"; }
why() { # why LOG: what it says of a failure, or how it ends
    if grep -a -q -E "FAILED|Failure|WRONG|rror" "$1"; then
        grep -a -m 8 -E "FAILED|Failure|WRONG|rror" "$1" | quote
    else
        tail -n 3 "$1" | quote
    fi
}

# part LIMIT LOG WHAT COMMAND...: runs it no longer than LIMIT and what is left, and says how it
# went. True when it passed on a GPU.
part() {
    most=$1 log=$logs/$2 what=$3 begun=$(date +%s)
    shift 3
    [ "$most" -le $((deadline - begun)) ] || most=$((deadline - begun))
    if [ "$most" -ge 2 ]; then
        timeout -k 5 "$most" "$@" >"$log" 2>&1
        rc=$?
    else
        echo "no time was left for: $what" >"$log"
        rc=124
    fi
    verdict=passed
    case $rc in
    0) ! grep -q "no CUDA device" "$log" || { verdict="SKIPPED: no CUDA device" && rc=77; } ;;
    124 | 137) verdict="OUT OF TIME after $most s" ;;
    *) verdict="FAILED, exit status $rc" ;;
    esac
    say "$(printf '%4d s  %s: %s' $(($(date +%s) - begun)) "$what" "$verdict")"
    [ "$rc" = 0 ] || [ "$rc" = 77 ] || why "$log"
    pack
    return "$rc"
}
must() { part "$@" || status=1; }
verify() { # verify NAME LIMIT LOG WHAT COMMAND...
    name=$1
    shift
    if part "$@"; then passed="$passed${passed:+, }\"$name\""; else status=1; fi
}

# --- What it runs on, and what is run ---

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
bundle=${BUNDLE-$root/build-bundle.tar.xz}
[ -n "${BUNDLE:-}" ] || [ -e "$bundle" ] || bundle=
commit=$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
if [ "$commit" != unknown ] && ! git -C "$root" diff --quiet HEAD -- 2>/dev/null; then
    commit=$commit-modified
fi

unpack() { # unpack ARCHIVE FOLDER; not every machine has xz
    rm -rf "$2" && mkdir -p "$2" || return 1
    tar -xf "$1" -C "$2" 2>/dev/null || "${PYTHON:-python3}" -m tarfile -e "$1" "$2"
}

if [ -n "$bundle" ]; then
    programs=$bundle
    if [ ! -d "$bundle" ]; then
        programs=$build/bundle
        unpack "$bundle" "$programs" >"$logs/unpack.txt" 2>&1 || {
            say "the bundle $bundle cannot be unpacked"
            exit 1
        }
    fi
    programs=$(cd "$programs" && pwd) || exit 1
    here=$commit
    commit=$(cat "$programs/COMMIT" 2>/dev/null || echo unknown)
    [ "$here" = unknown ] || [ "$here" = "$commit" ] || say "the bundle is of $commit, the sources here are $here"
fi
say "commit $commit, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
if [ -n "$gpu" ]; then
    nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,memory.total \
        --format=csv 2>&1 | tee -a "$out/summary.txt"
else
    say "NO GPU: nvidia-smi names none; nothing below was checked on one"
    status=1
fi

# One architecture is enough here: the one of this GPU (sm_90a on compute capability 9.0).
build_programs() {
    programs=$build/all
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
    case $arch in
    90) arch=90a-real ;;
    [0-9]*) if [ "$arch" -lt 90 ]; then arch=80-real; else arch=80-virtual; fi ;;
    *) arch=80-virtual ;;
    esac
    say "building for $arch ($("${NVCC:-nvcc}" --version 2>/dev/null | tail -n 1))"
    set -- -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CUDA_ARCHITECTURES=$arch"
    if cmake -S "$root" -B "$programs" -DTW_CUDA=ON "$@" >"$logs/configure.txt" 2>&1; then
        part 420 build.txt "build" cmake --build "$programs" -j "$jobs" --target device_programs || exit 1
        return
    fi
    say "the engine cannot be built here (configure.txt): the kernels alone; make device-bundle elsewhere"
    status=1
    programs=$build/parts
    for folder in tests/kernels bench; do
        name=$(basename $folder)
        if ! cmake -S "$root/$folder" -B "$programs/$folder" "$@" \
            ${GTEST_SOURCE:+"-DTW_GTEST_SOURCE=$GTEST_SOURCE"} >"$logs/configure-$name.txt" 2>&1; then
            say "$folder cannot be configured:"
            tail -n 20 "$logs/configure-$name.txt"
            exit 1
        fi
        part 300 "build-$name.txt" "build of $folder" cmake --build "$programs/$folder" -j "$jobs" || exit 1
    done
}
[ -n "$bundle" ] || build_programs
tweedie=$programs/host/tweedie
engine=$programs/tests/cuda/engine_device_test
kernel_bench=$programs/bench/kernel_bench
export TW_TEST_DIR="$root/tests"
go_on=$root/bench/go_on.sh

# --- Tests ---

kernel_test() { # kernel_test FAMILY [PART_SECONDS]
    verify "$1" 45 "test-$1.txt" "kernels, $1" sh "$go_on" "${2:-10}" 3 \
        tests "$programs/tests/kernels/$1_device_test"
}
ended() { grep -q "ended the program" "$logs/test-$1.txt" 2>/dev/null; }
leave_out() {
    TWK_WITHOUT="${TWK_WITHOUT:+$TWK_WITHOUT }$1"
    export TWK_WITHOUT
    say "        from here on without $1 (TWK_WITHOUT)"
}
# Each rests on those before it. What hangs or faults is left out from then on, so that all the rest
# is seen; what is merely wrong is not. The tensors past 2^31 elements come last.
first="wrappers mma tma conv_box gemm conv_weight conv conv_gradient group_norm attention"
for family in $first; do
    [ -x "$programs/tests/kernels/${family}_device_test" ] || continue
    kernel_test "$family"
    ended "$family" || continue
    case $family in
    mma) leave_out wgmma ;;
    tma | gemm | conv_weight) leave_out tma ;;
    conv_box)
        leave_out clusters
        part 45 test-conv_box-alone.txt "kernels, conv_box, without clusters" sh "$go_on" 10 3 \
            tests "$programs/tests/kernels/conv_box_device_test"
        ! ended conv_box-alone || leave_out tma
        ;;
    esac
done
must 60 kernels-small.txt "every row of the benchmark at a small shape, against float64" \
    sh "$go_on" 8 6 rows "$kernel_bench" --small --alone
if [ -x "$engine" ]; then
    verify engine 150 test-engine.txt "whole models" sh "$go_on" 20 6 tests "$engine"
fi
for test in "$programs"/tests/kernels/*_device_test; do
    family=$(basename "$test" _device_test)
    case " $first large " in *" $family "*) ;; *) kernel_test "$family" ;; esac
done

# --- Rates of the kernels ---

# shellcheck disable=SC2086
must $bench_limit kernels.txt "benchmark of the kernels" sh "$go_on" $row_limit 8 \
    rows "$kernel_bench" $quick --json "$out/kernels.jsonl"
cp "$logs/kernels.txt" "$out/"

# --- The command ---

run=$build/run
small="--preset shapes --data shapes --batch-size 4 --preview-every 0"
small="$small --set model.block_out_channels=[16,32,32] --set model.norm_num_groups=8"
if [ -x "$tweedie" ]; then
    rm -rf "$run" "$run-bf16"
    # shellcheck disable=SC2086
    must 30 train.txt "the command trains" "$tweedie" train $small --out "$run" --steps 20 --device cuda
    # shellcheck disable=SC2086
    must 30 train-bf16.txt "the command trains in bf16" "$tweedie" train $small --out "$run-bf16" --steps 20 \
        --device cuda --precision bf16
    must 30 sample.txt "the command samples" "$tweedie" sample --model "$run" --out "$build/samples.png" \
        --n 4 --steps 10 --device cuda
    must 30 resume.txt "the CPU resumes" "$tweedie" train --out "$run" --resume --steps 24 --device cpu
    must 30 resume-back.txt "the GPU resumes" "$tweedie" train --out "$run" --resume --steps 28 --device cuda
fi

# --- compute-sanitizer ---

sanitize() { # sanitize TOOL LABEL LIMIT PROGRAM [ARGUMENT ...]
    tool=$1 label=$2 most=$3
    shift 3
    part "$most" "sanitizer-$tool-$label.txt" "$tool, $label" \
        compute-sanitizer --tool "$tool" --error-exitcode 9 "$@"
    grep -a -h "SUMMARY" "$logs/sanitizer-$tool-$label.txt" | tail -n 1 | quote
}
sanitize_engine() {
    sanitize memcheck models 60 "$engine" --gtest_filter=CudaRuns.AStepAndASamplerRun
    sanitize racecheck models 60 "$engine" --gtest_filter=CudaRuns.AStepAndASamplerRun
    # shellcheck disable=SC2086
    sanitize memcheck train 45 "$tweedie" train $small --out "$run-checked" --steps 2 --device cuda
    sanitize initcheck sample 45 "$tweedie" sample --model "$run-checked" --out "$build/checked.png" \
        --n 2 --steps 2 --device cuda
}
sanitize_kernels() {
    for tool in memcheck racecheck synccheck; do
        sanitize "$tool" wrappers 30 "$programs/tests/kernels/wrappers_device_test"
        sanitize "$tool" group_norm 30 "$programs/tests/kernels/group_norm_device_test" \
            "--gtest_filter=*Planted*:*Outliers*"
    done
    sanitize memcheck small-rows 60 "$kernel_bench" --small --alone
}
sanitizer=$(command -v compute-sanitizer)
[ -n "$sanitizer" ] || say "compute-sanitizer is not here"

# --- Benchmarks ---

bench() { # bench NAME ARGUMENTS...: rows for engine.jsonl
    name=$1
    shift
    must 45 "bench-$name.txt" "tweedie bench $name" "$tweedie" bench "$@" --device cuda --json "$build/bench-$name.jsonl"
    cat "$build/bench-$name.jsonl" >>"$out/engine.jsonl" 2>/dev/null
}
if [ -x "$tweedie" ]; then
    for precision in bf16 fp32; do
        bench train-$precision train --precision $precision --operations 20
        bench sample-$precision sample --precision $precision --batch-size 1,64 --repeats 3 --operations 20
    done
fi
[ ! -x "$programs/tests/kernels/large_device_test" ] || kernel_test large 30

# --- With the time that is left ---

if [ -n "$sanitizer" ]; then
    rm -rf "$run-checked"
    [ ! -x "$engine" ] || sanitize_engine
    sanitize_kernels
fi

peers() {
    python=${PYTHON:-python3}
    "$python" -c "import torch, diffusers" 2>/dev/null || { say "$python has no PyTorch and diffusers" && return; }
    [ -x "$programs/bench/engine_bench" ] || { say "there is no engine_bench" && return; }
    set -- --seconds 5 --energy-seconds 2 --no-compile
    most=200
    [ "$quick" ] || { set -- && most=7200; }
    part "$most" peers.txt "beside PyTorch" "$python" "$root/bench/peers/engine.py" --build "$programs" \
        --device cuda --json "$out/peers.jsonl" "$@"
    [ -s "$out/peers.jsonl" ] && "$python" "$root/bench/peers/engine.py" --page "$out/peers.jsonl" >"$out/peers.md"
}
[ "${PEERS:-0}" = 0 ] || peers

printf '{"commit":"%s","gpu":"%s","date":"%s","passed":[%s]}\n' "$commit" "$gpu" \
    "$(date -u +%Y-%m-%d)" "$passed" >"$out/verified.json"
say "done, status $status; bench/results_page.py --add $out/verified.json puts it on the page"
[ "${QUICK:-1}" = 0 ] || say "not measured in the quick form: cuDNN's and cuBLASLt's rates (QUICK=0 or kernel_bench)"
pack
exit $status
