"""Labelled datasets as training records: labels follow their pictures, absent ones weigh nothing, faults count."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from train_helpers import tiny_config

from densehand.data import labelled
from densehand.data.fits import box_size
from densehand.data.labelled import cut_hand, draw, load_dataset, place_flat
from densehand.data.readers.common import project
from densehand.data.sample import Sample
from densehand.errors import InputError
from densehand.train.config import DatasetShare
from densehand.train.stream import BatchStream

CAMERA = np.array([[400.0, 0, 160], [0, 400, 120], [0, 0, 1]])


def write_dataset(folder, hand, count=6):
    """densehand's own format, hands seen through a pinhole camera: right and left, in the middle and at the edges.

    Even ones have 3D joints and no 2D keypoints, of these every other one a mask; odd ones have 2D keypoints alone.
    """
    rng = np.random.default_rng(1)
    folder.mkdir()
    rows = []
    for index in range(count):
        turn = torch.nn.functional.normalize(torch.tensor([1.0, *rng.normal(0, 0.4, 3)]), dim=0).float()
        joints = hand.skeleton(hand.mean_pose * float(rng.uniform(0.2, 1.5)), torch.zeros(10), turn).numpy()
        side = "left" if index % 3 == 1 else "right"
        joints = joints * ((-1, 1, 1) if side == "left" else (1, 1, 1)) + (rng.uniform(-0.17, 0.17), 0.03, 0.6)
        points = joints @ CAMERA.T
        points = points[:, :2] / points[:, 2:]
        picture = rng.integers(0, 80, (240, 320, 3), dtype=np.uint8)
        mask = np.zeros((240, 320), np.uint8)
        for x, y in points:
            cv2.circle(picture, (int(x), int(y)), 3, (60, 220, 250), -1)
            cv2.circle(mask, (int(x), int(y)), 3, 255, -1)
        cv2.imwrite(str(folder / f"{index}.png"), picture)
        row = {"image": f"{index}.png", "side": side}
        if index % 2:
            row |= {"keypoints_px": points.tolist(), "visible": [k != 8 for k in range(21)]}
        else:
            row |= {"joints_m": joints.tolist(), "camera": CAMERA.tolist()}
        if index % 4 == 0:
            cv2.imwrite(str(folder / f"{index}.mask.png"), mask)
            row["mask"] = f"{index}.mask.png"
        rows.append(row)
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@pytest.fixture(scope="module")
def folder(hand, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "own"
    write_dataset(folder, hand)
    return folder


def test_labels_lie_where_the_picture_shows_them(hand, folder):
    parts, skipped = load_dataset("densehand", folder, hand)
    assert not skipped.counts and [len(p) for p in parts] == [2, 4]
    assert parts[0].masks.shape[1:] == (128, 128) and parts[1].masks.shape[1:] == (0, 0)
    trusted = []
    for records in parts:
        for row in range(len(records)):
            known = records.keypoint_weight[row] > 0
            places = ((records.keypoints[row, known] + 1) * 128).long().clamp(0, 255)
            colours = records.images[row][places[:, 1], places[:, 0]].float().mean(0)
            assert colours[0] > 190 > 100 > colours[2], "RGB dots lie under the keypoints"
            if records.masks.shape[-1]:
                assert records.masks[row][places[:, 1] // 2, places[:, 0] // 2].float().mean() > 200
            if records.trust[row] > 0:
                trusted.append(float(records.trust[row]))
                skeleton = hand.skeleton(records.pose[row], records.shape[row], records.rotation[row])
                flat = records.scale[row] * skeleton[:, :2] + records.translation[row]
                error = (flat - records.keypoints[row]).norm(dim=-1).mean() / box_size(records.keypoints[row])
                assert error < 0.03, "the fit, seen flat, explains the keypoints, at the picture's edge too"
            else:
                assert not known[8] and known.sum() == 20
    assert trusted == [1.0] * 3


@pytest.mark.parametrize("side", ["right", "left"])
def test_hands_at_the_edge_are_seen_along_their_ray(hand, side):
    """The turned joints, seen flat, are what the camera sees; without the turn they would be off by their depth."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        turn = torch.nn.functional.normalize(torch.randn(4, generator=generator), dim=0)
        joints = hand.skeleton(hand.mean_pose, torch.zeros(10), turn).double().numpy() + (0.3, -0.2, 0.9)
        sample = Sample("a", b"", side=side, joints_3d=joints, camera=CAMERA)
        mirror = (-1, 1) if side == "left" else (1, 1)
        seen = torch.from_numpy(project(joints, CAMERA) * mirror)[None]
        left = []
        for camera in (CAMERA, None):
            flat = torch.from_numpy(labelled._joints(replace(sample, camera=camera))[:, :2].copy())[None]
            left.append(float(place_flat(flat, seen, torch.ones(1, 21))[2]))
        assert left[0] < 0.03 and left[0] < 0.7 * left[1], left


