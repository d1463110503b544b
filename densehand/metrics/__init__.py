"""The field's measures, in numpy: what `evaluate` and the benchmarks report. Definitions and sources: docs/metrics.md.

Average precision of the detector lives with it, in `detect/evaluate.py`.
"""

from densehand.metrics.calibration import (
    Reliability,
    auroc,
    brier_score,
    expected_calibration_error,
    false_alarms,
    reliability,
)
from densehand.metrics.consistency import (
    CROP_PADDINGS,
    Consistency,
    crop_consistency,
    palm_frame,
    view_consistency,
)
from densehand.metrics.keypoints import (
    THRESHOLDS_0_50,
    THRESHOLDS_20_50,
    THRESHOLDS_FREIHAND,
    EndPointError,
    area_under_curve,
    auc,
    box_normalised_error,
    end_point_error,
    keypoint_error,
    pck,
)
from densehand.metrics.regions import MaskScores, box_iou, mask_iou, mask_scores, side_accuracy, tight_box
from densehand.metrics.sequences import acceleration_error, jitter
from densehand.metrics.shape import (
    MIDDLE_PROXIMAL,
    WRIST_TO_MIDDLE,
    Similarity,
    bone_ratio,
    f_scores,
    fit_similarity,
    pa_mpjpe,
    pa_mpvpe,
    procrustes_align,
    root_relative_error,
    scaled_error,
)

__all__ = [
    "CROP_PADDINGS",
    "MIDDLE_PROXIMAL",
    "THRESHOLDS_0_50",
    "THRESHOLDS_20_50",
    "THRESHOLDS_FREIHAND",
    "WRIST_TO_MIDDLE",
    "Consistency",
    "EndPointError",
    "MaskScores",
    "Reliability",
    "Similarity",
    "acceleration_error",
    "area_under_curve",
    "auc",
    "auroc",
    "bone_ratio",
    "box_iou",
    "box_normalised_error",
    "brier_score",
    "crop_consistency",
    "end_point_error",
    "expected_calibration_error",
    "f_scores",
    "false_alarms",
    "fit_similarity",
    "jitter",
    "keypoint_error",
    "mask_iou",
    "mask_scores",
    "pa_mpjpe",
    "pa_mpvpe",
    "palm_frame",
    "pck",
    "procrustes_align",
    "reliability",
    "root_relative_error",
    "scaled_error",
    "side_accuracy",
    "tight_box",
    "view_consistency",
]
