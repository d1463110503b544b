"""The paper's terms: values by hand, gradients in float64, behaviour that training relies on."""

import pytest
import torch

from densehand import losses
from densehand.network.mesh import decode


def random_skeleton(batch=2, dtype=torch.float64, seed=0):
    return torch.randn(batch, 21, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 0.3


def test_normalised_skeleton_has_the_middle_knuckle_at_the_origin_and_fits_its_box():
    normal = losses.normalised_skeleton(random_skeleton())
    assert torch.equal(normal[:, losses.MIDDLE_MCP], torch.zeros(2, 3, dtype=normal.dtype))
    extent = (normal[..., :2].amax(1) - normal[..., :2].amin(1)).amax(-1)
    torch.testing.assert_close(extent, torch.full_like(extent, 1 / 1.5))


def test_articulation_ignores_place_but_not_pose():
    target = random_skeleton()
    assert losses.articulation(target + torch.tensor([0.3, -0.2, 1.0]), target).max() < 1e-20
    bent = target.clone()
    bent[:, 8] += 0.1
    assert losses.articulation(bent, target).min() > 1e-5


def test_articulation_by_hand():
    target = torch.zeros(1, 21, 3, dtype=torch.float64)
    target[0, 4, 0] = 1.0  # a box of side 1: n divides by 1.5
    guess = target.clone()
    guess[0, 8, 2] = 0.3
    expected = (2 * 0.3 / 1.5) ** 2 / 21
    assert losses.articulation(guess, target).item() == pytest.approx(expected)


def test_keypoint_loss_by_hand_with_weights():
    guess, target = torch.zeros(1, 21, 2), torch.zeros(1, 21, 2)
    guess[0, 0], guess[0, 1] = torch.tensor([3.0, 4.0]), torch.tensor([9.0, 9.0])
    weight = torch.ones(1, 21)
    weight[0, 1] = 0
    assert losses.keypoints_2d(guess, target, weight).item() == pytest.approx(25 / 21)
    robust = losses.keypoints_2d(guess, target, weight, robust=True).item()
    assert robust == pytest.approx(((25 + 0.05**2) ** 0.5 - 0.05) / 21)


def test_gaussian_maps_peak_where_the_keypoint_is():
    target = torch.tensor([[[0.0, 0.0], [-0.5, 0.25]]])
    maps = losses.gaussian_maps(target, 32)
    cells = (torch.arange(32) + 0.5) / 16 - 1
    mean_x = (maps.sum(-2) * cells).sum(-1) / maps.sum((-1, -2))
    mean_y = (maps.sum(-1) * cells).sum(-1) / maps.sum((-1, -2))
    torch.testing.assert_close(torch.stack([mean_x, mean_y], -1), target, atol=1e-4, rtol=0)


@pytest.mark.parametrize("activation", ["linear", "softmax"])
def test_heat_map_loss_is_least_at_the_target(activation):
    target, weight = torch.rand(2, 21, 2) - 0.5, torch.ones(2, 21)
    right = losses.gaussian_maps(target, 32)
    logits = right if activation == "linear" else (right + 1e-9).log()
    wrong = logits.roll(3, -1)
    best = losses.heatmaps(logits, target, weight, activation)
    assert (best < losses.heatmaps(wrong, target, weight, activation)).all()
    if activation == "linear":
        assert best.max() < 1e-9
    assert losses.heatmaps(wrong, target, 0 * weight, activation).abs().max() == 0


def test_hierarchical_weight_opens_once_the_skeleton_is_close():
    skeleton = random_skeleton()
    offset = torch.tensor([[0.05], [0.2]], dtype=skeleton.dtype)
    target = skeleton[..., :2] + offset[:, None] * torch.tensor([1.0, 0.0], dtype=skeleton.dtype)
    weight = torch.ones(2, 21, dtype=skeleton.dtype)
    assert losses.hierarchical_weight(skeleton, target, weight, threshold=0.1).tolist() == [1, 0]
    assert losses.hierarchical_weight(skeleton, target, 0 * weight).tolist() == [0, 0], "no label, no shape loss"


def tetrahedron():
    vertices = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    return vertices, torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])


