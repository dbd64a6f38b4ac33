#!/bin/sh
# Train ResNet-18 and a WaveMix on each magnification of a data set, and evaluate each network on all of them.
# Usage: sh scripts/train_magnifications.sh FOLDER [options of erf train]; about ten minutes on two CPU cores.
set -eu
images=$1
shift
for zoom in 40X 100X 200X 400X; do
    erf train --model resnet18 --images "$images" --preset magnification --where "magnification=$zoom" --size 64x64 \
        --split 70:10:20 --set epochs=12 --set batch_size=16 --output "runs/resnet18-$zoom" "$@"
    erf train --model wavemix --model-arg dim=64 --model-arg depth=4 --images "$images" --preset magnification \
        --where "magnification=$zoom" --size 64x64 --split 70:10:20 --set epochs=12 --set batch_size=16 \
        --output "runs/wavemix-$zoom" "$@"
done
erf evaluate runs/resnet18-*X runs/wavemix-*X --matrix magnification --picture magnification.png --output magnification.md
