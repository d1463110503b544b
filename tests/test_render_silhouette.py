"""Silhouette against exact polygon areas and supersampled truth; gradients against differences of that truth.

Meshes: triangles, a dented torus, and hands posed near their joints' limits and framed as crops are.
"""

import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import example, given, settings
from hypothesis import strategies as st

from densehand.bench.render import framed
from densehand.hand.anatomy import anatomical_to_pose
from densehand.hand.model import HandModel
from densehand.render import edge_table, rasterise
from densehand.render import silhouette as any_silhouette
from densehand.render.union import LIMIT

Silhouette = Callable[..., torch.Tensor]


@pytest.fixture(scope="module", params=["torch", "numba"])
def silhouette(request: pytest.FixtureRequest) -> Silhouette:
    """Every test of this file is for each of the backends."""
    if request.param == "numba":
        pytest.importorskip("numba")
    return partial(any_silhouette, backend=request.param)


def supersampled(vertices: torch.Tensor, faces: torch.Tensor, size: int, n: int = 32) -> torch.Tensor:
    """Share of n × n points of every pixel that the mesh covers."""
    fine = vertices.double() * torch.tensor([n, n, 1.0], dtype=torch.float64)
    mask = rasterise(fine, faces, (size * n, size * n)).mask.double()
    return mask.view(-1, size, n, size, n).mean(dim=(2, 4)).view(*vertices.shape[:-2], size, size)


def torus(size: float, seed: int, waves: float = 0.15) -> tuple[torch.Tensor, torch.Tensor]:
    """A dented torus: holes, outlines that cross and fold."""
    mesh = trimesh.creation.torus(0.3, 0.12, major_sections=40, minor_sections=16)
    vertices = torch.tensor(mesh.vertices)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    bent = vertices @ rotation.T * size * 0.9 * (1 + waves * torch.sin(60 * vertices[:, :1]))
    return bent + torch.tensor([size / 2 + 0.13, size / 2 - 0.21, 0.0]), torch.tensor(np.asarray(mesh.faces))


