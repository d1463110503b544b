"""Labels of the next round: better than a corrupted teacher where the truth is known, kept whole, refused when bad."""

from dataclasses import MISSING, fields, replace

import numpy as np
import pytest
import torch
from photo_folder import make_photo_folder
from tool_loader import load_tool

from densehand.data.augment import augment
from densehand.data.fits import Fits, fit_photos, render_masks
from densehand.data.photos import load_photos
from densehand.errors import InputError
from densehand.hand.anatomy import anatomical_to_pose, pose_to_anatomical
from densehand.hand.fit import aligned_error
from densehand.hand.keypoints import finger_bends
from densehand.network.mesh import S0, MeshParameters, encode, place
from densehand.refine.fast import FastProblem, FastWeights
from densehand.refine.prior import load_precision
from densehand.train.selflabel import (
    BENT_AT_REST,
    LOOKS,
    THUMB_TIP,
    JointProblem,
    label_photos,
    measure_noise,
    with_teachers_thumb,
)
from densehand.train.stream import load_records
from densehand.train.validate import PLAIN
from densehand.views import Answers, consensus, from_crop

COUNT, HALF, FINGER = 60, 0.6, [5, 6, 7, 8]
WRONG = range(0, 12)  # hands whose teacher has a finger wrong
LOST = range(12, 18)  # hands of which the teacher saw something else


