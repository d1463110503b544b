"""Words for hands: poses made with the hand model, views turned about, colours painted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.attributes import pose_group, sharpness, straightness, thirds, tone_group, typology_angle, view_group
from densehand.errors import InputError
from densehand.hand.anatomy import anatomical_to_pose
from densehand.hand.keypoints import KEYPOINT_NAMES
from densehand.hand.model import HandModel
from densehand.synth.poses import FAMILIES, FINGER_ROWS


def joints_of(hand: HandModel, flexions: dict[str, tuple[float, float]], turn: tuple[float, float, float] = (0, 0, 0)):
    """Keypoints of the hand with each named finger's MCP and PIP flexed (degrees), turned by a rotation vector."""
    angles = torch.zeros(15, 3)
    for finger, (knuckle, middle) in flexions.items():
        row = FINGER_ROWS[finger]
        angles[row, 0], angles[row + 1, 0] = np.radians(knuckle), np.radians(middle)
        angles[row + 2, 0] = np.radians(0.6 * middle)
    pose = anatomical_to_pose(angles[None], hand)[0]
    half = np.linalg.norm(turn) / 2
    axis = np.asarray(turn) / max(2 * half, 1e-9)
    rotation = torch.tensor([np.cos(half), *(np.sin(half) * axis)], dtype=torch.float32)
    return hand.skeleton(pose[None], torch.zeros(1, 10), rotation[None])[0].numpy()


FIST = dict.fromkeys(("index", "middle", "ring", "little"), (82.0, 98.0))


def test_poses_have_the_names_people_give_them(hand):
    assert pose_group(joints_of(hand, {})) == "open"
    assert pose_group(joints_of(hand, FIST)) == "fist"
    assert pose_group(joints_of(hand, {k: v for k, v in FIST.items() if k != "index"})) == "pointing"
    assert pose_group(joints_of(hand, {k: FIST[k] for k in ("ring", "little")})) == "counting"
    assert pose_group(joints_of(hand, dict.fromkeys(FIST, (42.0, 55.0)))) == "bent"
    assert "fist" in {family.name for family in FAMILIES}  # the angles above are the synthesizer's


def test_views_have_the_names_people_give_them(hand):
    assert view_group(joints_of(hand, {})) == "palm"
    assert view_group(joints_of(hand, {}, (0, np.pi, 0))) == "back"
    assert view_group(joints_of(hand, {}, (0, 0, 2.0))) == "palm"  # turned in the picture
    assert view_group(joints_of(hand, {}, (0, np.pi / 2, 0))) == "side"
    assert view_group(joints_of(hand, {}, (np.pi / 2, 0, 0))) == "end on"


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.tuples(*[st.floats(-9, 9)] * 3))
def test_words_do_not_depend_on_unit_or_place(hand, scale, shift):
    joints = joints_of(hand, {k: FIST[k] for k in ("ring", "little")}, (0.3, -0.4, 1.0))
    moved = joints * scale + np.asarray(shift)
    assert pose_group(moved) == pose_group(joints)
    assert view_group(moved) == view_group(joints)


def test_straightness_by_hand():
    joints = np.zeros((21, 3))
    for i, name in enumerate(("mcp", "pip", "dip", "tip")):
        joints[KEYPOINT_NAMES.index(f"index_{name}")] = (i, 0, 0)
        joints[KEYPOINT_NAMES.index(f"middle_{name}")] = ((0, 0), (1, 0), (1, 1), (0, 1))[i] + (0,)
    np.testing.assert_allclose(straightness(joints), [1, 1 / 3, 0, 0])


def palm_of(colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    picture = np.full((80, 80, 3), 255, np.uint8)
    picture[20:60, 20:60] = colour
    keypoints = np.full((21, 2), 40.0)
    for name, place in zip(
        ("wrist", "index_mcp", "middle_mcp", "ring_mcp", "little_mcp"),
        ((40, 58), (22, 22), (34, 21), (46, 21), (58, 22)),
        strict=True,
    ):
        keypoints[KEYPOINT_NAMES.index(name)] = place
    return picture, keypoints


@pytest.mark.parametrize(
    "colour, word",
    [((240, 208, 190), "light"), ((188, 140, 100), "tan"), ((120, 80, 50), "brown"), ((60, 38, 26), "dark")],
)
def test_tones(colour, word):
    assert tone_group(typology_angle(*palm_of(colour))) == word


def test_typology_angle_by_hand():
    # sRGB (119, 119, 119) has L* 50.03 and b* 0: the angle of a grey is ±90° at the sign of L* − 50
    assert typology_angle(*palm_of((160, 160, 160))) == pytest.approx(90, abs=0.1)
    assert typology_angle(*palm_of((80, 80, 80))) == pytest.approx(-90, abs=0.1)


def test_a_palm_outside_the_picture_is_unknown():
    picture, keypoints = palm_of((200, 160, 140))
    assert tone_group(typology_angle(picture, keypoints + 500)) == "unknown"
    assert np.isnan(sharpness(picture, keypoints + 500))
    with pytest.raises(InputError, match="uint8"):
        typology_angle(picture / 255.0, keypoints)


def test_blur_lowers_sharpness():
    import cv2

    random = np.random.default_rng(0)
    picture, keypoints = random.integers(0, 255, (80, 80, 3), dtype=np.uint8), palm_of((0, 0, 0))[1]
    assert sharpness(cv2.GaussianBlur(picture, (0, 0), 3), keypoints) < 0.5 * sharpness(picture, keypoints)


def test_thirds():
    assert thirds(np.array([3.0, 1, 2, np.nan])) == ["high", "low", "middle", "unknown"]
    assert thirds(np.array([np.nan])) == ["unknown"]
