"""What goes wrong in a long training: kills, full disks, numbers that are none, damaged data. No checkpoint is lost."""

import csv
import errno
import json
import os
import random
import signal
import time
import zipfile
from dataclasses import replace

import cv2
import pytest
import torch
from photo_folder import make_photo_folder
from train_helpers import child, keep_fits, tiny_config

from densehand.data.photos import Skipped, load_photos, need_folder, read_picture, read_rows
from densehand.errors import InputError, WeightsError
from densehand.network.zoo import load_state
from densehand.train import module, run
from densehand.train.checkpoints import DivergedError, WholeCheckpoints, read_checkpoint, step_of
from densehand.train.stream import load_backgrounds


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_config(tmp_path_factory.mktemp("faults"))


def test_killed_at_a_random_moment_it_ends_where_an_undisturbed_run_does(config, tmp_path):
    config = replace(config, steps=7, checkpoint_every=2, out=str(tmp_path / "whole"))
    begun = time.monotonic()
    whole = run.run(config, progress=False)
    a_step = (time.monotonic() - begun) / config.steps
    killed = tmp_path / "killed"
    process = child(run.run, replace(config, out=str(killed)), True, False)
    deadline = time.monotonic() + 60
    while not (killed / "last.ckpt").is_file() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 2 * a_step))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL and not (killed / "weights.safetensors").exists()
    step = step_of(killed / "last.ckpt")
    assert step in (2, 4, 6)
    resumed = run.run(replace(config, out=str(killed)), progress=False)
    expected, got = (load_state(f / "weights.safetensors", "dhpe-lite")[0] for f in (whole, resumed))
    different = [name for name, value in expected.items() if not torch.equal(value, got[name])]
    assert not different, f"killed after step {step}: {different[0]} and {len(different)} tensors in all differ"
    assert not list(killed.glob(".densehand-*"))


def state(value: float, step: int) -> dict:
    return {"state_dict": {"w": torch.full((1000,), value)}, "global_step": step}


def test_a_kill_within_a_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint(state(1.0, 10), path)

    def dies(_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(os, "fsync", dies)
    process = child(WholeCheckpoints().save_checkpoint, state(2.0, 20), path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".densehand-*.ckpt"))) == 1, "it was killed with the new file half-way"
    assert step_of(path) == 10 and torch.equal(read_checkpoint(path)["state_dict"]["w"], torch.ones(1000))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"no space left on device.*there is no earlier checkpoint"):
        WholeCheckpoints().save_checkpoint(state(1.0, 10), path)
    monkeypatch.undo()
    WholeCheckpoints().save_checkpoint(state(1.0, 10), path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"last.ckpt: .*no space left on device.*checkpoint of step 10 is untouched"):
        WholeCheckpoints().save_checkpoint(state(2.0, 20), path)
    assert step_of(path) == 10 and [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_disk_that_fills_up_with_logs_ends_the_run_with_a_clear_error(config, tmp_path, monkeypatch):
    def full_after_the_checkpoint(_):
        if (tmp_path / "last.ckpt").is_file():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run.CSVLogger, "save", full_after_the_checkpoint)
    with pytest.raises(
        InputError, match=r"no space left on device.*the checkpoint of step 1 is whole; free some space"
    ):
        run.run(replace(config, steps=1, out=str(tmp_path)), progress=False)
    assert step_of(tmp_path / "last.ckpt") == 1


def test_weights_that_are_no_numbers_are_not_written(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint(state(1.0, 10), path)
    with pytest.raises(DivergedError, match=r"w is not finite at step 20; the last good checkpoint is .*\(step 10\)"):
        WholeCheckpoints().save_checkpoint(state(float("nan"), 20), path)
    assert step_of(path) == 10


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"\x80\x02}q\x00."])
def test_damaged_checkpoints_are_named(config, tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"last\.ckpt: not a checkpoint"):
        run.run(replace(config, out=str(tmp_path)), progress=False)


def test_a_checkpoint_of_an_earlier_network_is_named_and_can_be_started_from(config, tmp_path):
    last = run.run(replace(config, out=str(tmp_path), steps=1), progress=False) / "last.ckpt"
    stored = read_checkpoint(last)
    stored["state_dict"] = {k: v for k, v in stored["state_dict"].items() if "corrector" not in k}
    torch.save(stored, last)
    with pytest.raises(WeightsError, match=r"another network.*--start .*last\.ckpt --out OTHER"):
        run.run(replace(config, out=str(tmp_path), steps=2), progress=False)
    run.run(replace(config, out=str(tmp_path / "other"), start=str(last), steps=1), progress=False)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_or_gradient_without_a_number_stops_the_run(config, tmp_path, monkeypatch, where):
    whole = module.objective

    def fails(network, estimate, batch, config):
        loss, terms = whole(network, estimate, batch, config)
        calls.append(1)
        if len(calls) < 3:
            return loss, terms
        if where == "loss":
            return loss * float("nan"), terms
        return loss + (estimate.side_logit[0] * 0).abs().sqrt(), terms  # a finite loss with a slope of 0/0

    calls = []
    monkeypatch.setattr(module, "objective", fails)
    said = "the loss is nan" if where == "loss" else "the gradient's norm is nan"
    with pytest.raises(DivergedError, match=rf"{said} at step 2; .*last\.ckpt \(step 2\).*--start"):
        run.run(replace(config, out=str(tmp_path), checkpoint_every=2), progress=False)
    stored = read_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    assert all(torch.isfinite(v).all() for v in stored.values() if v.is_floating_point())
    assert not (tmp_path / "weights.safetensors").exists()


