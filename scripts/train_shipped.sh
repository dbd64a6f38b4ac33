#!/bin/sh
# Train the networks whose weights the package ships, on phantoms; about 20 minutes each on two CPU cores.
# Afterwards: python scripts/ship_weights.py runs/hct runs/gmic runs/def-gmic
set -eu
for model in hct gmic def-gmic; do
    erf train --model "$model" --preset phantom-small --erf-every 1 --erf-n 16 --output "runs/$model" "$@"
done
