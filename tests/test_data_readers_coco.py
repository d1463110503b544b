"""COCO-style sets: tiny files in the published layouts, and mmpose's published samples where they are at hand."""

import json
import shutil

import numpy as np
import pytest
from reader_files import CAMERA, JOINTS, picture, projected, write

from densehand.data.readers import dataset, read_dataset
from densehand.errors import InputError
from densehand.hand.keypoints import KNUCKLES, ORDERS


def triples(points, v=2):
    return np.concatenate([points, np.full((len(points), 1), v)], axis=1)


def coco(images, annotations):
    return {"images": images, "annotations": annotations, "categories": []}


def test_wholebody_gives_the_labelled_hands_of_a_person(tmp_path):
    points = triples(projected())
    points[3] = 0
    person = {"id": 5, "image_id": 9, "lefthand_valid": True, "righthand_valid": True}
    person |= {"lefthand_kpts": points.ravel().tolist(), "lefthand_box": [10, 20, 30, 40]}
    person |= {"righthand_kpts": points[:20].ravel().tolist(), "righthand_box": [10, 20, 30, 40]}
    nobody = {"id": 6, "image_id": 9, "lefthand_valid": False, "righthand_valid": False}
    lost = {"id": 7, "image_id": 10, "lefthand_valid": True, "righthand_valid": False}
    flat = person | {"id": 8, "lefthand_box": [0.0, 0, 0, 0], "righthand_valid": False}
    labels = coco([{"id": 9, "file_name": "000000000009.jpg"}], [person, nobody, lost, flat, 3])
    write(tmp_path / "annotations" / "coco_wholebody_val_v1.0.json", labels)
    picture(tmp_path / "val2017" / "000000000009.jpg")
    left, right, no_image, no_box, no_object = read_dataset("coco_wholebody", tmp_path, "val")
    assert left.name == "val/5-left" and left.side == "left" and left.box.tolist() == [10, 20, 40, 60]
    np.testing.assert_allclose(left.keypoints_2d[4], projected()[4])
    assert np.flatnonzero(~left.visible).tolist() == [3] and left.read_image().shape == (224, 224, 3)
    told = ("20 joints, not 21", "no label 10", "box of 0×0", "not a JSON object")
    for sample, text in zip((right, no_image, no_box, no_object), told, strict=True):
        assert text in sample.problem
    write(tmp_path / "annotations" / "coco_wholebody_val_v1.0.json", {"images": []})
    with pytest.raises(InputError, match="no COCO labels"):
        list(read_dataset("coco_wholebody", tmp_path, "val"))
    write(tmp_path / "annotations" / "coco_wholebody_val_v1.0.json", "[1")
    with pytest.raises(InputError, match="not JSON"):
        list(read_dataset("coco_wholebody", tmp_path, "val"))


def test_pictures_are_found_where_mmpose_says_they_lie(tmp_path):
    row = {"id": 1, "image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": triples(projected()).ravel().tolist()}
    labels = coco([{"id": 1, "file_name": "7.jpg"}, {"id": 2, "file_name": "/etc/7.jpg"}], [row, row | {"image_id": 2}])
    write(tmp_path / "annotations" / "onehand10k_test.json", labels)
    picture(tmp_path / "Test" / "source" / "7.jpg")
    sample, outside = read_dataset("onehand10k", tmp_path, "test")
    assert sample.read_image().shape == (224, 224, 3) and sample.side is None and sample.box.tolist() == [1, 2, 4, 6]
    assert "does not lie" in outside.problem


