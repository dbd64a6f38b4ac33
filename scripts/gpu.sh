#!/bin/sh
# Run tests, benchmarks and trainings on a GPU within 40 minutes, in a clone that is installed with the extra dev:
#
#     sh scripts/gpu.sh [FOLDER]
#     sh scripts/gpu.sh --dry-run [FOLDER]
#
# Nothing is installed. FOLDER (default: gpu-results) receives a log of each step, tables and trained weights. Steps that
# fail or time out are listed at the end; the other steps continue. A dry run executes every step at small sizes on the
# CPU. PYTHON sets the interpreter, MINUTES the time limit, STEPS a selection of `device tests timing training`.
set -u
dry=
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
out=${1:-gpu-results}
mkdir -p "$out/logs" && out=$(cd "$out" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python}
deadline=$(($(date +%s) + 60 * ${MINUTES:-40}))
wrong=

ERF_DEVICE=cuda train_device=auto workers=$(nproc) seeds="0 1 2 3 4" n=2000 held=200 fields=40
train="" size="" timing=""
tests="tests/test_cuda.py tests/test_uploads.py tests/test_engine.py tests/test_self_check.py tests/test_crops.py
    tests/test_moments.py tests/test_methods.py tests/test_projections.py"
if [ "$dry" ]; then
    ERF_DEVICE=cpu train_device=cpu workers=1 seeds=0 n=40 held=20 fields=4 size="--size 640x512"
    train="--set patch.epochs=1 --set patch.patches=1 --set image.epochs=1"
    timing="--size 192x160 --networks gmic --commands gmic --rounds 1 --counts 1 2"
    tests="tests/test_cuda.py -k numpy"
fi
export ERF_DEVICE

step() { # NAME SECONDS COMMAND ...: run a command with a time limit, log its output, and record failures
    step=$1 limit=$2
    shift 2
    left=$((deadline - $(date +%s)))
    if [ "$left" -lt "$limit" ]; then limit=$left; fi
    if [ "$limit" -lt 1 ]; then wrong="$wrong $step:not-begun"; return 1; fi
    began=$(date +%s)
    timeout -k 30 "$limit" "$@" >"$out/logs/$step.log" 2>&1
    code=$?
    case $code in
        0) echo "$step: done in $(($(date +%s) - began)) s" ;;
        124 | 137) echo "$step: cut after $limit s"; wrong="$wrong $step:cut" ;;
        *) echo "$step: failed, exit code $code, see $out/logs/$step.log"; wrong="$wrong $step:failed" ;;
    esac
    return $code
}

device() {
    step device 60 "$python" -c "
import sys, torch
print('Python', sys.version.split()[0], 'torch', torch.__version__, 'CUDA', torch.version.cuda)
found = torch.cuda.is_available()
print(torch.cuda.get_device_properties(0) if found else 'no CUDA device')
sys.exit(not found and '$ERF_DEVICE' == 'cuda')"
    ready=$?
    cat "$out/logs/device.log"
    if [ $ready -ne 0 ]; then exit 2; fi
    if [ ! "$dry" ]; then step driver 60 nvidia-smi; fi
}

tests() {
    step tests 480 "$python" -m pytest -n 0 -rs $tests
}

timing() {
    step timing 720 "$python" -m benchmarks.gpu --output "$out" --device "$ERF_DEVICE" $timing
}

learn() { # NAME MODEL SEED OPTION ...: train, evaluate on phantoms not used in training, compute the receptive field
    name=$1 model=$2 seed=$3
    shift 3
    step "train-$name" 600 "$python" -m erf train --model "$model" --preset phantom-small -n "$n" --seed "$seed" $size \
        --device "$train_device" --workers "$workers" --output "$out/runs/$name" --overwrite "$@" || return
    weights=$out/runs/$name/final.safetensors
    step "evaluate-$name" 120 "$python" -m erf evaluate --model "$model" --weights "$weights" --images phantom -n "$held" \
        --image-seed 1 --by-image $size --device "$train_device" --workers "$workers" --output "$out/$name.md" --overwrite
    step "field-$name" 120 "$python" -m erf compute --model "$model" --weights "$weights" -n "$fields" --image-seed 1 $size \
        --device "$ERF_DEVICE" --output "$out/$name.h5" --no-picture --overwrite
}

training() {
    for seed in $seeds; do
        for model in hct gmic; do learn "$model-$seed" "$model" "$seed" $train; done
        # From random weights def-gmic stays at chance in such a short training, so it starts from the trained gmic.
        step "start-def-gmic-$seed" 60 "$python" scripts/start_def_gmic.py "$out/runs/gmic-$seed/final.safetensors" \
            "$out/runs/def-gmic-start-$seed.safetensors" &&
            learn "def-gmic-$seed" def-gmic "$seed" --weights "$out/runs/def-gmic-start-$seed.safetensors" \
                --stages image --set image.epochs=1
    done
    step compare 120 "$python" -m erf compare "$out"/*.h5 --measures lean,gaussian_x,r50,r90,on_tissue \
        --output "$out/fields.csv" --overwrite
}

for each in ${STEPS:-device tests timing training}; do $each; done
for table in "$out"/logs/device.log "$out"/logs/timing.log "$out"/*.md "$out"/fields.csv; do
    if [ -f "$table" ]; then echo "== ${table##*/}"; cat "$table"; fi
done >"$out/summary.txt"
cat "$out/summary.txt"
if [ "$wrong" ]; then
    echo "in $out, but for$wrong"
    exit 1
fi
echo "all in $out"
