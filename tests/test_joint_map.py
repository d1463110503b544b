"""The joint correction: known maps are found, right hands left alone, nothing is corrected by its own labels."""

import csv
import json

import numpy as np
import pytest
from evaluation_cases import Oracle, make_dataset, read_rows, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from densehand.cli import run as densehand
from densehand.errors import InputError
from densehand.evaluate import summary
from densehand.evaluation.cases import open_cases
from densehand.evaluation.joint_map import FOLDS, LEAST_HANDS, corrected_errors, fit_joint_map, fold_of
from densehand.evaluation.run import run
from densehand.metrics import keypoint_error, pa_mpjpe

FIRM = 1e-6
"""A ridge that hardly draws to the identity."""


def hands(count, dimensions, seed=0):
    """Points at random, of the size that a hand has in mm or in pixels of its crop."""
    return np.random.default_rng(seed).normal(0, 40, (count, 21, dimensions))


def shifted(seed=0, size=0.05):
    """A map that puts every joint a little elsewhere; its rows sum to 1."""
    change = size * np.random.default_rng(seed).normal(0, 1, (21, 21))
    return np.eye(21) + change - change.mean(1, keepdims=True)


def names(count):
    return [str(i) for i in range(count)]


def turns(count, seed):
    return Rotation.random(count, random_state=seed).as_matrix()


# ---- what is found


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_system_with_its_own_joints_is_corrected(dimensions):
    target = hands(120, dimensions)
    found = shifted() @ target
    if dimensions == 3:  # of any size, place and turn
        rng = np.random.default_rng(1)
        found = rng.uniform(0.5, 2, (120, 1, 1)) * found @ turns(120, 2) + rng.normal(0, 500, (120, 1, 3))
        raw = np.mean([pa_mpjpe(f, t) for f, t in zip(found, target, strict=True)])
    else:
        raw = keypoint_error(found, target).mean()
    assert raw > 10
    assert corrected_errors(found, target, names(120), FIRM).mean() < (1e-3 if dimensions == 2 else 0.02) * raw
    usual, fewer = (corrected_errors(found[:n], target[:n], names(n)).mean() for n in (120, 40))
    assert usual < 0.4 * raw and usual < fewer < raw, "the more hands, the less it is drawn to the identity"


def test_rows_sum_to_1_and_the_map_is_the_inverse_of_the_systems():
    target = hands(100, 2)
    mapping = fit_joint_map(shifted() @ target, target, FIRM)
    np.testing.assert_allclose(mapping.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(mapping @ shifted(), np.eye(21), atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_system_of_the_sets_own_joints_stays_as_it_is(dimensions):
    found = hands(60, dimensions)
    assert corrected_errors(found, found, names(60)).max() < 1e-9
    noisy = found + np.random.default_rng(1).normal(0, 5, found.shape)
    raw = keypoint_error(noisy, found).mean()
    if dimensions == 3:
        raw = np.mean([pa_mpjpe(a, b) for a, b in zip(noisy, found, strict=True)])
    assert corrected_errors(noisy, found, names(60)).mean() == pytest.approx(raw, rel=0.1)


def test_a_shift_of_the_whole_hand_is_an_error_that_stays():
    """A map whose rows sum to 1 cannot move a hand, so a box that is set badly is not mended."""
    target = hands(40, 2)
    assert corrected_errors(target + (3, 4), target, names(40)).mean() == pytest.approx(5, rel=0.2)


# ---- what it does not depend on


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_turned_moved_and_mirrored_hands_have_the_same_errors(seed):
    rng = np.random.default_rng((seed, 1))
    target = hands(25, 2, seed)
    found = shifted(seed) @ target + rng.normal(0, 2, target.shape)
    turn = np.linalg.qr(rng.normal(0, 1, (25, 2, 2)))[0]  # each by its own
    move = rng.normal(0, 100, (25, 1, 2))
    wanted = corrected_errors(found, target, names(25))
    np.testing.assert_allclose(corrected_errors(found @ turn + move, target @ turn + move, names(25)), wanted)
    np.testing.assert_allclose(corrected_errors(found * 7, target * 7, names(25)), wanted * 7)


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10_000))
def test_where_the_system_has_a_hand_in_3d_does_not_matter(seed):
    rng = np.random.default_rng((seed, 1))
    target = hands(20, 3, seed)
    found = shifted(seed) @ target + rng.normal(0, 2, target.shape)
    elsewhere = rng.uniform(0.1, 9, (20, 1, 1)) * found @ turns(20, seed) + rng.normal(0, 100, (20, 1, 3))
    wanted = corrected_errors(found, target, names(20))
    np.testing.assert_allclose(corrected_errors(elsewhere, target, names(20)), wanted, rtol=1e-6)


