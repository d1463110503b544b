"""What each component of the paper is worth (its figure 5): the same training without it (docs/ablation.md)."""

ROW_NAMES = (
    "full",
    "no-refinement",
    "no-augmentation",
    "no-2d",
    "no-refiner",
    "no-shape",
    "constant",
)
"""The rows of `densehand ablate`, here so that the command line can name them without loading torch."""
