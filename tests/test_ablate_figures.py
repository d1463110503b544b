"""The ablation's figures: what is measured, a table that tells signs, and curves."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from densehand.ablation.data import rendered
from densehand.ablation.figure import mean_curve, panels
from densehand.ablation.measure import TestHands, measure, scaled_errors
from densehand.ablation.table import cell, csv_rows, text
from densehand.charts import Line, Panel, draw, ticks
from densehand.data.records import Records
from densehand.errors import InputError
from densehand.metrics import scaled_error
from densehand.network.mesh import MeshParameters, encode
from densehand.synth import Synthesizer


@pytest.fixture(scope="module")
def records(hand):
    return rendered(Synthesizer(hand, size=64), 3, seed=5)


# ---- measuring


class Knows(torch.nn.Module):
    """Says what it is told, whatever it sees."""

    def __init__(self, hand, h):
        super().__init__()
        self.hand, self.h = hand, h

    def forward(self, images):
        from densehand.network.mesh import skeleton_in_crop

        flat = skeleton_in_crop(self.hand, self.h)[..., :2]
        ones = torch.ones(len(self.h), 21)
        return type("Estimate", (), {"parameters": [self.h], "keypoints": [flat], "keypoint_confidence": ones})()

    def render_mask(self, h, size):
        return torch.zeros(len(h), size, size)


def test_the_truth_measures_as_perfect_and_a_shift_as_its_length(hand, records):
    hands = TestHands.cut(hand, records, 64, limit=3)
    batch = hands.batches[0]
    wrist = batch.skeleton[:, 0]
    scale = (batch.skeleton[:, 9] - wrist).norm(dim=-1) / torch.tensor(
        np.linalg.norm(hands.joints[0][:, 9] - hands.joints[0][:, 0], axis=-1) / 1000
    )
    h = encode(MeshParameters(batch.pose, batch.shape, batch.rotation, scale.float(), wrist))
    batch.keypoints = batch.skeleton[..., :2].clone()
    found = measure(Knows(hand, h), hands)
    assert found["px"] < 0.01 and found["pa_mm"] < 0.01 and found["near"] == 1
    assert found["auc_20_50"] == 1 and 0.95 < found["auc_0_50"] < 1  # at threshold 0 the wrist alone is right
    assert found["iou"] == 0  # nothing is drawn
    moved = h.clone()
    moved[:, 60] += 0.5  # half a crop unit, beyond τ
    moved = measure(Knows(hand, moved), hands)
    assert moved["px"] == pytest.approx(56.0, abs=0.02) and moved["near"] == 0
    assert moved["pa_mm"] == pytest.approx(found["pa_mm"], abs=1e-3)


@given(st.integers(0, 2**31))
def test_joint_errors_average_to_the_measures_of_the_field(seed):
    generator = np.random.default_rng(seed)
    found, truth = generator.normal(size=(2, 3, 21, 3)) * 50
    naive = [scaled_error(f, t) for f, t in zip(found, truth, strict=True)]
    assert np.allclose(scaled_errors(found, truth).mean(1), naive)


def test_first_hands_are_whole_batches(hand, records):
    hands = TestHands.cut(hand, records, 64, limit=3, batch=1)
    assert [len(hands.first(n).batches) for n in (1, 2, 3)] == [1, 2, 3]
    untrusted: Records = replace(records, trust=torch.tensor([0.0, 1.0, 1.0]))
    assert len(TestHands.cut(hand, untrusted, 64, limit=9).joints[0]) == 2
    with pytest.raises(InputError, match="none of 3 test hands has trusted 3D labels"):
        TestHands.cut(hand, replace(records, trust=torch.zeros(3)), 64, limit=9)


# ---- the table and the curves


def made_up(px, pa, seeds=(0, 1), off=1.0):
    """Results by seed of one row; without testing refinement `off` px more."""
    return {
        seed: {
            "figures": {
                mode: {"px": px[seed] + more, "pa_mm": pa[seed], "auc_20_50": 1 - pa[seed] / 50, "auc_0_50": 0.5,
                       "iou": None, "pck": np.linspace(0, 1, 51).tolist()}
                for mode, more in (("fast", 0.0), ("off", off))
            },
            "learning": [{"step": 0, "pa_mm": 20.0, "near": 0.0}, {"step": 4, "pa_mm": pa[seed], "near": 0.5}],
        }
        for seed in seeds
    }  # fmt: skip


def test_differences_are_taken_seed_by_seed_with_their_sign():
    full, shape = made_up([10.0, 20.0], [8.0, 9.0]), made_up([11.0, 22.0], [7.5, 9.5])
    results = {"full": full, "no-refinement": full, "no-shape": shape}
    found = cell(results, "no-shape", "fast", "px")
    assert (found.mean, found.difference, found.worse, found.shared) == (16.5, 1.5, 2, 2)
    assert found.difference_spread == pytest.approx(0.5**0.5)
    assert cell(results, "no-shape", "fast", "pa_mm").worse == 1
    assert cell(results, "no-shape", "fast", "auc_20_50").worse == 1  # less is worse
    assert cell(results, "no-refinement", "fast", "px").difference == 1.0
    assert cell(results, "full", "fast", "px").difference is None
    assert cell(results, "no-shape", "fast", "iou") is None
    assert cell({"no-shape": {0: shape[0]}, "full": {}}, "no-shape", "fast", "px").difference is None
    table = text(results)
    assert "| without shape loss | 2 | 16.50 ± 7.78 (+1.50 ± 0.71) |" in table
    assert table.count("without testing refinement") == 1  # no row among regressions alone
    options = dict.fromkeys(("model", "size", "batch", "head_start", "steps", "pool", "test_hands"), 1)
    options |= {"photos": "crops", "data": "synthetic"}
    lines = {(line["row"], line["compared_with"]): line for line in csv_rows(results, options, "abc")}
    assert lines["no-shape", "full, fast"]["px_difference"] == 1.5
    assert lines["no-shape", "full, fast"]["px_worse"] == "2 of 2"
    assert lines["no-refinement", "full, fast"]["refine"] == "off"
    assert {line["data"] for line in lines.values()} == {"photos"}


def test_one_seed_has_no_spread():
    results = {"full": made_up([10.0], [8.0], seeds=(0,))}
    found = cell(results, "full", "fast", "px")
    assert found.spread is None and found.seeds == 1
    assert "| full | 1 | 10.00 | 8.00 |" in text(results)


def test_curves_become_one_picture_in_the_rows_colours():
    results = {"full": made_up([10.0, 20.0], [8.0, 9.0]), "no-2d": made_up([11.0, 22.0], [9.0, 10.0])}
    curve = {"iterations": [0, 5], "px": [10.0, 9.0]}
    charts = panels(results, {"full": {0: {"fast": curve, "paper": curve}}})
    assert [len(chart.lines) for chart in charts] == [2, 2, 2, 2]
    picture = np.asarray(Image.open(BytesIO(draw(charts))).convert("RGB")).astype(int)
    assert (np.abs(picture - [213, 94, 0]).sum(-1) < 30).sum() > 200
    with pytest.raises(ValueError, match="no curves"):
        draw([])
    flat = Panel("flat", "x", "y", [Line("one", (0, 0, 0), [0.0, 1.0], [2.0, 2.0])])
    assert draw([flat]).startswith(b"\x89PNG")


def test_mean_curves_and_ticks():
    assert mean_curve([([0, 5, 9], [1.0, 2.0, 3.0]), ([0, 9], [3.0, 5.0])]) == ([0.0, 9.0], [2.0, 4.0])


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_few_and_within(low, span):
    values = ticks(low, low + span)
    assert 1 <= len(values) <= 8
    assert all(low - 1e-6 * span <= v <= low + span * (1 + 1e-6) for v in values)
