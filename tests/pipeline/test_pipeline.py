"""The way from a photo to `Hand`: real networks with random weights, so that every relation must hold exactly."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from untrained import BOX, StandInDetector, any_score, shown

from densehand.camera import SHOWN, Crop, project_pinhole
from densehand.crops import MESH_SAYS, log_odds
from densehand.detect import Detection
from densehand.looks import DETECTORS_SIDE, DOUBT
from densehand.network.calibration import Calibration
from densehand.network.mesh import decode
from densehand.network.zoo import build_model
from densehand.photo import HandBox, Photo
from densehand.pipeline import HANDS_SIDE, HandEstimator
from densehand.rays import turn_to_box
from densehand.render import silhouette
from densehand.resample import crop_image
from densehand.result import Hand
from densehand.selection import SEEN


def close(a: Hand, b: Hand, atol: float = 1e-3) -> None:
    assert a.side == b.side
    for field in dataclasses.fields(Hand):
        if field.name not in ("side", "refinement"):
            np.testing.assert_allclose(getattr(a, field.name), getattr(b, field.name), atol=atol, err_msg=field.name)


def in_crop(hand):
    """Joints in the axes of the hand's crop."""
    return hand.joints_3d @ turn_to_box(hand.box, hand.focal_px, hand.center_px)


def test_one_hand_per_box_in_order_and_consistent(estimator, image):
    boxes = [
        HandBox(BOX, "right"),
        HandBox((10, 10, 60, 70), "left"),
        HandBox((100, 100, 140, 130)),
        HandBox(BOX, "left"),
    ]
    hands = estimator(image, boxes)
    assert [hand.side for hand in hands[:2]] == ["right", "left"] and hands[3].side == "left" and len(hands) == 4
    for given_box, hand in zip(boxes, hands, strict=True):
        np.testing.assert_array_equal(hand.box, np.float32(given_box.box))
        np.testing.assert_array_equal(hand.joints_3d[0], 0)
        assert np.linalg.norm(hand.rotation) == pytest.approx(1, abs=1e-5)
        depth = (hand.joints_3d[:, 2] + hand.translation[2]).mean()
        assert depth == pytest.approx(hand.focal_px / hand.scale, rel=1e-5)
        assert hand.focal_px == pytest.approx(0.85 * 280) and hand.center_px.tolist() == [140, 100]
        wrist = project_pinhole(hand.joints_3d[:1], hand.translation, hand.focal_px, hand.center_px)
        np.testing.assert_allclose(wrist[0], hand.wrist_px, atol=1e-2)
        assert 0 <= hand.score <= 1 and ((hand.keypoints_score >= 0) & (hand.keypoints_score <= 1)).all()
    assert [hand.side_score for hand in hands[:2]] == [1.0, 1.0]


