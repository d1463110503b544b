"""The benchmark's soft silhouette: known values, a naive twin, gradients, and its place among the contestants."""

import math

import numpy as np
import pytest
import torch

from densehand.bench import render as bench
from densehand.bench import soft
from densehand.bench.soft import soft_silhouette
from densehand.cli import run
from densehand.errors import InputError
from densehand.render import silhouette

ONE = torch.tensor([[0, 1, 2]])


def mesh(seed: int, batch: int = 1, size: float = 9.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Five triangles over six random vertices, of either orientation, some of them partly outside the picture."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(batch, 6, 3, generator=generator, dtype=torch.float64) * (size + 4) - 2
    return vertices, torch.tensor([[0, 1, 2], [2, 1, 3], [3, 4, 5], [0, 5, 2], [4, 4, 1]])


def naive(vertices: np.ndarray, faces: np.ndarray, size: tuple[int, int], sigma: float) -> np.ndarray:
    """The mask of one picture from the paper's formulas, one pixel and one face at a time."""
    margin, mask = math.sqrt(sigma * math.log(1e4 - 1)), np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            point, clear = np.array([column + 0.5, row + 0.5]), 1.0
            for face in faces:
                corners = vertices[face, :2]
                if (point < corners.min(axis=0) - margin).any() or (point > corners.max(axis=0) + margin).any():
                    continue
                system = np.vstack([corners.T, np.ones(3)])
                if abs(np.linalg.det(system)) < 1e-12:
                    continue
                inside = (np.linalg.solve(system, [*point, 1.0]) >= 0).all()  # barycentric coordinates
                distances = []
                for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
                    t = np.clip((point - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
                    distances.append(np.linalg.norm(point - a - t * (b - a)))
                square = min(distances) ** 2 * (1 if inside else -1)
                clear *= 1 - 1 / (1 + math.exp(-square / sigma))
            mask[row, column] = 1 - clear
    return mask


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_as_the_naive_twin(sigma: float) -> None:
    for seed in range(3):
        vertices, faces = mesh(seed, batch=2)
        truth = np.stack([naive(one, faces.numpy(), (7, 9), sigma) for one in vertices.numpy()])
        found = soft_silhouette(vertices, faces, (7, 9), sigma)
        np.testing.assert_allclose(found.numpy(), truth, atol=1e-12)
        np.testing.assert_allclose(soft_silhouette(vertices.float(), faces, (7, 9), sigma), truth, atol=1e-4)
        assert ((truth > 0.05) & (truth < 0.95)).sum() > 20


def test_a_large_triangle_is_exact_far_from_its_edges_and_half_on_them() -> None:
    vertices = torch.tensor([[[4.5, 3.5, 1.0], [60.5, 3.5, 1], [4.5, 59.5, 1]]], dtype=torch.float64)
    row, column = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    # inside the three lines by so much; the last is x + y = 64
    depth = torch.stack([column - 4.5, row - 3.5, (64 - row - column) / math.sqrt(2)]).amin(dim=0)
    for turned in (ONE, ONE.flip(1)):
        (exact,) = silhouette(vertices, turned, (64, 64), backend="torch")
        (found,) = soft_silhouette(vertices, turned, (64, 64))
        far = depth.abs() > 3.1  # pixels; p is 1e-4 at 3.03
        assert far.sum() > 2500
        torch.testing.assert_close(found[far], exact[far], atol=1e-4, rtol=0)
        assert found[10:40, 4].sub(0.5).abs().max() < 1e-12 and found[3, 10:40].sub(0.5).abs().max() < 1e-12
        assert found.flip(1).diagonal()[10:50].sub(0.5).abs().max() < 1e-12
        assert found[20, 5] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-12)  # a pixel inside
        assert found[20, 3] == pytest.approx(1 / (1 + math.exp(1)), abs=1e-12)


def test_gradients() -> None:
    for seed in range(2):
        vertices, faces = mesh(seed, batch=2)
        vertices.requires_grad_()
        assert torch.autograd.gradcheck(lambda v, f=faces: soft_silhouette(v, f, (7, 9)), vertices, atol=1e-6)
        (gradient,) = torch.autograd.grad(soft_silhouette(vertices, faces, (7, 9)).square().sum(), vertices)
        assert gradient[..., 2].abs().max() == 0 and gradient[..., :2].abs().max() > 0.1


def test_short_stretches_give_the_same_and_bound_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    real, held, results = soft._signed_square, [], []

    def recorded(triangles: torch.Tensor, face: torch.Tensor, *point: torch.Tensor) -> torch.Tensor:
        held.append(len(face))
        return real(triangles, face, *point)

    monkeypatch.setattr(soft, "_signed_square", recorded)
    for pairs in (soft._PAIRS, 50, 1):
        monkeypatch.setattr(soft, "_PAIRS", pairs)
        held.clear()
        vertices, faces = mesh(4, batch=3)
        mask = soft_silhouette(vertices.requires_grad_(), faces, (7, 9))
        mask.square().sum().backward()
        results.append((mask, vertices.grad))
        assert (len(held) == 2) == (pairs > 1000) and max(held) <= pairs + 7 * 9  # forward and backward
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_bad_faces_and_faces_off_screen() -> None:
    vertices, faces = mesh(5)
    plain = soft_silhouette(vertices, faces, (7, 9))
    bad = torch.tensor([[[torch.nan, 1, 1], [torch.inf, 2, 2], [1e6, 1e6, 1], [1e6, 2e6, 1], [2e6, -3.0, 1]]]).double()
    grown = torch.cat([vertices, bad], dim=1).requires_grad_()
    mask = soft_silhouette(grown, torch.cat([faces, torch.tensor([[0, 1, 6], [0, 1, 7], [8, 9, 10]])]), (7, 9))
    torch.testing.assert_close(mask, plain)
    mask.sum().backward()
    assert grown.grad.isfinite().all()
    assert soft_silhouette(vertices, faces[:0], (7, 9)).abs().max() == 0
    assert soft_silhouette(vertices[:0], faces, (7, 9)).shape == (0, 7, 9)
    with pytest.raises(InputError, match="not among the 6"):
        soft_silhouette(vertices, faces + 3, (7, 9))


def test_is_a_contestant_everywhere_and_left_out_where_it_would_take_long(capsys: pytest.CaptureFixture) -> None:
    for device in ("cpu", "cuda"):
        assert "soft" in bench.available(bench.CONTESTANTS, device, strict=False)
    assert run(["bench", "render", "--sizes", "24", "--batches", "1", "--seconds", "0", "--threads", "1"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    (row,) = [row for row in table if row[2] == "soft"]  # without --what
    assert float(row[3]) > 0 and float(row[4]) > 0
    rows = list(bench.compare(["soft"], [1, 2], [24], seconds=0.0, longest=0.0))
    assert rows[0].both and rows[1] == bench.Row("soft", 24, 2, None, None)
