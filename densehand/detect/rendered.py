"""Rendered hands among the detector's training pictures.

A teacher labels the hands that it finds: photos know nothing of those which it does not, such as fists seen from the
side or fingers that point at the camera. Rendered ones show all of them alike.
"""

from dataclasses import replace

import cv2
import numpy as np
import torch

from densehand.detect.data import LabelledHand, Picture
from densehand.hand.model import HandModel
from densehand.synth import Synthesizer
from densehand.synth.config import WIDE

SIZE = 192  # px, side of a picture; the hand takes about half of it
# no hands but the labelled one; upright, for the composer turns them
CONFIG = replace(WIDE, other_behind=0.0, other_before=0.0, upright_share=0.75)
AT_ONCE = 32


def render_crops(number: int, backgrounds: list[Picture], seed: int = 0) -> list[Picture]:
    """``number`` pictures of source "rendered", each of one right hand before a background, with the hand's mask.

    The same seed and backgrounds give the same pictures. Raises ``InputError`` for a background that is no picture.
    """
    if number < 1:
        return []
    behind = None
    if backgrounds:
        side = 256
        pictures = [cv2.resize(p.decode(), (side, side), interpolation=cv2.INTER_AREA) for p in backgrounds]
        behind = torch.from_numpy(np.stack(pictures))
    maker = Synthesizer(HandModel.load("open"), behind, size=SIZE, seed=seed, config=CONFIG)
    made: list[Picture] = []
    while len(made) < number:
        records = maker.records(min(AT_ONCE, number - len(made)))
        points = ((records.keypoints + 1) * (SIZE / 2)).numpy()
        assert records.masks is not None
        for image, mask, keypoints in zip(records.images.numpy(), records.masks.numpy(), points, strict=True):
            encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
            soft = cv2.imencode(".png", cv2.GaussianBlur(mask, (0, 0), 0.8))[1].tobytes()
            made.append(Picture(encoded, "rendered", [LabelledHand(keypoints, right=True)], cutout=soft))
    return made
