"""Milliseconds of the renderer for one hand and for batches, beside `deodr`'s anti-aliased CPU renderer and a soft one.

Every contestant gets the same hands, framed as crops are, at the same size. `deodr` draws the edges' blurred overdraw
where `silhouette` takes exact areas: the same use, not the same picture. Its edges at the outline are found beforehand,
outside the time taken. `soft` is SoftRas's blurred mask in plain torch (`bench/soft.py`), at σ = 1 square pixel.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from densehand.bench import CONTESTANTS
from densehand.bench.soft import soft_silhouette
from densehand.camera import HOUSE_PADDING
from densehand.errors import DependencyError
from densehand.hand.model import HandMesh, HandModel
from densehand.render import Lights, rasterise, shade, silhouette
from densehand.render.silhouette import Backend

__all__ = ["CONTESTANTS", "Row", "available", "compare", "device_name", "framed", "milliseconds", "random_hands"]

_PACKAGES = {"numba": "fast", "deodr": "bench"}  # and the extras that bring them


class Row(NamedTuple):
    """Milliseconds a batch, the fastest of the repetitions; None where it was not measured."""

    name: str
    size: int
    hands: int
    forward: float | None
    both: float | None


def available(names: Sequence[str], device: str, *, strict: bool) -> list[str]:
    """Those of the contestants that can run here.

    Args:
        names: of `CONTESTANTS`.
        device: cpu or cuda; numba and deodr are for the CPU alone.
        strict: one that is not installed is an error instead of left out.

    Raises:
        DependencyError: strict, and a package is missing.
    """
    found = []
    for name in names:
        if name in _PACKAGES and device != "cpu":
            continue
        if name in _PACKAGES and find_spec(name) is None:
            if strict:
                raise DependencyError(f'{name} is not installed; pip install "densehand[{_PACKAGES[name]}]"')
            continue
        found.append(name)
    return found


def device_name(device: str) -> str:
    """What a results file says of the device: the GPU's name, or the kind of processor."""
    return torch.cuda.get_device_name() if device != "cpu" else f"cpu {platform.machine()}"


def random_hands(model: HandModel, batch: int, size: int) -> Float[Tensor, "B V 3"]:
    """Random hands in screen space, framed as crops are."""
    generator = torch.Generator().manual_seed(0)
    pose = model.mean_pose + 0.25 * torch.randn(batch, 45, generator=generator)
    rotation = torch.nn.functional.normalize(torch.randn(batch, 4, generator=generator), dim=1)
    with torch.no_grad():
        return framed(model(pose, torch.randn(batch, 10, generator=generator), rotation), size)


def framed(mesh: HandMesh, size: int) -> Float[Tensor, "B V 3"]:
    """Posed hands in screen space, framed as crops are: 1.5 × the box of the keypoints."""
    low, high = mesh.joints.amin(dim=1, keepdim=True), mesh.joints.amax(dim=1, keepdim=True)
    scale = size / HOUSE_PADDING / (high - low)[..., :2].amax(dim=-1, keepdim=True)
    return (mesh.vertices - (low + high) / 2) * scale + torch.tensor([size / 2, size / 2, 0.0])


def milliseconds(function: Callable[[], object], device: str, seconds: float) -> float:
    """The fastest of the repetitions within so many seconds, at least one, after one that does not count."""

    def once() -> float:
        start = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    times = [once()]
    while sum(times) < seconds:
        times.append(once())
    return min(times) * 1e3


def compare(
    names: Sequence[str],
    batches: Sequence[int],
    sizes: Sequence[int],
    *,
    device: str = "cpu",
    seconds: float = 0.6,
    longest: float = 60.0,
) -> Iterator[Row]:
    """Measure the contestants, one row each, as they are done.

    Args:
        names: of `CONTESTANTS`, such as `available` returns.
        batches: numbers of hands, ascending.
        sizes: sides of the square picture in pixels.
        device: cpu or cuda.
        seconds: time for the repetitions of one measurement.
        longest: a batch that would take more seconds, as its smaller ones did, is left out.
    """
    model = HandModel.load("open")
    faces = model.faces.to(device)
    for size in sizes:
        taken: dict[str, float] = {}  # seconds a hand
        for batch in batches:
            vertices = random_hands(model, batch, size).to(device)
            for name in names:
                if taken.get(name, 0.0) * batch > longest:
                    yield Row(name, size, batch, None, None)
                    continue
                steps = _steps(name, vertices, faces, size)
                times = [None if step is None else milliseconds(step, device, seconds) for step in steps]
                taken[name] = max(t or 0.0 for t in times) / 1e3 / batch
                yield Row(name, size, batch, *times)


def _steps(
    name: str, vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], size: int
) -> tuple[Callable[[], object], Callable[[], object] | None]:
    """What a contestant does forward, and forward + backward."""
    square = (size, size)
    if name == "deodr":
        return _deodr(vertices, faces, size)
    if name == "rasterise":
        return lambda: rasterise(vertices, faces, square, cull="back"), None
    if name == "shade":
        lamp = torch.nn.functional.normalize(vertices.new_tensor([[0.3, -0.5, -1.0]]), dim=1)
        lights = Lights(ambient=vertices.new_full((3,), 0.3), directions=lamp)
        return lambda: shade(rasterise(vertices, faces, square, cull="back"), vertices, faces, lights=lights), None
    backend: Backend = "numba" if name == "numba" else "torch"
    draw: Callable[..., Tensor] = soft_silhouette if name == "soft" else partial(silhouette, backend=backend)
    leaf = vertices.clone().requires_grad_()
    weight = torch.rand(len(vertices), *square, device=vertices.device)

    def both() -> None:
        leaf.grad = None
        draw(leaf, faces, square).backward(weight)

    return lambda: draw(vertices, faces, square), both


def _deodr(
    vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], size: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """deodr draws white hands on black, one picture after another."""
    import numpy as np
    from deodr import differentiable_renderer as renderer
    from deodr.triangulated_mesh import ColoredTriMesh

    triangles, background = faces.numpy().astype(np.uint32), np.zeros((size, size, 1))
    scenes: list[Any] = []
    for mesh in vertices.double().numpy():
        edges = ColoredTriMesh(triangles, mesh, nb_colors=1).edge_on_silhouette(mesh[:, :2])
        scene = renderer.Scene2D(
            faces=triangles,
            faces_uv=triangles,
            ij=mesh[:, :2].copy(),
            depths=mesh[:, 2] + 1000.0,
            textured=np.zeros(len(triangles), bool),
            uv=np.zeros((len(mesh), 2)),
            shade=np.zeros(len(mesh)),
            colors=np.ones((len(mesh), 1)),
            shaded=np.zeros(len(triangles), bool),
            edgeflags=edges,
            height=size,
            width=size,
            nb_colors=1,
            texture=np.zeros((2, 2, 1)),
            backface_culling=True,
            clockwise=False,
            background_image=background,
        )
        scenes.append(scene)

    def forward() -> None:
        for scene in scenes:
            scene.render(sigma=1.0)

    def both() -> None:
        for scene in scenes:
            scene.clear_gradients()
            image, _ = scene.render(sigma=1.0)
            scene.render_backward(np.ones_like(image))

    return forward, both
