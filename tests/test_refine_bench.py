"""`densehand bench refine`: its figures are those of the hands it measures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hands import make_hand
from PIL import Image

from densehand.bench import refine as bench
from densehand.bench.curves import draw_curves
from densehand.cli import run
from densehand.metrics import mask_iou


def fixtures(folder: Path) -> Path:
    """A val2d.jsonl and a val3d.jsonl of one made-up hand each, before a picture of noise."""
    hand, rng = make_hand("right"), np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)).save(folder / "a.png")
    row = {"image": "a.png", "source": "made", "side": "right", "keypoints_px": hand.keypoints_2d.tolist()}
    camera = [hand.focal_px, hand.focal_px, *hand.center_px.tolist()]
    solid = {
        "joints_mm": (1000 * (hand.joints_3d + hand.translation)).tolist(),
        "vertices_mm": (1000 * (hand.vertices + hand.translation)).tolist(), "intrinsics": camera,
    }  # fmt: skip
    (folder / "val2d.jsonl").write_text(json.dumps(row | {"visible": [True] * 20 + [False]}) + "\n")
    (folder / "val3d.jsonl").write_text(json.dumps(row | solid) + "\n")
    return folder


def test_prints_every_mode_and_keeps_rows_and_a_picture(tmp_path, capsys):
    file, picture, threads = tmp_path / "r.csv", tmp_path / "curve.png", torch.get_num_threads()
    arguments = ["bench", "refine", "--hands", "2", "--paper", "1", "--paper-steps", "1", "--csv", str(file)]
    more = ["--commit", "abc", "--picture", str(picture), "--fixtures", str(fixtures(tmp_path))]
    assert run([*arguments, *more]) == 0
    assert torch.get_num_threads() == threads
    text = capsys.readouterr().out
    assert "ms a step and hand" in text
    rows = list(csv.DictReader(file.open(newline="")))
    assert [row["mode"] for row in rows if row["data"] == "synthetic"] == list(bench.MODES)
    assert {row["commit"] for row in rows} == {"abc"}
    by = {(row["data"], row["mode"]): row for row in rows}
    hands = {mode: by["synthetic", mode]["hands"] for mode in bench.MODES}
    assert hands["off"] == hands["oracle"] == "2" and hands["paper"] == hands["same off"] == "1"
    off, oracle = (float(by["synthetic", mode]["mesh_px"]) for mode in ("off", "oracle"))
    assert oracle < 0.7 * off and by["synthetic", "keypoints"]["pa_mm"] == ""
    assert float(by["synthetic", "fast"]["cpu_ms"]) > 0 and 0 < float(by["synthetic", "off"]["iou"]) < 1
    assert by["val2d", "fast"]["iou"] == "" and by["val2d", "off"]["hands"] == by["val2d", "keypoints"]["hands"] == "1"
    assert float(by["val3d", "off"]["iou"]) >= 0 and float(by["val3d", "paper"]["pa_mm"]) > 0
    assert Image.open(picture).size[0] > 800  # two panels


@pytest.mark.parametrize("options", [["--hands", "0"], ["--paper", "0", "--picture", "x.png"], ["--paper-steps", "0"]])
def test_wrong_command_lines(options):
    assert run(["bench", "refine", *options]) == 2


@pytest.mark.parametrize("pixels", [60, 150])
def test_the_mask_of_vertices_is_nearly_the_meshes(pixels):
    """The truth is the rendered mesh, which the closed points only come near: gaps between fingers may fill."""
    hand = make_hand("right", pixels=pixels, turn=(0.0, 0.3, 0.0))
    camera = np.array([1e5, 1e5, *hand.center_px])  # so far that perspective is weak
    place = np.append((hand.wrist_px - hand.center_px) / hand.scale, 1e5 / hand.scale)
    found = bench.vertex_mask(hand.vertices + place, camera, (240, 320))
    assert mask_iou(found, hand.mask((240, 320))) > (0.8 if pixels < 100 else 0.85)
    cut = bench.vertex_mask(hand.vertices + place, camera, (110, 150))  # a smaller picture is a part of it
    assert (cut != found[:110, :150]).sum() <= 3
    assert not bench.vertex_mask(hand.vertices + place + [1e3, 0, 0], camera, (240, 320)).any()


def test_curves_of_any_figures_can_be_drawn(tmp_path):
    flat = bench.Curve([0, 1], [3.0, 3.0], [2.0, 2.0])
    long = bench.Curve(list(range(51)), list(np.linspace(9, 3, 51)), list(np.linspace(5, 2, 51)))
    draw_curves(tmp_path / "a.png", {"fast": flat, "paper": long}, "made-up figures")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3).astype(int)
    for colour in ((196, 60, 40), (30, 96, 180)):  # both curves are there
        assert (np.abs(pixels - colour).max(1) < 60).sum() > 20
    draw_curves(tmp_path / "b.png", {"fast": bench.Curve([0], [1.0], [1.0])}, "one point")
