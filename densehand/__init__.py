"""densehand: full 3D hands from an ordinary photo.

import densehand
from densehand.images import read_image

estimator = densehand.load("dhpe-lite")
hands = estimator(read_image("photo.jpg"))      # list[densehand.Hand]
hands[0].vertices, hands[0].joints_3d, hands[0].mask((480, 640))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from densehand.errors import DensehandError

if TYPE_CHECKING:
    from pathlib import Path

    # imported on first use, so that `import densehand` and the command line's help stay quick
    from densehand.photo import HandBox
    from densehand.pipeline import HandEstimator
    from densehand.result import Hand

__version__ = "0.1.0"
__all__ = ["DensehandError", "Hand", "HandBox", "HandEstimator", "__version__", "load"]


def load(model: str | Path = "dhpe-lite", **options: Any) -> HandEstimator:
    """An estimator with packaged weights: `load(name)(image)` gives the hands of an H×W×3 uint8 RGB picture.

    Args:
        model: a name that `densehand models` lists, or the path of a weights file.
        options: passed on to `HandEstimator` (detector, device, refine, focal, batch, hand, consensus,
            precision).

    Errors:
        InputError: unknown model, device or precision. WeightsError: its weights are missing or damaged.
    """
    from densehand.pipeline import HandEstimator

    return HandEstimator(model, **options)


def __getattr__(name: str) -> Any:
    if name == "Hand":
        from densehand.result import Hand

        return Hand
    if name == "HandBox":
        from densehand.photo import HandBox

        return HandBox
    if name == "HandEstimator":
        from densehand.pipeline import HandEstimator

        return HandEstimator
    raise AttributeError(f"module 'densehand' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
