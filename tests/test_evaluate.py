"""Measuring on fixtures, and the command: figures of an estimator that knows the truth, runs stopped and continued."""

import csv
import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from evaluation_cases import fake_estimator, make_dataset, read_rows, write_rows

from densehand.cli import run as densehand
from densehand.errors import InputError
from densehand.evaluate import append_rows, by_source, labelled_box, measure, read_fixture, summary
from densehand.report import HandErrors

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(20, 80, (21, 2))
JOINTS = (RNG.normal(0, 40, (21, 3)) + (0, 0, 500)) / 1000


@pytest.fixture
def folder(tmp_path):
    cv2.imwrite(str(tmp_path / "hand.png"), np.zeros((100, 100, 3), np.uint8))
    row = {"image": "hand.png", "source": "drawn", "side": "left", "keypoints_px": TRUTH.tolist()}
    visible = [True] * 20 + [False]
    (tmp_path / "val2d.jsonl").write_text(json.dumps({**row, "visible": visible}) + "\n")
    (tmp_path / "val3d.jsonl").write_text(json.dumps({**row, "joints_mm": (1000 * JOINTS).tolist()}) + "\n\n")
    return tmp_path


# ---- fixtures


def test_errors_are_in_pixels_of_a_224_crop(folder):
    (hand,) = measure(fake_estimator(TRUTH, JOINTS, pixels=2.0), folder, "val2d.jsonl")
    box = labelled_box(read_fixture(folder, "val2d.jsonl")[0])
    side = max(box[2] - box[0], box[3] - box[1]) * 1.5
    assert np.isnan(hand.errors["px"]).tolist() == [False] * 20 + [True], "hidden keypoints are not measured"
    np.testing.assert_allclose(hand.errors["px"][:20], 2.0 * 224 / side)
    np.testing.assert_allclose(hand.errors["mesh_px"][:20], 4.0 * 224 / side)
    assert "pa_mm" not in hand.errors and hand.scores["side_right"] == 1


def test_3d_errors_are_in_millimetres(folder):
    (hand,) = measure(fake_estimator(TRUTH, JOINTS, metres=0.021), folder, "val3d.jsonl")
    assert hand.errors["root_mm"].mean() == pytest.approx(1.0), "21 mm at one of 21 joints"
    assert 0.5 < hand.errors["pa_mm"].mean() <= 21 / 21**0.5, "alignment can only lower the root mean square"
    (perfect,) = measure(fake_estimator(TRUTH, JOINTS), folder, "val3d.jsonl")
    assert perfect.errors["pa_mm"].max() < 1e-6


def test_summary_by_source(folder):
    groups = by_source(measure(fake_estimator(TRUTH, JOINTS, pixels=1.0), folder, "val3d.jsonl"))
    assert set(groups) == {"all", "drawn"} and groups["all"] == groups["drawn"]
    assert groups["all"]["hands"] == 1 and groups["all"]["side_right"] == 1.0


def test_missed_hands_count_in_the_share_and_in_no_mean():
    hands = [HandErrors("a", {"px": np.full(21, 2.0)}), HandErrors("b", {"px": np.full(21, np.inf)})]
    assert summary(hands) == {"hands": 2, "missed": 0.5, "median_px": 2.0, "mean_px": 2.0}


def test_files_that_are_no_fixtures(tmp_path):
    with pytest.raises(InputError, match=r"val2d\.jsonl: no such fixture"):
        read_fixture(tmp_path, "val2d.jsonl")
    for text, message in (("{", "not JSON"), ('{"keypoints_px": [[1, 2]]}', "21×2")):
        (tmp_path / "val2d.jsonl").write_text(text)
        with pytest.raises(InputError, match=message):
            read_fixture(tmp_path, "val2d.jsonl")


def test_results_files_grow_and_may_gain_columns(tmp_path):
    path = tmp_path / "results.csv"
    append_rows(path, [{"a": 1}])
    append_rows(path, [{"a": 2, "b": 3}])
    with path.open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [{"a": "1", "b": ""}, {"a": "2", "b": "3"}]
    path.write_bytes(b"\xff\xd8\xff\xe0")
    for bad in (path, tmp_path / "none" / "results.csv"):
        with pytest.raises(InputError, match=bad.name):
            append_rows(bad, [{"a": 1}])


