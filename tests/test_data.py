"""Photos, their fits and their augmentation: every label must follow its picture."""

import itertools
import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from photo_folder import make_photo_folder

from densehand.camera import in_plane
from densehand.data.augment import Augmentation, augment, negatives
from densehand.data.fits import Fits, box_size, estimate_keypoint_map, evenly, fit_photos, project_fits, ramp
from densehand.data.photos import load_photos
from densehand.data.records import Records, TrainingBatch, no_masks, records_from_photos
from densehand.errors import InputError
from densehand.hand.keypoints import palm_turn
from densehand.hand.model import quaternion_to_matrix, turned_in_plane
from densehand.train.validate import PLAIN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_photo_folder(tmp_path_factory.mktemp("photos") / "set")


def test_left_hands_are_read_as_right_ones(folder):
    photos = load_photos(folder, "all", size=64)
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    assert photos.mirrored.tolist() == [row["side"] == "left" for row in rows]
    first = rows[0]  # a left hand
    expected = 1 - np.array(first["keypoints_px"])[:, 0] / first["size"] * 2
    np.testing.assert_allclose(photos.keypoints[0, :, 0], expected, atol=1e-5)
    for index in (0, 1):  # the drawn dots lie under the keypoints, mirrored or not
        colours = [
            photos.images[index][int((y + 1) * 32), int((x + 1) * 32)] for x, y in photos.keypoints[index].tolist()
        ]
        red, _, blue = torch.stack(colours).float().mean(0)
        assert red > 150 > 100 > blue


def test_splits_share_no_frame_and_make_up_the_whole(folder):
    names = {split: load_photos(folder, split).names for split in ("train", "held-back", "all")}
    assert not set(names["train"]) & set(names["held-back"])
    assert sorted(names["train"] + names["held-back"]) == names["all"]
    with pytest.raises(InputError, match="split 'val' of the photos: use one of train, held-back, all"):
        load_photos(folder, "val")


