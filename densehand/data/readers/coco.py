"""Sets published as COCO JSON: COCO-WholeBody's hands, and those mmpose publishes labels for.

Layouts (mmpose, docs/en/dataset_zoo/2d_hand_keypoint.md, and the labels themselves):

    coco_wholebody   annotations/coco_wholebody_{train,val}_v1.0.json, {train,val}2017/*.jpg. A person has
                     lefthand_kpts and righthand_kpts (21 x, y, v), …_box [x, y, w, h], …_valid
    onehand10k       annotations/onehand10k_{train,test}.json, {Train,Test}/source/*.jpg
    panoptic         annotations/panoptic_{train,test}.json, hand_labels/manual_{train,test}/*.jpg and
                     hand143_panopticdb/imgs/*.jpg; or, without annotations/, CMU's own labels (below)
    freihand_mmpose  annotations/freihand_{train,val,test}.json (FreiHAND's training set split 8:1:1)
    rhd_mmpose       annotations/rhd_{train,test}.json, with 3D in mm (joint_cam) and camera

`keypoints` are 21 x, y, v; v = 0: not labelled. Order: the house order, the wrist first; only RHD's list each finger
from the tip to the palm, whatever names stand in the file (checked on mmpose's samples: the first point of a finger
is at the end of its shorter bone). File names are looked up below the folder as they stand, then in the folders above.
Sides: COCO-WholeBody and RHD tell them, panoptic's manual pictures by `_l`/`_r` in their names; else None.

CMU Panoptic HandDB's own labels (readers in public use): hand_labels/manual_*/NAME.json beside NAME.jpg with
`hand_pts` 21×3 (third: 1 where valid) and `is_left`; hand143_panopticdb/hands_v143_14817.json, `root`: list of
`img_paths`, `joint_self` 21×3. Not verified: the side of hand143's hands (None), OneHand10K's own
`label_joint.txt` (its order is documented nowhere that could be found, so mmpose's labels are read).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from densehand.data.readers import common
from densehand.data.readers.common import BadLabel, Dataset, guarded
from densehand.data.sample import Sample
from densehand.hand.keypoints import to_house_order

PERSON_HANDS = ("left", "right")
CMU_MULTIVIEW = "hand143_panopticdb/hands_v143_14817.json"


@dataclass(frozen=True)
class _Files:
    labels: str
    folders: tuple[str, ...]
    order: str = "densehand"


FILES = {
    "onehand10k": _Files("annotations/onehand10k_{split}.json", ("", "Train/source", "Test/source")),
    "panoptic": _Files(
        "annotations/panoptic_{split}.json",
        ("", "hand_labels/manual_train", "hand_labels/manual_test", "hand143_panopticdb/imgs", "hand143_panopticdb"),
    ),
    "freihand_mmpose": _Files("annotations/freihand_{split}.json", ("", "training/rgb")),
    "rhd_mmpose": _Files("annotations/rhd_{split}.json", ("", "training/color", "evaluation/color"), "rhd"),
}


def _missing(root: Path, split: str, name: str) -> list[str]:
    labels = FILES[name].labels.format(split=split)
    if name == "panoptic" and (root / f"hand_labels/manual_{split}").is_dir():
        return []
    missing = common.absent(root, labels)
    return [f"{labels} or hand_labels/manual_{split}"] if missing and name == "panoptic" else missing


def _read(root: Path, split: str, name: str) -> Iterator[Sample]:
    files = FILES[name]
    labels = root / files.labels.format(split=split)
    if name == "panoptic" and not labels.is_file():
        yield from _cmu(root, split)
        return
    images, annotations = common.coco_tables(labels)
    for place, annotation in enumerate(annotations):
        number = annotation.get("id", place) if isinstance(annotation, dict) else place
        yield guarded(f"{split}/{number}", b"", _open, annotation, images, root, files)


def _open(name: str, _: bytes, annotation: Any, images: dict[Any, dict], root: Path, files: _Files) -> Sample:
    image = images[annotation["image_id"]]
    path = _find(root, image["file_name"], files.folders)
    return guarded(name, path, _sample, annotation, image, files.order)


def _find(root: Path, file_name: Any, folders: Sequence[str]) -> Path:
    places = [common.inside(root / folder, file_name) for folder in folders]
    return next((place for place in places if place.is_file()), places[0])


def _sample(name: str, image: Path, annotation: dict, about: dict, order: str) -> Sample:
    points = to_house_order(common.triples(annotation["keypoints"], 21, "keypoints"), order)
    sample = Sample(name, image, _side(annotation, about["file_name"]), common.corners(annotation["bbox"]))
    if "joint_cam" not in annotation:
        points = _labelled(points)
    sample.keypoints_2d, sample.visible = points[:, :2], points[:, 2] > 0
    if "joint_cam" in annotation:
        sample.joints_3d = to_house_order(common.numbers(annotation["joint_cam"], (21, 3), "joint_cam"), order) / 1000
    if "cam_param" in about:
        camera = about["cam_param"]
        sample.camera = common.intrinsics(*camera["focal"], *camera["princpt"])
    return Sample(**vars(sample))


def _side(annotation: dict, file_name: str) -> str | None:
    if annotation.get("hand_type") in PERSON_HANDS:
        return annotation["hand_type"]
    stem = Path(file_name).stem
    return "left" if stem.endswith("_l") else "right" if stem.endswith("_r") else None


def _cmu(root: Path, split: str) -> Iterator[Sample]:
    for path in sorted((root / f"hand_labels/manual_{split}").glob("*.json")):
        yield guarded(f"manual_{split}/{path.stem}", path.with_suffix(".jpg"), _cmu_manual, path)
    if split == "train" and (root / CMU_MULTIVIEW).is_file():
        for place, row in enumerate(common.read_json(root / CMU_MULTIVIEW).get("root", [])):
            yield guarded(f"hand143/{place:08d}", b"", _cmu_multiview, row, root)


def _cmu_manual(name: str, image: Path, path: Path) -> Sample:
    label = common.read_json(path, dict, 2**20)
    side = None if "is_left" not in label else "left" if label["is_left"] else "right"
    return _cmu_sample(name, image, label["hand_pts"], side)


def _cmu_multiview(name: str, _: bytes, row: dict, root: Path) -> Sample:
    image = common.inside(root / "hand143_panopticdb", row["img_paths"])
    return _cmu_sample(name, image, row["joint_self"], None)


def _cmu_sample(name: str, image: Path, points: Any, side: str | None) -> Sample:
    values = common.triples(points, 21, "keypoints")
    values = _labelled(values)
    visible = values[:, 2] == 1
    return Sample(name, image, side, common.tight(values[:, :2], visible), values[:, :2], visible)


def _missing_wholebody(root: Path, split: str) -> list[str]:
    return common.absent(root, f"annotations/coco_wholebody_{split}_v1.0.json", f"{split}2017")


def _read_wholebody(root: Path, split: str) -> Iterator[Sample]:
    images, annotations = common.coco_tables(root / f"annotations/coco_wholebody_{split}_v1.0.json")
    for place, annotation in enumerate(annotations):
        if not isinstance(annotation, dict):
            yield Sample(f"{split}/{place}", b"", problem="not a JSON object")
            continue
        for side in PERSON_HANDS:
            if annotation.get(f"{side}hand_valid"):
                name = f"{split}/{annotation.get('id', place)}-{side}"
                yield guarded(name, b"", _person_hand, annotation, side, images, root / f"{split}2017")


def _person_hand(name: str, _: bytes, annotation: dict, side: str, images: dict[Any, dict], folder: Path) -> Sample:
    image = common.inside(folder, images[annotation["image_id"]]["file_name"])
    return guarded(name, image, _person_labels, annotation, side)


def _person_labels(name: str, image: Path, annotation: dict, side: str) -> Sample:
    points = common.triples(annotation[f"{side}hand_kpts"], 21, "keypoints")
    box = common.corners(annotation[f"{side}hand_box"])
    if not np.any(points[:, 2] > 0):
        raise BadLabel("valid hand without a labelled keypoint")
    points = _labelled(points)
    return Sample(name, image, side, box, points[:, :2], points[:, 2] > 0)


def _labelled(points: np.ndarray) -> np.ndarray:
    """x, y, v with NaN for the places of points that are not labelled (files say 0, 0)."""
    return np.where(points[:, 2:] > 0, points, [np.nan, np.nan, 0.0])


_2D = ("side", "box", "keypoints_2d")


def _coco(name: str, title: str, splits: tuple[str, ...], has: tuple[str, ...], licence: str) -> Dataset:
    tips = FILES[name].order == "rhd"
    return Dataset(
        name=name,
        title=title,
        splits=splits,
        has=has,
        order="wrist, then each finger tip to palm" if tips else "house",
        units="mm" if tips else "—",
        licence=licence,
        missing=partial(_missing, name=name),
        read=partial(_read, name=name),
    )


DATASETS = (
    Dataset(
        name="coco_wholebody",
        title="COCO-WholeBody hands",
        splits=("train", "val"),
        has=_2D,
        order="house",
        units="—",
        licence=common.UNVERIFIED + "; pictures each under its own (`licenses` in the file)",
        missing=_missing_wholebody,
        read=_read_wholebody,
    ),
    _coco("onehand10k", "OneHand10K", ("train", "test"), ("box", "keypoints_2d"), common.UNVERIFIED),
    _coco("panoptic", "CMU Panoptic HandDB", ("train", "test"), _2D, common.UNVERIFIED),
    _coco("freihand_mmpose", "FreiHAND, mmpose's labels", ("train", "val", "test"), _2D[1:], "research only"),
    _coco("rhd_mmpose", "RHD, mmpose's labels", ("train", "test"), (*_2D, "joints_3d", "camera"), common.UNVERIFIED),
)
