"""Scores as probabilities: the measures, the map in the model card, where it applies and where not, how it is made."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from dummies import DummyHand
from hands import make_hand, open_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_loader import load_tool

from densehand import export
from densehand.errors import InputError, WeightsError
from densehand.evaluate import score_figures
from densehand.evaluation import calibrating, scores
from densehand.evaluation.scores import Looks
from densehand.metrics import auroc, brier_score, expected_calibration_error, false_alarms, reliability
from densehand.network.calibration import Calibration, logit
from densehand.network.card import card_beside
from densehand.network.config import CONFIGS
from densehand.network.zoo import build_model, load_model, save_weights
from densehand.photo import HandBox
from densehand.pipeline import HandEstimator
from densehand.refine.views import refine_views
from densehand.report import HandErrors
from densehand.result import Hand

SCORED = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]), st.booleans()), min_size=1)
BOTH = SCORED.filter(lambda rows: len({truth for _, truth in rows}) == 2)
CHANGED = Calibration(1.5, 0.7, 0.8, -1.0, 2.0)

# ---- measures


@settings(max_examples=60, deadline=None)
@given(SCORED, st.integers(1, 12))
def test_calibration_error_and_brier_equal_a_loop(rows, bins):
    p, t = zip(*rows, strict=True)
    gap = 0.0
    for number in range(bins):
        inside = [(a, b) for a, b in rows if number <= a * bins < number + 1 or (a == 1 and number == bins - 1)]
        if inside:
            gap += abs(sum(a for a, _ in inside) - sum(b for _, b in inside))
    assert expected_calibration_error(p, t, bins) == pytest.approx(gap / len(rows))
    assert brier_score(p, t) == pytest.approx(sum((a - b) ** 2 for a, b in rows) / len(rows))
    for even in (False, True):
        found = reliability(p, t, bins, even)
        assert found.size.sum() == len(rows) and (np.diff(found.score) >= 0).all()
        assert found.size @ found.share == pytest.approx(sum(t))
    assert np.ptp(found.size) <= 1


@settings(max_examples=60, deadline=None)
@given(BOTH, st.sampled_from([0.3, 0.5, 0.95, 1.0]))
def test_ranking_equals_a_loop_over_pairs(rows, recall):
    true, false = [a for a, b in rows if b], [a for a, b in rows if not b]
    wins = [(a > b) + 0.5 * (a == b) for a in true for b in false]
    p, t = zip(*rows, strict=True)
    assert auroc(p, t) == pytest.approx(np.mean(wins))
    threshold, share = false_alarms(p, t, recall)
    passing = max(x for x in true if np.mean([a >= x for a in true]) >= recall - 1e-12)
    assert threshold == passing and share == pytest.approx(np.mean([a >= passing for a in false]))


def test_measures_by_hand():
    p, t = [0.9, 0.8, 0.1, 0.3], [1, 0, 0, 1]
    assert expected_calibration_error(p, t, 2) == pytest.approx(0.5 * abs(0.85 - 0.5) + 0.5 * abs(0.2 - 0.5))
    assert brier_score(p, t) == pytest.approx((0.01 + 0.64 + 0.01 + 0.49) / 4)
    assert auroc(p, t) == 0.75 and false_alarms(p, t, 0.5) == (0.9, 0.0) and false_alarms(p, t, 1.0) == (0.3, 0.5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: brier_score([0.5], [1, 0]), "give one truth for each"),
        (lambda: expected_calibration_error([1.2], [1]), "outside 0…1"),
        (lambda: expected_calibration_error([0.2], [1], 0), "bins: 0"),
        (lambda: reliability([0.2], [0.5]), "other than 0 and 1"),
        (lambda: auroc([np.nan, 0], [1, 0]), "NaN"),
        (lambda: auroc([0.1, 0.2], [1, 1]), "all the same"),
        (lambda: false_alarms([0.1, 0.2], [1, 0], 0.0), "recall: 0"),
        (lambda: brier_score([], []), "empty"),
    ],
)
def test_what_cannot_be_measured(call, said):
    with pytest.raises(InputError, match=said):
        call()


# ---- the map and its card


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 5), st.floats(-5, 5), st.lists(st.floats(0, 1, width=32), min_size=21, max_size=21))
def test_the_map_keeps_the_order_and_stays_within_bounds(scale, bias, values):
    confidence = np.float32(values)
    assert Calibration().keypoints(confidence) is confidence
    mapped = Calibration(keypoint_scale=scale, keypoint_bias=bias).keypoints(confidence)
    assert mapped.dtype == np.float32 and ((mapped >= 0) & (mapped <= 1)).all()
    order = confidence.argsort(kind="stable")
    assert (np.diff(mapped[order]) >= 0).all()
    expected = [1 / (1 + np.exp(-(scale * logit(v) + bias))) for v in confidence]
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


@pytest.mark.parametrize(
    "record", [[], {"hand_scale": 0.0}, {"side_scale": -1}, {"hand_bias": "1"}, {"keypoint_bias": float("nan")},
               {"keypoint_bias": True}, {"keypoint_scale": None}],
)  # fmt: skip
def test_calibrations_that_are_none(record):
    with pytest.raises(ValueError, match="calibration"):
        Calibration.from_card(record)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    model = build_model(dataclasses.replace(CONFIGS["dhpe-lite"], corrector=0, side_corrector=0)).eval()
    for head in (model.side_head, model.hand_head):
        torch.nn.init.normal_(head.weight, std=0.3)
    return model


def test_the_card_carries_it_and_old_cards_change_nothing(tmp_path):
    path = tmp_path / "dhpe-lite.safetensors"
    model = build_model("dhpe-lite", DummyHand()).eval()
    assert model.calibration == Calibration()
    save_weights(model, path, card={"calibration": {**CHANGED.to_card(), "commit": "abc"}})
    for fuse in (True, False):
        assert load_model("dhpe-lite", path=path, hand=DummyHand(), fuse=fuse).calibration == CHANGED
    card = path.with_suffix(".json")
    record = json.loads(card.read_text())
    assert record["calibration"]["commit"] == "abc"
    card.write_text(json.dumps({name: value for name, value in record.items() if name != "calibration"}))
    assert load_model("dhpe-lite", path=path, hand=DummyHand()).calibration == Calibration()
    card.write_text(json.dumps(record | {"calibration": {"hand_scale": -2.0}}))
    with pytest.raises(WeightsError, match=r"not a model card .*hand_scale"):
        card_beside(tmp_path / "dhpe-lite.safetensors")


# ---- where it applies


def test_results_are_calibrated_and_refinement_is_as_it_was(network, monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (150, 150, 3), dtype=np.uint8)
    boxes = [HandBox((30, 30, 120, 110), "right"), HandBox((30, 30, 120, 110), "left"), HandBox((30, 30, 120, 110))]
    raw = HandEstimator(network, device="cpu", refine="fast")(image, boxes)
    monkeypatch.setattr(network, "calibration", CHANGED)
    fitted = HandEstimator(network, device="cpu", refine="fast")(image, boxes)
    assert raw[0].keypoints_weight.tolist() == raw[0].keypoints_score.tolist()
    for before, after in zip(raw[:2], fitted[:2], strict=True):
        for name in ("vertices", "pose", "translation", "keypoints_2d", "keypoints_weight"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)
        assert after.refinement == before.refinement and after.side_score == 1
        np.testing.assert_allclose(after.keypoints_score, CHANGED.keypoints(before.keypoints_score), atol=1e-6)
        assert np.abs(after.keypoints_score - before.keypoints_score).max() > 0.01
        assert logit(after.score) == pytest.approx(0.8 * logit(before.score) - 1.0, abs=1e-4)
    towards = [(1 if hand.side == "right" else -1) * logit(hand.side_score) for hand in (raw[2], fitted[2])]
    assert towards[1] == pytest.approx(2.0 * towards[0], abs=1e-3)


def test_refinement_of_results_goes_by_the_raw_confidence(tmp_path):
    weight = np.linspace(0.2, 0.9, 21, dtype=np.float32)
    plain = dataclasses.replace(make_hand("right", seed=1), keypoints_score=weight)
    plain = dataclasses.replace(plain, keypoints_2d=plain.keypoints_2d + np.linspace(-3, 3, 21)[:, None])
    hand = dataclasses.replace(plain, keypoints_score=CHANGED.keypoints(weight), keypoints_weight=weight)
    back = Hand.from_json_dict(json.loads(json.dumps(hand.to_json_dict())), open_hand())
    export.write_npz(tmp_path / "a.npz", hand)
    export.write_npz(tmp_path / "b.npz", plain)
    expected = refine_views(open_hand(), [plain], "fast")[0]
    for same in (hand, back, export.read_npz(tmp_path / "a.npz"), export.read_npz(tmp_path / "b.npz")):
        found = refine_views(open_hand(), [same], "fast")[0]
        np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-6)
        assert found.refinement.residual_px == pytest.approx(expected.refinement.residual_px, rel=1e-4)
    assert "keypoints_weight" not in plain.to_json_dict()
    with pytest.raises(InputError, match="keypoints_weight"):
        dataclasses.replace(plain, keypoints_weight=np.ones(20))


def test_evaluation_tells_the_calibration_error():
    limit = 0.1 * 224 / 1.5
    errors = np.r_[np.full(10, limit * 0.99), np.full(10, limit * 1.01), np.nan]
    hands = [HandErrors("a", {"px": errors}, keypoints_score=np.full(21, 0.8)), HandErrors("b", {"px": errors})]
    assert score_figures(hands)["score_ece"] == pytest.approx(0.3)
    lost = HandErrors("c", {"px": np.full(21, np.inf)})
    assert score_figures(hands[1:]) == {} == score_figures([lost])


# ---- fitting and judging


def looks_of(count, seed, scale=2.0, bias=1.0, hand=3.0):
    """Scores whose true log-odds are scale · theirs + bias, in groups of four."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1.5, (count, 21))
    side = rng.normal(1.5, 1.5, (2, count))
    near = rng.uniform(size=odds.shape) < 1 / (1 + np.exp(-(scale * odds + bias)))
    known = rng.uniform(size=odds.shape) < 0.9
    group = np.array([f"{seed}/{i // 4}" for i in range(count)])
    return Looks(1 / (1 + np.exp(-odds)), near, known, rng.normal(hand, 1, count), side[0], -side[1], group)


