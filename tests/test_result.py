"""`Hand` and the document densehand/1."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hands import make_hand, open_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand import export
from densehand.camera import project_pinhole
from densehand.document import document, read_document
from densehand.errors import InputError
from densehand.refine.record import Refinement
from densehand.render import rasterise
from densehand.result import Hand, mirrored_if_left, posed_mesh

HAND_KEYS = {
    "side", "side_score", "score", "box", "keypoints_2d", "keypoints_score", "joints_3d", "pose", "shape", "rotation",
    "scale", "translation", "camera",
}  # fmt: skip


def same(a: Hand, b: Hand, atol: float = 0.0) -> None:
    for field in dataclasses.fields(Hand):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, str | Refinement | None):
            assert x == y
        else:
            np.testing.assert_allclose(np.float32(x), np.float32(y), rtol=0, atol=atol, err_msg=field.name)


@pytest.mark.parametrize("side", ["left", "right"])
def test_json_has_the_schema_and_comes_back_exactly(side):
    hand = make_hand(side, seed=3)
    record = json.loads(json.dumps(hand.to_json_dict(), allow_nan=False))
    assert set(record) == HAND_KEYS and set(record["camera"]) == {"focal_px", "center_px"}
    sizes = {key: np.shape(value) for key, value in record.items() if isinstance(value, list)}
    assert sizes == {
        "box": (4,), "keypoints_2d": (21, 2), "keypoints_score": (21,), "joints_3d": (21, 3), "pose": (45,),
        "shape": (10,), "rotation": (4,), "translation": (3,),
    }  # fmt: skip
    same(Hand.from_json_dict(record, open_hand()), hand)


def test_json_says_what_refinement_did(tmp_path):
    note = Refinement("fast", 4, True, np.float64(2.1234567891), 0.1, np.float32(0.3), 1 / 3)
    hand = dataclasses.replace(make_hand("left", seed=3), refinement=note)
    record = json.loads(json.dumps(hand.to_json_dict(), allow_nan=False))
    assert set(record) == HAND_KEYS | {"refinement"}
    assert record["refinement"] == {
        "mode": "fast", "steps": 4, "converged": True, "moved_px": 2.1234567, "energy_before": 0.1, "energy_after": 0.3,
        "residual_px": 0.33333334,
    }  # fmt: skip
    back = Hand.from_json_dict(record | {"refinement": record["refinement"] | {"later": 1}}, open_hand())
    same(back, hand)
    assert back.refinement == note
    assert note.scaled(10).moved_px == pytest.approx(21.234567) and note.scaled(10).energy_before == 0.1
    export.write_npz(tmp_path / "a.npz", hand)
    assert export.read_npz(tmp_path / "a.npz").refinement == note
    assert Hand.from_json_dict(record | {"refinement": None}, open_hand()).refinement is None


@pytest.mark.parametrize(
    "change",
    [
        {"mode": 3}, {"steps": -1}, {"steps": 1.5}, {"steps": True}, {"converged": 1}, {"moved_px": -1.0},
        {"residual_px": float("nan")}, {"energy_after": None}, {"energy_before": "much"}, None,
    ],
)  # fmt: skip
def test_a_malformed_refinement_is_refused(change):
    note = dataclasses.asdict(Refinement("paper", 50, False, 1.0, 2.0, 1.0, 0.5))
    broken = {"mode": "fast"} if change is None else note | change
    with pytest.raises(InputError, match="refinement"):
        Hand.from_json_dict(make_hand().to_json_dict() | {"refinement": broken}, open_hand())
    for entry in ("x", 3, [1]):
        with pytest.raises(InputError, match="refinement"):
            Hand.from_json_dict(make_hand().to_json_dict() | {"refinement": entry}, open_hand())
        with pytest.raises(InputError, match="refinement"):
            dataclasses.replace(make_hand(), refinement=entry)


def test_json_numbers_are_short():
    text = json.dumps(dataclasses.replace(make_hand(), score=0.1).to_json_dict())
    assert '"score": 0.1,' in text


@pytest.mark.parametrize("key", sorted(HAND_KEYS))
def test_json_entry_missing_or_malformed(key):
    record = make_hand().to_json_dict()
    for broken in ({k: v for k, v in record.items() if k != key}, record | {key: "x"}, record | {key: [[1]]}):
        with pytest.raises(InputError, match=r"JSON|hand"):
            Hand.from_json_dict(broken, open_hand())


def test_json_of_another_hand_model_is_refused():
    record = make_hand().to_json_dict()
    record["shape"][0] += 1.0
    with pytest.raises(InputError, match="--hand"):
        Hand.from_json_dict(record, open_hand())
    wild = make_hand().to_json_dict() | {"pose": [1e30] * 45}
    with pytest.raises(InputError, match="--hand"), np.errstate(all="ignore"):
        Hand.from_json_dict(wild, open_hand())


def test_a_known_camera_draws_as_it_sees(tmp_path):
    hand = dataclasses.replace(make_hand(turn=(0.5, 0.6, 0)), pinhole=True)
    seen = project_pinhole(hand.joints_3d, hand.translation, hand.focal_px, hand.center_px)
    np.testing.assert_allclose(hand.project(hand.joints_3d), seen, atol=1e-3)
    again = Hand.from_json_dict(json.loads(json.dumps(hand.to_json_dict())), open_hand())
    assert again.pinhole and not Hand.from_json_dict(make_hand().to_json_dict(), open_hand()).pinhole
    export.write_npz(tmp_path / "a.npz", hand)
    assert export.read_npz(tmp_path / "a.npz").pinhole


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"side": "both"}, "left or right"),
        ({"pose": np.zeros(44)}, "pose"),
        ({"keypoints_2d": np.full((21, 2), np.nan)}, "keypoints_2d"),
        ({"score": float("inf")}, "score"),
        ({"scale": -1.0}, "scale"),
        ({"focal_px": 0.0}, "focal_px"),
        ({"translation": np.array([0, 0, -0.5])}, "translation"),
    ],
)
def test_a_hand_checks_its_fields(change, word):
    with pytest.raises(InputError, match=word):
        dataclasses.replace(make_hand(), **change)


def test_a_hand_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_hand().side = "left"  # type: ignore[misc]


def test_left_is_the_exact_mirror_and_stays_inside_out_free():
    rng = np.random.default_rng(0)
    pose, shape, rotation = rng.normal(0, 0.2, 45), rng.normal(size=10), rng.normal(size=4)
    right = posed_mesh(open_hand(), pose, shape, rotation, "right")
    left = posed_mesh(open_hand(), pose, shape, rotation, "left")
    for a, b in zip(left[:2], right[:2], strict=True):
        np.testing.assert_array_equal(a, b * np.float32([-1, 1, 1]))
    for vertices, _, faces in (left, right):
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        assert np.einsum("fi,fi->", a, np.cross(b, c)) / 6 > 1e-4  # enclosed volume: normals point outwards
    assert (mirrored_if_left(right[0], "right") == right[0]).all()


@settings(max_examples=20, deadline=None)
@given(x=st.floats(-400, 700), y=st.floats(-300, 500), pixels=st.floats(3, 3000), focal=st.floats(50, 5000))
def test_weak_perspective_and_pinhole_meet_at_the_wrist(x, y, pixels, focal):
    hand = make_hand(pixels=pixels, center=(x, y), focal=focal)
    pinhole = project_pinhole(hand.joints_3d[:1], hand.translation, hand.focal_px, hand.center_px)
    np.testing.assert_allclose(pinhole, hand.project(hand.joints_3d[:1]), atol=0.02)
    np.testing.assert_allclose(hand.project(hand.joints_3d), hand.keypoints_2d, atol=0.02 + 1e-4 * pixels)


@pytest.mark.parametrize("center", [(160, 120), (0, 0), (319, 100), (-500, 50)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_mask_and_depth_equal_one_rendering_of_the_whole_picture(side, center, monkeypatch):
    monkeypatch.setattr("densehand.render.single._BAND", 5000)
    size = (240, 320)
    hand = make_hand(side, size, pixels=150, center=center)
    whole = rasterise(torch.from_numpy(hand.screen_vertices()), torch.from_numpy(hand.faces), size)
    mask, depth = hand.mask(size), hand.depth(size)
    assert mask.shape == depth.shape == size and mask.dtype == bool and depth.dtype == np.float32
    # the part around the hand has coordinates of its own, so a centre on an edge may fall to the other side
    assert (mask != whole.mask.numpy()).sum() <= 3
    both = mask & whole.mask.numpy()
    np.testing.assert_allclose(depth[both], whole.depth.numpy()[both], atol=2e-5)
    assert (depth[~mask] == 0).all()
    if center == (160, 120):
        inside = np.floor(hand.keypoints_2d).astype(int)
        assert mask[inside[:, 1], inside[:, 0]].mean() > 0.9
        assert abs(depth[mask] - hand.translation[2]).max() < 0.2
    if center == (-500, 50):
        assert not mask.any()


def test_mask_also_covers_what_lies_behind_the_camera_plane():
    hand = make_hand()
    near = dataclasses.replace(hand, translation=hand.translation * 0.02)
    assert near.depth((240, 320)).min() < 0
    np.testing.assert_array_equal(near.mask((240, 320)), hand.mask((240, 320)))


@pytest.mark.parametrize("pixels", [60, 4000, 200_000])
def test_an_8k_mask_costs_little_memory(pixels):
    import tracemalloc

    hand = make_hand(size=(4320, 7680), pixels=pixels, center=(6500, 3500))
    tracemalloc.start()
    mask = hand.mask((4320, 7680))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if pixels == 60:
        assert 500 < mask.sum() < 60 * 60 and mask[3400:3600, 6400:6600].sum() == mask.sum()
    assert peak < (1.2 if pixels == 60 else 4) * 4320 * 7680


def test_document_round_trip_and_refusals(tmp_path):
    path = tmp_path / "a.json"
    record = document("photos/a.jpg", 320, 240, "dhpe-lite", [make_hand()])
    assert list(record) == ["schema", "image", "width", "height", "model", "hands"]
    assert record["schema"] == "densehand/1"
    for mark in ("", "\ufeff"):  # as some editors begin a file
        path.write_text(mark + json.dumps(record), encoding="utf-8")
        assert read_document(path) == record
    refused = [
        "",
        "[]",
        "{}",
        "{",
        json.dumps(record | {"schema": "densehand/2"}),
        json.dumps(record | {"width": "320"}),
    ]
    refused += [json.dumps(record | {"hands": None}), json.dumps(record | {"height": 0}), "\xff"]
    for text in refused:
        path.write_text(text, encoding="latin-1")
        with pytest.raises(InputError) as caught:
            read_document(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="check the path"):
        read_document(tmp_path / "none.json")