# ---- labels


def naive_map(found, target):
    """Joint by joint, hand by hand, coordinate by coordinate."""
    rows = []
    for joint in range(21):
        sources, offsets = [], []
        for points, labels in zip(found, target, strict=True):
            for axis in range(found.shape[2]):
                if np.isfinite(labels[joint]).all():
                    sources.append(points[:, axis] - points[:, axis].mean())
                    offsets.append(labels[joint, axis] - points[joint, axis])
        change = np.linalg.lstsq(np.array(sources), np.array(offsets), rcond=None)[0]
        rows.append(change + np.eye(21)[joint])
    return np.array(rows)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_without_a_ridge_it_is_least_squares_over_the_labels(seed):
    rng = np.random.default_rng((seed, 1))
    found = hands(60, 2, seed)
    target = shifted(seed) @ found + rng.normal(0, 2, found.shape)
    target[rng.random((60, 21)) < 0.3] = np.nan
    np.testing.assert_allclose(fit_joint_map(found, target, ridge=0), naive_map(found, target), atol=1e-8)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_joints_without_a_label_have_neither_error_nor_map(dimensions):
    target = hands(120, dimensions)
    found = shifted() @ target
    hidden = np.random.default_rng(1).random((120, 21)) < 0.4
    hidden[:, 7], hidden[:, :4] = True, False
    seen = np.where(hidden[..., None], np.nan, target)
    errors = corrected_errors(found, seen, names(120), FIRM)
    assert (np.isnan(errors) == hidden).all()
    assert np.nanmean(errors) < 0.5, "and those with one are corrected"
    np.testing.assert_array_equal(fit_joint_map(found, seen)[7], np.eye(21)[7])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_hand_that_is_grossly_wrong_changes_nothing_for_the_others(dimensions):
    target = hands(60, dimensions)
    found = shifted() @ target + np.random.default_rng(1).normal(0, 1, target.shape)
    wrong = found.copy()
    wrong[[10, 40]] = hands(2, dimensions, seed=5) * 20
    right = np.delete(np.arange(60), [10, 40])
    before, after = (corrected_errors(f, target, names(60)) for f in (found, wrong))
    assert after[right].mean() == pytest.approx(before[right].mean(), rel=0.05)
    assert after[[10, 40]].mean() > 5 * after[right].mean(), "but it counts"


def test_no_hand_is_corrected_by_its_own_fold():
    target = hands(30, 2)
    found = shifted() @ target
    groups = [f"film {i // 4}" for i in range(30)]
    fold, errors = fold_of(groups), corrected_errors(found, target, groups)
    for number in range(FOLDS):
        mine = fold == number
        without = fit_joint_map(np.delete(found, mine, axis=0), np.delete(target, mine, axis=0))
        np.testing.assert_allclose(errors[mine], keypoint_error(without @ found[mine], target[mine]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=80))
def test_a_group_lies_in_one_fold_and_folds_follow_one_another(groups):
    fold = fold_of([str(group) for group in groups])
    first = list(dict.fromkeys(groups))
    each = [set(fold[[g == group for g in groups]]) for group in first]
    assert all(len(entry) == 1 for entry in each)
    assert [min(entry) for entry in each] == sorted(min(entry) for entry in each)
    assert fold.min() == 0 and fold.max() < FOLDS


