#!/bin/sh
# Runs a program of many parts on a GPU and, where one of them ends the program (a kernel that never
# ends, a device that is lost, a crash), begins again with the part after it.
#   go_on.sh SECONDS RESTARTS tests PROGRAM [ARGUMENT ...]   see tests/support/watch.cpp
#   go_on.sh SECONDS RESTARTS rows PROGRAM [ARGUMENT ...]    of kernel_bench
# SECONDS is what one part may take, RESTARTS how often the program may begin again.
# Exit status: 0 when all parts passed, else 1.
set -u
seconds=$1 left=$2 kind=$3
shift 3
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'cat "$log"; exit 1' TERM INT # with what it said so far
status=0 skip="" from=0

while :; do
    if [ "$kind" = tests ]; then
        TW_TEST_SECONDS=$seconds "$@" "--gtest_filter=*${skip:+-$skip}" >"$log" 2>&1
    else
        "$@" --from "$from" --row-seconds "$seconds" >"$log" 2>&1
    fi
    rc=$?
    cat "$log"
    [ $rc = 0 ] || status=1
    [ $rc -gt 1 ] || break # all parts have had their turn
    if [ "$kind" = tests ]; then
        begun=$(sed -n 's/^\[ RUN      \] //p' "$log")
        last=$(echo "$begun" | tail -n 1)
        skip=$skip${skip:+:}$(echo "$begun" | paste -s -d : -)
    else
        last=$(sed -n 's/^kernel_bench: row \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
        [ -z "$last" ] || from=$((last + 1))
    fi
    [ -n "$last" ] || break
    echo "[  FAILED  ] $last ended the program, exit status $rc"
    left=$((left - 1))
    [ $left -ge 0 ] || { echo "error: $last was one too many, the rest is left out" && break; }
done
exit $status