@cache
def hands(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Twelve random hands, (12 V 3), and faces. Most of their angles are near a limit: fingers fold and overlap."""
    model, generator = HandModel.load("open"), torch.Generator().manual_seed(0)
    share = 0.5 - 0.5 * torch.cos(math.pi * torch.rand(12, 15, 3, generator=generator))
    angles = torch.lerp(model.limits_lower, model.limits_upper, share)
    rotation = torch.nn.functional.normalize(torch.randn(12, 4, generator=generator), dim=1)
    with torch.no_grad():
        mesh = model(anatomical_to_pose(angles, model), torch.randn(12, 10, generator=generator), rotation)
    return framed(mesh, size).double(), model.faces


@cache
def hands_truth(size: int, count: int) -> torch.Tensor:
    vertices, faces = hands(size)
    return torch.stack([supersampled(one, faces, size) for one in vertices[:count]])


def clip(polygon: list, keep: list) -> list:
    """Sutherland–Hodgman: the part of a polygon within a convex polygon of positive orientation."""
    for (ax, ay), (bx, by) in zip(keep, keep[1:] + keep[:1], strict=True):
        result: list = []
        for (px, py), (qx, qy) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            p = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
            q = (bx - ax) * (qy - ay) - (by - ay) * (qx - ax)
            if p >= 0:
                result.append((px, py))
            if (p >= 0) != (q >= 0):
                t = p / (p - q)
                result.append((px + t * (qx - px), py + t * (qy - py)))
        polygon = result
        if not polygon:
            return []
    return polygon


def area(polygon: list) -> float:
    return (
        0.5 * sum(x * v - u * y for (x, y), (u, v) in zip(polygon, polygon[1:] + polygon[:1], strict=True))
        if polygon
        else 0.0
    )


def test_equals_exact_areas_of_one_and_two_triangles(silhouette: Silhouette) -> None:
    rng, size = np.random.default_rng(0), 10
    for _ in range(12):
        corners = rng.uniform(-4, 14, (2, 3, 2))
        triangles = [[tuple(c) for c in t] for t in corners]
        triangles = [t if area(t) > 0 else t[::-1] for t in triangles]
        expected = np.zeros((2, size, size))
        for i in range(size):
            for j in range(size):
                square = [(j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1)]
                first, second = clip(triangles[0], square), clip(triangles[1], square)
                both = clip(first, triangles[1]) if first else []
                expected[:, i, j] = area(first), area(first) + area(second) - area(both)
        vertices = torch.tensor(np.concatenate([corners, rng.uniform(1, 9, (2, 3, 1))], axis=2)).view(6, 3)
        faces = torch.arange(6).view(2, 3)
        for count, truth in zip((1, 2), expected, strict=True):
            np.testing.assert_allclose(silhouette(vertices, faces[:count], (size, size)).numpy(), truth, atol=1e-9)
            single = silhouette(vertices.float(), faces[:count], (size, size)).numpy()
            np.testing.assert_allclose(single, truth, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_supersampled_truth(silhouette: Silhouette, dtype: torch.dtype) -> None:
    size = 40
    for seed in range(4):
        vertices, faces = torus(size, seed)
        truth = supersampled(vertices, faces, size)
        assert (silhouette(vertices.to(dtype), faces, (size, size)).double() - truth).abs().max() < 1 / 64
        assert ((truth > 0) & (truth < 1)).sum() > 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hands_equal_supersampled_truth(silhouette: Silhouette, dtype: torch.dtype) -> None:
    size, count = 64, 4
    (vertices, faces), truth = hands(size), hands_truth(size, count)
    mask = silhouette(vertices[:count].to(dtype), faces, (size, size)).double()
    assert (mask - truth).abs().max() < 1 / 64
    assert (((truth > 0) & (truth < 1)).sum(dim=(1, 2)) > 100).all()


def test_hands_equal_the_means_of_a_larger_picture(silhouette: Silhouette) -> None:
    """Areas add up: other pieces meet in the small pixels, so that a wrong union of the large ones shows."""
    size, times = 64, 3
    vertices, faces = hands(size)
    large = silhouette(vertices * torch.tensor([times, times, 1.0]), faces, (size * times, size * times))
    means = large.view(-1, size, times, size, times).mean(dim=(2, 4))
    torch.testing.assert_close(silhouette(vertices, faces, (size, size)), means, atol=1e-9, rtol=0)


def test_open_meshes_are_seen_from_both_sides(silhouette: Silhouette) -> None:
    size = 40
    for seed in range(3):
        vertices, faces = torus(size, seed)
        faces = faces[vertices[faces].mean(dim=1)[:, 0] < size * 0.55]  # cut open
        truth = supersampled(vertices, faces, size)
        assert (silhouette(vertices, faces, (size, size)) - truth).abs().max() < 1 / 64
        turned = torch.where(torch.arange(len(faces))[:, None] % 3 == 0, faces.flip(1), faces)
        plain = silhouette(vertices, faces, (size, size))
        torch.testing.assert_close(silhouette(vertices, turned, (size, size)), plain)


@cache
def moved(mesh: str, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, tuple]]:
    """A mesh, a weighting of the picture, and motions of the vertices with the weighted truth's change along each."""
    size, fineness = {"torus": (32, 64), "hand": (48, 32)}[mesh]
    vertices, faces = torus(size, seed) if mesh == "torus" else (hands(size)[0][seed], hands(size)[1])
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    weight = 1 + (torch.sin(column / 5 + seed) * torch.cos(row / 4)).double()  # so that growth does not cancel out
    centred = (vertices - size / 2) / size
    moves = {  # smooth, about a pixel each
        "right": torch.tensor([1.0, 0, 0]).expand_as(vertices),
        "down": torch.tensor([0.0, 1, 0]).expand_as(vertices),
        "grow": centred * torch.tensor([2.0, 2, 0]),
        "turn": torch.stack([-centred[:, 1], centred[:, 0], torch.zeros(len(vertices))], dim=1) * 2,
        "bend": torch.stack([torch.sin(6 * centred[:, 1]), centred[:, 0] ** 2, torch.zeros(len(vertices))], dim=1),
    }
    h, changes = 0.125, {}
    for name, move in moves.items():
        ahead, behind = (supersampled(vertices + s * h * move, faces, size, fineness) for s in (1, -1))
        changes[name] = (move, ((ahead - behind) * weight).sum() / (2 * h))
    return vertices, faces, weight, changes


@pytest.mark.parametrize("mesh, seed", [("torus", 0), ("torus", 2), ("hand", 0), ("hand", 1)])
def test_gradients_equal_differences_of_the_supersampled_truth(silhouette: Silhouette, mesh: str, seed: int) -> None:
    vertices, faces, weight, changes = moved(mesh, seed)
    leaf = vertices.clone().requires_grad_()
    (silhouette(leaf, faces, weight.shape) * weight).sum().backward()
    assert leaf.grad[:, 2].abs().max() == 0
    for name, (move, expected) in changes.items():
        found = (leaf.grad * move).sum()
        assert abs(found - expected) < 0.01 * (leaf.grad * move).abs().sum(), name


def test_gradcheck_where_outlines_cross(silhouette: Silhouette) -> None:
    torch.manual_seed(0)
    for faces in (torch.arange(9).view(3, 3), torch.tensor([[0, 1, 2], [2, 1, 3], [4, 5, 6], [7, 8, 4]])):
        vertices = (torch.rand(9, 3, dtype=torch.float64) * 8 - 1).requires_grad_()
        assert torch.autograd.gradcheck(lambda v, f=faces: silhouette(v, f, (6, 6)), vertices, eps=1e-6, atol=1e-5)
    vertices, faces = torus(12, 1)
    assert torch.autograd.gradcheck(
        lambda v: silhouette(v, faces, (12, 12)), vertices.requires_grad_(), eps=1e-6, atol=1e-4, fast_mode=True
    )


def test_edges_inside_the_mask_have_no_gradient(silhouette: Silhouette) -> None:
    large = torch.tensor([[1.0, 1, 5], [30, 2, 5], [3, 30, 5]])
    small = torch.tensor([[5.3, 5.2, 1], [9.1, 6.4, 1], [6.7, 10.8, 1]])
    vertices = torch.cat([large, small]).requires_grad_()
    silhouette(vertices, torch.tensor([[0, 1, 2], [3, 5, 4]]), (32, 32)).sum().backward()
    assert vertices.grad[3:].abs().max() == 0 and (vertices.grad[:3, :2].abs().sum(dim=1) > 1).all()


def test_parts_outside_the_picture(silhouette: Silhouette) -> None:
    vertices, faces = torus(40, 2)
    whole = silhouette(vertices, faces, (40, 40))
    window = silhouette(vertices - torch.tensor([14.0, 9.0, 0]), faces, (17, 11))
    torch.testing.assert_close(window, whole[9:26, 14:25], atol=1e-12, rtol=0)
    far = vertices + torch.tensor([1e6, 0.0, 0.0])
    assert silhouette(far, faces, (9, 9)).max() == 0 and silhouette(-far, faces, (9, 9)).max() == 0
    cover = torch.tensor([[-1e6, -1e6, 1.0], [1e6, -1e6, 1], [0, 2e6, 1]])
    assert silhouette(cover, torch.tensor([[0, 1, 2]]), (9, 9)).min() == 1


def test_axis_aligned_edges_on_pixel_lines(silhouette: Silhouette) -> None:
    # a rectangle on whole pixels, and on halves
    for shift, side in ((0.0, 1.0), (0.5, 0.5)):
        x0, x1, y0, y1 = 2 + shift, 6 + shift, 1 + shift, 4 + shift
        vertices = torch.tensor([[x0, y0, 1], [x1, y0, 1], [x1, y1, 1], [x0, y1, 1]])
        mask = silhouette(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), (8, 8))
        assert mask.sum() == 12 and mask[2, 3] == 1 and mask[2, 2] == side and mask[1, 4] == side


