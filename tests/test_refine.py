"""Testing refinement: it lowers its energy, never returns worse, and pulls the skeleton to the evidence."""

import pytest
import torch

from densehand.hand.model import HandModel
from densehand.losses import mesh_edges
from densehand.network.mesh import NUM_PARAMETERS, skeleton_in_crop
from densehand.network.zoo import build_model
from densehand.refine.paper import RefineWeights, plain, refine_estimate, refinement_energy, step_sizes


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    network = build_model("dhpe-lite", HandModel.load("open")).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        estimate = network(images)
        goal = estimate.parameters[-1].clone()
        goal[:, 0:45] += 0.2 * torch.randn(2, 45)
        goal[:, 60:62] += 0.15
        estimate.keypoints[-1] = skeleton_in_crop(network.hand, goal)[..., :2]
        estimate.keypoint_confidence = torch.ones(2, 21)
    return network, images, estimate


def distance(network, h, estimate):
    return (skeleton_in_crop(network.hand, h)[..., :2] - estimate.keypoints[-1]).norm(dim=-1).mean(-1)


def test_the_skeleton_moves_to_the_evidence(case):
    network, images, estimate = case
    found = refine_estimate(network, images, estimate, steps=40, weights=RefineWeights(features=0, laplacian=0))
    before, after = (distance(network, v, estimate) for v in (estimate.parameters[-1], found.h))
    assert (after < 0.4 * before).all()
    torch.testing.assert_close(found.residual, after)  # confidences are 1
    assert (found.moved > 0.3 * before).all() and (found.steps > 20).all() and (found.steps <= 40).all()


def test_the_energy_never_rises(case):
    network, images, estimate = case
    weights = RefineWeights()
    edges = mesh_edges(network.hand.faces)
    found = refine_estimate(network, images, estimate, steps=8, weights=weights)
    with torch.no_grad():
        before, after = (
            refinement_energy(network, images, estimate, v, weights, edges) for v in (estimate.parameters[-1], found.h)
        )
    assert (after < before).all() and not found.converged.any()
    torch.testing.assert_close(found.before, before)
    torch.testing.assert_close(found.after, after)


def test_no_step_changes_nothing_and_unseen_joints_do_not_pull(case):
    network, images, estimate = case
    none = refine_estimate(network, images, estimate, steps=0)
    assert torch.equal(none.h, estimate.parameters[-1]) and not none.steps.any() and not none.moved.any()
    blind = estimate.each(plain)
    blind.keypoint_confidence = torch.zeros(2, 21)
    found = refine_estimate(network, images, blind, steps=5, weights=RefineWeights(features=0, laplacian=0))
    torch.testing.assert_close(found.h, estimate.parameters[-1], atol=1e-5, rtol=0)
    assert found.converged.all() and not found.residual.any()


def test_every_parameter_has_a_step():
    gamma = step_sizes(torch.zeros(1))
    assert gamma.shape == (NUM_PARAMETERS,) and (gamma > 0).all()


def test_it_steps_within_inference_mode_too(case):
    """Where a caller forbids gradients, the estimate's tensors cannot take part in any, so copies do."""
    network, images, estimate = case
    weights = RefineWeights(features=1e-4)
    expected = refine_estimate(network, images, estimate, steps=3, weights=weights)
    with torch.inference_mode():
        found = refine_estimate(network, images.clone(), estimate.each(plain), steps=3, weights=weights)
    torch.testing.assert_close(found.h, expected.h)
    assert (found.h != estimate.parameters[-1]).any()
