"""Milliseconds of the renderer for one hand and for batches, forward and forward + backward.

    python benchmarks/bench_render.py [--threads 2] [--device cpu] [--batches 1 8 32] [--sizes 160 224]

Beside it `deodr`'s anti-aliased CPU renderer, where it is installed (pip install deodr): same meshes, same size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from densehand.hand.model import HandModel
from densehand.render import Lights, rasterise, shade, silhouette


def hands(model: HandModel, batch: int, size: int, device: str) -> Tensor:
    """Random hands in screen space, framed as crops are: 1.5 × the box of the keypoints."""
    generator = torch.Generator().manual_seed(0)
    pose = model.mean_pose + 0.25 * torch.randn(batch, 45, generator=generator)
    rotation = torch.nn.functional.normalize(torch.randn(batch, 4, generator=generator), dim=1)
    with torch.no_grad():
        mesh = model(pose, torch.randn(batch, 10, generator=generator), rotation)
    low, high = mesh.joints.amin(dim=1, keepdim=True), mesh.joints.amax(dim=1, keepdim=True)
    scale = size / 1.5 / (high - low)[..., :2].amax(dim=-1, keepdim=True)
    return ((mesh.vertices - (low + high) / 2) * scale + torch.tensor([size / 2, size / 2, 0.0])).to(device)


def milliseconds(function: Callable[[], object], device: str, seconds: float = 0.6) -> float:
    """Fastest of repeated runs."""
    best, end = float("inf"), time.perf_counter() + seconds
    function()
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def deodr_milliseconds(vertices: Tensor, faces: Tensor, size: int) -> tuple[float, float] | None:
    """Forward, and forward + backward of a white hand on black, one picture after another."""
    try:
        import numpy as np
        from deodr import differentiable_renderer as renderer
        from deodr.triangulated_mesh import ColoredTriMesh
    except ImportError:
        return None
    scenes = []
    for mesh in vertices.cpu().double().numpy():
        count, triangles = len(mesh), faces.cpu().numpy().astype(np.uint32)
        adjacency = ColoredTriMesh(triangles, mesh, nb_colors=1)
        edges = adjacency.edge_on_silhouette(mesh[:, :2])
        scenes.append(
            renderer.Scene2D(
                faces=triangles,
                faces_uv=triangles,
                ij=mesh[:, :2].copy(),
                depths=mesh[:, 2] + 1000.0,
                textured=np.zeros(len(triangles), bool),
                uv=np.zeros((count, 2)),
                shade=np.zeros(count),
                colors=np.ones((count, 1)),
                shaded=np.zeros(len(triangles), bool),
                edgeflags=edges,
                height=size,
                width=size,
                nb_colors=1,
                texture=np.zeros((2, 2, 1)),
                backface_culling=True,
                clockwise=False,
                background_image=np.zeros((size, size, 1)),
            )
        )

    def forward() -> None:
        for scene in scenes:
            scene.render(sigma=1.0)

    def both() -> None:
        for scene in scenes:
            scene.clear_gradients()
            image, _ = scene.render(sigma=1.0)
            scene.render_backward(np.ones_like(image))

    try:
        return milliseconds(forward, "cpu"), milliseconds(both, "cpu")
    except Exception as error:  # its interface changes between versions: say so, the other columns still count
        print(f"deodr is installed but could not render: {error}")
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 224])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = options.device
    model = HandModel.load("open")
    faces = model.faces.to(device)
    lamp = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, -1.0]], device=device), dim=1)
    lights = Lights(ambient=torch.full((3,), 0.3, device=device), directions=lamp)
    print(f"{len(faces)} faces, {options.threads} threads, {device}; milliseconds a batch")
    names = ("rasterise", "raster+shade", "silhouette", "fwd+bwd", "deodr", "fwd+bwd")
    print(f"{'size':>5}{'hands':>7}" + "".join(f"{name:>14}" for name in names))
    for size in options.sizes:
        for batch in options.batches:
            vertices = hands(model, batch, size, device)
            leaf = vertices.clone().requires_grad_()
            weight = torch.rand(batch, size, size, device=device)

            def raster(v: Tensor = vertices, s: int = size) -> object:
                return rasterise(v, faces, (s, s), cull="back")

            def shaded(v: Tensor = vertices, s: int = size) -> object:
                return shade(rasterise(v, faces, (s, s), cull="back"), v, faces, lights=lights)

            def mask(v: Tensor = vertices, s: int = size) -> object:
                return silhouette(v, faces, (s, s))

            def backward(v: Tensor = leaf, w: Tensor = weight, s: int = size) -> None:
                v.grad = None
                silhouette(v, faces, (s, s)).backward(w)

            times: list[float | None] = [milliseconds(f, device) for f in (raster, shaded, mask, backward)]
            times += list(deodr_milliseconds(vertices, faces, size) or (None, None))
            print(f"{size:>5}{batch:>7}" + "".join(f"{'-' if t is None else f'{t:.2f}':>14}" for t in times))


if __name__ == "__main__":
    main()