def test_laplacian_by_loops():
    vertices, faces = tetrahedron()
    edges = losses.mesh_edges(faces)
    assert len(edges) == 6
    at_rest = vertices + 0.2 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = curvature = 0.0
    for v in range(4):
        near = [b if a == v else a for a, b in edges.tolist() if v in (a, b)]
        bent, rest = (points[v] - points[near].mean(0) for points in (vertices, at_rest))
        total += float((bent.norm() - rest.norm()) ** 2)
        curvature += float(rest.square().sum())
    assert losses.laplacian(vertices[None], edges, at_rest).item() == pytest.approx(total / curvature, rel=1e-4)
    same = losses.laplacian(1000 * vertices[None], edges, 1000 * at_rest).item()
    assert same == pytest.approx(total / curvature, rel=1e-4), "the unit of length does not matter"


def test_laplacian_against_rest_ignores_turns():
    vertices, faces = tetrahedron()
    edges = losses.mesh_edges(faces)
    turned = vertices[None] @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert losses.laplacian(turned, edges, vertices).item() < 1e-12
    assert losses.laplacian(turned * 1.3, edges, vertices).item() > 1e-3


def test_rotation_distance_does_not_know_signs():
    q = torch.nn.functional.normalize(torch.randn(5, 4), dim=-1)
    assert losses.rotation_distance(q, -q).max() < 1e-6
    assert losses.rotation_distance(q, q.roll(1, -1)).min() > 0


def test_hand_parameters_by_hand_and_without_trust():
    g = torch.Generator().manual_seed(3)
    found = decode(0.2 * torch.randn(2, 63, generator=g, dtype=torch.float64))
    labels = found.pose.clone(), found.shape.clone(), found.rotation.clone()
    same = losses.hand_parameters(found, *labels, torch.ones(2, dtype=torch.float64))
    assert all(value.abs().max() < 1e-12 for value in same.values())
    labels[0][:, 3:6] += torch.tensor([0.3, 0.0, 0.4])  # one of the 15 joints, by 0.5 rad
    labels[1][:, 7] += 2.0
    off = losses.hand_parameters(found, *labels, torch.tensor([1.0, 0.0]).double())
    torch.testing.assert_close(off["pose"], torch.tensor([0.25 / 15, 0.0]).double())
    torch.testing.assert_close(
        off["shape_prior"], torch.stack([off["pose"].new_tensor(0.4), found.shape[1].square().mean()])
    )
    assert off["rotation"].max() < 1e-12


def test_gradients_in_float64():
    skeleton, target = random_skeleton(seed=1).requires_grad_(), random_skeleton(seed=2)
    weight = torch.rand(2, 21, dtype=torch.float64)
    vertices, faces = tetrahedron()
    edges = losses.mesh_edges(faces)
    bent = (vertices + 0.1 * torch.randn(2, 4, 3, dtype=torch.float64)).requires_grad_()
    for robust in (False, True):
        assert torch.autograd.gradcheck(lambda y, r=robust: losses.articulation(y, target, r), skeleton)
        assert torch.autograd.gradcheck(
            lambda y, r=robust: losses.keypoints_2d(y[..., :2], target[..., :2], weight, r), skeleton
        )
    assert torch.autograd.gradcheck(lambda v: losses.laplacian(v, edges, vertices), bent)
    maps = torch.rand(2, 21, 8, 8, dtype=torch.float64, requires_grad=True)
    for activation in ("linear", "softmax"):
        assert torch.autograd.gradcheck(
            lambda m, a=activation: losses.heatmaps(m, target[..., :2], weight, a), maps, fast_mode=True
        )


def test_mask_head_compares_with_the_mean_over_its_cells():
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1
    logits = torch.full((1, 32, 32), -20.0)
    logits[:, :16] = 20.0
    assert losses.mask_head(logits, mask, torch.tensor([True])).item() < 1e-6
    assert losses.mask_head(-logits, mask, torch.tensor([True])).item() > 10
    assert losses.mask_head(-logits, mask, torch.tensor([False])).item() == 0
