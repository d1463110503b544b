"""The compiled silhouette against its twin in torch, and how a backend is chosen.

That both agree with exact areas and with differences of supersampled truth is in test_render_silhouette.py.
"""

import builtins
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.errors import DependencyError, InputError
from densehand.hand.model import HandModel
from densehand.render import silhouette


def both(
    vertices: torch.Tensor, faces: torch.Tensor, size: tuple[int, int], near: float | None = None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mask and gradient of a fixed weighting of it, by torch and by numba."""
    weight = torch.rand(*vertices.shape[:-2], *size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    results = []
    for backend in ("torch", "numba"):
        leaf = vertices.clone().requires_grad_()
        mask = silhouette(leaf, faces, size, near=near, backend=backend)
        mask.backward(weight.to(mask.dtype))
        results.append((mask.detach(), leaf.grad))
    return results


def assert_same(vertices: torch.Tensor, faces: torch.Tensor, size: tuple[int, int], near: float | None = None) -> None:
    """Equal values and gradients, the latter to rounding of the lengths they are made of."""
    (mask, gradient), (other, other_gradient) = both(vertices, faces, size, near)
    assert other.dtype == mask.dtype and other.shape == mask.shape and other_gradient.dtype == gradient.dtype
    torch.testing.assert_close(other, mask, atol=1e-9, rtol=0)
    torch.testing.assert_close(other_gradient, gradient, atol=1e-8, rtol=0)


def random_hands(count: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    model, generator = HandModel.load("open"), torch.Generator().manual_seed(seed)
    pose = model.mean_pose + 0.3 * torch.randn(count, 45, generator=generator)
    rotation = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1)
    with torch.no_grad():
        mesh = model(pose, torch.randn(count, 10, generator=generator), rotation)
    points = mesh.vertices.double() * size * 4
    return points - points.mean(dim=1, keepdim=True) + torch.tensor([size / 2, size / 2, 0.0]), model.faces


def soup(seed: int, corners: int = 30, triangles: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(corners, 3, generator=generator, dtype=torch.float64) * 22 - 4
    return vertices, torch.randint(0, corners, (triangles, 3), generator=generator)


@pytest.fixture(autouse=True)
def _numba(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("numba")


def test_hands_as_by_torch() -> None:
    vertices, faces = random_hands(6, 96, seed=0)
    assert_same(vertices, faces, (96, 96))
    assert_same(vertices.view(2, 3, -1, 3) * 0.2, faces, (40, 31))


def test_single_precision_is_nearer_to_double_than_torch_is() -> None:
    vertices, faces = random_hands(6, 96, seed=1)
    vertices = vertices.float()
    exact, exact_gradient = both(vertices.double(), faces, (96, 96))[0]
    (mask, gradient), (other, other_gradient) = both(vertices, faces, (96, 96))
    assert (other - exact).abs().max() < 1e-6 and (other - exact).abs().max() <= (mask - exact).abs().max()
    torch.testing.assert_close(other_gradient.double(), exact_gradient, atol=2e-4, rtol=1e-5)
    # float32 in torch itself: gradients agree in the mean, single ones where short pieces of edges cross may differ
    assert (other_gradient - gradient).norm() < 2e-3 * gradient.norm()


@pytest.mark.parametrize("seed", range(8))
def test_triangle_soups_as_by_torch(seed: int) -> None:
    vertices, faces = soup(seed)
    assert_same(vertices, faces, (15, 13))
    assert_same(vertices.round(), faces, (15, 13))  # corners on the lines between pixels
    assert_same(vertices, faces, (15, 13), near=2.0)
    assert_same((vertices * 2).round() / 2 * torch.tensor([1.0, 1e-6, 1.0]), faces, (4, 13))  # slivers
    assert_same(vertices * 0.05 + 3, faces[:5], (8, 8))  # all in two or three pixels
    assert_same(vertices * 1e4, faces, (15, 13))


def test_faces_that_are_left_out_as_by_torch() -> None:
    vertices, faces = soup(20)
    nan, inf = torch.nan, torch.inf
    bad = torch.tensor([[nan, 1, 1], [inf, 2, 2], [1, -inf, 1], [1, 1, nan], [2, 2, -inf], [1, 9, 1e30]]).double()
    more = 30 + torch.tensor(
        [[0, 1, 2], [3, 3, 3], [3, 4, 5], [2, -30, -29], [4, -28, -27], [5, -26, -25], [-30, -30, 0]]
    )
    grown, all_faces = torch.cat([vertices, bad]), torch.cat([faces, more])
    assert_same(grown, all_faces, (15, 13))
    assert both(grown, all_faces, (15, 13))[1][1].isfinite().all()
    level = vertices * torch.tensor([1.0, 0.0, 1.0]) + torch.tensor([0.0, 3.5, 0.0])
    assert both(level, faces, (9, 9))[1][0].max() == 0


def test_off_screen_as_by_torch() -> None:
    vertices, faces = soup(21)
    for shift in ((40.0, 0.0, 0.0), (-40.0, 3.0, 0.0), (0.0, 40.0, 0.0), (2.0, -40.0, 0.0), (8.0, -9.0, 0.0)):
        assert_same(vertices + torch.tensor(shift), faces, (15, 13))
    cover = torch.tensor([[-1e6, -1e6, 1.0], [1e6, -1e6, 1], [0, 2e6, 1]]).double()
    assert_same(cover, torch.tensor([[0, 1, 2]]), (9, 9))
    assert silhouette(cover, torch.tensor([[0, 1, 2]]), (9, 9), backend="numba").min() == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 3), min_size=3, max_size=9),
    st.booleans(),
)
def test_any_number_at_all(points: list, double: bool) -> None:
    vertices = torch.tensor(points, dtype=torch.float64).to(torch.float64 if double else torch.float32)
    leaf = vertices.requires_grad_()
    mask = silhouette(leaf, torch.arange(len(points) // 3 * 3).view(-1, 3), (6, 7), backend="numba")
    mask.sum().backward()
    assert ((mask >= 0) & (mask <= 1)).all() and leaf.grad.shape == leaf.shape


def test_gradcheck_of_hands_and_soups() -> None:
    for vertices, faces in (soup(3, 12, 6), soup(4, 9, 3)):
        assert torch.autograd.gradcheck(
            lambda v, f=faces: silhouette(v, f, (9, 8), backend="numba"), vertices.requires_grad_(), eps=1e-7, atol=1e-4
        )
    vertices, faces = random_hands(1, 32, seed=2)
    assert torch.autograd.gradcheck(
        lambda v: silhouette(v, faces, (32, 32), backend="numba"), vertices.requires_grad_(), atol=1e-3, fast_mode=True
    )


def test_repeats_bit_for_bit_on_any_number_of_threads() -> None:
    vertices, faces = random_hands(9, 48, seed=3)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 2):
            torch.set_num_threads(number)
            leaf = vertices.float().requires_grad_()
            mask = silhouette(leaf, faces, (48, 48), backend="numba")
            mask.square().sum().backward()
            results.append((mask.detach(), leaf.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_strides_and_empty_batches() -> None:
    vertices, faces = soup(6)
    plain = silhouette(vertices, faces, (9, 8), backend="numba")
    turned = vertices.T.contiguous().T
    assert not turned.is_contiguous()
    assert torch.equal(silhouette(turned, faces.T.contiguous().T.int(), (9, 8), backend="numba"), plain)
    leaf = vertices.clone().requires_grad_()
    silhouette(leaf, faces, (9, 8), backend="numba").sum().backward()  # the gradient given is one expanded number
    assert leaf.grad.abs().sum() > 0
    assert silhouette(vertices.expand(0, -1, -1), faces, (9, 8), backend="numba").shape == (0, 9, 8)


def test_auto_takes_numba_where_it_can() -> None:
    vertices, faces = soup(7)
    single = vertices.float()
    assert torch.equal(silhouette(single, faces, (9, 8)), silhouette(single, faces, (9, 8), backend="numba"))
    with pytest.raises(InputError, match=r"float32 and float64 on the CPU, not torch.bfloat16"):
        silhouette(single.bfloat16(), faces, (9, 8), backend="numba")
    with pytest.raises(InputError, match=r"no backend 'cuda'.*auto, torch, numba"):
        silhouette(single, faces, (9, 8), backend="cuda")  # type: ignore[arg-type]


def test_without_numba_torch_draws_and_asking_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[silhouette.__module__]
    real = builtins.__import__

    def no_numba(name: str, *rest: object, **named: object) -> object:
        if name.endswith("silhouette_numba"):
            raise ImportError(name)
        return real(name, *rest, **named)  # type: ignore[arg-type]

    vertices, faces = soup(8)
    module._compiled.cache_clear()
    monkeypatch.setattr(builtins, "__import__", no_numba)
    try:
        plain = silhouette(vertices, faces, (9, 8))
        with pytest.raises(DependencyError, match=r"pip install \"densehand\[fast\]\""):
            silhouette(vertices, faces, (9, 8), backend="numba")
    finally:
        module._compiled.cache_clear()
    assert torch.equal(plain, silhouette(vertices, faces, (9, 8), backend="torch"))


def test_machine_code_is_kept_in_the_users_cache_or_nowhere(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import numba
        from densehand.render.compiled import compiled
        from densehand.render import silhouette_kernels
        assert numba.config.CACHE_DIR == ""
        print(silhouette_kernels._within(3.5, 9), silhouette_kernels._within(float("nan"), 9))
        print(type(silhouette_kernels._within._cache).__name__)
    """)
    (tmp_path / "file").write_text("not a folder")
    kernels = Path(__file__).parents[1] / "densehand" / "render"
    before = set(kernels.rglob("*.nb?"))
    for folder, kept in ((tmp_path / "cache", True), (tmp_path / "file" / "cache", False)):
        environment = {**os.environ, "DENSEHAND_CACHE": str(folder), "NUMBA_CACHE_DIR": ""}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[:2] == ["3", "-1"]
        assert ("NullCache" not in done.stdout) == kept
        assert bool(list((tmp_path / "cache").rglob("*.nbc"))) and (not kept or folder.is_dir())
    assert set(kernels.rglob("*.nb?")) == before
