"""New samples from fitted photos: skin carried over where it is seen, labels kept, started by realistic seeds alone."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_folder import make_photo_folder

from densehand.data.records import Records, no_masks
from densehand.errors import InputError
from densehand.hand.model import quaternion_to_matrix
from densehand.network.mesh import MeshParameters, encode
from densehand.render import rasterise
from densehand.render.rasterise import interpolate_vertices
from densehand.synth import SynthConfig, Synthesizer
from densehand.synth.retexture import SAME_DEPTH, Likeness, look_at_seeds
from densehand.train.config import TrainConfig
from densehand.train.selfsup import Reseeder, Reseeding, _about_each_axis, check_seeds, estimate_seeds, reseeded, sheet
from densehand.train.stream import BatchStream, SynthPool

SIZE = 128
GREEN = torch.tensor([0.1, 0.8, 0.1])


@pytest.fixture(scope="module")
def synthesizer(hand):
    return Synthesizer(hand, size=64, config=SynthConfig(photograph=False, occluder_share=0, other_before=0))


def yaw(degrees):
    half = math.radians(degrees) / 2
    return torch.tensor([[math.cos(half), 0.0, math.sin(half), 0.0]])


def skin_of(hand):
    """A colour for every vertex, different all over the hand and everywhere that of skin."""
    low, high = hand.template.amin(0), hand.template.amax(0)
    return torch.tensor([0.8, 0.6, 0.5]) + 0.12 * ((hand.template - low) / (high - low) - 0.5)


def mesh_of(hand, count=1, turn=0.0):
    return MeshParameters(
        pose=hand.mean_pose.expand(count, 45).clone(),
        shape=torch.zeros(count, 10),
        rotation=yaw(turn).expand(count, 4).clone(),
        scale=torch.full((count,), 8.0),
        translation=torch.tensor([0.0, 0.7, 0.0]).expand(count, 3).clone(),
    )


def render(hand, mesh, size=SIZE):
    """uint8 pictures of the coloured hand before green, and the projected keypoints."""
    vertices, joints = hand(mesh.pose, mesh.shape, mesh.rotation)
    flat = mesh.scale[:, None, None] * vertices[..., :2] + mesh.translation[:, None, :2]
    screen = torch.cat([(flat + 1) * size / 2, vertices[..., 2:]], dim=-1)
    seen = rasterise(screen, hand.faces, (size, size), cull="back")
    picture = interpolate_vertices(seen, skin_of(hand), hand.faces)
    picture = torch.where(seen.mask[..., None], picture, GREEN)
    keypoints = mesh.scale[:, None, None] * joints[..., :2] + mesh.translation[:, None, :2]
    return (picture * 255).round().byte(), keypoints, screen, seen


def records_of(hand, count=4):
    mesh = mesh_of(hand, count)
    mesh.pose[:] += torch.linspace(-0.1, 0.1, count)[:, None]
    images, keypoints, *_ = render(hand, mesh)
    return Records(
        images, keypoints, torch.ones(count, 21), mesh.pose, mesh.shape, mesh.rotation, mesh.scale,
        mesh.translation[:, :2], torch.ones(count), no_masks(count), no_masks(count),
    )  # fmt: skip


def shown(hand, seed_mesh, new_mesh, images):
    """What a Likeness shows of the new mesh's pixels: colour, weight, true colour, corners and barycentric weights."""
    likeness = Likeness(*new_mesh[:3], look_at_seeds(hand, images, seed_mesh), torch.zeros(1, dtype=torch.long))
    _, _, _, seen = render(hand, new_mesh)
    corners = hand.faces[seen.face_index.flatten()[seen.covered]]
    weights = seen.barycentric.reshape(-1, 3)[seen.covered]
    colour, trust = likeness.shown(torch.zeros(len(corners), dtype=torch.long), corners, weights)
    return colour, trust, (skin_of(hand)[corners] * weights[..., None]).sum(1), corners, weights


