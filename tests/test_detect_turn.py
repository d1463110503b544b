"""The detector's last answer, the turn of the palm: its fit, its measure, and what becomes of it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_files import drawn_composer

from densehand.detect import turn as turning
from densehand.detect.detector import KNOWN_TURN, Detector, _detection
from densehand.detect.model import DetectorNet
from densehand.detect.weights import load_net, save_net
from densehand.images import read_image
from densehand.network.card import card_beside
from densehand.network.zoo import load_state, write_model

PHOTO = Path(__file__).resolve().parent.parent / "demo_photos" / "open_palm_1.jpg"


@pytest.fixture(scope="module")
def net() -> DetectorNet:
    torch.manual_seed(2)
    return DetectorNet().eval()


def test_nothing_is_told_of_a_turn_before_it_is_fitted(net):
    assert net(torch.rand(1, 3, 64, 64)).turn.abs().max() == 0


def test_features_are_those_of_the_hands_cells(net):
    """A hand's cells count 1 in all, times how surely it is found; directions have length 1."""
    features, told, direction, weight = turning.see(net, drawn_composer(), 0)
    assert told.shape == direction.shape and told.abs().max() == 0  # nothing is fitted yet
    assert features.shape == (len(weight), net.turn.in_channels) and len(weight) > turning.BATCH
    torch.testing.assert_close(direction.norm(dim=-1), torch.ones(len(weight)))
    assert 0 < float(weight.sum()) <= turning.BATCH  # close-ups: one hand each
    again = turning.see(net, drawn_composer(), 0)
    assert all(torch.equal(a, b) for a, b in zip(again, (features, told, direction, weight), strict=True))


def test_the_fit_is_the_least_squares_of_all_cells(net):
    """Against a solver that sees the rows themselves, the pull towards none as rows of its own."""
    fitted = turning.fit(load_again(net), drawn_composer(), 3 * turning.BATCH)
    seen = [turning.see(net, drawn_composer(), batch) for batch in range(3)]
    features, _, direction, weight = (torch.cat(column).double().numpy() for column in zip(*seen, strict=True))
    rows = np.hstack([features, np.ones((len(features), 1))])
    root = np.sqrt(weight)[:, None]
    pull = np.sqrt(turning.RIDGE * np.mean(np.sum((rows * root) ** 2, axis=0)))
    below = pull * np.eye(rows.shape[1])[:-1]
    expected, *_ = np.linalg.lstsq(
        np.vstack([rows * root, below]), np.vstack([direction * root, np.zeros((len(below), 2))]), rcond=None
    )
    np.testing.assert_allclose(fitted.turn.weight[:, :, 0, 0].detach().numpy(), expected[:-1].T, atol=1e-3)
    np.testing.assert_allclose(fitted.turn.bias.detach().numpy(), expected[-1], atol=1e-3)


def load_again(net: DetectorNet) -> DetectorNet:
    other = DetectorNet().eval()
    other.load_state_dict(net.state_dict())
    return other


def test_the_measure_of_known_answers(net, monkeypatch):
    """Of four hands one is not told; of the others two are right and one points the other way."""
    angles = torch.tensor([0.3, -2.0, 1.0, 0.0])
    direction = torch.stack([angles.sin(), angles.cos()], dim=-1)
    told = direction * torch.tensor([1.0, KNOWN_TURN + 0.01, -1.0, KNOWN_TURN - 0.01])[:, None]
    monkeypatch.setattr(turning, "see", lambda *_: (torch.zeros(4, 96), told, direction, torch.ones(4)))
    figures = turning.measure(net, drawn_composer(), turning.BATCH)
    assert figures["told"] == pytest.approx(0.75)
    assert figures["within_30"] == pytest.approx(2 / 3) and figures["beyond_90"] == pytest.approx(1 / 3)
    assert figures["median_degrees"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("length", [KNOWN_TURN + 0.01, KNOWN_TURN - 0.01])
def test_a_turn_is_told_where_it_is_sure(length):
    found = _detection(np.float32([0, 0, 9, 9]), 0.8, 0.9, np.float32([math.sin(2.5), math.cos(2.5)]) * length)
    assert found.turn == (pytest.approx(2.5) if length > KNOWN_TURN else None)


def test_weights_without_a_turn_are_read_and_know_none(net, tmp_path):
    save_net(net, tmp_path / "now.safetensors")
    state, _ = load_state(tmp_path / "now.safetensors", "detector")
    older = {name: value for name, value in state.items() if not name.startswith("turn.")}
    write_model(tmp_path / "older.safetensors", "detector", older, storage="fp16", hand="", input_size=256)
    assert load_net(tmp_path / "older.safetensors")(torch.rand(1, 3, 64, 64)).turn.abs().max() == 0


def test_the_command_changes_the_turn_alone_and_says_so_on_the_card(net, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save_net(net, path, recipe={"steps": 3}, accuracy={"one": 1})
    before = load_net(path)
    monkeypatch.setattr(turning.Composer, "of", lambda *_, **__: drawn_composer())
    turning.main(["--data", str(tmp_path), "--weights", str(path), "--pictures", str(5 * turning.BATCH)])
    after, card = load_net(path), card_beside(path)
    for name, value in after.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]) != name.startswith("turn."), name
    assert card.recipe["steps"] == 3 and card.recipe["turn"]["pictures"] == 5 * turning.BATCH
    assert set(card.accuracy) == {"one", "turn, held-back pictures"}
    assert json.loads(path.with_suffix(".json").read_text())["sha256"] == card.sha256


def test_the_packaged_detector_tells_how_a_hand_lies():
    """The demo photo's hand, which lies to the right, as it is and turned by quarters: upside down it may not know."""
    photo, detector = read_image(PHOTO), Detector.load("cpu")
    found = [hand.turn for quarters in range(4) for hand in detector(np.rot90(photo, -quarters).copy())]
    assert len(found) == 4 and sum(turn is not None for turn in found) >= 3
    for quarters, turn in enumerate(found):
        if turn is not None:
            assert abs(math.remainder(turn - math.pi / 2 * (1 + quarters), math.tau)) < math.radians(30)
