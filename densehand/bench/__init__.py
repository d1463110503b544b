"""Measurements of speed, beside the peers where they are installed."""

CONTESTANTS = ("torch", "numba", "deodr", "soft", "rasterise", "shade")
"""Of `densehand bench render`: the silhouette by torch, numba and deodr, and a soft one for reference; hard visibility
alone, and with lit surfaces (forward only)."""
