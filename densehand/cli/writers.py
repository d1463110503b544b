"""Writing the outputs of one photo: NAME.json, NAME.overlay.jpg, NAME.<k>.glb and so on, k counting hands from 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from densehand.result import Hand

FORMATS = ("json", "overlay", "glb", "obj", "npz", "mask", "depth")
DEFAULT_FORMATS = "json,overlay"


def write_outputs(
    folder: Path,
    name: str,
    formats: Sequence[str],
    document: dict[str, Any],
    hands: Sequence[Hand],
    image: np.ndarray | None,
) -> None:
    """Write the formats asked for; the JSON goes last, so that where it is, the rest is too.

    Args:
        folder: existing output folder.
        name: the photo's output name.
        formats: some of `FORMATS`.
        document: of `densehand.document.document`.
        hands: the hands of the document.
        image: the photo; needed for "overlay" only.
    """
    from densehand import export

    size = document["height"], document["width"]
    for k, hand in enumerate(hands):
        for kind in formats:
            if kind == "glb":
                export.write_glb(folder / f"{name}.{k}.glb", hand)
            elif kind == "obj":
                export.write_obj(folder / f"{name}.{k}.obj", hand)
            elif kind == "npz":
                export.write_npz(folder / f"{name}.{k}.npz", hand)
            elif kind == "mask":
                export.write_mask(folder / f"{name}.{k}.mask.png", hand, size)
            elif kind == "depth":
                export.write_depth(folder / f"{name}.{k}.depth.png", hand, size)
    if "overlay" in formats and image is not None:
        from densehand.draw import draw_overlay

        export.write_picture(folder / f"{name}.overlay.jpg", draw_overlay(image, hands))
    if "json" in formats:
        export.write_json(folder / f"{name}.json", document)
