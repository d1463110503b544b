"""densehand: full 3D hands from an ordinary photo."""

