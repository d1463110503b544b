"""Screen-space renderer: hard visibility, differentiable silhouettes and shading, batched, on CPU and GPU alike."""

from densehand.render.rasterise import Cull, Fragments, interpolate, interpolate_vertices, rasterise
from densehand.render.shade import Lights, Texture, face_normals, irradiance, sample_texture, shade, vertex_normals

__all__ = [
    "Cull",
    "Fragments",
    "Lights",
    "Texture",
    "face_normals",
    "interpolate",
    "interpolate_vertices",
    "irradiance",
    "rasterise",
    "sample_texture",
    "shade",
    "vertex_normals",
]
