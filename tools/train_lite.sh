#!/usr/bin/env bash
# The packaged dhpe-lite, from ImageNet start weights to shipped weights, on two CPU cores in about an hour and a half.
#
#   tools/train_lite.sh PHOTOS BACKGROUNDS [RUNS]
#
# PHOTOS: labels.jsonl and crops/ (docs/training.md). BACKGROUNDS: hand-free pictures. RUNS: where the runs go.
set -euo pipefail
photos=$1 backgrounds=$2 runs=${3:-runs}
common=(--model dhpe-lite --photos "$photos" --backgrounds "$backgrounds" --fits "$runs/fits.npz" --batch 32)
for library in /usr/lib/*/libtcmalloc_minimal.so.4; do # see docs/training.md: ten times faster than the usual malloc
    [ -e "$library" ] && export LD_PRELOAD=$library
done

# 1. Photos alone, small: the 2D evidence settles within 30,000 pictures.
densehand train "${common[@]}" --out "$runs/lite-1" --size 128 --steps 1000 --photo-share 0.96 --ema 0.995 \
    --final-lr 0.8 --validate-every 250
# 2. Half synthetic hands, with the shape loss.
densehand train "${common[@]}" --out "$runs/lite-2" --start "$runs/lite-1/weights.safetensors" --size 128 --steps 1200 \
    --photo-share 0.5 --negative-share 0.06 --ema 0.995 --lr 8e-4 --final-lr 0.8 --pool 2048 --replay 8 --shape 2 \
    --mask-terms-share 0.125 --validate-every 250
# 3. At the size it is used at, crops less well centred, learning rate down to nothing.
densehand train "${common[@]}" --out "$runs/lite-3" --start "$runs/lite-2/weights.safetensors" --size 160 --steps 2600 \
    --photo-share 0.44 --negative-share 0.06 --ema 0.997 --lr 8e-4 --warmup 50 --pool 2048 --replay 6 --shape 2 \
    --mask-terms-share 0.125 --wide-crops --validate-every 200
