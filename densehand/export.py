"""Writing hands to files. Every writer writes the file whole or not at all, and raises InputError where it cannot.

Per photo: JSON (`densehand/1`). Per hand: GLB and OBJ meshes, NPZ with everything, mask and depth pictures.

Frames: JSON and NPZ keep the camera's axes (x right, y down, z forward). GLB and OBJ use glTF's: x right, y up, z
backward (towards the camera), metres, wrist at the origin; the wrist's place in the camera is `translation` in the
GLB's extras, the NPZ and the JSON (there along the camera's axes). Both frames are right-handed, so a left hand stays
a left hand.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import MISSING, asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, Int
from PIL import Image, PngImagePlugin

from densehand.document import SCHEMA
from densehand.errors import InputError
from densehand.files import write_bytes
from densehand.refine.record import Refinement
from densehand.result import Hand

if TYPE_CHECKING:
    import trimesh

DEPTH_STEP = 1e-4
"""Metres per unit of a depth picture."""

DEPTH_ZERO = 32768
"""Value of a depth picture at the wrist's distance; 0 means that the hand is not there."""

SKIN = (224, 172, 138)
"""sRGB colour of exported meshes."""

_JPEG: tuple[str, dict[str, Any]] = ("JPEG", {"quality": 92, "subsampling": 0})
_PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 3}), ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": ("WEBP", {"quality": 92}),
}  # fmt: skip

_GLTF_AXES = np.array([1, -1, -1], dtype=np.float32)


def write_json(path: str | Path, document: dict[str, Any]) -> None:
    """Write a document of `densehand.document.document`: UTF-8, one line a field, no NaN."""
    hands = []
    for hand in document["hands"]:
        fields = (f"      {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in hand.items())
        hands.append("    {\n" + ",\n".join(fields) + "\n    }")
    head = [
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in document.items()
        if key != "hands"
    ]
    body = "[\n" + ",\n".join(hands) + "\n  ]" if hands else "[]"
    text = "{\n" + ",\n".join([*head, f'  "hands": {body}']) + "\n}\n"
    # a file name may hold bytes that are no text; JSON readers must still get valid UTF-8
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_glb(path: str | Path, hand: Hand) -> None:
    """Write a binary glTF 2.0 mesh with smooth normals and a skin-coloured material."""
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    mesh = _gltf_mesh(hand)
    material = PBRMaterial(name="skin", baseColorFactor=[*skin_linear(), 1.0], metallicFactor=0.0, roughnessFactor=0.65)
    mesh.visual = TextureVisuals(material=material)
    name = f"{hand.side}_hand"
    scene = trimesh.Scene()
    scene.add_geometry(mesh, geom_name=name, node_name=name)
    translation = (hand.translation * _GLTF_AXES).tolist()
    scene.metadata.update(side=hand.side, score=hand.score, translation=translation, generator="densehand")
    write_bytes(path, scene.export(file_type="glb", include_normals=True))


def write_obj(path: str | Path, hand: Hand) -> None:
    """Write a Wavefront OBJ mesh with smooth normals."""
    mesh = _gltf_mesh(hand)
    text = [f"# densehand: {hand.side} hand; metres, x right, y up, z backward, wrist at the origin", "o hand"]
    text += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices]
    text += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in mesh.vertex_normals]
    text += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in mesh.faces + 1]
    write_bytes(path, ("\n".join(text) + "\n").encode())


def write_npz(path: str | Path, hand: Hand) -> None:
    """Write every field of `Hand` under its own name (`numpy.load` without pickle), and `schema`."""
    buffer = io.BytesIO()
    known = {name: getattr(hand, name) for name in Hand.__dataclass_fields__ if name != "refinement"}
    fields = {name: np.asarray(value) for name, value in known.items() if value is not None}
    # JSON text: numpy.load without pickle knows no objects
    fields["refinement"] = np.asarray(json.dumps(hand.refinement and asdict(hand.refinement)))
    np.savez_compressed(buffer, schema=np.asarray(SCHEMA), **fields)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_npz(path: str | Path) -> Hand:
    """Read back what `write_npz` wrote.

    Errors:
        InputError: not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            wanted = [f for f in Hand.__dataclass_fields__.values() if f.name != "refinement"]
            # fields with a default came later: not every file has them
            values = {f.name: stored[f.name] for f in wanted if f.default is MISSING or f.name in stored}
            note = json.loads(stored["refinement"].item()) if "refinement" in stored else None
            entries = {name: value.item() if value.ndim == 0 else value for name, value in values.items()}
            return Hand(**entries, refinement=None if note is None else Refinement.from_json_dict(note))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a hand written by densehand ({error}); write it again") from error


def write_mask(path: str | Path, hand: Hand, size: tuple[int, int]) -> None:
    """Write the hand's mask over the full image (height, width): 8-bit PNG, 255 where the hand is."""
    mask = Image.fromarray(hand.mask(size).astype(np.uint8) * 255)
    write_bytes(path, _png(mask, {}))