HANDS = {"photos": looks_of(120, 0), "rendered": looks_of(60, 1)}
EMPTY = {"backgrounds": looks_of(80, 2, hand=-2.0), "frames": looks_of(40, 3, hand=0.0)}


def test_the_fit_finds_the_map_and_judging_shows_it():
    found = calibrating.fit_all(HANDS, EMPTY)
    assert found.keypoint_scale == pytest.approx(2.0, abs=0.3) and found.keypoint_bias == pytest.approx(1, abs=0.2)
    rows = {(row["score"], row["data"]): row for row in calibrating.judge(HANDS, EMPTY)}
    assert rows["keypoint", "all"]["ece"] < 0.03 < 0.1 < rows["keypoint", "all"]["ece_raw"]
    assert rows["keypoint", "rendered"]["count"] == HANDS["rendered"].known.sum()
    assert rows["hand", "all"]["count"] == 240 and rows["hand", "all"]["true_share"] == 0.5
    pair = rows["hand", "photos against frames"]
    assert pair["count"] == 160 and 0.9 < pair["auroc"] < 1 and pair["false_at_95%"] <= pair["false_at_99%"]
    right = np.r_[HANDS["photos"].right > 0, HANDS["photos"].turned < 0]
    assert rows["side", "photos"]["right_raw"] == right.mean()