def damage(folder):
    """Five of twelve rows or pictures made unusable, each in another way; the names of those left."""
    path = folder / "labels.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["keypoints_px"][3] = [float("nan"), 1.0]
    rows[2]["world_m"] = rows[2]["world_m"][:20]
    rows[5]["crop"] = "crops/none.png"
    cv2.imwrite(str(folder / "crops" / "cut.jpg"), cv2.imread(str(folder / rows[6]["crop"])))
    picture = folder / "crops" / "cut.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])
    rows[6]["crop"] = "crops/cut.jpg"
    lines = [json.dumps(row) for row in rows]
    lines[7] = lines[7][:100]
    path.write_text("\n".join(lines) + "\n")
    return [row["crop"] for index, row in enumerate(rows) if index not in (1, 2, 5, 6, 7)]


def test_damaged_rows_and_pictures_are_skipped_and_counted(tmp_path):
    folder = make_photo_folder(tmp_path / "photos")
    left = damage(folder)
    photos = load_photos(folder, "all", size=32)
    assert photos.names == left
    assert photos.skipped.counts == {
        "label rows with NaN": 1,
        "label rows with another number of joints": 1,
        "damaged label rows": 1,
        "pictures missing or damaged": 2,
    }
    assert "1 label rows with NaN (labels.jsonl:2)" in str(photos.skipped)
    assert "(crops/none.png, crops/cut.jpg)" in str(photos.skipped)


def test_a_run_tells_what_it_skipped_and_shows_samples(tmp_path, capsys):
    config = tiny_config(tmp_path, count=11)  # none of these is held back
    damage(tmp_path / "photos")
    keep_fits(tmp_path / "photos", tmp_path / "fits.npz")
    config = replace(config, steps=2, samples_every=2, checkpoint_every=2, validate_every=1)
    out = run.run(config, progress=False)
    printed = capsys.readouterr().out
    assert "photos: skipped 1 label rows with NaN (labels.jsonl:2); " in printed
    assert "no figures on held-back photos" in printed and "split 'held-back'" in printed
    with (out / "log-0" / "metrics.csv").open() as file:
        logged = [row["data/skipped_photos"] for row in csv.DictReader(file) if row.get("data/skipped_photos")]
    assert [float(value) for value in logged] == [5.0]
    sheet = cv2.imread(str(out / "samples-2.png"))
    assert sheet.shape == (3 * 192, 4 * 192, 3)
    rows = sheet.reshape(3, 192, -1, 3)
    assert (rows[0] != rows[1]).any(), "labels and estimates are drawn in different rows"
    assert [p.name for p in out.glob("samples-*")] == ["samples-2.png"]


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_rows(tmp_path / "none")
    half = tmp_path / "photos.zip"
    with zipfile.ZipFile(half, "w") as archive:
        archive.writestr("labels.jsonl", "x" * 1000)
    with pytest.raises(InputError, match="is an archive; unpack it"):
        load_photos(half)
    half.write_bytes(half.read_bytes()[:300])
    with pytest.raises(InputError, match="half-downloaded archive; fetch it again"):
        load_photos(half)
    with pytest.raises(InputError, match="half-downloaded archive"):
        load_backgrounds(half)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give the folder that holds X"):
        need_folder(tmp_path / "file", "X")


def test_backgrounds_that_are_damaged_are_counted(tmp_path):
    folder = make_photo_folder(tmp_path / "photos", count=2) / "crops"
    (folder / "half.png").write_bytes((folder / "000.png").read_bytes()[:500])
    skipped = Skipped()
    assert len(load_backgrounds(folder, 16, skipped)) == 2
    assert skipped.counts == {"pictures missing or damaged": 1}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_cut_off_pictures_are_no_pictures(tmp_path, suffix, share):
    noise = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    path = tmp_path / f"picture{suffix}"
    cv2.imwrite(str(path), noise)
    assert (read_picture(path) == cv2.imread(str(path))).all()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert read_picture(path) is None


def test_batches_that_cannot_be_dealt_out_are_refused(config):
    with pytest.raises(InputError, match="cannot be dealt out to 3 processes"):
        run.run(replace(config, devices=3))
    with pytest.raises(InputError, match="multiple of 32"):
        run.run(replace(config, size=100))
