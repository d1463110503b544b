"""Draw the hand model for the documentation: its shape directions at ±3σ, and every joint at its limits.

python tools/draw_hand.py [--hand open] [--out docs/images]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from densehand.hand import HandModel, anatomical_to_pose
from densehand.hand.info import OPEN_SHAPE_NAMES
from densehand.hand.keypoints import BONES, JOINT_NAMES
from densehand.render import Lights, rasterise, shade

CELL = 200
SUPERSAMPLING = 2
FROM_PALM = (0.0, 0.0)
FROM_LITTLE_SIDE = (-75.0, 0.0)
SKIN = (0.87, 0.68, 0.57)


def view_matrix(yaw: float, pitch: float) -> Tensor:
    """Rotation of the hand before the camera, degrees: yaw about the vertical, then pitch about the horizontal axis."""
    y, p = math.radians(yaw), math.radians(pitch)
    about_y = torch.tensor([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    about_x = torch.tensor([[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]])
    return about_x @ about_y


def picture(
    model: HandModel, pose: Tensor, shape: Tensor, view: tuple[float, float] = FROM_PALM, skeleton: bool = False
) -> Image.Image:
    """One hand on white, CELL pixels square, always at the same scale."""
    mesh = model(pose, shape)
    turn = view_matrix(*view)
    side = CELL * SUPERSAMPLING
    scale, middle = side / 0.26, torch.tensor([side * 0.5, side * 0.84, 0.0])
    vertices, joints = (points @ turn.T * scale + middle for points in mesh)
    lights = Lights(
        ambient=torch.full((3,), 0.30),
        directions=torch.nn.functional.normalize(torch.tensor([[-0.5, -0.6, -0.7], [0.8, 0.1, -0.5]]), dim=-1),
        colors=torch.tensor([[0.70] * 3, [0.18] * 3]),
    )
    colors = torch.tensor(SKIN).expand(len(vertices), 3)
    fragments = rasterise(vertices, model.faces, (side, side))
    rgb = shade(fragments, vertices, model.faces, lights=lights, colors=colors, background=1.0)
    image = Image.fromarray((rgb.clamp(0, 1) * 255).byte().numpy())
    if skeleton:
        draw = ImageDraw.Draw(image)
        for a, b in BONES:
            draw.line([tuple(joints[a, :2].tolist()), tuple(joints[b, :2].tolist())], fill=(30, 90, 200), width=3)
        for x, y in joints[:, :2].tolist():
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=(200, 30, 30))
    return image.resize((CELL, CELL), Image.Resampling.LANCZOS)


def sheet(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """A table of captioned pictures."""
    caption = 16
    result = Image.new("RGB", (CELL * max(map(len, rows)), (CELL + caption) * len(rows)), "white")
    draw = ImageDraw.Draw(result)
    for r, row in enumerate(rows):
        for c, (text, image) in enumerate(row):
            result.paste(image, (c * CELL, r * (CELL + caption) + caption))
            draw.text((c * CELL + 6, r * (CELL + caption) + 2), text, fill="black")
    return result


def draw_shapes(model: HandModel) -> Image.Image:
    names = OPEN_SHAPE_NAMES if model.name == "open" else [f"direction {i}" for i in range(10)]
    rows: list[list[tuple[str, Image.Image]]] = [[], [], [], []]
    for i, name in enumerate(names):
        for sign, row in ((-3, 0), (3, 1)):
            shape = torch.zeros(10)
            shape[i] = sign
            cell = (f"{name} {sign:+d} sigma", picture(model, torch.zeros(45), shape, skeleton=True))
            rows[row + 2 * (i >= 5)].append(cell)
    return sheet(rows)


def draw_limits(model: HandModel) -> Image.Image:
    """A row a finger: each joint at both flexion limits, the knuckle at both abduction limits, and all joints bent."""
    rows = []
    for first in (12, 0, 3, 9, 6):  # thumb, index, middle, ring, little
        finger = JOINT_NAMES[first + 1].split("_")[0]
        view = (-40.0, 0.0) if finger == "thumb" else FROM_LITTLE_SIDE
        row = []
        for j in range(first, first + 3):
            for limit in (model.limits_lower, model.limits_upper):
                row.append(_bent(model, {(j, 0): limit[j, 0]}, f"{JOINT_NAMES[j + 1]} flexion", view))
        for limit in (model.limits_lower, model.limits_upper):
            row.append(_bent(model, {(first, 1): limit[first, 1]}, f"{JOINT_NAMES[first + 1]} abduction", FROM_PALM))
        curl = {(j, 0): model.limits_upper[j, 0] for j in range(first, first + 3)}
        row.append(_bent(model, curl, f"{finger} curled", view, degrees=False))
        rows.append(row)
    return sheet(rows)


def _bent(
    model: HandModel, bends: dict[tuple[int, int], Tensor], text: str, view: tuple[float, float], degrees: bool = True
) -> tuple[str, Image.Image]:
    angles = torch.zeros(15, 3)
    for (joint, axis), value in bends.items():
        angles[joint, axis] = value
    if degrees:
        text += f" {math.degrees(next(iter(bends.values()))):+.0f}"
    return text, picture(model, anatomical_to_pose(angles, model), torch.zeros(10), view)


def draw_poses(model: HandModel) -> Image.Image:
    """Flat, relaxed and clenched, from four sides."""
    fist = torch.zeros(15, 3)
    fist[:12, 0] = torch.tensor([1.45, 1.70, 1.05]).repeat(4)
    fist[12:] = torch.tensor([[0.40, 0.20, 0.30], [0.50, 0.0, 0.0], [0.95, 0.0, 0.0]])
    poses = {"flat": torch.zeros(45), "relaxed": model.mean_pose, "fist": anatomical_to_pose(fist, model)}
    views = {"palm": (0.0, 0.0), "side": FROM_LITTLE_SIDE, "back": (180.0, 0.0), "above": (30.0, -50.0)}
    shape = torch.zeros(10)
    return sheet(
        [[(f"{p}, {v}", picture(model, x, shape, view)) for v, view in views.items()] for p, x in poses.items()]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hand", default="open", help="open, mano or the path of an .npz")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    model = HandModel.load(args.hand)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, draw in {"hand_shapes": draw_shapes, "hand_limits": draw_limits, "hand_poses": draw_poses}.items():
        path = args.out / f"{name}.jpg"
        draw(model).save(path, quality=82, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
