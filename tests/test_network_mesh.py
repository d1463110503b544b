"""h and its iteration: decode against roma and by hand, the two linear layers against a hand-written loop."""

import copy
import math

import pytest
import roma
import torch
from dummies import DummyHand, rotate
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.camera import in_plane
from densehand.network.mesh import (
    R0,
    S0,
    MeshParameters,
    MeshRegressor,
    decode,
    encode,
    place,
    rescaled,
    skeleton_in_crop,
    turned,
)


def quaternion_product(a: list[float], b: list[float]) -> list[float]:
    """Hamilton's product, written out."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return [
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ]


def test_zero_is_the_hand_from_the_thumb_s_side():
    """docs/architecture.md: unrotated, fingers are up (-y), the palm faces the camera (-z), the thumb is right (+x)."""
    parameters = decode(torch.zeros(63, dtype=torch.float64))
    axes = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]], dtype=torch.float64)
    fingers, palm, thumb = rotate(parameters.rotation, axes)
    assert torch.allclose(fingers, torch.tensor([0.0, -1, 0]).double(), atol=1e-12)
    assert torch.allclose(thumb, torch.tensor([0.0, 0, -1]).double(), atol=1e-12)  # towards the camera
    assert abs(palm[0]) == pytest.approx(1)  # the palm is seen edge-on
    assert parameters.scale == S0 and not parameters.pose.any() and not parameters.translation.any()


def test_palm_and_back_are_equally_far_from_zero():
    turn = math.sqrt(0.5)
    for sign in (1, -1):
        h = torch.zeros(63, dtype=torch.float64)
        h[55:59] = torch.tensor([turn - 1, 0, sign * turn, 0])  # a quarter turn about the vertical axis
        palm = rotate(decode(h).rotation, torch.tensor([[0.0, 0, -1]]).double())[0]
        assert abs(palm[2]) == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.floats(0.01, 3))
def test_decode_agrees_with_a_written_out_product_and_with_roma(seed, spread):
    h = spread * torch.randn(63, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    parameters = decode(h)
    q = (h[55:59] + torch.tensor([1.0, 0, 0, 0])).tolist()
    length = math.sqrt(sum(x * x for x in q))
    expected = quaternion_product([x / length for x in q], list(R0))
    assert parameters.rotation.tolist() == pytest.approx(expected, abs=1e-9)
    xyzw = roma.quat_product(
        roma.quat_wxyz_to_xyzw(torch.tensor(q, dtype=torch.float64) / length),
        roma.quat_wxyz_to_xyzw(torch.tensor(R0, dtype=torch.float64)),
    )
    assert torch.allclose(roma.quat_xyzw_to_wxyz(xyzw), parameters.rotation, atol=1e-9)
    assert parameters.scale.item() == pytest.approx(S0 * math.exp(h[59]))
    assert torch.equal(parameters.pose, h[:45]) and torch.equal(parameters.shape, h[45:55])
    assert torch.equal(parameters.translation, h[60:])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_encode_inverts_decode(seed):
    generator = torch.Generator().manual_seed(seed)
    parameters = MeshParameters(
        torch.randn(2, 3, 45, generator=generator).double(),
        torch.randn(2, 3, 10, generator=generator).double(),
        torch.nn.functional.normalize(torch.randn(2, 3, 4, generator=generator).double(), dim=-1),
        torch.rand(2, 3, generator=generator).double() * 10 + 1,
        torch.randn(2, 3, 3, generator=generator).double(),
    )
    h = encode(parameters)
    assert h.shape == (2, 3, 63) and (h[..., 55] >= -1).all()  # w ≥ 0: the nearer of the two quaternions
    again = decode(h)
    for name in ("pose", "shape", "scale", "translation"):
        assert torch.allclose(getattr(again, name), getattr(parameters, name), atol=1e-12)
    cosine = (again.rotation * parameters.rotation).sum(-1).abs()  # q and -q are one rotation
    assert torch.allclose(cosine, torch.ones_like(cosine), atol=1e-12)


def test_decode_is_finite_where_the_quaternion_vanishes():
    h = torch.zeros(63)
    h[55] = -1
    h.requires_grad_()
    rotation = decode(h).rotation
    rotation.sum().backward()
    assert rotation.isfinite().all() and h.grad.isfinite().all()


def test_place_and_skeleton_gradcheck():
    hand = DummyHand().double()
    h = (0.3 * torch.randn(2, 63, generator=torch.Generator().manual_seed(0))).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: skeleton_in_crop(hand, x), h)
    points = torch.rand(2, 5, 3).double()
    parameters = decode(h.detach())
    for b in range(2):
        for n in range(5):
            expected = parameters.scale[b] * points[b, n] + parameters.translation[b]
            assert torch.allclose(place(parameters, points)[b, n], expected)


def test_iteration_equals_a_hand_written_loop():
    torch.manual_seed(0)
    hand, width, batch = DummyHand().double(), 7, 3
    regressor = MeshRegressor(width, iterations=3).double()
    for layer in (regressor.f_e3d, regressor.f_ref):
        torch.nn.init.normal_(layer.weight, std=0.05)
        torch.nn.init.normal_(layer.bias, std=0.05)
    features, keypoints = torch.randn(batch, width).double(), torch.randn(batch, 21, 2).double()
    all_j, all_h, all_y = regressor(hand, features, keypoints)
    assert (len(all_j), len(all_h), len(all_y)) == (4, 4, 3)
    for b in range(batch):
        f, j = features[b], keypoints[b].reshape(42)
        h = torch.cat((hand.mean_pose, torch.zeros(18).double()))
        assert torch.equal(all_h[0][b], h) and torch.equal(all_j[0][b].reshape(42), j)
        for t in range(3):
            h = h + regressor.f_e3d.weight @ torch.cat((f, j, h)) + regressor.f_e3d.bias
            q = (h[55:59] + torch.tensor([1.0, 0, 0, 0])) / (h[55:59] + torch.tensor([1.0, 0, 0, 0])).norm()
            rotation = torch.tensor(quaternion_product(q.tolist(), list(R0)), dtype=torch.float64)
            y = S0 * h[59].exp() * hand.skeleton(h[:45], h[45:55], rotation) + h[60:]
            j = regressor.f_ref.weight @ torch.cat((f, h, y.reshape(63), j)) + regressor.f_ref.bias
            assert torch.allclose(all_h[t + 1][b], h) and torch.allclose(all_y[t][b], y)
            assert torch.allclose(all_j[t + 1][b].reshape(42), j)


def test_training_starts_at_the_mean_hand_and_keeps_the_keypoints():
    torch.manual_seed(0)
    hand, regressor = DummyHand(), MeshRegressor(1280)
    keypoints = torch.rand(2, 21, 2) - 0.5
    all_j, all_h, _ = regressor(hand, torch.rand(2, 1280), keypoints)
    assert (all_h[-1] - all_h[0]).abs().max() < 0.1
    assert (all_j[-1] - keypoints).abs().max() < 0.1


def test_dropout_changes_training_only_and_once_for_all_iterations():
    torch.manual_seed(0)
    hand, regressor = DummyHand(), MeshRegressor(64, dropout=0.5)
    features, keypoints = torch.rand(1, 64), torch.zeros(1, 21, 2)
    torch.nn.init.normal_(regressor.f_e3d.weight)
    a, b = (regressor(hand, features, keypoints)[1][-1] for _ in range(2))
    assert not torch.allclose(a, b)
    regressor.eval()
    a, b = (regressor(hand, features, keypoints)[1][-1] for _ in range(2))
    assert torch.equal(a, b)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.floats(0.2, 5.0))
def test_a_rescaled_hand_is_where_it_was(hand, seed, factor):
    """In the units of a crop twice as wide everything, depth too, lies half as far from the crop's centre."""
    h = 0.3 * torch.randn(3, 63, generator=torch.Generator().manual_seed(seed)).double()
    double = copy.deepcopy(hand).double()
    torch.testing.assert_close(skeleton_in_crop(double, rescaled(h, factor)), factor * skeleton_in_crop(double, h))
    assert torch.equal(rescaled(h, factor)[:, :59], h[:, :59])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), angle=st.floats(-7, 7))
def test_a_turned_hand_is_turned_in_the_plane_and_stays_what_it_was(hand, seed, angle):
    h = 0.3 * torch.randn(3, 63, generator=torch.Generator().manual_seed(seed)).double()
    double = copy.deepcopy(hand).double()
    near = {"atol": 1e-6, "rtol": 1e-5}
    found, before = skeleton_in_crop(double, turned(h, torch.full((3,), angle).double())), skeleton_in_crop(double, h)
    torch.testing.assert_close(found[..., :2], before[..., :2] @ torch.from_numpy(in_plane(angle)).T, **near)
    torch.testing.assert_close(found[..., 2], before[..., 2], **near)
    back = turned(turned(h, torch.full((3,), angle).double()), torch.full((3,), -angle).double())
    torch.testing.assert_close(decode(back).pose, decode(h).pose)
    assert (turned(h, torch.full((3,), angle).double())[:, 55] >= -1).all()  # of two quaternions the one near R0
