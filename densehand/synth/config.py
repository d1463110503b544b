"""What synthetic pictures are made of (`densehand/synth/sampler.py`), kept apart so that options need no torch."""

from __future__ import annotations

from dataclasses import dataclass

from densehand.options import option


@dataclass(frozen=True)
class SynthConfig:
    """Shares of pictures with each thing, and ranges. anchor_share: poses drawn around known poses instead of families.

    Hands that grasp hold something more often than `object_share` says, others less.
    """

    anchor_share: float = option(0.4, "Share of poses drawn around known ones instead of families of poses.", 0, 1)
    object_share: float = option(0.22, "Share of hands that hold something, about.", 0, 1)
    occluder_share: float = option(0.20, "Share of hands with something before them.", 0, 1)
    other_behind: float = option(0.22, "Share of pictures with another hand behind.", 0, 1)
    other_before: float = option(0.08, "Share of pictures with another hand before.", 0, 1)
    nearest: float = option(0.3, "Least distance of the camera, metres.", 0.1)
    farthest: float = option(1.5, "Largest distance of the camera, metres.", 0.1)
    centre_jitter: float = option(0.08, "Largest shift of the crop, as a share of its side.", 0, 1)
    zoom: tuple[float, float] = option((0.85, 1.25), "Side of the crop over 1.5 × the hand's box: least and most.")
    photograph: bool = option(True, "Blur, noise, JPEG and a camera's colours.")


# for pictures that are cut, turned and zoomed anew each time they are used: larger than a crop
WIDE = SynthConfig(zoom=(1.15, 1.45))
