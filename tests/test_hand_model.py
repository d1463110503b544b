"""The hand model: against a naive twin, gradients, batches, rotations, mirror, files."""

import numpy as np
import pytest
import torch
from hands import tiny_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.errors import DensehandError
from densehand.hand import HandModel, mirror_faces, mirror_mesh
from densehand.hand.info import describe, open_edges
from densehand.hand.keypoints import JOINT_PARENTS
from densehand.hand.model import FORMAT, quaternion_to_matrix


@pytest.fixture(scope="module")
def model() -> HandModel:
    return HandModel.load("open", dtype=torch.float64)


def rodrigues(v: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(v)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = v / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def naive_hand(arrays: dict, pose: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One hand with loops and 4×4 matrices, as the MANO paper writes it."""
    rest = arrays["template"] + arrays["shape_dirs"] @ shape
    joints = arrays["joint_regressor"] @ rest
    locals_ = [rodrigues(pose[3 * j : 3 * j + 3]) for j in range(15)]
    if arrays["pose_dirs"].size:
        rest = rest + arrays["pose_dirs"] @ np.concatenate([(r - np.eye(3)).ravel() for r in locals_])
    transforms = []
    for j, parent in enumerate(JOINT_PARENTS):
        t = np.eye(4)
        if j:
            t[:3, :3] = locals_[j - 1]
            t[:3, 3] = joints[j] - joints[parent]
            t = transforms[parent] @ t
        else:
            t[:3, 3] = joints[0]
        transforms.append(t)
    vertices = np.zeros_like(rest)
    for v, point in enumerate(rest):
        for j in range(16):
            bind = np.eye(4)
            bind[:3, 3] = -joints[j]
            vertices[v] += arrays["weights"][v, j] * (transforms[j] @ bind @ [*point, 1])[:3]
    points = np.concatenate([[t[:3, 3] for t in transforms], arrays["tip_selector"] @ vertices])
    return vertices - joints[0], arrays["keypoint_order"] @ points - joints[0]


@pytest.mark.parametrize("with_pose_dirs", [False, True])
def test_agrees_with_naive_twin(with_pose_dirs: bool) -> None:
    arrays = tiny_hand(with_pose_dirs)
    model = HandModel(arrays, "tiny", torch.float64)
    rng = np.random.default_rng(0)
    pose, shape = rng.normal(size=(3, 45)), rng.normal(size=(3, 10))
    mesh = model(torch.from_numpy(pose), torch.from_numpy(shape))
    skeleton = model.skeleton(torch.from_numpy(pose), torch.from_numpy(shape))
    for i in range(3):
        vertices, joints = naive_hand(arrays, pose[i], shape[i])
        np.testing.assert_allclose(mesh.vertices[i], vertices, atol=1e-12)
        np.testing.assert_allclose(mesh.joints[i], joints, atol=1e-12)
        np.testing.assert_allclose(skeleton[i], joints, atol=1e-12)


def test_open_hand_agrees_with_naive_twin(model: HandModel) -> None:
    arrays = {key: value.numpy() for key, value in model.named_buffers()}
    rng = np.random.default_rng(3)
    pose, shape = rng.normal(size=45) * 0.5, rng.normal(size=10)
    mesh = model(torch.from_numpy(pose), torch.from_numpy(shape))
    vertices, joints = naive_hand(arrays, pose, shape)
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-9)
    np.testing.assert_allclose(mesh.joints, joints, atol=1e-9)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_and_types(batch: tuple[int, ...], dtype: torch.dtype) -> None:
    model = HandModel.load("open", dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    pose, shape, rotation = (torch.randn(*batch, n, generator=generator, dtype=dtype) * 0.4 for n in (45, 10, 4))
    mesh = model(pose, shape, rotation)
    assert mesh.vertices.shape == (*batch, len(model.template), 3)
    assert mesh.joints.shape == (*batch, 21, 3)
    assert mesh.vertices.dtype == mesh.joints.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(model.skeleton(pose, shape, rotation), mesh.joints, atol=tolerance, rtol=0)
    if len(batch) == 2:
        one = model(pose[1, 2], shape[1, 2], rotation[1, 2])
        torch.testing.assert_close(mesh.vertices[1, 2], one.vertices, atol=tolerance, rtol=0)


def test_inputs_broadcast(model: HandModel) -> None:
    pose, shape = torch.randn(4, 1, 45).double() * 0.3, torch.randn(3, 10).double()
    rotation = torch.randn(2, 1, 1, 4).double()
    mesh = model(pose, shape, rotation)
    assert mesh.vertices.shape == (2, 4, 3, len(model.template), 3)
    torch.testing.assert_close(mesh.joints[1, 2, 1], model(pose[2, 0], shape[1], rotation[1, 0, 0]).joints)
    torch.testing.assert_close(model.skeleton(pose, shape, rotation), mesh.joints)
    assert model(pose[:0], shape).vertices.shape == (0, 3, len(model.template), 3)


def test_gradcheck() -> None:
    model = HandModel(tiny_hand(vertices=32), "tiny", torch.float64)
    inputs = [(torch.randn(n, dtype=torch.float64) * 0.3).requires_grad_() for n in (45, 10, 4)]
    assert torch.autograd.gradcheck(lambda *x: model(*x).vertices[::5], inputs)
    assert torch.autograd.gradcheck(model.skeleton, inputs)


def test_gradient_is_finite_at_the_flat_hand(model: HandModel) -> None:
    pose = torch.zeros(45, dtype=torch.float64, requires_grad=True)
    model(pose, torch.zeros(10, dtype=torch.float64)).vertices.square().sum().backward()
    assert pose.grad is not None and pose.grad.isfinite().all() and pose.grad.abs().max() > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 10))
def test_rotation_is_equivariant_and_scale_free(seed: int, norm: float) -> None:
    model = HandModel(tiny_hand(), "tiny", torch.float64)
    generator = torch.Generator().manual_seed(seed)
    pose, shape, rotation = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (45, 10, 4))
    still, turned = model(pose, shape), model(pose, shape, rotation * norm)
    matrix = quaternion_to_matrix(rotation)
    torch.testing.assert_close(turned.vertices, still.vertices @ matrix.T, atol=1e-10, rtol=0)
    torch.testing.assert_close(turned.joints, still.joints @ matrix.T, atol=1e-10, rtol=0)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(matrix) > 0


def test_wrist_is_the_origin_for_every_shape(model: HandModel) -> None:
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(6, 45, generator=generator, dtype=torch.float64)
    shape = 3 * torch.randn(6, 10, generator=generator, dtype=torch.float64)
    assert model(pose, shape).joints[:, 0].abs().max() < 1e-9


def test_left_hand_is_the_exact_mirror(model: HandModel) -> None:
    right = model(model.mean_pose, torch.zeros(10).double())
    left = mirror_mesh(right)
    assert torch.equal(left.vertices[:, 0], -right.vertices[:, 0])
    assert torch.equal(left.vertices[:, 1:], right.vertices[:, 1:])
    assert torch.equal(mirror_mesh(left).joints, right.joints)
    assert volume(left.vertices, mirror_faces(model.faces)) == pytest.approx(volume(right.vertices, model.faces))


def volume(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    a, b, c = vertices[faces].unbind(-2)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def test_open_hand_is_a_closed_hand_of_human_size(model: HandModel) -> None:
    assert not open_edges(model.faces)
    flat = model(torch.zeros(45).double(), torch.zeros(10).double())
    assert 2e-4 < volume(flat.vertices, model.faces) < 6e-4  # 200–600 ml, and normals point outwards
    facts = describe(model)
    assert 91 <= facts["wrist_to_middle_knuckle_mm"] <= 101
    assert facts["closed"] and facts["joints"] == 16 and facts["pose"] == 45 and facts["shape"] == 10
    torch.testing.assert_close(model.weights.sum(1), torch.ones(len(model.template)).double())
    assert model.weights.min() >= 0


def test_open_hand_lies_in_the_hand_frame(model: HandModel) -> None:
    joints = model.skeleton(torch.zeros(45).double(), torch.zeros(10).double())
    assert (joints[[8, 12, 16, 20], 1] < -0.1).all()  # fingers up
    assert joints[4, 0] > 0.05 and joints[20, 0] < -0.02  # the thumb is on the right
    curled = model.skeleton(model.mean_pose, torch.zeros(10).double())
    assert (curled[[8, 12, 16, 20], 2] < joints[[8, 12, 16, 20], 2] - 0.02).all()  # towards the camera, as the palm


def test_knuckles_lie_where_the_field_has_them(model: HandModel) -> None:
    joints = model.skeleton(torch.zeros(45).double(), torch.zeros(10).double())
    palm = (joints[9] - joints[0]).norm()
    for knuckle, ratio in ((5, 0.35), (9, 0.335), (13, 0.31), (17, 0.225)):
        assert (joints[knuckle + 1] - joints[knuckle]).norm() / palm == pytest.approx(ratio, abs=0.03)


def test_skeleton_matrices(model: HandModel) -> None:
    assert model.joint_regressor.shape == (16, len(model.template))
    torch.testing.assert_close(model.joint_regressor.sum(1), torch.ones(16).double())
    assert torch.equal(model.tip_selector.sum(1), torch.ones(5).double())
    assert torch.equal(model.keypoint_order @ model.keypoint_order.T, torch.eye(21).double())
    # f_Reg as three matrices equals the joints of the hand at rest, whatever its shape.
    shape = torch.randn(10, generator=torch.Generator().manual_seed(2)).double()
    mesh = model(torch.zeros(45).double(), shape)
    points = torch.cat([model.joint_regressor @ mesh.vertices, model.tip_selector @ mesh.vertices])
    torch.testing.assert_close(model.keypoint_order @ points, mesh.joints, atol=1e-7, rtol=0)


def test_shape_directions_are_orthogonal_and_visible(model: HandModel) -> None:
    directions = model.shape_dirs.reshape(-1, 10)
    unit = directions / directions.norm(dim=0)
    overlap = (unit.T @ unit - torch.eye(10).double()).abs()
    assert overlap.max() < 0.02
    moved = model.shape_dirs.norm(dim=1).amax(dim=0)
    assert (moved > 0.0008).all()  # every direction moves something by nearly a millimetre a deviation
    size = model(torch.zeros(45).double(), torch.eye(10).double()[0] * 2).joints
    flat = model.skeleton(torch.zeros(45).double(), torch.zeros(10).double())
    growth = size[1:].norm(dim=-1) / flat[1:].norm(dim=-1)
    torch.testing.assert_close(growth, growth.mean().expand(20), atol=1e-5, rtol=0)  # pure scale
    assert 1.08 < growth.mean() < 1.14


def test_wrist_loop_goes_around_the_cap(model: HandModel) -> None:
    loop = model.wrist_loop.tolist()
    assert len(set(loop)) == len(loop) == 20
    edges = {frozenset((a, b)) for f in model.faces.tolist() for a, b in zip(f, f[1:] + f[:1], strict=True)}
    assert all(frozenset((a, b)) in edges for a, b in zip(loop, loop[1:] + loop[:1], strict=True))
    assert (model.weights[model.wrist_loop, 0] == 1).all()


def test_texture_coordinates(model: HandModel) -> None:
    assert model.face_uv.shape == model.faces.shape
    assert model.face_uv.max() == len(model.uv) - 1
    assert model.uv.min() >= 0 and model.uv.max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("weights"), "lacks 'weights'"),
        (lambda a: a.update(weights=a["weights"][:, :15]), "weights is 40×15, not V×16"),
        (lambda a: a.update(template=a["template"][:30]), "shape_dirs is 40×3×10"),
        (lambda a: a.update(mean_pose=np.zeros((45, 1))), "mean_pose is 45×1"),
    ],
)
def test_wrong_arrays_are_named(change, message: str) -> None:
    arrays = tiny_hand()
    change(arrays)
    with pytest.raises(DensehandError, match=message):
        HandModel(arrays, "bad")


def test_files(tmp_path) -> None:
    path = tmp_path / "tiny.npz"
    np.savez(path, format=FORMAT, **tiny_hand())
    assert HandModel.load(path).name == "tiny"
    data = path.read_bytes()
    for name, content in {"cut.npz": data[: len(data) // 2], "text.npz": b"no zip", "empty.npz": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DensehandError, match=name):
            HandModel.load(tmp_path / name)
    np.savez(tmp_path / "old.npz", format="other/3", **tiny_hand())
    with pytest.raises(DensehandError, match="other/3"):
        HandModel.load(tmp_path / "old.npz")
    np.savez(tmp_path / "code.npz", format=FORMAT, template=np.array([print], dtype=object))
    with pytest.raises(DensehandError, match="code"):
        HandModel.load(tmp_path / "code.npz")
    with pytest.raises(DensehandError, match="no hand model"):
        HandModel.load("nosuch")


def test_missing_mano_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DENSEHAND_DATA", str(tmp_path))
    with pytest.raises(DensehandError, match="import-mano"):
        HandModel.load("mano")
