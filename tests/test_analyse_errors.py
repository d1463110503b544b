"""tools/analyse_errors.py: errors by group of hands and of keypoints, and which groups a model's card must name."""

import json

import cv2
import numpy as np
import pytest
import torch
from tool_loader import load_tool

from densehand.camera import SHOWN
from densehand.errors import InputError
from densehand.hand.keypoints import KEYPOINT_NAMES
from densehand.metrics import pa_mpjpe
from densehand.network.zoo import build_model
from densehand.pipeline import HandEstimator

load_tool("error_cases")
tool = load_tool("analyse_errors")


def cases(words: dict[str, list[str]], seen=None):
    count = len(next(iter(words.values())))
    joints = np.zeros((count, 21, 3))
    images, keypoints = torch.zeros(count, 3, 8, 8), torch.zeros(count, 21, 2)
    return tool.Cases(images, keypoints, joints, False, np.zeros(count, bool), words, seen)


def errors(px, mm=None, side_right=None):
    """Errors of n hands: of each hand (n), or of each keypoint (n, 21)."""

    def full(values) -> np.ndarray:
        values = np.asarray(values, float)
        return values if values.ndim == 2 else np.repeat(values[:, None], 21, 1)

    px = full(px)
    count = len(px)
    mm = np.full((count, 21), np.nan) if mm is None else full(mm)
    right = np.ones(count, bool) if side_right is None else np.asarray(side_right)
    return tool.Errors(px, mm, right, np.linspace(0, 1, count), np.zeros((count, 21, 2)))


def by_name(rows):
    return {(row["attribute"], row["group"]): row for row in rows}


def test_a_group_far_above_the_mean_is_named_unless_it_is_small():
    words = {"view": ["palm"] * 60 + ["side"] * 30, "pose": ["open"] * 85 + ["fist"] * 5}
    error = np.array([4.0] * 60 + [10.0] * 25 + [50.0] * 5)
    table = tool.table(cases(words), errors(error))
    rows = by_name(table)
    assert rows["all", "all"]["over_mean"] == 1
    assert rows["view", "side"]["over_mean"] == pytest.approx(error[60:].mean() / error.mean(), abs=0.005)
    assert rows["pose", "fist"]["lost"] == 1
    assert rows["pose", "fist"]["unsure_by"] == "mean+lost"  # five fists tell too little
    named = tool.weak_groups(table)
    assert named["view: side"] == {
        "hands": 30, "over_mean": rows["view", "side"]["over_mean"], "over_lost": 3.0,
    }  # fmt: skip
    assert not any(group.startswith("pose") for group in named)


@pytest.mark.parametrize("measure", ["mean", "lost", "pa_mm", "side_wrong"])
def test_a_group_is_named_by_the_one_measure_in_which_it_is_weak(measure):
    bad = np.arange(120) < 40
    words = {"side": ["left"] * 40 + ["right"] * 80}
    px, mm, right = np.full(120, 10.0), np.full(120, 8.0), np.arange(120) % 20 != 19
    if measure == "mean":
        px = np.where(bad, 15.0, 10.0)
    elif measure == "lost":  # the mean alone tells nothing: the others are a little worse
        px = np.where(np.arange(120) < 12, 30.0, np.where(bad, 6.0, 13.0))
    elif measure == "pa_mm":
        mm = np.where(bad, 14.0, 8.0)
    else:
        right = ~(np.arange(120) < 12)
    named = tool.weak_groups(tool.table(cases(words), errors(px, mm, right)))
    assert set(named.get("side: left", {})) == {"hands", f"over_{measure}"}
    assert "side: right" not in named


def test_even_errors_name_nobody():
    words = {"side": ["left", "right"] * 40}
    table = tool.table(cases(words), errors(np.full(80, 5.0), np.full(80, 5.0)))
    assert tool.weak_groups(table) == {}
    assert not any(row["unsure_by"] for row in table)


def test_chance_is_no_weakness():
    """One lost hand in a small group is 2.5 times the share of all, and tells nothing."""
    px = np.full(100, 5.0)
    px[[0, 60]] = 25.0
    words = {"pose": ["fist"] * 20 + ["open"] * 80}
    row = by_name(tool.table(cases(words), errors(px)))["pose", "fist"]
    assert (row["over_lost"], row["weak_by"], row["unsure_by"]) == (2.5, "", "lost")


