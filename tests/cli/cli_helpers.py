"""Pictures, a model and box files for tests of the command, and what it said and wrote."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densehand.cli import run
from densehand.network.zoo import available_models, build_model, save_weights

BOX = [40.0, 30.0, 120.0, 130.0]


def default_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The default model where its weights are in the package, else a weights file of an untrained one."""
    if "dhpe-lite" in available_models():
        return "dhpe-lite"
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "dhpe-lite.safetensors"
    save_weights(build_model("dhpe-lite"), path)
    return str(path)


def three_pictures(folder: Path) -> Path:
    """The folder, made with three small pictures: a.jpg, b.png and sub/a.png."""
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


def predict(inputs: list[str], out: Path, model: str, *more: str) -> int:
    """The exit status of `densehand predict` that writes JSON."""
    return run(["predict", *inputs, "--out", str(out), "--model", model, *more, "--write", "json"])


def lines_of(capsys) -> tuple[list[str], str]:
    out, err = capsys.readouterr()
    return err.splitlines(), out


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def one_error(arguments, capsys) -> str:
    assert run(arguments) == 1
    errors, stdout = lines_of(capsys)
    assert len(errors) == 1 and stdout == "" and errors[0].startswith("densehand: error: ")
    return errors[0]
