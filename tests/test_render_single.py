"""The renderer of one picture in numpy against `rasterise`, its twin, on closed, open and broken meshes."""

import numpy as np
import pytest
import torch
import trimesh
from hands import make_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.errors import InputError
from densehand.render import interpolate_vertices, rasterise, single
from densehand.render.single import part_around, see


def picture(vertices: np.ndarray, faces: np.ndarray, size: tuple[int, int], attributes: np.ndarray) -> np.ndarray:
    """The bands together, NaN where nothing is seen."""
    drawn = np.full((*size, attributes.shape[1]), np.inf, np.float32)
    for band in see(vertices, faces, size, attributes):
        none = np.full((attributes.shape[1], 1), np.nan, np.float32)
        drawn[band.rows] = np.moveaxis(np.concatenate([band.values, none], axis=1)[:, band.column], 0, -1)
    return drawn


def twin(vertices: np.ndarray, faces: np.ndarray, size: tuple[int, int], attributes: np.ndarray) -> np.ndarray:
    corners, numbers = torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces)
    seen = rasterise(corners, numbers, size)
    return interpolate_vertices(seen, torch.from_numpy(attributes.astype(np.float32)), numbers, torch.nan).numpy()


def assert_same(found: np.ndarray, expected: np.ndarray, others: float = 0.0) -> None:
    """The same pixels covered, with the same values but for a share of the pixels (faces at nearly one depth)."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    off = np.abs(np.nan_to_num(found) - np.nan_to_num(expected)).max(axis=-1) > 2e-3
    assert off.mean() <= others


def ball(size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A closed surface with dents, partly outside the picture, and attributes."""
    rng = np.random.default_rng(seed)
    mesh = trimesh.creation.icosphere(subdivisions=3)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    length = 1 + 0.35 * np.sin(5 * mesh.vertices @ rng.normal(size=3))
    vertices = (length[:, None] * mesh.vertices) @ rotation.T * max(size) * 0.4
    vertices[:, :2] += np.array(size[::-1]) * rng.uniform(0.2, 0.8, 2)
    return vertices, np.asarray(mesh.faces, np.int64), rng.normal(size=(len(vertices), 4))


def soup(count: int, size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-0.2, 1.2, (count, 1, 3)) * (size[1], size[0], 40)
    vertices = (centre + rng.normal(size=(count, 3, 3)) * max(size) / 6).reshape(-1, 3)
    return vertices, np.arange(3 * count).reshape(-1, 3), rng.normal(size=(3 * count, 2))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(90, 130), (130, 90), (7, 300), (300, 7), (1, 1)])
def test_closed_surfaces_and_soups_are_drawn_as_by_rasterise(size: tuple[int, int], seed: int) -> None:
    for mesh in (ball(size, seed), soup(25, size, seed)):
        vertices, faces, attributes = mesh
        assert_same(picture(vertices, faces, size, attributes), twin(vertices, faces, size, attributes), others=2e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("seed", range(3))
def test_hands_are_drawn_as_by_rasterise(side: str, seed: int) -> None:
    size = (230, 310)
    for pixels in (15, 200, 2000):
        hand = make_hand(side, size, pixels, turn=tuple(np.random.default_rng(seed).normal(size=3)), seed=seed)
        screen, attributes = hand.screen_vertices(), hand.vertices * 10
        found, expected = (draw(screen, hand.faces, size, attributes) for draw in (picture, twin))
        assert np.isfinite(expected).any()
        assert_same(found, expected, others=1e-4)


@given(seed=st.integers(0, 10**6), count=st.integers(0, 12), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_corners_on_pixel_centres_and_borders(seed: int, count: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    vertices = rng.integers(-8, 90, (3 * count, 3)) / 2.0  # corners on centres and borders of pixels, level edges
    faces = np.arange(3 * count).reshape(-1, 3)
    found, expected = (draw(vertices, faces, (height, width), vertices) for draw in (picture, twin))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    seen = ~np.isnan(found[..., 2])  # where two faces are equally deep either may be seen, at that depth
    np.testing.assert_allclose(found[seen][:, 2], expected[seen][:, 2], atol=1e-3)
    place = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    np.testing.assert_allclose(found[seen][:, :2], place[seen], atol=1e-3)


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (90, 130)
    vertices, faces, attributes = ball(size)
    whole = picture(vertices, faces, size, attributes)
    for pixels in (1, 130 * 7, 130 * 90):
        monkeypatch.setattr(single, "_BAND", pixels)
        np.testing.assert_array_equal(picture(vertices, faces, size, attributes), whole)


def test_the_inside_of_an_open_mesh_is_seen() -> None:
    size = (90, 130)
    vertices, faces, attributes = ball(size)
    facing = twin(vertices, faces, size, vertices[:, 2:])[..., 0]
    opened = faces[vertices[faces][..., 2].mean(axis=1) > np.nanmean(facing)]  # the front is cut away
    found = picture(vertices, opened, size, attributes)
    assert_same(found, twin(vertices, opened, size, attributes), others=2e-3)
    assert not np.isnan(found).all()
    turned = faces.copy()
    turned[::2] = turned[::2, ::-1]  # not consistently oriented
    assert_same(picture(vertices, turned, size, attributes), twin(vertices, turned, size, attributes), others=2e-3)


def test_what_covers_nothing() -> None:
    vertices = np.array([[2.0, 2, 1], [2, 8, 1], [8, 8, 1], [5, 5, 1], [np.nan, 3, 1], [3, 3, np.inf], [1e30, 9, 1]])
    attributes = np.ones((7, 1))
    for face in ([0, 2, 3], [0, 0, 1], [0, 1, 4], [0, 1, 5]):  # in a line, a point twice, not finite
        assert np.isnan(picture(vertices, np.array([face]), (10, 10), attributes)).all()
    assert np.isnan(picture(vertices + 50, np.array([[0, 1, 2]]), (10, 10), attributes)).all()
    assert np.isnan(picture(vertices, np.zeros((0, 3), np.int64), (10, 10), attributes)).all()
    assert (picture(vertices, np.array([[0, 1, 2]]), (10, 10), attributes) == 1).sum() == 15


def test_faces_without_their_vertex_are_refused() -> None:
    for face in ([0, 1, 3], [0, 1, -1]):
        with pytest.raises(InputError, match="among the 3"):
            next(see(np.zeros((3, 3)), np.array([face]), (4, 4), np.zeros((3, 1))))


@pytest.mark.parametrize("margin", [0, 1])
def test_the_part_around_a_mesh_is_the_least_that_shows_it(margin):
    for corners, rows, columns in (
        ([[10.2, 20.9], [14.0, 25.1], [12.0, 23.0]], slice(20 - margin, 26 + margin), slice(10 - margin, 14 + margin)),
        ([[-5.0, -7.0], [3.5, 2.0], [1.0, 1.0]], slice(0, 2 + margin), slice(0, 4 + margin)),
        ([[58.0, 36.0], [90.0, 70.0], [60.0, 40.0]], slice(36 - margin, 40), slice(58 - margin, 60)),
    ):
        vertices = np.column_stack((np.array(corners), np.ones(3)))
        assert part_around(vertices, (40, 60), margin) == (rows, columns)
    for away in ([-9, 5], [70, 5], [5, -9], [5, 50]):
        assert part_around(np.array([[*away, 1], [away[0] + 3, away[1] + 3, 1]], float), (40, 60), margin) is None
