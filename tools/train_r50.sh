#!/usr/bin/env bash
# dhpe-r50 from ImageNet start weights, on CPU cores with bfloat16 matrix units (AMX; docs/training.md): some eight hours on two.
#
#   tools/train_r50.sh PHOTOS BACKGROUNDS FITS [RUNS]
#
# PHOTOS, BACKGROUNDS, RUNS: as for tools/train_lite.sh. FITS: the photos' labels of its part 26, fits-3.npz.
set -euo pipefail
photos=$1 backgrounds=$2 fits=$3 runs=${4:-runs}
for library in /usr/lib/*/libtcmalloc_minimal.so.4; do # see docs/training.md: ten times faster than the usual malloc
    [ -e "$library" ] && export LD_PRELOAD=$library
done
trunk=${DENSEHAND_CACHE:-$HOME/.cache/densehand}/imagenet/resnet50.safetensors
[ -e "$trunk" ] || python tools/convert_imagenet.py resnet50

options=(--model dhpe-r50 --bf16 --photos "$photos" --backgrounds "$backgrounds" --fits "$fits" --batch 32 --freeze-early
    --clip 1 --ema 0.997 --pool 2048 --replay 6 --photo-share 0.56 --negative-share 0.06 --rare 1.2
    --shape 2 --mask-terms-share 0.125 --wide-crops --augmentation.zoom 0.7 1.2 --augmentation.shift 0.1
    --augmentation.upright 0.8 --augmentation.rotation 20 --augmentation.any-rotation 0.1 --augmentation.occluder 0.35
    --augmentation.blur 0.4 --augmentation.backdrop 0.5 --synthesis.upright-share 0.75 --synthesis.object-share 0.4
    --synthesis.occluder-share 0.25 --synthesis.other-before 0.1 --synthesis.phone-share 0.25)
# 1. Small crops, many of them. A third of the learning rate of dhpe-lite: at 1e-3 the first 350 steps learn much less.
densehand train "${options[@]}" --out "$runs/r50-1" --size 128 --steps 5200 --lr 3e-4 --final-lr 0.6 --warmup 100 --seed 211
# 2. At the size it is used at, the learning rate down to nothing.
densehand train "${options[@]}" --out "$runs/r50-2" --start "$runs/r50-1/last.ckpt" --size 192 --steps 2800 \
    --lr 2.5e-4 --final-lr 0 --warmup 40 --seed 212
# 3. and 4. The same again: more small crops, and down to nothing at the size it is used at.
densehand train "${options[@]}" --out "$runs/r50-3" --start "$runs/r50-2/last.ckpt" --size 128 --steps 4400 \
    --lr 3e-4 --final-lr 0.7 --warmup 40 --seed 213
densehand train "${options[@]}" --out "$runs/r50-4" --start "$runs/r50-3/last.ckpt" --size 192 --steps 1100 \
    --lr 2.2e-4 --final-lr 0 --warmup 30 --seed 214
# 5. and 6. Runs of 6,000 steps down to 0.7 of the learning rate, broken off after 2,000 and 500; here their ends stand as they were.
densehand train "${options[@]}" --out "$runs/r50-5" --start "$runs/r50-4/last.ckpt" --size 128 --steps 2000 \
    --lr 3e-4 --final-lr 0.925 --warmup 40 --seed 215
densehand train "${options[@]}" --out "$runs/r50-6" --start "$runs/r50-5/last.ckpt" --size 128 --steps 500 \
    --lr 3e-4 --final-lr 0.995 --warmup 40 --seed 216
# 7. Labels of a fourth round, by dhpe-lite with its corrector, and 4,500 of 6,000 steps with them.
[ -e "$runs/fits-4.npz" ] || python tools/self_label.py --photos "$photos" --model dhpe-lite --before "$fits" --out "$runs/fits-4.npz"
options+=(--fits "$runs/fits-4.npz") # the last one given counts
densehand train "${options[@]}" --out "$runs/r50-7" --start "$runs/r50-6/last.ckpt" --size 128 \
    --steps 4500 --lr 3e-4 --final-lr 0.744 --warmup 40 --seed 217
# 8. Down to nothing.
densehand train "${options[@]}" --out "$runs/r50-8" --start "$runs/r50-7/last.ckpt" --size 192 \
    --steps 1450 --lr 2.2e-4 --final-lr 0 --ema 0.99 --warmup 30 --seed 218
# 9. and 10. The same again.
densehand train "${options[@]}" --out "$runs/r50-9" --start "$runs/r50-8/last.ckpt" --size 128 --steps 5600 --lr 3e-4 \
    --final-lr 0.7 --warmup 40 --seed 219
densehand train "${options[@]}" --out "$runs/r50-10" --start "$runs/r50-9/last.ckpt" --size 192 --steps 2200 --lr 2.2e-4 \
    --final-lr 0 --ema 0.99 --warmup 30 --seed 220