def test_panoptic_in_cmu_s_own_layout(tmp_path):
    points = triples(projected(), 1)
    points[2, 2] = 0
    manual = tmp_path / "hand_labels" / "manual_train"
    write(manual / "1_01_l.json", {"hand_pts": points.tolist(), "is_left": 1.0, "hand_box_center": [1, 2]})
    write(manual / "1_01_r.json", {"hand_pts": points.tolist(), "is_left": 0.0})
    write(manual / "2_01_r.json", {"is_left": 0.0})
    picture(manual / "1_01_l.jpg")
    rows = [{"img_paths": "imgs/00000000.jpg", "joint_self": points.tolist()}, {"img_paths": "imgs/00000001.jpg"}]
    write(tmp_path / "hand143_panopticdb" / "hands_v143_14817.json", {"root": rows})
    left, right, bad, dome, bad_dome = read_dataset("panoptic", tmp_path)
    assert (left.side, right.side, dome.side) == ("left", "right", None)
    assert np.flatnonzero(~left.visible).tolist() == [2] and left.read_image().shape == (224, 224, 3)
    assert dome.image == tmp_path / "hand143_panopticdb" / "imgs" / "00000000.jpg"
    assert "hand_pts" in bad.problem and "joint_self" in bad_dome.problem
    missing = dataset("panoptic").missing(tmp_path, "test")
    assert missing == ["annotations/panoptic_test.json or hand_labels/manual_test"]


@pytest.mark.parametrize("folder", ["train", "all"])
@pytest.mark.parametrize("older", [False, True])
def test_interhand(tmp_path, folder, older):
    import cv2

    turn, position = cv2.Rodrigues(np.array([0.2, -0.4, 0.1]))[0], np.array([100.0, -50, 30])
    right, left = JOINTS * 1000, JOINTS * 1000 + (80, 0, 20)
    order = list(ORDERS["interhand"])
    world = np.concatenate([right[order], left[order]]) @ turn + position  # turn.T · camera + position
    visible = [[1]] * 41 + [[0]]  # the left wrist is outside
    images = [{"id": 1, "file_name": "Capture0/a/cam4/image7.jpg", "capture": 0, "camera": "4", "frame_idx": 7}]
    images += [images[0] | {"id": 2, "frame_idx": 8}]
    row = {"id": 3, "image_id": 1, "bbox": [0, 0, 9, 9], "joint_valid": visible, "hand_type": "interacting"}
    annotations = [row, row | {"id": 4, "hand_type": "left"}, row | {"id": 5, "image_id": 2, "hand_type": "right"}]
    camera = {"campos": {"4": position.tolist()}, "camrot": {"4": turn.tolist()}}
    camera |= {"focal": {"4": [500, 510]}, "princpt": {"4": [112, 110]}}
    full = {"world_coord": world.tolist(), "joint_valid": [[True]] * 42, "hand_type": "interacting"}
    pose = np.concatenate([[0.5, 0.1, 0.0], np.arange(45) / 90])
    mano = {"pose": pose.tolist(), "shape": [0.5] * 10, "trans": [0, 0, 0]}
    start = tmp_path / "annotations" / folder / "InterHand2.6M_train_"
    for kind, content in (
        ("data", coco(images, annotations)),
        ("camera", {"0": camera}),
        ("joint_3d", {"0": {"7": full["world_coord"] if older else full}}),
        ("MANO_NeuralAnnot", {"0": {"7": {"left": mano, "right": None}}}),
    ):
        write(start.parent / f"{start.name}{kind}.json", content)
    picture(tmp_path / "images" / "train" / "Capture0" / "a" / "cam4" / "image7.jpg")
    first, second, alone, lost = read_dataset("interhand", tmp_path)
    assert [s.side for s in (first, second, alone)] == ["right", "left", "left"]
    np.testing.assert_allclose(first.joints_3d, JOINTS, atol=1e-9)
    np.testing.assert_allclose(second.joints_3d, left / 1000, atol=1e-9)
    np.testing.assert_allclose(second.keypoints_2d, projected(left / 1000))
    assert np.flatnonzero(~second.visible).tolist() == [0] and first.visible.all()
    assert second.joints_valid.all() != older
    expected = turn @ cv2.Rodrigues(pose[:3])[0]
    np.testing.assert_allclose(cv2.Rodrigues(second.hand.rotation)[0], expected, atol=1e-9)
    assert first.hand is None and second.hand.kind == "from mean" and second.read_image().shape == (224, 224, 3)
    assert "no label '8'" in lost.problem
    np.testing.assert_allclose(first.camera, CAMERA)


