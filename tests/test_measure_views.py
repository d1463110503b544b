"""Hands seen from six sides: the same hand each time, turned by 60°, rendered as given."""

import torch
from tool_loader import load_tool

from densehand.hand.model import HandModel, quaternion_to_matrix
from densehand.synth import Synthesizer

views = load_tool("measure_views")
SIDES = views.SIDES


def test_each_hand_is_held_still_and_turned() -> None:
    model = HandModel.load("open")
    maker = Synthesizer(model, size=64, seed=1)
    given = views.hands_from_all_sides(model, maker, 4)
    pose, shape = (value.unflatten(0, (4, SIDES)) for value in (given.pose, given.shape))
    assert (pose == pose[:, :1]).all() and (shape == shape[:, :1]).all() and (pose[0] != pose[1]).any()
    turn = quaternion_to_matrix(given.rotation).unflatten(0, (4, SIDES))
    between = turn[:, :-1].mT @ turn[:, 1:]
    angle = ((between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).arccos()
    assert ((angle - torch.pi / 3).abs() < 2 * 2**0.5 * views.TILT).all()
    parts = given.split(9)
    assert [len(part.pose) for part in parts] == [9, 9, 6]
    for name in ("pose", "shape", "rotation"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(given, name))
    batch = maker.sample(4 * SIDES, like=given)
    torch.testing.assert_close(batch.pose, given.pose)
    torch.testing.assert_close(batch.rotation, given.rotation)
    assert 0.02 < batch.mask.float().mean() < 0.6


def test_a_hand_recognised_from_all_sides_does_not_scatter() -> None:
    model = HandModel.load("open")
    given = views.hands_from_all_sides(model, Synthesizer(model, size=64), 3)
    joints = model.skeleton(given.pose, given.shape, given.rotation).unflatten(0, (3, SIDES)).numpy()
    mean, median = views.scatter(joints)
    assert mean < 1e-3 and median < 1e-3
