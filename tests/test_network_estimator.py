"""DHPE as a whole: shapes, gradients to every weight of every configuration, mixed precision, mesh and mask."""

import pytest
import torch
from dummies import DummyHand

from densehand.errors import InputError
from densehand.network.estimator import DHPE, HEATMAPS_SAY
from densehand.network.zoo import MODELS, build_model


@pytest.fixture(scope="module")
def lite() -> DHPE:
    torch.manual_seed(0)
    return build_model("dhpe-lite", DummyHand()).eval()


@pytest.mark.parametrize(("batch", "size"), [(1, 32), (2, 64), (5, 96), (1, 224)])
def test_shapes(lite, batch, size):
    with torch.inference_mode():
        estimate = lite(torch.rand(batch, 3, size, size))
    assert estimate.features.shape == (batch, 1280)
    assert estimate.heatmaps.shape == (batch, 21, 32, 32) and estimate.mask_logits.shape == (batch, 32, 32)
    assert [k.shape for k in estimate.keypoints] == [(batch, 21, 2)] * 5  # heat maps, three iterations, corrector
    assert [h.shape for h in estimate.parameters] == [(batch, 63)] * 5
    assert [y.shape for y in estimate.skeletons] == [(batch, 21, 3)] * 4
    assert estimate.keypoint_confidence.shape == (batch, 21)
    assert estimate.side_logit.shape == estimate.hand_logit.shape == (batch,)
    assert estimate.mask_logits is estimate.stage_mask_logits[-1] and len(estimate.heatmap_logits) == 2


def test_crops_of_a_batch_do_not_influence_each_other(lite):
    images = torch.rand(3, 3, 64, 64) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1, 1)
    with torch.inference_mode():
        together = lite(images)
        alone = lite(images[1:2])
    assert (together.features[0] - together.features[1]).abs().max() > 1e-3
    assert torch.allclose(together.parameters[-1][1:2], alone.parameters[-1], atol=1e-5)
    assert torch.allclose(together.keypoints[-1][1:2], alone.keypoints[-1], atol=1e-5)


def test_the_2d_skeleton_lies_between_the_refined_one_and_the_heat_maps(lite):
    with torch.no_grad():
        estimate = lite(torch.rand(2, 3, 64, 64))
    first, last = estimate.keypoints[0], estimate.keypoints[-1]
    for sure, share in ((0.0, 0.0), (0.5, HEATMAPS_SAY / 2), (1.0, HEATMAPS_SAY)):
        estimate.keypoint_confidence[:] = sure
        torch.testing.assert_close(estimate.keypoints_2d, (1 - share) * last + share * first)


@pytest.mark.parametrize("name", list(MODELS))
def test_gradient_reaches_every_weight(name):
    torch.manual_seed(0)
    model = build_model(name, DummyHand())
    if model.regressor.corrector is not None:
        for perceptron in (model.regressor.corrector, model.side_corrector):
            torch.nn.init.normal_(perceptron.last.weight, std=0.01)  # at 0 it holds back what lies beneath
    estimate = model(torch.rand(2, 3, 64, 64))
    outputs = [*estimate.heatmap_logits, *estimate.stage_mask_logits, *estimate.keypoints, *estimate.skeletons]
    outputs += [*estimate.parameters[1:], estimate.side_logit, estimate.hand_logit]
    sum((x * torch.randn_like(x)).sum() for x in outputs).backward()
    without = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", list(MODELS))
def test_mesh_losses_reach_the_images_through_both_inputs_of_the_regression(name):
    """y(3) alone depends on F and on j(0): the trunk and the heat-map head both learn from the mesh."""
    torch.manual_seed(0)
    model = build_model(name, DummyHand())
    model(torch.rand(2, 3, 64, 64)).skeletons[-1].square().sum().backward()
    assert model.evidence.trunk.stem.conv.weight.grad.abs().sum() > 0
    assert model.evidence.stage2.maps.weight.grad.abs().sum() > 0


def test_paper_configuration_has_separate_trunks():
    paper, shared = build_model("dhpe-paper", DummyHand()), build_model("dhpe-r50", DummyHand())
    images = torch.rand(2, 3, 64, 64)
    for model, separate in ((paper, True), (shared, False)):
        model.zero_grad()
        model.evidence(images).heatmap_logits[-1].square().sum().backward()
        touched = any(p.grad is not None for p in model.evidence.trunk.parameters())
        assert touched is not separate


def test_autocast_keeps_coordinates_in_float32(lite):
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        full = lite(images)
        with torch.autocast("cpu", torch.bfloat16):
            low = lite(images)
    for name in ("keypoints", "parameters", "skeletons", "heatmap_logits"):
        assert all(x.dtype == torch.float32 for x in getattr(low, name))
    assert full.features.std() > 1e-3  # alive: near-equal zeros would prove nothing
    assert low.features.dtype == low.side_logit.dtype == torch.float32
    assert torch.allclose(low.keypoints[-1], full.keypoints[-1], atol=0.05)


def test_mesh_is_the_skeleton_s_mesh(lite):
    with torch.inference_mode():
        estimate = lite(torch.rand(2, 3, 64, 64))
        vertices, joints = lite.mesh(estimate)
    assert vertices.shape == (2, 42, 3)
    assert torch.allclose(joints, estimate.skeletons[-1], atol=1e-5)
    assert torch.allclose(lite.mesh(estimate.parameters[1])[1], estimate.skeletons[0], atol=1e-5)


def test_mask_lies_where_the_vertices_are_and_is_differentiable(lite):
    h = torch.zeros(1, 63)
    h[:, 55:59] = torch.tensor([0.5**0.5 - 1, 0, -(0.5**0.5), 0])  # the palm
    h[:, 60:62] = torch.tensor([0.3, 0.5])
    h.requires_grad_()
    mask = lite.render_mask(h, 64)
    assert mask.shape == (1, 64, 64) and mask.min() >= 0 and mask.max() <= 1 and mask.sum() > 20
    vertices = lite.mesh(h)[0][0].detach()
    rows, columns = (mask[0] > 0.5).nonzero().T
    low, high = ((vertices[:, :2].aminmax(dim=0)[i] + 1) * 32 for i in (0, 1))
    assert (
        columns.min() >= low[0] - 1 and columns.max() <= high[0] and rows.min() >= low[1] - 1 and rows.max() <= high[1]
    )
    assert columns.max() - columns.min() > 0.7 * (high[0] - low[0])
    mask.sum().backward()
    assert h.grad[0, 59] > 0  # a larger hand covers more


def test_shape_errors_name_the_shape(lite):
    for shape in ((3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 32), (1, 3, 60, 60)):
        with pytest.raises(InputError, match=str(shape[-1])):
            lite(torch.rand(shape))
    with pytest.raises(InputError, match="multiple of 32"):
        lite.extract_features(torch.rand(1, 3, 50, 50))


def test_one_step_on_real_targets_improves_them():
    """The chain can be trained: gradient steps on h's skeleton bring it nearer to a wanted one."""
    torch.manual_seed(0)
    model = build_model("dhpe-lite", DummyHand())
    model.evidence.trunk.eval().requires_grad_(False)
    optimiser = torch.optim.Adam(model.regressor.parameters(), 1e-4)
    images, wanted = torch.rand(4, 3, 64, 64), torch.rand(4, 21, 3) - 0.5
    losses = []
    for _ in range(25):
        loss = (model(images).skeletons[-1] - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