def test_no_picture_is_judged_by_a_map_it_was_fitted_with():
    pairs = calibrating.keypoint_pairs(HANDS)
    fold = calibrating.folds_of(pairs.group)
    for name in np.unique(pairs.group):
        assert len(set(fold[pairs.group == name])) == 1
    assert set(fold) == set(range(calibrating.FOLDS))
    before = calibrating.cross_validated(pairs)
    mine = fold == 2
    lies = dataclasses.replace(pairs, truth=np.where(mine, False, pairs.truth))
    after = calibrating.cross_validated(lies)
    np.testing.assert_array_equal(after[mine], before[mine], err_msg="its own truths do not matter")
    assert np.abs(after[~mine] - before[~mine]).max() > 0.01


def test_a_score_that_misleads_is_refused():
    pairs = calibrating.keypoint_pairs(HANDS)
    with pytest.raises(InputError, match="train the network further"):
        calibrating.fit(dataclasses.replace(pairs, truth=~pairs.truth))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 4))
def test_hand_free_squares_keep_away_from_every_box(seed, count):
    rng = np.random.default_rng(seed)
    boxes = [[*low, *(low + rng.uniform(5, 120, 2))] for low in rng.uniform(0, 250, (count, 2))]
    row = {"boxes": boxes[::2], "teacher": [{"box": box} for box in boxes[1::2]]}
    place = scores._clear_square(row, 320, 240, rng)
    assert place is not None or count
    if place is not None:
        x, y, half = place
        assert half <= x <= 320 - half and half <= y <= 240 - half
        for x0, y0, x1, y1 in boxes:
            assert x0 > x + half or x1 < x - half or y0 > y + half or y1 < y - half


