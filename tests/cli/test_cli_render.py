"""`densehand render`: the outputs of earlier predictions, made again."""

from pathlib import Path

import numpy as np
from cli_helpers import lines_of, names, one_error
from hands import make_hand
from PIL import Image

from densehand import export
from densehand.cli import run
from densehand.document import document


def test_render_makes_outputs_again_without_a_network(photos, tmp_path, capsys):
    out, size = tmp_path / "out", (150, 200)
    hands = [make_hand("left", size, 80, seed=1), make_hand("right", size, 60, (150, 70))]
    export.write_json(tmp_path / "a.json", document("elsewhere/a.jpg", 200, 150, "dhpe-lite", hands))
    arguments = ["render", str(tmp_path / "a.json"), "--out", str(out)]
    assert run([*arguments, "--photos", str(photos), "--write", "overlay,mask,npz,glb"]) == 0
    assert names(out) == ["a.0.glb", "a.0.mask.png", "a.0.npz", "a.1.glb", "a.1.mask.png", "a.1.npz", "a.overlay.jpg"]
    with Image.open(out / "a.0.mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask) > 0, hands[0].mask(size))
    lines_of(capsys)
    assert "--photos" in one_error([*arguments, "-q"], capsys)
    assert "200×150" in one_error([*arguments, "-q", "--photos", str(small_copy(photos, tmp_path))], capsys)
    assert run([*arguments, "--write", "json"]) == 2


def small_copy(photos: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    with Image.open(photos / "a.jpg") as image:
        image.resize((100, 75)).save(folder / "a.jpg")
    return folder


def test_render_names_bad_predictions_and_goes_on(photos, tmp_path, capsys):
    folder = tmp_path / "json"
    folder.mkdir()
    export.write_json(
        folder / "good.json", document(str(photos / "a.jpg"), 200, 150, "m", [make_hand(size=(150, 200))])
    )
    (folder / "bad.json").write_text("{}")
    broken = document(str(photos / "a.jpg"), 200, 150, "m", [make_hand(size=(150, 200))])
    broken["hands"][0]["pose"] = [0.0]
    export.write_json(folder / "broken.json", broken)
    (tmp_path / "empty").mkdir()
    assert run(["render", str(folder), str(tmp_path / "empty"), "-o", str(tmp_path / "out")]) == 1
    errors, _ = lines_of(capsys)
    assert names(tmp_path / "out") == ["good.overlay.jpg"] and len(errors) == 4
    assert all(any(word in line for line in errors) for word in ("empty", "bad.json", "broken.json", "3 failed"))
