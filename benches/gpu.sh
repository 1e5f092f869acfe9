#!/bin/sh
# Runs every measurement of docs/gpu.md, and the checks that it lists as open, in a few minutes. The machine needs the program
# and, if it has no NVRTC, the file of compiled kernels that LTM_CUDA_KERNELS names; nothing else. Every part writes a file into
# the folder OUT and a line into OUT/summary.txt. A part that fails does not stop the others, but the exit code is then 1.
#
#   benches/gpu.sh path/to/ltm OUT
#
# The script makes OUT and refuses a folder that exists, so that results of different runs do not mix.
set -u
if [ $# -ne 2 ] || [ ! -f "$1" ] || [ ! -x "$1" ]; then
    echo "usage: benches/gpu.sh path/to/ltm OUT" >&2
    exit 2
fi
mkdir -- "$2" || exit 2
ltm=$(cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")
out=$(cd -- "$2" && pwd)
failed=0

# part NAME COMMAND…
part() {
    name=$1
    shift
    begun=$(date +%s)
    "$@" >"$out/$name.txt" 2>&1
    code=$?
    verdict=ok
    if [ $code -ne 0 ]; then
        verdict="exit code $code: $(tail -n 1 "$out/$name.txt")" failed=1
    fi
    echo "$name ($(($(date +%s) - begun)) s): $verdict" | tee -a "$out/summary.txt"
}

part doctor "$ltm" --device cuda doctor
part verify "$ltm" verify --device cuda
for preset in small medium large; do
    part "steps-$preset" "$ltm" bench --device cuda --dtype bf16 --preset "$preset" --set train.batch=32 --op steps \
        --json "$out/steps-$preset.json"
done
part ops "$ltm" bench --device cuda --dtype bf16 --set train.batch=32 --json "$out/ops.json"

# A comparison of the program with itself must report no change.
part save "$ltm" bench --device cuda --dtype bf16 --op rmsnorm swiglu --json "$out/base.json"
part compare "$ltm" bench --device cuda --dtype bf16 --op rmsnorm swiglu --compare "$out/base.json"

# Two runs with the same seed must end with the same weights.
for run in a b; do
    part "train-$run" "$ltm" train --device cuda --out "$out/run-$run" \
        --set train.steps=20 slow.warmup=5 train.eval_every=10 train.precision=bf16
done
part same-bits cmp "$out/run-a/checkpoints/step-00000020/weights.safetensors" \
    "$out/run-b/checkpoints/step-00000020/weights.safetensors"

# More memory than any card has: the error is one line that names the amount and the setting that lowers it.
part memory "$ltm" plan --device cuda --preset large --set train.batch=700
# shellcheck disable=SC2016
part no-memory sh -c 'said=$("$0" train --device cuda --preset large --set train.batch=700 data.tokenizer=bytes --out "$1" 2>&1)
    echo "$said" | tail -n 1
    echo "$said" | grep -q "needs at least\|device memory are needed"' "$ltm" "$out/none"

# NVRTC, if there is one, without a cache: this times the first start.
part nvrtc env -u LTM_CUDA_KERNELS LTM_CUDA_CACHE= "$ltm" --device cuda doctor
exit $failed
