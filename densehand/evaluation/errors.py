"""The errors of one prediction against one labelled hand: kinds of `densehand.report`, and single scores."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from densehand.camera import ERROR_CROP, HOUSE_PADDING
from densehand.data.readers.common import project
from densehand.errors import InputError
from densehand.evaluation.cases import Case
from densehand.evaluation.prediction import Prediction
from densehand.metrics import (
    WRIST_TO_MIDDLE,
    bone_ratio,
    f_scores,
    fit_similarity,
    keypoint_error,
    mask_scores,
    pa_mpvpe,
    procrustes_align,
)

PCK_BOX = 0.2  # share of the box's larger side below which a keypoint is right, as mmpose's PCK@0.2
LEAST_JOINTS = 4  # with fewer points, a similarity fits anything


def label_kinds(case: Case) -> list[str]:
    """The kinds of errors that the labels of this hand allow; "mask" where only that can be measured."""
    sample, kinds = case.sample, []
    valid = known_joints(case)
    if valid.sum() >= LEAST_JOINTS:
        kinds.append("pa_mm")
    if valid[0] and valid.sum() >= 2:
        kinds.append("root_mm")
        if valid[list(WRIST_TO_MIDDLE)].all():
            kinds.append("scaled_mm")
    if case.box is not None and known_keypoints(case).any():
        kinds += ["px", "mesh_px"]
    return kinds or (["mask"] if sample.mask is not None else [])


def known_joints(case: Case) -> Bool[np.ndarray, "21"]:
    """Which 3D joints have a label."""
    joints = case.sample.joints_3d
    if joints is None:
        return np.zeros(21, dtype=bool)
    return np.isfinite(joints).all(axis=1) & np.asarray(case.sample.joints_valid)


def known_keypoints(case: Case) -> Bool[np.ndarray, "21"]:
    """Which keypoints have a label in 2D (and are not hidden, where the set tells)."""
    return np.isfinite(case.labels).all(axis=1)


def crop_pixel(box: Float[np.ndarray, "4"]) -> float:
    """Side of a pixel of the `ERROR_CROP` crop, in pixels of the picture."""
    return HOUSE_PADDING * float((box[2:] - box[:2]).max()) / ERROR_CROP


def errors_of(case: Case, found: Prediction) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Errors by kind (21 each, NaN where there is no label; px of a 224-px crop, mm) and scores.

    Scores: `side_right`; `pck_box` (share of keypoints within 0.2 of the box's larger side); `pa_mpvpe_mm` (meshes of
    one topology) and `f5`, `f15` (aligned by the vertices where they are of one topology, else by the joints);
    `mask_iou`.
    """
    kinds = label_kinds(case)
    errors, scores = _errors_2d(case, found) if "px" in kinds else ({}, {})
    if found.joints_3d is not None and case.sample.joints_3d is not None:
        errors |= _errors_3d(case, found.joints_3d * 1000.0, kinds)
    if case.sample.side is not None and found.side is not None:
        scores["side_right"] = float(case.sample.side == found.side)
    if case.vertices is not None and found.vertices is not None and found.joints_3d is not None:
        scores |= _surface(case, found.joints_3d * 1000.0, found.vertices * 1000.0)
    if case.sample.mask is not None and found.hand is not None:
        try:
            mask = case.sample.read_mask()
        except InputError:
            mask = None  # a damaged mask takes nothing from the other measures
        if mask is not None:
            scores["mask_iou"] = mask_scores(found.hand().mask((mask.shape[0], mask.shape[1])), mask).iou
    return errors, scores


def _errors_2d(case: Case, found: Prediction) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    assert case.box is not None and case.sample.keypoints_2d is not None
    seen, target, pixel = known_keypoints(case), case.sample.keypoints_2d, crop_pixel(case.box)
    target = np.where(seen[:, None], target, np.nan)
    errors, scores = {}, {}
    if found.keypoints_2d is not None:
        errors["px"] = keypoint_error(found.keypoints_2d, target) / pixel
        scores["pck_box"] = float((errors["px"][seen] <= PCK_BOX * ERROR_CROP / HOUSE_PADDING).mean())
    if found.hand is not None:
        hand = found.hand()
        errors["mesh_px"] = keypoint_error(hand.project(hand.joints_3d), target) / pixel
    return errors, scores


