"""The command `densehand`, from its arguments to its files, messages and exit status."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hands import make_hand
from PIL import Image

from densehand import export
from densehand.cli import run
from densehand.cli.common import choices, output_names
from densehand.errors import InputError
from densehand.network.zoo import available_models, build_model, save_weights
from densehand.result import document, read_document

BOX = [40.0, 30.0, 120.0, 130.0]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    """The default model where its weights are in the package, else a weights file of an untrained one."""
    if "dhpe-lite" in available_models():
        return "dhpe-lite"
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "dhpe-lite.safetensors"
    save_weights(build_model("dhpe-lite"), path)
    return str(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three small pictures: a.jpg, b.png and sub/a.png."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    y, x = np.mgrid[0:150, 0:200]
    pixels = (127 + 120 * np.stack([np.sin(x / 17), np.cos(y / 11), np.sin((x + y) / 13)], -1)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.jpg")
    Image.fromarray(pixels[:, ::-1]).save(folder / "b.png")
    Image.fromarray(pixels[::-1]).save(folder / "sub" / "a.png")
    return folder


def boxes_file(folder: Path, entries: object) -> str:
    path = folder / "boxes.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return str(path)


def lines_of(capsys) -> tuple[list[str], str]:
    out, err = capsys.readouterr()
    return err.splitlines(), out


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


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
    assert (
        run(
            [
                "predict",
                *inputs,
                "--out",
                str(out),
                "--model",
                model,
                "--whole-image",
                "--write",
                "json",
                "--batch",
                "2",
            ]
        )
        == 1
    )
    errors, _ = lines_of(capsys)
    assert names(out) == ["a.json", "b.json"]
    assert errors[-1] == f"2 photos, 2 hands → {out}; 5 failed" and len(errors) == 6
    for name in ("empty.jpg", "text.png", "cut.jpg", "missing.jpg", "nothing"):
        (line,) = [line for line in errors if name in line]
        assert line.startswith("densehand: error: ") and ";" in line


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
    run(
        [
            "predict",
            *inputs,
            "--out",
            str(out),
            "--model",
            model,
            "--boxes",
            boxes_file(tmp_path, entries),
            "--write",
            "json",
        ]
    )
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


def one_error(arguments, capsys) -> str:
    assert run(arguments) == 1
    errors, stdout = lines_of(capsys)
    assert len(errors) == 1 and stdout == "" and errors[0].startswith("densehand: error: ")
    return errors[0]


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
    for text in ("", "[]", "{}", card.replace("dhpe-lite", "dhpe-r50"), card.replace("dhpe-lite", "other")):
        path.with_suffix(".json").write_text(text)
        one_error(predict, capsys)
    path.with_suffix(".json").unlink()
    assert "card" in one_error(predict, capsys)


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
    assert (
        run(
            [
                "predict",
                str(photos),
                str(photos / "sub"),
                "-o",
                str(out),
                "--model",
                model,
                "--whole-image",
                "--write",
                "json",
            ]
        )
        == 0
    )
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


def test_models(capsys):
    assert run(["models"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("dhpe-lite", "dhpe-r50", "efficientnet_lite0"))
    assert run(["models", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert [name for name, card in cards.items() if card] == available_models()


def test_accuracy_text():
    from densehand.cli.models import accuracy_text

    assert accuracy_text({}) == ""
    nested = {"n": 3, "val2d": {"median_px": 12.3456}, "val3d": {"pa_mm": 17.0, "hands": 46}}
    assert accuracy_text(nested) == "n 3; val2d: median_px 12.35; val3d: pa_mm 17, hands 46"


def test_hand_info(capsys, tmp_path):
    assert run(["hand", "info", "--limits"]) == 0
    text = capsys.readouterr().out
    assert "16 joints" not in text and "15 joints" in text and "index_mcp" in text and "UV points" in text
    assert "no hand model" in one_error(["hand", "info", "--hand", str(tmp_path / "none.npz")], capsys)


def test_import_of_a_file_that_is_not_manos(capsys, tmp_path):
    import pickle

    stored = tmp_path / "mano.npz"
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"f": 1}))
    for name in ("none.pkl", "other.pkl"):
        assert name in one_error(["hand", "import-mano", str(tmp_path / name), "--out", str(stored)], capsys)
    assert not stored.exists()


def test_version_and_help(capsys):
    import densehand

    assert run(["--version"]) == 0 and capsys.readouterr().out == f"densehand {densehand.__version__}\n"
    assert run([]) == 2 and "predict" in capsys.readouterr().out
    for command in (["predict"], ["render"], ["models"], ["hand", "info"], ["hand", "import-mano"]):
        assert run([*command, "--help"]) == 0
        assert f"densehand {' '.join(command)} " in capsys.readouterr().out.split("Example:")[1]
    with pytest.raises(SystemExit) as caught:
        from densehand.cli import main

        main(["--version"])
    assert caught.value.code == 0


def test_help_is_quick_and_free_of_heavy_imports():
    code = (
        "import sys; from densehand.cli import run; status = run(['--help']);"
        "heavy = {'torch', 'numpy', 'cv2', 'PIL', 'trimesh'} & set(sys.modules); assert not heavy, heavy;"
        "sys.exit(status)"
    )
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - start < 5  # 0.2 s on an idle machine


def test_the_program_as_installed(photos, tmp_path, model):
    command = [
        sys.executable,
        "-c",
        "from densehand.cli import main; main()",
        "predict",
        str(photos / "a.jpg"),
        "no.jpg",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::SyntaxWarning"}
    command += ["--out", str(tmp_path / "out"), "--model", model, "--whole-image"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.splitlines() == [
        "densehand: error: no.jpg: no such file; check the path",
        f"1 photo, 1 hand → {tmp_path / 'out'}; 1 failed",
    ]
    assert names(tmp_path / "out") == ["a.json", "a.overlay.jpg"]


def test_interrupted(photos, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("densehand.files.ensure_folder", interrupt)
    assert run(["predict", str(photos), "-o", str(tmp_path)]) == 130
    capsys.readouterr()


def test_choices_keep_their_order():
    assert choices("glb, JSON,glb", ("json", "glb"), "--write") == ("json", "glb")
