"""Screen-space renderer: hard visibility, differentiable silhouettes and shading, batched, on CPU and GPU alike."""

from densehand.render.rasterise import Cull, Fragments, interpolate, interpolate_vertices, rasterise

__all__ = ["Cull", "Fragments", "interpolate", "interpolate_vertices", "rasterise"]
