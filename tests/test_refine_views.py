"""Refinement of one hand from several pictures: derivatives, gains on synthetic hands, cameras, and clear errors."""

import dataclasses
import json

import numpy as np
import pytest
import roma
import torch
from hands import make_hand, open_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.camera import Crop, project_pinhole
from densehand.errors import InputError
from densehand.hand.articulate import ANGLES, TURN
from densehand.metrics import pa_mpjpe
from densehand.refine.cameras import KnownCamera, KnownProblem, read_cameras, triangulate
from densehand.refine.fast import FastProblem, FastWeights
from densehand.refine.views import MOST_FRAMES, JointProblem, _columns, _encoded, refine_views
from densehand.result import Hand, mirrored_if_left, posed_mesh


def looked_at(seed: int, count: int, side: str = "right", noise: float = 1.0, film: bool = False):
    """`count` pictures of one hand: true joints (count 21 3), cameras, and estimates that are a little wrong each.

    The evidence is the true pinhole projection (pixels, noise of `noise`); the estimates' pose is off by 0.15 rad. In a
    film the hand moves a little from picture to picture; else it is held still and looked at from elsewhere.
    """
    rng = np.random.default_rng(seed)
    pose, shape = open_hand().mean_pose.numpy() + rng.normal(0, 0.15, 45), rng.normal(0, 0.7, 10)
    truth, cameras, estimates = [], [], []
    for k in range(count):
        if film:
            pose = pose + rng.normal(0, 0.02, 45)
        apart, shake = (0.02, 0.02) if film else (0.9, 0.2)
        vector = torch.tensor([0.1, apart * k, 0.2]) + shake * torch.from_numpy(rng.normal(size=3)).float()
        turn = roma.rotvec_to_rotmat(vector).double().numpy()
        camera = KnownCamera([900.0, 900.0, 320.0, 240.0], turn, [0.01 * k, -0.03, 0.9])
        world = posed_mesh(open_hand(), pose, shape, np.array([1.0, 0, 0, 0]), side)[1]
        seen = world @ turn.T + camera.translation
        points = project_pinhole(seen, np.zeros(3), 900.0, np.array([320.0, 240.0])) + rng.normal(0, noise, (21, 2))
        right = camera.mirrored().rotation if side == "left" else turn
        off = roma.rotvec_to_rotmat(torch.from_numpy(rng.normal(0, 0.1, 3))).numpy() @ right
        base = make_hand(side, (480, 640), seed=seed)
        quaternion = roma.rotmat_to_unitquat(torch.from_numpy(off))[[3, 0, 1, 2]].numpy()
        bad_pose, bad_shape = pose + rng.normal(0, 0.15, 45), shape + rng.normal(0, 0.5, 10)
        vertices, joints, faces = posed_mesh(open_hand(), bad_pose, bad_shape, quaternion, side)
        wrist = camera.translation + rng.normal(0, 0.005, 3)
        estimates.append(
            Hand(
                side=side,
                side_score=1.0,
                score=0.9,
                box=np.concatenate([points.min(0), points.max(0)]),
                keypoints_2d=points,
                keypoints_score=np.full(21, 0.9),
                joints_3d=joints,
                pose=bad_pose,
                shape=bad_shape,
                rotation=quaternion,
                scale=900 / wrist[2],
                translation=wrist,
                focal_px=900.0,
                center_px=base.center_px * 0 + [320, 240],
                vertices=vertices,
                faces=faces,
            )
        )
        truth.append(seen)
        cameras.append(camera)
    return np.stack(truth), cameras, estimates


def pa(hands, truth) -> float:
    return float(np.mean([pa_mpjpe(hand.joints_3d * 1000.0, y * 1000) for hand, y in zip(hands, truth, strict=True)]))


def problem_of(hands, cameras=None):
    crops = [Crop.from_box(hand.box, mirrored=hand.side == "left") for hand in hands]
    h = torch.cat([_encoded(hand, crop) for hand, crop in zip(hands, crops, strict=True)])
    pairs = zip(hands, crops, strict=True)
    points = torch.from_numpy(np.stack([crop.to_crop(hand.keypoints_2d.astype(float)) for hand, crop in pairs]))
    confidence = torch.rand(len(hands), 21, generator=torch.Generator().manual_seed(0)).double()
    if cameras is None:
        return FastProblem(open_hand(), h, points, confidence, FastWeights())
    return KnownProblem(open_hand(), h, points, confidence, FastWeights(), cameras, crops)


