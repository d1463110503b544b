"""`densehand bench render` with pictures small enough to be quick."""

import csv
from pathlib import Path

import pytest
import torch

from densehand.bench import render as bench
from densehand.cli import bench as command
from densehand.cli import run
from densehand.errors import DependencyError
from densehand.hand.model import HandModel

SMALL = ["bench", "render", "--sizes", "24", "--seconds", "0", "--threads", "1"]


def test_prints_a_table_and_adds_rows_to_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file, threads = tmp_path / "render.csv", torch.get_num_threads()
    arguments = [*SMALL, "--what", "torch,rasterise,shade", "--batches", "2,1", "--csv", str(file), "--commit", "abc"]
    assert run(arguments) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in table] == [["24", n, w] for n in ("1", "2") for w in ("torch", "rasterise", "shade")]
    assert all(float(row[3]) > 0 for row in table)
    assert [row[4] == "-" for row in table] == [False, True, True] * 2
    assert torch.get_num_threads() == threads
    run(arguments)
    rows = list(csv.DictReader(file.open(newline="")))
    assert len(rows) == 12 and {row["commit"] for row in rows} == {"abc"} and {row["threads"] for row in rows} == {"1"}
    assert rows[0]["what"] == "torch" and float(rows[0]["both_ms"]) > 0 and rows[1]["both_ms"] == ""
    assert rows[0]["device"].startswith("cpu") and rows[0]["hands"] == "1" and rows[0]["size"] == "24"


@pytest.mark.parametrize("name", ["numba", "deodr"])
def test_contestants_that_are_installed(name: str, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip(name)
    assert run([*SMALL, "--what", name, "--batches", "2"]) == 0
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row[2] == name and float(row[3]) > 0 and float(row[4]) > 0


def test_what_is_missing_is_left_out_or_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert bench.available(bench.CONTESTANTS, "cpu", strict=False) == ["torch", "soft", "rasterise", "shade"]
    assert bench.available(["torch", "numba"], "cuda", strict=True) == ["torch"]
    with pytest.raises(DependencyError, match=r"numba is not installed; pip install \"densehand\[fast\]\""):
        bench.available(["numba"], "cpu", strict=True)
    assert run([*SMALL, "--what", "deodr"]) == 1
    assert "densehand[bench]" in capsys.readouterr().err


def test_batches_that_would_take_too_long_are_left_out() -> None:
    rows = list(bench.compare(["torch"], [1, 2], [24], seconds=0.0, longest=0.0))
    assert rows[0].forward and rows[0].both and rows[1] == bench.Row("torch", 24, 2, None, None)


def test_wrong_arguments(capsys: pytest.CaptureFixture) -> None:
    for wrong in (["--sizes", "0"], ["--batches", "1,x"], ["--batches", ","], ["--what", "gl"], ["--device", "tpu"]):
        assert run(["bench", "render", *wrong]) == 2
        assert wrong[0] in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert run(["bench", "render", "--device", "cuda"]) == 1
        assert "--device cpu" in capsys.readouterr().err


def test_hands_fill_the_picture_as_crops_do() -> None:
    points = bench.random_hands(HandModel.load("open"), 3, 90)[..., :2]
    extent = (points.amax(dim=1) - points.amin(dim=1)).amax(dim=1)
    assert ((extent > 55) & (extent < 85)).all()
    assert bench.CONTESTANTS == command._CONTESTANTS


def test_the_first_repetition_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 10.0, 10.25, 11.0, 11.5])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    calls: list[int] = []
    assert bench.milliseconds(lambda: calls.append(1), "cpu", 0.3) == pytest.approx(250.0)
    assert len(calls) == 3