def test_looks_know_what_is_near_and_show_both_sides(network):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        estimate, mirrored = network(images), network(images.flip(-1))
    box = 0.5
    keypoints = torch.zeros(3, 21, 2) + torch.linspace(-box / 2, box / 2, 21)[:, None]
    found = scores.look(network, images, ["a", "b", "b"], keypoints)
    distance = (estimate.keypoints_2d - keypoints).norm(dim=-1)
    np.testing.assert_array_equal(found.near, distance <= 0.1 * box)
    np.testing.assert_allclose(found.turned, mirrored.side_logit, atol=1e-5)
    np.testing.assert_allclose(found.hand, estimate.hand_logit, atol=1e-5)
    assert found.known.all() and not scores.look(network, images, ["a"] * 3, None).known.any()
    assert len(Looks.join([found, found])) == 6


def test_the_tool_writes_card_rows_and_picture(tmp_path, monkeypatch, capsys):
    tool = load_tool("calibrate_estimator")
    for name, looks in zip(
        ("photo_looks", "synthetic_looks", "background_looks", "frame_looks"), [*HANDS.values(), *EMPTY.values()],
        strict=True,
    ):  # fmt: skip
        monkeypatch.setattr(tool, name, lambda *_, found=looks: found)
    path = tmp_path / "dhpe-lite.safetensors"
    save_weights(build_model("dhpe-lite").eval(), path, card={"accuracy": {"kept": 1}})
    options = [str(path), "--photos", "p", "--backgrounds", "b", "--csv", str(tmp_path / "r.csv")]
    options += ["--picture", str(tmp_path / "r.png")]
    tool.main(options)
    assert load_model("dhpe-lite", path=path).calibration == Calibration() and not (tmp_path / "r.csv").exists()
    tool.main([*options, "--write"])
    stored = card_beside(tmp_path / "dhpe-lite.safetensors")
    expected = calibrating.fit_all(HANDS, EMPTY).to_card()
    assert {name: stored.calibration[name] for name in expected} == expected and stored.accuracy == {"kept": 1}
    assert load_model("dhpe-lite", path=path).calibration == Calibration(**expected)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert len(lines) == 1 + len(calibrating.judge(HANDS, EMPTY)) and stored.sha256[:12] in lines[1]
    assert cv2.imread(str(tmp_path / "r.png")).std() > 5
    assert "mean keypoint score" in capsys.readouterr().out
