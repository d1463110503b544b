"""Words for hands: poses made with the hand model, views turned about, colours painted."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.attributes import (
    CHANCE,
    SHAPE_WORDS,
    judged,
    over_all,
    pose_group,
    self_hidden,
    self_hidden_group,
    shape_groups,
    sharpness,
    straightness,
    thirds,
    tone_group,
    typology_angle,
    view_group,
)
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


def test_what_is_not_known_has_no_name(hand):
    joints = joints_of(hand, {})
    joints[5, 2] = np.nan
    assert {pose_group(joints), view_group(joints), self_hidden_group(joints)} == {"unknown"}
    picture, keypoints = palm_of((200, 160, 140))
    keypoints[KEYPOINT_NAMES.index("ring_tip")] = np.nan  # no part of the palm
    assert np.isfinite(typology_angle(picture, keypoints))
    assert np.isfinite(sharpness(picture, keypoints))
    keypoints[KEYPOINT_NAMES.index("wrist")] = np.nan
    assert np.isnan(typology_angle(picture, keypoints))
    assert np.isnan(sharpness(picture, np.full((21, 2), np.nan)))


def hidden_names(joints: np.ndarray) -> set[str]:
    return {name for name, hidden in zip(KEYPOINT_NAMES, self_hidden(joints), strict=True) if hidden}


def test_an_open_palm_hides_nothing_and_a_fist_its_fingers_from_behind(hand):
    assert hidden_names(joints_of(hand, {})) == set()
    ends = {f"{finger}_dip" for finger in FIST}
    assert ends <= hidden_names(joints_of(hand, FIST, (0, np.pi, 0)))
    assert not ends & hidden_names(joints_of(hand, FIST))
    assert self_hidden_group(joints_of(hand, {})) == "under 15 %"
    assert self_hidden_group(joints_of(hand, {}, (0, np.pi / 2, 0))) == "over 35 %"  # edge on, finger behind finger


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.tuples(*[st.floats(-9, 9)] * 3), st.floats(-3, 3))
def test_what_is_hidden_does_not_depend_on_unit_place_or_a_turn_of_the_picture(hand, scale, shift, angle):
    joints = joints_of(hand, {k: FIST[k] for k in ("ring", "little")}, (0.3, 2.0, 1.0)).astype(float)
    c, s = np.cos(angle), np.sin(angle)
    moved = scale * joints @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T + np.asarray(shift)
    np.testing.assert_array_equal(self_hidden(moved), self_hidden(joints))


def test_hidden_keypoints_are_mostly_those_that_a_rendered_mesh_hides(hand):
    from densehand.synth.config import SynthConfig
    from densehand.synth.sampler import Synthesizer

    alone = SynthConfig(object_share=0.0, occluder_share=0.0, other_before=0.0, photograph=False)
    batch = Synthesizer(hand, size=64, seed=3, config=alone).sample(48)
    joints = hand.skeleton(batch.pose, batch.shape, batch.rotation).numpy()
    guess = np.stack([self_hidden(j) for j in joints])
    inside = (batch.keypoints.abs().amax(-1) < 1).numpy()
    truth = ~batch.visible.numpy()
    assert (guess == truth)[inside].mean() > 0.8
    assert np.corrcoef(guess.mean(1), truth.mean(1))[0, 1] > 0.6


def test_shape_groups_follow_the_named_directions(hand):
    shape = np.zeros((3, 10), np.float32)
    shape[:, 4] = (1, -1, 0)
    groups = shape_groups(shape)
    assert len(groups) == len(SHAPE_WORDS)
    assert groups["age of the hand"] == ["old-looking", "young-looking", "middling"]

    def breadth(direction: int, number: float) -> float:
        """Knuckle breadth with one number of shape set."""
        shape = torch.zeros(10)
        shape[direction] = number
        joints = hand.skeleton(torch.zeros(45), shape)
        return float((joints[5] - joints[17]).norm())

    wide = np.zeros((3, 10), np.float32)
    wide[:, 3] = (-2, 0, 2)
    assert groups_in_order(shape_groups(wide)["palm width of the hand"]) == ["narrow", "middling", "wide"]
    assert breadth(3, -2) < breadth(3, 0) < breadth(3, 2)


def groups_in_order(words: list[str]) -> list[str]:
    return list(dict.fromkeys(words))


def test_the_chance_of_a_group_is_that_of_all_groups_of_its_size():
    values, chosen = np.array([9.0, 7, 1, 2, 3, 6, 1, 4]), np.arange(8) < 2
    sums = [sum(group) for group in combinations(values, 2)]
    exact = np.mean([s >= 16 for s in sums])
    hands, ratio, chance = over_all(values, chosen)
    assert (hands, ratio) == (2, pytest.approx(8 / values.mean()))
    assert chance == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("lost", [1, 3, 5])
def test_the_chance_of_lost_hands_is_hypergeometric(lost):
    """12 lost hands of 200, `lost` of them in a group of 30."""
    values = np.zeros(200)
    values[:lost] = values[30 : 42 - lost] = 1
    exact = sum(comb(30, k) * comb(170, 12 - k) for k in range(lost, 13)) / comb(200, 12)
    _, ratio, chance = over_all(values, np.arange(200) < 30)
    assert ratio == pytest.approx(lost / 30 / (12 / 200))
    assert chance == pytest.approx(exact, abs=0.04)


def test_a_group_as_good_as_all_is_chance_itself():
    assert over_all(np.full(50, 0.1), np.arange(50) < 20)[1:] == (pytest.approx(1), 1)
    assert over_all(np.arange(50.0), np.ones(50, bool))[1:] == (1, 1)


def test_values_that_are_not_known_take_no_part():
    values = np.array([1.0, np.nan, 3, 2, np.nan, 6])
    chosen = np.array([True, True, False, False, True, True])
    known = np.isfinite(values)
    assert over_all(values, chosen) == over_all(values[known], chosen[known])
    assert over_all(values, chosen)[0] == 2
    for nothing in (over_all(values, np.isnan(values)), over_all(np.zeros(6), chosen)):
        assert np.isnan(nothing[1:]).all()


def test_a_group_is_weak_beyond_a_quarter_if_chance_would_not_do_that():
    assert judged(20, 1.26, CHANCE / 2) == "weak"
    assert judged(20, 1.25, CHANCE / 2) == ""
    assert judged(19, 5.0, CHANCE / 2) == "unsure"
    assert judged(200, 1.26, CHANCE) == "unsure"
    assert judged(0, np.nan, np.nan) == ""
