"""Random numbers for a batch of pictures."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Draw:
    """Random numbers for n pictures from one generator on its device, of the number type given."""

    def __init__(self, n: int, generator: torch.Generator, dtype: torch.dtype | None = None):
        self.n, self.generator, self.device, self.dtype = n, generator, generator.device, dtype

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        share = torch.rand(self.n, *shape, generator=self.generator, device=self.device, dtype=self.dtype)
        return share * (high - low) + low

    def gauss(self, scale: float, *shape: int) -> Tensor:
        return torch.randn(self.n, *shape, generator=self.generator, device=self.device, dtype=self.dtype) * scale

    def index(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, (self.n, *shape), generator=self.generator, device=self.device)

    def colour(self) -> Float[Tensor, "n 3"]:
        """sRGB of made things: greys and darks as often as saturated colours."""
        grey = self.uniform(0.04, 0.96, 1)
        vivid = self.uniform(0.0, 1.0, 3)
        return torch.lerp(grey.expand(-1, 3), vivid, self.uniform(0.0, 1.0, 1).square())
