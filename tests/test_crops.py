"""What is read of a crop: meshes are made once a batch and only when asked for; the rest follows from h."""

import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from densehand.camera import SHOWN, Crop, in_plane
from densehand.crops import CropAnswer, CropReader, Look
from densehand.hand import HandModel
from densehand.hand.vector_skeleton import FEW
from densehand.images import read_image
from densehand.network.mesh import NUM_PARAMETERS, decode, skeleton_in_crop
from densehand.photo import Photo
from densehand.pipeline import HandEstimator
from densehand.refine.paper import refine_estimate
from densehand.resample import crop_image

PHOTO = Path(__file__).resolve().parent.parent / "demo_photos" / "open_palm_1.jpg"


def answers(reader: CropReader, h: torch.Tensor, skeleton: torch.Tensor | None) -> list[CropAnswer]:
    nothing = np.zeros((21, 2), np.float32)
    rest = {
        "keypoints": nothing,
        "confidence": nothing[:, 0],
        "weight": nothing[:, 0],
        "right": 0.0,
        "hand": 9.0,
        "present": 1.0,
    }
    return [CropAnswer(**row, **rest) for row in reader._meshes(h, skeleton)]


def made(hand: HandModel) -> list[int]:
    """Grows by the size of each batch that `hand` is asked the mesh of."""
    sizes: list[int] = []
    hand.register_forward_hook(lambda module, given, mesh: sizes.append(len(mesh.vertices)))
    return sizes


@pytest.mark.parametrize("known", [True, False])
def test_meshes_are_made_once_and_when_asked_for(hand: HandModel, known: bool) -> None:
    many = FEW + 1  # few are made without torch
    h = 0.2 * torch.randn(many, NUM_PARAMETERS, generator=torch.Generator().manual_seed(0))
    parameters = decode(h)
    expected = hand(parameters.pose, parameters.shape, parameters.rotation)
    sizes = made(hand)
    reader = CropReader(SimpleNamespace(hand=hand), hand, torch.device("cpu"), many)  # type: ignore[arg-type]
    found = answers(reader, h, skeleton_in_crop(hand, h) if known else None)
    for k, answer in enumerate(found):
        np.testing.assert_allclose(answer.projected, skeleton_in_crop(hand, h)[k, :, :2], atol=1e-5)
        np.testing.assert_array_equal(answer.code, h[k])
    assert sizes == ([] if known else [many]), "a known skeleton says where the hand is"
    for k, answer in enumerate(found):
        np.testing.assert_allclose(answer.vertices, expected.vertices[k], atol=1e-6)
        np.testing.assert_allclose(answer.joints, expected.joints[k], atol=1e-6)
    assert sizes == [many]


def test_meshes_of_few_hands_are_the_same(hand: HandModel) -> None:
    h = 0.2 * torch.randn(FEW, NUM_PARAMETERS, generator=torch.Generator().manual_seed(0))
    parameters = decode(h)
    expected = hand(parameters.pose, parameters.shape, parameters.rotation)
    sizes = made(hand)
    reader = CropReader(SimpleNamespace(hand=hand), hand, torch.device("cpu"), FEW)  # type: ignore[arg-type]
    for k, answer in enumerate(answers(reader, h, None)):
        np.testing.assert_allclose(answer.projected, skeleton_in_crop(hand, h)[k, :, :2], atol=1e-5)
        np.testing.assert_allclose(answer.vertices, expected.vertices[k], atol=1e-6)
        np.testing.assert_allclose(answer.joints, expected.joints[k], atol=1e-6)
        assert answer.vertices.dtype == answer.joints.dtype == np.float32
    assert not sizes, "torch has no part in it"


