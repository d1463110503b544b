"""Pictures of hands made from the hand model, with every label, on the training device."""

from densehand.synth.sampler import SynthBatch, SynthConfig, Synthesizer

__all__ = ["SynthBatch", "SynthConfig", "Synthesizer"]
