"""The training step as a Lightning module: the terms of `densehand.losses` on one batch, optimiser, averages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from densehand import losses
from densehand.camera import ERROR_CROP
from densehand.data.records import TrainingBatch
from densehand.network.mesh import decode
from densehand.train import ranks
from densehand.train.checkpoints import DivergedError, advice
from densehand.train.config import TrainConfig

if TYPE_CHECKING:
    from densehand.network.estimator import DHPE, Estimate
    from densehand.train.stream import BatchStream


def objective(
    network: DHPE, estimate: Estimate, batch: TrainingBatch, config: TrainConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the mean of each of its terms. Estimate and batch are of the same pictures."""
    w = config.weights
    terms: dict[str, Tensor] = {}
    skeletons, robust = estimate.skeletons, w.robust

    def over_iterates(values: list[Tensor], papers: float) -> Tensor:
        """The last counts fully, the iterates before it, only stepping stones, less: in the paper `papers`."""
        earlier = torch.stack(values[:-1]).sum(0) if len(values) > 1 else 0.0
        return (0.3 if robust else papers) * earlier + values[-1]

    terms["articulation"] = (
        over_iterates([losses.articulation(y, batch.skeleton, robust) for y in skeletons], 0.0) * batch.trust
    )
    terms["projection"] = over_iterates(
        [losses.keypoints_2d(y[..., :2], batch.keypoints, batch.keypoint_weight, robust) for y in skeletons], 0.0
    ) * (batch.is_right > 0)
    first, *refined = estimate.keypoints
    terms["refiner"] = over_iterates(
        [losses.keypoints_2d(j, batch.keypoints, batch.keypoint_weight, robust) for j in refined], 1.0
    ) * (batch.is_right > 0)
    terms["coordinates"] = losses.keypoints_2d(first, batch.keypoints, batch.keypoint_weight, robust)
    activation = network.config.heatmap_activation
    terms["heatmaps"] = mean_of(
        [losses.heatmaps(maps, batch.keypoints, batch.keypoint_weight, activation) for maps in estimate.heatmap_logits]
    )

    labels = batch.pose, batch.shape, batch.rotation, batch.trust
    terms |= losses.hand_parameters(decode(estimate.parameters[-1]), *labels, robust)
    terms["shape_prior"] = terms["shape_prior"] * (batch.is_right > 0)
    terms["side"] = losses.yes_no(estimate.side_logit, batch.is_right, batch.has_hand * side_balance(batch))
    terms["hand"] = losses.yes_no(estimate.hand_logit, batch.has_hand, torch.ones_like(batch.has_hand))
    terms["mask"] = mean_of(
        [losses.mask_head(logits, batch.mask, batch.has_mask) for logits in estimate.stage_mask_logits]
    )
    if w.features or w.shape or w.laplacian:
        terms |= mask_terms(network, estimate, batch, config)
    total = sum(getattr(w, name) * value.mean() for name, value in terms.items() if getattr(w, name))
    return total, {name: value.detach().mean() for name, value in terms.items()}


def mean_of(values: list[Tensor]) -> Tensor:
    """Mean over stages of one number a sample."""
    return torch.stack(values).mean(0)


def side_balance(batch: TrainingBatch) -> Tensor:
    """Weights that make right and mirrored hands count alike, whatever their shares in the whole batch."""
    right = ranks.total((batch.is_right * batch.has_hand).sum())
    other = ranks.total(((1 - batch.is_right) * batch.has_hand).sum())
    half = (right + other) / 2
    return torch.where(batch.is_right > 0, half / right.clamp_min(1), half / other.clamp_min(1))