@pytest.mark.parametrize(
    ("mode", "known", "smooth"), [("views", False, None), ("views", True, None), ("frames", False, 0.1)]
)
def test_the_gradient_is_that_of_the_energy_in_float64(mode, known, smooth):
    _, cameras, hands = looked_at(1, 3)
    joint = JointProblem(problem_of(hands, cameras if known else None), _columns(3, mode, known), smooth)
    assert joint.start.dtype == torch.float64
    generator = torch.Generator().manual_seed(2)
    state = joint.start + 0.03 * torch.randn(joint.start.shape, generator=generator, dtype=torch.float64)
    free = (joint.lower < joint.upper).nonzero()[:, 0]
    free = free[torch.randperm(len(free), generator=generator)[:40]].tolist()
    local, step = joint.look(state), 1e-6
    for column in free:
        move = torch.zeros_like(state)
        move[0, column] = step
        rise = (joint.look(state + move).energy - joint.look(state - move).energy) / (2 * step)
        assert 2 * local.gradient[0, column].item() == pytest.approx(rise.item(), rel=1e-5, abs=2e-3), column
    assert torch.linalg.eigvalsh(local.curvature[0]).min() > -1e-6


def test_projections_under_known_cameras_have_exact_derivatives():
    _, cameras, hands = looked_at(3, 2)
    problem = problem_of(hands, cameras)
    state = problem.start + 0.02 * torch.randn(2, 62, generator=torch.Generator().manual_seed(4)).double()
    points, depth, by = problem.project(state)
    step = 1e-6 * torch.eye(62).double()
    ends = [torch.stack([problem.project(state + s * e)[0] for e in step], -1) for s in (1, -1)]
    torch.testing.assert_close(by, (ends[0] - ends[1]) / 2e-6, atol=1e-6, rtol=0)
    assert (depth > 0).all() and points.shape == (2, 21, 2)


@pytest.mark.parametrize("side", ["right", "left"])
def test_two_views_are_better_than_one_and_known_cameras_better_still(side):
    single, double, known = [], [], []
    for seed in range(4):
        truth, cameras, hands = looked_at(seed, 2, side)
        single.append(pa([refine_views(open_hand(), [hand], "fast")[0] for hand in hands], truth))
        double.append(pa(refine_views(open_hand(), hands), truth))
        found = refine_views(open_hand(), hands, cameras=cameras)
        known.append(pa(found, truth))
        place = np.linalg.norm(found[0].translation - truth[0][0])
        assert place < 0.02  # metres: the wrist's true place
        assert {hand.refinement.mode for hand in found} == {"views"} and found[0].refinement.residual_px < 6
        for hand, camera in zip(found, cameras, strict=True):  # one hand in the world, whichever camera it is seen from
            world = (hand.joints_3d + hand.translation - camera.translation) @ camera.rotation
            np.testing.assert_allclose(
                world,
                (found[0].joints_3d + found[0].translation - cameras[0].translation) @ cameras[0].rotation,
                atol=1e-4,
            )
    assert np.mean(double) < 0.9 * np.mean(single)
    assert np.mean(known) < np.mean(double)


def test_frames_share_a_shape_and_smoothness_quiets_them():
    truth, _, hands = looked_at(5, 6, film=True)
    loose, quiet = (refine_views(open_hand(), hands, "frames", smooth=s) for s in (None, 0.02))
    for found in (loose, quiet):
        assert {tuple(hand.shape) for hand in found} == {tuple(found[0].shape)}
        assert all(hand.refinement.mode == "frames" for hand in found)

    def restless(found):
        return np.abs(np.diff([hand.pose for hand in found], axis=0)).mean()

    def turning(found):  # radians a frame, of |q · q'| = cos(θ/2)
        turns = np.array([hand.rotation for hand in found], dtype=float)
        return 2 * np.arccos(np.abs((turns[1:] * turns[:-1]).sum(1)).clip(0, 1)).mean()

    assert restless(quiet) < 0.6 * restless(loose)
    assert turning(quiet) < 0.2 * turning(loose)
    assert pa(quiet, truth) < pa(loose, truth) < pa(hands, truth)