@pytest.fixture(scope="module")
def case(hand):
    """True meshes and keypoints, the teacher's keypoints, and a network's answers that err as the prior says."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    pose = hand.mean_pose.double() * (0.4 + 1.2 * torch.rand(COUNT, 1, generator=generator, dtype=torch.float64))
    turn = torch.nn.functional.normalize(torch.tensor([1.0, 0, 0, 0]) + 0.35 * normal(COUNT, 4), dim=-1)
    h = encode(
        MeshParameters(
            pose, 0.5 * normal(COUNT, 10), turn, torch.full((COUNT,), 0.9 * S0).double(), normal(COUNT, 3) * 0
        )
    )
    none = FastProblem(hand, h, h.new_zeros(COUNT, 21, 2), h.new_zeros(COUNT, 21), FastWeights())
    root = torch.linalg.cholesky(torch.linalg.inv(load_precision(hand)[:61, :61]))
    common, looks = 0.6 * normal(COUNT, 61) @ root.T, []
    for _ in LOOKS:
        step = torch.nn.functional.pad(common + 0.15 * normal(COUNT, 61) @ root.T, (0, 1))
        looks.append(none.parameters((none.start + step).clamp(none.lower, none.upper)))
    true = from_crop(h, h.new_zeros(COUNT, 2), h.new_full((COUNT,), HALF))
    keypoints = place(true, hand.skeleton(pose.float(), true.shape.float(), turn.float()).double())[..., :2]
    teacher = keypoints + 0.01 * HALF * normal(COUNT, 21, 2)
    for i in WRONG:
        teacher[i, FINGER] += torch.tensor([0.22, -0.15]) * HALF
    for i in LOST:
        teacher[i] = keypoints[i].flip(0) + 0.1 * normal(21, 2)
    meshes = [from_crop(x, h.new_zeros(COUNT, 2), h.new_full((COUNT,), HALF)) for x in looks]
    mesh = MeshParameters(*(torch.stack(c).float() for c in zip(*meshes, strict=True)))
    error = 0.025 * HALF * normal(COUNT, 21, 2)
    found = torch.stack([keypoints + error + 0.012 * HALF * normal(COUNT, 21, 2) for _ in LOOKS]).float()
    flat = torch.ones(len(LOOKS), COUNT)
    skeleton = torch.cat([found, found[..., :1]], -1)
    answers = Answers(
        mesh, skeleton, found, flat[..., None].expand(-1, -1, 21), found, 3 * flat, flat, 0.9 * flat, LOOKS
    )
    return true, keypoints.float(), teacher.float(), answers


@pytest.fixture(scope="module")
def made(hand, case):
    return label_photos(hand, case[2], case[3])


def test_labels_are_better_than_a_corrupted_teacher_and_than_the_network(hand, case, made):
    _, keypoints, teacher, answers = case
    labels = made.fits.labels

    def error(points, rows):
        return float((points - keypoints)[rows].norm(dim=-1).mean())

    wrong = (torch.tensor(WRONG)[:, None], torch.tensor(FINGER))
    assert error(labels, wrong) < 0.5 * error(teacher, wrong)
    right = torch.arange(18, COUNT)
    _, found, _ = consensus(answers)
    assert error(labels, right) < error(found, right)
    assert error(labels, right) < 1.3 * error(teacher, right)  # where the teacher is right hardly anything is lost
    whole = torch.cat([torch.tensor(WRONG), right])
    assert error(labels, whole) < 0.8 * error(teacher, whole)


def test_meshes_are_better_than_the_networks(hand, case, made):
    true, _, _, answers = case
    mesh, _, _ = consensus(answers)
    rows = torch.tensor([i for i in range(COUNT) if i not in LOST])

    def error(m):
        skeletons = [hand.skeleton(x.pose[rows].float(), x.shape[rows].float()) for x in (m, true)]
        return float(aligned_error(*skeletons).mean())

    assert error(made.fits) < 0.85 * error(mesh)


def test_weights_know_where_the_teacher_is_wrong(made):
    weight, trust = made.fits.keypoint_weight, made.fits.trust
    wrong = weight[: WRONG.stop][:, FINGER]
    others = weight[LOST.stop :]
    assert float(wrong.mean()) < 0.75 * float(others.mean())
    assert float(trust[LOST.start : LOST.stop].max()) == 0.0
    assert float(weight[LOST.start : LOST.stop].mean()) < 0.3 * float(others.mean())
    assert float(trust[LOST.stop :].min()) > 0.9 and bool(made.fits.masked[LOST.stop :].all())
    assert not made.fits.masked[LOST.start : LOST.stop].any()
    assert float(made.gap[LOST.start : LOST.stop].min()) > float(made.gap[LOST.stop :].max())


def test_a_second_network_with_errors_of_its_own_makes_labels_better(hand, case, made, tmp_path):
    _, keypoints, teacher, answers = case
    draw = torch.Generator().manual_seed(9)
    error = 0.025 * HALF * torch.randn(COUNT, 21, 2, generator=draw)
    found = keypoints + error + 0.012 * HALF * torch.randn(2, COUNT, 21, 2, generator=draw)
    both = Answers.together([answers, replace(answers, keypoints=found)])
    assert both.views == LOOKS * 2 and both.keypoints.shape[0] == both.mesh.pose.shape[0] == len(both.right) == 4
    assert torch.equal(both.keypoints[2:], found) and torch.equal(both.keypoints[:2], answers.keypoints)
    labels = label_photos(hand, teacher, both).fits.labels
    rows = torch.arange(LOST.stop, COUNT)
    off = [float((points - keypoints)[rows].norm(dim=-1).mean()) for points in (labels, made.fits.labels)]
    assert off[0] < 0.95 * off[1]

    tool = load_tool("self_label")
    tool.keep_looks(both, tmp_path / "looks.npz")
    back = tool.read_looks(tmp_path / "looks.npz")
    assert back.views == both.views and torch.equal(back.keypoints, both.keypoints)


def test_a_shifted_convention_of_the_teacher_is_learnt(hand, case):
    _, keypoints, teacher, answers = case
    to_palm = 0.25 * (teacher[:, [9]] - teacher[:, [0]])
    other = label_photos(hand, torch.cat([teacher[:, :1] + to_palm, teacher[:, 1:]], 1), answers)
    rows = slice(LOST.stop, COUNT)
    error = (other.fits.labels - keypoints)[rows, 0].norm(dim=-1).mean()
    assert float(error) < 0.4 * float(to_palm[rows].norm(dim=-1).mean())


def test_the_thumbs_last_bend_is_taken_from_the_teacher_where_asked(hand, case):
    true, _, teacher, answers = case
    true = MeshParameters(*(value.float() for value in true))
    bent = pose_to_anatomical(true.pose, hand)
    bent[:, THUMB_TIP, 0] = torch.linspace(0.2, 1.4, COUNT)
    turned = hand.skeleton(anatomical_to_pose(bent, hand), true.shape, true.rotation)
    seen = finger_bends(turned)[:, 0, 2]
    for unit in (1.0, 1000.0):
        world = unit * turned
        world[3] = torch.nan  # a teacher without 3D there
        mesh = with_teachers_thumb(hand, true, world)
        angles = pose_to_anatomical(mesh.pose, hand)
        told = torch.arange(COUNT) != 3
        torch.testing.assert_close(angles[told, THUMB_TIP, 0], seen[told] - BENT_AT_REST, atol=1e-3, rtol=0)
        others = torch.ones(15, 3, dtype=torch.bool)
        others[THUMB_TIP, 0] = False
        torch.testing.assert_close(angles[:, others], bent[:, others], atol=1e-3, rtol=0)
        assert bool(angles.isfinite().all())

    def labelled(world):
        pose = label_photos(hand, teacher, answers, world=world).fits.pose
        return pose_to_anatomical(pose, hand)[:, THUMB_TIP, 0]

    without, with_it = labelled(None), labelled(turned)
    said = seen - BENT_AT_REST
    assert float((with_it - said).abs().mean()) < 0.5 * float((without - said).abs().mean())


def test_energy_of_two_skeletons_and_its_slope(hand):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    sources = [(draw(2, 21, 2), draw(2, 21).exp()) for _ in range(2)]
    problem = JointProblem(hand, torch.zeros(2, 63, dtype=torch.float64), sources, 3.0)
    points = draw(2, 21, 2).requires_grad_()
    energy, pull, off = problem.draw(points)
    naive = [0.0, 0.0]
    for b in range(2):
        for target, variance in sources:
            for k in range(21):
                square = float((points[b, k] - target[b, k]).detach().norm() ** 2 / variance[b, k])
                naive[b] += square / (1 + square / 9)
    torch.testing.assert_close(energy.detach(), torch.tensor(naive, dtype=torch.float64))
    (slope,) = torch.autograd.grad(energy.sum(), points)
    torch.testing.assert_close(2 * (pull[..., None] * off).detach(), slope)


def test_noise_is_measured():
    generator = torch.Generator().manual_seed(1)
    spread = 0.1 * torch.rand(4000, 21, generator=generator)
    sigma = (2 * 0.03**2 + 1.5 * spread.square()) ** 0.5 / 2**0.5
    gap = (sigma[..., None] * torch.randn(4000, 21, 2, generator=generator)).norm(dim=-1)
    noise = measure_noise(gap, spread, 0.5, 0.001)
    assert noise.growth == pytest.approx(1.5, rel=0.15)
    torch.testing.assert_close(noise.teacher.sqrt(), torch.full((21,), 0.03), rtol=0.15, atol=0)
    assert float(measure_noise(gap * 0, spread * 0, 0.5, 0.02).network.min()) == pytest.approx(0.0004)


def test_bad_input(hand, case, made):
    _, _, teacher, answers = case
    with pytest.raises(InputError, match="60 hands for 59 photos"):
        label_photos(hand, teacher[:59], answers)
    one = replace(answers, keypoints=answers.keypoints[:1])
    with pytest.raises(InputError, match="two views"):
        label_photos(hand, teacher, one)
    with pytest.raises(InputError, match="agree on 0 hands"):
        label_photos(hand, teacher + 0.1 * torch.randn(teacher.shape).cumsum(1), answers)
    torn = teacher.clone()
    torn[20, 3, 0] = torch.nan
    odd = label_photos(hand, torn, answers, torch.arange(COUNT) != 30).fits
    assert float(odd.trust[20]) == float(odd.keypoint_weight[20].max()) == float(odd.keypoint_weight[30].max()) == 0
    assert all(v is None or bool(v.isfinite().all()) for v in vars(odd).values())
    torch.testing.assert_close(odd.labels[40], made.fits.labels[40], atol=0.003, rtol=0)


def test_masks_are_the_meshes(hand, made):
    fits = made.fits
    masks = render_masks(hand, fits)
    assert masks is not None and masks.shape == (COUNT, 64, 64)
    assert torch.equal(masks.flatten(1).any(1), fits.masked)
    inside = ((fits.labels[LOST.stop :, [9, 10, 13]] + 1) * 32).long().clamp(0, 63)
    seen = [masks[LOST.stop + i, y, x] for i, points in enumerate(inside.tolist()) for x, y in points]
    assert float(torch.stack(seen).float().mean()) > 230
    assert float((masks > 127).float().mean()) < 0.3
    assert render_masks(hand, replace(fits, masked=None)) is None


def test_files_of_both_kinds(hand, made, tmp_path):
    names = [f"crops/{k}.jpg" for k in range(COUNT)]
    made.fits.save(tmp_path / "new.npz", names)
    again = Fits.load(tmp_path / "new.npz")
    for name, value in vars(made.fits).items():
        assert value is None or torch.equal(getattr(again, name), value), name
    again.check(names, "new.npz")
    with pytest.raises(InputError, match=r"new.npz: fits of other photos"):
        again.check(names[::-1], "new.npz")
    with pytest.raises(InputError, match=rf"new.npz: {COUNT} fits for 1 photos"):
        again.check(names[:1], "new.npz")
    old = {f.name: getattr(made.fits, f.name).numpy() for f in fields(Fits) if f.default is MISSING}
    np.savez_compressed(tmp_path / "old.npz", **old)
    first = Fits.load(tmp_path / "old.npz")
    assert first.trust is first.keypoint_weight is first.masked is None
    assert torch.equal(first.labels, made.fits.labels)
    (tmp_path / "half.npz").write_bytes((tmp_path / "new.npz").read_bytes()[:2000])
    np.savez(tmp_path / "other.npz", pose=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", **old | {"trust": np.array([{}])})
    for name in ("half", "other", "pickle"):
        with pytest.raises(InputError, match=f"{name}.npz"):
            Fits.load(tmp_path / f"{name}.npz")


def test_training_takes_their_word(hand, tmp_path):
    folder = make_photo_folder(tmp_path / "photos", count=8)
    photos = load_photos(folder)
    fits = fit_photos(hand, photos.keypoints, photos.world, steps=40)
    count = len(photos)
    weight, trust = torch.rand(count, 21), torch.rand(count)
    masked = torch.arange(count) % 2 == 0
    replace(fits, keypoint_weight=weight, trust=trust, masked=masked).save(tmp_path / "fits.npz", photos.names)
    records = load_records(folder, hand, tmp_path / "fits.npz")
    assert torch.equal(records.keypoint_weight, weight) and torch.equal(records.trust, trust)
    batch = augment(hand, records, torch.arange(count), 64, PLAIN, torch.Generator().manual_seed(0))
    assert torch.equal(batch.has_mask, masked)
    assert torch.equal(batch.mask.flatten(1).amax(1) > 0.9, masked)
    seen = ((batch.keypoints[:, 9] + 1) * 32).long().clamp(0, 63)
    assert all(batch.mask[i, y, x] > 0.5 for i, (x, y) in enumerate(seen.tolist()) if masked[i])


def test_meshes_stay_hands(hand, made):
    from densehand.hand.anatomy import limit_violation

    assert float(limit_violation(made.fits.pose[LOST.stop :], hand).max()) < 0.35
    assert float(made.fits.shape.abs().max()) < 5