def test_hands_of_unknown_words_are_no_group():
    words = {"view": ["palm"] * 60 + ["unknown"] * 60}
    table = tool.table(cases(words), errors([4.0] * 60 + [16.0] * 60))
    assert by_name(table)["view", "unknown"]["over_mean"] == 1.6
    assert "view: unknown" not in tool.weak_groups(table)


def test_confidence_is_judged_in_thirds():
    table = by_name(tool.table(cases({"side": ["left"] * 90}), errors(np.linspace(9, 1, 90))))
    means = [table["confidence (proxy)", word]["mean_px"] for word in ("low", "middling", "high")]
    assert means == sorted(means, reverse=True)
    assert [table["confidence (proxy)", word]["hands"] for word in ("low", "middling", "high")] == [30, 30, 30]


def test_keypoints_by_hand():
    """A naive twin: every keypoint of every hand looked at alone."""
    rng = np.random.default_rng(1)
    px, mm = rng.exponential(12, (7, 21)), rng.exponential(9, (7, 21))
    px[rng.random(px.shape) < 0.2] = np.nan
    px[:, 8] = np.nan  # no hand has a label of the index finger's tip
    mm[rng.random(mm.shape) < 0.2] = np.nan
    seen = rng.random((7, 21)) < 0.7
    rows = by_name(tool.keypoint_table(cases({"side": ["left"] * 7}, seen), errors(px, mm)))

    def twin(wanted):
        chosen = [(i, k) for i in range(7) for k in range(21) if np.isfinite(px[i, k]) and wanted(i, k)]
        known = [mm[c] for c in chosen if np.isfinite(mm[c])]
        values, every = [px[c] for c in chosen], px[np.isfinite(px)]
        return {
            "hands": len({i for i, _ in chosen}), "mean_px": round(sum(values) / len(values), 2),
            "median_px": round(float(np.median(values)), 2),
            "lost": round(sum(v > 20 for v in values) / len(values), 3),
            "over_mean": round(sum(values) / len(values) / every.mean(), 2),
            "share_of_error": round(sum(values) / every.sum(), 3), "pa_mm": round(sum(known) / len(known), 2),
            "seen": round(sum(bool(seen[c]) for c in chosen) / len(chosen), 2),
        }  # fmt: skip

    ranks = {"knuckle": ("cmc", "mcp"), "middle joint": ("mcp", "pip"), "end joint": ("ip", "dip"), "tip": ("tip",)}
    for (attribute, group), row in rows.items():
        if attribute == "keypoint":
            expected = twin(lambda i, k, group=group: KEYPOINT_NAMES[k] == group)
        elif attribute == "finger":
            expected = twin(lambda i, k, group=group: KEYPOINT_NAMES[k].startswith(f"{group}_"))
        elif attribute == "joint":
            thumbs, others = ranks[group][0], ranks[group][-1]
            ends = [f"thumb_{thumbs}", *(f"{finger}_{others}" for finger in ("index", "middle", "ring", "little"))]
            expected = twin(lambda i, k, ends=ends: KEYPOINT_NAMES[k] in ends)
        else:
            expected = twin(lambda i, k, group=group: seen[i, k] == (group == "seen"))
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-9), (attribute, group)
    assert [attribute for attribute, _ in rows].count("keypoint") == 20
    assert ("keypoint", "index_tip") not in rows


def test_joints_after_alignment_leave_out_those_without_a_label():
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 50, (21, 3))
    joints = truth + rng.normal(0, 8, (21, 3))
    assert tool.aligned_error(joints, truth).mean() == pytest.approx(pa_mpjpe(joints, truth))
    some = truth.copy()
    some[[3, 7]] = np.nan
    found, known = tool.aligned_error(joints, some), np.isfinite(some).all(1)
    np.testing.assert_array_equal(np.isfinite(found), known)
    assert found[known].mean() == pytest.approx(pa_mpjpe(joints[known], truth[known]))
    some[3:] = np.nan
    assert np.isnan(tool.aligned_error(joints, some)).all()


