"""The fast refinement of single hands is the batch's: same numbers, derivatives and steps; its rotations are roma's."""

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.hand import numpy_rotations as rotations
from densehand.hand.anatomy import clamp_pose, pose_to_anatomical, rotation_from_angles
from densehand.hand.articulate import TURN, Articulation
from densehand.hand.model import HandModel
from densehand.hand.vector_skeleton import skeleton_of
from densehand.network.mesh import NUM_PARAMETERS, POSE, skeleton_in_crop
from densehand.refine.fast import FastProblem, FastWeights, refine_fast, refine_together
from densehand.refine.refined import Refined
from densehand.refine.single import SingleProblem, _solved, refine_alone

SEEDS = st.integers(0, 2**31 - 1)


def mano_like() -> HandModel:
    """Tips that hang on several bones, moved by the pose: as MANO's do."""
    model = HandModel.load("open", torch.float64)
    generator = torch.Generator().manual_seed(1)
    model._tips = model._tips + 0.01 * torch.randn(5, 16, 4, generator=generator, dtype=torch.float64)
    model._tip_shape = model._tip_shape + 0.001 * torch.randn(5, 16, 3, 10, generator=generator, dtype=torch.float64)
    model._tip_pose = 0.005 * torch.randn(5, 16, 3, 135, generator=generator, dtype=torch.float64)
    model.pose_dirs = torch.zeros(1, 3, 135, dtype=torch.float64)
    model.name = "mano"
    return model


def cases(hand: HandModel, n: int, seed: int, wild: float, noise: float) -> tuple[torch.Tensor, ...]:
    """Starts, 2D evidence and confidence; `wild` breaks joint limits."""
    generator = torch.Generator().manual_seed(seed)
    goal = 0.2 * torch.randn(n, NUM_PARAMETERS, generator=generator)
    goal[:, POSE] = clamp_pose(goal[:, POSE] + hand.mean_pose.float(), hand)
    start = goal + wild * torch.randn(n, NUM_PARAMETERS, generator=generator)
    points = skeleton_in_crop(hand.float(), goal)[..., :2]
    return (
        start,
        points + noise * torch.randn(n, 21, 2, generator=generator),
        torch.rand(n, 21, generator=generator),
    )


def assert_same(found: Refined, expected: Refined) -> None:
    for name in Refined._fields:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype and a.shape == b.shape, name
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("wild", "noise"), [(0.02, 0.0), (0.1, 0.1), (0.3, 1.0), (1.5, 5.0)], ids=["near", "usual", "far", "wild"]
)
def test_alone_as_in_a_batch(hand: HandModel, wild: float, noise: float) -> None:
    start, target, confidence = cases(hand, 12, 0, wild, noise)
    confidence[0] = 0  # a blind hand
    target[1, 4], target[1, 8, 0], confidence[1, 12] = torch.nan, torch.inf, torch.nan
    start[2, 3] = torch.nan
    start[3, 59] = torch.inf
    confidence[4] = 9.0
    found = refine_alone(hand, start, target, confidence, FastWeights())
    assert_same(found, refine_together(hand, start, target, confidence, FastWeights()))
    assert found.steps[4:].any() and not found.steps[[0, 2, 3]].any()


@settings(max_examples=6, deadline=None)
@given(
    seed=SEEDS, wild=st.sampled_from([0.05, 0.3, 1.5]), iterations=st.integers(0, 9), prior=st.sampled_from([1, 0.1])
)
def test_other_weights_and_steps(hand: HandModel, seed: int, wild: float, iterations: int, prior: float) -> None:
    weights = FastWeights(pixel=0.02, robust=2.0, prior=prior)
    start, target, confidence = cases(hand, 2, seed, wild, 0.1)
    alone = refine_alone(hand, start, target, confidence, weights, iterations)
    assert_same(alone, refine_together(hand, start, target, confidence, weights, iterations))


