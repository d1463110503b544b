"""Pictures of hands made from the hand model, with every label, on the training device."""

from typing import TYPE_CHECKING, Any

from densehand.synth.config import SynthConfig

if TYPE_CHECKING:
    from densehand.synth.batch import SynthBatch
    from densehand.synth.sampler import Synthesizer

__all__ = ["SynthBatch", "SynthConfig", "Synthesizer"]


def __getattr__(name: str) -> Any:
    """The synthesizer, imported when it is first asked for: the command line's options need no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from densehand.synth import batch, sampler

    return getattr(batch if name == "SynthBatch" else sampler, name)