def write_fixtures(folder, rows3d):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "a.png"), rng.integers(0, 255, (200, 200, 3), dtype=np.uint8))
    points = rng.uniform(60, 140, (21, 2)).round(1)
    base = {"image": "a.png", "source": "drawn", "side": "right", "keypoints_px": points.tolist()}
    rows2d = [
        {**base, "visible": [i != 20 for i in range(21)]}, {**base, "side": None, "visible": [True] * 21},
    ]  # fmt: skip
    joints = (rng.normal(0, 40, (21, 3)) + (0, 0, 600)).round(2)
    rows3d = [{**base, **row, "joints_mm": joints.tolist(), "intrinsics": [200, 200, 100, 100]} for row in rows3d]
    for name, rows in (("val2d", rows2d), ("val3d", rows3d)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return points, joints


def test_fixtures_are_shown_as_right_hands(tmp_path, capsys):
    points, joints = write_fixtures(tmp_path, [{"side": "right"}, {"side": "left"}])
    found = tool.fixture_hands(tmp_path, 64)
    assert "1 of 4 hands left out" in capsys.readouterr().out
    assert found.was_left.tolist() == [False, False, True]
    assert found.groups["side"] == ["right", "right", "left"]
    assert found.groups["source"] == ["val2d drawn", "val3d drawn", "val3d drawn"]
    assert found.groups["view"][0] == "unknown" != found.groups["view"][1]  # val2d has no joints in 3D
    assert np.isnan(found.joints[0]).all() and torch.isnan(found.keypoints[0, 20]).all()
    middle, half = (points.min(0) + points.max(0)) / 2, 0.75 * SHOWN * np.ptp(points, axis=0).max()
    np.testing.assert_allclose(found.keypoints[1], (points - middle) / half, atol=1e-5)
    np.testing.assert_allclose(found.joints[1], joints / 1000, atol=1e-9)
    # the same picture as a left hand: everything mirrored
    torch.testing.assert_close(found.images[2], found.images[1].flip(-1), atol=0.02, rtol=0)
    np.testing.assert_allclose(found.keypoints[2], found.keypoints[1] * torch.tensor([-1, 1]), atol=1e-5)
    np.testing.assert_allclose(found.joints[2], found.joints[1] * [-1, 1, 1])


def test_fixtures_of_no_known_side_are_refused(tmp_path):
    write_fixtures(tmp_path, [])
    rows = [json.loads(line) for line in (tmp_path / "val2d.jsonl").read_text().splitlines()]
    (tmp_path / "val2d.jsonl").write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(InputError, match="known side"):
        tool.fixture_hands(tmp_path, 64)


def test_the_sheet_begins_with_the_worst_hand():
    many = cases({"side": ["left"] * 20})
    many.images[:] = torch.linspace(0, 1, 20)[:, None, None, None]  # brighter, the later
    found = errors(np.arange(20.0))
    found.found[:] = 5.0  # beside the tile
    picture = tool.sheet(many, found)
    assert picture.shape == (2 * tool.TILE, 8 * tool.TILE, 3)
    corners = picture[5 :: tool.TILE, 5 :: tool.TILE].reshape(16, 3)
    assert np.all(np.diff(corners[:, 0].astype(int)) < 0) and corners[0, 0] == 255


def test_rendered_hands_bring_every_group(hand):
    made = tool.synthetic_hands(hand, 64, 6)
    assert {"age of the hand", "sex of the hand", "size of the hand", "rendered skin", "seen", "side"} <= set(
        made.groups
    )
    assert all(len(words) == 6 for words in made.groups.values())
    assert made.seen is not None and made.seen.shape == (6, 21)
    assert made.true_joints and made.was_left.tolist() == [False, True] * 3


def test_only_the_sheets_asked_for_are_drawn(hand, tmp_path, monkeypatch, capsys):
    made = tool.synthetic_hands(hand, 64, 4)
    monkeypatch.setattr(tool, "synthetic_hands", lambda *_: made)
    monkeypatch.setattr(tool, "held_back_photos", lambda *_: made)
    plain = HandEstimator(build_model("dhpe-lite").eval(), device="cpu", refine="off")
    monkeypatch.setattr(tool, "HandEstimator", lambda *_, **__: plain)
    call = ["analyse_errors", "--photos", "p", "--out", str(tmp_path / "errors.csv"), "--sheets", str(tmp_path)]
    for more, drawn in ([], {"errors_rendered.jpg", "errors_photos.jpg"}), (["synthetic"], {"errors_rendered.jpg"}):
        monkeypatch.setattr("sys.argv", [*call, *(["--sheets-of", *more] if more else [])])
        tool.main()
        assert {path.name for path in tmp_path.glob("*.jpg")} == drawn
        for path in tmp_path.glob("*.jpg"):
            path.unlink()
    sets = {line.split(",")[2] for line in (tmp_path / "errors.csv").read_text().splitlines()[1:]}
    assert sets == {"synthetic", "photos"} and "synthetic\tall" in capsys.readouterr().out