SAMPLES = {
    "onehand10k": ("onehand10k", "annotations/onehand10k_test.json", "test_onehand10k.json", "."),
    "panoptic": ("panoptic", "annotations/panoptic_test.json", "test_panoptic.json", "."),
    "freihand_mmpose": ("freihand", "annotations/freihand_test.json", "test_freihand.json", "."),
    "rhd_mmpose": ("rhd", "annotations/rhd_test.json", "test_rhd.json", "."),
    "coco_wholebody": ("coco", "annotations/coco_wholebody_val_v1.0.json", "test_coco_wholebody.json", "val2017"),
}


def lay_out(shared_dir, tmp_path, folder, images):
    """mmpose's sample of a set in the full set's layout; skips where there is none."""
    source = shared_dir / "fixtures" / "mmpose" / folder
    if not source.is_dir():
        pytest.skip(f"no sample of {folder}")
    (tmp_path / images).mkdir(parents=True, exist_ok=True)
    for path in [*source.glob("*.jpg"), *source.glob("*.png")]:
        shutil.copy(path, tmp_path / images)
    return source


def longer_at_the_palm(samples):
    """Share of the long fingers whose bone at the palm is longer than the one at the tip, and how many were seen.

    In 3D that is so in every hand; in 2D it is in most. A finger listed from the wrong end shows the reverse.
    """
    found = []
    for sample in samples:
        points = sample.keypoints_2d if sample.joints_3d is None else sample.joints_3d
        usable = sample.visible if sample.joints_3d is None else sample.joints_valid
        for knuckle in KNUCKLES[1:]:
            if usable[knuckle : knuckle + 4].all():
                bones = np.linalg.norm(np.diff(points[knuckle : knuckle + 4], axis=0), axis=1)
                found.append(bones[0] > bones[2])
        labelled = sample.keypoints_2d[sample.visible]
        height, width = sample.read_image().shape[:2]
        assert (labelled > -0.2 * max(width, height)).all() and (labelled < 1.2 * max(width, height)).all()
    return np.mean(found), len(found)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_published_samples(name, shared_dir, tmp_path):
    folder, labels, file, images = SAMPLES[name]
    source = lay_out(shared_dir, tmp_path, folder, images)
    (tmp_path / labels).parent.mkdir()
    shutil.copy(source / file, tmp_path / labels)
    samples = list(read_dataset(name, tmp_path, "val" if name == "coco_wholebody" else "test"))
    assert samples and [s.problem for s in samples if s.problem] == []
    share, count = longer_at_the_palm(samples)
    assert share >= (1.0 if name == "rhd_mmpose" else 0.6) and count >= 8
    if name == "rhd_mmpose":
        for sample in samples:
            from densehand.data.readers.common import project

            error = np.abs(project(sample.joints_3d, sample.camera) - sample.keypoints_2d)
            assert error.max() < 1.5, "3D, camera and 2D agree"
    if name == "panoptic":
        assert {s.side for s in samples} == {"left", "right"}


def test_published_sample_of_interhand(shared_dir, tmp_path):
    source = lay_out(shared_dir, tmp_path, "interhand2.6m", "images/test")
    (tmp_path / "annotations" / "test").mkdir(parents=True)
    for kind in ("data", "camera", "joint_3d"):
        target = tmp_path / "annotations" / "test" / f"InterHand2.6M_test_{kind}.json"
        shutil.copy(source / f"test_interhand2.6m_{kind}.json", target)
    samples = list(read_dataset("interhand", tmp_path, "test"))
    assert [s.problem for s in samples if s.problem] == [] and len(samples) == 6
    assert longer_at_the_palm(samples) == (1.0, 24)
    published = {a["id"]: a for a in json.loads((source / "test_interhand2.6m_data.json").read_text())["annotations"]}
    for sample in samples:
        x, y, width, height = published[int(sample.name.split("/")[1].split("-")[0])]["bbox"]
        seen = sample.keypoints_2d[sample.visible]
        assert (seen > (x - 1, y - 1)).all() and (seen < (x + width + 1, y + height + 1)).all()