def test_a_few_hands_go_alone_and_many_together(hand: HandModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from densehand.refine import fast

    ways: list[tuple[str, int]] = []
    for name in ("refine_alone", "refine_together"):
        old = getattr(fast, name)
        monkeypatch.setattr(fast, name, lambda *a, n=name, o=old: ways.append((n, len(a[1]))) or o(*a))
    for count in (0, 1, fast.FEW, fast.FEW + 1):
        assert refine_fast(hand, *cases(hand, count, 1, 0.1, 0.1)).h.shape == (count, NUM_PARAMETERS)
    short, long = "refine_alone", "refine_together"
    assert ways == [(long, 0), (short, 1), (short, fast.FEW), (long, fast.FEW + 1)]


def test_another_hand_model_and_a_replaced_buffer(hand: HandModel) -> None:
    model = mano_like()
    h = cases(hand, 3, 2, 0.05, 0.05)
    assert_same(refine_alone(model, *h, FastWeights()), refine_together(model, *h, FastWeights()))
    known = skeleton_of(model)
    assert skeleton_of(model) is known
    model._joints = 1.1 * model._joints
    assert skeleton_of(model) is not known
    assert_same(refine_alone(model, *h, FastWeights()), refine_together(model, *h, FastWeights()))


@pytest.mark.parametrize("kind", ["open", "mano-like"])
def test_points_and_slopes_are_the_articulations(hand: HandModel, kind: str) -> None:
    model = hand if kind == "open" else mano_like()
    generator = torch.Generator().manual_seed(3)
    angles = 0.5 * torch.randn(1, 15, 3, generator=generator, dtype=torch.float64)
    shape = torch.randn(1, 10, generator=generator, dtype=torch.float64)
    turn = roma.random_rotmat(generator=generator, dtype=torch.float64)
    expected = Articulation(model, angles)(angles, shape)
    posed = skeleton_of(model).pose(angles[0].numpy(), shape[0].numpy(), turn.numpy(), 3.0)
    by = np.zeros((21, 2, 62))
    skeleton_of(model).slopes(posed, by)
    np.testing.assert_allclose(posed.points, 3 * (expected.points[0] @ turn.T), atol=1e-12)
    both = 3 * turn @ torch.cat([expected.by_angle, expected.by_shape], dim=-1)[0]
    np.testing.assert_allclose(by[..., :55], both[:, :2], atol=1e-12)


@pytest.mark.parametrize("turn", [0.0, 1e-4, 0.5, 3.0])
def test_the_gradient_is_that_of_the_energy(hand: HandModel, turn: float) -> None:
    start, target, confidence = cases(hand, 1, 4, 0.2, 0.1)
    rows = (target[0].double().numpy(), confidence[0].double().numpy())
    problem = SingleProblem(hand, start[0].double().numpy(), *rows, FastWeights())
    state = problem.start + 0.05 * np.random.default_rng(5).standard_normal(62)
    state[TURN] *= turn / np.linalg.norm(state[TURN])
    step = 1e-6 * np.eye(62)
    rise = np.array([problem.see(state + e).energy - problem.see(state - e).energy for e in step]) / 2e-6
    gradient, curvature = problem.differentiate(problem.see(state))
    np.testing.assert_allclose(2 * gradient, rise, atol=1e-3, rtol=1e-5)
    batch = FastProblem(hand, start.double(), target.double(), confidence.double(), FastWeights())
    local = batch.look(torch.from_numpy(state)[None])
    np.testing.assert_allclose(gradient, local.gradient[0], atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(curvature, local.curvature[0], atol=1e-9, rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    seed=SEEDS,
    size=st.sampled_from([0.0, 1e-12, 1e-9, 1e-5, 1e-3, 0.1, 1.0, 3.0, np.pi - 1e-7, np.pi, 4.0, 50.0]),
)
def test_rotations_are_romas(hand: HandModel, seed: int, size: float) -> None:
    vectors = torch.randn(15, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vectors = size * torch.nn.functional.normalize(vectors, dim=-1)
    expected = roma.rotvec_to_rotmat(vectors)
    found = rotations.matrices(vectors.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(rotations.matrix(vectors[0].numpy()), expected[0], atol=1e-12)
    quaternions = rotations.quaternions(found)
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=-1), 1, atol=1e-12)
    assert (quaternions[:, 0] >= 0).all()
    back = roma.unitquat_to_rotmat(torch.from_numpy(quaternions)[:, [1, 2, 3, 0]])
    np.testing.assert_allclose(back, expected, atol=1e-12)
    np.testing.assert_allclose(rotations.matrices(rotations.vectors(found)), expected, atol=1e-12)
    assert np.linalg.norm(rotations.vectors(found), axis=-1).max() <= np.pi + 1e-12
    axes = hand.joint_axes.double()
    angles = rotations.angles(vectors.numpy(), axes.numpy())
    ours, theirs = (
        rotation_from_angles(a, axes) for a in (torch.from_numpy(angles), pose_to_anatomical(vectors.flatten(), hand))
    )
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=0)


@pytest.mark.parametrize("least", [1.0, 1e-9, 1e-20])
def test_a_system_is_solved_however_small_its_pivots(least: float) -> None:
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    matrix, right = np.zeros((7, 7)), rng.standard_normal(7)
    matrix[:6, :6], matrix[6, 6] = turned * [1, 2, 3, 4, 5, 6] @ turned.T, least
    np.testing.assert_allclose(_solved(matrix, right), np.linalg.solve(matrix, right), rtol=1e-9)


def test_a_system_without_a_solution_is_refused() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        _solved(np.diag([1.0, 0.0]), np.ones(2))
