#!/bin/sh
# Train the networks whose weights the package ships, on phantoms: about 25 minutes on two CPU cores.
# Afterwards: python scripts/ship_weights.py runs/hct runs/gmic runs/def-gmic
set -eu
scripts=$(dirname "$0")
for model in hct gmic; do
    erf train --model "$model" --preset phantom-small --erf-every 1 --erf-n 16 --output "runs/$model" "$@"
done
# From random weights def-gmic stays at chance in such a short training, so it starts from the trained gmic.
python "$scripts/start_def_gmic.py" runs/gmic/final.safetensors runs/def-gmic-start.safetensors
erf train --model def-gmic --preset phantom-small --weights runs/def-gmic-start.safetensors --stages image \
    --set image.epochs=1 --output runs/def-gmic "$@"
