"""A better model for a user's own photos, without labels: `densehand adapt` (docs/adapt.md)."""

from densehand.adapt.run import AdaptConfig, AdaptReport, adapt

__all__ = ["AdaptConfig", "AdaptReport", "adapt"]