def test_agrees_with_the_network_step_by_step(estimator, network, image):
    pixels = torch.from_numpy(crop_image(image, shown(BOX), 224)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        estimate = network(pixels)
        parameters = decode(estimate.parameters[-1])
        joints = network.hand.skeleton(parameters.pose, parameters.shape, parameters.rotation)
    hand = estimator(image, [HandBox(BOX, "right")])[0]
    projected = parameters.scale[:, None, None] * joints[..., :2] + parameters.translation[:, None, :2]
    expected = estimate.keypoints_2d
    center = np.array([105.0, 100.0])
    half = 0.9 * 1.5 * 120 / 2
    np.testing.assert_allclose(hand.keypoints_2d, expected[0].numpy() * half + center, atol=1e-2)
    np.testing.assert_allclose(in_crop(hand), joints[0], atol=1e-6)
    np.testing.assert_allclose(hand.project(hand.joints_3d), projected[0].numpy() * half + center, atol=2e-2)
    assert hand.score == pytest.approx(float(torch.sigmoid(estimate.hand_logit)), abs=1e-5)


def test_a_mirrored_photo_gives_the_mirrored_left_hand(estimator, image):
    width = image.shape[1]
    right = estimator(image, [HandBox(BOX, "right")])[0]
    left = estimator(np.ascontiguousarray(image[:, ::-1]), [HandBox((width - 150, 40, width - 60, 160), "left")])[0]
    assert left.side == "left"
    for name in ("pose", "shape", "rotation", "scale", "keypoints_score", "score"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-4, atol=1e-5, err_msg=name)
    for name in ("joints_3d", "vertices", "translation"):
        mirrored = getattr(right, name) * [-1, 1, 1]
        np.testing.assert_allclose(getattr(left, name), mirrored, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(left.keypoints_2d, [width, 0] + right.keypoints_2d * [-1, 1], atol=1e-3)
    np.testing.assert_array_equal(left.faces, right.faces[:, ::-1])
    np.testing.assert_allclose(left.mask((200, 280)).mean(), right.mask((200, 280)).mean(), atol=0.01)


def test_moving_the_photo_moves_the_hand(estimator, image):
    padded = np.zeros((260, 380, 3), dtype=np.uint8)
    padded[30:230, 50:330] = image
    a = estimator(image, [HandBox((80, 60, 150, 140), "right")])[0]
    b = estimator(padded, [HandBox((130, 90, 200, 170), "right")])[0]
    np.testing.assert_allclose(b.keypoints_2d, a.keypoints_2d + [50, 30], atol=1e-2)
    np.testing.assert_allclose(in_crop(b), in_crop(a), atol=1e-5)


def test_batching_and_several_photos_change_nothing(estimator, image):
    other = np.ascontiguousarray(image[::-1, ::-1])
    photos = [
        Photo(image, [HandBox(BOX), HandBox((10, 10, 60, 70), "left")]),
        Photo(other, []),
        Photo(other, [HandBox(BOX, "right"), HandBox((100, 100, 140, 130))]),
    ]
    together = estimator.estimate(photos)
    assert [len(hands) for hands in together] == [2, 0, 2]
    for photo, hands in zip(photos, together, strict=True):
        for entry, hand in zip(photo.boxes or (), hands, strict=True):
            close(hand, estimator.estimate([dataclasses.replace(photo, boxes=[entry])])[0][0], atol=5e-3)


def probability(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def side_odds(network, image, box, mirrored: bool) -> tuple[float, float]:
    """Log-odds of a right hand, and of a hand, of one look."""
    pixels = torch.from_numpy(crop_image(image, shown(box, mirrored), 224)).permute(2, 0, 1)[None]
    with torch.no_grad():
        estimate = network(pixels.float() / 255)
    return max(-6.0, min(6.0, float(estimate.side_logit))) * (-1 if mirrored else 1), float(estimate.hand_logit)


def odds_both_ways(network, image, box) -> float:
    (plain, hand), (mirrored, its_hand) = (side_odds(network, image, box, flip) for flip in (False, True))
    return (plain + mirrored) / 2 + HANDS_SIDE * (hand - its_hand)


@pytest.mark.parametrize("box", [(20, 20, 90, 100), (60, 40, 150, 160), (150, 50, 260, 190), (5, 90, 70, 195)])
def test_an_unknown_side_is_told_by_both_looks(estimator, network, image, box):
    odds = odds_both_ways(network, image, box)
    hand = estimator(image, [box])[0]
    assert hand.side == ("right" if odds >= 0 else "left")
    assert hand.side_score == pytest.approx(probability(abs(odds)), abs=1e-3) and hand.side_score >= 0.5
    chosen = estimator(image, [box], side=hand.side)[0]
    close(dataclasses.replace(hand, side_score=1.0), chosen, atol=5e-3)


@pytest.mark.parametrize("box", [(20.0, 20.0, 90.0, 100.0), (60.0, 40.0, 150.0, 160.0), (150.0, 50.0, 260.0, 190.0)])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("side_score", [0.5, 0.7, 0.999])
def test_detector_and_network_agree_on_a_side(network, image, box, side, side_score, monkeypatch):
    any_score(monkeypatch)
    detection = Detection(np.array(box), side, side_score, 0.8)
    (hand,) = HandEstimator(network, StandInDetector(detection), "cpu")(image)
    sign = 1 if side == "right" else -1
    prior = sign * DETECTORS_SIDE * min(math.log(side_score / (1 - side_score)), 6.0)
    as_detected = prior + side_odds(network, image, box, mirrored=side == "left" and prior < 0)[0]
    both = prior + odds_both_ways(network, image, box)
    first = "left" if prior < 0 else "right"
    sure = (as_detected < 0) == (first == "left") and abs(as_detected) >= DOUBT
    expected = as_detected if sure else both
    assert hand.side == ("left" if expected < 0 else "right")
    assert hand.side_score == pytest.approx(probability(abs(expected)), abs=2e-3)


def test_given_side_overrules_the_detector(network, image, monkeypatch):
    any_score(monkeypatch)
    estimator = HandEstimator(network, StandInDetector(Detection(np.array(BOX), "right", 0.99, 0.99)), "cpu")
    (hand,) = estimator(image, side="left")
    assert hand.side == "left" and hand.side_score == 1.0


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (2.0, -1.5)])
def test_score_adds_the_raw_log_odds_of_network_detector_and_keypoints(network, image, monkeypatch, scale, bias):
    """Raw: the network's calibration changes the score of a given box, not of a detected one."""
    any_score(monkeypatch)
    pixels = torch.from_numpy(crop_image(image, shown(BOX), 224)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        estimate = network(pixels)
        raw, seen = float(estimate.hand_logit), float(estimate.keypoint_confidence.mean())
    monkeypatch.setattr(network, "calibration", Calibration(hand_scale=scale, hand_bias=bias, readily=6.5))
    given = HandEstimator(network, device="cpu", refine="off")(image, [HandBox(BOX, "right")])[0].score
    assert given == pytest.approx(probability(scale * raw + bias), abs=1e-4)
    detection = Detection(np.array(BOX), "right", 0.9, 0.9)
    (hand,) = HandEstimator(network, StandInDetector(detection), "cpu")(image, side="right")
    whole = raw + math.log(9) + SEEN * log_odds(seen)
    assert hand.score == pytest.approx(probability(whole - 6.5), rel=1e-3)


def test_no_hands(network, image):
    estimator = HandEstimator(network, StandInDetector(), "cpu")
    assert estimator(image) == [] and estimator(image, boxes=[]) == [] and estimator.estimate([]) == []


def test_whole_image_is_the_crop_itself(estimator, image):
    hand = estimator(image, whole_image=True, side="right")[0]
    half = 280 / 3 / SHOWN  # of the box whose crop's shown part is as wide as the picture
    square = estimator(image, [HandBox((140 - half, 100 - half, 140 + half, 100 + half), "right")])[0]
    np.testing.assert_allclose(hand.keypoints_2d, square.keypoints_2d, atol=0.5)  # the box is rounded to float32
    np.testing.assert_allclose(hand.box, [*hand.keypoints_2d.min(axis=0), *hand.keypoints_2d.max(axis=0)])


def test_a_focal_length_moves_and_turns_the_hand_along_its_ray(network, image):
    near, far = (
        HandEstimator(network, device="cpu", focal=f)(image, [HandBox(BOX, "left")])[0] for f in (200.0, 800.0)
    )
    depths = [float((hand.joints_3d[:, 2] + hand.translation[2]).mean()) for hand in (near, far)]
    assert depths[1] == pytest.approx(4 * depths[0], rel=1e-5) and far.focal_px == 800
    np.testing.assert_array_equal(far.keypoints_2d, near.keypoints_2d)
    np.testing.assert_allclose(in_crop(far), in_crop(near), atol=1e-6)
    np.testing.assert_allclose(far.project(far.vertices), near.project(near.vertices), atol=1e-3)


def test_another_hand_model_takes_the_pose_over(network, image, tmp_path):
    from hands import open_hand

    arrays = {name: value.numpy() for name, value in open_hand().named_buffers() if not name.startswith("_")}
    arrays["template"], arrays["shape_dirs"] = arrays["template"] * 1.1, arrays["shape_dirs"] * 1.1
    np.savez(tmp_path / "bigger.npz", format="densehand-hand/1", **arrays)
    boxes = [HandBox(BOX, "right"), HandBox(BOX, "left")]
    other = HandEstimator(network, device="cpu", hand=str(tmp_path / "bigger.npz"))
    for a, b in zip(HandEstimator(network, device="cpu")(image, boxes), other(image, boxes), strict=True):
        assert b.scale < a.scale and np.linalg.norm(b.joints_3d[9]) > np.linalg.norm(a.joints_3d[9])
        assert np.abs(b.project(b.joints_3d) - a.project(a.joints_3d)).mean() < 2  # of 120; limits hold in the fit only
    assert other(image, []) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_the_cpu(estimator, image):
    torch.manual_seed(4)
    model = build_model("dhpe-lite").eval()
    model.load_state_dict(estimator.network.state_dict())
    on_gpu = HandEstimator(model, device="cuda", refine="off")
    boxes = [HandBox(BOX, "right"), HandBox(BOX, "left")]
    for a, b in zip(estimator(image, boxes), on_gpu(image, boxes), strict=True):
        close(a, b, atol=0.05)


def test_another_hand_model_is_fitted_once(network, image, monkeypatch, tmp_path):
    from hands import open_hand

    from densehand import crops

    arrays = {name: value.numpy() for name, value in open_hand().named_buffers() if not name.startswith("_")}
    np.savez(tmp_path / "other.npz", format="densehand-hand/1", **arrays)
    calls, retarget = [], crops.retarget
    monkeypatch.setattr(crops, "retarget", lambda *given: calls.append(given) or retarget(*given))
    estimator = HandEstimator(network, device="cpu", hand=str(tmp_path / "other.npz"))
    estimator(image, [HandBox(BOX)])  # of unknown side: looked at both ways, then refined
    assert len(calls) == 1


def test_retargeting_keeps_the_joints_where_they_were():
    from hands import open_hand

    from densehand.network.mesh import MeshParameters, place
    from densehand.retarget import retarget

    hand = open_hand()
    rotation = torch.nn.functional.normalize(torch.tensor([[0.9, 0.2, -0.3, 0.1]]), dim=1)
    pose, shape = hand.mean_pose[None], torch.linspace(-1, 1, 10)[None]
    before = MeshParameters(pose, shape, rotation, torch.tensor([7.0]), torch.tensor([[0.1, -0.2, 0.05]]))
    joints = hand.skeleton(pose, shape, rotation) * 1.2 + torch.tensor([0.02, -0.03, 0.01])
    after = retarget(hand, before, joints)
    found = place(after, hand.skeleton(after.pose, after.shape, after.rotation))
    expected = before.scale[:, None, None] * joints + before.translation[:, None]
    assert (found - expected).norm(dim=-1).max() < 0.02  # crop units: 2 pixels of 224
    assert after.scale.item() > before.scale.item()


@pytest.mark.parametrize("mode", [8, "fast"])
def test_refinement_draws_the_mesh_to_the_skeleton_on_the_side_chosen(network, image, monkeypatch, mode):
    from functools import partial

    from densehand.refine import paper  # the fast one is in tests/test_refine_fast.py

    # an untrained network's features are of no use and of any size
    monkeypatch.setattr(paper, "RefineWeights", partial(paper.RefineWeights, features=0.0))
    plain, refined = (
        HandEstimator(network, device="cpu", refine=steps)(image, [HandBox(BOX, "left"), HandBox(BOX, "right")])
        for steps in (0, mode)
    )
    assert [hand.side for hand in refined] == ["left", "right"]
    for before, after in zip(plain, refined, strict=True):
        skeleton = 2 * before.keypoints_2d - before.project(before.joints_3d)  # the network's, from the even mean
        gap = [np.linalg.norm(hand.project(hand.joints_3d) - skeleton, axis=1).mean() for hand in (before, after)]
        assert gap[1] < gap[0]
        assert after.score == pytest.approx(before.score, abs=1e-5)


@pytest.mark.parametrize(("mode", "name"), [(3, "paper"), ("fast", "fast")])
def test_the_result_says_what_refinement_did_and_its_mask_is_the_refined_meshes(network, image, mode, name):
    boxes = [HandBox(BOX, "left"), HandBox(BOX, "right")]
    plain, refined = (HandEstimator(network, device="cpu", refine=m)(image, boxes) for m in ("off", mode))
    for before, after in zip(plain, refined, strict=True):
        note = after.refinement
        assert before.refinement is None and note.mode == name and 0 <= note.steps <= (3 if mode == 3 else 5)
        assert note.energy_after <= note.energy_before and (note.steps > 0) == (note.energy_after < note.energy_before)
        skeletons = [hand.project(hand.joints_3d).astype(float) for hand in (before, after)]
        moved = np.linalg.norm(skeletons[1] - skeletons[0], axis=1).mean()
        assert note.moved_px == pytest.approx(moved, abs=1e-2)
        weight = after.keypoints_score / after.keypoints_score.sum()
        gap = np.linalg.norm(skeletons[1] - before.keypoints_2d, axis=1)
        assert note.residual_px == pytest.approx(float(weight @ gap), abs=2e-2)
        says = MESH_SAYS if mode == "fast" else 0.0
        shared = (1 - says) * before.keypoints_2d + says * skeletons[1]
        np.testing.assert_allclose(after.keypoints_2d, shared, atol=1e-2)
    after = refined[1]  # a right hand's crop is not mirrored
    crop = Crop.from_box(np.float32(BOX))
    x0, y0 = np.round(crop.box[:2]).astype(int)
    pixels = after.screen_vertices() - np.float32([x0, y0, 0])
    coverage = silhouette(torch.from_numpy(pixels), torch.from_numpy(after.faces), (180, 180)).numpy()
    mask = after.mask(image.shape[:2])
    assert mask.any() and (mask[y0 : y0 + 180, x0 : x0 + 180] != (coverage > 0.5)).sum() <= 0.01 * mask.sum()
    assert (mask != plain[1].mask(image.shape[:2])).sum() > 0.01 * mask.sum()
    np.testing.assert_array_equal(after.depth(image.shape[:2]) > 0, mask)
