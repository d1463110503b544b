"""Figures others published (their own, on the sets named), to stand beside measured ones."""

from __future__ import annotations

PUBLISHED_FREIHAND: tuple[tuple[str, float | None, float | None], ...] = (
    ("Boukhayma et al. 2019", None, 13.2),
    ("FreiHAND baseline (Zimmermann et al. 2019)", 11.0, 10.9),
    ("MobRecon (Chen et al. 2022)", 5.7, 5.9),
    ("HaMeR (Pavlakos et al. 2024)", 6.0, 5.7),
    ("WiLoR (Potamias et al. 2025)", 5.5, 5.1),
)
"""FreiHAND, as published: method, PA-MPJPE and PA-MPVPE in mm."""

PUBLISHED_AUC: tuple[tuple[str, float | None, float | None], ...] = (
    ("Zimmermann and Brox 2017", 0.675, 0.948),
    ("Spurr et al. 2018", 0.849, 0.983),
    ("Cai et al. 2018", 0.887, 0.994),
    ("Ge et al. 2019", 0.92, 0.998),
    ("DHPE (Baek et al. 2019)", 0.926, 0.995),
)
"""AUC 20–50 mm, as published: method, on RHD, on STB."""
