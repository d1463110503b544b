"""Angles of the joints: round trips, directions of bending, limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.hand import HandModel, anatomical_to_pose, clamp_pose, pose_to_anatomical
from densehand.hand.anatomy import angles_from_rotation, joint_frames, limit_violation, rotation_from_angles
from densehand.hand.keypoints import JOINT_NAMES

MODEL = HandModel.load("open", dtype=torch.float64)
FLAT = MODEL.skeleton(torch.zeros(45).double(), torch.zeros(10).double())
LAST_TIP = {"index": 8, "middle": 12, "ring": 16, "little": 20, "thumb": 4}


def bend(joint: int, axis: int, degrees: float) -> torch.Tensor:
    angles = torch.zeros(15, 3, dtype=torch.float64)
    angles[joint, axis] = math.radians(degrees)
    return MODEL.skeleton(anatomical_to_pose(angles, MODEL), torch.zeros(10).double())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_round_trip(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    angles = (torch.rand(2, 15, 3, generator=generator, dtype=torch.float64) - 0.5) * torch.tensor([3.0, 2.0, 2.0])
    torch.testing.assert_close(pose_to_anatomical(anatomical_to_pose(angles, MODEL), MODEL), angles, atol=1e-6, rtol=0)
    pose = torch.randn(45, generator=generator, dtype=torch.float64) * 0.5
    back = anatomical_to_pose(pose_to_anatomical(pose, MODEL), MODEL)
    torch.testing.assert_close(back, pose, atol=1e-6, rtol=0)


def test_rotation_is_the_product_of_three_turns() -> None:
    axes = MODEL.joint_axes[4]
    angles = torch.tensor([0.7, -0.3, 0.2], dtype=torch.float64)
    product = torch.eye(3, dtype=torch.float64)
    for axis, angle in zip(axes, angles, strict=True):
        x, y, z = axis.tolist()
        k = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
        product = product @ torch.matrix_exp(k * angle)
    torch.testing.assert_close(rotation_from_angles(angles, axes), product)
    torch.testing.assert_close(angles_from_rotation(product, axes), angles)


def test_gradcheck() -> None:
    angles = (torch.randn(15, 3, dtype=torch.float64) * 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: anatomical_to_pose(a, MODEL), [angles])
    pose = (torch.randn(45, dtype=torch.float64) * 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: pose_to_anatomical(p, MODEL), [pose])


def test_frames_are_right_handed_and_follow_the_bones() -> None:
    frames = joint_frames(FLAT)
    eye = torch.eye(3, dtype=torch.float64).expand(15, 3, 3)
    torch.testing.assert_close(frames @ frames.mT, eye, atol=1e-9, rtol=0)
    assert (torch.linalg.det(frames) > 0).all()
    torch.testing.assert_close(frames, MODEL.joint_axes, atol=1e-3, rtol=0)


@pytest.mark.parametrize("joint", range(12))
def test_positive_flexion_takes_the_fingertip_to_the_palm(joint: int) -> None:
    tip = LAST_TIP[JOINT_NAMES[joint + 1].split("_")[0]]
    moved = bend(joint, 0, 40) - FLAT
    assert moved[tip, 2] < -0.008, "towards the palm's side"
    assert moved[tip, 1] > 0, "and down towards the wrist"
    others = [k for f, t in LAST_TIP.items() if t != tip for k in range(t - 3, t + 1)]
    assert moved[others].abs().max() < 1e-9


@pytest.mark.parametrize("joint", [12, 13, 14])
def test_positive_flexion_takes_the_thumb_across_the_palm(joint: int) -> None:
    little = FLAT[17]
    before, after = (FLAT[4] - little).norm(), (bend(joint, 0, 40)[4] - little).norm()
    assert after < before - 0.006


@pytest.mark.parametrize("joint", [0, 3, 6, 9])
def test_positive_abduction_takes_fingers_to_the_thumbs_side(joint: int) -> None:
    tip = LAST_TIP[JOINT_NAMES[joint + 1].split("_")[0]]
    moved = (bend(joint, 1, 15) - FLAT)[tip]
    assert moved[0] > 0.01 and abs(moved[2]) < 0.005


def test_positive_abduction_takes_the_thumb_before_the_palm() -> None:
    assert (bend(12, 1, 30) - FLAT)[4, 2] < -0.02


def test_curled_spread_fingers_converge() -> None:
    angles = torch.zeros(15, 3, dtype=torch.float64)
    angles[:12, 0] = torch.tensor([1.4, 1.6, 1.0]).repeat(4)
    fist = MODEL.skeleton(anatomical_to_pose(angles, MODEL), torch.zeros(10).double())
    assert (fist[8] - fist[20]).norm() < 0.6 * (FLAT[8] - FLAT[20]).norm()
    assert (fist[[8, 12, 16, 20], 2] > -0.045).all(), "the tips touch the palm"


def test_relaxed_hand_is_within_limits_and_curled_most_at_the_little_finger() -> None:
    assert limit_violation(MODEL.mean_pose, MODEL).max() < 1e-6
    flexion = pose_to_anatomical(MODEL.mean_pose, MODEL)[:, 0]
    assert (flexion >= 0).all()
    assert flexion[6:9].sum() > flexion[0:3].sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 1.2))
def test_clamped_poses_obey_the_limits_and_stay(seed: int, spread: float) -> None:
    pose = torch.randn(3, 45, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread
    clamped = clamp_pose(pose, MODEL)
    assert limit_violation(clamped, MODEL).max() < 1e-5
    torch.testing.assert_close(clamp_pose(clamped, MODEL), clamped, atol=1e-5, rtol=0)


def test_clamping_leaves_allowed_poses_alone() -> None:
    torch.testing.assert_close(clamp_pose(MODEL.mean_pose, MODEL), MODEL.mean_pose, atol=1e-6, rtol=0)


def test_limits_are_an_interval_around_the_flat_hand() -> None:
    assert (MODEL.limits_lower <= 0).all() and (MODEL.limits_upper >= 0).all()
    pip = [JOINT_NAMES.index(f"{f}_pip") - 1 for f in ("index", "middle", "ring", "little")]
    assert (MODEL.limits_upper[pip, 0] > math.radians(100)).all()
    assert (MODEL.limits_lower[pip, 0] > math.radians(-15)).all(), "fingers do not bend backwards"


def test_violation_measures_the_excess() -> None:
    angles = torch.zeros(15, 3, dtype=torch.float64)
    angles[1, 0] = MODEL.limits_upper[1, 0] + 0.2
    excess = limit_violation(anatomical_to_pose(angles, MODEL), MODEL)
    assert excess[1, 0] == pytest.approx(0.2, abs=1e-6)
    assert excess.sum() == pytest.approx(0.2, abs=1e-5)
