"""How fingers bend: measured on skeletons, and how far a network's bends follow the true ones."""

import math

import numpy as np
import pytest
import torch
from tool_loader import load_tool

from densehand.hand.anatomy import anatomical_to_pose
from densehand.hand.keypoints import FINGERS, KNUCKLES, finger_bends

load_tool("error_cases")
tool = load_tool("measure_bends")


def test_bends_are_the_angles_between_bones():
    generator = torch.Generator().manual_seed(0)
    joints = torch.randn(3, 21, 3, generator=generator, dtype=torch.float64)
    found = finger_bends(joints)
    assert found.shape == (3, 5, 3)
    for hand in range(3):
        for finger, first in enumerate(KNUCKLES):
            chain = [0, *range(first, first + 4)]
            for k in range(3):
                a, b, c = (joints[hand, chain[k + i]].numpy() for i in range(3))
                u, v = b - a, c - b
                angle = math.acos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
                assert found[hand, finger, k].item() == pytest.approx(angle, abs=1e-9)


def test_bending_a_joint_of_the_model_bends_its_bones(hand):
    rows = {"index": 0, "middle": 3, "ring": 9, "little": 6, "thumb": 12}
    for finger, row in rows.items():
        angles = torch.zeros(2, 15, 3)
        angles[1, row + 2, 0] = math.radians(60)
        skeleton = hand.skeleton(anatomical_to_pose(angles, hand), torch.zeros(2, 10))
        straight, bent = finger_bends(skeleton)
        change = (bent - straight).rad2deg()
        i = FINGERS.index(finger)
        assert 45 < float(change[i, 2]) < 65
        change[i, 2] = 0
        assert float(change.abs().max()) < 0.01


def test_bends_of_points_in_one_place_are_finite():
    points = torch.zeros(1, 21, 3, dtype=torch.float64)
    assert bool(finger_bends(points).isfinite().all())


def test_slopes_tell_who_sees_a_bend_and_who_is_blind(hand):
    generator = torch.Generator().manual_seed(1)
    angles = torch.zeros(300, 15, 3)
    angles[..., 0] = math.radians(80) * torch.rand(300, 15, generator=generator)
    true = hand.skeleton(anatomical_to_pose(angles, hand), torch.zeros(300, 10))
    blind = angles.clone()
    blind[:, 14] = math.radians(20)  # the thumb's last joint
    guess = hand.skeleton(anatomical_to_pose(blind, hand), torch.zeros(300, 10))
    unknown = torch.cat([true, torch.full((1, 21, 3), torch.nan)])
    rows = {(row["finger"], row["joint"]): row for row in tool.figures(torch.cat([guess, guess[:1]]), unknown)}
    assert len(rows) == 15
    for (finger, joint), row in rows.items():
        seen = (finger, joint) != ("thumb", "third")
        assert row["hands"] == 300
        assert float(row["slope"]) == pytest.approx(float(seen), abs=0.02)
        assert (float(row["error_deg"]) < 0.1) == seen


def test_only_the_fingers_told_count(hand):
    angles = torch.zeros(40, 15, 3)
    angles[..., 0] = torch.linspace(0, math.radians(80), 40)[:, None]
    true = hand.skeleton(anatomical_to_pose(angles, hand), torch.zeros(40, 10))
    told = torch.ones(40, 5, dtype=torch.bool)
    told[20:, FINGERS.index("ring")] = False
    guess = true.clone()
    guess[20:] = true[:1]  # straight where the true ones bend most
    rows = {(row["finger"], row["joint"]): row for row in tool.figures(guess, true, told)}
    assert rows["ring", "second"]["hands"] == 20
    assert float(rows["ring", "second"]["error_deg"]) < 0.1
    assert rows["index", "second"]["hands"] == 40
    assert float(rows["index", "second"]["error_deg"]) > 10


def test_rendered_fingers_are_seen_where_their_keypoints_are(hand):
    images, joints, seen = tool.rendered_hands(hand, 64, 6)
    assert images.shape == (6, 3, 64, 64)
    assert joints.shape == (6, 21, 3)
    assert seen.shape == (6, 5)
    assert bool(seen.any())
    assert not bool(seen.all())
