"""Hands in a full photo: boxes, sides and scores (a one-stage detector without anchors; see docs/detector.md)."""

from densehand.detect.detector import Detection, Detector
from densehand.detect.model import DetectorNet

__all__ = ["Detection", "Detector", "DetectorNet"]
