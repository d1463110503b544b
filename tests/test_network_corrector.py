"""The corrector: a twin written out by hand, nothing before it is trained, cut inputs, weights of before it."""

import numpy as np
import pytest
import torch
from dummies import DummyHand

from densehand.network.corrector import CUT, Corrector, SideCorrector, corrector_inputs, side_inputs
from densehand.network.mesh import MeshRegressor, skeleton_in_crop
from densehand.network.zoo import CORRECTORS, build_model, fill, is_stored

WIDTH, HIDDEN, COUNT = 6, 11, 4


def evidence(seed: int = 0):
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    features, sure = normal(COUNT, WIDTH), torch.rand(COUNT, 21, generator=draw, dtype=torch.float64)
    return features, sure, normal(COUNT, 21, 2), normal(COUNT, 21, 2), 0.3 * normal(COUNT, 63), normal(COUNT, 21, 3)


def trained(seed: int = 0) -> Corrector:
    torch.manual_seed(seed)
    corrector = Corrector(WIDTH, HIDDEN).double().eval()
    for parameter in corrector.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    corrector.standardise(torch.cat([corrector_inputs(*evidence(k)) for k in range(1, 9)]))
    return corrector


def test_the_step_written_out_hand_by_hand():
    corrector, given = trained(), evidence()
    change, shift = corrector(corrector_inputs(*given))
    for row in range(COUNT):
        features, sure, first, j, h, y = (value[row].numpy() for value in given)
        seen = [*features, *h]
        for gap in (y[:, :2], j - y[:, :2], first - y[:, :2]):
            seen += [gap[k, axis] for k in range(21) for axis in range(2)]
        for points in (j, first):
            seen += [sure[k] * (points[k, axis] - y[k, axis]) for k in range(21) for axis in range(2)]
        x = (np.array([*seen, *sure]) - corrector.centre.numpy()) / corrector.spread.numpy()
        x = np.clip(x, -CUT, CUT)
        for layer in corrector.hidden:
            x = layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()
            x = x / (1 + np.exp(-x))
        step = corrector.last.weight.detach().numpy() @ x + corrector.last.bias.detach().numpy()
        np.testing.assert_allclose(change[row].detach(), step[:63])
        np.testing.assert_allclose(shift[row].detach().flatten(), step[63:])


def test_gradients_reach_what_it_sees():
    corrector, given = trained(), [value.requires_grad_() for value in evidence()]
    assert torch.autograd.gradcheck(lambda *seen: corrector(corrector_inputs(*seen)), given)


def test_strange_inputs_move_it_no_further_than_the_cut():
    corrector, inputs = trained(), corrector_inputs(*evidence())
    far, farther = corrector(inputs + 1e3), corrector(inputs + 1e9)
    for a, b in zip(far, farther, strict=True):
        assert torch.equal(a, b) and a.isfinite().all()


def test_untrained_it_changes_nothing():
    torch.manual_seed(0)
    hand, regressor = DummyHand(), MeshRegressor(WIDTH, corrector=HIDDEN)
    features, keypoints, sure = torch.rand(COUNT, WIDTH), torch.rand(COUNT, 21, 2), torch.rand(COUNT, 21)
    all_j, all_h, all_y = regressor(hand, features, keypoints, sure)
    assert torch.equal(all_j[-1], all_j[-2]) and torch.equal(all_h[-1], all_h[-2])
    assert torch.equal(all_y[-1], all_y[-2])


def test_its_step_comes_after_the_iterations():
    torch.manual_seed(1)
    hand, regressor = DummyHand().double(), MeshRegressor(WIDTH, corrector=HIDDEN).double().eval()
    torch.nn.init.normal_(regressor.corrector.last.weight, std=0.02)
    features, sure, first, *_ = evidence()
    all_j, all_h, all_y = regressor(hand, features, first, sure)
    assert (len(all_j), len(all_h), len(all_y)) == (5, 5, 4)
    before = regressor.corrector
    regressor.corrector = None
    for mine, theirs in zip(regressor(hand, features, first), (all_j, all_h, all_y), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=False))
    change, shift = before(corrector_inputs(features, sure, first, all_j[3], all_h[3], all_y[2]))
    torch.testing.assert_close(all_h[4], all_h[3] + change)
    torch.testing.assert_close(all_j[4], all_j[3] + shift)
    torch.testing.assert_close(all_y[3], skeleton_in_crop(hand, all_h[4]))


def test_it_asks_for_the_confidence():
    with pytest.raises(ValueError, match="confidence"):
        MeshRegressor(WIDTH, corrector=HIDDEN)(DummyHand(), torch.rand(1, WIDTH), torch.rand(1, 21, 2))


def test_weights_of_before_it_are_taken_and_leave_it_out():
    torch.manual_seed(2)
    older, newer = build_model("dhpe-lite", DummyHand()).eval(), build_model("dhpe-lite", DummyHand()).eval()
    state = {k: v for k, v in older.state_dict().items() if is_stored(k) and not k.startswith(CORRECTORS)}
    fill(newer, state, "older.safetensors", "dhpe-lite")
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        mine, theirs = newer(image), older(image)
    torch.testing.assert_close(mine.parameters[-1], theirs.parameters[-1])
    assert torch.equal(mine.parameters[-1], mine.parameters[-2])


def test_the_sides_step_sees_what_the_corrector_sees_and_depths():
    given = evidence()
    seen = side_inputs(corrector_inputs(*given), given[-1])
    assert torch.equal(seen[:, :-21], corrector_inputs(*given)) and torch.equal(seen[:, -21:], given[-1][..., 2])


def test_the_sides_step_is_added_to_the_sides_log_odds():
    torch.manual_seed(3)
    model = build_model("dhpe-lite", DummyHand()).eval()
    torch.nn.init.normal_(model.regressor.corrector.last.weight, std=0.1)  # whose step it does not see
    torch.nn.init.normal_(model.side_corrector.last.weight)
    assert isinstance(model.side_corrector, SideCorrector)
    with torch.no_grad():
        found = model(torch.rand(2, 3, 64, 64))
        seen = corrector_inputs(
            found.features, found.keypoint_confidence, found.keypoints[0], found.keypoints[3], found.parameters[3],
            found.skeletons[2],
        )  # fmt: skip
        step = model.side_corrector(side_inputs(seen, found.skeletons[2]))
    assert step.shape == (2,) and step.abs().min() > 0
    torch.testing.assert_close(found.side_logit, model.side_head(found.features)[:, 0] + step)
