"""Samples, the registry, and the sets whose labels are one hand's own arrays."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reader_files import CAMERA, JOINTS, picture, projected, write

from densehand.data.readers import common, dataset, dataset_names, read_dataset
from densehand.data.sample import HandParameters, MaskSource, Sample
from densehand.errors import InputError
from densehand.hand.keypoints import ORDERS


def test_samples_check_their_shapes():
    with pytest.raises(ValueError, match="keypoints_2d is 20×2, not 21×2"):
        Sample("a", b"", keypoints_2d=np.zeros((20, 2)))
    with pytest.raises(ValueError, match="neither left nor right"):
        Sample("a", b"", side="both")
    with pytest.raises(ValueError, match="hand pose of 48 numbers, not 45"):
        HandParameters("mano", np.zeros(48), np.zeros(10))
    assert Sample("a", b"", keypoints_2d=np.zeros((21, 2))).visible.all()


def test_masks_are_ranges_of_a_channel_read_when_asked(tmp_path):
    values = np.zeros((4, 5, 4), np.uint8)
    values[1, 2] = (10, 20, 30, 200)
    path = tmp_path / "mask.png"
    Image.fromarray(values).save(path)
    assert np.argwhere(MaskSource(path, 9, 10, channel=0).read()).tolist() == [[1, 2]], "channels are RGBA, not BGRA"
    assert MaskSource(path, 128, 255, channel=3).read().sum() == 1
    np.savez(tmp_path / "labels.npz", seg=np.array([[0, 255], [7, 255]], np.uint8))
    assert MaskSource(tmp_path / "labels.npz", 255, 255, key="seg").read().tolist() == [[False, True], [False, True]]
    for bad in (MaskSource(tmp_path / "none.png"), MaskSource(b"no picture"), MaskSource(tmp_path / "m.npz", key="a")):
        with pytest.raises(InputError):
            bad.read()


def test_registry_is_complete_and_knows_the_fields():
    for name in dataset_names():
        known = dataset(name)
        assert known.name == name and known.splits and known.title and known.licence
        assert set(known.has) <= {"side", "box", "keypoints_2d", "joints_3d", "camera", "mask", "hand"}
    with pytest.raises(InputError, match=r"unknown dataset 'nyu'; known: .*freihand"):
        dataset("nyu")


@pytest.mark.parametrize("name", dataset_names())
def test_what_is_missing_is_told_by_name(name, tmp_path):
    for split in dataset(name).splits:
        missing = dataset(name).missing(tmp_path, split)
        assert missing, "an empty folder holds no dataset"
        with pytest.raises(InputError) as error:
            read_dataset(name, tmp_path, split)
        assert all(path in str(error.value) for path in missing)
    with pytest.raises(InputError, match="no such folder"):
        read_dataset(name, tmp_path / "nowhere")
    if not dataset(name).open_splits:
        with pytest.raises(InputError, match="has no split 'holiday'"):
            read_dataset(name, tmp_path, "holiday")


@settings(max_examples=50, deadline=None)
@given(st.recursive(st.none() | st.floats(allow_nan=False) | st.text(max_size=3), lambda s: st.lists(s, max_size=4)))
def test_labels_of_any_shape_are_numbers_or_bad(value):
    try:
        array = common.numbers(value, (2, 2), "labels")
    except common.BadLabel as error:
        assert "labels" in str(error)
    else:
        assert array.shape == (2, 2) and array.dtype == np.float64


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12) | st.none() | st.integers())
def test_paths_of_label_files_stay_inside(relative):
    root = common.Path("/data/set")
    try:
        path = common.inside(root, relative)
    except common.BadLabel:
        return
    assert os.path.normpath(path).startswith("/data/set")


def test_freihand(tmp_path):
    for index in (0, 1, 6, 7):  # versions 0 and 3
        picture(tmp_path / "training" / "rgb" / f"{index:08d}.jpg")
    values = np.full((224, 224), 3, np.uint8)
    values[:112] = 252
    picture(tmp_path / "training" / "mask" / "00000001.jpg", values=values)
    hand = np.arange(61.0) / 100
    write(tmp_path / "training_K.json", [CAMERA, CAMERA])
    write(tmp_path / "training_xyz.json", [JOINTS.tolist(), JOINTS[:20].tolist()])
    write(tmp_path / "training_mano.json", [[hand.tolist()]] * 2)
    samples = list(read_dataset("freihand", tmp_path))
    assert [s.image.name for s in samples] == [f"0000000{i}.jpg" for i in (0, 1, 6, 7)]
    first, bad = samples[:2]
    np.testing.assert_allclose(first.keypoints_2d, projected())
    np.testing.assert_allclose(first.box, [*projected().min(0), *projected().max(0)])
    np.testing.assert_array_equal(first.hand.rotation, hand[:3])
    np.testing.assert_array_equal(first.hand.pose, hand[3:48])
    np.testing.assert_array_equal(first.hand.shape, hand[48:58])
    assert first.hand.kind == "from mean" and first.side == "right"
    assert bad.problem == "xyz has 20 joints, not 21"
    assert samples[2].joints_3d is not None, "labels are shared by the versions"
    write(tmp_path / "training_xyz.json", [JOINTS.tolist()])
    with pytest.raises(InputError, match="1 entries"):
        list(read_dataset("freihand", tmp_path))
    picture(tmp_path / "evaluation" / "rgb" / "00000000.jpg")
    write(tmp_path / "evaluation_K.json", [CAMERA])
    (sample,) = read_dataset("freihand", tmp_path, "evaluation")
    assert sample.joints_3d is None and sample.hand is None and sample.camera.tolist() == CAMERA


def test_freihand_masks_belong_to_the_frame_in_every_version(tmp_path):
    for index in (0, 1, 2, 3):
        picture(tmp_path / "training" / "rgb" / f"{index:08d}.jpg")
    values = np.full((224, 224), 3, np.uint8)
    values[:112] = 252
    picture(tmp_path / "training" / "mask" / "00000000.jpg", values=values)
    write(tmp_path / "training_K.json", [CAMERA])
    write(tmp_path / "training_xyz.json", [JOINTS.tolist()])
    write(tmp_path / "training_mano.json", [[[0.0] * 61]])
    for sample in read_dataset("freihand", tmp_path):
        assert sample.read_mask()[:104].all() and not sample.read_mask()[120:].any()


@pytest.mark.parametrize(("version", "suffix"), [("v2", "png"), ("v3", "jpg")])
@pytest.mark.parametrize("protocol", [2, 4])
def test_ho3d(tmp_path, version, suffix, protocol):
    published = JOINTS[list(ORDERS["ho3d"])] * (1, -1, -1)
    turn = np.array([0.3, -0.2, 0.5])
    meta = {
        "camMat": np.array(CAMERA),
        "handJoints3D": published.astype(np.float32),
        "handPose": np.concatenate([turn, np.arange(45) / 50]),
        "handBeta": np.arange(10.0),
        "objName": "010_potted_meat_can",
        "handVertContact": np.zeros(778, bool),
    }
    frames = {"0000": meta, "0001": dict.fromkeys(meta), "0002": meta | {"handJoints3D": published[:20]}}
    folder = tmp_path / "train" / "ABF10"
    (folder / "meta").mkdir(parents=True)
    for name, content in frames.items():
        picture(folder / "rgb" / f"{name}.{suffix}")
        (folder / "meta" / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol))
    (folder / "meta" / "0003.pkl").write_bytes(pickle.dumps({"camMat": os.system}))
    write(tmp_path / "train.txt", "".join(f"ABF10/000{i}\n" for i in range(4)) + "ABF10/../../x\n")
    good, empty, short, hostile, outside = read_dataset(f"ho3d_{version}", tmp_path)
    np.testing.assert_allclose(good.joints_3d, JOINTS, atol=1e-7)
    np.testing.assert_allclose(good.keypoints_2d, projected(), atol=1e-3)
    assert good.read_image().shape == (224, 224, 3) and good.side == "right"
    import cv2

    flip = np.diag([1.0, -1, -1])
    np.testing.assert_allclose(cv2.Rodrigues(good.hand.rotation)[0], flip @ cv2.Rodrigues(turn)[0], atol=1e-9)
    assert good.hand.kind == "absolute" and good.hand.pose[1] == pytest.approx(0.02)
    assert empty.problem is None and empty.joints_3d is None
    assert "20 joints" in short.problem and "posix.system" in hostile.problem and "does not lie" in outside.problem


def test_ho3d_evaluation_has_the_wrist_and_a_box(tmp_path):
    wrist = JOINTS[0] * (1, -1, -1)
    meta = {"camMat": np.array(CAMERA), "handJoints3D": wrist, "handBoundingBox": [5, 6, 70, 80]}
    (tmp_path / "evaluation" / "SM1" / "meta").mkdir(parents=True)
    (tmp_path / "evaluation" / "SM1" / "meta" / "0007.pkl").write_bytes(pickle.dumps(meta, 2))
    write(tmp_path / "evaluation.txt", "SM1/0007\n")
    (sample,) = read_dataset("ho3d_v3", tmp_path, "evaluation")
    np.testing.assert_allclose(sample.joints_3d[0], JOINTS[0])
    assert sample.joints_valid.tolist() == [True] + [False] * 20 and sample.box.tolist() == [5, 6, 70, 80]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_rhd(tmp_path, protocol):
    xyz = np.concatenate([JOINTS, JOINTS + (0.1, 0, 0)])
    uv = np.concatenate([projected(xyz), np.ones((42, 1))], axis=1)
    order = list(ORDERS["rhd"])
    places = order + [21 + k for k in order]
    uv_vis, xyz_ = uv[places].copy(), xyz[places].astype(np.float32)
    uv_vis[4, 2] = 0  # left thumb_cmc
    right_hidden = uv_vis.copy()
    right_hidden[21:, 2] = 0
    labels = {
        0: {"uv_vis": uv_vis, "xyz": xyz_, "K": np.array(CAMERA)},
        1: {"uv_vis": right_hidden, "xyz": xyz_, "K": np.array(CAMERA)},
        2: {"uv_vis": uv_vis[:41], "xyz": xyz_, "K": np.array(CAMERA)},
    }
    parts = np.zeros((320, 320), np.uint8)
    parts[0], parts[1, :5], parts[2, :7] = 1, 2, 33
    picture(tmp_path / "training" / "color" / "00000.png", (320, 320))
    picture(tmp_path / "training" / "mask" / "00000.png", values=parts)
    (tmp_path / "training" / "anno_training.pickle").write_bytes(pickle.dumps(labels, protocol))
    left, right, only, *bad = read_dataset("rhd", tmp_path)
    assert (left.side, right.side, only.side) == ("left", "right", "left")
    np.testing.assert_allclose(left.joints_3d, JOINTS, atol=1e-6)
    np.testing.assert_allclose(right.keypoints_2d, projected(JOINTS + (0.1, 0, 0)))
    assert np.flatnonzero(~left.visible).tolist() == [1] and right.visible.all()
    assert left.read_mask().sum() == 5 and right.read_mask().sum() == 7
    assert len(bad) == 2 and all("uv_vis has 41 joints" in s.problem for s in bad)
    (tmp_path / "training" / "anno_training.pickle").write_bytes(pickle.dumps({0: os.system}))
    with pytest.raises(InputError, match=r"posix\.system"):
        list(read_dataset("rhd", tmp_path))


@pytest.mark.parametrize("images", ["images", "."])
def test_stb(tmp_path, images):
    scipy_io = pytest.importorskip("scipy.io")
    palm = JOINTS.copy()
    palm[0] = (JOINTS[0] + JOINTS[9]) / 2
    published = palm[list(ORDERS["stb"])].T * 1000
    (tmp_path / "labels").mkdir()
    for kind in ("Counting", "Random"):
        scipy_io.savemat(tmp_path / "labels" / f"B1{kind}_BB.mat", {"handPara": np.stack([published] * 2, axis=2)})
        picture(tmp_path / images / f"B1{kind}" / "BB_left_0.png", (480, 640))
    samples = list(read_dataset("stb", tmp_path, "test"))
    assert len(samples) == 8 and samples[0].name == "B1Counting/BB_left_0"
    left, right = samples[:2]
    np.testing.assert_allclose(left.joints_3d, JOINTS, err_msg="the wrist is put back beyond the palm")
    assert np.flatnonzero(~left.joints_valid).tolist() == np.flatnonzero(~left.visible).tolist() == [0]
    disparity = left.keypoints_2d[:, 0] - right.keypoints_2d[:, 0]
    np.testing.assert_allclose(disparity, 822.79041 * 0.120054 / JOINTS[:, 2])
    assert left.read_image().shape == (480, 640, 3)
    scipy_io.savemat(tmp_path / "labels" / "B1Counting_BB.mat", {"other": published})
    with pytest.raises(InputError, match="handPara"):
        list(read_dataset("stb", tmp_path, "test"))