def test_skin_comes_to_the_same_place_of_the_new_mesh(hand):
    seed, new = mesh_of(hand), mesh_of(hand, turn=35)
    new.shape[:] = torch.linspace(-2, 2, 10)
    colour, trust, true, *_ = shown(hand, seed, new, render(hand, seed)[0])
    sure = trust > 0.9
    assert sure.float().mean() > 0.25
    assert (colour - true)[sure].abs().max() < 0.03


def test_the_other_side_is_not_made_up_from_the_photo(hand):
    seed = mesh_of(hand)
    _, same, *_ = shown(hand, seed, seed, render(hand, seed)[0])
    _, behind, *_ = shown(hand, seed, mesh_of(hand, turn=180), render(hand, seed)[0])
    assert behind.mean() < 0.02 < 0.4 < same.mean()


def test_hidden_skin_is_not_taken_from_what_hides_it(hand):
    """Against a loop over faces: every point that is painted has no face of the seed clearly before it."""
    seed = mesh_of(hand)
    seed.pose[:] *= 4  # fingers before the palm
    seed.rotation[:] = yaw(20)
    images, _, screen, _ = render(hand, seed)
    new = seed._replace(rotation=yaw(-30))
    _, trust, _, corners, weights = shown(hand, seed, new, images)
    places = (screen[0][corners] * weights[..., None]).sum(1).double().numpy()
    triangles = screen[0][hand.faces].double().numpy()
    hidden = np.zeros(len(places), bool)
    chosen = np.random.default_rng(0).permutation(len(places))[:250]
    for k in chosen:
        a, b, c = (triangles[:, i, :2] - places[k, :2] for i in range(3))

        def area(p, q):
            return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]

        parts = np.stack([area(b, c), area(c, a), area(a, b)], -1)
        over = (parts > 0).all(-1) | (parts < 0).all(-1)
        share = parts[over] / parts[over].sum(-1, keepdims=True)
        depth = (share * triangles[over][..., 2]).sum(-1)
        hidden[k] = (depth < places[k, 2] - 2 * SAME_DEPTH).any()
    assert hidden[chosen].sum() > 10
    assert trust.numpy()[chosen][hidden[chosen]].max() < 0.05


def test_background_is_not_painted_on_where_the_fit_is_a_little_off(hand):
    seed = mesh_of(hand)
    images = render(hand, seed)[0]
    off = seed._replace(translation=seed.translation + torch.tensor([0.03, -0.02, 0.0]))
    colour, trust, *_ = shown(hand, off, mesh_of(hand, turn=20), images)
    green = (colour - GREEN).abs().amax(-1) < 0.2
    assert green.any() and trust[green].max() < 0.05
    assert (trust > 0.9).float().mean() > 0.2


def test_a_seed_without_a_hand_in_sight_gives_nothing_but_stays_finite(hand):
    seed = mesh_of(hand)
    away = seed._replace(translation=torch.full((1, 3), 50.0))
    _, trust, *_ = shown(hand, away, seed, render(hand, seed)[0])
    assert trust.max() == 0
    assert look_at_seeds(hand, render(hand, seed)[0], away).skin.isfinite().all()


def test_rendered_skin_takes_the_photos_colour(hand, synthesizer):
    """The hand's other side, of which the photo shows nothing, has the colour of the photo all the same."""
    seed = mesh_of(hand)
    images = torch.full((1, SIZE, SIZE, 3), 255, dtype=torch.uint8) * torch.tensor([0.5, 0.25, 0.6])
    index = torch.zeros(8, dtype=torch.long)
    like = Likeness(
        seed.pose.expand(8, 45), seed.shape.expand(8, 10), yaw(180).expand(8, 4),
        look_at_seeds(hand, images.byte(), seed), index,
    )  # fmt: skip
    batch = synthesizer.sample(8, torch.Generator().manual_seed(0), like)
    colour = (batch.images * batch.mask[:, None]).sum((2, 3)) / batch.mask.sum((1, 2)).clamp_min(1)[:, None]
    assert (colour[:, 2] > colour[:, 0]).all() and (colour[:, 0] > 1.3 * colour[:, 1]).all()
    assert colour.mean(0).allclose(torch.tensor([0.5, 0.25, 0.6]), atol=0.12)
    with pytest.raises(InputError, match="8 hands"):
        synthesizer.sample(3, torch.Generator(), like)