def test_batches_tables_and_doubled_meshes(silhouette: Silhouette) -> None:
    pairs = [torus(30, seed, waves=0.0) for seed in (3, 4)]
    faces = pairs[0][1]
    stacked = torch.stack([v for v, _ in pairs]).view(2, 1, -1, 3)
    both = silhouette(stacked, faces, (30, 30))
    assert both.shape == (2, 1, 30, 30)
    for k in range(2):
        torch.testing.assert_close(both[k, 0], silhouette(pairs[k][0], edge_table(faces), (30, 30)))
    assert edge_table(faces) is edge_table(faces) and edge_table(faces.clone()) is not edge_table(faces)
    vertices = pairs[0][0]
    doubled = silhouette(torch.cat([vertices, vertices]), torch.cat([faces, faces + len(vertices)]), (30, 30))
    torch.testing.assert_close(doubled, both[0, 0], atol=1e-9, rtol=0)
    faces_changed = faces.clone()
    edge_table(faces_changed)
    faces_changed[:400] = faces_changed[:1]
    assert silhouette(vertices, faces_changed, (30, 30)).sum() < both[0, 0].sum()  # changed in place: not the old table


def test_bad_faces_are_left_out(silhouette: Silhouette) -> None:
    vertices, faces = torus(24, 5)
    clean = silhouette(vertices, faces, (24, 24))
    extra = torch.tensor([[torch.nan, 1, 1], [torch.inf, 2, 2], [1, 1, torch.nan], [9, 9, -5.0], [2, 2, 2]]).double()
    count = len(vertices)
    more = count + torch.tensor([[0, 3, 4], [1, 3, 4], [2, 3, 4], [4, 4, 4], [3, 4, 3]])
    grown = torch.cat([vertices, extra]).requires_grad_()
    mask = silhouette(grown, torch.cat([faces, more, torch.tensor([[0, 1, count]])]), (24, 24))
    torch.testing.assert_close(mask, clean)
    mask.sum().backward()
    assert grown.grad.isfinite().all()
    closer = torch.cat([faces, torch.tensor([[0, 1, count]])])
    near = silhouette(torch.cat([vertices, extra[3:4]]), closer, (24, 24), near=-4)
    kept = faces[(vertices[faces][..., 2] > -4).all(dim=1)]
    torch.testing.assert_close(near, silhouette(vertices, kept, (24, 24)))