def test_smoothing_counts_angles_and_turn_alike():
    _, _, hands = looked_at(12, 3, film=True)
    problem, smooth = problem_of(hands), 0.1
    joint = JointProblem(problem, _columns(3, "frames", False), smooth)
    loose = JointProblem(problem, _columns(3, "frames", False))
    rng = np.random.default_rng(13)
    rows = joint.spread(joint.start).clone()
    rows[:, TURN] += torch.from_numpy(rng.normal(0, 0.5, (3, 3)))
    state = joint.start.clone()
    state[0, joint.columns] = rows
    expected = 0.0
    turns = [roma.rotvec_to_rotmat(row[TURN]) @ base for row, base in zip(rows, problem.base, strict=True)]
    for k in (1, 2):
        expected += float((rows[k, ANGLES] - rows[k - 1, ANGLES]).square().sum())
        expected += float(4 * (roma.rotmat_to_rotvec(turns[k] @ turns[k - 1].T).norm() / 2).sin() ** 2)
    gap = joint.look(state).energy - loose.look(state).energy
    assert gap.item() == pytest.approx(expected / smooth**2, rel=1e-9)


def test_the_same_picture_twice_is_the_picture_once():
    _, _, (hand,) = looked_at(6, 1)
    (once,) = refine_views(open_hand(), [hand], "fast", iterations=15)
    for twice in refine_views(open_hand(), [hand, hand], weights=FastWeights()):
        np.testing.assert_allclose(twice.joints_3d, once.joints_3d, atol=1e-5)
        np.testing.assert_allclose(twice.translation, once.translation, atol=1e-5)
    assert once.refinement.energy_after < once.refinement.energy_before and once.refinement.steps > 0
    (fast,) = refine_views(open_hand(), [hand], "fast")
    assert fast.refinement.steps <= 5, "as many as predict takes"


def test_views_have_one_prior_between_them():
    _, _, hands = looked_at(6, 3)
    given = refine_views(open_hand(), hands, weights=FastWeights(prior=FastWeights.prior / 3))
    for mine, theirs in zip(refine_views(open_hand(), hands), given, strict=True):
        np.testing.assert_array_equal(mine.joints_3d, theirs.joints_3d)
    frames = refine_views(open_hand(), hands, "frames", weights=FastWeights())
    for mine, theirs in zip(refine_views(open_hand(), hands, "frames"), frames, strict=True):
        np.testing.assert_array_equal(mine.joints_3d, theirs.joints_3d)


def test_the_mirror_picture_gives_the_mirror_hand():
    _, _, hands = looked_at(7, 2)
    center = hands[0].center_px

    def mirrored(hand):
        points = hand.keypoints_2d * [-1, 1] + [2 * center[0], 0]
        box = np.concatenate([points.min(0), points.max(0)])
        fields = {
            name: mirrored_if_left(getattr(hand, name), "left") for name in ("joints_3d", "vertices", "translation")
        }
        return dataclasses.replace(hand, side="left", keypoints_2d=points, box=box, **fields)

    right, left = refine_views(open_hand(), hands), refine_views(open_hand(), [mirrored(hand) for hand in hands])
    for a, b in zip(right, left, strict=True):
        np.testing.assert_allclose(b.joints_3d, a.joints_3d * [-1, 1, 1], atol=1e-5)
        np.testing.assert_allclose(b.translation, a.translation * [-1, 1, 1], atol=1e-5)


def test_triangulation_finds_points_and_refuses_parallel_rays():
    rng = np.random.default_rng(8)
    points = torch.from_numpy(rng.normal(size=(21, 3)))
    centres = torch.from_numpy(5 * rng.normal(size=(3, 3)))
    rays = torch.nn.functional.normalize(points - centres[:, None], dim=-1)
    weight = torch.rand(3, 21).double()
    torch.testing.assert_close(triangulate(rays, centres, weight), points, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="same direction"):
        triangulate(rays[[0, 0]], centres[[0, 0]], weight[:2])


