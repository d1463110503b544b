"""The ablation: what each row takes away, batches that all rows share, exact going on, and its command."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from PIL import Image

from densehand.ablation import ROW_NAMES
from densehand.ablation.data import PoolStream, kept, rendered
from densehand.ablation.rows import ROWS, full_weights, state_of, take_refiner_out
from densehand.cli import run as command
from densehand.data.records import Records
from densehand.errors import InputError, WeightsError
from densehand.network.zoo import build_model, fill
from densehand.synth import Synthesizer
from densehand.train.config import LossWeights
from densehand.train.selfsup import parameters_of as fits

OPTIONS = (
    "--size 64 --batch 2 --steps 5 --head-start 0 --start none --pool 4 --test-hands 3 --children 3 --curve-hands 3"
)
OPTIONS += " --seeds 1 --device cpu"


@pytest.fixture(scope="module")
def records(hand):
    return rendered(Synthesizer(hand, size=64), 3, seed=5)


# ---- rows


def test_rows_are_the_papers_and_take_away_what_they_say():
    assert tuple(ROWS) == ROW_NAMES
    full = full_weights("dhpe-lite")
    assert full.features and full.shape and full.laplacian and full.hierarchical
    for row in ROWS.values():
        assert set(row.weights) <= set(vars(LossWeights()))
        assert all(getattr(full, name) != value for name, value in row.weights.items()), row.title
    changed = {n: sum([bool(r.weights), not r.refiner, not r.augmented, not r.refined]) for n, r in ROWS.items()}
    assert changed == dict.fromkeys(ROW_NAMES, 1) | {"full": 0, "no-refiner": 2}  # f_Ref and its loss go together
    papers = full_weights("dhpe-paper")
    assert papers.projection == 0 and not papers.robust


def test_without_refiner_the_last_skeleton_is_the_heat_maps_own(hand):
    torch.manual_seed(0)
    network = build_model("dhpe-lite", hand).eval()
    with torch.no_grad():
        network.regressor.f_ref.weight.normal_(std=0.1)
        images = torch.rand(2, 3, 64, 64)
        before = network(images)
        after = take_refiner_out(network)(images)
    assert not torch.equal(before.keypoints[3], before.keypoints[0])
    for j in after.keypoints:
        assert torch.equal(j, before.keypoints[0])


@pytest.mark.parametrize("refiner", [True, False])
def test_weights_come_back_from_their_state(hand, refiner):
    first, second = (build_model("dhpe-lite", hand).eval() for _ in range(2))
    other = build_model("dhpe-lite", hand)
    if not refiner:
        first, second = take_refiner_out(first), take_refiner_out(second)
    else:
        other = take_refiner_out(other)
    fill(second, state_of(first), "a", "dhpe-lite")
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        assert torch.equal(first(images).parameters[-1], second(images).parameters[-1])
    with pytest.raises(WeightsError, match="a: "):
        fill(other, state_of(first), "a", "dhpe-lite")


# ---- shared hands and batches


def test_hands_are_a_function_of_the_seed_and_kept_in_a_file(hand, records, tmp_path):
    path, calls = tmp_path / "pool.safetensors", []

    def make():
        calls.append(1)
        return records

    first, second = kept(path, make), kept(path, make)
    assert len(calls) == 1
    for name, value in vars(records).items():
        assert torch.equal(getattr(first, name), value) and torch.equal(getattr(second, name), value), name
    again = rendered(Synthesizer(hand, size=64), 3, seed=5)
    assert torch.equal(again.images, records.images)
    assert not torch.equal(rendered(Synthesizer(hand, size=64), 3, seed=6).pose, records.pose)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"pool\.safetensors: cannot be read.*delete it"):
        kept(path, make)


def test_batches_are_the_same_for_every_row_until_hands_are_added(hand, records):
    from densehand.ablation.run import Options, row_config

    options = Options(size=64, batch=4, steps=10)
    streams = []
    for name in ("full", "no-2d"):
        config = row_config(options, ROWS[name], 3, "none", records, "cpu", 1)
        streams.append(PoolStream(config, hand, [(records, 4)]))
    first, second = streams
    second.batch(0)
    assert torch.equal(first.batch(7).images, second.batch(7).images)
    assert not torch.equal(first.batch(7).images, first.batch(8).images)
    other = replace(records, pose=records.pose + 10)
    first.add(other)
    drawn = torch.cat([first.batch(step).pose for step in range(8)])
    share = float((drawn.mean(1) > 5).float().mean())
    assert 0.2 < share < 0.8
    assert (Records.join([records, other]).pose[3:] > 5).any()
    halves = PoolStream(streams[0].config, hand, [(records, 1), (other, 3)]).batch(0)
    assert ((halves.pose.mean(1) > 5).tolist()) == [False, True, True, True]


def test_real_hands_are_half_of_a_batch_and_the_test(hand, records, tmp_path, monkeypatch):
    from densehand.ablation.run import Ablation, Options

    asked = []

    def dataset(name, root, hand, split, limit):
        asked.append((name, root, split))
        few = Records(**{k: v[:1] for k, v in vars(records).items()})
        return [few, records], None

    monkeypatch.setattr("densehand.data.labelled.load_dataset", dataset)
    options = Options(data="rhd", root="there", split="training", test_split="evaluation", batch=8, size=64)
    runs = Ablation(tmp_path, options, "cpu")
    assert [count for _, count in runs.sources(records)] == [1, 3, 4]
    assert len(runs.test.joints[0]) == 3
    assert asked == [("rhd", "there", "training"), ("rhd", "there", "evaluation")]
    with pytest.raises(InputError, match="data rhd there and synthetic here"):
        Ablation(tmp_path, replace(options, data="synthetic"), "cpu")


def test_the_packaged_trunk_is_a_start_with_everything_else_new(hand, records, tmp_path):
    from densehand.ablation.run import PACKAGED_TRUNK, Ablation, Options, row_config
    from densehand.network.zoo import WEIGHTS_FOLDER
    from densehand.network.zoo import load_state as load_file

    options = Options(start=PACKAGED_TRUNK, batch=2, size=32)
    runs = Ablation(tmp_path, options, "cpu")
    config = row_config(options, ROWS["full"], 0, options.start, tmp_path, "cpu", 1)
    made = runs.module(config, ROWS["full"], records).network
    theirs, _ = load_file(WEIGHTS_FOLDER / "dhpe-lite.safetensors", "dhpe-lite")
    for name, value in made.state_dict().items():
        if name.startswith("evidence.trunk.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, theirs[name]), name
    for name in ("evidence.stage2.maps.weight", "regressor.f_e3d.weight", "regressor.f_ref.weight"):
        assert not torch.equal(made.state_dict()[name], theirs[name]), name
    assert not any(p.requires_grad for p in made.evidence.trunk.stem.parameters())


# ---- the command


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "weights.safetensors")


def test_a_stopped_run_goes_on_to_the_same_weights_and_what_is_done_is_kept(tmp_path, monkeypatch, capsys):
    from densehand.train import module

    arguments = ["ablate", *OPTIONS.split(), "--rows", "full"]
    for name in ("PAPER_CURVE", "FAST_CURVE"):
        monkeypatch.setattr(f"densehand.ablation.run.{name}", (0, 1))
    # four steps make no realistic mesh, so the true ones stand in for the network's
    monkeypatch.setattr("densehand.ablation.run.estimate_seeds", lambda network, records, size: fits(records))
    assert command([*arguments, "--out", str(tmp_path / "whole"), "--curve-hands", "0"]) == 0
    step = module.Training.training_step

    def dies_early(self, number, index):  # before the middle, after the new samples
        if self.global_step == 2:
            raise KeyboardInterrupt
        return step(self, number, index)

    stopped = [*arguments, "--out", str(tmp_path / "stopped")]
    monkeypatch.setattr(module.Training, "training_step", dies_early)
    with suppress(SystemExit):  # Lightning's way out on an interrupt
        assert command(stopped) != 0
    monkeypatch.setattr(module.Training, "training_step", step)
    place = tmp_path / "stopped" / "0" / "full"
    assert (place / "last.ckpt").is_file() and not (place / "result.json").is_file()
    assert command(stopped) == 0
    expected, got = weights_of(tmp_path / "whole" / "0" / "full"), weights_of(place)
    assert all(torch.equal(value, got[name]) for name, value in expected.items())
    result = json.loads((place / "result.json").read_text())
    assert result["new_samples"]["samples"] == 3 and not (place / "last.ckpt").is_file()
    assert [point["step"] for point in result["learning"]] == [0, 1, 2, 3, 4, 5]
    written = (place / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    table = tmp_path / "t.csv"
    summary = ["ablate", "--out", str(tmp_path / "stopped"), "--rows", "full,no-refinement", "--seeds", "1"]
    assert command([*summary, "--curve-hands", "3", "--summarise", "--csv", str(table)]) == 0
    assert "without testing refinement | 1 |" in capsys.readouterr().out
    assert (place / "result.json").stat().st_mtime_ns == written
    assert len(table.read_text().splitlines()) == 4
    assert Image.open(tmp_path / "stopped" / "ablation.png").size[0] > 500
    assert command([*stopped, "--steps", "6"]) == 1
    assert "steps 5 there and 6 here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "full,nothing"], "'nothing' is not one of full"),
        (["--size", "100"], "not a multiple of 32"),
        (["--data", "stb"], "a dataset and --root DIR belong together"),
        (["--data", "stb", "--root", "x"], "name a split to measure on"),
        (["--data", "stb", "--root", "x", "--test-split", "test", "--photos", "y"], "and no --photos"),
    ],
)
def test_a_wrong_command_line_is_told(arguments, message, tmp_path, capsys):
    assert command(["ablate", "--out", str(tmp_path / "new"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_nothing_to_summarise_is_told(tmp_path, capsys):
    assert command(["ablate", "--out", str(tmp_path), "--summarise"]) == 1
    assert "no ablation there" in capsys.readouterr().err
