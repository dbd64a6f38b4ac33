#!/bin/sh
# Makes the pictures of this folder from generated mammograms: about eight minutes on two CPU cores. Needs the extra timm.
# With names of pictures as arguments, only those are made: `sh docs/gallery/make.sh swin-tiny`; gmic-hct also makes
# front.png, the picture of the site's first page. Two of them need trainings and are made only when they are named:
# hct-over-training (20 minutes) and magnification (10 minutes).
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

wanted() {
    case " $all " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

pictures="explorer gmic-hct hct-growth def-gmic hct-nystrom unet-srb-f resnet50-srb-f wavemix swin-tiny"
all=${*:-$pictures}

if wanted gmic-hct; then
    for model in gmic hct; do
        erf compute --model "$model" --no-picture -o "$work/$model.h5"
    done
    erf plot "$work/gmic.h5" "$work/hct.h5" -o gmic-hct.png --overwrite
    python front.py "$work/gmic.h5" "$work/hct.h5" front.png
fi

if wanted hct-over-training; then
    erf train --model hct --erf-every 1 --erf-n 16 --output "$work/run"
    cp "$work/run/erf.png" hct-over-training.png
fi

if wanted magnification; then
    scripts=$PWD/../../scripts
    (cd "$work" && python "$scripts/synthetic_breakhis.py" tissue && sh "$scripts/train_magnifications.sh" tissue)
    cp "$work/magnification.png" .
fi

if wanted hct-growth; then
    erf compute --model hct --weights none --layer all -n 20 -o "$work/hct.h5"
    cp "$work/hct.png" hct-growth.png
fi

if wanted explorer; then
    python explorer.py explorer.png
fi

# Pages of many networks, in build/, not here: only when they are named, 15 minutes each.
if wanted atlas; then
    erf atlas atlas.txt --size 224x224 -n 10 -o ../../build/atlas
fi

if wanted zoo; then
    erf atlas '*' --size 128x128 -n 10 --weights none --title "Networks with a name, untrained" -o ../../build/zoo
fi

# One command each.
for model in def-gmic hct-nystrom wavemix swin-tiny; do
    if wanted "$model"; then
        case $model in *gmic | hct*) images=20 ;; *) images=50 ;; esac
        erf compute --model "$model" --weights none -n "$images" -o "$work/$model.h5"
        cp "$work/$model.png" .
    fi
done

# At the start of training the blocks are the identity (alpha 0); what they can do shows at alpha 1.
for model in unet-srb-f resnet50-srb-f; do
    if wanted "$model"; then
        for alpha in 0 1; do
            erf compute --model "$model" --model-arg "alpha=$alpha" -n 50 --no-picture -o "$work/$model, alpha $alpha.h5"
        done
        erf plot "$work/$model, alpha 0.h5" "$work/$model, alpha 1.h5" -o "$model.png" --overwrite
    fi
done
