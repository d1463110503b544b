"""Overlays: the shaded mesh, the skeleton and a label of each hand over its photo, for hands of any size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from densehand.hand.keypoints import BONES
from densehand.result import Hand

FINGER_COLOURS = ((255, 92, 92), (255, 176, 46), (120, 214, 75), (54, 188, 255), (190, 120, 255))
"""sRGB of thumb, index, middle, ring and little finger."""

MESH_COLOURS = {"right": (240, 186, 140), "left": (140, 190, 240)}
LABEL_COLOURS = {"right": (196, 98, 24), "left": (28, 96, 190)}

MESH_ALPHA = 0.72
_LARGEST_RENDER = 768  # side of the mesh picture, pixels: bounds time and memory whatever the photo
_STRIPE = 256  # rows blended at a time
_SHIFT = 4  # cv2 draws at 1/16 pixel


def draw_overlay(
    image: UInt8[np.ndarray, "H W 3"],
    hands: Iterable[Hand],
    mesh: bool = True,
    skeleton: bool = True,
    label: bool = True,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw hands over a photo (a copy; RGB).

    Meshes go from far to near, then the skeletons, then the labels, so that no label is hidden. Line widths and letters
    follow the hand's size in the picture.

    Args:
        image: the photo the hands were found in.
        hands: results of `HandEstimator` for this photo.
        mesh: draw the shaded mesh.
        skeleton: draw the 2D keypoints, a colour a finger.
        label: draw the box with side and score.
    """
    picture = image.copy()
    ordered = sorted(hands, key=lambda hand: -hand.translation[2])
    if mesh:
        for hand in ordered:
            draw_mesh(picture, hand)
    if skeleton:
        for hand in ordered:
            draw_skeleton(picture, hand.keypoints_2d, hand.keypoints_score)
    if label:
        for hand in ordered:
            draw_label(picture, hand)
    return picture


