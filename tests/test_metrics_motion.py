"""Jitter, acceleration error, and consistency over views and crops: by hand, naive twins, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from densehand.errors import InputError
from densehand.metrics import (
    CROP_PADDINGS,
    acceleration_error,
    crop_consistency,
    jitter,
    palm_frame,
    view_consistency,
)

SEEDS = st.integers(0, 10_000)


def any_hand(seed):
    """21 joints whose palm is a plane: knuckles near (x, 1, 0), the rest anywhere."""
    hand = np.random.default_rng(seed).normal(size=(21, 3))
    hand[0], hand[5], hand[9], hand[17] = (0, 0, 0), (-0.3, 1, 0.1), (0, 1, 0), (0.4, 0.8, -0.1)
    return hand


def seen_from(hand, seed):
    """The hand turned, scaled and moved."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    return rng.uniform(0.01, 100) * hand @ turn.T + rng.normal(size=3)


# ---- films


def test_acceleration_error_by_hand():
    predicted, target = np.zeros((4, 2, 3)), np.zeros((4, 2, 3))
    predicted[3, 0] = (3, 4, 0)
    target += np.arange(4)[:, None, None] * 5  # steady motion has no acceleration
    # accelerations of point 0: 0 and (3, 4, 0); of point 1: none
    assert acceleration_error(predicted, target) == pytest.approx(5 / 4)
    assert acceleration_error(predicted, target, rate=10) == pytest.approx(125)


def test_jitter_by_hand():
    time = np.arange(6.0)
    film = np.stack([time**3, time**2, time], axis=-1)[:, None]
    assert jitter(film) == pytest.approx(6.0), "the third derivative of t³"
    assert jitter(film, rate=2) == pytest.approx(48)
    assert jitter(film[..., 1:]) == pytest.approx(0), "constant acceleration"


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(4, 9), st.integers(2, 3))
def test_films_equal_a_loop(seed, length, dimensions):
    p, t = np.random.default_rng(seed).normal(size=(2, length, 5, dimensions))
    errors, jerks = [], []
    for k in range(5):
        for i in range(1, length - 1):
            a = [x[i - 1, k] - 2 * x[i, k] + x[i + 1, k] for x in (p, t)]
            errors.append(np.linalg.norm(a[0] - a[1]))
        for i in range(length - 3):
            jerks.append(np.linalg.norm(p[i + 3, k] - 3 * p[i + 2, k] + 3 * p[i + 1, k] - p[i, k]))
    assert acceleration_error(p, t) == pytest.approx(np.mean(errors))
    assert jitter(p) == pytest.approx(np.mean(jerks))


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_a_steady_offset_and_drift_do_not_count(seed):
    rng = np.random.default_rng(seed)
    film = rng.normal(size=(7, 21, 3))
    moved = film + rng.normal(size=3) + np.arange(7)[:, None, None] * rng.normal(size=3)
    assert acceleration_error(moved, film) == pytest.approx(0, abs=1e-9)
    assert jitter(moved) == pytest.approx(jitter(film))


def test_films_that_are_none():
    film = np.zeros((3, 21, 3))
    with pytest.raises(InputError, match=r"predicted: shape \(3, 21, 3\).* 4 frames"):
        jitter(film)
    with pytest.raises(InputError, match="predicted: shape"):
        acceleration_error(film[:2], film[:2])
    with pytest.raises(InputError, match="target: 189 of 189"):
        acceleration_error(film, film * np.nan)
    with pytest.raises(InputError, match="predicted: empty"):
        jitter(film[:0])
    with pytest.raises(InputError, match="shapes differ"):
        acceleration_error(film, film[:, :20])
    for rate in (0, -1, np.nan):
        with pytest.raises(InputError, match="rate"):
            acceleration_error(film, film, rate)


# ---- palm frame


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_the_palm_frame_is_where_it_is_said_to_be(seed):
    joints = palm_frame(seen_from(any_hand(seed), seed))
    np.testing.assert_allclose(joints[0], 0, atol=1e-9)
    np.testing.assert_allclose(joints[9], (0, 1, 0), atol=1e-9)
    normal = np.cross(joints[5], joints[17])
    assert normal[2] > 0 and abs(normal[0]) < 1e-9, "square to y, the plane's normal points along +z"


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_the_palm_frame_keeps_shape_and_forgets_motion(seed):
    hand = any_hand(seed)
    frame = palm_frame(hand)
    np.testing.assert_allclose(palm_frame(seen_from(hand, seed)), frame, atol=1e-7)
    distances = np.linalg.norm(hand[:, None] - hand[None], axis=-1) / np.linalg.norm(hand[9] - hand[0])
    np.testing.assert_allclose(np.linalg.norm(frame[:, None] - frame[None], axis=-1), distances, atol=1e-9)
    np.testing.assert_allclose(palm_frame(hand * (-1, 1, 1)), frame * (1, 1, -1), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({9: (0, 0, 0)}, "middle knuckle coincide"),
        ({5: (0, 1, 0), 17: (0, 2, 0)}, "lie in line"),
        ({5: (0, 0, 1), 17: (0, 1, 0)}, None),
        ({3: (np.nan, 0, 0)}, "prediction 1: 1 of 63"),
    ],
)
def test_hands_without_a_palm_are_named(change, said):
    broken = any_hand(0)
    for joint, place in change.items():
        broken[joint] = place
    if said is None:
        assert np.isfinite(view_consistency([any_hand(0), broken]).percent)
        return
    with pytest.raises(InputError, match=said):
        view_consistency([any_hand(0), broken])


