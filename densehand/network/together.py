"""Several networks as one (ours): each sees the crop, and the mean of what they say errs less than any of them."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densehand.errors import InputError
from densehand.network.calibration import Calibration
from densehand.network.estimator import DHPE, Estimate
from densehand.network.mesh import decode, encode, mean_mesh, skeleton_in_crop
from densehand.network.zoo import hand_fingerprint, open_model


class Together(nn.Module):
    """Networks of one hand model, in place of one `DHPE` wherever hands are estimated; not for training.

    Meshes are averaged in their parameters, keypoints by confidence, log-odds as they are. What has no mean, F and the
    crops' size, is the first network's. Scores' calibration is the mean of theirs.

    Raises InputError where the hand models differ or there is no network.
    """

    def __init__(self, networks: Sequence[DHPE]) -> None:
        super().__init__()
        if len({hand_fingerprint(network.hand) for network in networks}) != 1:
            raise InputError("networks of one hand model are needed to be taken together")
        self.networks = nn.ModuleList(networks)
        self.first = networks[0]
        self.hand, self.engine = self.first.hand, self.first.engine
        self.config = replace(self.first.config, name="+".join(network.config.name for network in networks))
        numbers = [asdict(network.calibration) for network in networks]
        self.calibration = Calibration(**{k: sum(n[k] for n in numbers) / len(numbers) for k in numbers[0]})

    def extract_features(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """See `DHPE.extract_features`."""
        return self.first.extract_features(images)

    def mesh(self, h: Estimate | Float[Tensor, "*b 63"]) -> tuple[Float[Tensor, "*b V 3"], Float[Tensor, "*b 21 3"]]:
        """See `DHPE.mesh`."""
        return self.first.mesh(h)

    def render_mask(self, h: Estimate | Float[Tensor, "*b 63"], size: int) -> Float[Tensor, "*b size size"]:
        """See `DHPE.render_mask`."""
        return self.first.render_mask(h, size)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Estimate:
        """The mean estimate; of the iterates, only the heat maps' j0 and what came last."""
        said = [network(images) for network in self.networks]

        def mean(name: str) -> Tensor:
            return torch.stack([getattr(one, name) for one in said]).mean(0)

        sure = torch.stack([one.keypoint_confidence for one in said])[..., None].clamp_min(1e-3)

        def skeleton(step: int) -> Tensor:
            return (torch.stack([one.keypoints[step] for one in said]) * sure).sum(0) / sure.sum(0)

        h = encode(mean_mesh(decode(torch.stack([one.parameters[-1] for one in said]))))
        mask_logits = mean("mask_logits")
        return Estimate(
            features=said[0].features,
            heatmaps=mean("heatmaps"),
            heatmap_logits=[torch.stack([one.heatmap_logits[-1] for one in said]).mean(0)],
            mask_logits=mask_logits,
            stage_mask_logits=[mask_logits],
            keypoints=[skeleton(0), skeleton(-1)],
            parameters=[h],
            skeletons=[skeleton_in_crop(self.hand, h)],
            keypoint_confidence=mean("keypoint_confidence"),
            side_logit=mean("side_logit"),
            hand_logit=mean("hand_logit"),
        )


def names_of(model: str) -> list[str]:
    """The networks that a model's name asks for: "A+B" is two, unless it is a file's."""
    return [model] if Path(model).is_file() else model.split("+")


def open_networks(model: str, device: str | torch.device = "cpu", precision: str = "auto") -> DHPE | Together:
    """A named model or weights file, or several of them joined by "+"; errors as of `zoo.open_model`, and where they do
    not go together.
    """
    networks = [open_model(name, device, precision=precision) for name in names_of(model)]
    return networks[0] if len(networks) == 1 else Together(networks).eval()
