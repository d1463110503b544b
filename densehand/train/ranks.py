"""What one process of several must know of the others; a lone process is rank 0 of 1 and talks to nobody."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from jaxtyping import Bool, Int
from torch import Tensor


def joined() -> bool:
    """Whether processes train together (the group is made by Lightning when a run starts)."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if joined() else 0


def world() -> int:
    return dist.get_world_size() if joined() else 1


def launched(devices: int, nodes: int) -> tuple[int, int]:
    """Processes a machine and machines: torchrun's count where it started this process, else as given."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return devices, nodes
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return here, int(os.environ["WORLD_SIZE"]) // here


def local_rank() -> int:
    """Which process of its machine this is, as its launcher says; the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def total(value: Tensor) -> Tensor:
    """The sum over all processes (no gradient flows through it)."""
    if world() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def everywhere(condition: Tensor) -> bool:
    """Whether a condition (one boolean) holds in every process, so that all stop or none."""
    return bool(condition) if world() == 1 else int(total(condition.int())) == world()


def spread_rows(usable: Bool[Tensor, " b"], share: float) -> tuple[Int[Tensor, " k"], int]:
    """This process's rows of a `share` (at least one row) of the whole batch, and how many rows that is in all.

    They are taken from the usable rows at even distances, so that every kind of picture has its part. The whole batch
    has row i of process r at i · world + r (as `BatchStream` deals it out).
    """
    count = world()
    everyone = usable
    if count > 1:
        parts = [torch.empty_like(usable, dtype=torch.uint8) for _ in range(count)]
        dist.all_gather(parts, usable.to(torch.uint8))
        everyone = torch.stack(parts, 1).flatten() > 0
    chosen = torch.nonzero(everyone).flatten()
    wanted = max(1, round(len(everyone) * share))
    if wanted < len(chosen):
        chosen = chosen[torch.arange(wanted, device=chosen.device) * len(chosen) // wanted]
    return chosen[chosen % count == rank()] // count, len(chosen)