# ---- view consistency


def naive_consistency(hands):
    frames = []
    for hand in hands:
        y = (hand[9] - hand[0]) / np.linalg.norm(hand[9] - hand[0])
        z = np.cross(hand[5] - hand[0], hand[17] - hand[0])
        z = z - (z @ y) * y
        z /= np.linalg.norm(z)
        x = np.cross(y, z)
        scale = np.linalg.norm(hand[9] - hand[0])
        frames.append([[(p - hand[0]) @ axis / scale for axis in (x, y, z)] for p in hand])
    total = 0.0
    for joint in range(21):
        mean = [sum(f[joint][a] for f in frames) / len(frames) for a in range(3)]
        for f in frames:
            total += sum((f[joint][a] - mean[a]) ** 2 for a in range(3))
    return 100 * (total / (21 * len(frames))) ** 0.5


def test_view_consistency_by_hand():
    hand = any_hand(0)
    up, down = hand.copy(), hand.copy()
    up[12, 2] += 0.5
    down[12, 2] -= 0.5
    result = view_consistency([seen_from(up, 1), seen_from(down, 2), None])
    # One joint of 21 is 0.5 from its mean in both views.
    assert result.percent == pytest.approx(100 * 0.5 / 21**0.5)
    np.testing.assert_allclose(result.per_joint, 50 * (np.arange(21) == 12), atol=1e-6)
    assert result.missed == pytest.approx(1 / 3) and result.photos == 3


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 5))
def test_view_consistency_equals_a_loop_and_ignores_where_the_camera_is(seed, views):
    rng = np.random.default_rng(seed)
    hands = [any_hand(seed) + 0.05 * rng.normal(size=(21, 3)) for _ in range(views)]
    result = view_consistency(hands)
    assert result.percent == pytest.approx(naive_consistency(hands))
    assert result.percent == pytest.approx(np.sqrt((result.per_joint**2).mean()))
    assert (result.per_joint >= 0).all() and result.per_joint[0] < 1e-9 and result.per_joint[9] < 1e-9
    moved = view_consistency([seen_from(hand, seed + i) for i, hand in enumerate(hands)])
    assert moved.percent == pytest.approx(result.percent)
    assert view_consistency(hands[::-1]).percent == pytest.approx(result.percent)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_the_same_hand_from_anywhere_is_consistent(seed):
    hand = any_hand(seed)
    assert view_consistency([seen_from(hand, seed + i) for i in range(4)]).percent < 1e-4


def test_a_mistaken_side_is_not_overlooked():
    assert view_consistency([any_hand(0), any_hand(0) * (-1, 1, 1)]).percent > 10


def test_missed_photos():
    one = view_consistency([any_hand(0), None, None, None])
    assert np.isnan(one.percent) and np.isnan(one.per_joint).all() and one.missed == 0.75
    assert view_consistency([None]).missed == 1
    with pytest.raises(InputError, match="predictions: empty"):
        view_consistency([])
    with pytest.raises(InputError, match="prediction 0: 20 joints"):
        view_consistency([np.ones((20, 3)), None])


# ---- crop consistency


def test_crop_consistency_asks_for_every_padding_and_compares():
    asked = []

    def predict(padding):
        asked.append(padding)
        hand = any_hand(0)
        hand[4, 2] += padding
        return None if padding == 1.6 else seen_from(hand, int(10 * padding))

    result = crop_consistency(predict)
    assert tuple(asked) == CROP_PADDINGS and (min(asked), max(asked)) == (1.2, 2.2)
    spread = np.std([p for p in CROP_PADDINGS if p != 1.6])
    assert result.percent == pytest.approx(100 * spread / 21**0.5)
    assert result.missed == pytest.approx(1 / 6)


def test_crop_consistency_of_a_network_that_ignores_the_crop():
    assert crop_consistency(lambda padding: any_hand(3), [1.0, 5.0]).percent == 0


@pytest.mark.parametrize("paddings", [[], [1.2, 0.0], [np.nan]])
def test_paddings_that_are_none(paddings):
    with pytest.raises(InputError, match="paddings"):
        crop_consistency(lambda padding: None, paddings)
