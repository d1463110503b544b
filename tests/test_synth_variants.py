"""Each part of the synthesis can be taken away alone, and what that does to photos is measured and told rightly."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_folder import make_photo_folder

from densehand.ablation.synthesis import FIGURES, VARIANTS, Measurement, Options, known_hands, synthesizer, table
from densehand.data.fits import fit_photos
from densehand.data.photos import load_photos
from densehand.data.records import records_from_photos
from densehand.errors import InputError
from densehand.hand.model import quaternion_to_matrix
from densehand.network.zoo import WEIGHTS_FOLDER
from densehand.render.shade import harmonic_basis
from densehand.synth import SynthConfig, Synthesizer
from densehand.synth import poses as P
from densehand.synth.config import WIDE
from densehand.synth.light import even_light
from densehand.synth.photo import phone
from densehand.synth.scene import _SKIN_RINGS, build_forearms

SIZE, COUNT = 64, 12
CLEAR = replace(
    WIDE, photograph=False, backdrop=False, occluder_share=0.0, other_before=0.0, other_behind=0.0, object_share=0.0
)


def pictures(hand, config, **given):
    return Synthesizer(hand, size=SIZE, config=config, **given).sample(COUNT, torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def clear(hand):
    return pictures(hand, CLEAR)


# ---- the configuration


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sleeve_share": 1.2}, "sleeve_share = 1.2, but it must be from 0 to 1"),
        ({"pose_spread": -1.0}, "pose_spread = -1.0, but it must be at least 0"),
        ({"view_share": float("nan")}, "view_share = nan is not a number"),
        ({"forearm": 1}, "forearm = 1 is not true or false"),
        ({"tones": (0.5, 0.2)}, "tones = 0.5, 0.2, but it must be two numbers from 0, rising"),
        ({"tones": (0.5, 1.2)}, "1 is the darkest"),
        ({"zoom": (-1.0, 1.0)}, "zoom"),
        ({"nearest": 2.0}, "nearest = 2.0 lies beyond farthest = 1.5"),
    ],
)
def test_unsound_configurations_are_refused(hand, changes, told):
    with pytest.raises(InputError, match="synthesis") as error:
        Synthesizer(hand, size=SIZE, config=SynthConfig(**changes))
    assert told in str(error.value)


def test_views_of_another_shape_are_refused(hand):
    with pytest.raises(InputError, match=r"quaternions \(k, 4\), not \(4,\)"):
        Synthesizer(hand, size=SIZE, views=torch.zeros(4))


def test_every_variant_changes_what_it_names_and_no_more():
    for name, variant in VARIANTS.items():
        variant.config.check()
        different = {key for key, value in vars(variant.config).items() if value != getattr(WIDE, key)}
        assert different == set(variant.changes), name
        assert bool(different) + (not variant.photos_behind) + (not variant.known) == (name != "all"), name


# ---- what each switch takes away; hands, views and cameras stay


@pytest.mark.parametrize(
    "change",
    [{"skin_detail": False}, {"environments": False}, {"forearm": False}, {"sleeve_share": 0.0}, {"tones": (0.9, 1.0)}],
)
def test_looks_change_pictures_but_no_labels(hand, clear, change):
    other = pictures(hand, replace(CLEAR, **change))
    for name in ("pose", "shape", "rotation", "keypoints", "parameters", "mask_full", "camera_distance"):
        assert torch.equal(getattr(clear, name), getattr(other, name)), name
    assert (clear.images - other.images).abs().mean() > 1e-3
    assert torch.isfinite(other.images).all()


def test_without_backdrop_and_forearm_all_but_the_hand_has_one_colour(hand):
    bare = pictures(hand, replace(CLEAR, forearm=False))
    with_arm = pictures(hand, CLEAR)

    def unlike_the_corner(batch):
        """Share of pixels well outside the hand that differ from the picture's commonest colour."""
        outside = torch.nn.functional.max_pool2d(batch.mask_full.float()[:, None], 7, 1, 3)[:, 0] < 0.5
        middle = torch.stack([p[:, o].median(-1).values for p, o in zip(batch.images, outside, strict=True)])
        differs = (batch.images - middle[..., None, None]).abs().amax(1) > 0.02
        return float((differs & outside).sum() / outside.sum())

    assert unlike_the_corner(bare) == 0.0
    assert unlike_the_corner(with_arm) > 0.01


