#!/usr/bin/env bash
# From packaged weights (tools/package_weights.py) to a release: graphs, the scores' calibration and, of the default
# model, refinement's prior made anew, then all measured again.
#
#   tools/release.sh MODEL DATA FIXTURES [MEDIAPIPE_PYTHON]
#
# DATA: a folder with photos/ and backgrounds/. MEDIAPIPE_PYTHON: a Python that has mediapipe, to measure beside. A quarter
# of an hour on two cores.
#
# The figures of README.md and docs/ are copied by hand from what is printed here.
set -euo pipefail
model=$1 data=$2 fixtures=$3 peer=${4:-}
bin=${BIN:-.venv/bin}
tell() { echo "+ $*" >&2 && "$@"; }
pictures=docs/images
[ "$model" = dhpe-lite ] || pictures=$(mktemp -d) # the documents show the default model

tell "$bin/python" tools/export_graphs.py
tell "$bin/python" tools/calibrate_activations.py "$model" --photos "$data/photos" --backgrounds "$data/backgrounds" --write
[ "$model" != dhpe-lite ] || tell "$bin/python" tools/build_refine_prior.py
tell "$bin/python" tools/calibrate_estimator.py "$model" --photos "$data/photos" --backgrounds "$data/backgrounds" \
    --fixtures "$fixtures" --hands 600 --rendered 300 --empty 400 --write --picture "$pictures/reliability.png"
tell "$bin/python" tools/fit_score.py --model "$model" --data "$data" --write
tell "$bin/python" tools/measure_card.py "$model" --fixtures "$fixtures"

commit=$(git rev-parse --short HEAD)
evaluate=("$bin/densehand" evaluate "$fixtures" --model "$model" --quiet)
for more in "" --consensus; do
    tell "${evaluate[@]}" --refine fast $more --csv results/estimator.csv --commit "$commit"
    tell "${evaluate[@]}" --consistency crops $more
done
refine=("$bin/densehand" bench refine --model "$model" --csv results/refine.csv --commit "$commit")
tell "${refine[@]}" --hands 0 --paper 50 --fixtures "$fixtures"
tell "${refine[@]}" --hands 500 --paper 40 --picture "$pictures/refine_iterations.png"
# the sheet is of rendered hands alone: no photo of a person
tell "$bin/python" tools/analyse_errors.py --model "$model" --photos "$data/photos" --fixtures "$fixtures" \
    --out results/errors.csv --card --sheets "$pictures" --sheets-of synthetic
tell "$bin/python" tools/measure_end_to_end.py --model "$model" --data "$data" --fixtures "$fixtures" --count 300 \
    --csv results/end_to_end.csv --what now ${peer:+--mediapipe-python "$peer"}
tell "$bin/python" tools/measure_turns.py --model "$model" --photos "$data/photos" --results results/turns.csv
tell "$bin/python" tools/measure_backdrops.py "$model" --photos "$data/photos" --backgrounds "$data/backgrounds"
for view in "" --plain; do
    tell "$bin/python" tools/measure_views.py --model "$model" --hands 60 $view --results results/views.csv
done
tell "$bin/python" tools/measure_looks.py --model "$model" --hands 500 --photos "$data/photos" --results results/looks.csv
tell "$bin/python" tools/measure_bends.py --model "$model" --fixtures "$fixtures" --results results/bends.csv
tell "$bin/python" benchmarks/bench_predict.py demo_photos/*.jpg --upright 1 --csv results/speed.csv ${peer:+--mediapipe "$peer"}
