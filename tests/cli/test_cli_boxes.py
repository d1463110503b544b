"""`densehand predict --boxes`: hands taken from a box file, and box files with faults."""

import pytest
from cli_helpers import BOX, boxes_file, lines_of, names, predict
from PIL import Image

from densehand.cli import run
from densehand.document import read_document


def test_side_in_the_box_file_comes_before_the_option(photos, tmp_path, model):
    boxes = boxes_file(tmp_path, {"a.jpg": [{"box": BOX, "side": "right"}, {"box": BOX}, {"box": BOX, "side": None}]})
    run(
        [
            "predict",
            str(photos / "a.jpg"),
            "-o",
            str(tmp_path),
            "--model",
            model,
            "--boxes",
            boxes,
            "--side",
            "left",
            "-q",
        ]
    )
    assert [hand["side"] for hand in read_document(tmp_path / "a.json")["hands"]] == ["right", "left", "left"]


BAD_BOXES = [
    [10, 10, 10, 50], [10, 10, 50], [10, 10, "50", 60], [10, 10, None, 60], [500, 10, 600, 60], [float("nan"), 0, 9, 9],
    [0, 0, float("inf"), 9], {"x": 1}, None, [True, 0, 9, 9], [1e300, 0, 1e301, 9], [10**400, 0, 10**401, 9],
]  # fmt: skip
BAD_ENTRIES = [
    *([{"box": BOX}, {"box": box}] for box in BAD_BOXES),
    {"box": BOX}, "x", [BOX], [{"box": BOX, "side": "both"}], [{"side": "left"}], None,
]  # fmt: skip


def test_bad_boxes_are_named_and_the_other_photos_done(tmp_path, model, capsys):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    entries = {f"bad{k:02}.png": entry for k, entry in enumerate(BAD_ENTRIES)}
    entries |= {"a_good.png": [{"box": BOX}], "z_good.png": [{"box": BOX, "side": "right"}]}
    for name in entries:
        Image.new("RGB", (200, 150)).save(photos / name)
    boxes = boxes_file(tmp_path, entries)
    assert run(["predict", str(photos), "--out", str(out), "--model", model, "--boxes", boxes, "--write", "json"]) == 1
    errors, _ = lines_of(capsys)
    assert names(out) == ["a_good.json", "z_good.json"]
    assert len(errors) == len(BAD_ENTRIES) + 1
    for k, line in enumerate(errors[:-1]):
        assert line.startswith(f"densehand: error: {photos / f'bad{k:02}.png'}: ") and "box" in line and ";" in line, (
            line
        )
    assert errors[-1] == f"2 photos, 2 hands → {out}; {len(BAD_ENTRIES)} failed"


def test_photos_are_looked_up_by_path_and_then_by_name(photos, tmp_path, model, capsys):
    out = tmp_path / "out"
    entries = {"a.jpg": [{"box": BOX}] * 2, str(photos / "sub" / "a.png"): [{"box": BOX}], "a.png": []}
    inputs = [str(photos), str(photos / "sub")]
    predict(inputs, out, model, "--boxes", boxes_file(tmp_path, entries))
    assert [len(read_document(out / name)["hands"]) for name in ("a.json", "a-2.json")] == [2, 1]
    errors, _ = lines_of(capsys)
    assert "b.png" in errors[0] and "not listed" in errors[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"a"', "[" * 100_000])
def test_a_box_file_that_is_none(photos, tmp_path, capsys, text):
    out = tmp_path / "out"
    assert run(["predict", str(photos), "--out", str(out), "--boxes", boxes_file(tmp_path, text)]) == 1
    errors, _ = lines_of(capsys)
    assert len(errors) == 1 and "boxes.json" in errors[0] and not out.exists()


def test_a_box_file_that_is_missing(photos, tmp_path, capsys):
    assert run(["predict", str(photos), "--out", str(tmp_path), "--boxes", str(tmp_path / "no.json")]) == 1
    assert "no.json" in lines_of(capsys)[0][0]
