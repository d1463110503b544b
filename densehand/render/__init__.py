"""Screen-space renderer: hard visibility, differentiable silhouettes and shading, batched, on CPU and GPU alike."""

from densehand.render.edges import EdgeTable, edge_table
from densehand.render.rasterise import Cull, Fragments, interpolate, interpolate_vertices, rasterise
from densehand.render.shade import Lights, Texture, face_normals, irradiance, sample_texture, shade, vertex_normals
from densehand.render.silhouette import silhouette

__all__ = [
    "Cull",
    "EdgeTable",
    "Fragments",
    "Lights",
    "Texture",
    "edge_table",
    "face_normals",
    "interpolate",
    "interpolate_vertices",
    "irradiance",
    "rasterise",
    "sample_texture",
    "shade",
    "silhouette",
    "vertex_normals",
]
