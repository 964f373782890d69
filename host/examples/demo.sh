#!/bin/sh
# demo.sh TWEEDIE OUT: samples digits with the weights that come with the source, trains on points of
# an S-curve, and leaves pictures of both, and of how they came to be, in OUT.
set -eu
tweedie=$1
out=$2
model=$(dirname "$0")/digits/model
rm -rf "$out/scurve"
mkdir -p "$out"

echo "== 1 of 3: handwritten digits from the weights in $model =="
"$tweedie" sample --model "$model" --n 60 --class 0-9 --steps 20 --guidance 2 --rederive-epsilon \
    --seed 1 --out "$out/digits.png" --trajectory "$out/digits.gif"
"$tweedie" sample --model "$model" --n 10 --class 0-9 --steps 20 --guidance 2 --rederive-epsilon \
    --seed 1 --out "$out/digits-row.png" --trajectory "$out/digits-strip.png"

echo
echo "== 2 of 3: points of an S-curve, trained now =="
"$tweedie" train --preset scurve --out "$out/scurve"
"$tweedie" sample --model "$out/scurve" --n 3000 --steps 50 --seed 1 \
    --out "$out/scurve.png" --trajectory "$out/scurve.gif"
"$tweedie" sample --model "$out/scurve" --n 3000 --steps 50 --seed 1 \
    --out "$out/scurve.npy" --trajectory "$out/scurve-reverse.png"

echo
echo "== 3 of 3: what happened =="
"$tweedie" diffuse --data scurve --out "$out/scurve-forward.png"
"$tweedie" plot --run "$out/scurve" --out "$out/scurve-loss.png"
"$tweedie" schedule --out "$out/schedule.png"

echo
echo "Pictures:"
for picture in digits.png digits.gif digits-strip.png scurve.png scurve.gif scurve-forward.png \
    scurve-reverse.png scurve-loss.png schedule.png; do
    echo "  $out/$picture"
done
