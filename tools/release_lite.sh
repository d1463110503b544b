#!/usr/bin/env bash
# From trained weights to a release: packaged, refinement's prior and the scores' calibration made anew, all measured again.
#
#   tools/release_lite.sh WEIGHTS COMMITS DATA FIXTURES [MEDIAPIPE_PYTHON]
#
# WEIGHTS: what tools/train_lite.sh ends with. COMMITS: those that trained, for the model card. DATA: a folder with photos/
# and backgrounds/. MEDIAPIPE_PYTHON: a Python that has mediapipe, to measure beside. A quarter of an hour on two cores.
#
# The figures of README.md and docs/ are copied by hand from what is printed here.
set -euo pipefail
weights=$1 commits=$2 data=$3 fixtures=$4 peer=${5:-}
bin=${BIN:-.venv/bin}
tell() { echo "+ $*" >&2 && "$@"; }

tell "$bin/python" tools/package_weights.py "$weights" --commit "$commits" \
    --recipe "tools/train_lite.sh PHOTOS BACKGROUNDS" --hardware "2 CPU cores shared with other work, ${HOURS:-about 20} hours in all" \
    --data "hand crops of six openly licensed sets with MediaPipe's 2D keypoints and labels made anew from them (tools/self_label.py), photos of a hand with masks (CC-BY-SA-4.0; tools/label_masked.py), photos without hands, our own renders" \
    --note "part 19 was planned for 3,500 steps and shortened on its way; parts 1, 2, 4 and 16 were cut short from longer schedules of nearly constant learning rate, which the recipe's schedules approximate; part 6 drew rare photos by the size of their group of like poses (k-means, power -0.5) instead of by the 30th nearest; part 10's labels were made by a network that looked at 128 px, and gave 3 % of the photos a mask; the labels of parts 10 and 12 are of looks at the photos as they lie"
tell "$bin/python" tools/export_graphs.py
tell "$bin/python" tools/calibrate_activations.py dhpe-lite --photos "$data/photos" --backgrounds "$data/backgrounds" --write
tell "$bin/python" tools/build_refine_prior.py
tell "$bin/python" tools/calibrate_estimator.py dhpe-lite --photos "$data/photos" --backgrounds "$data/backgrounds" \
    --fixtures "$fixtures" --hands 600 --rendered 300 --empty 400 --write
tell "$bin/python" tools/fit_score.py --data "$data" --write

tell "$bin/python" tools/measure_card.py dhpe-lite --fixtures "$fixtures"

commit=$(git rev-parse --short HEAD)
for more in "" --consensus; do
    tell "$bin/densehand" evaluate "$fixtures" --refine fast $more --csv results/estimator.csv --commit "$commit" --quiet
    tell "$bin/densehand" evaluate "$fixtures" --consistency crops $more --quiet
done
tell "$bin/densehand" bench refine --hands 0 --paper 50 --fixtures "$fixtures" --csv results/refine.csv \
    --commit "$commit"
tell "$bin/densehand" bench refine --hands 500 --paper 40 --csv results/refine.csv --commit "$commit" \
    --picture docs/images/refine_iterations.png
# the sheet is of rendered hands alone: no photo of a person
tell "$bin/python" tools/analyse_errors.py --photos "$data/photos" --fixtures "$fixtures" --out results/errors.csv --card \
    --sheets docs/images --sheets-of synthetic
tell "$bin/python" tools/measure_end_to_end.py --data "$data" --fixtures "$fixtures" --csv results/end_to_end.csv --what now \
    ${peer:+--mediapipe-python "$peer"}
tell "$bin/python" tools/measure_turns.py --photos "$data/photos" --results results/turns.csv
tell "$bin/python" tools/measure_backdrops.py --photos "$data/photos" --backgrounds "$data/backgrounds"
for view in "" --plain; do
    tell "$bin/python" tools/measure_views.py --hands 60 $view --results results/views.csv
done
tell "$bin/python" benchmarks/bench_predict.py demo_photos/*.jpg --upright 1 --csv results/speed.csv ${peer:+--mediapipe "$peer"}