# ---- the command


@pytest.fixture
def fake_model(monkeypatch):
    """`HandEstimator` gives a model that is 3 px off."""
    made = []

    def build(*arguments, **options):
        made.append((arguments, options))
        return fake_estimator(TRUTH, JOINTS, pixels=3.0)

    monkeypatch.setattr("densehand.pipeline.HandEstimator", build)
    return made


def test_the_plain_way_of_calling_it(folder, fake_model, capsys):
    assert densehand(["evaluate", str(folder), "--csv", str(folder / "r.csv"), "--commit", "abc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines] == [
        [part, source, "hands", "1"] for part in ("val2d", "val3d") for source in ("all", "drawn")
    ]
    names = lines[2].split()[2::2]
    assert names == ["hands", "median_px", "mean_px", "mesh_px", "pa_mm", "root_mm", "side_right", "score_ece"]
    plain = {"device": "auto", "refine": 0, "consensus": False, "hand": None, "precision": "auto"}
    assert fake_model == [(("dhpe-lite",), plain)]
    with (folder / "r.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert list(row)[:7] == ["model", "refine", "commit", "fixture", "source", "hands", "median_px"]
    assert (row["model"], row["commit"], row["fixture"], row["source"]) == ("fake", "abc", "val2d", "all")


def keypoints_file(path, dataset, off=1.0):
    """Another system's predictions of the dataset, `off` px to the right."""
    rows = [
        {"schema": "densehand-keypoints/1", "image": row["image"], "milliseconds": 7.0,
         "hands": [{"keypoints_2d": (np.array(row["keypoints_px"]) + (off, 0)).tolist(), "side": row["side"]}]}
        for row in read_rows(dataset)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_two_systems_in_one_report_and_again(tmp_path, fake_model, capsys):
    data = make_dataset(tmp_path / "data")
    file, out = keypoints_file(tmp_path / "other.jsonl", data), tmp_path / "out"
    command = ["evaluate", str(data), "-d", "densehand", "--model", "m", "--predictions", f"theirs={file}"]
    assert densehand([*command, "--report", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert [s["name"] for s in report["systems"]] == ["fake", "theirs"] and report["dataset"] == "densehand"
    assert [s["all"]["hands"] for s in report["systems"]] == [6, 6]
    theirs = report["systems"][1]["all"]
    assert theirs["ms"]["median"] == 7 and theirs["scores"]["side_right"] == 1 and "pa_mm" not in theirs
    page = (out / "report.html").read_text()
    assert page.count("<img ") == 12 and "theirs" in page
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert densehand([*command, "--report", str(out)]) == 0
    assert "continuing after 6 hands" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before, "all is there, nothing is done again"


def test_freihand_results_beside_the_published_ones(tmp_path, capsys):
    """FreiHAND's evaluation split in its published layout; predictions moved, turned and scaled: PA errors are 0."""
    root, rng = tmp_path / "freihand", np.random.default_rng(0)
    (root / "evaluation/rgb").mkdir(parents=True)
    joints, vertices = (rng.normal(0, 0.04, (4, count, 3)) + (0, 0, 0.6) for count in (21, 778))
    for index in range(4):
        cv2.imwrite(str(root / f"evaluation/rgb/{index:08d}.jpg"), np.zeros((224, 224, 3), np.uint8))
    files = {"K": [[[480, 0, 112], [0, 480, 112], [0, 0, 1]]] * 4, "xyz": joints.tolist(), "verts": vertices.tolist()}
    for name, content in files.items():
        (root / f"evaluation_{name}.json").write_text(json.dumps(content))
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    moved = [(1.5 * points @ turn.T - 0.2).tolist() for points in (joints, vertices)]
    file, out = tmp_path / "pred.json", tmp_path / "out"
    file.write_text(json.dumps(moved))
    command = ["evaluate", str(root), "-d", "freihand", "--split", "evaluation", "--predictions", f"theirs={file}"]
    assert densehand([*command, "--report", str(out)]) == 0
    figures = json.loads((out / "report.json").read_text())["systems"][0]["all"]
    assert figures["hands"] == 4 and figures["pa_mm"]["mean"] < 1e-6
    assert figures["scores"]["pa_mpvpe_mm"] < 1e-6 and figures["scores"]["f5"] == 1
    assert "px" not in figures, "the format has no 2D"
    page = (out / "report.html").read_text()
    assert "theirs: MEASURED HERE" in page and page.count("<img ") == 4
    file.write_text(json.dumps([part[:3] for part in moved]))
    assert densehand(command) == 1
    assert "predictions of 3 hands, but the dataset has 4" in capsys.readouterr().err
    assert densehand([*command, "--limit", "3", "--report", str(tmp_path / "part")]) == 0
    assert "MEASURED HERE" not in (tmp_path / "part/report.html").read_text(), "a part of the set does not compare"


def test_other_settings_are_refused_and_restart_begins_anew(tmp_path, capsys):
    data = make_dataset(tmp_path / "data")
    file, out = keypoints_file(tmp_path / "p.jsonl", data), tmp_path / "out"
    command = ["evaluate", str(data), "-d", "densehand", "--predictions", str(file), "--report", str(out)]
    assert densehand([*command, "--limit", "2"]) == 0
    assert densehand(command) == 0, "a longer run continues a shorter one"
    keypoints_file(file, data, off=2.0)
    assert densehand(command) == 1
    assert "results of other settings: predictions" in capsys.readouterr().err
    assert densehand([*command, "--restart"]) == 0
    row = read_rows(data)
    row[1]["keypoints_px"][0][0] += 1
    write_rows(data, row)
    assert densehand(command) == 1
    assert "labels of labels.jsonl:2 have changed" in capsys.readouterr().err


def test_bad_pictures_and_labels_are_counted(tmp_path, fake_model, capsys):
    data = make_dataset(tmp_path / "data")
    (data / "01.png").write_bytes(b"no picture")
    rows = read_rows(data)
    rows[2]["keypoints_px"] = rows[2]["keypoints_px"][:20]
    write_rows(data, rows)
    assert densehand(["evaluate", str(data), "-d", "densehand", "--report", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "unreadable 1" in said.err and "unlabelled 1" in said.err and "20 joints" in said.err
    assert "hands 5  missed 0.2" in said.out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "missed: the picture cannot be read" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-d", "imagenet"], "unknown dataset 'imagenet'; known: fixtures, densehand, freihand"),
        (["-d", "freihand"], "lacks training/rgb"),
        (["-d", "densehand", "--split", "none"], "none.jsonl"),
        (["-d", "densehand", "--predictions", "nowhere.json"], "nowhere.json: cannot be read"),
        (["-d", "densehand", "--boxes", "guess"], "boxes 'guess': use labels or detect"),
        (["-d", "densehand", "--consistency", "time"], "consistency 'time': use crops or views"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, fake_model, capsys, arguments, said):
    assert densehand(["evaluate", str(make_dataset(tmp_path)), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_consistency_by_the_command(tmp_path, fake_model, capsys):
    data = make_dataset(tmp_path / "data")
    for kind in ("crops", "views"):
        command = ["evaluate", str(data), "-d", "densehand", "--consistency", kind, "--report", str(tmp_path / "out")]
        assert densehand(command) == 0
        told = json.loads((tmp_path / "out" / f"consistency-{kind}.json").read_text())["systems"][0]
        assert told["percent_mean"] == pytest.approx(0, abs=1e-6), "it always says the same hand"
        assert (told["of"], told["missed"]) == ((6, 0) if kind == "crops" else (2, 0))
    assert "hands 2 of 2" in capsys.readouterr().out


def test_the_page_opens_in_a_browser(tmp_path, fake_model):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    data = make_dataset(tmp_path / "data", 3)
    assert densehand(["evaluate", str(data), "-d", "densehand", "--report", str(tmp_path / "out")]) == 0
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    page = tmp_path / "out" / "report.html"
    shown = subprocess.run(
        [*command, "--enable-logging=stderr", "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert shown.returncode == 0 and "CONSOLE" not in shown.stderr
    assert "Share of correct keypoints" in shown.stdout and shown.stdout.count("<img ") == 3
