#!/bin/sh
# Compiles every kernel for sm_80 and sm_90a and prints registers, spills and shared memory, one
# line a kernel. Fails when a kernel spills, or when ptxas ignores setmaxnreg or serialises wgmma, for
# which it has many notes from C7500 on, none of them a warning.
#   resources.sh [source.cu ...]      NVCC and ARCHS may be set
set -u
here=$(cd "$(dirname "$0")" && pwd)
nvcc=${NVCC:-nvcc}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- "$here"/*.cu
status=0
printf '%-7s %5s %6s %7s  %s\n' arch regs spill static kernel
for arch in ${ARCHS:-80 90a}; do
    for source in "$@"; do
        if ! "$nvcc" -std=c++17 -gencode "arch=compute_$arch,code=sm_$arch" -Xptxas -v -cubin \
            -o "$work/out.cubin" "$source" 2>"$work/log"; then
            cat "$work/log" >&2
            exit 1
        fi
        if grep -E '\(C75[0-9][0-9]\)' "$work/log"; then status=1; fi
        # ptxas prints, for each kernel: its name, its spills, then its registers.
        awk -v arch="sm_$arch" '
            /Compiling entry function/ { split($0, q, "\047"); name = q[2] }
            /spill stores/ {
                for (i = 2; i <= NF; i++) if ($i == "spill") spill += $(i - 2)
            }
            /Used [0-9]+ registers/ {
                for (i = 2; i <= NF; i++) {
                    if ($i ~ /^registers/) regs = $(i - 1)
                    if ($i == "smem" || $i ~ /^smem/) smem = $(i - 2)
                }
                printf "%-7s %5d %6d %7d  %s\n", arch, regs, spill, smem, name
                if (spill > 0) bad = 1
                spill = 0; smem = 0
            }
            END { exit bad }' "$work/log" >"$work/table" || status=1
        if command -v c++filt >/dev/null 2>&1; then c++filt <"$work/table"; else cat "$work/table"; fi |
            sed 's/(anonymous namespace)::/ /g; s/tw:: *//g; s/(Form)0/rows/g; s/(Form)1/columns/g; s/void //; s/(.*)$//'
    done
done
[ $status -eq 0 ] || echo "kernels: register spills or serialised wgmma above" >&2
exit $status
