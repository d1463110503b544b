"""Cameras and frames: round trips, pixels that land where they should."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand import camera
from densehand.camera import Crop, can_be_shown, in_plane
from densehand.errors import InputError
from densehand.resample import crop_image

pixel = st.floats(-5000, 5000)
length = st.floats(0.01, 5000)
crops = st.builds(Crop, st.tuples(pixel, pixel), length, st.booleans())


@settings(max_examples=60, deadline=None)
@given(crops, st.lists(st.tuples(pixel, pixel, pixel), min_size=1, max_size=5))
def test_crop_round_trip(crop: Crop, points: list) -> None:
    for dims in (2, 3):
        array = np.array(points)[:, :dims]
        np.testing.assert_allclose(crop.to_image(crop.to_crop(array)), array, atol=1e-8)
        tensor = torch.from_numpy(array)
        torch.testing.assert_close(crop.to_image(crop.to_crop(tensor)), tensor, atol=1e-8, rtol=0)
        np.testing.assert_array_equal(crop.to_crop(tensor).numpy(), crop.to_crop(array))


@settings(max_examples=60, deadline=None)
@given(crops, st.lists(st.tuples(pixel, pixel), min_size=1, max_size=5), st.integers(1, 512))
def test_pixels_of_a_crop_are_those_of_its_affine(crop: Crop, points: list, size: int) -> None:
    found = crop.to_pixels(np.array(points), size)
    back = [crop.crop_to_image_affine(size) @ np.array([x, y, 1.0]) for x, y in found]
    np.testing.assert_allclose(back, points, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.tuples(pixel, pixel, pixel, pixel), st.integers(1, 4000), st.integers(1, 4000))
def test_what_is_shown_of_a_label_holds_its_box_or_the_whole_photo(box: tuple, width: int, height: int) -> None:
    box = np.array(box)
    crop = Crop.to_look_at(box, width, height)
    shown = crop.to_crop(box.reshape(2, 2))
    if can_be_shown(box):
        assert crop.half_side >= 4 and np.abs(shown).max() <= 1 / 1.5 + 1e-6
        if (box[2:] - box[:2]).max() > 6:
            assert crop == Crop.from_box(box) or np.abs(shown).max() == pytest.approx(1 / 1.5)
    else:
        assert (box[2:] <= box[:2]).any() and crop == Crop.to_look_at(None, width, height)
        assert np.abs(crop.to_crop(np.array([[0, 0], [width, height]]))).max() == pytest.approx(1)


@pytest.mark.parametrize("box", [[0, 0, np.nan, 1], [0, 0, np.inf, 1], [5, 0, 1, 9], [0, 0, 4, 0], [0, 0, 1, 1e7]])
def test_boxes_that_cannot_be_shown(box: list) -> None:
    assert not can_be_shown(np.array(box)) and can_be_shown(np.array([-5.0, 0, 1, 9]))
    assert Crop.to_look_at(np.array(box), 60, 40) == Crop((30, 20), 30)


@settings(max_examples=60, deadline=None)
@given(crops, st.tuples(pixel, pixel), st.integers(1, 512), st.one_of(st.just(0.0), st.floats(-4, 4)))
def test_affine_agrees_with_to_image(crop: Crop, point: tuple, size: int, turn: float) -> None:
    place = crop.crop_to_image_affine(size, turn) @ np.array([*point, 1.0])
    expected = crop.to_image(in_plane(turn) @ (2 * np.array(point) / size - 1))
    np.testing.assert_allclose(place, expected, rtol=1e-9, atol=1e-8 * max(1, crop.half_side / size * 5000))


def test_from_box_follows_the_convention() -> None:
    crop = Crop.from_box([10, 20, 50, 40])
    assert crop.center == (30, 30) and crop.half_side == 30 and not crop.mirrored
    np.testing.assert_allclose(crop.to_crop(np.array([[0, 0], [60, 60], [30, 30]])), [[-1, -1], [1, 1], [0, 0]])
    mirrored = Crop.from_box(np.array([10, 20, 50, 40]), mirrored=True)
    np.testing.assert_allclose(mirrored.to_crop(np.array([[0, 0], [60, 60]])), [[1, -1], [-1, 1]])
    assert Crop.from_box([0, 0, 4, 0]).half_side == 3  # a flat box still has a larger side


@pytest.mark.parametrize("box", [[1, 1, 1, 1], [5, 0, 1, 9], [0, 0, 1], [0, 0, np.nan, 1], [0, 0, np.inf, 1]])
def test_bad_boxes_are_refused(box: list) -> None:
    with pytest.raises(InputError, match="box"):
        Crop.from_box(box)


@pytest.mark.parametrize("half", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_crops_are_refused(half: float) -> None:
    with pytest.raises(InputError, match="half the side"):
        Crop((0, 0), half)


def test_crop_image_copies_whole_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    crop = Crop((20, 18), 8)
    np.testing.assert_array_equal(crop_image(image, crop, 16), image[10:26, 12:28])
    np.testing.assert_array_equal(crop_image(image, Crop((20, 18), 8, True), 16), image[10:26, 12:28][:, ::-1])


def test_crop_image_averages_when_it_minifies() -> None:
    image = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    for factor in (2, 3, 4, 6, 8, 12):
        crop = Crop((48, 48), 48)
        expected = cv2.resize(image, (96 // factor, 96 // factor), interpolation=cv2.INTER_AREA)
        assert np.abs(crop_image(image, crop, 96 // factor).astype(int) - expected).max() <= 1


def test_crop_image_does_not_alias() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255  # a plain bilinear warp would show beats instead of grey
    for half in (110.3, 150.7, 199.0):
        patch = crop_image(stripes, Crop((200.2, 199.4), half), 48)[2:-2, 2:-2].astype(int)
        assert np.abs(patch - 128).max() < 24


def test_crop_image_puts_points_where_to_crop_says() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        x, y = rng.uniform(60, 140, 2)
        rows, columns = np.mgrid[0:200, 0:200] + 0.5
        blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))
        image = np.repeat(blob[..., None], 3, axis=2).round().astype(np.uint8)
        crop = Crop(tuple(rng.uniform(90, 110, 2)), rng.uniform(60, 120), bool(rng.integers(2)))
        size, turn = int(rng.integers(40, 260)), rng.uniform(-4, 4) * rng.integers(2)
        patch = crop_image(image, crop, size, turn=turn)[..., 0].astype(float)
        rows, columns = np.mgrid[0:size, 0:size] + 0.5
        found = np.array([(patch * columns).sum(), (patch * rows).sum()]) / patch.sum()
        np.testing.assert_allclose(found, (crop.to_crop(np.array([x, y])) @ in_plane(turn) + 1) * size / 2, atol=0.08)


def test_of_a_turned_crop_the_corners_are_seen_too() -> None:
    image = np.full((120, 120, 3), 200, np.uint8)
    assert crop_image(image, Crop((60, 60), 40), 50, turn=math.pi / 4).min() == 200  # its corners: 57 pixels away
    quarter = np.random.default_rng(0).integers(0, 255, (120, 120, 3), dtype=np.uint8)
    turned = crop_image(quarter, Crop((60, 60), 16), 32, turn=math.pi / 2)
    np.testing.assert_array_equal(turned, np.rot90(quarter[44:76, 44:76]))


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(*[st.integers(1, 90)] * 2), st.tuples(*[st.integers(-160, 480)] * 2), st.integers(1, 900),
    st.sampled_from([1, 8, 16, 37]), st.sampled_from([0.0, 0.4, -2.5]), st.sampled_from(["constant", "replicate"]),
)  # fmt: skip
def test_a_mirrored_crop_is_the_mirrored_photos_to_the_last_bit(sides, centre, half, size, turn, border) -> None:
    image = np.random.default_rng(sum(sides)).integers(0, 255, (*sides, 3), dtype=np.uint8)
    (x, y), half = (coordinate / 4 for coordinate in centre), half / 8
    seen = crop_image(image, Crop((x, y), half, True), size, border, turn)
    other = crop_image(np.ascontiguousarray(image[:, ::-1]), Crop((sides[1] - x, y), half), size, border, turn)
    np.testing.assert_array_equal(seen, other)


def test_crop_image_outside_and_borders() -> None:
    image = np.full((30, 20, 3), 200, np.uint8)
    assert crop_image(image, Crop((500, 500), 10), 8).max() == 0
    assert crop_image(image, Crop((500, 500), 10), 8, border="replicate").min() == 200
    assert crop_image(image, Crop((10, 15), 200), 16, border="replicate").min() == 200
    half = crop_image(image, Crop((0, 15), 8), 16)[..., 0]
    assert half[:, :7].max() == 0 and half[:, 9:].min() == 200
    tiny = crop_image(image, Crop((10, 15), 1e7), 64)  # far larger than the image: bounded memory
    assert tiny.shape == (64, 64, 3)
    with pytest.raises(InputError):
        crop_image(image[..., 0], Crop((0, 0), 1), 8)
    with pytest.raises(InputError):
        crop_image(image[:0], Crop((0, 0), 1), 8)


def test_points_behind_the_camera_have_no_image() -> None:
    for kind in (np.asarray, torch.tensor):
        pixels = camera.project_pinhole(kind([[0.0, 0.0, 0.0], [0.0, 0.0, -2.0]]), [0.0, 0.0, 1.0], 100.0, [5.0, 5.0])
        assert pixels[0].tolist() == [5.0, 5.0] and np.isnan(np.asarray(pixels[1])).all()


def test_cameras_are_differentiable() -> None:
    torch.manual_seed(2)
    points = (torch.randn(2, 3, 3, dtype=torch.float64) * 0.05).requires_grad_()
    place = torch.tensor([[0.1, 0.2, 0.6], [-0.1, 0.0, 0.9]], dtype=torch.float64, requires_grad=True)

    def chain(points, place):
        return camera.project_pinhole(points, place, 600.0, [160.0, 120.0])

    assert torch.autograd.gradcheck(chain, (points, place))


def test_pinhole_is_similar_triangles() -> None:
    points, place = np.array([[0.1, -0.2, 0.3], [0.0, 0.0, 0.0]]), np.array([0.05, 0.1, 0.7])
    expected = [[600 * 0.15 / 1.0 + 160, 600 * -0.1 / 1.0 + 120], [600 * 0.05 / 0.7 + 160, 600 * 0.1 / 0.7 + 120]]
    np.testing.assert_allclose(camera.project_pinhole(points, place, 600.0, [160.0, 120.0]), expected)


def test_default_focal() -> None:
    assert camera.default_focal(1920, 1080) == camera.default_focal(1080, 1920) == 0.85 * 1920
    with pytest.raises(InputError):
        camera.default_focal(0, 10)


def test_float32_and_integers() -> None:
    crop = Crop((10, 10), 5)
    assert crop.to_crop(np.array([[1, 2]])).dtype == np.float64
    assert crop.to_crop(np.array([[1, 2]], np.float32)).dtype == np.float32
    assert crop.to_crop(torch.tensor([[1, 2]])).dtype == torch.float32
    with pytest.raises(InputError):
        crop.to_crop(np.zeros((2, 4)))
