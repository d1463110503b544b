"""Overlays: the shaded mesh, the skeleton and a label of each hand over its photo, for hands of any size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from densehand.hand.keypoints import BONES
from densehand.result import Hand

FINGER_COLOURS = ((255, 92, 92), (255, 176, 46), (120, 214, 75), (54, 188, 255), (190, 120, 255))
"""sRGB of thumb, index, middle, ring and little finger."""

MESH_COLOURS = {"right": (240, 186, 140), "left": (140, 190, 240)}
LABEL_COLOURS = {"right": (196, 98, 24), "left": (28, 96, 190)}

MESH_ALPHA = 0.72
AMBIENT = np.float32(0.30)
LAMPS = np.array([[-0.45, -0.65, -0.61], [0.7, 0.1, -0.7]])  # towards each, camera axes
STRENGTHS = np.array([[0.62], [0.20]])
SPECULAR, SHININESS = 0.24, 24  # of Blinn and Phong's highlight

_HALFWAYS = (LAMPS + [0, 0, -1]) / np.linalg.norm(LAMPS + [0, 0, -1], axis=1, keepdims=True)
# Times a normal: each lamp's light, and the 24th root of its highlight (the 24th power: the 3rd, squared three times).
# Where a lamp gives no light its highlight is below 1e-8 and needs no test; 0.1^24 is nothing, too, but no denormal
# number, with which processors are slow.
_AXES = -np.concatenate([LAMPS * STRENGTHS, _HALFWAYS * (255 * SPECULAR * STRENGTHS) ** (1 / SHININESS)])
_AXES = _AXES.astype(np.float32)
_FLOORS = np.array([[0], [0], [0.1], [0.1]], np.float32)
_LARGEST_RENDER = 768  # side of the mesh picture, pixels: bounds time and memory whatever the photo
_STRIPE = 32  # rows blended at a time: what they need stays in the processor's cache
_BLOCK = 8192  # pixels lit at a time: likewise
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
    from densehand.render.single import part_around

    screen = hand.screen_vertices()
    part = part_around(screen, picture.shape[:2], margin=1)
    if part is None:
        return
    rows, columns = part
    h, w = rows.stop - rows.start, columns.stop - columns.start
    zoom = min(_LARGEST_RENDER / max(w, h), 4.0)
    size = max(1, round(h * zoom)), max(1, round(w * zoom))
    zooms = np.array([size[1] / w, size[0] / h, 1], dtype=np.float32)
    corner = np.array([columns.start, rows.start, 0], dtype=np.float32)
    shaded = _shade(hand, (screen - corner) * zooms, size)
    shaded = cv2.resize(shaded, (w, h), interpolation=cv2.INTER_AREA if zoom >= 1 else cv2.INTER_LINEAR)
    _blend(picture[rows, columns], shaded, alpha)


def _blend(part: UInt8[np.ndarray, "h w 3"], shaded: UInt8[np.ndarray, "h w 4"], alpha: float) -> None:
    """Lay colour × coverage and coverage (0…255) over a part of the picture, in place."""
    keeps = 1 - np.arange(256, dtype=np.float32) * np.float32(alpha / 255)
    for top in range(0, len(part), _STRIPE):
        coverage = cv2.extractChannel(shaded[top : top + _STRIPE], 3)
        left, _, width, _ = cv2.boundingRect(coverage)
        if width == 0:
            continue
        columns = slice(left, left + width)
        rows, over = (picture[top : top + _STRIPE, columns] for picture in (part, shaded))
        kept = cv2.cvtColor(cv2.LUT(coverage[:, columns], keeps), cv2.COLOR_GRAY2RGB)
        kept = cv2.multiply(rows, kept, kept, dtype=cv2.CV_32F)
        colour = cv2.cvtColor(over, cv2.COLOR_RGBA2RGB).astype(np.float32)
        rows[...] = cv2.addWeighted(kept, 1, colour, alpha, 0, dtype=cv2.CV_8U)  # rounds to nearest


def _shade(hand: Hand, screen: Float[np.ndarray, "V 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 4"]:
    """Colour × coverage and coverage (0…255) of the mesh, lit softly from the upper left behind the camera."""
    import torch

    from densehand.render import vertex_normals
    from densehand.render.single import see

    # of the metric mesh: the screen has two units
    normals = vertex_normals(torch.from_numpy(hand.vertices), torch.from_numpy(hand.faces)).numpy()
    picture = np.empty(size, np.uint32)
    for band in see(screen, hand.faces, size, normals):
        lit = _light(band.values, MESH_COLOURS[hand.side]).view(np.uint32)[:, 0]
        lit.take(band.column, mode="wrap", out=picture[band.rows])  # -1 is the last one, which is empty
    return picture.view(np.uint8).reshape(*size, 4)


@np.errstate(invalid="ignore")  # a normal of no length
def _light(normals: Float32[np.ndarray, "3 n"], colour: tuple[int, int, int]) -> UInt8[np.ndarray, "n+1 4"]:
    """Colour and 255 of pixels with these normals (of any length) as `render.shade` lights them, and a row of zeros."""
    count = normals.shape[1]
    pixels = np.zeros((count + 1, 4), np.uint8)
    albedo = np.array(colour, np.float32)[:, None]
    channels = np.full((4, _BLOCK), 255, np.float32)
    for start in range(0, count, _BLOCK):
        some = normals[:, start : start + _BLOCK]
        size = some.shape[1]
        length = np.sqrt(np.einsum("ij,ij->j", some, some))
        given = np.einsum("ij,jk->ik", _AXES, some)  # no BLAS, whose threads cost more than they save here
        given /= np.copysign(length, some[2])  # the axes point away; so insides are lit as outsides are
        np.fmax(given, _FLOORS, out=given)  # where there is no normal, too
        diffuse, lobes = given[:2], given[2:]
        lobes *= lobes * lobes
        for _ in range(3):
            lobes *= lobes
        np.multiply(albedo, diffuse[0] + diffuse[1] + AMBIENT, out=channels[:3, :size])
        channels[:3, :size] += lobes[0] + lobes[1]
        rounded = cv2.convertScaleAbs(channels[:, :size])
        pixels[start : start + size] = cv2.merge(list(rounded[:, None]))[0]
    return pixels


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
    points = _fixed(keypoints)
    for colour_of in ((lambda _: (20, 20, 24)), _finger_colour) if rim else (_finger_colour,):
        grow = rim if colour_of is not _finger_colour else 0
        for parent, child in BONES:
            width = max(1, round(thick) + 2 * grow)
            cv2.line(picture, points[parent], points[child], colour_of(child), width, cv2.LINE_AA, _SHIFT)
        for index, point in enumerate(points):
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
