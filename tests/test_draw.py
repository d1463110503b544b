"""Overlays: what is drawn lies where the hand is, at every size."""

import dataclasses

import numpy as np
import pytest
from hands import make_hand

from densehand.draw import FINGER_COLOURS, LABEL_COLOURS, draw_label, draw_mesh, draw_overlay, draw_skeleton, hand_size

GREY = 128


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def changed(picture: np.ndarray) -> np.ndarray:
    return np.abs(picture.astype(int) - GREY).max(axis=-1) > 8


@pytest.mark.parametrize("pixels", [12, 40, 500])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_mesh_is_drawn_on_the_mask(side, pixels):
    size = (pixels + 60, pixels + 80)
    hand = make_hand(side, size, pixels)
    picture = grey(*size)
    draw_mesh(picture, hand)
    mask, drawn = hand.mask(size), changed(picture)
    overlap = (mask & drawn).sum() / (mask | drawn).sum()
    assert overlap > (0.75 if pixels < 20 else 0.9 if pixels < 100 else 0.97)


def test_left_and_right_differ_in_colour():
    tints = {}
    for side in ("left", "right"):
        picture = grey(240, 320)
        draw_mesh(picture, make_hand(side))
        tints[side] = picture[changed(picture)].mean(axis=0)
    assert tints["right"][0] > tints["right"][2] + 20 and tints["left"][2] > tints["left"][0] + 20


def test_light_shapes_the_mesh():
    picture = grey(240, 320)
    draw_mesh(picture, make_hand(pixels=200), alpha=1.0)
    brightness = picture[make_hand(pixels=200).mask((240, 320))].mean(axis=-1)
    assert brightness.std() > 15 and np.ptp(brightness) > 80


@pytest.mark.parametrize("pixels", [40, 200, 1500])
def test_the_skeleton_passes_through_the_keypoints_in_the_fingers_colours(pixels):
    picture = grey(pixels + 60, pixels + 60)
    keypoints = make_hand(size=picture.shape[:2], pixels=pixels, turn=(0.0, 0.0, 0.0)).keypoints_2d
    draw_skeleton(picture, keypoints)
    for finger, colour in enumerate(FINGER_COLOURS):
        x, y = np.floor(keypoints[4 * finger + 4]).astype(int)
        np.testing.assert_allclose(picture[y, x], colour, atol=60)
    width = changed(picture).sum() / pixels  # the lines' area grows with the square of the hand
    assert 0.01 * pixels < width < 0.3 * pixels + 12


def test_drawing_is_subpixel_exact():
    keypoints = make_hand(pixels=150).keypoints_2d.astype(np.float64)
    a, b = grey(300, 400), grey(300, 400)
    draw_skeleton(a, keypoints)
    draw_skeleton(b, keypoints + [30, 20])
    np.testing.assert_array_equal(a[:-20, :-30], b[20:, 30:])
    centre = np.zeros((21, 2)) + [50.5, 60.5]  # the centre of pixel (60, 50)
    single = grey(120, 100)
    draw_skeleton(single, centre)
    y, x = np.nonzero(changed(single))
    assert abs(y.mean() - 60) < 0.2 and abs(x.mean() - 50) < 0.2


def test_uncertain_keypoints_are_smaller():
    keypoints, areas = make_hand(pixels=200).keypoints_2d, []
    for confidence in (0.0, 1.0):
        picture = grey(240, 320)
        draw_skeleton(picture, keypoints, np.full(21, confidence))
        areas.append(changed(picture).sum())
    assert areas[0] < areas[1]


def test_the_label_has_the_sides_colour_and_stays_in_the_picture():
    for side in ("left", "right"):
        for center in ((160, 120), (20, 10), (310, 230)):
            picture = grey(240, 320)
            draw_label(picture, make_hand(side, center=center))
            near = np.abs(picture.astype(int) - LABEL_COLOURS[side]).max(axis=-1) < 30
            assert near.sum() > 100


def test_nearer_hands_cover_farther_ones():
    far = make_hand("left", pixels=150)
    near = make_hand("right", pixels=160)
    both = draw_overlay(grey(240, 320), [near, far], skeleton=False, label=False)
    same = draw_overlay(grey(240, 320), [far, near], skeleton=False, label=False)
    np.testing.assert_array_equal(both, same)
    top = both[near.mask((240, 320)) & far.mask((240, 320))].mean(axis=0)
    assert near.translation[2] < far.translation[2] and top[0] > top[2]


def test_the_photo_itself_is_left_alone_and_no_hands_change_nothing():
    photo = grey(240, 320)
    assert changed(draw_overlay(photo, [make_hand()])).any() and (photo == GREY).all()
    np.testing.assert_array_equal(draw_overlay(photo, []), photo)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (24, 24)])
def test_tiny_pictures(size):
    hand = make_hand(size=size, pixels=max(size))
    assert draw_overlay(grey(*size), [hand]).shape == (*size, 3)


@pytest.mark.parametrize("center", [(-5000, 40), (160, 9000), (1e7, 1e7), (0, 0)])
def test_hands_outside_or_across_the_border(center):
    hand = make_hand(center=center)
    picture = draw_overlay(grey(240, 320), [hand], label=False)
    assert changed(picture).any() == (center == (0, 0))
    draw_overlay(grey(240, 320), [hand])


def test_a_hand_far_larger_than_the_picture():
    hand = make_hand(pixels=8000)
    picture = draw_overlay(grey(240, 320), [hand])
    assert picture.shape == (240, 320, 3) and changed(picture).any()
    point = dataclasses.replace(hand, keypoints_2d=np.full((21, 2), 10.0))
    assert hand_size(point.keypoints_2d) == 0
    draw_overlay(grey(240, 320), [point])
