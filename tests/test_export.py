"""Files are read back and hold the hand; a failed write leaves nothing behind."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import trimesh
from hands import make_hand, open_hand
from PIL import Image

from densehand import export
from densehand.document import document, read_document
from densehand.errors import InputError
from densehand.files import ensure_folder, write_atomically, write_bytes
from densehand.result import Hand

GLTF = np.array([1, -1, -1])
SIZE = (240, 320)


def mesh_of(path):
    return trimesh.load(path, force="mesh", process=False)


def chunks_of(path) -> tuple[dict, bytes]:
    """The JSON and the binary chunk of a GLB."""
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def normals_in(path) -> np.ndarray:
    """The normals as the file stores them (trimesh makes its own on loading)."""
    if path.suffix == ".obj":
        lines = path.read_text().splitlines()
        return np.array([line.split()[1:] for line in lines if line.startswith("vn ")], dtype=float)
    content, binary = chunks_of(path)
    accessor = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]
    start = content["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) + accessor.get("byteOffset", 0)
    return np.frombuffer(binary, np.float32, accessor["count"] * 3, start).reshape(-1, 3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["glb", "obj"])
def test_meshes_come_back_upright_and_inside_in(tmp_path, side, kind):
    hand, path = make_hand(side, seed=1), tmp_path / f"hand.{kind}"
    getattr(export, f"write_{kind}")(path, hand)
    mesh = mesh_of(path)
    np.testing.assert_allclose(mesh.vertices, hand.vertices * GLTF, atol=2e-6)
    np.testing.assert_array_equal(mesh.faces, hand.faces)
    assert mesh.is_winding_consistent and mesh.volume > 1e-4
    smooth = export.vertex_normals(hand.vertices * GLTF.astype(np.float32), hand.faces)
    np.testing.assert_allclose(normals_in(path), smooth, atol=2e-4)


def test_glb_says_what_it_is(tmp_path):
    hand = make_hand("left")
    export.write_glb(tmp_path / "a.glb", hand)
    data = (tmp_path / "a.glb").read_bytes()
    assert data[:4] == b"glTF" and int.from_bytes(data[8:12], "little") == len(data)
    content, _ = chunks_of(tmp_path / "a.glb")
    extras = content["scenes"][0]["extras"]
    assert extras["side"] == "left"
    np.testing.assert_allclose(extras["translation"], hand.translation * GLTF, rtol=1e-6)
    material = content["materials"][0]["pbrMetallicRoughness"]
    np.testing.assert_allclose(material["baseColorFactor"], [*export.skin_linear(), 1], atol=0.003)
    assert material["metallicFactor"] == 0
    assert "NORMAL" in content["meshes"][0]["primitives"][0]["attributes"]
    assert any(node.get("name") == "left_hand" for node in content["nodes"])


def test_a_hand_pointing_up_in_the_photo_points_up_in_the_mesh(tmp_path):
    hand = make_hand(turn=(0.0, 0.0, 0.0))  # fingers up, palm to the camera, thumb to the right
    assert hand.joints_3d[12, 1] < -0.1
    export.write_glb(tmp_path / "a.glb", hand)
    vertices = mesh_of(tmp_path / "a.glb").vertices
    assert vertices[:, 1].max() > 0.1 > -vertices[:, 1].min()


def test_vertex_normals_agree_with_a_loop():
    hand = make_hand()
    expected = np.zeros((len(hand.vertices), 3))
    for a, b, c in hand.faces:
        p, q, r = (hand.vertices[k].astype(np.float64) for k in (a, b, c))
        for k in (a, b, c):
            expected[k] += np.cross(q - p, r - p)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(export.vertex_normals(hand.vertices, hand.faces), expected, atol=1e-4)
    lonely = export.vertex_normals(np.zeros((2, 3)), np.zeros((0, 3), dtype=int))
    np.testing.assert_array_equal(lonely, [[0, 0, 1], [0, 0, 1]])


def test_npz_holds_every_field(tmp_path):
    hand = make_hand("left", seed=2)
    export.write_npz(tmp_path / "a.npz", hand)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        absent = {"keypoints_weight"}  # of a hand that has none
        assert set(stored.files) == {field.name for field in dataclasses.fields(Hand)} - absent | {"schema"}
    back = export.read_npz(tmp_path / "a.npz")
    for field in dataclasses.fields(Hand):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(hand, field.name), err_msg=field.name)
    (tmp_path / "b.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"b\.npz"):
        export.read_npz(tmp_path / "b.npz")


def test_mask_and_depth_pictures(tmp_path):
    hand = make_hand("left")
    export.write_mask(tmp_path / "a.mask.png", hand, SIZE)
    export.write_depth(tmp_path / "a.depth.png", hand, SIZE)
    with Image.open(tmp_path / "a.mask.png") as image:
        assert image.mode == "L" and image.size == SIZE[::-1]
        np.testing.assert_array_equal(np.asarray(image), hand.mask(SIZE) * 255)
    with Image.open(tmp_path / "a.depth.png") as image:
        values = np.asarray(image)
        assert image.mode.startswith("I;16") and values.dtype == np.uint16 and image.info["unit_m"] == "0.0001"
    expected = hand.depth(SIZE)
    np.testing.assert_array_equal(values > 0, expected > 0)
    depth = export.read_depth(tmp_path / "a.depth.png")
    np.testing.assert_allclose(depth, expected, atol=export.DEPTH_STEP * 0.51)
    export.write_mask(tmp_path / "b.png", hand, SIZE)
    with pytest.raises(InputError, match="not a depth picture"):
        export.read_depth(tmp_path / "b.png")


def test_json_file(tmp_path):
    hands = [make_hand("left", seed=1), make_hand("right", seed=2)]
    record = document("ünter/fotö.jpg", 320, 240, "dhpe-lite", hands)
    export.write_json(tmp_path / "a.json", record)
    assert read_document(tmp_path / "a.json") == json.loads(json.dumps(record))
    assert "fotö" in (tmp_path / "a.json").read_text(encoding="utf-8")
    Hand.from_json_dict(read_document(tmp_path / "a.json")["hands"][1], open_hand())
    empty = document("a.jpg", 1, 1, "dhpe-lite", [])
    export.write_json(tmp_path / "b.json", empty)
    assert read_document(tmp_path / "b.json") == empty
    export.write_json(tmp_path / "c.json", empty | {"image": "bad\udcff.jpg"})
    assert read_document(tmp_path / "c.json")["image"] == "bad?.jpg"


def test_json_refuses_not_a_number(tmp_path):
    record = document("a.jpg", 320, 240, "dhpe-lite", [make_hand()])
    record["hands"][0]["score"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        export.write_json(tmp_path / "a.json", record)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_pictures(tmp_path, name):
    pixels = np.full((20, 30, 3), (200, 100, 50), dtype=np.uint8)
    export.write_picture(tmp_path / name, pixels)
    with Image.open(tmp_path / name) as image:
        assert np.abs(np.asarray(image).astype(int) - pixels).max() <= 3
        assert image.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name[2:]]


@pytest.mark.parametrize(("name", "rows", "message"), [("a.gif", 2, "suffix"), ("a.jpg", 66_000, "JPEG cannot hold")])
def test_pictures_no_format_can_hold(tmp_path, name, rows, message):
    with pytest.raises(InputError, match=message):
        export.write_picture(tmp_path / name, np.zeros((rows, 8, 3), dtype=np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == tmp_path and temporary.suffix == ".bin"
        raise RuntimeError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.bin"]


def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch):
    hand = make_hand()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        export.write_npz(tmp_path / "a.npz", hand)
    assert os.listdir(tmp_path) == []


def test_long_names_can_be_written(tmp_path):
    path = tmp_path / ("n" * 250 + ".json")
    write_bytes(path, b"{}")
    assert path.read_bytes() == b"{}"


def test_unwritable_places_are_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for action, path in (
        (lambda p: write_bytes(p, b""), tmp_path / "none" / "a.json"),
        (lambda p: write_bytes(p, b""), tmp_path / "folder"),
        (ensure_folder, tmp_path / "file"),
        (ensure_folder, tmp_path / "file" / "deeper"),
    ):
        with pytest.raises(InputError) as caught:
            action(path)
        assert (
            str(path) in str(caught.value) and "\n" not in str(caught.value) and "choose another" in str(caught.value)
        )
    assert ensure_folder(tmp_path / "a" / "b").is_dir() and not list((tmp_path / "a" / "b").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that refuses everyone, root too")
def test_a_folder_nobody_may_write_to():
    for path in ("/proc/densehand", "/proc/self"):
        with pytest.raises(InputError, match="choose another output folder"):
            ensure_folder(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="permission denied"):
            ensure_folder(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    export.write_npz(path, make_hand())
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:40], b""):
        path.write_bytes(part)
        with pytest.raises(InputError, match="write it again"):
            export.read_npz(path)
