"""The command `densehand` as a whole: help, version, exit status, and the small subcommands."""

import json
import os
import subprocess
import sys

import pytest
from cli_helpers import names, one_error

from densehand.cli import run
from densehand.cli.common import choices
from densehand.network.zoo import available_models


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


def test_help_is_free_of_heavy_imports():
    code = (
        "import sys; from densehand.cli import run; status = run(['--help']);"
        "heavy = {'torch', 'numpy', 'cv2', 'PIL', 'trimesh'} & set(sys.modules); assert not heavy, heavy;"
        "sys.exit(status)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


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
