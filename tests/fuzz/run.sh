#!/bin/sh
# run.sh PROGRAM FOUND [LIBFUZZER-OPTION ...]: one fuzz target over its committed corpus and what
# earlier runs left in FOUND/TARGET; a finding is written there too, and fails.
set -eu
program=$1
target=$(basename "$1" | sed s/^fuzz_//)
found=$2/$target
shift 2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$found/corpus"
set -- -artifact_prefix="$found/" -print_final_stats=1 -timeout=20 -malloc_limit_mb=256 "$@"
[ ! -f "$here/dictionaries/$target.dict" ] || set -- -dict="$here/dictionaries/$target.dict" "$@"
export ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
if "$program" "$@" "$found/corpus" "$here/corpus/$target" >"$found/log" 2>&1; then
    sed -n "s/^stat::number_of_executed_units: */$target: executions without a finding: /p" "$found/log"
else
    tail -n 60 "$found/log"
    exit 1
fi