def test_three_new_samples_a_seed_keep_pose_and_labels(hand, synthesizer):
    records = records_of(hand)
    source = Reseeder(hand, records, synthesizer=synthesizer)
    new = source.records(12, torch.Generator().manual_seed(1))
    assert new.images.shape == (12, 64, 64, 3) and new.masks.shape == (12, 64, 64) and len(new) == 12
    which = torch.cdist(new.pose, records.pose).argmin(1)
    assert torch.equal(new.pose, records.pose[which])
    assert torch.bincount(which).tolist() == [3, 3, 3, 3]  # each seed once before any is used again
    assert new.shape.abs().max() <= 3 and new.shape.abs().mean() == pytest.approx(1.5, abs=0.25)
    skeleton = new.scale[:, None, None] * hand.skeleton(new.pose, new.shape, new.rotation)[..., :2]
    assert (skeleton + new.translation[:, None] - new.keypoints).norm(dim=-1).mean() < 0.03
    knuckles = new.keypoints[:, [9, 13]]  # well inside the hand
    pixel = ((knuckles + 1) * 32).long().clamp(0, 63)
    on = new.masks[torch.arange(12)[:, None], pixel[..., 1], pixel[..., 0]] > 0
    assert on.float().mean() > 0.7
    again = source.records(12, torch.Generator().manual_seed(1))
    other = source.records(12, torch.Generator().manual_seed(2))
    assert torch.equal(new.images, again.images) and not torch.equal(new.images, other.images)


def test_the_viewpoint_is_turned_as_far_as_asked(hand, synthesizer):
    records = records_of(hand)
    for turn, farthest in ((0.0, 0.0), (20.0, 60.0)):
        source = Reseeder(hand, records, how=Reseeding(turn=turn), synthesizer=synthesizer)
        seed, like = source.draw(60, torch.Generator().manual_seed(0))
        between = quaternion_to_matrix(like.rotation) @ quaternion_to_matrix(records.rotation[seed]).mT
        angle = torch.rad2deg(torch.arccos(((between.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)))
        assert angle.max() <= farthest + 0.1
        assert turn == 0 or angle.mean() > 12


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-math.pi, math.pi), min_size=3, max_size=3))
def test_turns_are_about_x_then_y_then_z(angles):
    (a, b, c) = angles
    x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    turned = _about_each_axis(torch.tensor([angles], dtype=torch.float64))[0].numpy()
    np.testing.assert_allclose(turned, z @ y @ x, atol=1e-9)


def test_only_realistic_seeds_start_it(hand, synthesizer):
    records = records_of(hand)
    mesh = mesh_of(hand, 4)._replace(pose=records.pose.clone())
    fine = check_seeds(hand, records, mesh)
    assert fine.good.all() and fine.started and fine.share == 1 and fine.error.max() < 1e-4

    moved, bent, odd = mesh.translation.clone(), mesh.pose.clone(), mesh.shape.clone()
    moved[0, 0] += 0.3  # beside the evidence
    bent[1, 2::9] = 2.0  # twisted beyond the limits
    odd[2, 0] = 5.0
    bad = check_seeds(hand, records, mesh._replace(translation=moved, pose=bent, shape=odd))
    assert bad.good.tolist() == [False, False, False, True] and not bad.started
    assert bad.error[0] > 0.1 and bad.beyond[1] > 20 and bad.share == 0.25
    spoilt = mesh._replace(translation=moved, pose=bent, shape=odd)
    assert len(reseeded(records, spoilt, 6, torch.Generator(), synthesizer)) == 0
    with pytest.raises(InputError, match="25% of the meshes are, 50%"):
        Reseeder(hand, records, spoilt, synthesizer=synthesizer).records(3, torch.Generator())
    some = Reseeder(hand, records, spoilt, how=Reseeding(start=0.2), synthesizer=synthesizer)
    assert set(some.draw(9, torch.Generator().manual_seed(0))[0].tolist()) == {3}


