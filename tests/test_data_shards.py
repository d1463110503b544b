"""densehand's own format: folders with label files, and shards."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reader_files import CAMERA, JOINTS, picture, png, projected, write

from densehand.data.readers import own, read_dataset
from densehand.errors import InputError

ROW = {
    "side": "left",
    "box": [1, 2, 30, 40],
    "keypoints_px": projected().tolist(),
    "visible": [1] * 20 + [0],
    "joints_m": JOINTS.tolist(),
    "joints_valid": [True] * 20 + [False],
    "camera": CAMERA,
    "hand": {"model": "mano", "pose": [0.1] * 45, "shape": [0.0] * 10, "rotation": [0, 1, 0], "kind": "pca"},
}


def check_row(sample):
    assert sample.problem is None and sample.side == "left" and sample.box.tolist() == [1, 2, 30, 40]
    np.testing.assert_allclose(sample.keypoints_2d, projected())
    np.testing.assert_allclose(sample.joints_3d, JOINTS)
    assert sample.visible.sum() == sample.joints_valid.sum() == 20
    assert sample.hand.kind == "pca" and sample.hand.rotation.tolist() == [0, 1, 0]
    assert sample.read_mask().sum() == 6 and sample.read_image().shape == (224, 224, 3)


def test_own_folder_format_and_its_older_kin(tmp_path):
    picture(tmp_path / "sub" / "a.png")
    mask = np.zeros((224, 224), np.uint8)
    mask[:2, :3] = 255
    picture(tmp_path / "a.mask.png", values=mask)
    fixture = {"image": "sub/a.png", "joints_mm": (JOINTS * 1000).tolist(), "intrinsics": [500, 510, 112, 110]}
    bad = [{"image": "../a.png"}, {"image": "sub/a.png", "keypoints_px": [[1, 2]] * 20}, {"side": "left"}, [1]]
    rows = [{"image": "sub/a.png", "mask": "a.mask.png", **ROW}, fixture, *bad]
    write(tmp_path / "labels.jsonl", "\n".join(map(json.dumps, rows)) + "\n{\n\n")
    first, second, *others = read_dataset("densehand", tmp_path)
    check_row(first)
    np.testing.assert_allclose(second.joints_3d, JOINTS)
    np.testing.assert_array_equal(second.camera, CAMERA)
    told = ("does not lie", "has 20 joints, not 21", "does not lie", "not a JSON object", "not JSON")
    assert len(others) == len(told) and all(text in s.problem for s, text in zip(others, told, strict=True))
    assert len(list(read_dataset("densehand", tmp_path, "labels"))) == 7, "each file is a split"


def test_numbers_that_are_not_known_are_null(tmp_path):
    picture(tmp_path / "a.png")
    gaps, space = projected().tolist(), JOINTS.tolist()
    gaps[3], space[5] = [None, None], [None] * 3
    row = {key: value for key, value in ROW.items() if key not in ("visible", "joints_valid")}
    write(tmp_path / "labels.jsonl", json.dumps({"image": "a.png", **row, "keypoints_px": gaps, "joints_m": space}))
    (sample,) = read_dataset("densehand", tmp_path)
    assert sample.problem is None and not sample.visible[3] and not sample.joints_valid[5]
    assert sample.visible.sum() == sample.joints_valid.sum() == 20


def test_what_synth_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    from densehand.synth.batch import SynthBatch
    from densehand.synth.sheet import FolderWriter

    def some(*shape):
        return torch.rand(1, *shape)

    quaternion = torch.tensor([[0.9, 0.3, -0.2, 0.1]]) / torch.tensor([0.9, 0.3, -0.2, 0.1]).norm()
    flags = torch.ones(1, 32, 32, dtype=torch.bool)
    batch = SynthBatch(
        some(3, 32, 32), some(21, 2), some(21, 3), some(63), some(45), some(10), quaternion, some()[0:1], some(3),
        flags, flags, some(32, 32), torch.ones(1, 21, dtype=torch.bool), some(), torch.zeros(1, dtype=torch.int64),
        some(),
    )  # fmt: skip
    writer = FolderWriter(tmp_path)
    writer.add(batch)
    writer.close()
    (sample,) = read_dataset("densehand", tmp_path)
    assert sample.problem is None and sample.hand.model == "open" and sample.side == "right"
    np.testing.assert_array_equal(sample.read_mask(), flags[0].numpy())
    import roma

    expected = roma.unitquat_to_rotvec(quaternion[0][[1, 2, 3, 0]].double()).numpy()
    np.testing.assert_allclose(sample.hand.rotation, expected, atol=1e-4)


def shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_shards_give_the_same_samples_and_read_no_pickles(tmp_path, monkeypatch):
    mask = np.zeros((224, 224), np.uint8)
    mask[:3, :2] = 255
    image = png(np.full((224, 224, 3), 50, np.uint8))
    label = json.dumps(ROW).encode()
    members = [("x/a.json", label), ("x/a.pkl", b"\x80\x04."), ("x/a.png", image), ("x/a.mask.png", png(mask))]
    members += [("x/b.png", image), ("c.json", label), ("d.json", b"{}"), ("d.jpg", b"not a picture"), ("e.txt", b"e")]
    shard(tmp_path / "0.tar", members)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    a, b, c, d = read_dataset("densehand", tmp_path)
    check_row(a)
    assert a.name == "0.tar:x/a" and "lacks .json" in b.problem and "lacks a picture" in c.problem
    assert d.problem is None
    with pytest.raises(InputError, match="not a JPEG, PNG or WebP"):
        d.read_image()


def test_shards_are_bounded_and_damage_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "MAX_PICTURE", 1000)
    shard(tmp_path / "0.tar", [("a.json", b"{}"), ("a.png", b"0" * 1001), ("b.json", b"{}"), ("b.png", b"1" * 1000)])
    large, fits = read_dataset("densehand", tmp_path)
    assert "above the size" in large.problem and fits.problem is None
    data = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(data[:700])
    assert "damaged" in list(read_dataset("densehand", tmp_path))[-1].problem
    link = tarfile.TarInfo("a.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.addfile(link)
    assert list(read_dataset("densehand", tmp_path)) == []


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6), cut=st.integers(0, 10240))
def test_no_shard_makes_reading_crash(tmp_path, flips, cut):
    small = json.dumps({"side": "left", "box": [0, 0, 2, 2]}).encode()
    shard(tmp_path / "0.tar", [("a.json", small), ("a.png", png(np.zeros((3, 3, 3), np.uint8))), ("b.json", small)])
    data = bytearray((tmp_path / "0.tar").read_bytes())
    for place, value in flips:
        data[place] = value
    (tmp_path / "0.tar").write_bytes(data[: cut or None])
    for sample in read_dataset("densehand", tmp_path):
        try:
            assert sample.read_image().ndim == 3
        except InputError:
            continue
