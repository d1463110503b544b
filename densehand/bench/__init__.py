"""Measurements of speed, beside the peers where they are installed."""
