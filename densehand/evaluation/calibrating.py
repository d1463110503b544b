"""Fitting a network's calibration and judging it: never on the same pictures (docs/confidence.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from densehand.charts import Line, Panel
from densehand.detect.calibrate import fit_logistic
from densehand.errors import InputError
from densehand.evaluation.scores import SEED, Looks
from densehand.metrics import auroc, brier_score, expected_calibration_error, false_alarms, reliability
from densehand.network.calibration import Calibration, logit, sigmoid

FOLDS = 5
CURVE_BINS = 10
RECALLS = (0.95, 0.99)
RAW, FITTED, IDEAL = (213, 94, 0), (0, 114, 178), (150, 150, 150)


@dataclass(frozen=True)
class Pairs:
    """Raw log-odds of one score and what is so; the film or photo each comes from, and its set."""

    odds: Float[np.ndarray, " n"]
    truth: Bool[np.ndarray, " n"]
    group: np.ndarray
    data: np.ndarray

    def __len__(self) -> int:
        return len(self.odds)

    def select(self, rows: Any) -> Pairs:
        """Some of them: indices or a mask."""
        return Pairs(*(getattr(self, entry.name)[rows] for entry in fields(self)))


def keypoint_pairs(hands: Mapping[str, Looks]) -> Pairs:
    """Every keypoint whose truth is known: is it near?"""
    parts = []
    for name, looks in hands.items():
        group = np.repeat(looks.group, looks.known.sum(axis=1))
        near = looks.near[looks.known]
        parts.append((logit(looks.confidence[looks.known]), near, group, np.full(len(near), name)))
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def side_pairs(hands: Mapping[str, Looks]) -> Pairs:
    """Every hand as it is and mirrored: is it a right one?"""
    parts = [
        (odds, np.full(len(looks), right), looks.group, np.full(len(looks), name))
        for name, looks in hands.items()
        for odds, right in ((looks.right, True), (looks.turned, False))
    ]
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def hand_pairs(hands: Mapping[str, Looks], empty: Mapping[str, Looks]) -> Pairs:
    """Hands and pictures without, as many of each: is there one?"""
    sides = []
    for sets, there in ((hands, True), (empty, False)):
        parts = [(x.hand, np.full(len(x), there), x.group, np.full(len(x), name)) for name, x in sets.items()]
        sides.append(Pairs(*map(np.concatenate, zip(*parts, strict=True))))
    few = min(map(len, sides))
    even = [side.select(np.linspace(0, len(side) - 1, few).astype(int)) for side in sides]
    return Pairs(*(np.concatenate([getattr(side, entry.name) for side in even]) for entry in fields(Pairs)))


def fit(pairs: Pairs, with_bias: bool = True) -> tuple[float, float]:
    """Scale and bias of the log-odds. Raises InputError where a higher score does not mean more likely."""
    scale, bias = fit_logistic(pairs.odds, pairs.truth, with_bias)
    if scale <= 0:
        raise InputError("a score falls where the truth rises, so it cannot be calibrated; train the network further")
    return scale, bias


def folds_of(group: np.ndarray) -> Int[np.ndarray, " n"]:
    """The fold of each, 0…`FOLDS` − 1; a group lies in one fold. The same groups always give the same folds."""
    names, place = np.unique(group, return_inverse=True)
    return (np.random.default_rng(SEED).permutation(len(names)) % FOLDS)[place]


def cross_validated(pairs: Pairs, with_bias: bool = True) -> Float[np.ndarray, " n"]:
    """Probabilities, each by the map that was fitted without its fold."""
    fold, result = folds_of(pairs.group), np.empty(len(pairs))
    for number in np.unique(fold):
        mine = fold == number
        scale, bias = fit(pairs.select(~mine), with_bias)
        result[mine] = sigmoid(scale * pairs.odds[mine] + bias)
    return result


def fit_all(hands: Mapping[str, Looks], empty: Mapping[str, Looks]) -> Calibration:
    """The calibration, fitted on everything."""
    return Calibration(*fit(keypoint_pairs(hands)), *fit(hand_pairs(hands, empty)), fit(side_pairs(hands), False)[0])


def judge(hands: Mapping[str, Looks], empty: Mapping[str, Looks]) -> list[dict[str, Any]]:
    """Rows for a results file: each score on each set and on all, raw and calibrated by cross-validation.

    `auroc` and the false alarms need no map: they are the raw score's. `right`: share on the right side of 0.5.
    """
    rows = []
    for name, pairs in (("keypoint", keypoint_pairs(hands)), ("side", side_pairs(hands))):
        after = cross_validated(pairs, with_bias=name != "side")
        for data in ["all", *hands] if len(hands) > 1 else ["all"]:
            here = slice(None) if data == "all" else pairs.data == data
            rows.append({"score": name, "data": data, **_figures(pairs.select(here), after[here])})
    pairs = hand_pairs(hands, empty)
    after = cross_validated(pairs)
    rows.append({"score": "hand", "data": "all", **_figures(pairs, after), **_alarms(pairs)})
    for there in hands:
        for without in empty:
            both = Pairs(
                np.concatenate([hands[there].hand, empty[without].hand]),
                np.repeat([True, False], [len(hands[there]), len(empty[without])]),
                np.concatenate([hands[there].group, empty[without].group]),
                np.repeat([there, without], [len(hands[there]), len(empty[without])]),
            )
            about = {"count": len(both), "true_share": both.truth.mean(), "auroc": auroc(both.odds, both.truth)}
            rows.append({"score": "hand", "data": f"{there} against {without}", **about, **_alarms(both)})
    return rows


def _figures(pairs: Pairs, after: Float[np.ndarray, " n"]) -> dict[str, Any]:
    before, truth = sigmoid(pairs.odds), pairs.truth
    return {
        "count": len(pairs), "true_share": truth.mean(),
        "ece_raw": expected_calibration_error(before, truth), "ece": expected_calibration_error(after, truth),
        "brier_raw": brier_score(before, truth), "brier": brier_score(after, truth),
        "auroc": auroc(pairs.odds, truth) if 0 < truth.mean() < 1 else "",
        "right_raw": ((before > 0.5) == truth).mean(), "right": ((after > 0.5) == truth).mean(),
    }  # fmt: skip


def _alarms(pairs: Pairs) -> dict[str, float]:
    """The raw probability that so many of the hands reach, and the share of pictures without a hand that do too."""
    result: dict[str, float] = {}
    for recall in RECALLS:
        threshold, share = false_alarms(pairs.odds, pairs.truth, recall)
        result |= {f"raw_at_{recall:.0%}": float(sigmoid(threshold)), f"false_at_{recall:.0%}": share}
    return result


def panels(hands: Mapping[str, Looks], empty: Mapping[str, Looks]) -> list[Panel]:
    """Reliability diagrams: what share is true among scores of one size, raw and calibrated by cross-validation."""
    keypoints, sides, there = keypoint_pairs(hands), side_pairs(hands), hand_pairs(hands, empty)
    near = cross_validated(keypoints)
    charts = [(f"keypoints: {name}", keypoints, near, keypoints.data == name) for name in hands]
    charts += [
        ("a hand is there", there, cross_validated(there), slice(None)),
        ("right hand", sides, cross_validated(sides, with_bias=False), slice(None)),
    ]
    result = []
    for title, pairs, fitted, here in charts:
        chosen, after = pairs.select(here), fitted[here]
        lines = [Line("ideal", IDEAL, [0.0, 1.0], [0.0, 1.0], dashed=True)]
        for name, colour, scores in (("calibrated", FITTED, after), ("raw", RAW, sigmoid(chosen.odds))):
            found = reliability(scores, chosen.truth, CURVE_BINS, even=True)
            lines.append(Line(name, colour, found.score.tolist(), found.share.tolist()))
        result.append(Panel(title, "score", "share true", lines, top=1.0))
    return result
