"""The pictures and their labels agree."""

import json
from dataclasses import fields

import pytest
import torch
from typer.testing import CliRunner

from densehand.errors import InputError
from densehand.hand.keypoints import KNUCKLES
from densehand.hand.model import HandModel, quaternion_to_matrix
from densehand.network.mesh import decode, skeleton_in_crop
from densehand.render import rasterise
from densehand.synth import SynthConfig, Synthesizer
from densehand.synth.sampler import fit_weak_perspective
from densehand.synth.scene import build_objects, forearm_faces, sphere_topology, superquadric

SIZE = 96


@pytest.fixture(scope="module")
def synthesizer(hand):
    return Synthesizer(hand, size=SIZE, seed=3)


@pytest.fixture(scope="module")
def batch(synthesizer):
    return synthesizer.sample(48, torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def far(hand):
    """Far cameras, nothing in the way: weak perspective is then nearly exact."""
    config = SynthConfig(nearest=2.5, farthest=3.0, object_share=0, occluder_share=0, other_before=0, photograph=False)
    return Synthesizer(hand, size=SIZE, config=config).sample(32, torch.Generator().manual_seed(6))


def test_shapes_and_ranges(batch):
    n = 48
    expected = {
        "images": (n, 3, SIZE, SIZE), "keypoints": (n, 21, 2), "skeleton": (n, 21, 3), "parameters": (n, 63),
        "pose": (n, 45), "shape": (n, 10), "rotation": (n, 4), "scale": (n,), "translation": (n, 3),
        "mask": (n, SIZE, SIZE), "mask_full": (n, SIZE, SIZE), "depth": (n, SIZE, SIZE), "visible": (n, 21),
        "camera_distance": (n,), "family": (n,), "tone": (n,),
    }  # fmt: skip
    assert {f.name for f in fields(batch)} == set(expected)
    for name, shape in expected.items():
        value = getattr(batch, name)
        assert value.shape == shape, name
        assert torch.isfinite(value.float()).all(), name
    assert batch.images.min() >= 0 and batch.images.max() <= 1
    assert len(batch) == n


def test_pictures_are_no_flat_fields(batch):
    assert (batch.images.std((1, 2, 3)) > 0.01).all()
    assert batch.images.mean((1, 2, 3)).std() > 0.05


def test_same_seed_same_pictures(hand, synthesizer):
    first = synthesizer.sample(6, torch.Generator().manual_seed(1))
    again = Synthesizer(hand, size=SIZE, seed=99).sample(6, torch.Generator().manual_seed(1))
    for field in fields(first):
        assert torch.equal(getattr(first, field.name), getattr(again, field.name)), field.name
    other = synthesizer.sample(6, torch.Generator().manual_seed(2))
    assert not torch.equal(first.images, other.images)


def test_own_seed_drives_sampling_without_a_generator(hand):
    one, two = (Synthesizer(hand, size=48, seed=8).sample(2).images for _ in range(2))
    assert torch.equal(one, two)


def test_parameters_decode_to_the_labels(hand, batch):
    decoded = decode(batch.parameters)
    torch.testing.assert_close(decoded.pose, batch.pose)
    torch.testing.assert_close(decoded.scale, batch.scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        quaternion_to_matrix(decoded.rotation), quaternion_to_matrix(batch.rotation), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(skeleton_in_crop(hand, batch.parameters), batch.skeleton, atol=1e-4, rtol=0)


def test_skeleton_explains_the_keypoints(batch, far):
    """Weak perspective leaves what perspective adds: little from afar, more from near."""
    assert (far.skeleton[..., :2] - far.keypoints).norm(dim=-1).max() < 0.03
    error = (batch.skeleton[..., :2] - batch.keypoints).norm(dim=-1).mean(-1)
    near = batch.camera_distance < 0.5
    assert error.max() < 0.2
    assert error[near].mean() > 1.5 * error[~near].mean()
    assert (batch.skeleton[:, 0, 2] == 0).all()


def test_weak_perspective_fit_is_least_squares():
    points = torch.randn(5, 21, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = 3 * points + torch.tensor([0.2, -0.4]) + 0.1 * torch.randn_like(points)
    scale, shift = fit_weak_perspective(points, targets)
    for k in range(5):
        ones, zeros = torch.ones(21, dtype=torch.float64), torch.zeros(21, dtype=torch.float64)
        rows = torch.cat(
            [torch.stack([points[k, :, 0], ones, zeros], 1), torch.stack([points[k, :, 1], zeros, ones], 1)]
        )
        expected = torch.linalg.lstsq(rows, torch.cat([targets[k, :, 0], targets[k, :, 1]])[:, None]).solution[:, 0]
        torch.testing.assert_close(torch.cat([scale[k : k + 1], shift[k]]), expected)


def test_crop_is_the_keypoints_box_with_jitter(batch):
    low, high = batch.keypoints.amin(1), batch.keypoints.amax(1)
    side = (high - low).amax(-1)  # of a crop 2 wide
    padding = 2.0 / side / 1.5
    assert (padding > 0.849).all() and (padding < 1.251).all() and padding.std() > 0.05
    assert ((low + high) / 2).abs().max() <= 0.161


def test_rerendered_parameters_cover_the_mask(hand, far):
    mesh = hand(far.pose, far.shape, far.rotation)
    points = far.scale[:, None, None] * mesh.vertices + far.translation[:, None]
    screen = torch.cat([(points[..., :2] + 1) * (SIZE / 2), points[..., 2:]], dim=-1)
    again = rasterise(screen, hand.faces, (SIZE, SIZE)).mask
    overlap = (again & far.mask_full).sum((1, 2)) / (again | far.mask_full).sum((1, 2))
    assert overlap.min() > 0.9
    assert overlap.mean() > 0.96


def pixels(batch):
    place = ((batch.keypoints + 1) * (SIZE / 2)).floor().long()
    inside = ((place >= 0) & (place < SIZE)).all(-1)
    return place.clamp(0, SIZE - 1), inside


def test_visible_keypoints_lie_on_the_mask(batch):
    place, inside = pixels(batch)
    rows = torch.arange(len(batch))[:, None]
    on_mask = batch.mask[rows, place[..., 1], place[..., 0]]
    assert not (batch.visible & ~inside).any()
    # fingertips lie on the skin and the wrist at the mask's end: half a pixel decides
    middle = [k for k in range(21) if k not in (0, 4, 8, 12, 16, 20)]
    assert on_mask[:, middle][batch.visible[:, middle]].float().mean() > 0.97
    palm = list(KNUCKLES[1:])
    assert on_mask[:, palm][batch.visible[:, palm]].float().mean() > 0.97
    share = batch.visible.float().mean()
    assert 0.4 < share < 0.9


def test_masks_and_depth_fit_together(batch):
    assert not (batch.mask & ~batch.mask_full).any()
    assert (batch.mask.sum((1, 2)) < batch.mask_full.sum((1, 2))).any()
    assert ((batch.depth > 0) == batch.mask).all()
    for k in range(len(batch)):
        seen = batch.depth[k][batch.mask[k]]
        if len(seen):
            assert (seen - batch.camera_distance[k]).abs().max() < 0.2


def test_mask_ends_at_the_wrist(far, hand):
    """The forearm is in the picture but not in the mask: no mask pixel lies far behind the wrist."""
    axis = quaternion_to_matrix(far.rotation)[:, :2, 1]  # hand frame +y (down the arm) on the screen
    y, x = torch.meshgrid(*(((torch.arange(SIZE) + 0.5) * 2 / SIZE - 1),) * 2, indexing="ij")
    for k in range(len(far)):
        offset = torch.stack([x, y], -1)[far.mask[k]] - far.keypoints[k, 0]
        beyond = (offset @ axis[k]) / far.scale[k]
        assert beyond.max() < 0.04  # metres


def test_hands_are_right_hands(hand):
    """Upright, palm to the camera: the thumb is to the right of the little finger."""
    config = SynthConfig(nearest=1.0, photograph=False)
    batch = Synthesizer(hand, size=32, config=config).sample(300, torch.Generator().manual_seed(0))
    view = quaternion_to_matrix(batch.rotation)
    fingers_up, palm_here = view[:, 1, 1] > 0.8, view[:, 2, 2] > 0.8
    chosen = batch.keypoints[fingers_up & palm_here]
    assert len(chosen) > 3
    assert (chosen[:, 5, 0] > chosen[:, 17, 0]).all()


def test_skin_shows_all_tones(hand):
    config = SynthConfig(photograph=False, occluder_share=0, other_before=0, object_share=0)
    batch = Synthesizer(hand, size=48, config=config).sample(128, torch.Generator().manual_seed(7))
    weight = batch.mask[:, None].float()
    shown = ((batch.images * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1)).mean(1)
    full = batch.mask.sum((1, 2)) > 50
    assert torch.corrcoef(torch.stack([shown[full], batch.tone[full]]))[0, 1] < -0.5
    assert (torch.histc(batch.tone, 6, 0, 1) >= 8).all()
    assert shown[full].min() < 0.3 and shown[full].max() > 0.65


def test_backgrounds_appear(hand):
    red = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    red[..., 0] = 200
    config = SynthConfig(photograph=False, occluder_share=0, other_before=0, other_behind=0)
    images = Synthesizer(hand, red, size=48, config=config).sample(16, torch.Generator().manual_seed(0)).images
    pure = (images[:, 1] < 0.02) & (images[:, 0] > 0.2)
    assert pure.float().mean() > 0.2


def test_poses_of_the_trainer_are_sampled_around(hand):
    odd = torch.zeros(40, 45)
    odd[:, 0] = 0.0
    config = SynthConfig(anchor_share=1.0)
    with_poses = Synthesizer(hand, size=32, poses=odd, config=config)
    assert len(with_poses.anchors) > 40
    assert (with_poses.anchors.abs().amax((1, 2)) < 1e-6).sum() == 40


def test_records_keep_the_labels(synthesizer):
    records = synthesizer.records(4, torch.Generator().manual_seed(3))
    batch = synthesizer.sample(4, torch.Generator().manual_seed(3))
    assert records.images.shape == (4, SIZE, SIZE, 3) and records.images.dtype == torch.uint8
    torch.testing.assert_close(records.images.permute(0, 3, 1, 2) / 255, batch.images, atol=0.003, rtol=0)
    assert torch.equal(records.keypoints, batch.keypoints)
    assert torch.equal(records.masks > 0, batch.mask)


def without(hand, *names):
    arrays = {
        name: value.numpy()
        for name, value in hand.named_buffers()
        if not name.startswith("_") and name not in names and value.numel()
    }
    return HandModel(arrays, "stripped")


def test_hands_without_uvs_are_drawn_too(hand):
    batch = Synthesizer(without(hand, "uv", "face_uv"), size=48).sample(4)
    assert torch.isfinite(batch.images).all() and batch.mask.any()


def test_the_callers_hand_stays_as_it_is():
    double = HandModel.load("open", dtype=torch.float64)
    batch = Synthesizer(double, size=32).sample(2)
    assert double.template.dtype == torch.float64 and batch.images.dtype == torch.float32


def test_unusable_arguments_are_named(hand):
    with pytest.raises(InputError, match="wrist loop"):
        Synthesizer(without(hand, "wrist_loop"))
    with pytest.raises(InputError, match="16 px"):
        Synthesizer(hand, size=16)
    with pytest.raises(InputError, match="uint8"):
        Synthesizer(hand, torch.rand(2, 32, 32, 3))
    with pytest.raises(InputError, match="at least one"):
        Synthesizer(hand, size=32).sample(0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_small_batches_work(synthesizer, n):
    assert synthesizer.sample(n, torch.Generator().manual_seed(n)).images.shape == (n, 3, SIZE, SIZE)


def test_forearm_and_object_faces_point_outwards(hand):
    loop = hand.wrist_loop
    circle = hand.template[loop]
    faces, sleeve = forearm_faces(loop, circle, len(hand.template))
    rings = [circle + torch.tensor([0.0, 0.03, 0.0]) * k for k in range(1, 7)]
    points = torch.cat([hand.template, *rings])
    normals = torch.linalg.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
    outward = points[faces].mean(1) - circle.mean(0)
    outward[:, 1] = 0
    # the wrist's outline is not quite convex
    assert ((outward * normals).sum(-1) > 0).float().mean() > 0.95
    assert 0 < sleeve.sum() < len(sleeve)
    angles, ball = sphere_topology()
    points = superquadric(angles, torch.ones(1, 2))[0]
    normals = torch.linalg.cross(points[ball[:, 1]] - points[ball[:, 0]], points[ball[:, 2]] - points[ball[:, 0]])
    assert ((points[ball].mean(1) * normals).sum(-1) > -1e-7).all()  # the poles' faces have no area
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(len(points)), atol=1e-5, rtol=0)


def test_held_objects_lie_at_the_palm(hand):
    joints = hand.skeleton(hand.mean_pose, torch.zeros(10)).expand(20, 21, 3)
    held = torch.arange(20) < 10
    vertices, _ = build_objects(joints, held, sphere_topology()[0], torch.Generator().manual_seed(0))
    assert torch.isfinite(vertices[:10]).all() and torch.isinf(vertices[10:]).all()
    palm = joints[0, [0, 5, 17]].mean(0)
    assert (vertices[:10].mean(1) - palm).norm(dim=-1).max() < 0.12
    assert (vertices[:10].mean(1)[:, 2] < 0.01).all()  # on the palm's side, −z


def test_command_writes_sheet_and_folder(tmp_path):
    from densehand.cli import build_app

    sheet, out = tmp_path / "sheet.png", tmp_path / "hands"
    arguments = ["synth", "--n", "3", "--size", "48", "--sheet", str(sheet), "--out", str(out), "--device", "cpu", "-q"]
    result = CliRunner().invoke(build_app(), arguments)
    assert result.exit_code == 0, result.output
    assert sheet.stat().st_size > 2000
    rows = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == ["000000.png", "000001.png", "000002.png"]
    assert len(rows[0]["keypoints_px"]) == 21 and (out / "000002.mask.png").is_file()


def test_command_without_output_is_a_usage_error():
    from densehand.cli import build_app

    assert CliRunner().invoke(build_app(), ["synth", "--n", "2"]).exit_code == 2
