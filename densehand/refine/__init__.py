"""Testing refinement (paper, section 3.4): estimates drawn to their 2D evidence without labels (docs/refinement.md)."""
