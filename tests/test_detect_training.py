"""The training program of the detector, on pictures made here."""

import csv
import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detector_files import drawn_composer, make_detector_folder

from densehand.detect import calibrate, evaluate
from densehand.detect import train as training
from densehand.detect.compose import Composer
from densehand.detect.data import read_crops, read_frames
from densehand.detect.model import DetectorNet
from densehand.detect.weights import load_net
from densehand.errors import InputError
from densehand.network.backbone import create_trunk
from densehand.network.card import amend_card

OPTIONS = {"steps": 4, "batch": 3, "rate": 1e-3, "device": torch.device("cpu"), "seed": 0}
TOLD = ("steps", "batch", "rate", "seed")  # on the card


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_detector_folder(folder)
    return folder


@pytest.fixture
def small(monkeypatch) -> None:
    make_small(monkeypatch)


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training without ImageNet's weights, on small pictures of all kinds, with a checkpoint every two steps."""
    monkeypatch.setattr(training, "load_imagenet_trunk", create_trunk)
    monkeypatch.setattr(training, "SCHEDULE", ((0.0, 0.0, 64), (0.5, 0.4, 96)))
    monkeypatch.setattr(training, "CLOSE_UP", 64)
    monkeypatch.setattr(training, "EVERY", 2)
    monkeypatch.setattr(evaluate, "RENDERED", 2)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> Path:
    """The folder of a finished run with OPTIONS; tests leave it as it is."""
    run = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        training.train(data, run, **OPTIONS)
    return run


