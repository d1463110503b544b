"""Rasteriser against a per-pixel twin, at shared edges, with bad faces, and its gradients."""

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.errors import InputError
from densehand.render import interpolate, interpolate_vertices, rasterise


def soup(count: int, size: float, seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 1, 3, generator=generator, dtype=torch.float64) * size * 1.4 - 0.2 * size
    spread = torch.randn(count, 3, 3, generator=generator, dtype=torch.float64) * size / 6
    return (centre + spread).reshape(-1, 3).to(dtype), torch.arange(3 * count).view(count, 3)


def sphere(size: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=2)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    rotation = rotation * torch.linalg.det(rotation)
    vertices = torch.tensor(mesh.vertices) @ rotation.T * size * 0.37 + size / 2
    return vertices.to(dtype), torch.tensor(np.asarray(mesh.faces))


def twin(vertices: np.ndarray, faces: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest face, its depth, and whether the pixel is clear (no edge or second surface within rounding)."""
    py, px = np.mgrid[0:height, 0:width] + 0.5
    index, depth = np.full((height, width), -1), np.full((height, width), np.inf)
    clear = np.ones((height, width), bool)
    for number, corners in enumerate(vertices[faces]):
        (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = corners
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        w1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) / area
        w2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) / area
        least = np.minimum(np.minimum(w1, w2), 1 - w1 - w2)
        z = z0 + w1 * (z1 - z0) + w2 * (z2 - z0)
        clear &= (np.abs(least) > 1e-4) | (z > depth + 1e-4)
        clear &= (least < 0) | (np.abs(z - depth) > 1e-4)
        nearer = (least >= 0) & (z < depth)
        index[nearer], depth[nearer] = number, z[nearer]
    return index, depth, clear


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_naive_twin(seed: int, dtype: torch.dtype) -> None:
    for vertices, faces in (soup(25, 40, seed), sphere(40, seed)):
        height, width = 31, 43
        index, depth, clear = twin(vertices.numpy(), faces.numpy(), height, width)
        assert clear.mean() > 0.9 and (index >= 0).mean() > 0.2
        found = rasterise(vertices.to(dtype), faces, (height, width))
        np.testing.assert_array_equal(found.face_index.numpy()[clear], index[clear])
        tolerance = 2e-3 if dtype == torch.float32 else 1e-9
        np.testing.assert_allclose(found.depth.numpy()[clear], depth[clear], atol=tolerance)
        # barycentrics give the pixel's centre back
        centre = interpolate_vertices(found, vertices.to(dtype), faces, background=torch.nan)
        covered = clear & (index >= 0)
        expected = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
        np.testing.assert_allclose(centre[..., :2].numpy()[covered], expected[covered], atol=tolerance)
        assert centre[~found.mask].isnan().all() and found.barycentric[~found.mask].abs().max() == 0
        torch.testing.assert_close(interpolate(found, vertices.to(dtype)[faces], torch.nan), centre, equal_nan=True)


def test_neighbours_leave_no_cracks_and_no_overlap() -> None:
    # a jittered sheet in float32: every pixel sees it, and each belongs to one face only
    generator = torch.Generator().manual_seed(0)
    n = 30
    grid = torch.stack(torch.meshgrid(torch.arange(n), torch.arange(n), indexing="xy"), dim=-1).float() * (80 / (n - 1))
    grid[1:-1, 1:-1] += torch.rand(n - 2, n - 2, 2, generator=generator) * 1.4 - 0.7
    grid[5] = grid[5].round() + 0.5  # corners upon pixel centres
    vertices = torch.cat([grid.view(-1, 2) * torch.tensor([1.0, 1.0]), torch.ones(n * n, 1)], dim=1)
    corner = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1, 1)
    faces = torch.cat([corner + torch.tensor([0, 1, n]), corner + torch.tensor([1, n + 1, n])])
    assert rasterise(vertices, faces, (80, 80)).mask.all()
    total = torch.zeros(80, 80)
    for part in faces.split(1):
        total += rasterise(vertices, part, (80, 80)).mask
    assert (total == 1).all()


def test_culling_a_closed_mesh_changes_nothing() -> None:
    vertices, faces = sphere(50)
    every, back = rasterise(vertices, faces, (50, 50)), rasterise(vertices, faces, (50, 50), cull="back")
    assert torch.equal(every.face_index, back.face_index) and every.mask.sum() > 900
    inside = rasterise(vertices, faces, (50, 50), cull="front")
    assert (inside.depth >= back.depth).all() and (inside.depth[back.mask] > back.depth[back.mask]).all()


def test_batches_meshes_and_negative_depths() -> None:
    (first, faces), (second, _) = sphere(40, 1), sphere(40, 2)
    second = second * 0.5 + torch.tensor([10.0, 12.0, -60.0], dtype=torch.float64)
    both = rasterise(torch.stack([first, second]).view(2, 1, -1, 3), faces, (40, 40))
    assert both.face_index.shape == (2, 1, 40, 40)
    singles = [rasterise(v, faces, (40, 40)) for v in (first, second)]
    for k, single in enumerate(singles):
        assert torch.equal(both.face_index[k, 0], single.face_index) and torch.equal(both.depth[k, 0], single.depth)
    together = rasterise(torch.cat([first, second]), torch.cat([faces, faces + len(first)]), (40, 40))
    nearer = singles[1].depth < singles[0].depth
    assert torch.equal(together.depth, torch.minimum(singles[0].depth, singles[1].depth)) and nearer.sum() > 50
    assert torch.equal(together.face_index >= len(faces), nearer)


def test_equal_depths_go_to_the_lower_face_and_runs_repeat() -> None:
    vertices = torch.tensor([[0.0, 0, 1], [9, 0, 1], [0, 9, 1]]).repeat(3, 1)
    faces = torch.tensor([[6, 7, 8], [0, 1, 2], [3, 4, 5]])
    assert set(rasterise(vertices, faces, (9, 9)).face_index.unique().tolist()) == {-1, 0}
    vertices, faces = soup(200, 60, 5, torch.float32)
    runs = [rasterise(vertices, faces, (60, 60)) for _ in range(3)]
    assert all(torch.equal(runs[0].face_index, r.face_index) and torch.equal(runs[0].depth, r.depth) for r in runs)


def test_bad_faces_cover_nothing() -> None:
    good = torch.tensor([[1.0, 1, 5], [9, 1, 5], [1, 9, 5]])
    bad = torch.tensor(
        [
            [[torch.nan, 1, 1], [9, 1, 1], [1, 9, 1]],
            [[1, 1, torch.nan], [9, 1, 1], [1, 9, 1]],
            [[torch.inf, 1, 1], [9, 1, 1], [1, 9, 1]],
            [[1, 1, -torch.inf], [9, 1, 1], [1, 9, 1]],
            [[3, 3, 1], [3, 3, 1], [3, 3, 1]],
            [[0, 0, 1], [5, 5, 1], [9, 9, 1]],
            [[-50, 1, 1], [-40, 1, 1], [-45, 9, 1]],
            [[1, 100, 1], [9, 100, 1], [1, 900, 1]],
            [[1, 1, 0.5], [9, 1, 2], [1, 9, 2]],
        ]
    )
    vertices = torch.cat([bad.reshape(-1, 3), good])
    faces = torch.arange(len(vertices)).view(-1, 3)
    found = rasterise(vertices, faces, (10, 10), near=0.5)
    alone = rasterise(good, torch.tensor([[0, 1, 2]]), (10, 10))
    assert torch.equal(found.mask, alone.mask) and set(found.face_index.unique().tolist()) == {-1, len(bad)}
    assert torch.equal(found.depth, alone.depth)
    assert (rasterise(vertices, faces, (10, 10)).face_index == len(bad) - 1).any()  # seen without `near`


def test_huge_faces_and_bounded_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__("sys").modules["densehand.render.rasterise"]
    huge = torch.tensor([[-1e7, -1e7, 3.0], [1e7, -1e7, 3], [0, 2e7, 3]])
    small, _ = soup(30, 64, 1, torch.float32)
    vertices = torch.cat([huge, small - torch.tensor([0, 0, 200.0])])
    faces = torch.arange(len(vertices)).view(-1, 3)
    whole = rasterise(vertices, faces, (64, 64))
    assert whole.mask.all() and (whole.face_index == 0).any() and (whole.face_index > 0).any()
    monkeypatch.setattr(module, "_HITS", 100)
    parts = rasterise(vertices, faces, (64, 64))
    assert torch.equal(whole.face_index, parts.face_index) and torch.equal(whole.depth, parts.depth)


def test_nothing_to_draw() -> None:
    for vertices, faces in ((torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)), soup(3, -500, 0)):
        found = rasterise(vertices, faces, (4, 6))
        assert (found.face_index == -1).all() and found.depth.isposinf().all() and found.covered.numel() == 0


def test_depth_and_barycentrics_are_differentiable() -> None:
    vertices, faces = soup(8, 12, 4)
    vertices.requires_grad_()
    mask = rasterise(vertices, faces, (12, 12)).mask

    def outputs(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = rasterise(v, faces, (12, 12))
        return found.depth[mask], found.barycentric[mask]

    assert mask.sum() > 10 and torch.autograd.gradcheck(outputs, vertices)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-40, 60, width=32)] * 3), min_size=3, max_size=9), st.integers(1, 20))
def test_any_triangles(points: list, size: int) -> None:
    vertices = torch.tensor(points, dtype=torch.float32)
    faces = torch.combinations(torch.arange(len(points)), 3)
    found = rasterise(vertices, faces, (size, size))
    seen = found.mask
    assert ((found.face_index >= -1) & (found.face_index < len(faces))).all() and (found.depth.isfinite() == seen).all()
    low, high = vertices[..., 2].min(), vertices[..., 2].max()
    if seen.any():
        sums = found.barycentric[seen].sum(dim=-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-3, rtol=0)
        px = found.covered % size + 0.5
        assert (px >= vertices[:, 0].min()).all() and (px <= vertices[:, 0].max()).all() and low <= high


def test_wrong_shapes_are_refused() -> None:
    vertices, faces = soup(2, 10, 0)
    for bad in (
        lambda: rasterise(vertices[:, :2], faces, (4, 4)),
        lambda: rasterise(vertices.long(), faces, (4, 4)),
        lambda: rasterise(vertices, faces.double(), (4, 4)),
        lambda: rasterise(vertices, faces + 1, (4, 4)),
        lambda: rasterise(vertices, faces - 1, (4, 4)),
        lambda: rasterise(vertices, faces, (0, 4)),
    ):
        with pytest.raises(InputError):
            bad()
