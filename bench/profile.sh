#!/bin/sh
# Nsight Compute's counters of one kernel of one row, where the row runs it first:
#   profile.sh KERNEL_BENCH ROW KERNEL OUT
#   bench/profile.sh out/build/bench/kernel_bench "conv 3x3 + bias" conv_kernel out/conv
# ROW is a part of the row's name as for --filter, KERNEL a part of the kernel's; NCU names another
# ncu. Writes OUT.ncu-rep (for the graphical tool) and OUT.txt: what was busy, how much, and what
# the warps waited for.
set -u
[ $# -eq 4 ] || { echo "profile.sh: expected KERNEL_BENCH ROW KERNEL OUT, got $# arguments" >&2; exit 2; }
program=$1 row=$2 kernel=$3 out=$4
ncu=${NCU:-ncu}
[ -x "$program" ] || { echo "profile.sh: $program: no program; build bench/ first" >&2; exit 1; }
command -v "$ncu" >/dev/null 2>&1 || { echo "profile.sh: $ncu is not here (it comes with the CUDA toolkit)" >&2; exit 1; }
mkdir -p "$(dirname "$out")" || exit 1
# The row's first launch is outside of a graph; what follows is of no interest.
if ! "$ncu" --force-overwrite --target-processes application-only --kernel-name "regex:$kernel" \
    --launch-count 1 --kill yes --set full --import-source no --export "$out" \
    "$program" --filter "$row" --quick >"$out.log" 2>&1 || [ ! -s "$out.ncu-rep" ]; then
    tail -n 5 "$out.log" >&2
    echo "profile.sh: no counters of $kernel in \"$row\": see $out.log (a machine may forbid them: ERR_NVGPUCTRPERM)" >&2
    exit 1
fi
"$ncu" --import "$out.ncu-rep" --page details --section SpeedOfLight --section MemoryWorkloadAnalysis \
    --section ComputeWorkloadAnalysis --section WarpStateStats --section Occupancy \
    --section LaunchStats >"$out.txt" || exit 1
echo "$out.txt"
