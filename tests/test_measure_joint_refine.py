"""tools/measure_joint_refine.py: its cameras, its errors on exact cases, which pictures go together, gaps of a film."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hands import make_hand, open_hand
from tool_loader import load_tool

from densehand.export import write_picture

SIDES = load_tool("measure_views").SIDES
tool = load_tool("measure_joint_refine")


class Answer:
    """An estimator that always sees the same hand, and remembers what it was asked."""

    hand = open_hand()
    network = SimpleNamespace(config=SimpleNamespace(input_size=64))

    def __init__(self):
        self.asked = []

    def __call__(self, image, boxes):
        self.asked.append((image, boxes[0]))
        return [make_hand(seed=1)]


def test_rendered_pictures_come_with_the_cameras_that_took_them():
    answer = Answer()
    cases = tool.rendered(answer, 1)
    assert len(cases) == SIDES == len(answer.asked)
    worlds = []
    for case, (image, box) in zip(cases, answer.asked, strict=True):
        joints, camera = case.joints / 1000, case.camera
        place = camera.translation  # the wrist is the world's origin
        np.testing.assert_allclose(camera.pixels(joints + place), case.keypoints, atol=2e-3)
        worlds.append(joints @ camera.rotation)
        span = np.ptp(case.keypoints, axis=0).max()
        assert image.shape == (64, 64, 3) and image.std() > 1 and box.side == "right"
        assert span == pytest.approx(box.box[2] - box.box[0], abs=1e-2)
    np.testing.assert_allclose(worlds, np.repeat(worlds[:1], SIDES, axis=0), atol=1e-5)
    cosines = [(np.trace(case.camera.rotation @ cases[0].camera.rotation.T) - 1) / 2 for case in cases]
    assert min(cosines) < -0.8, "one looks from the other side"


def truth(hand, shift=(0.0, 0.0), size=1.0):
    return tool.Seen(hand, hand.project(hand.joints_3d) + np.array(shift), hand.joints_3d * 1000.0 * size)


def test_errors_of_exact_cases():
    hand = make_hand(seed=2, pixels=120)
    assert tool.errors([truth(hand)], [hand]) == {"mesh_px": 0, "pa_mm": 0, "root_mm": 0, "bone_mm": 0}
    found = tool.errors([truth(hand, shift=(3, 4)), truth(hand)], [hand, hand])
    assert found["mesh_px"] == pytest.approx(5 / (1.5 * 120 / 224) / 2, abs=0.006)
    found = tool.errors([truth(hand, size=1.1)], [hand])
    joints = hand.joints_3d * 1000.0
    lengths = [np.linalg.norm(joints[b] - joints[a]) for a, b in tool.BONES]
    assert found["pa_mm"] == 0 and found["bone_mm"] == pytest.approx(0.1 * np.mean(lengths), abs=0.006)
    assert found["root_mm"] == pytest.approx(0.1 * np.linalg.norm(joints, axis=1).mean(), abs=0.006)


def test_each_row_is_of_all_pictures_and_cameras_only_where_they_are_named(monkeypatch):
    cases = [dataclasses.replace(truth(make_hand(seed=k)), camera=f"camera {k}") for k in range(2 * SIDES)]
    number = {id(case.found): k for k, case in enumerate(cases)}
    calls = []

    def refine(model, hands, mode, cameras=None):
        calls.append(([number[id(hand)] for hand in hands], mode, cameras))
        return list(hands)

    monkeypatch.setattr(tool, "refine_views", refine)
    rows = tool.measure_views(cases, open_hand())
    assert [row["what"] for row in rows] == [
        "off", "fast", "2 views", "3 views", "6 views", "2 views, cameras", "3 views, cameras", "6 views, cameras",
    ]  # fmt: skip
    assert all(row["pa_mm"] == 0 for row in rows)
    everything = list(range(len(cases)))
    assert [k for group, *_ in calls for k in group] == everything * 7
    for group, mode, cameras in calls:
        assert mode == ("fast" if len(group) == 1 else "views")
        assert group[-1] - group[0] == len(group) - 1 and len({k // SIDES for k in group}) == 1
        assert cameras is None or cameras == [f"camera {k}" for k in group]
    assert sum(cameras is not None for *_, cameras in calls) == 6 + 4 + 2


def test_restlessness_is_told_between_gaps_alone(tmp_path, monkeypatch):
    hand = make_hand(seed=3)
    times, rows = [100, 140, 180, 220, 500, 540, 580], []
    for k, time in enumerate(times):
        joints = hand.joints_3d * 1000.0 + [0, 0, 500.0]
        joints[1:] += [0.5 * k**2 + (80.0 if time >= 500 else 0), 0, 0]  # 1 mm/frame², and a leap in the gap
        write_picture(tmp_path / f"{time}_o.png", np.full((32, 32, 3), 128, np.uint8))
        points = hand.project(hand.joints_3d).tolist()
        rows.append(
            {"image": f"{time}_o.png", "source": tool.FILM, "side": "right", "keypoints_px": points,
             "joints_mm": joints.tolist()}
        )  # fmt: skip
    rows.append(rows[0] | {"source": "another"})
    (tmp_path / "val3d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    answer = Answer()
    cases, even = tool.film(answer, tmp_path)
    assert len(cases) == len(times) == len(answer.asked) and even.tolist() == [True, True, False, False, True]
    calls = []

    def refine(model, hands, mode, smooth=None):
        calls.append((len(hands), mode, smooth))
        return [hand] * len(hands)

    monkeypatch.setattr(tool, "refine_views", refine)
    labels, *found = tool.measure_film(cases, even, open_hand())
    assert labels == {"what": "labels", "accel": pytest.approx(20 / 21, abs=0.01)}
    assert [row["what"] for row in found[:3]] == ["off", "fast", "frames"]
    assert all(row["accel"] == 0 and row["accel_error"] == labels["accel"] for row in found)
    smooth = [np.radians(degrees) for degrees in tool.SMOOTH]
    assert calls == [(1, "fast", None)] * 7 + [(7, "frames", s) for s in (None, *smooth)]


def test_the_fixtures_film(shared_dir):
    cases, even = tool.film(Answer(), shared_dir / "fixtures")
    assert len(cases) == 35 and even.sum() == 20 + 9  # stretches of 22 and 11 frames; two more lie apart
    assert all(case.joints.shape == (21, 3) and case.camera is None for case in cases)