@pytest.mark.parametrize("line", ["{", '{"crop": "x"}', '{"keypoints_px": 3, "world_m": "a", "frame": "0"}'])
def test_damaged_label_lines_are_named(tmp_path, line):
    (tmp_path / "labels.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"labels\.jsonl"):
        load_photos(tmp_path)


def test_missing_folders_and_unreadable_pictures(tmp_path, folder):
    with pytest.raises(InputError, match="no label file"):
        load_photos(tmp_path)
    rows = (folder / "labels.jsonl").read_text().splitlines()
    row = json.loads(rows[0])
    broken = {**row, "crop": "crops/none.png"}
    nan = {**row, "keypoints_px": [[float("nan")] * 2] * 21}
    (tmp_path / "crops").mkdir()
    (tmp_path / row["crop"]).write_bytes((folder / row["crop"]).read_bytes())
    (tmp_path / "labels.jsonl").write_text("\n".join(json.dumps(r) for r in (broken, nan, row)))
    assert load_photos(tmp_path, "all").names == [row["crop"]]
    (tmp_path / "labels.jsonl").write_text(json.dumps(broken))
    with pytest.raises(InputError, match="no readable hand crop"):
        load_photos(tmp_path, "all")


def test_fits_explain_hands_of_the_model_itself(hand, folder, tmp_path):
    photos = load_photos(folder, "all", size=32)
    fits = fit_photos(hand, photos.keypoints, photos.world, steps=120)
    assert fits.residual.median() < 0.015
    distance = (project_fits(hand, fits) - fits.labels).norm(dim=-1) / box_size(photos.keypoints)[:, None]
    assert distance.mean() < 0.02, "labels are what the model's own keypoints should be"
    fits.save(tmp_path / "fits.npz", photos.names)
    again = Fits.load(tmp_path / "fits.npz")
    torch.testing.assert_close(again.pose, fits.pose)


def test_keypoint_map_finds_a_shifted_convention():
    points = torch.randn(400, 21, 2, generator=torch.Generator().manual_seed(0))
    true = torch.eye(21)
    true[5, 5], true[5, 6] = 0.8, 0.2  # a knuckle a fifth of the way to the next joint
    mapping = estimate_keypoint_map(points, torch.einsum("jk,nkc->njc", true, points), torch.ones(400), ridge=1e-3)
    torch.testing.assert_close(mapping, true, atol=0.02, rtol=0)
    torch.testing.assert_close(mapping.sum(1), torch.ones(21), atol=1e-4, rtol=0)


def dotted_records(hand, count=6):
    """Records whose pictures carry a white dot on keypoint 8 and whose masks cover the keypoints' middle."""
    generator = torch.Generator().manual_seed(3)
    pose, shape = hand.mean_pose.expand(count, 45).clone(), torch.zeros(count, 10)
    rotation = torch.nn.functional.normalize(
        torch.tensor([1.0, 0, 0, 0]) + 0.3 * torch.randn(count, 4, generator=generator), dim=-1
    )
    scale, translation = torch.full((count,), 4.0), torch.tensor([0.0, 0.35]).expand(count, 2)
    keypoints = scale[:, None, None] * hand.skeleton(pose, shape, rotation)[..., :2] + translation[:, None]
    axis = (torch.arange(128) + 0.5) / 64 - 1
    near = (axis[None, None, :] - keypoints[:, 8, :1, None]).square() + (
        axis[None, :, None] - keypoints[:, 8, 1:, None]
    ).square() < 0.05**2
    images = near[..., None].expand(-1, -1, -1, 3).to(torch.uint8) * 255
    return Records(
        images, keypoints, torch.ones(count, 21), pose, shape, rotation, scale, translation, torch.ones(count),
        near.to(torch.uint8) * 255, no_masks(count),
    )  # fmt: skip


GEOMETRY = Augmentation(
    rotation=40, any_rotation=0.5, flip=0.5, colour=0, blur=0, noise=0, occluder=0, grey=0, shift=0.05
)


def test_every_label_follows_its_picture(hand):
    records = dotted_records(hand)
    index = torch.arange(6).repeat(4)
    batch = augment(hand, records, index, 96, GEOMETRY, torch.Generator().manual_seed(1))
    axis = (torch.arange(96) + 0.5) / 48 - 1
    for picture, mask, keypoint in zip(batch.images.mean(1), batch.mask, batch.keypoints[:, 8], strict=True):
        for dot in (picture, mask):
            centre = torch.stack([(dot.sum(0) * axis).sum(), (dot.sum(1) * axis).sum()]) / dot.sum()
            torch.testing.assert_close(centre, keypoint, atol=0.03, rtol=0)
    right = batch.is_right > 0
    assert 0 < right.sum() < len(right)
    torch.testing.assert_close(batch.skeleton[right][..., :2], batch.keypoints[right], atol=1e-4, rtol=0)
    mirrored = batch.keypoints[~right] * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(batch.skeleton[~right][..., :2], mirrored, atol=1e-4, rtol=0)
    assert batch.trust[~right].max() == 0, "a mirrored hand has no 3D label"


def test_plain_crops_are_the_pipelines(hand):
    """Without augmentation the tight box fills 1/1.5 of the crop, centred."""
    batch = augment(hand, dotted_records(hand), torch.arange(6), 64, PLAIN, torch.Generator().manual_seed(0))
    low, high = batch.keypoints.amin(1), batch.keypoints.amax(1)
    torch.testing.assert_close((high - low).amax(1), torch.full((6,), 2 / 1.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(low + high, torch.zeros(6, 2), atol=1e-4, rtol=0)


def test_hands_are_turned_upright_before_anything_else(hand):
    """All but those seen end on, whose turn nobody knows; and as many as asked for."""
    records, index = dotted_records(hand), torch.arange(6).repeat(50)
    made = partial(augment, hand, records, index, 32, generator=torch.Generator().manual_seed(3))
    lie = palm_turn(records.keypoints[index])
    upright = palm_turn(made(replace(PLAIN, upright=1)).keypoints)
    assert (lie.abs() > 0.1).any() and torch.equal(upright.isnan(), lie.isnan())
    torch.testing.assert_close(upright.nan_to_num(), torch.zeros(len(index)), atol=1e-4, rtol=0)
    half = palm_turn(made(replace(PLAIN, upright=0.5)).keypoints)[lie.abs() > 0.01]
    assert 0.3 < (half.abs() < 1e-4).float().mean() < 0.7
    whole = augment(hand, records, index, 96, replace(GEOMETRY, upright=1), torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        whole.skeleton[whole.is_right > 0][..., :2], whole.keypoints[whole.is_right > 0], atol=1e-4, rtol=0
    )


def test_batches_repeat_with_their_seed_and_stay_in_range(hand):
    records, how = dotted_records(hand), Augmentation()
    make = lambda seed: augment(hand, records, torch.arange(6), 64, how, torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(make(5).images, make(5).images)
    assert not torch.equal(make(5).images, make(6).images)
    assert make(5).images.min() >= 0 and make(5).images.max() <= 1
    assert all(torch.isfinite(v.float()).all() for v in vars(make(5)).values())


def test_negatives_have_no_labels(hand):
    empty = negatives(torch.randint(0, 255, (3, 64, 64, 3)).to(torch.uint8), 5, 64, PLAIN, torch.Generator())
    assert empty.images.shape == (5, 3, 64, 64) and empty.has_hand.max() == 0
    assert empty.keypoint_weight.max() == empty.trust.max() == empty.mask.max() == 0
    joined = TrainingBatch.join([empty, empty])
    assert len(joined) == 10


@given(st.integers(1, 3000), st.integers(1, 400))
def test_rows_are_drawn_evenly(available, most):
    rows = evenly(available, most).tolist()
    assert len(rows) == min(most, available) and rows[0] == 0 and sorted(set(rows)) == rows
    assert len(rows) == 1 or rows[-1] == available - 1
    steps = {after - before for before, after in itertools.pairwise(rows)}
    assert not steps or max(steps) - min(steps) <= 1


def test_a_ramp_climbs_either_way():
    values = torch.tensor([0.0, 2.0, 3.0, 4.0, 9.0])
    torch.testing.assert_close(ramp(values, 2, 4), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    torch.testing.assert_close(ramp(values, 4, 2), torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]))


def test_a_turn_in_the_plane_turns_the_hand_and_leaves_its_depth():
    generator = torch.Generator().manual_seed(0)
    rotation = torch.nn.functional.normalize(torch.randn(5, 4, generator=generator), dim=-1)
    angle = 6 * torch.rand(5, generator=generator) - 3
    flat = torch.eye(3).repeat(5, 1, 1)
    flat[:, :2, :2] = in_plane(angle)
    found = quaternion_to_matrix(turned_in_plane(rotation, angle))
    torch.testing.assert_close(found, flat @ quaternion_to_matrix(rotation), atol=1e-5, rtol=0)


def test_bad_fits_lose_their_weight(hand, folder):
    photos = load_photos(folder, "all", size=32)
    count = len(photos)
    residual = torch.linspace(0, 0.2, count)
    fits = Fits(
        torch.zeros(count, 45), torch.zeros(count, 10), torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        torch.ones(count), torch.zeros(count, 2), residual, torch.eye(21), photos.keypoints,
    )  # fmt: skip
    records = records_from_photos(photos, fits)
    assert records.trust[0] == 1 and records.trust[-1] == 0
    assert (records.trust.diff() <= 0).all() and (records.keypoint_weight[:, 0].diff() <= 0).all()
    assert math.isclose(float(records.keypoint_weight[-1, 0]), 0.0)
