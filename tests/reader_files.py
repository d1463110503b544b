"""A hand before a camera, and small files, for tests of the datasets' readers."""

import io
import json

import numpy as np
from PIL import Image

RNG = np.random.default_rng(5)
CAMERA = [[500.0, 0.0, 112.0], [0.0, 510.0, 110.0], [0.0, 0.0, 1.0]]
JOINTS = RNG.normal(0, 0.05, (21, 3)) + (0, 0, 0.6)
"""21 points in the house order, metres, before the camera."""


def picture(path, size=(224, 224), mode="RGB", values=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((*size, 3) if mode == "RGB" else size, 90, np.uint8) if values is None else values
    Image.fromarray(array).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def projected(joints=JOINTS, camera=CAMERA):
    """Naive twin of the projection, one point after the other."""
    (fx, _, cx), (_, fy, cy), _ = camera
    return np.array([[fx * x / z + cx, fy * y / z + cy] for x, y, z in joints])


def png(array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()
