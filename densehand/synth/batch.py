"""`SynthBatch`: synthetic pictures and their labels, as `Synthesizer.sample` gives them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass
class SynthBatch:
    """n pictures of right hands, S×S, and their labels; crop units are docs/architecture.md's (centre 0, edges ±1).

    images: sRGB in [0, 1]. keypoints: true perspective projections, may lie outside the crop. parameters: h, such that
    `scale · R · X + t` is the best weak-perspective fit to the keypoints, the wrist at z = 0. skeleton: that fit's 21
    points. mask: the hand's surface up to the wrist as seen, without what covers it; mask_full: as if nothing but
    itself did. depth: metres from the camera's plane on `mask`, 0 elsewhere. visible: neither covered nor outside the
    crop. camera_distance: camera to the middle of the keypoints, metres. family: see `poses.FAMILIES` (their number: an
    anchor pose). tone: 0 (Fitzpatrick I) to 1 (VI).
    """

    images: Float[Tensor, "n 3 s s"]
    keypoints: Float[Tensor, "n 21 2"]
    skeleton: Float[Tensor, "n 21 3"]
    parameters: Float[Tensor, "n 63"]
    pose: Float[Tensor, "n 45"]
    shape: Float[Tensor, "n 10"]
    rotation: Float[Tensor, "n 4"]
    scale: Float[Tensor, " n"]
    translation: Float[Tensor, "n 3"]
    mask: Bool[Tensor, "n s s"]
    mask_full: Bool[Tensor, "n s s"]
    depth: Float[Tensor, "n s s"]
    visible: Bool[Tensor, "n 21"]
    camera_distance: Float[Tensor, " n"]
    family: Tensor
    tone: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.images)
