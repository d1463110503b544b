"""Names, bones and orders of the keypoints."""

import numpy as np
import pytest

from densehand.hand.keypoints import (
    BONES,
    FINGERTIPS,
    JOINT_NAMES,
    JOINT_PARENTS,
    KEYPOINT_NAMES,
    KEYPOINT_PARENTS,
    KEYPOINT_SOURCE,
    ORDERS,
    to_house_order,
)


def test_bones_form_a_tree_from_the_wrist() -> None:
    assert len(KEYPOINT_NAMES) == len(set(KEYPOINT_NAMES)) == 21
    assert len(BONES) == 20
    assert [child for _, child in BONES] == list(range(1, 21))
    assert all(parent < child for parent, child in BONES)
    assert [parent for parent, _ in BONES].count(0) == 5
    assert all(KEYPOINT_NAMES[tip].endswith("_tip") for tip in FINGERTIPS)


def test_keypoints_come_from_the_joints_of_the_same_name() -> None:
    sources = [*JOINT_NAMES, "thumb_tip", "index_tip", "middle_tip", "ring_tip", "little_tip"]
    assert tuple(sources[s] for s in KEYPOINT_SOURCE) == KEYPOINT_NAMES
    for child, parent in enumerate(JOINT_PARENTS[1:], start=1):
        k = KEYPOINT_NAMES.index(JOINT_NAMES[child])
        assert KEYPOINT_NAMES[KEYPOINT_PARENTS[k]] == JOINT_NAMES[parent]


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_orders_are_permutations_and_round_trip(name: str) -> None:
    assert sorted(ORDERS[name]) == list(range(21))
    points = np.random.default_rng(0).normal(size=(21, 3))
    np.testing.assert_array_equal(to_house_order(points[list(ORDERS[name])], name), points)
    np.testing.assert_array_equal(to_house_order(points[list(ORDERS[name])], ORDERS[name]), points)


@pytest.mark.parametrize(
    ("name", "index", "keypoint"),
    [
        ("rhd", 1, "thumb_tip"),
        ("rhd", 4, "thumb_cmc"),
        ("rhd", 17, "little_tip"),
        ("interhand", 0, "thumb_tip"),
        ("interhand", 3, "thumb_cmc"),
        ("interhand", 20, "wrist"),
        ("ho3d", 1, "index_mcp"),
        ("ho3d", 7, "little_mcp"),
        ("ho3d", 16, "thumb_tip"),
        ("stb", 1, "little_mcp"),
        ("stb", 20, "thumb_tip"),
        ("freihand", 8, "index_tip"),
    ],
)
def test_known_places(name: str, index: int, keypoint: str) -> None:
    points = np.zeros((21, 1))
    points[index] = 1
    assert KEYPOINT_NAMES[int(to_house_order(points, name).argmax())] == keypoint


def test_unknown_order_names_the_known() -> None:
    with pytest.raises(KeyError, match="freihand"):
        to_house_order(np.zeros((21, 3)), "nosuch")
