"""Writing the outputs of one photo: NAME.json, NAME.overlay.jpg, NAME.<k>.glb and so on, k counting hands from 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from densehand.result import Hand

PER_HAND = {"glb": ".glb", "obj": ".obj", "npz": ".npz", "mask": ".mask.png", "depth": ".depth.png"}
FORMATS = ("json", "overlay", *PER_HAND)
DEFAULT_FORMATS = "json,overlay"


def write_outputs(
    folder: Path,
    name: str,
    formats: Sequence[str],
    document: dict[str, Any],
    hands: Sequence[Hand],
    image: np.ndarray | None,
) -> None:
    """Write the formats asked for; the JSON goes last, so that where it is, the rest is too. Files of these formats
    that an earlier run wrote of hands that are no more are removed.

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
    for kind, suffix in PER_HAND.items():
        if kind not in formats:
            continue
        write, more = getattr(export, f"write_{kind}"), (size,) if kind in ("mask", "depth") else ()
        for k, hand in enumerate(hands):
            write(folder / f"{name}.{k}{suffix}", hand, *more)
        k = len(hands)
        while (stale := folder / f"{name}.{k}{suffix}").is_file():  # an earlier run found more hands
            stale.unlink()
            k += 1
    if "overlay" in formats and image is not None:
        from densehand.draw import draw_overlay

        export.write_picture(folder / f"{name}.overlay.jpg", draw_overlay(image, hands))
    if "json" in formats:
        export.write_json(folder / f"{name}.json", document)