def mask_terms(network: DHPE, estimate: Estimate, batch: TrainingBatch, config: TrainConfig) -> dict[str, Tensor]:
    """L_Feat, L_Sh with hierarchical λ, and L_Lap, on `mask_terms_share` of the pictures, such as have a mask."""
    w = config.weights
    chosen, in_all = ranks.spread_rows(batch.has_mask & (batch.is_right > 0), config.mask_terms_share)
    zeros = estimate.features.new_zeros(1)
    terms = {"features": zeros, "shape": zeros, "laplacian": zeros}
    if w.features and in_all:
        # every process looks, be it at what does not count: batch norms over processes wait for each other
        mine = chosen if len(chosen) else slice(1)
        with kept_statistics(network.evidence):
            foreground = network.extract_features(batch.images[mine] * batch.mask[mine, None])
        terms["features"] = losses.features(estimate.features[mine], foreground) * (len(chosen) > 0)
    if not len(chosen):
        return terms
    if w.shape or w.laplacian:
        h, skeleton = estimate.parameters[-1][chosen], estimate.skeletons[-1][chosen]
        if w.shape:
            rendered = network.render_mask(h, batch.mask.shape[-1])
            weight = losses.hierarchical_weight(skeleton, batch.keypoints[chosen], batch.keypoint_weight[chosen])
            terms["shape"] = losses.shape(rendered, batch.silhouette[chosen]) * (weight if w.hierarchical else 1.0)
        if w.laplacian:
            hand = network.hand
            vertices = network.mesh(h)[0] / decode(h).scale[:, None, None]
            terms["laplacian"] = losses.laplacian(vertices, losses.mesh_edges(hand.faces), hand.template)
    if ranks.world() > 1:  # the mean over processes is to be the mean over all chosen pictures
        terms = {name: value * (len(chosen) * ranks.world() / in_all) for name, value in terms.items()}
    return terms


def averaging(decay: float) -> Callable[..., None]:
    """A running average of what is a number; indices, such as a mesh's faces, are no such thing and are copied."""
    average = get_ema_multi_avg_fn(decay)

    def update(old: Sequence[Tensor], new: Sequence[Tensor], count: Any) -> None:
        if old[0].is_floating_point():  # torch gives tensors of one type at a time
            average(old, new, count)
        else:
            for mine, theirs in zip(old, new, strict=True):
                mine.copy_(theirs)

    return update


@contextmanager
def kept_statistics(network: torch.nn.Module) -> Iterator[None]:
    """Batch norms in here leave their running statistics as they are: hands before black are not what will be seen."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class Training(lightning.LightningModule):
    """Network, its running average (EMA), and the stream of batches. Batches are made from the step number."""

    def __init__(self, network: DHPE, stream: BatchStream, config: TrainConfig):
        super().__init__()
        self.network, self.stream, self.config = network, stream, config
        self.average = AveragedModel(network, multi_avg_fn=averaging(config.ema), use_buffers=True)
        self.average.requires_grad_(False)  # else several processes would wait for its gradients
        self.train()

    def train(self, mode: bool = True) -> Training:
        super().train(mode)
        if self.config.freeze_batchnorm:
            for layer in self.network.modules():
                if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        return self

    def training_step(self, *_: Any) -> Tensor:
        config, step = self.config, self.global_step
        with torch.no_grad():
            batch = self.stream.batch(step)
        images = batch.images.contiguous(memory_format=torch.channels_last) if config.channels_last else batch.images
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=config.bf16):
            estimate = self.network(images)
        loss, terms = objective(self.network, estimate, batch, config)
        if not ranks.everywhere(torch.isfinite(loss)):
            raise self._diverged(step, f"the loss is {float(loss.detach())}")
        error = (estimate.skeletons[-1][..., :2] - batch.keypoints).norm(dim=-1)
        known = (batch.keypoint_weight > 0) & (batch.is_right > 0)[:, None]
        heat = (estimate.keypoints[0] - batch.keypoints).norm(dim=-1)
        pixels = ERROR_CROP / 2
        self.log_dict(
            {f"train/{k}": v for k, v in terms.items()}
            | {
                "train/loss": loss.detach(),
                "train/mesh_px224": error[known].mean().detach() * pixels,
                "train/heat_px224": heat[known].mean().detach() * pixels,
            }
        )
        return loss

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        # the average moves with the weights: a checkpoint is written before any later hook of the module is called
        super().optimizer_step(*arguments, **options)
        self.average.update_parameters(self.network)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip by norm; a norm that is no number stops the run before it reaches the weights."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip or math.inf)
        if not torch.isfinite(norm):
            raise self._diverged(self.global_step, f"the gradient's norm is {float(norm)}")
        self.log("train/gradient_norm", norm)

    def _diverged(self, step: int, what: str) -> DivergedError:
        return DivergedError(f"{what} at step {step}; {advice(Path(self.config.out) / 'last.ckpt')}")

    def configure_optimizers(self) -> Any:
        config = self.config
        decayed = [p for p in self.network.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=config.lr, fused=True)

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, config.warmup))
            cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, config.steps))))
            return warm * (config.final_lr + (1 - config.final_lr) * cosine)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
