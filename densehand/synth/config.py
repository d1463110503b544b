"""What synthetic pictures are made of (`densehand/synth/sampler.py`), kept apart so that options need no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from densehand.errors import InputError
from densehand.options import option, updated


@dataclass(frozen=True)
class SynthConfig:
    """Shares of pictures with each thing, and ranges. anchor_share: poses drawn around known poses instead of families.

    Hands that grasp hold something more often than `object_share` says, others less. Each part can be switched off, so
    that what it does can be measured (docs/synth.md); hands, views and cameras stay the same for a seed where it is.
    """

    anchor_share: float = option(0.4, "Share of poses drawn around known ones instead of families of poses.", 0, 1)
    pose_spread: float = option(1.0, "How far poses lie around families and known poses, 1 as usual.", 0)
    free_share: float = option(0.0, "Share of hands of which some fingers, mostly the thumb, bend anyhow.", 0, 1)
    upright_share: float = option(0.45, "Share of hands with fingers roughly up; the others are turned anyhow.", 0, 1)
    view_share: float = option(0.0, "Share of hands seen about as known hands are, where views are given.", 0, 1)
    object_share: float = option(0.22, "Share of hands that hold something, about.", 0, 1)
    forearm: bool = option(True, "A forearm; else the hand ends at the wrist.")
    sleeve_share: float = option(0.55, "Share of forearms in a sleeve, about.", 0, 1)
    occluder_share: float = option(0.20, "Share of hands with something before them.", 0, 1)
    other_behind: float = option(0.22, "Share of pictures with another hand behind.", 0, 1)
    other_before: float = option(0.08, "Share of pictures with another hand before.", 0, 1)
    backdrop: bool = option(True, "Photos or made-up scenes and shapes behind the hand; else one colour.")
    environments: bool = option(True, "Light from environments; else even white light and a lamp.")
    skin_detail: bool = option(True, "Structure of skin, nails, creases, blush and bumps; else back and palm alone.")
    tones: tuple[float, float] = option((0.0, 1.0), "Skin tones, Fitzpatrick I (0) to VI (1): lightest and darkest.")
    nearest: float = option(0.3, "Least distance of the camera, metres.", 0.1)
    farthest: float = option(1.5, "Largest distance of the camera, metres.", 0.1)
    centre_jitter: float = option(0.08, "Largest shift of the crop, as a share of its side.", 0, 1)
    zoom: tuple[float, float] = option((0.85, 1.25), "Side of the crop over 1.5 × the hand's box: least and most.")
    photograph: bool = option(True, "Blur, noise, JPEG and a camera's colours.")
    phone_share: float = option(0.0, "Share of photographs smoothed, sharpened and shaded as by phones.", 0, 1)

    def check(self) -> None:
        """Raise InputError where a value is of another kind than its default's, out of its range, or a range is empty.

        Made by hand, a configuration is not checked; `Synthesizer` does it.
        """
        updated(SynthConfig(), {f.name: getattr(self, f.name) for f in fields(self)}, "synthesis")
        for name, (low, high) in {"tones": self.tones, "zoom": self.zoom}.items():
            if not 0.0 <= low <= high:
                raise InputError(f"synthesis: {name} = {low}, {high}, but it must be two numbers from 0, rising")
        if self.tones[1] > 1.0:
            raise InputError(f"synthesis: tones = {self.tones[0]}, {self.tones[1]}, but 1 is the darkest")
        if self.nearest > self.farthest:
            raise InputError(f"synthesis: nearest = {self.nearest} lies beyond farthest = {self.farthest}; swap them")


FREE_SHARE = 0.3
"""What learns from rendered hands sees so many with free fingers; what is measured on them keeps to usual poses."""

# for pictures that are cut, turned and zoomed anew each time they are used: larger than a crop
WIDE = SynthConfig(zoom=(1.15, 1.45), free_share=FREE_SHARE)
