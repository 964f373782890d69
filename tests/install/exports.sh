#!/bin/sh
# exports.sh LIBRARY LIST: fails with a difference unless LIBRARY exports exactly the names in LIST.
set -eu
nm -D --defined-only "$1" | awk '{print $3}' | sed 's/@.*//' | sort -u | diff "$2" - || {
    echo "The exported symbols differ from $2 (< expected, > found)."
    exit 1
}
