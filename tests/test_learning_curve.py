"""Error against pictures seen, from the logs of runs."""

import csv
import json
import sys

import pytest
from PIL import Image
from tool_loader import load_tool

from densehand.errors import InputError


@pytest.fixture(scope="module")
def tool():
    return load_tool("learning_curve")


def make_run(folder, errors, batch=10, final=0.01):
    (folder / "log-0").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"batch": batch, "size": 160, "final_lr": final}))
    names = ("refined_median", "refined_mean", "mesh_median", "mesh_mean")
    with (folder / "log-0" / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "train/loss", *(f"val/{name}" for name in names)])
        writer.writeheader()
        writer.writerow({"step": 1, "train/loss": 3.0})  # logged between measurements
        for step, error in errors.items():
            writer.writerow({"step": step} | {f"val/{name}": error for name in names})
    return folder


def test_a_power_law_is_found_again(tool):
    pictures = [1e4, 1e5, 4e5]
    a, b = tool.power_law(pictures, [30 * n**-0.2 for n in pictures])
    assert (a, b) == pytest.approx((30, 0.2))


def test_runs_are_strung_together(tool, tmp_path, monkeypatch, capsys):
    runs = [make_run(tmp_path / "a", {50: 8.0, 100: 7.0}), make_run(tmp_path / "b", {20: 6.9, 40: 6.5}, final=0.5)]
    runs.append(make_run(tmp_path / "c", {60: 6.0}))
    out, picture = tmp_path / "curve.csv", tmp_path / "curve.png"
    arguments = [*map(str, runs), "--before", "500", "--out", str(out), "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", ["learning_curve", *arguments])
    tool.main()
    rows = list(csv.DictReader(out.open()))
    assert [int(row["pictures"]) for row in rows] == [1000, 1500, 1700, 1900, 2500]
    assert [row["run"] for row in rows] == ["a", "a", "b", "b", "c"]
    said = capsys.readouterr().out
    assert "5 measurements, 2 finished runs" in said
    b = tool.power_law([1500, 2500], [7.0, 6.0])[1]
    assert f"pictures^-{b:.3f}" in said and Image.open(picture).size[0] > 500


def test_folders_that_are_no_runs_are_named(tool, tmp_path):
    with pytest.raises(InputError, match="not the folder of a training run"):
        tool.read_run(tmp_path, 0)
    empty = make_run(tmp_path / "empty", {})
    with pytest.raises(InputError, match="no measurement"):
        tool.read_run(empty, 0)
    with pytest.raises(InputError, match="two finished runs"):
        tool.power_law([1.0], [1.0])
