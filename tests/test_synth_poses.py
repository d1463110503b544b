"""Poses, shapes and viewpoints of synthetic hands."""

import math

import pytest
import torch

from densehand.hand.anatomy import anatomical_to_pose, pose_to_anatomical, relaxed_angles
from densehand.hand.model import quaternion_to_matrix
from densehand.synth import poses as P


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_angles_stay_within_the_limits(hand, share):
    angles, _ = P.sample_angles(600, hand, generator(), P.load_anchor_poses(), share)
    assert torch.isfinite(angles).all()
    assert (angles >= hand.limits_lower).all() and (angles <= hand.limits_upper).all()


def test_free_fingers_bend_anyhow_within_the_limits(hand):
    usual, free = (P.sample_angles(4000, hand, generator(), P.load_anchor_poses(), free=share)[0] for share in (0, 1))
    assert torch.isfinite(free).all()
    assert (free >= hand.limits_lower).all() and (free <= hand.limits_upper).all()
    tip = P.FINGER_ROWS["thumb"] + 2
    far = [float((angles[:, tip, 0] > math.radians(60)).float().mean()) for angles in (usual, free)]
    assert far[0] < 0.05 and 0.15 < far[1] < 0.3
    same = (usual == free).all(2)  # the others are drawn as without
    for row in (tip, P.FINGER_ROWS["index"]):
        assert float(same[:, row].float().mean()) == pytest.approx(0.25 if row == tip else 0.65, abs=0.03)


def test_free_fingers_of_a_hand_bend_apart_from_each_other(hand):
    angles = P.free_angles(P.Draw(4000, generator(), torch.float32))
    joints = angles[:, [P.FINGER_ROWS[f] for f in ("index", "middle", "ring", "little")] + [12, 13, 14], 0]
    apart = torch.corrcoef(joints.T) - torch.eye(7)
    assert float(apart.abs().max()) < 0.06


def test_poses_stay_within_the_limits(hand):
    pose, _ = P.sample_poses(200, hand, generator(1), P.load_anchor_poses())
    angles = pose_to_anatomical(pose, hand)
    assert (angles > hand.limits_lower - 1e-3).all() and (angles < hand.limits_upper + 1e-3).all()


def test_every_family_is_drawn_about_as_often_as_its_weight(hand):
    _, family = P.sample_angles(6000, hand, generator(2), None)
    counts = torch.bincount(family, minlength=len(P.FAMILIES)).float() / 6000
    weights = torch.tensor([f.weight for f in P.FAMILIES])
    torch.testing.assert_close(counts, weights / weights.sum(), atol=0.015, rtol=0)


def test_fist_is_closed_and_open_hand_is_straight(hand):
    angles, family = P.sample_angles(4000, hand, generator(3), None)
    flexion = angles[:, :12, 0].sum(1)  # fingers without the thumb
    fist = flexion[family == P.FAMILY_NAMES.index("fist")].median()
    flat = flexion[family == P.FAMILY_NAMES.index("open")].median()
    assert fist > math.radians(4 * 200) and flat < math.radians(4 * 40)


def test_end_joint_follows_the_middle_joint(hand):
    angles, _ = P.sample_angles(3000, hand, generator(4), None)
    pip, dip = angles[:, [1, 4, 7, 10], 0].flatten(), angles[:, [2, 5, 8, 11], 0].flatten()
    slope = (pip * dip).sum() / (pip * pip).sum()
    assert 0.5 < slope < 0.7
    assert torch.corrcoef(torch.stack([pip, dip]))[0, 1] > 0.9


def test_bent_fingers_spread_less(hand):
    angles, _ = P.sample_angles(6000, hand, generator(5), None)
    bent = angles[:, 0, 0] > math.radians(70)
    assert angles[bent, 0, 1].std() < 0.6 * angles[~bent, 0, 1].std()


def test_anchor_poses_are_varied_but_recognisable(hand):
    anchor = relaxed_angles().float()[None]
    angles, family = P.sample_angles(500, hand, generator(6), anchor, share=1.0)
    assert (family == len(P.FAMILIES)).all()
    difference = (angles - anchor).abs()
    assert math.radians(1) < difference[..., 0].mean() < math.radians(8)
    assert difference.amax() < math.radians(40)


