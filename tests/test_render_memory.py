"""Peak memory of the renderer: linear in faces, in the canvas and in the pixels covered, never in faces × pixels.

Run as a program this file draws each scene, forward and backward, in a forked process and prints by how many bytes the
resident memory rose. So everything counts: tensors, what torch's operations hold in between, and numba's arrays.
"""

import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import pytest
import torch
import trimesh

from densehand.render import rasterise, silhouette

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")

PER_FACE, PER_PIXEL, PER_COVERED = 4096, 128, 512
"""Bytes that one more face, pixel of the canvas, and pixel covered may cost: several times what they do, and far below
one byte for each pixel of the ball (31,416) or each of its faces (5,120)."""


class Scene(NamedTuple):
    """A ball of so many faces, its diameter and the side of the canvas in pixels."""

    faces: int
    diameter: int
    canvas: int

    @property
    def covered(self) -> float:
        return math.pi / 4 * self.diameter**2

    def mesh(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Vertices (1 V 3) and faces. More faces are the same flat ones cut in four: the same pixels are covered."""
        ball = trimesh.creation.icosphere(2)
        vertices, faces = ball.vertices, ball.faces
        while len(faces) < self.faces:
            vertices, faces = trimesh.remesh.subdivide(vertices, faces)
        points = torch.tensor(vertices, dtype=torch.float32) * (self.diameter / 2) + self.canvas / 2
        return points[None].requires_grad_(), torch.tensor(faces)


SCENES = {"base": (5120, 200, 256), "finer": (20480, 200, 256), "wider": (5120, 200, 512), "larger": (5120, 400, 512)}
SMALL = {"base": (320, 100, 128), "finer": (1280, 100, 128), "wider": (320, 100, 256), "larger": (320, 200, 256)}


def all_pairs(vertices: torch.Tensor, faces: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """What must not be: each face is asked at each pixel."""
    row, column = torch.meshgrid(*(torch.arange(n) + 0.5 for n in size), indexing="ij")
    inside = torch.ones(len(faces), *size, dtype=torch.bool)
    for k in range(3):
        (ax, ay), (bx, by) = (vertices[0, faces[:, i], :2, None, None].unbind(1) for i in (k, (k + 1) % 3))
        inside &= (bx - ax) * (row - ay) >= (by - ay) * (column - ax)
    return inside.any(dim=0) + vertices.sum()


DRAW: dict[str, Callable[..., torch.Tensor]] = {
    "rasterise": lambda *scene: rasterise(*scene).depth.nan_to_num(posinf=0.0),
    "torch": partial(silhouette, backend="torch"),
    "numba": partial(silhouette, backend="numba"),
    "all pairs": all_pairs,
}


def rise(name: str, scene: Scene) -> int:
    """Bytes by which drawing the scene, forward and backward, raises the peak of a process that holds its mesh."""
    import resource

    (vertices, faces), (reader, writer) = scene.mesh(), os.pipe()
    child = os.fork()  # its peak begins at what is resident now
    if child == 0:
        try:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            DRAW[name](vertices, faces, (scene.canvas, scene.canvas)).sum().backward()
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            os.write(writer, str((after - before) * 1024).encode())
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        return int(answer.read())


@pytest.fixture(scope="module")
def rises() -> dict[str, dict[str, int]]:
    """Bytes by name and scene, measured in a process without threads."""
    # arrays go back to the system when they are freed, as they are mapped one by one
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, __file__], env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def costs(rises: dict[str, int], scenes: dict[str, tuple[int, int, int]]) -> tuple[float, float, float]:
    """Bytes for one more face, one more pixel of the canvas, and one more pixel covered."""
    base, finer, wider, larger = (Scene(*scenes[name]) for name in ("base", "finer", "wider", "larger"))
    return (
        (rises["finer"] - rises["base"]) / (finer.faces - base.faces),
        (rises["wider"] - rises["base"]) / (wider.canvas**2 - base.canvas**2),
        (rises["larger"] - rises["wider"]) / (larger.covered - wider.covered),
    )


@pytest.mark.parametrize("name", ["rasterise", "torch", "numba"])
def test_memory_is_linear_in_faces_canvas_and_covered_pixels(rises: dict[str, dict[str, int]], name: str) -> None:
    if name not in rises:
        pytest.skip("numba is not installed")
    face, pixel, covered = costs(rises[name], SCENES)
    assert face < PER_FACE and pixel < PER_PIXEL and covered < PER_COVERED, rises[name]


def test_faces_times_pixels_would_be_noticed(rises: dict[str, dict[str, int]]) -> None:
    face, pixel, _ = costs(rises["all pairs"], SMALL)
    assert face > Scene(*SMALL["base"]).canvas ** 2 > 3 * PER_FACE
    assert pixel > Scene(*SMALL["base"]).faces > 2 * PER_PIXEL


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {}
    for name in DRAW:
        if name == "numba" and find_spec("numba") is None:
            continue
        vertices, faces = Scene(320, 40, 64).mesh()
        DRAW[name](vertices, faces, (64, 64)).sum().backward()  # what is loaded or compiled once does not count
        scenes = SMALL if name == "all pairs" else SCENES
        found[name] = {scene: rise(name, Scene(*numbers)) for scene, numbers in scenes.items()}
    print(json.dumps(found))