def test_hands_of_their_own_are_cut_into_even_blocks():
    assert fold_of(names(10)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_too_few_hands():
    few = hands(LEAST_HANDS - 1, 2)
    with pytest.raises(InputError, match=r"19 hands .* takes 20 and 10; measure more"):
        corrected_errors(few, few, names(19))
    many = hands(40, 2)
    with pytest.raises(InputError, match="40 hands with labels, 5 of them outside"):
        corrected_errors(many, many, ["film"] * 35 + names(5))


# ---- runs and the command


def test_missed_hands_and_those_without_labels_in_a_run(tmp_path):
    folder = make_dataset(tmp_path, 24)
    rows = read_rows(folder)
    del rows[5]["keypoints_px"]
    write_rows(folder, rows)
    (plain,) = run(open_cases("densehand", folder), [Oracle(pixels=3, metres=0.01, misses=[5])])
    (result,) = run(open_cases("densehand", folder), [Oracle(pixels=3, metres=0.01, misses=[5])], correct=True)
    assert result.notes == []
    for index, (before, after) in enumerate(zip(plain.hands(), result.hands(), strict=True)):
        assert {*after.errors} == {*before.errors, "corrected_pa_mm"} | ({"corrected_px"} if index != 5 else set())
        for kind, values in before.errors.items():
            np.testing.assert_array_equal(after.errors[kind], values)
        assert np.isinf(after.errors["corrected_pa_mm"]).all() == (index == 5)
    before, after = summary(plain.hands()), summary(result.hands())
    assert before.items() <= after.items()
    assert after["corrected_median_px"] == pytest.approx(before["median_px"], rel=0.3), "a shift stays"
    assert 0 < after["corrected_pa_mm"] < before["pa_mm"], "the same joint is off in all hands"
    (flat,) = run(open_cases("densehand", folder), [Oracle(flat=True, misses=[5])], correct=True)
    assert all({*hand.errors} == {"px", "corrected_px"} for i, hand in enumerate(flat.hands()) if i != 5)


@pytest.fixture
def predictions(tmp_path):
    """A set of 24 hands and a system whose joints lie elsewhere."""
    data, file = make_dataset(tmp_path / "data", 24), tmp_path / "theirs.jsonl"
    rows = [
        {"schema": "densehand-keypoints/1", "image": row["image"],
         "hands": [{"keypoints_2d": (shifted(size=0.1) @ np.array(row["keypoints_px"])).tolist()}]}
        for row in read_rows(data)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["evaluate", str(data), "-d", "densehand", "--predictions", str(file)]


def test_the_command_tells_corrected_figures_beside_the_raw_ones(tmp_path, predictions, capsys):
    out, results = tmp_path / "out", tmp_path / "r.csv"
    assert densehand([*predictions, "--correct", "--report", str(out), "--csv", str(results)]) == 0
    corrected = capsys.readouterr().out
    assert densehand(predictions) == 0
    for line, plain in zip(corrected.splitlines(), capsys.readouterr().out.splitlines(), strict=True):
        told = line.split()
        at = told.index("corrected_median_px")
        assert told[at + 2] == "corrected_mean_px"
        assert told[:at] + told[at + 4 :] == plain.split(), "the raw figures stay"
    with results.open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert 0 < float(row["corrected_median_px"]) < float(row["median_px"])
    assert 0 < float(row["corrected_mean_px"]) < float(row["mean_px"])
    figures = json.loads((out / "report.json").read_text())["systems"][0]["all"]
    assert figures["corrected_px"]["mean"] == pytest.approx(float(row["corrected_mean_px"]), abs=1e-3)
    assert "2D, joints corrected (px)" in (out / "report.html").read_text()


def test_a_corrected_report_is_continued_and_a_raw_one_is_not(tmp_path, predictions, capsys):
    out = tmp_path / "out"
    command = [*predictions, "--report", str(out)]
    assert densehand([*command, "--limit", "21", "--correct"]) == 0
    assert densehand([*command, "--correct"]) == 0
    again = {path.name: path.read_bytes() for path in out.iterdir()}
    assert densehand([*command, "--correct", "--restart"]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == again
    capsys.readouterr()
    assert densehand(command) == 1
    assert "correct True → None" in capsys.readouterr().err


def test_what_the_command_cannot_correct_is_said(predictions, capsys):
    assert densehand([*predictions, "--correct", "--limit", "12"]) == 0
    said = capsys.readouterr()
    assert "theirs: no corrected_px: 12 hands with labels" in said.err
    assert "median_px" in said.out and "corrected" not in said.out
    assert densehand([*predictions, "--correct", "--consistency", "views"]) != 0
    assert "--correct" in capsys.readouterr().err
