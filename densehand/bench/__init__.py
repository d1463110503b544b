"""Measurements of speed, beside the peers where they are installed."""

CONTESTANTS = ("torch", "numba", "deodr", "rasterise", "shade")
"""Of `densehand bench render`: the silhouette by torch, numba and deodr; hard visibility alone, and with lit surfaces
(forward only)."""