def test_faults_are_skipped_and_counted(hand, folder, tmp_path):
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    rows[1]["keypoints_px"][0][0] = float("nan")
    rows[2]["joints_m"] = rows[2]["joints_m"][:20]
    del rows[3]["side"]
    rows[4]["image"] = "none.png"
    rows[5]["visible"] = [k < 5 for k in range(21)]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("0.png", "0.mask.png", "1.png", "2.png", "3.png", "4.mask.png", "5.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    parts, skipped = load_dataset("densehand", tmp_path, hand)
    assert [len(p) for p in parts] == [1]
    assert sum(skipped.counts.values()) == 5
    assert {"NaN labels", "unreadable image", "hands of unknown side", "hands with too few keypoints"} <= set(
        skipped.counts
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    with pytest.raises(InputError, match=r"no usable hand of .*1 NaN labels"):
        load_dataset("densehand", tmp_path, hand)
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="half-downloaded archive"):
        load_dataset("densehand", tmp_path / "set.zip", hand)
    with pytest.raises(InputError, match="unknown dataset"):
        load_dataset("hands", tmp_path, hand)


def test_tiny_hands_are_not_cut():
    points = np.linspace(0, 1, 42).reshape(21, 2)
    sample = Sample("a", b"", side="right", keypoints_2d=points)
    assert cut_hand(sample, np.zeros((9, 9, 3), np.uint8)) == "hands of less than 8 pixels"


def test_memory_is_bounded_and_every_sample_as_likely():
    samples = [Sample(str(n), b"") for n in range(20)]
    assert [s.name for s in draw(iter(samples), 50, 0)] == [s.name for s in samples]
    chosen = [[int(s.name) for s in draw(iter(samples), 5, seed)] for seed in range(800)]
    assert all(len(c) == 5 and c == sorted(set(c)) for c in chosen)
    often = np.bincount(np.concatenate(chosen), minlength=20) / 800
    assert np.abs(often - 0.25).max() < 0.06
    assert chosen[3] == [int(s.name) for s in draw(iter(samples), 5, 3)]


def test_place_flat_against_least_squares():
    generator = torch.Generator().manual_seed(0)
    points, target = torch.randn(2, 4, 21, 2, generator=generator)
    target = 0.3 * points + 0.1 * target + 0.5
    weight = (torch.rand(4, 21, generator=generator) > 0.3).float()
    scale, move, left = place_flat(points, target, weight)
    for row in range(4):
        known = weight[row] > 0
        p, t = points[row, known].double(), target[row, known].double()
        matrix = torch.zeros(len(p), 2, 3, dtype=torch.float64)
        matrix[..., 0], matrix[:, 0, 1], matrix[:, 1, 2] = p, 1, 1
        expected = torch.linalg.lstsq(matrix.flatten(0, 1), t.flatten()[:, None]).solution[:, 0]
        torch.testing.assert_close(torch.tensor([scale[row], *move[row]]).double(), expected, rtol=1e-4, atol=1e-5)
        distance = (expected[0] * p + expected[1:] - t).norm(dim=-1).mean() / box_size(target[row])
        assert float(left[row]) == pytest.approx(float(distance), rel=1e-3)


def test_a_mixture_draws_by_weight(hand, folder, tmp_path):
    config = replace(tiny_config(tmp_path), batch=8)
    alone = BatchStream(config, hand)
    share = DatasetShare("densehand", str(folder), weight=3.0)
    mixed = BatchStream(replace(config, dataset=(share,)), hand)
    assert alone._shares(0, 8, ()) == [8]
    counts = np.array([mixed._shares(step, 8, ()) for step in range(300)])
    assert (counts.sum(1) == 8).all() and counts.shape == (300, 3)
    np.testing.assert_allclose(counts.mean(0) / 8, [0.25, 0.25, 0.5], atol=0.03)  # photos, with masks, without
    batch = mixed.batch(4)
    assert all(torch.isfinite(value).all() for value in vars(batch).values() if value.is_floating_point())
    assert len(batch) == 8 and torch.equal(batch.images, mixed.batch(4).images)
    only = BatchStream(replace(config, photos="", dataset=(share,)), hand)
    assert len(only.batch(0)) == 8 and list(only.skipped) == ["densehand"]
    with pytest.raises(InputError, match="all have weight 0"):
        BatchStream(replace(config, photos="", dataset=(replace(share, weight=0.0),)), hand)
