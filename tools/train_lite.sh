#!/usr/bin/env bash
# The packaged dhpe-lite, from ImageNet start weights to shipped weights, on two CPU cores in about twenty-nine hours.
#
#   tools/train_lite.sh PHOTOS BACKGROUNDS [RUNS [COMMITS]]
#
# PHOTOS: labels.jsonl, crops/ and frames.jsonl (docs/training.md). BACKGROUNDS: hand-free pictures; a folder named
# backgrounds beside one named photos. RUNS: where the runs go. With COMMITS, those that trained, the end is packaged;
# tools/release.sh makes a release of it.
set -euo pipefail
photos=$1 backgrounds=$2 runs=${3:-runs}
common=(--model dhpe-lite --photos "$photos" --backgrounds "$backgrounds" --fits "$runs/fits.npz" --batch 32
    --synthesis.free-share 0)
for library in /usr/lib/*/libtcmalloc_minimal.so.4; do # see docs/training.md: ten times faster than the usual malloc
    [ -e "$library" ] && export LD_PRELOAD=$library
done

# 0. Start weights: EfficientNet-lite0 of ImageNet.
trunk=${DENSEHAND_CACHE:-$HOME/.cache/densehand}/imagenet/efficientnet_lite0.safetensors
[ -e "$trunk" ] || python tools/convert_imagenet.py efficientnet_lite0

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
# 4., 5. Go on with more lost resolution. Alone these weights fit the photos better and other pictures worse than the third
#    stage's, their mean neither.
blurred=(--wide-crops --augmentation.blur 0.4)
densehand train "${common[@]}" --out "$runs/lite-4" --start "$runs/lite-3/weights.safetensors" --size 128 --steps 1200 \
    --photo-share 0.56 --negative-share 0.06 --ema 0.998 --final-lr 0.825 --warmup 50 --pool 2048 --replay 8 "${blurred[@]}"
densehand train "${common[@]}" --out "$runs/lite-5" --start "$runs/lite-4/weights.safetensors" --size 160 --steps 420 \
    --photo-share 0.5 --negative-share 0.06 --ema 0.98 --lr 5e-4 --final-lr 0.02 --warmup 10 --pool 512 --replay 8 \
    "${blurred[@]}"
python tools/average_weights.py "$runs/lite-3/weights.safetensors" "$runs/lite-5/weights.safetensors" \
    --out "$runs/lite-mean.safetensors"
# 6., 7. Rare poses and views more often, more synthetic hands that hold things or are covered; then the working size.
rare=(--photo-share 0.47 --negative-share 0.06 --ema 0.997 --warmup 50 --pool 2048 --replay 6 --shape 2 --rare 1.5
    --mask-terms-share 0.125 --augmentation.occluder 0.35 --augmentation.blur 0.3 --augmentation.any-rotation 0.3
    --synthesis.object-share 0.4 --synthesis.occluder-share 0.25 --synthesis.other-before 0.1)
densehand train "${common[@]}" --out "$runs/lite-6" --start "$runs/lite-mean.safetensors" --size 128 --steps 1600 \
    --final-lr 0.5 --seed 11 "${rare[@]}"
densehand train "${common[@]}" --out "$runs/lite-7" --start "$runs/lite-6/weights.safetensors" --size 160 --steps 1250 \
    --lr 7e-4 --wide-crops --seed 12 "${rare[@]}"
# 8. The mean with the third stage's weights errs less on held-back photos and hands than either.
python tools/average_weights.py "$runs/lite-3/weights.safetensors" "$runs/lite-7/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-8.safetensors"
# 9. More pictures, cheaper ones: the early layers stay as they are.
more=(--photo-share 0.56 --negative-share 0.06 --ema 0.997 --warmup 40 --pool 2048 --replay 6 --shape 2 --rare 1
    --mask-terms-share 0.125 --augmentation.occluder 0.35 --augmentation.blur 0.3 --augmentation.any-rotation 0.3
    --synthesis.object-share 0.4 --synthesis.occluder-share 0.25 --synthesis.other-before 0.1 --freeze-early)
densehand train "${common[@]}" --out "$runs/lite-9" --start "$runs/lite-8.safetensors" --size 128 --steps 2200 \
    --final-lr 0.7 --seed 21 "${more[@]}"
# 10. The photos' labels made anew by the eighth stage's network, at the size it is used at.
python tools/self_label.py --photos "$photos" --model "$runs/lite-8.safetensors" --out "$runs/fits-1.npz"
densehand train "${common[@]}" --fits "$runs/fits-1.npz" --out "$runs/lite-10" \
    --start "$runs/lite-9/weights.safetensors" --size 160 --steps 2300 --lr 8e-4 --wide-crops --seed 31 "${more[@]}"
# 11. As in 8.
python tools/average_weights.py "$runs/lite-8.safetensors" "$runs/lite-10/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-11.safetensors"
# 12. The same once more: labels of the second round; pictures without a hand that show faces, arms and rooms, and behind
#    rendered hands, too; photographs as phones make them.
python tools/self_label.py --photos "$photos" --model "$runs/lite-11.safetensors" --before "$runs/fits-1.npz" \
    --out "$runs/fits-2.npz"
python tools/gather_backgrounds.py --data "$(dirname "$photos")" --out "$runs/backgrounds"
again=(--fits "$runs/fits-2.npz" --backgrounds "$runs/backgrounds" --size 160 --lr 8e-4 --wide-crops "${more[@]}"
    --rare 1.2 --synthesis.phone-share 0.25)
densehand train "${common[@]}" "${again[@]}" --out "$runs/lite-12" --start "$runs/lite-11.safetensors" --steps 4800 --seed 41
# 13. As in 8.
python tools/average_weights.py "$runs/lite-11.safetensors" "$runs/lite-12/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-13.safetensors"
# 14., 15. The same once more, longer.
densehand train "${common[@]}" "${again[@]}" --out "$runs/lite-14" --start "$runs/lite-13.safetensors" --steps 6000 --seed 51
python tools/average_weights.py "$runs/lite-13.safetensors" "$runs/lite-14/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-15.safetensors"
# 16., 17. The same once more; most of it with half of the photos' hands before other backgrounds.
densehand train "${common[@]}" "${again[@]}" --out "$runs/lite-16" --start "$runs/lite-15.safetensors" --steps 2600 --seed 61 \
    --final-lr 0.81
densehand train "${common[@]}" "${again[@]}" --out "$runs/lite-17" --start "$runs/lite-16/weights.safetensors" --steps 4600 \
    --lr 7e-4 --final-lr 0 --seed 67 --augmentation.backdrop 0.5
python tools/average_weights.py "$runs/lite-15.safetensors" "$runs/lite-17/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-18.safetensors"
# 19., 20. The same at 192 px, where the heat maps see fingers more sharply.
densehand train "${common[@]}" "${again[@]}" --size 192 --out "$runs/lite-19" --start "$runs/lite-18.safetensors" --steps 2400 \
    --final-lr 0 --seed 83 --augmentation.backdrop 0.5
python tools/average_weights.py "$runs/lite-18.safetensors" "$runs/lite-19/weights.safetensors" --shares 1 1 \
    --out "$runs/lite-20.safetensors"
# 21., 22. A little lower; then with photos that have a mask among the hands, which the twentieth stage's network labels.
again+=(--size 192 --lr 4e-4 --augmentation.backdrop 0.5)
densehand train "${common[@]}" "${again[@]}" --out "$runs/lite-21" --start "$runs/lite-20.safetensors" --steps 700 \
    --final-lr 0.75 --seed 97
python tools/label_masked.py --photos "$photos/masks" --pattern "train_*.jpg" --model "$runs/lite-20.safetensors" --out "$runs/masked"
printf '[[dataset]]\nname = "densehand"\nroot = "%s"\nweight = 0.07\n' "$runs/masked" > "$runs/masked.toml"
densehand train --config "$runs/masked.toml" "${common[@]}" "${again[@]}" --out "$runs/lite-22" \
    --start "$runs/lite-21/weights.safetensors" --steps 1900 --final-lr 0 --seed 101 --augmentation.blur 0.4
python tools/average_weights.py "$runs/lite-20.safetensors" "$runs/lite-22/weights.safetensors" --shares 1 1 \
    --out "$runs/lite-23.safetensors"
# 24., 25. For upright hands: `densehand/looks.py` turns the others so before it looks again. Few turned by any angle, tighter
#    crops, as they are shown since, and a lower clip (docs/training.md's table of choices).
upright=("${again[@]}" --lr 7e-4 --final-lr 0 --clip 1 --augmentation.blur 0.4 --augmentation.rotation 20
    --augmentation.any-rotation 0.1 --augmentation.zoom 0.7 1.2 --augmentation.shift 0.1 --synthesis.upright-share 0.75)
densehand train "${common[@]}" "${upright[@]}" --out "$runs/lite-24" --start "$runs/lite-23.safetensors" --steps 5000 --seed 113
python tools/average_weights.py "$runs/lite-23.safetensors" "$runs/lite-24/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-25.safetensors"
# 26., 27. The same once more: labels made anew by the weights for upright hands, which look at the photos' hands upright; and
#    these are shown so, four of five.
python tools/self_label.py --photos "$photos" --model "$runs/lite-25.safetensors" --before "$runs/fits-2.npz" \
    --out "$runs/fits-3.npz"
densehand train "${common[@]}" "${upright[@]}" --fits "$runs/fits-3.npz" --out "$runs/lite-26" \
    --start "$runs/lite-25.safetensors" --steps 5200 --seed 127 --augmentation.upright 0.8
python tools/average_weights.py "$runs/lite-25.safetensors" "$runs/lite-26/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-27.safetensors"

# What a network of $runs says of rendered hands or photos, for its correctors: gather MODEL FILE OPTIONS…
gather() {
    python tools/train_corrector.py gather --model "$runs/$1.safetensors" --photos "$photos" --backgrounds "$runs/backgrounds" \
        --out "$runs/$2.safetensors" "${@:3}"
}
# From then on it looks in 8-bit integers, as it is used: in_integers MODEL SIDE-OF-CROPS
in_integers() {
    python tools/export_graphs.py --size "$2"
    python tools/calibrate_activations.py "$runs/$1.safetensors" --photos "$photos" --backgrounds "$backgrounds" --write
}

# 28. The corrector (docs/network.md) on what these weights say of 37,824 rendered hands that no training drew, and of the photos.
labels=(--fits "$runs/fits-3.npz")
gather lite-27 seen-1 "${labels[@]}" --rendered 11328 --seed 770001
gather lite-27 seen-2 "${labels[@]}" --rendered 11200 --seed 770002
gather lite-27 seen-3 "${labels[@]}" --rendered 15296 --seed 770003
gather lite-27 photos-1 "${labels[@]}" --passes 2 --seed 770009
gather lite-27 photos-2 "${labels[@]}" --passes 5 --seed 770010
python tools/train_corrector.py fit --model "$runs/lite-27.safetensors" --steps 16000 --out "$runs/lite-28/weights.safetensors" \
    --rendered "$runs"/seen-{2,3,1}.safetensors --real "$runs"/photos-{1,2}.safetensors

# 29., 30. As in 26 and 27: labels made anew by the network with its corrector, a few more rendered hands, bfloat16.
python tools/self_label.py --photos "$photos" --model "$runs/lite-28/weights.safetensors" --before "$runs/fits-3.npz" \
    --out "$runs/fits-4.npz"
densehand train "${common[@]}" "${upright[@]}" --fits "$runs/fits-4.npz" --out "$runs/lite-29" \
    --start "$runs/lite-28/weights.safetensors" --steps 5600 --seed 131 --augmentation.upright 0.8 --photo-share 0.52 --bf16
python tools/average_weights.py "$runs/lite-28/weights.safetensors" "$runs/lite-29/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-30.safetensors"
# 31. The correctors: the mesh's goes on, the side's is the first.
in_integers lite-30 192
labels=(--fits "$runs/fits-4.npz")
gather lite-30 held-back --held-back --both-ways --seed 770030
gather lite-30 photos-3 "${labels[@]}" --passes 2 --both-ways --seed 770031
gather lite-30 photos-4 "${labels[@]}" --passes 2 --seed 770032
gather lite-30 seen-4 "${labels[@]}" --rendered 3008 --seed 770033
gather lite-30 seen-5 "${labels[@]}" --rendered 2496 --seed 770035
gather lite-30 seen-6 "${labels[@]}" --rendered 4992 --both-ways --seed 770034
python tools/train_corrector.py fit --model "$runs/lite-30.safetensors" --go-on --steps 12000 --lr 3e-4 \
    --rendered "$runs"/seen-{4,5,6}.safetensors --real "$runs"/photos-{3,4}.safetensors --held-back "$runs/held-back.safetensors" \
    --out "$runs/lite-31/weights.safetensors"

# 32., 33. Crops of 224 px, labels of a fifth round; else as 29 and 30.
python tools/self_label.py --photos "$photos" --model "$runs/lite-31/weights.safetensors" --before "$runs/fits-4.npz" \
    --out "$runs/fits-5.npz"
densehand train "${common[@]}" "${upright[@]}" --fits "$runs/fits-5.npz" --out "$runs/lite-32" --size 224 \
    --start "$runs/lite-31/weights.safetensors" --steps 4400 --seed 137 --augmentation.upright 0.8 --photo-share 0.52 --bf16
python tools/average_weights.py "$runs/lite-31/weights.safetensors" "$runs/lite-32/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-33.safetensors"
# 34., 37., 40. The correctors, as in 31: correctors MODEL PART SEEDS FITS
correctors() {
    in_integers "$1" 224
    gather "$1" "held-back-$2" --held-back --both-ways --seed "${3}0"
    gather "$1" "photos-$2-1" --fits "$runs/$4.npz" --passes 2 --both-ways --seed "${3}1"
    gather "$1" "photos-$2-2" --fits "$runs/$4.npz" --passes 1 --seed "${3}2"
    gather "$1" "seen-$2-1" --fits "$runs/$4.npz" --rendered 4992 --both-ways --seed "${3}4"
    gather "$1" "seen-$2-2" --fits "$runs/$4.npz" --rendered 2496 --seed "${3}5"
    gather "$1" "seen-$2-3" --fits "$runs/$4.npz" --rendered 2496 --seed "${3}6"
    python tools/train_corrector.py fit --model "$runs/$1.safetensors" --go-on --steps 9000 --lr 3e-4 \
        --rendered "$runs/seen-$2"-{2,3,1}.safetensors --real "$runs/photos-$2"-{1,2}.safetensors \
        --held-back "$runs/held-back-$2.safetensors" --out "$runs/lite-$2/weights.safetensors"
}
correctors lite-33 34 78003 fits-5

# 35., 36. As 32 and 33: more lost resolution, for hands that are small in a photo, and no rendered skin of the lightest.
densehand train "${common[@]}" "${upright[@]}" --fits "$runs/fits-5.npz" --out "$runs/lite-35" --size 224 \
    --start "$runs/lite-34/weights.safetensors" --steps 4400 --seed 139 --augmentation.upright 0.8 --photo-share 0.52 --bf16 \
    --augmentation.blur 0.5 --augmentation.resolution 0.1 0.7 --synthesis.tones 0.1 1.0
python tools/average_weights.py "$runs/lite-34/weights.safetensors" "$runs/lite-35/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-36.safetensors"
correctors lite-36 37 79003 fits-5

# 38., 39. As 35 and 36: rendered hands whose fingers, above all thumbs, bend anyhow, and labels of the photos of which the
# thumb's last joint begins from the teacher's 3D: until here the network hardly bent that joint.
python tools/self_label.py --photos "$photos" --model "$runs/lite-31/weights.safetensors" --before "$runs/fits-5.npz" \
    --teachers-thumb --out "$runs/fits-6.npz"
densehand train "${common[@]}" "${upright[@]}" --fits "$runs/fits-6.npz" --out "$runs/lite-38" --size 224 \
    --start "$runs/lite-37/weights.safetensors" --steps 4500 --seed 163 --augmentation.upright 0.8 --photo-share 0.52 --bf16 \
    --augmentation.blur 0.45 --augmentation.resolution 0.1 0.7 --augmentation.motion 0.06 --synthesis.tones 0.1 1.0 \
    --synthesis.free-share 0.35
python tools/average_weights.py "$runs/lite-37/weights.safetensors" "$runs/lite-38/weights.safetensors" --shares 1 3 \
    --out "$runs/lite-39.safetensors"
correctors lite-39 40 80004 fits-6

[ $# -lt 4 ] || python tools/package_weights.py "$runs/lite-40/weights.safetensors" --commit "$4" \
    --recipe "tools/train_lite.sh PHOTOS BACKGROUNDS" --hardware "2 CPU cores shared with other work, about 29 hours in all" \
    --data "hand crops of six openly licensed sets with MediaPipe's 2D keypoints and labels made anew from them (tools/self_label.py), photos of a hand with masks (CC-BY-SA-4.0; tools/label_masked.py), photos without hands, our own renders" \
    --note "part 19 was planned for 3,500 steps and shortened on its way; parts 1, 2, 4 and 16 were cut short from longer schedules of nearly constant learning rate, which the recipe's schedules approximate; part 6 drew rare photos by the size of their group of like poses (k-means, power -0.5) instead of by the 30th nearest; part 10's labels were made by a network that looked at 128 px, and gave 3 % of the photos a mask; the labels of parts 10 and 12 are of looks at the photos as they lie; part 28 saw the crops in 8-bit integers, and began from another random start; the crops of parts 28, 31 and 34 kept a little more resolution; parts 29, 32, 35 and 38 began from the weights before in half precision; the correctors of parts 28 to 37 saw no fingers that bend anyhow; part 38 was planned for 2,700 steps and lengthened at its 1,500th, and its labels were clamped at other angles of the thumb (-5 and 85 degrees)"