def state_of(run) -> dict:
    """Everything in a checkpoint but the time it took, tensors by flat names."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    moments = {f"{i} {k}": v for i, entry in state["optimiser"]["state"].items() for k, v in entry.items()}
    tensors = {f"{part} {name}": value for part in ("net", "averaged") for name, value in state[part].items()}
    return tensors | moments | {"step": state["step"], "seen": state["seen"]}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(*map(torch.as_tensor, (one[k], other[k]))) for k in one)


def logged(run) -> list[list[str]]:
    return [row[1:] for row in csv.reader((run / "log.csv").open())]  # but the minutes


def test_the_same_seed_and_steps_end_at_the_same_weights_whatever_the_clock_says(
    data, undisturbed, tmp_path, small, monkeypatch
):
    hours = count(0.0, 3600.0)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(hours)))
    cv2.setRNGSeed(123)
    training.train(data, tmp_path / "again", **OPTIONS)
    assert same(state_of(tmp_path / "again"), state_of(undisturbed))
    assert logged(tmp_path / "again") == logged(undisturbed)


def test_every_seed_and_step_has_pictures_of_its_own(data):
    composer = Composer(read_frames(data, False), read_crops(data, False), [])

    def batch(seed: int, step: int) -> np.ndarray:
        composer.begin(seed, step)
        return np.stack([composer(64).image for _ in range(3)])

    first = batch(0, 0)
    others = [batch(1, 0), batch(0, 1), batch(1, 1)]
    assert not any(np.array_equal(first, other) for other in others)
    assert not np.array_equal(others[0], others[1])
    assert np.array_equal(first, batch(0, 0))


def test_a_stopped_run_goes_on_to_the_weights_of_an_undisturbed_one(data, undisturbed, tmp_path, small, monkeypatch):
    real, stops = training.collate, iter([False, False, False, True])

    def collate(*arguments):
        if next(stops, False):
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "collate", collate)
    with pytest.raises(KeyboardInterrupt):
        training.train(data, tmp_path, **OPTIONS)
    assert state_of(tmp_path)["step"] == 2  # the third is lost, and done again
    training.train(data, tmp_path, **OPTIONS)
    assert same(state_of(tmp_path), state_of(undisturbed))
    assert logged(tmp_path) == logged(undisturbed)


def test_a_run_begun_otherwise_is_refused(data, undisturbed, small):
    with pytest.raises(InputError, match="begun with other steps, seed; give the same options"):
        training.train(data, undisturbed, **OPTIONS | {"steps": 5, "seed": 1})


def test_a_run_is_logged_and_packaged(data, undisturbed, tmp_path, small):
    torch.manual_seed(OPTIONS["seed"])
    begun = training.start_net(None).state_dict()
    state = torch.load(undisturbed / "checkpoint.pt", weights_only=True)
    assert state["step"] == OPTIONS["steps"] and state["seen"] == OPTIONS["steps"] * OPTIONS["batch"]
    assert torch.equal(begun["stem.conv.weight"], state["net"]["stem.conv.weight"])  # frozen
    assert not torch.equal(begun["box.weight"], state["net"]["box.weight"])
    rows = list(csv.reader((undisturbed / "log.csv").open()))
    assert rows[0][:4] == ["minutes", "step", "pictures", "pixels"]
    assert [row[1:4] for row in rows[1:]] == [["2", "6", "64"], ["4", "12", "96"]]
    assert all(np.isfinite(float(value)) for row in rows[1:] for value in row)

    weights, table = tmp_path / "out" / "net.safetensors", tmp_path / "results" / "table.csv"
    calibrate.main(["--data", str(data), "--run", str(undisturbed), "--out", str(weights)])
    amend_card(weights, accuracy={"another measure": {"told": 1.0}})
    evaluate.main(["--data", str(data), "--weights", str(weights), "--out", str(table), "--card"])
    card = json.loads(weights.with_suffix(".json").read_text())
    other, measured = card["accuracy"].values()
    assert other == {"told": 1.0}
    assert measured["frames subhih"]["hands"] == 2 and "recall" not in measured["backgrounds without hands"]
    recipe = card["recipe"]
    assert card["model"] == "detector" and recipe["pictures"] == state["seen"]
    assert {name: recipe[name] for name in TOLD} == {name: OPTIONS[name] for name in TOLD}
    begun, packaged = training.start_net(weights).state_dict(), load_net(weights).state_dict()
    assert all(torch.equal(begun[name], value) for name, value in packaged.items())
    measured = {row["set"]: row for row in csv.DictReader(table.open())}
    assert measured["frames subhih"]["hands"] == measured["frames any rotation"]["hands"] == "2"
    assert measured["backgrounds without hands"]["recall"] == ""
    assert measured["rendered hands"]["hands"] == "2"


def test_a_few_steps_on_one_batch_lower_the_loss():
    composer = drawn_composer()
    torch.manual_seed(0)
    net = DetectorNet(auxiliary=True)
    images, labels = training.collate([composer(64) for _ in range(4)], torch.device("cpu"))
    targets = training.make_targets((8, 8), *labels)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    history = []
    for _ in range(25):
        total = training.detector_losses(net(images), targets).total()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        history.append(total.item())
    assert np.mean(history[-3:]) < 0.6 * history[0]
    untrained = {name for name, p in net.named_parameters() if p.grad is None}
    assert untrained == {"turn.weight", "turn.bias"}  # fitted afterwards (tests/test_detect_turn.py)


def test_rate_and_size_go_by_the_share_of_the_steps():
    shares = np.linspace(0, 1, 101)
    rates = [training.learning_rate(t) for t in shares]
    assert max(rates) <= 1.0 and rates[-1] == pytest.approx(0.02) and rates[0] == pytest.approx(0.05)
    assert np.all(np.diff(rates[4:]) < 0)  # past the warm-up, which ends at 0.95 × 2 % of the computing
    assert training.learning_rate(0.51) == pytest.approx(0.02 + 0.49 * (1 + np.cos(0.3 * np.pi)))
    assert training.learning_rate(0.9) == pytest.approx(0.02 + 0.49 * (1 + np.cos(0.8 * np.pi)))
    sizes = [training.picture_size(t) for t in (0.0, 0.5, 0.51, 0.79, 0.8, 1.0)]
    assert sizes == [160, 160, 192, 192, 256, 256]
