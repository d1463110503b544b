"""`densehand predict`, from its arguments to its files, messages and exit status."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from cli_helpers import BOX, boxes_file, lines_of, names, one_error, predict
from PIL import Image

from densehand import export
from densehand.cli import run
from densehand.cli.common import output_names
from densehand.document import read_document
from densehand.errors import InputError
from densehand.network.zoo import build_model, save_weights


def test_boxes_to_every_output(photos, tmp_path, model, capsys):
    out = tmp_path / "new" / "out"
    boxes = boxes_file(
        tmp_path, {"a.jpg": [{"box": BOX, "side": "left"}, {"box": [100, 20, 160, 80], "side": None}], "b.png": []}
    )
    status = run([
        "predict", str(photos), "--out", str(out), "--model", model, "--boxes", boxes, "--device", "cpu",
        "--write", "json,overlay,glb,obj,npz,mask,depth",
    ])  # fmt: skip
    errors, stdout = lines_of(capsys)
    assert status == 0 and stdout == "" and errors == [f"2 photos, 2 hands → {out}"]
    per_hand = [f"a.{k}.{kind}" for k in (0, 1) for kind in ("glb", "obj", "npz", "mask.png", "depth.png")]
    assert names(out) == sorted([*per_hand, "a.json", "a.overlay.jpg", "b.json", "b.overlay.jpg"])
    record = read_document(out / "a.json")
    assert record["image"] == str(photos / "a.jpg") and (record["width"], record["height"]) == (200, 150)
    assert record["model"] == "dhpe-lite" and record["hands"][0]["side"] == "left" and record["hands"][0]["box"] == BOX
    assert read_document(out / "b.json")["hands"] == []
    stored = export.read_npz(out / "a.0.npz")
    np.testing.assert_allclose(stored.joints_3d, record["hands"][0]["joints_3d"], atol=1e-6)
    mesh = trimesh.load(out / "a.0.glb", force="mesh", process=False)
    np.testing.assert_allclose(mesh.vertices, stored.vertices * [1, -1, -1], atol=1e-6)
    for name in ("a.overlay.jpg", "a.1.mask.png", "a.1.depth.png"):
        with Image.open(out / name) as image:
            assert image.size == (200, 150)


def test_whole_image_and_side(photos, tmp_path, model):
    out = tmp_path / "out"
    arguments = ["predict", str(photos / "a.jpg"), "-o", str(out), "--model", model, "--whole-image", "--side", "left"]
    assert run([*arguments, "--focal", "321", "--quiet", "--write", "json"]) == 0
    (hand,) = read_document(out / "a.json")["hands"]
    assert hand["side"] == "left" and hand["side_score"] == 1 and hand["camera"]["focal_px"] == 321
    assert names(out) == ["a.json"]


def test_a_photo_without_hands(tmp_path, model, capsys):
    Image.new("RGB", (160, 120), (128, 128, 128)).save(tmp_path / "grey.png")
    out = tmp_path / "out"
    assert run(["predict", str(tmp_path / "grey.png"), "--out", str(out), "--model", model]) == 0
    assert read_document(out / "grey.json")["hands"] == [] and (out / "grey.overlay.jpg").is_file()
    assert lines_of(capsys)[0] == [f"1 photo, 0 hands → {out}"]


def test_quiet_says_nothing(photos, tmp_path, model, capsys):
    assert run(["predict", str(photos), "-o", str(tmp_path), "--model", model, "--whole-image", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_bad_files_are_named_and_the_others_done(photos, tmp_path, model, capsys):
    (photos / "empty.jpg").touch()
    (photos / "text.png").write_text("hello")
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:600])
    (tmp_path / "nothing").mkdir()
    out = tmp_path / "out"
    inputs = [str(photos), str(photos / "missing.jpg"), str(tmp_path / "nothing")]
    assert predict(inputs, out, model, "--whole-image", "--batch", "2") == 1
    errors, _ = lines_of(capsys)
    assert names(out) == ["a.json", "b.json"]
    assert errors[-1] == f"2 photos, 2 hands → {out}; 5 failed" and len(errors) == 6
    for name in ("empty.jpg", "text.png", "cut.jpg", "missing.jpg", "nothing"):
        (line,) = [line for line in errors if name in line]
        assert line.startswith("densehand: error: ") and ";" in line


@pytest.mark.parametrize("arguments", [
    ["--write", "json,png"], ["--write", ""], ["--side", "both"], ["--refine", "-1"], ["--refine", "x"],
    ["--batch", "0"], ["--focal", "0"], ["--focal", "nan"], ["--focal", "inf"],
    ["--nonsense"], ["--whole-image", "--boxes", "b.json"],
])  # fmt: skip
def test_bad_usage_is_two(photos, tmp_path, capsys, arguments):
    out = tmp_path / "out"
    assert run(["predict", str(photos), "--out", str(out), *arguments]) == 2
    errors, stdout = lines_of(capsys)
    assert len(errors) == 1 and errors[0].startswith("densehand: error: ") and stdout == "" and not out.exists()
    assert arguments[0] in errors[0] and "--help" in errors[0]


def test_missing_arguments_are_bad_usage(photos, capsys):
    assert run(["predict", str(photos)]) == 2 and run(["predict", "--out", "x"]) == 2 and run(["nonsense"]) == 2
    errors, _ = lines_of(capsys)
    assert len(errors) == 3 and "--out" in errors[0] and "INPUT" in errors[1] and "nonsense" in errors[2]


def test_unknown_model(photos, tmp_path, capsys):
    message = one_error(["predict", str(photos), "--out", str(tmp_path), "--model", "dhpe-xl"], capsys)
    assert "dhpe-xl" in message and "dhpe-lite" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_where_there_is_none(photos, tmp_path, model, capsys):
    message = one_error(["predict", str(photos), "-o", str(tmp_path), "--model", model, "--device", "cuda"], capsys)
    assert "cuda" in message and "--device cpu" in message


def test_wrong_weights_files(photos, tmp_path, capsys):
    torch.manual_seed(0)
    path = tmp_path / "dhpe-lite.safetensors"
    save_weights(build_model("dhpe-lite"), path)
    good, card = path.read_bytes(), path.with_suffix(".json").read_text()
    predict = ["predict", str(photos), "-o", str(tmp_path / "out"), "--model", str(path), "--whole-image"]
    for data in (b"", good[:1000], good[:-1] + b"x", b"not weights"):
        path.write_bytes(data)
        assert str(path) in one_error(predict, capsys)
    path.unlink()
    assert str(path) in one_error(predict, capsys)
    path.write_bytes(good)
    for text in ("", "[]", "{}"):
        path.with_suffix(".json").write_text(text)
        assert "not a model card" in one_error(predict, capsys)
    for text in (card.replace("dhpe-lite", "dhpe-r50"), card.replace("dhpe-lite", "other")):
        path.with_suffix(".json").write_text(text)
        one_error(predict, capsys)
    path.with_suffix(".json").unlink()
    assert "no model card beside it" in one_error(predict, capsys)


def test_the_document_names_the_weights_file(photos, tmp_path):
    torch.manual_seed(0)
    save_weights(build_model("dhpe-lite"), tmp_path / "mine.safetensors")
    model, out = str(tmp_path / "mine.safetensors"), tmp_path / "out"
    assert predict([str(photos / "a.jpg")], out, model, "--whole-image", "--quiet") == 0
    assert read_document(out / "a.json")["model"] == "mine.safetensors"


def test_files_of_hands_that_are_no_more_go(photos, tmp_path, model):
    out, photo = tmp_path / "out", str(photos / "a.jpg")
    for boxes in ([BOX, BOX, BOX], [BOX], []):
        entries = boxes_file(tmp_path, {"a.jpg": [{"box": box, "side": "left"} for box in boxes]})
        command = ["predict", photo, "-o", str(out), "--model", model, "--boxes", entries, "--write", "json,npz", "-q"]
        assert run(command) == 0
        assert names(out) == sorted(["a.json", *(f"a.{k}.npz" for k in range(len(boxes)))])


def test_an_interrupted_run_says_so(photos, tmp_path, model, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("densehand.images.read_image", stop)
    assert predict([str(photos)], tmp_path / "out", model) == 130
    assert "files written so far are whole" in capsys.readouterr().err


def test_unwritable_output_folder(photos, tmp_path, model, capsys):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        assert str(out) in one_error(["predict", str(photos), "--out", str(out), "--model", model], capsys)


def test_an_output_that_cannot_be_written_is_named_and_the_others_done(photos, tmp_path, model, capsys):
    out = tmp_path / "out"
    (out / "a.json" / "in the way").mkdir(parents=True)
    status = run(["predict", str(photos), "--out", str(out), "--model", model, "--whole-image", "--write", "json"])
    errors, _ = lines_of(capsys)
    assert status == 1 and str(out / "a.json") in errors[0] and names(out) == ["a.json", "b.json"]


def test_a_photo_that_fails_in_its_group_fails_alone(photos, tmp_path, model, monkeypatch, capsys):
    from densehand.pipeline import HandEstimator

    Image.new("RGB", (64, 64)).save(photos / "b.png")
    original = HandEstimator.estimate

    def estimate(self, group):
        if any(photo.image.shape == (64, 64, 3) for photo in group):
            raise InputError("the network's answer is not finite; give another photo")
        return original(self, group)

    monkeypatch.setattr(HandEstimator, "estimate", estimate)
    out = tmp_path / "out"
    arguments = ["predict", str(photos), str(photos / "sub"), "-o", str(out), "--model", model, "--whole-image"]
    assert run([*arguments, "--write", "json"]) == 1
    errors, _ = lines_of(capsys)
    assert names(out) == ["a-2.json", "a.json"] and str(photos / "b.png") in errors[0] and len(errors) == 2


def test_few_large_photos_are_held_at_a_time(photos, tmp_path, model, monkeypatch):
    from densehand.pipeline import HandEstimator

    groups, original = [], HandEstimator.estimate
    monkeypatch.setattr(HandEstimator, "estimate", lambda self, p: groups.append(len(p)) or original(self, p))
    arguments = ["predict", str(photos), str(photos / "sub"), "-o", str(tmp_path / "out"), "--model", model, "-q"]
    for limit, batch, expected in ((70_000, 9, [2, 1]), (1, 9, [1, 1, 1]), (10**9, 2, [2, 1]), (10**9, 9, [3])):
        groups.clear()
        monkeypatch.setattr("densehand.cli.predict._MAX_GROUP_PIXELS", limit)
        assert run([*arguments, "--whole-image", "--write", "json", "--batch", str(batch)]) == 0
        assert groups == expected


def test_same_names_do_not_overwrite_each_other(photos, tmp_path, model):
    out = tmp_path / "out"
    assert predict([str(photos), str(photos / "sub")], out, model, "--whole-image") == 0
    assert names(out) == ["a-2.json", "a.json", "b.json"]
    assert read_document(out / "a-2.json")["image"] == str(photos / "sub" / "a.png")


def test_output_names():
    paths = [Path(p) for p in ("x/a.jpg", "y/a.png", "z/A.png", "a-2.jpg", "b.tar.jpg", "b.jpg", ".jpg")]
    assert output_names(paths) == ["a", "a-3", "A-4", "a-2", "b.tar", "b", ".jpg"]
    assert output_names([]) == []


def test_outputs_beside_the_photos_are_not_taken_for_photos(photos, model):
    write = "json,overlay,mask,depth"
    for _ in range(2):
        run(["predict", str(photos), "-o", str(photos), "--model", model, "--whole-image", "-q", "--write", write])
    found = [name for name in names(photos) if name.endswith(".json")]
    assert found == ["a.json", "b.json"]
