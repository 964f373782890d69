#!/bin/sh
# The comparison with PyTorch, for real, where PyTorch is: the smallest networks on the CPU agree and
# are timed, and another network's samples are seen not to agree.
#   peers_run.sh path/to/bench/peers path/to/build python
set -u
peers=$1 build=$2 python=$3
. "$(dirname "$0")/expect.sh"

"$python" -c "import numpy, torch, diffusers" 2>/dev/null || {
    echo "skipped: $python has no PyTorch and diffusers"
    exit 77
}

case=tiny log=$work/tiny.log
"$python" "$peers/engine.py" --build "$build" --python "$python" --device cpu --tiny --seconds 0 \
    --json "$work/lines.jsonl" >"$log" 2>&1
expect "status 0" test $? = 0
expect "two rows with a ratio" test "$(grep -c '"ratio":' "$work/lines.jsonl")" = 2
expect "a page" grep -q "^Checked before: loss within" "$log"

case=bf16 log=$work/bf16.log
"$python" "$peers/engine.py" --build "$build" --python "$python" --device cpu --tiny --seconds 0 \
    --format bf16 --json "$work/lines.jsonl" >"$log" 2>&1
expect "status 0" test $? = 0
expect "two rows with a ratio" test "$(grep -c '"ratio":' "$work/lines.jsonl")" = 2

case=other-weights log=$work/other.log
"$python" "$peers/pytorch.py" make --network tiny --out "$work/one" >"$log" 2>&1
"$python" "$peers/pytorch.py" make --network tiny --seed 1 --out "$work/other" >>"$log" 2>&1
mkdir "$work/dump"
echo 1 | "$build/bench/engine_bench" sample --model "$work/one" --batch 2 --dump "$work/dump" >>"$log" 2>&1
off() { # off MODEL: whether its samples are far from those in the folder
    echo "check $work/dump" | "$python" "$peers/pytorch.py" sample --model "$1" --batch 2 2>>"$log" |
        tee -a "$log" | "$python" -c "import json; print(json.loads(input())['samples_off'] > 1e-4)"
}
expect "the same weights agree" test "$(off "$work/one")" = False
expect "other weights do not" test "$(off "$work/other")" = True

case=no-gpu log=$work/no-gpu.log
"$python" "$peers/engine.py" --build "$build" --python "$python" --device cuda --tiny >"$log" 2>&1
status=$?
[ -e /dev/nvidiactl ] || expect "status 1 without a GPU" test "$status" = 1
exit $bad
