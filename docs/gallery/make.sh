#!/bin/sh
# Makes the pictures of this folder: two runs of 100 generated mammograms at full size, about three minutes.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for model in gmic hct; do
    erf compute --model "$model" --no-picture -o "$work/$model.h5"
done
erf plot "$work/gmic.h5" "$work/hct.h5" -o gmic-hct.png --overwrite