def write_depth(path: str | Path, hand: Hand, size: tuple[int, int]) -> None:
    """Write the hand's depth over the full image (height, width) as a 16-bit PNG.

    Values are tenths of a millimetre from the wrist's distance: z = wrist z + (value − 32768) · 0.0001 m, and 0 where
    the hand is not. Relative, because the relief is what is known well; the wrist's distance (`translation` z, which
    rests on the focal length) is in the PNG's text as `wrist_z_m`, so `read_depth` gives metres from the camera.
    """
    depth = hand.depth(size)
    wrist = float(hand.translation[2])
    covered = depth > 0
    values = np.zeros(size, dtype=np.uint16)
    values[covered] = np.clip(np.rint((depth[covered] - wrist) / DEPTH_STEP) + DEPTH_ZERO, 1, 65535)
    text = {"wrist_z_m": repr(wrist), "unit_m": repr(DEPTH_STEP), "value_at_wrist": str(DEPTH_ZERO)}
    write_bytes(path, _png(Image.fromarray(values), text))


def read_depth(path: str | Path) -> Float32[np.ndarray, "H W"]:
    """Read a picture of `write_depth` as metres from the camera plane, 0 where the hand is not."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            wrist, values = float(image.info["wrist_z_m"]), np.asarray(image).astype(np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a depth picture written by densehand; write it again") from error
    return np.where(values > 0, wrist + (values - DEPTH_ZERO) * DEPTH_STEP, 0).astype(np.float32)


def write_picture(path: str | Path, pixels: np.ndarray) -> None:
    """Write H×W×3 uint8 RGB, or H×W grey (PNG: of 8 or 16 bit); the suffix chooses the format.

    Errors:
        InputError: no format has this suffix, the format cannot hold such a picture, or the file cannot be written.
    """
    kind, how = picture_format(path)
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, kind, **how)
    except (OSError, ValueError) as error:  # JPEG and WebP bound the sides
        size = f"{pixels.shape[1]}×{pixels.shape[0]} pixels"
        raise InputError(f"{path}: {kind} cannot hold this picture of {size}; use .png or a smaller one") from error
    write_bytes(path, buffer.getvalue())


def picture_format(path: str | Path) -> tuple[str, dict[str, Any]]:
    """Pillow's name of the format that a suffix means, and how it is written. Raises InputError for other suffixes."""
    try:
        return _PICTURES[Path(path).suffix.lower()]
    except KeyError:
        raise InputError(f"{path}: no picture is written with this suffix; use {', '.join(_PICTURES)}") from None


def vertex_normals(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "V 3"]:
    """Smooth unit normals: the mean of the faces around each vertex, weighted by area (else 0, 0, 1)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], face_normals)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    fallback = np.array([0, 0, 1], dtype=vertices.dtype)
    return np.where(length > 1e-20, normals / np.maximum(length, 1e-20), fallback)


def skin_linear() -> list[float]:
    """`SKIN` in linear light, 0…1, as glTF's material factors are."""
    srgb = np.array(SKIN) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).tolist()


def _gltf_mesh(hand: Hand) -> trimesh.Trimesh:
    import trimesh

    vertices = hand.vertices * _GLTF_AXES
    normals = vertex_normals(vertices, hand.faces)
    return trimesh.Trimesh(vertices, hand.faces, vertex_normals=normals, process=False, validate=False)


def _png(image: Image.Image, text: dict[str, str]) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