def test_another_hand_model_has_its_own_place_in_the_crop(hand: HandModel) -> None:
    """The network's skeleton is not that of the answer, which another model can only come near."""
    other = HandModel.load("open")
    other.template = 1.2 * other.template
    other._joints, other._tips = 1.2 * other._joints, other._tips * torch.tensor([1.2, 1.2, 1.2, 1.0])
    h = torch.zeros(1, NUM_PARAMETERS)
    reader = CropReader(SimpleNamespace(hand=hand), other, torch.device("cpu"), 4)  # type: ignore[arg-type]
    (answer,) = answers(reader, h, skeleton_in_crop(hand, h))
    own = answer.h["scale"] * answer.joints[:, :2] + answer.h["translation"][:2]
    np.testing.assert_allclose(answer.projected, skeleton_in_crop(hand, h)[0, :, :2], atol=1e-6)
    np.testing.assert_allclose(own, answer.projected, atol=0.05)
    assert answer.h["scale"] < 0.9 * float(decode(h).scale[0]), "the larger model stands for a hand farther away"


@pytest.mark.parametrize("refine", [0, 2])
def test_the_network_is_shown_the_middle_of_a_crop_and_answers_for_the_whole(refine: int) -> None:
    estimator = HandEstimator(device="cpu", refine="off")
    reader, network = estimator.crops, estimator.network
    photo = Photo(read_image(PHOTO))
    crop = Crop.from_box(estimator(photo.image)[0].box, mirrored=True)
    middle = crop.times(SHOWN)
    with torch.no_grad():
        (answer,) = reader.run([photo], [Look(0, crop)], refine)
    pixels = torch.from_numpy(crop_image(photo.image, middle, network.config.input_size))
    images = pixels.permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        estimate = network(images)
    np.testing.assert_allclose(
        crop.to_image(answer.keypoints), middle.to_image(estimate.keypoints_2d[0].numpy()), atol=0.2
    )
    h = estimate.parameters[-1]
    if refine:
        refined = refine_estimate(network, images, estimate, steps=refine)
        h = refined.h
        assert answer.refinement is not None
        assert answer.refinement.residual_px == pytest.approx(SHOWN * float(refined.residual[0]), rel=0.06)
    with torch.no_grad():
        seen = skeleton_in_crop(network.hand, h)[0, :, :2].numpy()
    np.testing.assert_allclose(crop.to_image(answer.projected), middle.to_image(seen), atol=0.2)
    assert float(answer.h["scale"]) == pytest.approx(SHOWN * float(decode(h).scale[0]), rel=1e-4)


@pytest.mark.parametrize("refine", [0, 1])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_look_at_a_turned_photo_says_the_same_turned(quarters: int, refine: int) -> None:
    """By quarters, whose pixels are the same: keypoints and mesh come back as the hand lies in the photo.

    In float32: integers make a step of a pixel's last bit.
    """
    estimator = HandEstimator(device="cpu", refine="off", precision="float32")
    upright = read_image(PHOTO)
    upright = cv2.resize(upright, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)  # so that none is averaged
    box = np.array([7.3, 19.3, 134.5, 118.6])
    crop, turned = Crop.from_box(box), np.rot90(upright, -quarters)  # clockwise
    angle = quarters * math.pi / 2
    middle = in_plane(angle) @ (np.array(crop.center) - np.array(upright.shape[1::-1]) / 2)
    there = Crop(tuple(middle + np.array(turned.shape[1::-1]) / 2), crop.half_side)
    looks = [Look(0, crop), Look(1, there, angle), Look(1, there, angle + math.tau)]
    with torch.no_grad():
        plain, *others = estimator.crops.run([Photo(upright), Photo(turned.copy())], looks, refine)
    around = np.eye(3)
    around[:2, :2] = in_plane(angle)
    # a step of descent, which moves projections by 0.025 and vertices by 2 mm, grows what the pixels' last bits do
    crop_units, metres = (6e-3, 6e-4) if refine else (1e-4, 1e-4)
    for other in others:
        np.testing.assert_allclose(other.keypoints, plain.keypoints @ in_plane(angle).T, atol=1e-4)
        np.testing.assert_allclose(other.projected, plain.projected @ in_plane(angle).T, atol=crop_units)
        np.testing.assert_allclose(other.vertices, plain.vertices @ around.T, atol=metres)
        assert (other.right, other.hand) == pytest.approx((plain.right, plain.hand), abs=0.01)
