#!/bin/sh
# A program of many parts goes on after the one that ends it.
#   go_on.sh path/to/bench/go_on.sh path/to/watched
set -u
go_on=$1 watched=$2
. "$(dirname "$0")/expect.sh"

run() { # run CASE ARGUMENT ...: status, and what it said in $log
    case=$1
    log=$work/$case
    shift
    sh "$go_on" "$@" >"$log" 2>&1
    status=$?
}
ran() { test "$(grep -c "^\[       OK \] Parts.$1" "$log")" = 1; }

run tests-pass 5 2 tests "$watched"
expect "status 0" test $status = 0
expect "the last test" ran Last

PLANT=failure run test-fails 5 2 tests "$watched"
expect "status 1" test $status = 1
expect "the last test" ran Last

for plant in hang loss crash; do
    PLANT=$plant run test-$plant 1 2 tests "$watched"
    expect "status 1" test $status = 1
    expect "the test before, once" ran First
    expect "the last test" ran Last
    expect "which" grep -q "FAILED.*Parts.Planted ended the program" "$log"
done

case=time-limit log=$work/time-limit
PLANT=hang timeout 1 sh "$go_on" 60 2 tests "$watched" >"$log" 2>&1
expect "where it was" grep -q "RUN.*Parts.Planted" "$log"

executable "$work/stand-in" <<'EOF'
#!/bin/sh
echo "$*"
case "$2" in
0) echo "kernel_bench: row 3 lost the device" && exit 3 ;;
"${SECOND:-none}") echo "kernel_bench: row $2 does not end, error after 5 s" && exit 3 ;;
*) exit "${STATUS:-0}" ;;
esac
EOF
run rows 5 1 rows "$work/stand-in"
expect "status 1" test $status = 1
expect "the row after" grep -q -- "--from 4 --row-seconds 5" "$log"

SECOND=4 run too-often 5 1 rows "$work/stand-in"
expect "status 1" test $status = 1
expect "that it ends there" grep -q "4 was one too many" "$log"
expect "two processes" test "$(grep -c -- --from "$log")" = 2

run no-program 5 1 rows "$work/nowhere"
expect "status 1" test $status = 1

exit $bad
