#!/bin/sh
# demo.sh TWEEDIE OUT: trains on points of an S-curve and on real digits, samples from both with DDIM,
# and leaves the pictures in OUT. TW_DEMO_STEPS sets how long the digits are trained.
set -eu
tweedie=$1
out=$2
data=$(dirname "$0")/digits/t10k-images-idx3-ubyte.gz
steps=${TW_DEMO_STEPS:-300}
rm -rf "$out/scurve" "$out/digits"
mkdir -p "$out"

echo "== 1 of 2: points of an S-curve =="
"$tweedie" train --preset scurve --out "$out/scurve"
"$tweedie" sample --model "$out/scurve" --n 3000 --steps 50 --seed 1 \
    --out "$out/scurve.png" --trajectory "$out/scurve-strip.png"

echo
echo "== 2 of 2: handwritten digits, $steps steps =="
"$tweedie" train --preset mnist --data "$data" --out "$out/digits" \
    --steps "$steps" --lr-schedule cosine --validate-every 0 --preview-every 0
"$tweedie" sample --model "$out/digits" --n 60 --class 0-9 --steps 50 --guidance 2 --seed 1 \
    --out "$out/digits.png" --trajectory "$out/digits-strip.png"

echo
echo "Pictures:"
for picture in scurve scurve-strip digits digits-strip; do echo "  $out/$picture.png"; done
