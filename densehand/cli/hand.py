"""`densehand hand`: the hand model, and bringing one's own."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The hand model: facts, and the import of your own MANO file.", no_args_is_help=True)
    group.command("info")(info)
    group.command("import-mano")(import_mano)
    app.add_typer(group, name="hand")


def info(
    hand: str = typer.Option("open", help="open, mano (your own, imported) or FILE.npz."),
    limits: bool = typer.Option(False, "--limits", help="Also list each joint's limits in degrees."),
) -> None:
    """Print the facts of a hand model.

    [b]Example:[/b] densehand hand info --hand open --limits
    """
    import numpy as np
    import torch

    from densehand.hand import HandModel
    from densehand.hand.keypoints import JOINT_NAMES

    model = HandModel.load(hand)
    flat = model.skeleton(torch.zeros(45), torch.zeros(10))
    finger = torch.linalg.vector_norm(flat[[10, 11, 12]] - flat[[9, 10, 11]], dim=-1).sum()
    palm = torch.linalg.vector_norm(flat[9] - flat[0])
    lines = {
        "name": model.name,
        "mesh": f"{len(model.template)} vertices, {len(model.faces)} triangles",
        "texture": f"{len(model.uv)} UV points" if len(model.uv) else "no UVs",
        "pose": f"{len(model.parents) - 1} joints × axis-angle = 45 numbers",
        "pose blend shapes": "yes" if model.pose_dirs.shape[-1] else "no",
        "shape": f"{model.shape_dirs.shape[-1]} directions (standard deviations)",
        "length": f"wrist to middle fingertip {(palm + finger) * 1000:.0f} mm, to its knuckle {palm * 1000:.0f} mm",
    }
    for name, value in lines.items():
        typer.echo(f"{name + ':':<20}{value}")
    if limits:
        typer.echo(f"\n{'joint':<12}{'flexion':>14}{'abduction':>14}{'twist':>14}   degrees")
        lower, upper = (np.rad2deg(v.numpy()) for v in (model.limits_lower, model.limits_upper))
        for joint, low, high in zip(JOINT_NAMES[1:], lower, upper, strict=True):
            cells = (f"{a:.0f} … {b:.0f}" for a, b in zip(low, high, strict=True))
            typer.echo(f"{joint:<12}" + "".join(f"{cell:>14}" for cell in cells))


def import_mano(
    file: Path = typer.Argument(..., metavar="MANO_RIGHT.pkl", help="The official file, from your own copy of MANO."),
    out: Path = typer.Option(
        None, "--out", "-o", metavar="FILE.npz", help="Where to store it; default: your data folder."
    ),
) -> None:
    """Read the official MANO file, without running code from it, and store it for --hand mano.

    MANO is not part of densehand and has its own licence (https://mano.is.tue.mpg.de); the stored file stays on your
    machine.

    [b]Example:[/b] densehand hand import-mano mano_v1_2/models/MANO_RIGHT.pkl
    """
    from densehand.hand import mano

    stored = mano.import_mano(file, out)
    typer.echo(f"stored {stored}; use it with --hand {'mano' if out is None else stored}")
