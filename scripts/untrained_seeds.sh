#!/bin/sh
# Measure how the receptive fields of untrained networks vary between random weights, on the same images; about six minutes
# on two CPU cores. Writes runs/untrained/MODEL-SEED.h5. Options of `erf compute` may follow, such as --size 1664x1280.
set -eu
mkdir -p runs/untrained
for model in gmic hct; do
    for seed in 0 1 2 3 4; do
        erf compute --model "$model" --weights none --seed "$seed" --image-seed 1 -n 40 --no-picture --resume \
            --output "runs/untrained/$model-$seed.h5" "$@"
    done
    erf compare runs/untrained/"$model"-?.h5 --labels 0,1,2,3,4 --measures lean,r50,r90,on_tissue \
        --output "runs/untrained/$model.md" --overwrite
done
