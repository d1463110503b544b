"""`densehand data check`: every fault is counted, nothing crashes, the sheet is drawn."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from reader_files import CAMERA, JOINTS, picture, projected

from densehand.cli import run
from densehand.cli.data import MAX_TILES, TILE, draw_tile
from densehand.data.readers.check import FAULTS, Report
from densehand.data.sample import MaskSource, Sample

NAN = float("nan")


def good(**changes):
    row = {"image": "a.png", "side": "left", "keypoints_px": projected().tolist(), "joints_m": JOINTS.tolist()}
    return row | {"camera": CAMERA, "box": [60, 60, 160, 160], "mask": "m.png"} | changes


FAULTY = {
    "wrong joint count": good(joints_m=JOINTS[:20].tolist()),
    "unusable labels": good(side="middle"),
    "unreadable image": good(image="none.png"),
    "unreadable mask": good(mask="none.png"),
    "NaN labels": good(joints_m=[[None, 0, 1], *JOINTS[1:].tolist()]),
    "empty box": good(box=[50, 50, 50, 60]),
    "box off the image": good(box=[200, 50, 300, 150]),
    "keypoints off the image": {"image": "a.png", "keypoints_px": (projected() + 400).tolist(), "box": [1, 1, 9, 9]},
    "joints behind the camera": good(joints_m=(-JOINTS).tolist()),
    "2D and 3D disagree": good(keypoints_px=(projected() + (0, 6)).tolist()),
    "mask of another size": good(mask="small.png"),
    "empty mask": good(mask="black.png"),
}


@pytest.fixture
def folder(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "m.png", values=np.full((224, 224), 255, np.uint8))
    picture(tmp_path / "small.png", values=np.full((20, 224), 255, np.uint8))
    picture(tmp_path / "black.png", values=np.zeros((224, 224), np.uint8))
    return tmp_path


def check(folder, rows, *options):
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run(["data", "check", str(folder), "--dataset", "densehand", *options])


def test_a_sound_set(folder, capsys):
    assert check(folder, [good(), good(side="right"), {"image": "a.png"}]) == 0
    out = capsys.readouterr().out
    assert "own format, all: 3 samples" in out and "faults: none" in out
    for line in ("side                 2", "keypoints_2d         2", "sides         1 left, 1 right, 1 unknown"):
        assert line in out


def test_every_fault_is_named_once(folder, capsys):
    assert set(FAULTY) == set(FAULTS)
    for fault, row in FAULTY.items():
        assert check(folder, [good(), row]) == 1
        told = capsys.readouterr().out.split("faults:\n")[1]
        counted = [f for f in FAULTS if f"  {f} " in told]
        assert counted == [fault] and "labels.jsonl:2: " in told, told


def test_all_faults_together_and_the_sheet(folder, capsys):
    sheet = folder / "out" / "sheet.png"
    assert check(folder, [good(), *FAULTY.values()], "--sheet", str(sheet)) == 1
    out = capsys.readouterr().out
    assert "13 samples" in out and all(fault in out for fault in FAULTS)
    with Image.open(sheet) as image:
        assert image.size == (4 * TILE, 3 * TILE), "12 of 13 pictures can be read"


def test_what_is_missing_is_told_by_name(tmp_path, capsys):
    assert run(["data", "check", str(tmp_path), "--dataset", "freihand"]) == 1
    err = capsys.readouterr().err
    assert all(name in err for name in ("training/rgb", "training_K.json", "training_xyz.json", "training_mano.json"))
    assert run(["data", "check", str(tmp_path), "--dataset", "nyu"]) == 1
    assert "unknown dataset 'nyu'; known: densehand, freihand" in capsys.readouterr().err
    assert run(["data", "check", str(tmp_path)]) == 2
    assert run(["data", "check", str(tmp_path), "-d", "freihand", "--sheet", "a.tga"]) == 1
    assert "a.tga" in capsys.readouterr().err


def test_limit_and_thinned_sheet(folder, capsys):
    sheet = folder / "sheet.png"
    assert check(folder, [{"image": "a.png"}] * (2 * MAX_TILES + 3), "--limit", "5") == 0
    assert "the first 5 samples" in capsys.readouterr().out
    assert check(folder, [{"image": "a.png"}] * (2 * MAX_TILES + 3), "--limit", "0", "--sheet", str(sheet)) == 0
    out = capsys.readouterr().out
    assert f"{2 * MAX_TILES + 3} samples" in out and f"sheet of {(2 * MAX_TILES + 3 + 3) // 4} samples" in out


def test_an_empty_label_file_is_no_sound_set(folder, capsys):
    assert check(folder, []) == 1
    assert "not one sample" in capsys.readouterr().out


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(max_examples=60, deadline=None)
@given(
    box=st.none() | arrays(float, 4, elements=numbers),
    keypoints=st.none() | arrays(float, (21, 2), elements=numbers),
    joints=st.none() | arrays(float, (21, 3), elements=numbers),
    visible=arrays(bool, 21),
    image=st.sampled_from([b"", b"\x89PNG", np.zeros((3, 300, 3), np.uint8), np.full((90, 1, 3), 255, np.uint8)]),
    mask=st.sampled_from([None, MaskSource(b"x"), np.ones((3, 300), bool), np.zeros((5, 5), bool)]),
)
def test_no_labels_make_it_crash(box, keypoints, joints, visible, image, mask):
    sample = Sample("a", image, None, box, keypoints, visible, joints, visible, np.array(CAMERA), mask)
    report = Report()
    with np.errstate(all="ignore"):
        shown = report.add(sample)
        assert (shown is None) == isinstance(image, bytes) == bool(report.faults["unreadable image"])
        if shown is not None:
            assert draw_tile(sample, shown).shape == (TILE, TILE, 3)


def test_two_hands_of_a_picture_read_it_once(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    reads = []
    read = Sample.read_image
    monkeypatch.setattr(Sample, "read_image", lambda sample: reads.append(sample.name) or read(sample))
    report = Report()
    for name, image in (("1", "a.png"), ("2", "a.png"), ("3", "none.png"), ("4", "none.png"), ("5", "a.png")):
        shown = report.add(Sample(name, tmp_path / image))
        assert (shown is None) == (image == "none.png")
    assert reads == ["1", "3", "5"] and report.faults["unreadable image"] == 2


def test_the_sheet_shows_the_labels():
    image = np.zeros((224, 224, 3), np.uint8)
    mask = np.zeros((224, 224), bool)
    mask[100:120, 100:120] = True
    sample = Sample("a", image, "right", np.array([80.0, 80, 140, 140]), projected(), None, mask=mask)
    bare = draw_tile(Sample("a", image, "right", sample.box), image)
    full = draw_tile(sample, image)
    assert (bare != full).any(axis=2).mean() > 0.02
    partial = Sample("a", image, "right", sample.box, np.where(np.arange(21)[:, None] == 5, [105.0, 90.0], NAN))
    spots = (draw_tile(partial, image) != bare).any(axis=2)
    place = (np.array([105, 90]) - (65, 65)) * TILE / 90
    rows, columns = np.nonzero(spots)
    assert abs(columns.mean() - place[0]) < 2 and abs(rows.mean() - place[1]) < 2, "only what is known is drawn"


def test_a_published_sample(shared_dir, tmp_path, capsys):
    source = shared_dir / "fixtures" / "mmpose" / "onehand10k"
    if not source.is_dir():
        pytest.skip("no sample of onehand10k")
    shutil.copytree(source, tmp_path / "set")
    (tmp_path / "set" / "annotations").mkdir()
    shutil.move(tmp_path / "set" / "test_onehand10k.json", tmp_path / "set" / "annotations" / "onehand10k_test.json")
    options = ["--dataset", "onehand10k", "--split", "test", "--sheet", str(tmp_path / "s.jpg")]
    assert run(["data", "check", str(tmp_path / "set"), *options]) == 0
    out = capsys.readouterr().out
    assert "OneHand10K, test: 4 samples" in out and "faults: none" in out and "4 unknown" in out