def test_packaged_anchor_poses_are_within_limits_and_clean(hand):
    anchors = P.load_anchor_poses()
    assert len(anchors) > 300
    slack = 1e-3  # they are stored as float16
    assert (anchors > hand.limits_lower - slack).all() and (anchors < hand.limits_upper + slack).all()
    joints = hand.skeleton(anatomical_to_pose(anchors, hand), torch.zeros(len(anchors), 10))
    assert P.finger_overlap(joints).quantile(0.95) < 0.013


def test_pinches_touch(hand):
    """Among the packaged poses are hands whose thumb meets each finger's tip."""
    anchors = P.load_anchor_poses()
    joints = hand.skeleton(anatomical_to_pose(anchors, hand), torch.zeros(len(anchors), 10))
    for tip in (8, 12, 16, 20):
        assert ((joints[:, 4] - joints[:, tip]).norm(dim=-1) < 0.02).sum() >= 10


def naive_overlap(joints):
    centres = []
    for finger in range(5):
        for bone in range(3):
            if (finger, bone) == (0, 0):
                continue
            a, b = joints[1 + 4 * finger + bone], joints[2 + 4 * finger + bone]
            centres += [(a + share * (b - a), P._RADII[finger][bone], finger) for share in (0.5, 0.95)]
    for knuckle in (5, 9, 13, 17):
        centres += [(joints[0] + share * (joints[knuckle] - joints[0]), 0.0115, 5) for share in (0.5, 0.8)]
    total = 0.0
    for i, (p, r, f) in enumerate(centres):
        for q, s, g in centres[i + 1 :]:
            if f != g:
                total += max(0.0, 0.85 * (r + s) - float((p - q).norm()))
    return total


def test_overlap_agrees_with_loops(hand):
    angles, _ = P.sample_angles(12, hand, generator(7), None)
    joints = hand.skeleton(anatomical_to_pose(angles, hand), torch.zeros(12, 10))
    expected = torch.tensor([naive_overlap(j) for j in joints])
    torch.testing.assert_close(P.finger_overlap(joints), expected, atol=2e-5, rtol=1e-3)


def test_choosing_among_candidates_avoids_overlaps(hand):
    angles, _ = P.sample_angles(600, hand, generator(8), None)
    single = P.finger_overlap(hand.skeleton(anatomical_to_pose(angles, hand), torch.zeros(600, 10)))
    pose, _ = P.sample_poses(600, hand, generator(8), None)
    chosen = P.finger_overlap(hand.skeleton(pose, torch.zeros(600, 10)))
    bad = chosen > P._OVERLAP_ALLOWED
    assert bad.float().mean() < 0.12
    assert bad.float().mean() < 0.5 * (single > P._OVERLAP_ALLOWED).float().mean() + 0.01


def test_shapes_are_bounded_and_wide():
    shapes = P.sample_shapes(4000, generator(9), "cpu")
    assert shapes.abs().max() <= 3.0
    assert 1.1 < shapes.std() < 1.25


def test_viewpoints_cover_all_rotations_and_prefer_fingers_up():
    everywhere = quaternion_to_matrix(P.sample_rotations(6000, generator(10), "cpu", upright=0.0))
    mean = everywhere.mean(0)
    # even, but for the arm's axis: its 15 % nearest to the camera are drawn again
    assert 0.10 < mean[2, 1] < 0.16
    mean[2, 1] = 0
    assert mean.abs().max() < 0.04
    upright = quaternion_to_matrix(P.sample_rotations(4000, generator(11), "cpu", upright=1.0))
    fingers = -upright[:, :, 1]  # hand frame −y
    assert (fingers[:, 1] < 0).float().mean() > 0.8
    palm = -upright[:, 2, 2]  # > 0: the palm (−z) faces away from the camera
    assert 0.45 < (palm > 0).float().mean() < 0.55


def test_same_seed_same_poses(hand):
    first, again = (P.sample_poses(20, hand, generator(12), P.load_anchor_poses())[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, P.sample_poses(20, hand, generator(13), P.load_anchor_poses())[0])
