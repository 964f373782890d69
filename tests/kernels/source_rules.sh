#!/bin/sh
# The rules of kernels/ that a compiler does not check: launches and shared memory only through the
# macros, intrinsics and assembly only in kernels/device, no allocation, no waiting, no float
# atomics, and a comment on layout and limit at every kernel.
set -u
cd "$(dirname "$0")/../../kernels" || exit 2
bad=0
forbid() {
    # forbid PATTERN WHAT FILES...
    pattern=$1 what=$2
    shift 2
    if grep -nE "$pattern" "$@" /dev/null; then
        echo "source rules: $what" >&2
        bad=1
    fi
}
forbid '<<<|cudaLaunchKernel' 'launch through TW_LAUNCH' ./*.cu ./*.cuh
forbid '__shared__' 'take shared memory through TW_SHARED' ./*.cu ./*.cuh
forbid '\basm\b|__(syncthreads|syncwarp|shfl|ballot|ldg|ldcs|stcs|expf|fdividef|float2|half|popc|clz|threadfence)|\batomic[A-Z]' \
    'intrinsics and assembly belong in device/' ./*.cu ./*.cuh
forbid 'cuda_bf16|cuda_fp16|__nv_bfloat16|__half' 'CUDA types belong in device/' ./*.cu ./*.cuh
forbid 'cudaMalloc|cudaFree|Synchronize|cudaMemcpy|[^_]malloc\(|\bnew ' \
    'no allocation and no waiting' ./*.cu ./*.cuh device/*.cuh
forbid 'atomic_add\([^)]*float' 'no float atomics' ./*.cu ./*.cuh device/*.cuh
for file in ./*.cu; do
    awk -v file="$file" '
        /^\/\/ Work:/ { documented = NR }
        /^\/\/ .*Limit:|^\/\/ Limit:/ { limited = NR }
        /__global__/ {
            if (!documented || NR - documented > 9 || !limited || limited < documented) {
                print file ":" NR ": a kernel without its Work/Limit comment"; bad = 1
            }
            documented = limited = 0
        }
        END { exit bad }' "$file" || bad=1
done
exit $bad
