"""Hands before other backgrounds, what covers them, and what a mask and a silhouette then say."""

import itertools
from dataclasses import replace

import torch

from densehand.data.augment import augment, change_backdrop, from_wrist, negatives
from densehand.data.augmentation import Augmentation
from densehand.data.records import Records, no_masks
from densehand.train.validate import PLAIN

SIZE, COUNT = 64, 8


def disc(radius: float, size: int = SIZE) -> torch.Tensor:
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    return (axis[None] ** 2 + axis[:, None] ** 2 < radius**2).float()


def keypoints() -> torch.Tensor:
    """A hand upright: the wrist below, the middle knuckle above it."""
    points = torch.zeros(COUNT, 21, 2)
    points[:, 0, 1], points[:, 9, 1] = 0.3, -0.1
    return points


def changed(share: float) -> tuple[torch.Tensor, torch.Tensor]:
    pictures, backgrounds = torch.ones(COUNT, 3, SIZE, SIZE), torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    silhouette = disc(0.4).expand(COUNT, -1, -1).clone()
    silhouette[0] = 0  # of unknown outline
    how = Augmentation(backdrop=share)
    return silhouette, change_backdrop(
        pictures, silhouette, keypoints(), backgrounds, how, torch.Generator().manual_seed(0)
    )[:, 0]


def test_the_hand_and_its_forearm_stay_and_the_rest_goes():
    silhouette, found = changed(1.0)
    assert (found[0] == 1).all(), "without an outline nothing is known to be background"
    assert (found[1:][silhouette[1:] > 0] == 1).all()
    assert (found[1:, :, :8] == 0).all() and (found[1:, :8] == 0).all(), "beside and above the hand"
    assert (found[1:, -8:, SIZE // 2 - 3 : SIZE // 2 + 3] == 1).all(), "the forearm comes from below"
    seam = found[1:][(found[1:] > 0) & (found[1:] < 1)]
    assert len(seam) > 100


def test_only_the_share_asked_for_is_changed():
    _, found = changed(0.0)
    assert (found == 1).all()
    _, found = changed(0.5)
    assert 0 < int((found.flatten(1).amin(1) < 1).sum()) < COUNT - 1


def test_what_lies_behind_the_wrist_equals_a_loop():
    points = torch.randn(2, 21, 2, generator=torch.Generator().manual_seed(0))
    along, across = from_wrist(points, 6)
    for hand, row, column in itertools.product(range(2), range(6), range(6)):
        wrist, knuckle = points[hand, 0], points[hand, 9]
        arm = (wrist - knuckle) / (wrist - knuckle).norm()
        off = torch.tensor([(column + 0.5) / 3 - 1, (row + 0.5) / 3 - 1]) - wrist
        torch.testing.assert_close(along[hand, row, column], off @ arm, atol=1e-5, rtol=0)
        torch.testing.assert_close(along[hand, row, column].hypot(across[hand, row, column]), off.norm())


def records_of(hand, masks, silhouettes) -> Records:
    count = len(masks)
    rotation = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    pose, shape = hand.mean_pose.expand(count, 45), torch.zeros(count, 10)
    skeleton = hand.skeleton(pose, shape, rotation)[..., :2]
    scale = torch.full((count,), 5.0)
    points = 5 * skeleton - (5 * skeleton).mean(1, keepdim=True)
    return Records(
        torch.full((count, SIZE, SIZE, 3), 128, dtype=torch.uint8), points, torch.ones(count, 21), pose, shape,
        rotation, scale, -(5 * skeleton).mean(1), torch.ones(count), masks, silhouettes,
    )  # fmt: skip


def test_a_silhouette_knows_nothing_of_what_covers_the_hand(hand):
    """The mask is what is seen; both move with the picture."""
    whole = (disc(0.9) * 255).byte().expand(COUNT, -1, -1)
    seen = whole.clone()
    seen[:, SIZE // 2 :] = 0  # the lower half is hidden in the source itself
    index, how = torch.arange(COUNT), replace(PLAIN, occluder=1.0)
    batch = augment(hand, records_of(hand, seen, whole), index, SIZE, how, torch.Generator().manual_seed(2))
    bare = augment(hand, records_of(hand, whole, whole), index, SIZE, PLAIN, torch.Generator().manual_seed(2))
    torch.testing.assert_close(batch.silhouette, bare.silhouette)
    assert (batch.mask <= batch.silhouette + 1e-6).all() and batch.mask[:, -SIZE // 3 :].max() == 0
    assert (batch.mask.sum((1, 2)) < 0.6 * batch.silhouette.sum((1, 2))).all()
    alone = augment(hand, records_of(hand, whole, no_masks(COUNT)), index, SIZE, how, torch.Generator().manual_seed(2))
    torch.testing.assert_close(alone.silhouette, bare.silhouette)
    assert (alone.mask < alone.silhouette).any(), "an ellipse covers it"


def test_pictures_without_a_hand_are_covered_like_those_with_one():
    backgrounds = torch.stack([torch.full((32, 32, 3), shade, dtype=torch.uint8) for shade in range(20, 250, 10)])
    how = replace(PLAIN, occluder=1.0)
    batch = negatives(backgrounds, COUNT, SIZE, how, torch.Generator().manual_seed(1))
    shades = [len(picture.unique()) for picture in batch.images]
    assert min(shades) >= 1 and max(shades) > 1, "pieces of others are before some"
    assert batch.silhouette.max() == 0 and batch.has_hand.max() == 0