def test_meshes_smaller_than_a_pixel_keep_their_area(silhouette: Silhouette) -> None:
    vertices, faces = torus(40, 0)
    area_px = float(silhouette(vertices, faces, (40, 40)).sum())
    for scale in (0.02, 0.05):
        tiny = ((vertices - 20) * scale + torch.tensor([4.3, 4.4, 0])).requires_grad_()
        mask = silhouette(tiny, faces, (9, 9))
        mask.sum().backward()
        assert tiny.grad.isfinite().all() and mask.max() <= 1
        assert float(mask.detach().sum()) == pytest.approx(area_px * scale**2, rel=0.35)
    assert LIMIT >= 16


def test_a_piece_that_begins_level_with_the_middle_of_another(silhouette: Silhouette) -> None:
    """Both triangles' edges enter the lower right pixel: one at half its height, one through its corners."""
    points = [[0.0, 0], [0, 1], [14, 13], [0, 0], [1, 0], [8, 7]]
    vertices = torch.tensor([[*p, 1.0] for p in points], dtype=torch.float64)
    apart = sum(silhouette(vertices, torch.tensor([face]), (8, 8)) for face in ([0, 1, 2], [3, 4, 5]))
    both = silhouette(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]), (8, 8))
    torch.testing.assert_close(both, apart)  # they do not overlap


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-6, 14, width=32)] * 2), min_size=3, max_size=12), st.booleans())
@example([(0, 0), (0, 2**-8), (1, -1), (0, 0), (0, 1), (1, 0)], False)  # a sliver whose piece is short, not in one line
def test_any_triangles(silhouette: Silhouette, points: list, double: bool) -> None:
    flat = torch.tensor(points, dtype=torch.float64 if double else torch.float32)
    vertices = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1).requires_grad_()
    faces = torch.arange(len(points) // 3 * 3).view(-1, 3)
    mask = silhouette(vertices, faces, (8, 8))
    mask.sum().backward()
    assert (mask >= 0).all() and (mask <= 1).all() and vertices.grad.isfinite().all()
    single = torch.stack([silhouette(vertices, face[None], (8, 8)) for face in faces])
    assert (mask >= single.amax(dim=0) - 1e-3).all() and (mask <= single.sum(dim=0) + 1e-3).all()
