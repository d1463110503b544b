"""Fast testing refinement: exact derivatives, recovers hands from their 2D evidence, and never makes one worse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.errors import InputError
from densehand.hand.anatomy import anatomical_to_pose, clamp_pose, limit_violation
from densehand.hand.articulate import TURN, Articulation, place
from densehand.hand.levenberg import Local, minimise
from densehand.hand.model import HandModel
from densehand.hand.vector_skeleton import FEW
from densehand.network.mesh import NUM_PARAMETERS, POSE, decode, skeleton_in_crop
from densehand.refine.fast import FastProblem, FastWeights, refine_fast
from densehand.refine.modes import FAST, parse_refine
from densehand.refine.prior import error_covariance, load_precision, state_errors

SEEDS = st.integers(0, 2**31 - 1)


@pytest.fixture(scope="module")
def double() -> HandModel:
    return HandModel.load("open", torch.float64)


def random_h(hand: HandModel, n: int, seed: int, spread: float = 0.2) -> torch.Tensor:
    """Hands inside the joint limits, about the middle of the crop."""
    generator = torch.Generator().manual_seed(seed)
    h = spread * torch.randn(n, NUM_PARAMETERS, generator=generator)
    h[:, POSE] = clamp_pose(h[:, POSE] + hand.mean_pose, hand)
    h[:, 60:62] *= 0.5
    return h


def evidence(hand: HandModel, h: torch.Tensor) -> torch.Tensor:
    return skeleton_in_crop(hand, h)[..., :2]


def energy(double, h, start, keypoints, confidence) -> torch.Tensor:
    """The energy of h as the refinement of `start` sees it, from the documented formula and the plain skeleton."""
    w = FastWeights()
    square = (skeleton_in_crop(double, h.double())[..., :2] - keypoints).square().sum(-1)
    robust = square / (w.pixel**2 + square / w.robust**2)
    steps = state_errors(double, start.double(), h.double())[:, :61]
    precision = w.prior * load_precision(double)[:61, :61]
    return (confidence * robust).sum(-1) + torch.einsum("bi,ij,bj->b", steps, precision, steps)


def test_points_and_derivatives_agree_with_the_hand_model(double: HandModel) -> None:
    generator = torch.Generator().manual_seed(0)
    angles = 0.4 * torch.randn(3, 15, 3, generator=generator, dtype=torch.float64)
    shape = torch.randn(3, 10, generator=generator, dtype=torch.float64)

    def skeleton(angles, shape):
        return double.skeleton(anatomical_to_pose(angles, double), shape)

    found = Articulation(double, angles)(angles, shape)
    by_angle, by_shape = torch.func.vmap(torch.func.jacfwd(skeleton, argnums=(0, 1)))(angles, shape)
    torch.testing.assert_close(found.points, skeleton(angles, shape), atol=1e-7, rtol=0)
    torch.testing.assert_close(found.by_angle, by_angle.flatten(-2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.by_shape, by_shape, atol=1e-6, rtol=0)


def test_tips_on_several_bones_with_pose_blend_shapes() -> None:
    """As MANO's are: the derivative has a term of its own for the corrections."""
    double = HandModel.load("open", torch.float64)
    generator = torch.Generator().manual_seed(1)
    double._tips = 0.05 * torch.randn(5, 16, 4, generator=generator, dtype=torch.float64)
    double._tip_pose = 0.01 * torch.randn(5, 16, 3, 135, generator=generator, dtype=torch.float64)
    double.pose_dirs = torch.zeros(1, 3, 135, dtype=torch.float64)
    angles, shape = 0.3 * torch.randn(2, 15, 3, generator=generator, dtype=torch.float64), torch.zeros(2, 10).double()
    found = Articulation(double, angles)(angles, shape)
    by_angle = torch.func.vmap(torch.func.jacfwd(lambda a: double.skeleton(anatomical_to_pose(a, double), shape[0])))
    torch.testing.assert_close(found.by_angle, by_angle(angles).flatten(-2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("turn", [0.0, 1e-4, 0.5, 3.0])
def test_placed_derivatives_agree_with_differences(hand: HandModel, turn: float) -> None:
    state = 0.3 * torch.randn(2, 62, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    state[:, TURN] = turn * torch.nn.functional.normalize(state[:, TURN], dim=-1)
    articulation, base = Articulation(hand, state), torch.eye(3).double().expand(2, 3, 3)
    step = 1e-5 * torch.eye(62).double()
    ends = [torch.stack([place(articulation, state + s * e, base)[0] for e in step], -1) for s in (1, -1)]
    torch.testing.assert_close(place(articulation, state, base)[1], (ends[0] - ends[1]) / 2e-5, atol=1e-6, rtol=0)


def test_the_gradient_is_that_of_the_energy(hand: HandModel) -> None:
    start, target = random_h(hand, 2, 3).double(), evidence(hand, random_h(hand, 2, 4)).double()
    problem = FastProblem(hand, start, target, torch.rand(2, 21).double(), FastWeights())
    state = problem.start + 0.05 * torch.randn(2, 62, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    step = 1e-6 * torch.eye(62).double()
    rise = torch.stack([problem.look(state + e).energy - problem.look(state - e).energy for e in step], -1) / 2e-6
    torch.testing.assert_close(2 * problem.look(state).gradient, rise, atol=1e-3, rtol=1e-5)


def test_recovers_a_perturbed_hand_from_exact_evidence(hand: HandModel) -> None:
    goal = random_h(hand, 6, 6)
    start = goal + 0.08 * torch.randn(6, NUM_PARAMETERS, generator=torch.Generator().manual_seed(7))
    target = evidence(hand, goal)
    found = refine_fast(hand, start, target, torch.ones(6, 21))
    before, after = ((evidence(hand, h) - target).norm(dim=-1).mean(-1) for h in (start, found.h))
    assert (after < 0.35 * before).all()
    torch.testing.assert_close(found.residual, after.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        found.moved, (evidence(hand, found.h) - evidence(hand, start)).norm(dim=-1).mean(-1).double(), atol=1e-5, rtol=0
    )
    assert (found.after < found.before).all()
    loose = FastWeights(prior=1e-5)
    assert refine_fast(hand, start, target, torch.ones(6, 21), loose, iterations=40).residual.max() < 1e-3


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, spread=st.sampled_from([0.05, 0.3, 1.5]), noise=st.sampled_from([0.0, 0.3, 5.0]))
def test_never_worse(hand: HandModel, double: HandModel, seed: int, spread: float, noise: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = spread * torch.randn(2, NUM_PARAMETERS, generator=generator)  # joint limits broken, too
    target = evidence(hand, random_h(hand, 2, seed)) + noise * torch.randn(2, 21, 2, generator=generator)
    confidence = torch.rand(2, 21, generator=generator)
    found = refine_fast(hand, start, target, confidence)
    assert found.h.isfinite().all() and found.residual.isfinite().all()
    before, after = (energy(double, h, start, target, confidence) for h in (start, found.h))
    assert (after <= before * (1 + 1e-5) + 1e-6).all()
    assert (limit_violation(found.h[:, POSE], hand) <= limit_violation(start[:, POSE], hand) + 1e-3).all()


def test_batch_is_one_by_one(hand: HandModel) -> None:
    count = FEW + 1  # one batch; a single hand goes the way of single hands (test_refine_single.py)
    start, target = random_h(hand, count, 8), evidence(hand, random_h(hand, count, 9))
    confidence = torch.rand(count, 21, generator=torch.Generator().manual_seed(10))
    together = refine_fast(hand, start, target, confidence)
    for k in range(4):
        alone = refine_fast(hand, start[k : k + 1], target[k : k + 1], confidence[k : k + 1])
        torch.testing.assert_close(together.h[k], alone.h[0], atol=1e-5, rtol=0)
        assert together.steps[k] == alone.steps[0]
    assert refine_fast(hand, start[:0], target[:0], confidence[:0]).h.shape == (0, NUM_PARAMETERS)


def test_a_converged_start_does_not_move(hand: HandModel) -> None:
    start = random_h(hand, 3, 11)
    found = refine_fast(hand, start, evidence(hand, start), torch.ones(3, 21))
    for a, b in zip(decode(found.h), decode(start), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    assert found.moved.max() < 1e-4 and found.converged.all()


def test_evidence_that_is_none_does_not_pull(hand: HandModel) -> None:
    start, target = random_h(hand, 2, 12), evidence(hand, random_h(hand, 2, 13))
    blind = refine_fast(hand, start, target, torch.zeros(2, 21))
    assert torch.equal(blind.h, start) and not blind.steps.any()
    holes, confidence = target.clone(), torch.full((2, 21), 0.8)
    holes[:, 4], holes[:, 8, 0], confidence[:, 12] = torch.nan, torch.inf, torch.nan
    silent = torch.where(torch.isin(torch.arange(21), torch.tensor([4, 8, 12])), 0.0, 0.8).expand(2, 21)
    torch.testing.assert_close(
        refine_fast(hand, start, holes, confidence).h, refine_fast(hand, start, target, silent).h, atol=1e-6, rtol=0
    )
    start[0, 3] = torch.nan
    found = refine_fast(hand, start, target, torch.ones(2, 21))
    assert torch.equal(found.h[0].isnan(), start[0].isnan()) and found.steps[0] == 0 and found.steps[1] > 0
    assert not found.converged[0]


def test_an_outlier_pulls_less_than_a_near_keypoint(hand: HandModel) -> None:
    start = random_h(hand, 1, 14)
    moved = {}
    for distance in (0.1, 1.5):
        target = evidence(hand, start)
        target[:, 8, 0] += distance
        moved[distance] = refine_fast(hand, start, target, torch.ones(1, 21)).moved.item()
    assert moved[1.5] < moved[0.1]


def test_the_solver_stays_in_its_box_and_finds_the_corner() -> None:
    """Least squares in a box: the minimum of ‖A x − b‖² under x ≤ 1, found entry by entry as a slow twin."""
    generator = torch.Generator().manual_seed(15)
    a, b = torch.randn(9, 4, generator=generator).double(), 4 * torch.randn(9, generator=generator).double()
    lower, upper = torch.full((4,), -1.0).double(), torch.full((4,), 1.0).double()

    def look(x):
        r = x @ a.T - b
        return Local(r.square().sum(-1), r @ a, (a.T @ a).expand(len(x), 4, 4))

    found = minimise(look, torch.zeros(1, 4).double(), lower, upper, torch.full((4,), 9.0).double(), 50, 1e-12)
    x = torch.zeros(4).double()
    for _ in range(500):
        for k in range(4):
            rest = b - a @ x + a[:, k] * x[k]
            x[k] = (a[:, k] @ rest / a[:, k].square().sum()).clamp(-1, 1)
    assert ((x.abs() == 1).any()) and (x.abs() < 1).any(), "the case has both kinds of entries"
    torch.testing.assert_close(found.state[0], x, atol=1e-8, rtol=0)


def test_the_prior_is_a_covariance_and_its_steps_lead_to_the_truth(hand: HandModel, double: HandModel) -> None:
    precision = load_precision(hand)
    assert (
        torch.linalg.eigvalsh(precision[:61, :61]).min() > 0 and not precision[61].any() and not precision[:, 61].any()
    )
    part = load_precision(hand, 55)
    torch.testing.assert_close(part[:55, :55], torch.linalg.inv(torch.linalg.inv(precision[:61, :61])[:55, :55]))
    assert not part[55:].any()
    start, truth = random_h(hand, 3, 20).double(), random_h(hand, 3, 21).double()
    problem = FastProblem(double, start, evidence(double, start), torch.ones(3, 21).double(), FastWeights())
    arrived = problem.parameters(problem.start + state_errors(double, start, truth))
    torch.testing.assert_close(skeleton_in_crop(double, arrived), skeleton_in_crop(double, truth), atol=1e-6, rtol=0)


def test_errors_that_go_together_are_cheap_together() -> None:
    generator = torch.Generator().manual_seed(22)
    errors = 0.1 * torch.randn(4000, 62, generator=generator).double()
    errors[:, 1] = errors[:, 0] + 0.01 * errors[:, 1]
    errors[:5, 55] = 3.0  # hands the wrong way round
    covariance = error_covariance(errors)
    assert covariance[0, 1] > 0.6 * covariance[0, 0] and covariance[55, 55] < 0.02
    torch.testing.assert_close(covariance.diagonal(), errors[5:].square().mean(0))


def test_the_shape_of_another_hand_model_stands_alone() -> None:
    other = HandModel.load("open")
    other.name = "mano"
    precision = load_precision(other)
    torch.testing.assert_close(precision[45:55, 45:55], torch.eye(10).double())
    assert not precision[45:55, :45].any() and precision[0, 1] != 0


@pytest.mark.parametrize(("value", "mode"), [("off", 0), ("FAST", FAST), ("paper", 50), ("7", 7), (0, 0), (12, 12)])
def test_modes(value, mode) -> None:
    assert parse_refine(value) == mode


@pytest.mark.parametrize("value", ["", "slow", "-1", -1, "1.5", "²", None])
def test_what_is_no_mode(value) -> None:
    with pytest.raises(InputError, match="off, fast, paper"):
        parse_refine(value)
