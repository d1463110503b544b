"""Sets of hands with objects and of the head's view: tiny files in the published layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
from reader_files import CAMERA, JOINTS, picture, projected, write

from densehand.data.readers import dataset, dataset_names, read_dataset
from densehand.data.readers.dexycb import SERIALS, _split
from densehand.data.readers.fpha import ORDER
from densehand.errors import InputError
from densehand.hand.keypoints import FINGERTIPS, KEYPOINT_NAMES, KNUCKLES


def test_h2o(tmp_path):
    view = tmp_path / "subject4" / "h1" / "0" / "cam4"
    blank = np.zeros(64)
    hand = np.concatenate([[1], JOINTS.ravel()])
    write(view / "cam_intrinsics.txt", "500 510 112 110 1280 720\n")
    for name, values in (
        ("000000", [blank, hand]),
        ("000001", [hand, hand]),
        ("000002", [hand]),
        ("000003", [blank] * 2),
    ):
        write(view / "hand_pose" / f"{name}.txt", " ".join(map(repr, np.concatenate(values).tolist())))
        picture(view / "rgb" / f"{name}.png")
    write(view / "hand_pose" / "000004.txt", "1 two")
    right, left, both, *bad = read_dataset("h2o", tmp_path, "test")
    assert [s.side for s in (right, left, both)] == ["right", "left", "right"]
    assert right.name == "subject4/h1/0/cam4/000000-right" and right.read_image().shape == (224, 224, 3)
    np.testing.assert_allclose(right.joints_3d, JOINTS)
    np.testing.assert_allclose(right.keypoints_2d, projected())
    assert len(bad) == 4 and "64 numbers, not 128" in bad[0].problem and "not a file of numbers" in bad[-1].problem
    assert "subject3/k2" in dataset("h2o").missing(tmp_path, "val")[0]


def test_fpha_order_is_the_readme_s():
    short = {"T": "thumb", "I": "index", "M": "middle", "R": "ring", "P": "little"}
    readme = [
        "Wrist",
        *(f"{f}MCP" for f in "TIMRP"),
        *(f"{f}{joint}" for f in "TIMRP" for joint in ("PIP", "DIP", "TIP")),
    ]
    place = {"MCP": 0, "PIP": 1, "DIP": 2, "TIP": 3}
    expected = [0] + [KNUCKLES[list(short).index(name[0])] + place[name[1:]] for name in readme[1:]]
    assert list(ORDER) == expected and KEYPOINT_NAMES[ORDER[8]] == "thumb_tip"


@pytest.mark.parametrize("folder", ["Hand_pose_annotation_v1_1", "Hand_pose_annotation_v1"])
def test_fpha(tmp_path, folder):
    published = (JOINTS[list(ORDER)] * 1000).ravel()
    lines = ["0000 " + " ".join(map(repr, published.tolist())), "0001 " + " ".join(map(repr, published[:60].tolist()))]
    write(tmp_path / folder / "Subject_1" / "put_salt" / "1" / "skeleton.txt", "\n".join([*lines, "x y"]) + "\n")
    picture(tmp_path / "Video_files" / "Subject_1" / "put_salt" / "1" / "color" / "color_0000.jpeg", (108, 192))
    good, short, junk = read_dataset("fpha", tmp_path)
    # the README's extrinsics, row by row
    moved = JOINTS * 1000 @ np.array(
        [
            [0.999988496304, 0.00469115935266, -0.000969709653873],
            [-0.00468848412856, 0.999985218048, 0.00274303671904],
            [0.000982563360594, -0.00273845880292, 0.99999576807],
        ]
    ) + (25.7, 1.22, 3.902)
    np.testing.assert_allclose(good.joints_3d, moved / 1000, atol=1e-9)
    intrinsics = [[1395.749023, 0, 935.732544], [0, 1395.749268, 540.681030], [0, 0, 1]]
    np.testing.assert_allclose(good.keypoints_2d, projected(moved, intrinsics))
    assert good.read_image().shape == (108, 192, 3) and good.side == "right"
    assert "20 joints, not 21" in short.problem and junk.problem
    assert list(read_dataset("fpha", tmp_path, "test")) == []


def test_dexycb_splits_do_not_share_and_cover_all():
    for setup in ("s0", "s1", "s2", "s3"):
        seen = []
        for part in ("train", "val", "test"):
            subjects, serials, sequences = _split(f"{setup}_{part}")
            seen += [(s, v, q) for s in subjects for v in serials for q in sequences]
        assert len(set(seen)) == len(seen) == 10 * 8 * 100


def test_dexycb(tmp_path):
    pytest.importorskip("yaml")
    for serial in SERIALS:
        color = json.dumps({"color": {"fx": 500.0, "fy": 510.0, "ppx": 112.0, "ppy": 110.0}})
        write(tmp_path / "calibration" / "intrinsics" / f"{serial}_640x480.yml", color)
    write(tmp_path / "calibration" / "mano_x" / "mano.yml", "betas:\n" + "- 0.5\n" * 10)
    pose = np.arange(51, dtype=np.float32)[None]
    seg = np.zeros((224, 224), np.uint8)
    seg[:3, :3], seg[5, :] = 255, 21
    labels = {"joint_3d": JOINTS[None], "joint_2d": projected()[None], "pose_m": pose, "seg": seg}
    for sequence in range(5):  # places 0…4 of which 4 is not for training
        folder = tmp_path / "20200709-weiy" / f"2020070{sequence}"
        write(folder / "meta.yml", "num_frames: 2\nmano_sides: [left]\nmano_calib: [x]\n")
        for serial in SERIALS:
            (folder / serial).mkdir()
            np.savez(folder / serial / "labels_000000.npz", **labels)
            empty = labels | {"joint_3d": -np.ones((1, 21, 3)), "joint_2d": -np.ones((1, 21, 2))}
            np.savez(folder / serial / "labels_000001.npz", **empty)
    picture(tmp_path / "20200709-weiy" / "20200700" / SERIALS[0] / "color_000000.jpg")
    samples = list(read_dataset("dexycb", tmp_path))
    assert len(samples) == 4 * 8 * 2 and len(list(read_dataset("dexycb", tmp_path, "s0_val"))) == 8 * 2
    good, empty = samples[:2]
    np.testing.assert_allclose(good.joints_3d, JOINTS)
    np.testing.assert_allclose(good.keypoints_2d, projected())
    np.testing.assert_allclose(good.camera, CAMERA)
    assert good.side == "left" and good.hand.kind == "pca" and good.hand.shape.tolist() == [0.5] * 10
    assert good.hand.rotation.tolist() == [0, 1, 2] and good.hand.pose[0] == 3 and good.hand.pose[-1] == 47
    assert good.read_mask().sum() == 9 and good.read_image().shape == (224, 224, 3)
    assert empty.problem is None and empty.joints_3d is None and empty.side is None
    damaged = tmp_path / "20200709-weiy" / "20200700" / SERIALS[0] / "labels_000000.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert "cannot be read" in next(read_dataset("dexycb", tmp_path)).problem
    write(tmp_path / "20200709-weiy" / "20200700" / "meta.yml", "num_frames: 2\n")
    with pytest.raises(InputError, match="mano_sides"):
        next(read_dataset("dexycb", tmp_path))


def test_dexter_object(tmp_path):
    tips = JOINTS[list(FINGERTIPS)] * (-1, -1, 1) * 1000
    tips[2, 2] = 32001
    line = "; ".join(", ".join(map(repr, tip)) for tip in tips.tolist())
    for sequence in ("Grasp1", "Grasp2", "Occlusion", "Rigid", "Pinch", "Rotate"):
        folder = tmp_path / "data" / sequence
        write(folder / "annotations" / f"{sequence}3D.txt", line + ";\n1, 2, 3; 4, 5, 6\n")
        picture(folder / "color" / "image_00001.png")
        picture(folder / "color" / "image_00000.png")
    samples = list(read_dataset("dexter_object", tmp_path))
    assert len(samples) == 12 and samples[0].name == "Grasp1/image_00000"
    assert np.flatnonzero(samples[0].joints_valid).tolist() == [4, 8, 16, 20]
    valid = samples[0].joints_valid
    np.testing.assert_allclose(samples[0].joints_3d[valid], JOINTS[valid])
    assert "2 joints, not 5" in samples[1].problem
    (tmp_path / "data" / "Pinch" / "color" / "image_00001.png").unlink()
    with pytest.raises(InputError, match="1 pictures and 2 labels"):
        list(read_dataset("dexter_object", tmp_path))


def test_ego2hands(tmp_path):
    seg = np.zeros((40, 60), np.uint8)
    seg[2:5, 10:20], seg[30:, 50:] = 50, 100
    folder = tmp_path / "eval" / "eval_seq1_imgs"
    picture(folder / "00001.png", (40, 60))
    picture(folder / "00001_e_l.png", (40, 60))
    picture(folder / "00001_seg.png", values=seg)
    picture(folder / "00002_seg.png", values=np.where(seg == 50, 50, 0).astype(np.uint8))
    (folder / "00003_seg.png").write_bytes(b"no picture")
    left, right, alone, *bad = read_dataset("ego2hands", tmp_path, "test")
    assert (left.side, right.side, alone.side) == ("left", "right", "left")
    assert left.box.tolist() == [10, 2, 20, 5] and right.box.tolist() == [50, 30, 60, 40]
    assert (left.read_mask() == (seg == 50)).all() and (right.read_mask() == (seg == 100)).all()
    assert left.read_image().shape == (40, 60, 3) and alone.image.name == "00002.png"
    assert len(bad) == 2 and all("mask cannot be read" in s.problem for s in bad)
    cut = np.zeros((40, 60, 4), np.uint8)
    cut[:7, :, 3] = 255
    cut[7, :, 3] = 128
    picture(tmp_path / "train" / "subject0" / "0.png", values=cut)
    picture(tmp_path / "train" / "subject0" / "0_energy.png", (40, 60))
    (sample,) = read_dataset("ego2hands", tmp_path, "train")
    assert sample.read_mask().sum() == 7 * 60 and sample.side == "right" and sample.name == "train/subject0/0"


def test_the_documentation_names_every_set_and_split():
    text = (Path(__file__).parent.parent / "docs" / "datasets.md").read_text()
    for name in dataset_names():
        assert f"`{name}`" in text, name
        known = dataset(name)
        splits = known.splits[::11] if name == "dexycb" else known.splits
        row = next((r for r in text.split("## Layout")[1].splitlines() if f"`{name}`" in r), "")
        assert name == "densehand" or all(split in row for split in splits), name