def test_flat_skin_has_less_structure(hand):
    """Edges within the hand under even light, far from its outline."""
    lit = replace(CLEAR, environments=False, forearm=False)

    def roughness(config):
        batch = pictures(hand, config)
        inner = -torch.nn.functional.max_pool2d(-batch.mask.float()[:, None], 5, 1, 2)[:, 0] > 0.5
        grey = batch.images.mean(1)
        edges = torch.zeros_like(grey)
        edges[:, 1:-1, 1:-1] = (4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1]
                                - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]).abs()  # fmt: skip
        return float(edges[inner].mean())

    assert roughness(replace(lit, skin_detail=False)) < 0.8 * roughness(lit)


def test_tones_stay_in_their_range(hand):
    tone = pictures(hand, replace(CLEAR, tones=(0.4, 0.5))).tone
    assert tone.min() >= 0.4 and tone.max() <= 0.5 and tone.std() > 0


def test_even_light_is_alike_from_all_sides():
    normals = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    torch.testing.assert_close(harmonic_basis(normals) @ even_light()[0], torch.ones(20, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("share", "dressed"), [(0.0, 0), (1.0, 40)])
def test_sleeves(hand, share, dressed):
    loop = hand.template[hand.wrist_loop].expand(40, -1, 3)
    view, distance = torch.eye(3).expand(40, 3, 3), torch.full((40,), 0.8)
    arm = build_forearms(loop, view, distance, torch.Generator().manual_seed(1), share)
    rings = arm.vertices.unflatten(1, (-1, loop.shape[1]))
    sleeve = (rings[:, -1] - rings[:, _SKIN_RINGS]).norm(dim=-1).amax(-1)
    assert int((sleeve > 0.005).sum()) == dressed


def test_spread_of_poses(hand):
    anchors = P.load_anchor_poses()

    def drawn(spread):
        return P.sample_angles(200, hand, torch.Generator().manual_seed(3), anchors, 1.0, spread)[0]

    nearest = (drawn(0.0)[:, None] - anchors[None]).abs().amax((-1, -2)).amin(1)
    assert nearest.max() < 1e-3  # packaged poses lie up to that far beyond the limits
    narrow, usual, wide = ((drawn(s) - drawn(0.0)).abs().mean() for s in (0.5, 1.0, 1.6))
    assert narrow < usual < wide


@settings(deadline=None, max_examples=10)
@given(st.floats(0.05, 1.0), st.integers(0, 1000))
def test_views_around_known_ones(share, seed):
    known = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(9)), dim=-1)
    generators = [torch.Generator().manual_seed(seed) for _ in range(3)]
    before = P.sample_rotations(300, generators[0], "cpu")
    assert torch.equal(before, P.sample_rotations(300, generators[1], "cpu", 0.45, known, 0.0))
    views = P.sample_rotations(300, generators[2], "cpu", 0.45, known, share)
    torch.testing.assert_close(views.norm(dim=-1), torch.ones(300))
    changed = (views - before).abs().amax(-1) > 1e-6
    assert abs(float(changed.float().mean()) - share) < 0.15
    turned = quaternion_to_matrix(views[changed])[:, None] @ quaternion_to_matrix(known)[None].mT
    angle = torch.arccos(((turned.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)).amin(1)
    assert angle.max() < 1.1 and angle.mean() < 0.5


# ---- phones


def test_phone_agrees_with_opencv_and_does_nothing_at_zero():
    image = torch.rand(2, 3, 33, 33, generator=torch.Generator().manual_seed(1))
    zero, one = torch.zeros(2), torch.ones(2)
    torch.testing.assert_close(phone(image, zero, zero, zero), image, atol=1e-6, rtol=0)
    found = phone(image, zero, 0.8 * one, zero)[0].permute(1, 2, 0).numpy()
    plain = image[0].permute(1, 2, 0).numpy()
    soft = cv2.GaussianBlur(plain, (7, 7), 1.3, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(found, plain + 0.8 * (plain - soft), atol=2e-5)
    shaded = phone(torch.ones(2, 3, 33, 33), zero, zero, 0.4 * one)
    assert shaded[0, 0, 16, 16] == pytest.approx(1.0) and 0.6 < shaded[0, 0, 0, 0] < 0.63


def test_sharpening_leaves_halos_at_edges():
    edge = torch.full((1, 3, 16, 16), 0.3)
    edge[..., 8:] = 0.6
    sharp = phone(edge, torch.zeros(1), torch.ones(1), torch.zeros(1))
    assert sharp[0, 0, 8, 7] < 0.25 and sharp[0, 0, 8, 8] > 0.65 and sharp[0, 0, 8, 1] == pytest.approx(0.3)


def test_phones_change_their_share_of_the_photographs(hand):
    config = replace(CLEAR, photograph=True)
    before = pictures(hand, config)
    after = pictures(hand, replace(config, phone_share=0.5))
    assert torch.equal(before.keypoints, after.keypoints) and not torch.equal(before.images, after.images)
    same = (before.images - after.images).abs().amax((1, 2, 3)) < 1e-6
    assert 0 < int(same.sum()) < COUNT


# ---- the measurement


def line(row, seed, mesh, **more):
    figures = {f"{name}_before": 9.0 for name in FIGURES} | {f"{name}_after": 10.0 for name in FIGURES}
    shared = vars(Options()) | {"start": "weights"}
    return {
        k: str(v) for k, v in ({"row": row, "seed": seed, **shared, **figures, "mesh_px_after": mesh} | more).items()
    }


def test_table_tells_differences_seed_by_seed():
    lines = [line("all", 0, 10.0), line("plain", 0, 11.0), line("all", 1, 14.0), line("plain", 1, 15.5)]
    text = table(lines).splitlines()
    assert text[2].startswith("| before | | 9.00 | 9.00 | 9.00 | 9.000 |")
    assert text[3].startswith("| all parts, as training has them | 2 | 12.00 ± 2.83 |")
    assert text[4].startswith(
        "| backdrops of one colour | 2 | 13.25 ± 3.18 (+1.25 ± 0.35) | 10.00 ± 0.00 (+0.00 ± 0.00)"
    )
    assert len(text) == 5


def test_table_refuses_mixed_and_empty_results():
    for lines in ([], [line("all", 0, 1.0), line("plain", 0, 1.0, steps=7)]):
        with pytest.raises(InputError, match=r"rows of . kinds"):
            table(lines)


def test_a_row_is_measured_from_the_start_weights_on(hand, tmp_path):
    photos = load_photos(make_photo_folder(tmp_path, 8), "all")
    fits = fit_photos(hand, photos.keypoints, photos.world, steps=3)
    fits.residual[:] = torch.linspace(0.0, 0.1, len(photos))
    poses, views = known_hands(fits)
    assert poses.shape == (4, 45) and torch.equal(views, fits.rotation[:4])
    real = records_from_photos(photos, fits)
    real.trust[:] = 1.0
    options = Options(size=64, batch=2, steps=2, pool=4, photos=3)
    measurement = Measurement(
        real, WEIGHTS_FOLDER / "dhpe-lite.safetensors", options, torch.zeros(2, 40, 40, 3).byte(), (poses, views)
    )
    found, again = (measurement.run("plain", 1) for _ in range(2))
    assert {k: v for k, v in found.items() if k != "cpu_seconds"} == {
        k: v for k, v in again.items() if k != "cpu_seconds"
    }
    assert found["pictures"] == 4 and found["start"] == "dhpe-lite"
    assert found["mesh_px_before"] == round(measurement.before["mesh_px"], 4) != found["mesh_px_after"]
    assert "| backdrops of one colour | 1 |" in table([found])
    real.trust[:] = 0.0
    with pytest.raises(InputError, match="none of 8 photos"):
        Measurement(real, WEIGHTS_FOLDER / "dhpe-lite.safetensors", options)


def test_rows_without_photos_use_none(hand):
    backgrounds = torch.zeros(1, 40, 40, 3).byte()
    known = torch.zeros(40, 45), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    full = synthesizer(VARIANTS["all"], hand, SIZE, backgrounds, known)
    assert full.backgrounds is not None and full.views is not None
    assert synthesizer(VARIANTS["made-up"], hand, SIZE, backgrounds, known).backgrounds is None
    packaged = len(P.load_anchor_poses())
    assert len(synthesizer(VARIANTS["no-photos-poses"], hand, SIZE, backgrounds, known).anchors) == packaged
    assert len(full.anchors) == packaged + 40
