"""Ranges of the augmentation (`densehand/data/augment.py`), kept apart so that the command line needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from densehand.options import option


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the augmentation. Angles in degrees, lengths as shares of the crop.

    upright: share of samples whose palm is turned upright first; rotation: standard deviation of the in-plane turn;
    any_rotation: share of samples turned by any angle.
    backdrop: share of real hands of known outline shown before another background (where hand-free pictures are given).
    flip: share shown as the other hand (only side, 2D and mask losses see them).
    """

    upright: float = option(0.0, "Share of hands turned upright first, as `densehand predict` shows them.", 0, 1)
    rotation: float = option(25.0, "Standard deviation of the turn in the picture, degrees.", 0)
    any_rotation: float = option(0.25, "Share of pictures turned by any angle.", 0, 1)
    zoom: tuple[float, float] = option((0.85, 1.25), "Side of the crop over 1.5 × the hand's box: least and most.")
    shift: float = option(0.08, "Largest shift of the crop, as a share of its side.", 0, 1)
    flip: float = option(0.15, "Share shown as the other hand; only side, 2D and mask terms look at them.", 0, 1)
    colour: float = option(1.0, "Strength of changes of light and colour.", 0)
    blur: float = option(0.25, "Share of pictures that lose resolution.", 0, 1)
    resolution: tuple[float, float] = option((0.25, 0.6), "Resolution they keep, as a share: least, most.", 0.05, 1)
    motion: float = option(0.0, "Share of pictures blurred by motion.", 0, 1)
    noise: float = option(0.3, "Share of pictures with noise.", 0, 1)
    occluder: float = option(0.25, "Share of pictures of which an ellipse is covered.", 0, 1)
    grey: float = option(0.05, "Share of pictures without colour.", 0, 1)
    backdrop: float = option(0.0, "Share of real hands of known outline put before another background.", 0, 1)


# for the last part of a training: crops as badly centred and sized as a detector's boxes can be
WIDE_CROPS = Augmentation(zoom=(0.7, 1.35), shift=0.14, any_rotation=0.3)
