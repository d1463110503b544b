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
    from densehand.hand import HandModel
    from densehand.hand.info import describe

    facts = describe(HandModel.load(hand))
    knuckle, tip = facts["wrist_to_middle_knuckle_mm"], facts["wrist_to_middle_tip_mm"]
    uvs, names = facts["texture_coordinates"], ", ".join(facts["shape_names"])
    lines = {
        "name": facts["name"],
        "mesh": f"{facts['vertices']} vertices, {facts['faces']} triangles, {'' if facts['closed'] else 'not '}closed",
        "texture": f"{uvs} UV points" if uvs else "no UVs",
        "pose": f"{facts['joints'] - 1} joints × axis-angle = {facts['pose']} numbers",
        "pose blend shapes": "yes" if facts["pose_correctives"] else "no",
        "shape": f"{facts['shape']} directions (standard deviations)" + (f": {names}" if names else ""),
        "length": f"wrist to middle fingertip {tip:.0f} mm, to its knuckle {knuckle:.0f} mm",
    }
    for name, value in lines.items():
        typer.echo(f"{name + ':':<20}{value}")
    if limits:
        typer.echo(f"\n{'joint':<12}{'flexion':>14}{'abduction':>14}{'twist':>14}   degrees")
        for joint, (low, high) in facts["limits_degrees"].items():
            cells = (f"{a} … {b}" for a, b in zip(low, high, strict=True))
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
