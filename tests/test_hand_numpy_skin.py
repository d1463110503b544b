"""The mesh of one hand in numpy is the hand model's, also with pose blend shapes and after a buffer was replaced."""

import numpy as np
import pytest
import torch
from hands import open_hand, tiny_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.hand.model import HandModel
from densehand.hand.numpy_skin import mesh_of


def agree(model: HandModel, seed: int, wild: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    pose, shape, rotation = (wild * torch.randn(n, generator=generator) for n in (45, 10, 4))
    vertices, joints = mesh_of(model)(pose.numpy(), shape.numpy(), rotation.numpy())
    expected = model(pose, shape, rotation)
    size = float(expected.vertices.abs().max())
    np.testing.assert_allclose(vertices, expected.vertices.numpy(), atol=2e-6 * size)
    np.testing.assert_allclose(joints, expected.joints.numpy(), atol=2e-6 * size)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), wild=st.floats(0.05, 2.0))
def test_the_open_hand(seed: int, wild: float) -> None:
    agree(open_hand(), seed, wild)


@pytest.mark.parametrize("seed", range(3))
def test_pose_blend_shapes(seed: int) -> None:
    model = HandModel(tiny_hand(), "tiny")
    agree(model, seed, 0.5)


def test_a_replaced_buffer_is_seen() -> None:
    model = HandModel.load("open")
    agree(model, 1, 0.3)
    model.template, model._joints = 1.1 * model.template, 1.1 * model._joints
    model._tips = model._tips * torch.tensor([1.1, 1.1, 1.1, 1.0])
    agree(model, 1, 0.3)
