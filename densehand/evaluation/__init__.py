"""Measuring: a dataset's samples → what a system says of them → errors → `densehand.report` (docs/evaluate.md)."""
