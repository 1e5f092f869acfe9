#!/bin/sh
# Runs every measurement of docs/gpu.md, and the checks that it lists as open, in less than ten minutes. The machine needs the
# program and, if it has no NVRTC, the file of compiled kernels that LTM_CUDA_KERNELS names. If its python3 has PyTorch, PyTorch
# is measured beside ours. Every part writes a file into the folder OUT and a line into OUT/summary.txt. The parts that matter most come
# first. A part that fails or takes too long does not stop the others, but the exit code is then 1.
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
rival=$(cd -- "$(dirname -- "$0")/.." && pwd)/rivals/ltm_torch.py
failed=0
deadline=$(($(date +%s) + 590))

# say NAME TEXT
say() {
    echo "$1: $2" | tee -a "$out/summary.txt"
}

# part SECONDS NAME COMMAND…: no part may take longer than its seconds, or than what is left of all.
part() {
    most=$1 name=$2
    shift 2
    begun=$(date +%s)
    left=$((deadline - begun))
    [ "$most" -lt "$left" ] || most=$left
    if [ "$most" -le 0 ]; then
        failed=1
        say "$name" 'not run: no time is left'
        return
    fi
    timeout -k 5 "$most" "$@" >"$out/$name.txt" 2>&1
    code=$?
    case $code in
        0) verdict=ok ;;
        124 | 137) verdict="stopped after $most s" failed=1 ;;
        *) verdict="exit code $code: $(tail -n 1 "$out/$name.txt")" failed=1 ;;
    esac
    say "$name ($(($(date +%s) - begun)) s)" "$verdict"
}

# train NAME: a short run. Runs with the same seed must end with the same weights.
train() {
    part 60 "train-$1" "$ltm" train --device cuda --out "$out/run-$1" \
        --set train.steps=20 slow.warmup=5 train.eval_every=10 train.precision=bf16
}

# same A B: whether two runs have ended with the same weights.
same() {
    weights=checkpoints/step-00000020/weights.safetensors
    part 10 "same-bits-$2" cmp "$out/run-$1/$weights" "$out/run-$2/$weights"
}

# The first start compiles the kernels.
part 150 doctor "$ltm" --device cuda doctor
part 150 verify "$ltm" verify --device cuda

# A run repeats bit for bit, also when every launch is made directly.
train a
train b
same a b
export LTM_CUDA_CAPTURE=0
train direct
unset LTM_CUDA_CAPTURE
same a direct

# PyTorch does the paper's learning, so ours does it here, too.
torch=
if [ ! -f "$rival" ]; then
    torch="there is no $rival"
elif ! timeout 60 python3 -c 'import torch; torch.zeros(1, device="cuda")' >"$out/torch.txt" 2>&1; then
    torch="python3 has no PyTorch that uses the GPU: $(tail -n 1 "$out/torch.txt")"
fi
for preset in small medium large; do
    part 60 "steps-$preset" "$ltm" bench --device cuda --dtype bf16 --preset "$preset-paper" --set train.batch=32 \
        --op steps --json "$out/steps-$preset.json"
    if [ -z "$torch" ]; then
        part 150 "pytorch-$preset" python3 "$rival" "$preset"
    else
        say "pytorch-$preset" "not run: $torch"
    fi
done

# Products, whose algorithms the library chooses, and then every op.
part 60 products "$ltm" bench --device cuda --dtype bf16 --set train.batch=32 --op matmul --json "$out/products.json"
part 120 ops "$ltm" bench --device cuda --dtype bf16 --set train.batch=32 --json "$out/ops.json"

# A comparison of the program with itself must report no change.
part 30 save "$ltm" bench --device cuda --dtype bf16 --op rmsnorm swiglu --json "$out/base.json"
part 30 compare "$ltm" bench --device cuda --dtype bf16 --op rmsnorm swiglu --compare "$out/base.json"

# More memory than any card has: the error is one line that names the amount and the setting that lowers it.
part 30 memory "$ltm" plan --device cuda --preset large --set train.batch=700
# shellcheck disable=SC2016
part 30 no-memory sh -c 'said=$("$0" train --device cuda --preset large --set train.batch=700 data.tokenizer=bytes --out "$1" 2>&1)
    echo "$said" | tail -n 1
    echo "$said" | grep -q "needs at least\|device memory are needed"' "$ltm" "$out/none"

# NVRTC, if there is one, without a cache: this times the first start.
part 120 nvrtc env -u LTM_CUDA_KERNELS LTM_CUDA_CACHE= "$ltm" --device cuda doctor
exit $failed
