"""Overlays: what is drawn lies where the hand is, at every size."""

import dataclasses
import warnings

import cv2
import numpy as np
import pytest
import torch
from hands import make_hand

from densehand import draw
from densehand.draw import FINGER_COLOURS, LABEL_COLOURS, draw_label, draw_mesh, draw_overlay, draw_skeleton, hand_size
from densehand.render import Lights, rasterise, shade, vertex_normals
from densehand.result import Hand

GREY = 128


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def changed(picture: np.ndarray) -> np.ndarray:
    return np.abs(picture.astype(int) - GREY).max(axis=-1) > 8


def draw_mesh_plainly(picture: np.ndarray, hand: Hand, alpha: float = draw.MESH_ALPHA) -> None:
    """The naive twin of `draw_mesh`: rendered by torch, front and back, lit and blended in floating point."""
    screen = hand.screen_vertices()
    low = np.maximum(np.floor(screen[:, :2].min(axis=0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(screen[:, :2].max(axis=0)) + 1, picture.shape[1::-1]).astype(int)
    w, h = (high - low).tolist()
    zoom = min(768 / max(w, h), 4.0)
    size = max(1, round(h * zoom)), max(1, round(w * zoom))
    zooms = np.array([size[1] / w, size[0] / h, 1], dtype=np.float32)
    corners = torch.from_numpy((screen - np.array([*low, 0], dtype=np.float32)) * zooms)
    faces = torch.from_numpy(hand.faces)
    lights = Lights(
        ambient=torch.full((3,), draw.AMBIENT.item()),
        directions=torch.from_numpy(draw.LAMPS).float(),
        colors=torch.from_numpy(draw.STRENGTHS).float().expand(2, 3),
        specular=torch.tensor(draw.SPECULAR),
        shininess=draw.SHININESS,
    )
    seen = rasterise(corners, faces, size)
    colour = torch.tensor(draw.MESH_COLOURS[hand.side]) / 255
    normals = vertex_normals(torch.from_numpy(hand.vertices), faces)
    lit = shade(seen, corners, faces, lights=lights, colors=colour, normals=normals).clamp(0, 1)
    shaded = (torch.cat([lit, seen.mask[..., None].to(lit)], dim=-1) * 255).round().byte().numpy()
    shaded = cv2.resize(shaded, (w, h), interpolation=cv2.INTER_AREA if zoom >= 1 else cv2.INTER_LINEAR)
    part = picture[low[1] : high[1], low[0] : high[0]]
    coverage = shaded[..., 3:] * np.float32(alpha / 255)
    part[...] = np.rint(part * (1 - coverage) + shaded[..., :3] * np.float32(alpha)).astype(np.uint8)


def assert_same_picture(found: np.ndarray, expected: np.ndarray) -> None:
    """But for rounding, and for single pixels where surfaces touch."""
    off = np.abs(found.astype(int) - expected).max(axis=-1)
    assert (off > 0).mean() < 5e-4 and (off > 1).sum() <= 3


@pytest.mark.parametrize("pixels", [9, 60, 350, 1000])  # rendered 4, 4, 2 times as large and 0.7 times
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_mesh_is_what_the_naive_twin_draws(side, pixels):
    for seed in range(3):
        turn = tuple(np.random.default_rng(seed).normal(size=3))
        hand = make_hand(side, (pixels + 50, pixels + 20), pixels, turn=turn, seed=seed)
        photo = np.random.default_rng(seed).integers(0, 256, (pixels + 50, pixels + 20, 3), dtype=np.uint8)
        found, expected = photo.copy(), photo.copy()
        alpha = (1 / 3, 0.72, 1.0)[seed]  # whole pixels of colour then never lie half-way between two levels
        draw_mesh(found, hand, alpha)
        draw_mesh_plainly(expected, hand, alpha)
        assert (expected != photo).any()
        assert_same_picture(found, expected)


def test_an_open_mesh_across_the_border_is_what_the_naive_twin_draws():
    whole = make_hand(center=(30, 200), pixels=260, turn=(1.4, 0.3, 0.2))
    centres = whole.vertices[whole.faces].mean(axis=1)
    hand = dataclasses.replace(whole, faces=whole.faces[centres[:, 2] > np.median(centres[:, 2])])  # only its far half
    found, expected, closed = grey(240, 320), grey(240, 320), grey(240, 320)
    draw_mesh(found, hand)
    draw_mesh_plainly(expected, hand)
    draw_mesh(closed, whole)
    assert_same_picture(found, expected)
    assert changed(found).any() and (np.abs(found.astype(int) - closed).max(axis=-1) > 8).mean() > 0.01


def test_two_hands_are_what_the_naive_twin_draws():
    hands = [make_hand("left", pixels=150, seed=1), make_hand("right", pixels=170, turn=(0.3, 1.0, 1.2), seed=2)]
    found, expected = draw_overlay(grey(240, 320), hands, skeleton=False, label=False), grey(240, 320)
    for hand in sorted(hands, key=lambda hand: -hand.translation[2]):
        draw_mesh_plainly(expected, hand)
    assert_same_picture(found, expected)


def test_a_surface_without_a_normal_has_the_ambient_light():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lit = draw._light(np.zeros((3, 2), np.float32), (200, 100, 50))
    np.testing.assert_array_equal(lit, [[60, 30, 15, 255], [60, 30, 15, 255], [0, 0, 0, 0]])


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