def draw_mesh(picture: UInt8[np.ndarray, "H W 3"], hand: Hand, alpha: float = MESH_ALPHA) -> None:
    """Blend the shaded mesh into `picture`, in place.

    The mesh is rendered at a resolution of its own, finer than the photo for small hands (smooth edges) and bounded for
    large ones, then resampled with its coverage.
    """
    height, width = picture.shape[:2]
    screen = hand.screen_vertices()
    low = np.maximum(np.floor(screen[:, :2].min(axis=0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(screen[:, :2].max(axis=0)) + 1, (width, height)).astype(int)
    if (high <= low).any():
        return
    w, h = (high - low).tolist()
    zoom = min(_LARGEST_RENDER / max(w, h), 4.0)
    size = max(1, round(h * zoom)), max(1, round(w * zoom))
    zooms = np.array([size[1] / w, size[0] / h, 1], dtype=np.float32)
    shaded = _shade(hand, (screen - np.array([*low, 0], dtype=np.float32)) * zooms, size)
    shaded = cv2.resize(shaded, (w, h), interpolation=cv2.INTER_AREA if zoom >= 1 else cv2.INTER_LINEAR)
    part = picture[low[1] : high[1], low[0] : high[0]]
    for rows in (slice(top, top + _STRIPE) for top in range(0, h, _STRIPE)):  # a whole 8K photo would need gigabytes
        colour, coverage = shaded[rows, :, :3], shaded[rows, :, 3:] * np.float32(alpha / 255)
        part[rows] = np.rint(part[rows] * (1 - coverage) + colour * np.float32(alpha)).astype(np.uint8)


def _shade(hand: Hand, screen: Float[np.ndarray, "V 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 4"]:
    """Colour × coverage and coverage (0…255) of the mesh, lit softly from the upper left behind the camera."""
    import torch

    from densehand.render import Lights, rasterise, shade, vertex_normals

    lights = Lights(
        ambient=torch.full((3,), 0.30),
        directions=torch.tensor([[-0.45, -0.65, -0.61], [0.7, 0.1, -0.7]]),
        colors=torch.tensor([[0.62] * 3, [0.20] * 3]),
        specular=torch.tensor(0.24),
        shininess=24,
    )
    corners, faces = torch.from_numpy(screen.astype(np.float32)), torch.from_numpy(hand.faces)
    normals = vertex_normals(torch.from_numpy(hand.vertices), faces)  # of the metric mesh: the screen has two units
    colour = torch.tensor(MESH_COLOURS[hand.side]) / 255
    fragments = rasterise(corners, faces, size)
    lit = shade(fragments, corners, faces, lights=lights, colors=colour, normals=normals)
    shaded = torch.cat([lit.clamp(0, 1), fragments.mask[..., None].to(lit)], dim=-1)
    return (shaded * 255).round().byte().numpy()


def draw_skeleton(
    picture: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "21 2"],
    confidence: Float[np.ndarray, "21"] | None = None,
) -> None:
    """Draw the 21 keypoints and 20 bones, a colour a finger with a dark rim, in place.

    Args:
        picture: H×W×3 uint8, RGB.
        keypoints: pixels of the picture, continuous.
        confidence: 0…1 a keypoint; uncertain ones are drawn smaller.
    """
    size = hand_size(keypoints)
    thick = max(1.0, size * 0.014)
    rim = max(1, round(thick * 0.45)) if size >= 90 else 0
    confidence = np.ones(21) if confidence is None else np.clip(confidence, 0, 1)
    for colour_of in ((lambda _: (20, 20, 24)), _finger_colour) if rim else (_finger_colour,):
        grow = rim if colour_of is not _finger_colour else 0
        for parent, child in BONES:
            ends = _fixed(keypoints[[parent, child]])
            width = max(1, round(thick) + 2 * grow)
            cv2.line(picture, ends[0], ends[1], colour_of(child), width, cv2.LINE_AA, _SHIFT)
        for index, point in enumerate(_fixed(keypoints)):
            radius = (thick * (0.75 + 0.55 * confidence[index]) + grow) * 2**_SHIFT
            cv2.circle(picture, point, max(2**_SHIFT // 2, round(radius)), colour_of(index), -1, cv2.LINE_AA, _SHIFT)


def draw_label(picture: UInt8[np.ndarray, "H W 3"], hand: Hand) -> None:
    """Draw the corners of the hand's box and a tag with its side and score, in place."""
    height, width = picture.shape[:2]
    box = np.concatenate(
        [np.minimum(hand.box[:2], hand.keypoints_2d.min(0)), np.maximum(hand.box[2:], hand.keypoints_2d.max(0))]
    )
    size = float(max(box[2] - box[0], box[3] - box[1]))
    box = box + np.array([-1, -1, 1, 1]) * size * 0.06
    colour = LABEL_COLOURS[hand.side]
    thick = max(1, round(size * 0.008))
    for x, dx in ((box[0], 1), (box[2], -1)):
        for y, dy in ((box[1], 1), (box[3], -1)):
            corner = np.array([[x, y], [x + dx * size * 0.14, y], [x, y + dy * size * 0.14]])
            points = _fixed(corner)
            cv2.line(picture, points[0], points[1], colour, thick, cv2.LINE_AA, _SHIFT)
            cv2.line(picture, points[0], points[2], colour, thick, cv2.LINE_AA, _SHIFT)
    letters = float(np.clip(size * 0.07, 11, 0.05 * max(height, width) + 8))
    text = f"{hand.side} {hand.score:.2f}" if width >= 8 * letters and size >= 4 * letters else hand.side
    font = ImageFont.load_default(letters)
    left, top, right, bottom = font.getbbox(text)
    pad = letters * 0.35
    w, h = round(right - left + 2 * pad), round(bottom - top + 2 * pad)
    if w > width or h > height // 2:  # a tag would hide the picture
        return
    x = int(np.clip(round(box[0]), 0, width - w))
    y = round(box[1] - h)
    y = int(np.clip(y if y >= 0 else round(box[1]), 0, height - h))
    tag = Image.new("RGB", (w, h), colour)
    ImageDraw.Draw(tag).text((pad - left, pad - top), text, fill="white", font=font)
    part = picture[y : y + h, x : x + w]
    part[...] = np.rint(part * 0.12 + np.asarray(tag) * 0.88).astype(np.uint8)


def hand_size(keypoints: Float[np.ndarray, "21 2"]) -> float:
    """Larger side of the tight box around the keypoints, pixels."""
    return float(np.ptp(keypoints, axis=0).max())


def _finger_colour(keypoint: int) -> tuple[int, int, int]:
    return (235, 235, 235) if keypoint == 0 else FINGER_COLOURS[(keypoint - 1) // 4]


def _fixed(points: Float[np.ndarray, "n 2"]) -> Sequence[tuple[int, int]]:
    """cv2's fixed-point pixels, which count from pixel centres; clipped so that far points do not overflow."""
    values = np.clip((np.asarray(points, dtype=np.float64) - 0.5) * 2**_SHIFT, -(2**24), 2**24)
    return [(round(x), round(y)) for x, y in values.tolist()]
