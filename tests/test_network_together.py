"""Several networks as one: the mean of what they say, one network twice as itself, and what does not go together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from dummies import DummyHand

from densehand.errors import InputError
from densehand.hand.model import HandModel
from densehand.images import read_image
from densehand.network.mesh import decode, skeleton_in_crop
from densehand.network.together import Together, names_of, open_networks
from densehand.network.zoo import build_model, load_model, save_weights
from densehand.pipeline import HandEstimator

PALM = Path(__file__).parents[1] / "demo_photos" / "open_palm_1.jpg"


@pytest.fixture(scope="module")
def pair():
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        networks.append(build_model("dhpe-lite", HandModel.load("open")).eval())
        torch.nn.init.normal_(networks[-1].regressor.f_e3d.weight, std=0.02)
    return networks


@torch.no_grad()
def test_the_mean_of_two_written_out(pair):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    one, other = (network(images) for network in pair)
    both = Together(pair)(images)
    for name in ("heatmaps", "mask_logits", "keypoint_confidence", "side_logit", "hand_logit"):
        torch.testing.assert_close(getattr(both, name), (getattr(one, name) + getattr(other, name)) / 2)
    sure, surer = one.keypoint_confidence[..., None], other.keypoint_confidence[..., None]
    for step in (0, -1):
        want = (sure * one.keypoints[step] + surer * other.keypoints[step]) / (sure + surer)
        torch.testing.assert_close(both.keypoints[step], want)
    mesh, first, second = (decode(said.parameters[-1]) for said in (both, one, other))
    for name in ("pose", "shape", "translation"):
        torch.testing.assert_close(getattr(mesh, name), (getattr(first, name) + getattr(second, name)) / 2)
    torch.testing.assert_close(mesh.scale, (first.scale * second.scale).sqrt())
    cosines = [(mesh.rotation * said.rotation).sum(-1).abs() for said in (first, second)]
    torch.testing.assert_close(*cosines)  # half way between the two
    between = (first.rotation * second.rotation).sum(-1).abs()
    assert (cosines[0] > between).all()
    torch.testing.assert_close(both.skeletons[-1], skeleton_in_crop(pair[0].hand, both.parameters[-1]))


@torch.no_grad()
def test_one_network_twice_is_itself(pair):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    one, twice = pair[0](images), Together([pair[0], pair[0]])(images)
    torch.testing.assert_close(twice.keypoints_2d, one.keypoints_2d)
    torch.testing.assert_close(twice.skeletons[-1], one.skeletons[-1], atol=1e-4, rtol=1e-4)
    found, known = (decode(said.parameters[-1]) for said in (twice, one))
    torch.testing.assert_close(found.pose, known.pose)
    torch.testing.assert_close((found.rotation * known.rotation).sum(-1).abs(), torch.ones(2))
    assert torch.equal(twice.features, one.features)


def test_networks_of_other_hand_models_do_not_go_together(pair):
    torch.manual_seed(2)
    with pytest.raises(InputError, match="one hand model"):
        Together([pair[0], build_model("dhpe-lite", DummyHand())])
    with pytest.raises(InputError, match="one hand model"):
        Together([])


def test_names_are_parted_by_a_plus_unless_it_is_a_files(tmp_path):
    assert names_of("dhpe-lite") == ["dhpe-lite"]
    assert names_of("dhpe-lite+runs/a.safetensors") == ["dhpe-lite", "runs/a.safetensors"]
    file = tmp_path / "a+b.safetensors"
    save_weights(load_model("dhpe-lite", fuse=False), file)
    assert names_of(str(file)) == [str(file)] and open_networks(str(file)).config.name == "dhpe-lite"
    for model in ("dhpe-lite+nothing", "dhpe-lite+", "+"):
        with pytest.raises(InputError, match="unknown model"):
            open_networks(model)


@pytest.mark.parametrize("refine", ["fast", 2])
def test_a_photos_hands_by_two(tmp_path, refine):
    other = tmp_path / "other.safetensors"
    save_weights(load_model("dhpe-lite", fuse=False), other)
    image = read_image(PALM)
    boxes = [(0.3 * image.shape[1], 0.2 * image.shape[0], 0.8 * image.shape[1], 0.8 * image.shape[0])]
    single, both = (
        HandEstimator(model, refine=refine, precision="float32") for model in ("dhpe-lite", f"dhpe-lite+{other}")
    )
    assert (single.name, both.name) == ("dhpe-lite", "dhpe-lite+other.safetensors")
    hands = [estimator(image, boxes=boxes)[0] for estimator in (single, both)]
    assert hands[0].side == hands[1].side
    np.testing.assert_allclose(hands[1].keypoints_2d, hands[0].keypoints_2d, atol=1.0)
    np.testing.assert_allclose(hands[1].joints_3d, hands[0].joints_3d, atol=2e-3)
    assert hands[1].score == pytest.approx(hands[0].score, abs=0.01)
