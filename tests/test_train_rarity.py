"""Photos of rare poses and views are drawn more often."""

import numpy as np
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.data.records import Records, no_masks
from densehand.train.stream import likeness, rarity


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 1000))
def test_rarity_against_a_naive_twin(count, seed):
    points = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    expected = []
    for point in points.numpy():
        distances = sorted(np.linalg.norm(points.numpy() - point, axis=1))
        expected.append(distances[min(30, count) - 1] ** 1.5)
    np.testing.assert_allclose(rarity(points, 1.5), expected, rtol=1e-3, atol=1e-5)


def test_a_rare_hand_weighs_more_than_one_of_many():
    points = torch.cat([torch.zeros(200, 3), torch.full((1, 3), 2.0)]) + 0.01 * torch.randn(201, 3)
    weights = rarity(points, 1.0)
    assert weights[-1] > 20 * weights[:-1].mean()


def records_with(rotation: torch.Tensor, pose: torch.Tensor) -> Records:
    count = len(rotation)
    zeros = torch.zeros
    return Records(
        images=zeros(count, 2, 2, 3, dtype=torch.uint8), keypoints=zeros(count, 21, 2),
        keypoint_weight=zeros(count, 21), pose=pose, shape=zeros(count, 10), rotation=rotation, scale=zeros(count),
        translation=zeros(count, 2), trust=zeros(count), masks=no_masks(count), silhouettes=no_masks(count),
    )  # fmt: skip


def test_turns_in_the_picture_do_not_make_hands_unlike_but_views_do():
    turns = torch.tensor([[0.0, 0, 0], [0, 0, 2.0], [1.5, 0, 0], [0, 1.5, 0]])
    spin = roma.rotvec_to_unitquat(turns)
    base = roma.rotvec_to_unitquat(torch.tensor([0.2, -0.3, 0.4])).expand(4, 4)
    rotation = roma.quat_xyzw_to_wxyz(roma.quat_product(spin, base))
    distance = torch.cdist(like := likeness(records_with(rotation, torch.zeros(4, 45))), like)
    assert distance[0, 1] < 1e-3
    assert distance[0, 2] > 1 and distance[0, 3] > 1