def test_what_cannot_be_refined_together():
    _, cameras, (a, b) = looked_at(9, 2)
    model = open_hand()
    left = make_hand("left")
    for arguments, word in (
        (([],), "no hand"),
        (([a, left],), "left hand"),
        (([a, b], "fast"), "together"),
        (([a, b], "film"), "views, frames"),
        (([a] * (MOST_FRAMES + 1), "frames"), "too many"),
        (([a, b], "views", cameras[:1]), "one a hand"),
        (([a], "views", cameras[:1]), "no depth"),
        (([a, b], "frames", cameras), "for views"),
        (([a, b], "views", None, 0.1), "smooth"),
        (([a, b], "frames", None, float("nan")), "smooth"),
        (([a, a], "views", [cameras[0]] * 2), "same direction"),
    ):
        with pytest.raises(InputError, match=word):
            refine_views(model, *arguments)
    turned = [KnownCamera(c.intrinsics, np.diag([-1.0, 1, -1]) @ c.rotation, -c.translation) for c in cameras]
    with pytest.raises(InputError, match=r"behind a camera|same direction"):
        refine_views(model, [a, b], cameras=turned)


def test_evidence_without_confidence_moves_nothing_much():
    _, _, hands = looked_at(10, 1)
    blind = dataclasses.replace(hands[0], keypoints_score=np.zeros(21))
    (found,) = refine_views(open_hand(), [blind], "fast")
    np.testing.assert_allclose(found.joints_3d, blind.joints_3d, atol=1e-5)
    assert found.refinement.residual_px == 0 and found.refinement.converged


@settings(max_examples=20, deadline=None)
@given(
    spread=st.sampled_from([0.0, 3.0, 200.0, 1e5]), seed=st.integers(0, 2**31 - 1), count=st.integers(1, 3),
    mode=st.sampled_from(["views", "frames"]),
)  # fmt: skip
def test_any_evidence_gives_finite_hands_of_no_greater_energy(spread, seed, count, mode):
    rng = np.random.default_rng(seed)
    hands = []
    for k in range(count):
        hand = make_hand("right", seed=seed % 1000 + k)
        moved = hand.keypoints_2d + rng.normal(0, spread, (21, 2))
        hands.append(dataclasses.replace(hand, keypoints_2d=moved, keypoints_score=rng.uniform(0, 1, 21)))
    for hand in refine_views(open_hand(), hands, mode, iterations=4):
        assert hand.refinement.energy_after <= hand.refinement.energy_before
        assert np.isfinite(hand.vertices).all() and hand.scale > 0


CAMERA = {"intrinsics": [900, 900, 320, 240], "rotation": np.eye(3).tolist(), "translation": [0, 0, 1]}
numbers = st.lists(st.floats() | st.integers(-5, 5) | st.none() | st.text(max_size=2), max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    key=st.sampled_from(sorted(CAMERA)), value=numbers | st.lists(numbers, max_size=4) | st.none() | st.text(max_size=3)
)
def test_any_camera_is_taken_or_refused(tmp_path_factory, key, value):
    path = tmp_path_factory.mktemp("cameras") / "c.json"
    path.write_text(json.dumps({"a.jpg": CAMERA | {key: value}}))
    try:
        camera = read_cameras(path)["a.jpg"]
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert camera.intrinsics.shape == (4,) and camera.focal_px > 0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a.jpg": 3}', '{"a.jpg": {"intrinsics": [1, 1, 1, 1]}}', "\xff"])
def test_bad_camera_files(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"c\.json"):
        read_cameras(path)
    with pytest.raises(InputError, match="check the path"):
        read_cameras(tmp_path / "none.json")


def test_a_rotation_that_is_none():
    for matrix in (2 * np.eye(3), np.diag([1.0, 1, -1])):
        with pytest.raises(InputError, match="no rotation matrix"):
            KnownCamera([900.0, 900, 0, 0], matrix, np.zeros(3))
    with pytest.raises(InputError, match="positive"):
        KnownCamera([0.0, 900, 0, 0], np.eye(3), np.zeros(3))


def test_the_start_under_known_cameras_lies_on_the_evidence():
    _, cameras, hands = looked_at(11, 3, noise=0.0)
    problem = problem_of(hands, cameras)
    gap = (problem.project(problem.start)[0] - problem.keypoints).norm(dim=-1)
    assert gap.mean() < 0.15 and (problem.start[:, TURN] == 0).all()
