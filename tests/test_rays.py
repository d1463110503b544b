"""Rays: the shortest turn, its mirror image, and a hand beside the axis whose true place and turn are known."""

import dataclasses

import numpy as np
import pytest
import roma
import torch
from hands import make_hand, open_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.camera import project_pinhole
from densehand.data.labelled import place_flat
from densehand.rays import NEAREST, turn_rotation, turn_to_box, turn_to_ray, wrist_place
from densehand.result import posed_mesh

slope = st.floats(-3, 3)


@settings(max_examples=50, deadline=None)
@given(slope, slope, st.floats(0.01, 100))
def test_the_turn_is_the_shortest_one(x, y, length):
    turn = turn_to_ray(np.array([x, y, 1]) * length)
    axis = np.array([-y, x, 0])  # z × ray
    sine = np.linalg.norm(axis)
    vector = axis / sine * np.arctan(sine) if sine > 0 else axis
    np.testing.assert_allclose(turn, roma.rotvec_to_rotmat(torch.from_numpy(vector)).numpy(), atol=1e-12)
    flip = np.diag([-1.0, 1, 1])
    mirrored = turn_to_box(np.array([x, y, x, y]), 1.0, np.zeros(2), mirrored=True)
    np.testing.assert_allclose(mirrored, flip @ turn @ flip, atol=1e-12)


def test_turned_rotations_turn_the_mesh():
    hand = make_hand("left")
    turn = turn_to_ray(np.array([0.4, -0.3, 1]))
    mirrored = np.diag([-1.0, 1, 1]) @ turn @ np.diag([-1.0, 1, 1])
    rotation = turn_rotation(mirrored, hand.rotation)
    vertices, joints, _ = posed_mesh(open_hand(), hand.pose, hand.shape, rotation, "left")
    np.testing.assert_allclose(vertices, hand.vertices @ turn.T, atol=1e-6)
    np.testing.assert_allclose(joints, hand.joints_3d @ turn.T, atol=1e-6)


@pytest.mark.parametrize("degrees", [0, 10, 20])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_hand_beside_the_axis_is_found_where_it_is(side, degrees):
    focal, center, distance = 600.0, np.array([320.0, 240.0]), 0.8
    hand = make_hand(side, turn=(0.5, -0.4, 1.0))
    place = distance * np.array([np.tan(np.radians(degrees)), -0.1, 1])
    pixels = project_pinhole(hand.joints_3d, place, focal, center)
    box = np.concatenate([pixels.min(0), pixels.max(0)])
    crop = torch.from_numpy(hand.joints_3d @ turn_to_box(box, focal, center))[None, :, :2]
    scale, move, _ = place_flat(crop, torch.from_numpy(pixels)[None], torch.ones(1, 21))
    wrist = move[0].numpy()  # the wrist is at the origin of the crop's axes
    found = wrist_place(float(scale), wrist, hand.joints_3d, focal, center)
    assert np.linalg.norm(found - place) < 0.08 * distance  # beside the axis a picture is stretched, here by up to 6 %
    seen = dataclasses.replace(
        hand, box=box, scale=float(scale), translation=found, focal_px=focal, center_px=center.astype(np.float32)
    )
    off = np.linalg.norm(seen.project(hand.joints_3d) - pixels, axis=1).mean() / (box[2:] - box[:2]).max()
    assert off < 0.025  # a hand at 0.8 m is not quite flat


def test_a_focal_length_too_short_leaves_the_wrist_before_the_camera():
    joints = make_hand().joints_3d + [0, 0, 0.1]
    place = wrist_place(1000.0, np.array([5.0, 5.0]), joints, 10.0, np.zeros(2))
    assert place[2] == pytest.approx(NEAREST * 0.01)