def _errors_3d(case: Case, joints: Float[np.ndarray, "21 3"], kinds: list[str]) -> dict[str, np.ndarray]:
    valid, target = known_joints(case), np.asarray(case.sample.joints_3d) * 1000.0
    target = np.where(valid[:, None], target, np.nan)
    errors = {}
    if "pa_mm" in kinds:
        errors["pa_mm"] = aligned_error(joints, target)
    if "root_mm" in kinds:
        errors["root_mm"] = keypoint_error(joints - joints[0], target - target[0])
    if "scaled_mm" in kinds:
        ratio = bone_ratio(joints, target)
        if ratio is not None:  # else there is no size to give it
            errors["scaled_mm"] = keypoint_error((joints - joints[0]) * ratio, target - target[0])
    return errors


def aligned_error(joints: Float[np.ndarray, "21 3"], truth: Float[np.ndarray, "21 3"]) -> Float[np.ndarray, "21"]:
    """Distance of each joint after the best similarity of those that are known (PA error); NaN where one is not, and
    where too few are."""
    known = np.isfinite(truth).all(axis=1)
    if known.sum() < LEAST_JOINTS:
        return np.full(len(truth), np.nan)
    return keypoint_error(fit_similarity(joints[known], truth[known])(joints), truth)


def _surface(case: Case, joints: Float[np.ndarray, "21 3"], vertices: Float[np.ndarray, "V 3"]) -> dict[str, float]:
    assert case.vertices is not None
    target, scores = case.vertices * 1000.0, {}
    if len(vertices) == len(target):  # one topology: FreiHAND's protocol
        scores["pa_mpvpe_mm"] = pa_mpvpe(vertices, target)
        aligned = procrustes_align(vertices, target)
    else:
        valid = known_joints(case)
        if valid.sum() < LEAST_JOINTS:
            return scores
        aligned = fit_similarity(joints[valid], np.asarray(case.sample.joints_3d)[valid] * 1000.0)(vertices)
    scores["f5"], scores["f15"] = f_scores(aligned, target)
    return scores


def labelled_pairs(case: Case, found: Prediction) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Predicted points and labels (NaN where there is none) of the kinds of errors that are corrected (`joint_map`).

    In the unit of the error: pixels of a 224-px crop from the box's centre, 21×2; mm, 21×3.
    """
    kinds, pairs = label_kinds(case), {}
    if "px" in kinds and found.keypoints_2d is not None:
        assert case.box is not None
        middle, pixel = (case.box[:2] + case.box[2:]) / 2, crop_pixel(case.box)
        pairs["px"] = (found.keypoints_2d - middle) / pixel, (case.labels - middle) / pixel
    if "pa_mm" in kinds and found.joints_3d is not None:
        target = np.where(known_joints(case)[:, None], np.asarray(case.sample.joints_3d) * 1000.0, np.nan)
        pairs["pa_mm"] = found.joints_3d * 1000.0, target
    return pairs


def drawn_points(case: Case, found: Prediction) -> Float[np.ndarray, "21 2"] | None:
    """Where to draw the prediction, pixels: its keypoints, else its joints after alignment, projected."""
    if found.keypoints_2d is not None:
        return np.asarray(found.keypoints_2d, dtype=np.float64)
    valid, joints, camera = known_joints(case), case.sample.joints_3d, case.sample.camera
    if found.joints_3d is None or joints is None or camera is None or valid.sum() < LEAST_JOINTS:
        return None
    points = project(fit_similarity(found.joints_3d[valid], joints[valid])(found.joints_3d), camera)
    return points if np.isfinite(points).all() else None
