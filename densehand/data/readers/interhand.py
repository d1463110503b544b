"""InterHand2.6M (Moon et al., ECCV 2020): single and interacting hands in a camera dome, 5 or 30 frames a second.

Layout (github.com/facebookresearch/InterHand2.6M, `DATASET.md`, `tool/MANO_world_to_camera/convert.py`):

    annotations/SPLIT/ or annotations/{all,human_annot,machine_annot}/
        InterHand2.6M_SPLIT_data.json       COCO: images (capture, camera, frame_idx), annotations (bbox, joint_valid
                                            42, hand_type right | left | interacting)
        InterHand2.6M_SPLIT_camera.json     capture → campos, camrot, focal, princpt by camera
        InterHand2.6M_SPLIT_joint_3d.json   capture → frame → world_coord 42×3, joint_valid (older: 42×3 alone)
        InterHand2.6M_SPLIT_MANO_NeuralAnnot.json     capture → frame → side → pose 48, shape 10, trans (optional)
    images/SPLIT/CaptureN/SEQUENCE/camN/imageN.jpg

Joints 0–20 are the right hand, 21–41 the left: thumb to little, each from the tip to the palm, then the wrist (not the
palm). Millimetres in the world; camera = camrot · (world − campos). `visible`: the annotation's joint_valid (labelled
and inside the picture). An interacting pair gives two samples, each with the box of its own keypoints, as the
published box holds both hands. MANO: axis-angle from the mean pose (smplx's default in convert.py), the wrist's
rotation carried into the camera frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from densehand.data.readers import common
from densehand.data.readers.common import Dataset, guarded
from densehand.data.sample import Sample
from densehand.hand.keypoints import to_house_order

HANDS = (("right", slice(0, 21)), ("left", slice(21, 42)))
_FOLDERS = ("{split}", "all", "human_annot", "machine_annot", "")


def _file(root: Path, split: str, kind: str) -> Path:
    """The label file: in the first of the folders it was ever published in that has it."""
    name = f"InterHand2.6M_{split}_{kind}.json"
    places = [root / "annotations" / folder.format(split=split) / name for folder in _FOLDERS]
    return next((place for place in places if place.is_file()), places[0])


def _missing(root: Path, split: str) -> list[str]:
    files = [_file(root, split, kind) for kind in ("data", "camera", "joint_3d")]
    missing = [path.relative_to(root).as_posix() for path in files if not path.is_file()]
    return missing + common.absent(root, f"images/{split}")


def _read(root: Path, split: str) -> Iterator[Sample]:
    images, annotations = common.coco_tables(_file(root, split, "data"))
    cameras = common.read_json(_file(root, split, "camera"))
    joints = common.read_json(_file(root, split, "joint_3d"))
    path = _file(root, split, "MANO_NeuralAnnot")
    hands = common.read_json(path) if path.is_file() else {}
    for place, annotation in enumerate(annotations):
        for side, part in HANDS:
            if not isinstance(annotation, dict) or annotation.get("hand_type") in (side, "interacting"):
                name = f"{split}/{annotation.get('id', place) if isinstance(annotation, dict) else place}-{side}"
                tables = (images, cameras, joints, hands)
                yield guarded(name, b"", _open, annotation, side, part, root / "images" / split, tables)


def _open(name: str, _: bytes, annotation: dict, side: str, part: slice, folder: Path, tables: Any) -> Sample:
    about = tables[0][annotation["image_id"]]
    image = common.inside(folder, about["file_name"])
    return guarded(name, image, _sample, annotation, about, side, part, tables)


def _sample(name: str, image: Path, annotation: dict, about: dict, side: str, part: slice, tables: Any) -> Sample:
    _images, cameras, joints, hands = tables
    capture, camera, frame = str(about["capture"]), str(about["camera"]), str(about["frame_idx"])
    rotation = common.numbers(cameras[capture]["camrot"][camera], (3, 3), "camrot")
    position = common.numbers(cameras[capture]["campos"][camera], (3,), "campos")
    matrix = common.intrinsics(*cameras[capture]["focal"][camera], *cameras[capture]["princpt"][camera])
    label = joints[capture][frame]
    world = common.numbers(label["world_coord"] if isinstance(label, dict) else label, (42, 3), "world_coord")
    visible = np.array(annotation["joint_valid"], dtype=float).reshape(-1)
    valid = np.array(label["joint_valid"], float).reshape(-1) if isinstance(label, dict) else visible
    visible = to_house_order(common.numbers(visible, (42,), "joint_valid")[part], "interhand") > 0
    valid = to_house_order(common.numbers(valid, (42,), "joint_valid")[part], "interhand") > 0
    points = to_house_order((world[part] - position) @ rotation.T, "interhand") / 1000
    keypoints = common.project(points, matrix)
    mano = ((hands.get(capture) or {}).get(frame) or {}).get(side)
    return Sample(
        name=name,
        image=image,
        side=side,
        box=common.tight(keypoints, visible),
        keypoints_2d=keypoints,
        visible=visible,
        joints_3d=points,
        joints_valid=valid,
        camera=matrix,
        hand=None if mano is None else common.mano([*mano["pose"], *mano["shape"]], "from mean", rotation),
    )


DATASETS = (
    Dataset(
        name="interhand",
        title="InterHand2.6M",
        splits=("train", "val", "test"),
        has=("side", "box", "keypoints_2d", "joints_3d", "camera", "hand"),
        order="each finger tip to palm, then wrist; 42: right, left",
        units="mm, world",
        licence="CC-BY-NC 4.0",
        missing=_missing,
        read=_read,
    ),
)
