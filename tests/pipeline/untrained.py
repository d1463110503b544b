"""An untrained network that behaves like a trained one, and a picture for it: for tests of the pipeline."""

from dataclasses import replace

import numpy as np
import torch

from densehand.camera import SHOWN, Crop
from densehand.detect import Detection
from densehand.network.config import CONFIGS
from densehand.network.zoo import build_model
from densehand.resample import crop_image

BOX = (60.0, 40.0, 150.0, 160.0)


def shown(box, mirrored: bool = False) -> Crop:
    """What the network is shown of a box."""
    return Crop.from_box(box, mirrored=mirrored).times(SHOWN)


def waves() -> np.ndarray:
    """Smooth colours that are nowhere symmetric."""
    y, x = np.mgrid[0:200, 0:280]
    colours = [np.sin(x / 17 + y / 31), np.cos(x / 23 - y / 13), np.sin(x * y / 4000)]
    return (127 + 120 * np.stack(colours, axis=-1)).astype(np.uint8)


def untrained(image):
    """An untrained network whose answers are of a trained one's size and depend on the picture."""
    torch.manual_seed(4)
    model = build_model(
        replace(CONFIGS["dhpe-lite"], corrector=0, side_corrector=0)
    ).eval()  # untrained, it would change nothing
    crops = [Crop((x, 100.0), 60.0, flip) for x in (70.0, 140.0, 210.0) for flip in (False, True)]
    looks = [crop_image(image, crop, 224) for crop in crops]
    with torch.no_grad():
        features = model.extract_features(torch.from_numpy(np.stack(looks)).permute(0, 3, 1, 2).float() / 255)
        width, size = features.shape[1], features.norm(dim=1).mean()
        for head, spread in ((model.side_head, 2.0), (model.hand_head, 0.5)):
            head.weight.normal_()
            logits = features @ head.weight[0]
            head.weight *= spread / logits.std()
            head.bias[:] = -logits.mean() * spread / logits.std()
        for layer, spread in ((model.regressor.f_e3d, 0.1), (model.regressor.f_ref, 0.03)):
            layer.weight[:, :width].normal_().mul_(spread / size)
    return model


def any_score(monkeypatch):
    """Every detection counts as a hand, whatever the untrained network says of it."""
    for name in ("pipeline.MIN_SCORE", "looks.MIN_SCORE", "looks.MIN_DOUBTFUL"):
        monkeypatch.setattr(f"densehand.{name}", 0)


class StandInDetector:
    """A detector that finds the same in any photo, and `closer` where it looks closer."""

    def __init__(self, *detections: Detection, closer: tuple[Detection, ...] = ()):
        self.detections, self.closer = detections, closer

    def __call__(self, image) -> list[Detection]:
        return list(self.detections)

    def look_closer(self, image, after) -> list[Detection]:
        return list(self.closer)