def test_seeds_without_evidence_or_with_nan_are_no_seeds(hand, synthesizer):
    records = records_of(hand)
    blind = replace(records, keypoint_weight=torch.zeros(4, 21))
    assert not check_seeds(hand, blind, mesh_of(hand, 4)).started
    half_blind = replace(records, keypoint_weight=torch.tensor([1.0, 1, 0, 0])[:, None].expand(4, 21))
    mesh = mesh_of(hand, 4)._replace(pose=records.pose.clone())
    assert check_seeds(hand, half_blind, mesh).share == 1
    mesh.pose[1, 0] = torch.nan
    assert check_seeds(hand, half_blind, mesh).good.tolist() == [True, False, False, False]
    with pytest.raises(InputError, match="3 meshes for 4"):
        Reseeder(hand, records, mesh_of(hand, 3), synthesizer=synthesizer)


def test_the_networks_estimates_come_in_units_of_the_picture(hand):
    """A network that answers the truth in each crop gives the truth in the picture."""
    records = records_of(hand, 3)
    truth = mesh_of(hand, 3)
    low, high = records.keypoints.amin(1), records.keypoints.amax(1)
    half, centre = 0.75 * (high - low).amax(-1), (low + high) / 2
    place = (truth.translation - torch.nn.functional.pad(centre, (0, 1))) / half[:, None]
    h = encode(truth._replace(scale=truth.scale / half, translation=place))
    modes, answers = [], list(h.split(2))

    class Oracle:
        training = True

        def eval(self):
            modes.append("eval")

        def train(self, mode):
            modes.append(mode)

        def __call__(self, crops):
            assert crops.shape[1:] == (3, 64, 64)
            return SimpleNamespace(parameters=[answers.pop(0)])

    found = estimate_seeds(Oracle(), records, size=64, batch=2)
    for name in ("pose", "shape", "rotation", "scale", "translation"):
        torch.testing.assert_close(getattr(found, name), getattr(truth, name), atol=1e-5, rtol=1e-5)
    assert modes == ["eval", True]


def test_the_pool_of_training_takes_it_and_a_sheet_shows_it(hand, synthesizer):
    source = Reseeder(hand, records_of(hand), synthesizer=synthesizer)
    ring = SynthPool(source, 64, seed=3).records(0, 4.0)
    assert len(ring) == 64 and ring.masks.shape[1:] == (64, 64)
    drawn = sheet(source, 2, torch.Generator().manual_seed(0))
    assert drawn.shape == (2 * 64, 4 * 64, 3) and drawn.dtype == np.uint8
    children = source.records(6, torch.Generator().manual_seed(0)).images
    np.testing.assert_array_equal(drawn[64:, 64:128], children[3])


def test_training_mixes_new_views_of_its_photos_in(tmp_path, hand):
    photos = make_photo_folder(tmp_path / "photos", count=6)
    config = TrainConfig(
        photos=str(photos), fits=str(tmp_path / "fits.npz"), size=64, batch=8, photo_share=0.25, selfsup_share=0.5,
        negative_share=0.0, pool=64, device="cpu",
    )  # fmt: skip
    stream = BatchStream(config, hand)
    assert stream.counts(8) == {"photos": 2, "negatives": 0, "selfsup": 4, "synthetic": 2}
    poses = stream.photos.pose
    batch = stream.batch(5)
    assert batch.images.shape == (8, 3, 64, 64)
    assert torch.cdist(batch.pose[:6], poses).amin(1).max() < 1e-6 < torch.cdist(batch.pose[6:], poses).amin()
    assert batch.has_mask.tolist() == [False] * 2 + [True] * 6
    assert torch.equal(batch.images, BatchStream(config, hand).batch(5).images)
    with pytest.raises(InputError, match="photos"):
        BatchStream(replace(config, photos="", photo_share=0.0), hand)
