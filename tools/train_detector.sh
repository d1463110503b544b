#!/usr/bin/env bash
# The packaged detector, from ImageNet start weights to weights with their figures, in five hours of a busy core.
#
#   tools/train_detector.sh DATA FIXTURES [RUNS]
#
# DATA: a folder with photos/ and backgrounds/ (layout: densehand/detect/data.py). FIXTURES: the measuring photos. RUNS:
# where the runs go. A stopped script, begun again, goes on where it was; for weights from the start give another RUNS.
#
# This repeats what made the shipped weights, not their bits: the first two of their runs went by the clock, 65 and 75
# minutes of a busy core, in which they saw 41,248 and 49,792 pictures (densehand/weights/detector.json). The steps below
# are those, at 16 pictures each. Picture sizes and learning rate change at the shares of the steps at which they did in the
# second run; the first one's log is not kept. Which pictures a step sees was drawn otherwise. The other two
# are as they were. The only averaging is each run's own moving average.
set -euo pipefail
data=$1 fixtures=$2 runs=${3:-runs}
bin=${BIN:-.venv/bin}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # another number of threads ends at other weights: sums in another order
for library in /usr/lib/*/libtcmalloc_minimal.so.4; do # see docs/training.md: much faster than the usual malloc
    [ -e "$library" ] && export LD_PRELOAD=$library
done
tell() { echo "+ $*" >&2 && "$@"; }

# Start weights: EfficientNet-lite0 of ImageNet.
trunk=${DENSEHAND_CACHE:-$HOME/.cache/densehand}/imagenet/efficientnet_lite0.safetensors
[ -e "$trunk" ] || tell "$bin/python" tools/convert_imagenet.py efficientnet_lite0

# 1. From these. The second run begins with the calibrated detector.
tell "$bin/python" -m densehand.detect.train --data "$data" --run "$runs/detector-1" --steps 2578 --batch 16 --rate 2e-3 --seed 0
tell "$bin/python" -m densehand.detect.calibrate --data "$data" --run "$runs/detector-1" --out "$runs/detector-1.safetensors"
# 2. The same once more from there, a little lower.
tell "$bin/python" -m densehand.detect.train --data "$data" --run "$runs/detector-2" --steps 3112 --batch 16 --rate 1.5e-3 \
    --seed 7 --start "$runs/detector-1.safetensors"
# 3. Longer, with rendered hands among the photos' (a teacher labels only what it finds), in bfloat16.
tell "$bin/python" -m densehand.detect.calibrate --data "$data" --run "$runs/detector-2" --out "$runs/detector-2.safetensors"
tell "$bin/python" -m densehand.detect.train --data "$data" --run "$runs/detector-3" --steps 12000 --batch 16 --rate 1.5e-3 \
    --seed 11 --start "$runs/detector-2.safetensors" --bf16 --rendered 3000
# 4. More of the third.
tell "$bin/python" -m densehand.detect.calibrate --data "$data" --run "$runs/detector-3" --out "$runs/detector-3.safetensors"
tell "$bin/python" -m densehand.detect.train --data "$data" --run "$runs/detector-4" --steps 10000 --batch 16 --rate 1.5e-3 \
    --seed 17 --start "$runs/detector-3.safetensors" --bf16 --rendered 3000
# 5. Packaged, taught which way fingers point, given what 8-bit integers need, and measured: results/detector.csv and the card.
tell "$bin/python" -m densehand.detect.calibrate --data "$data" --run "$runs/detector-4" --out densehand/weights/detector.safetensors
tell "$bin/python" -m densehand.detect.turn --data "$data"
tell "$bin/python" tools/calibrate_detector_activations.py --data "$data"
tell "$bin/python" -m densehand.detect.evaluate --data "$data" --fixtures "$fixtures" --out results/detector.csv --card

# The score of detector and estimator together, its threshold and the whole way from photo to hand rest on both networks:
# tools/release.sh fits and measures them.
