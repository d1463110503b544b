"""Import of the official MANO pickle: the hand that comes out, and files that are damaged or something else."""

import numpy as np
import pytest
import torch
from mano_files import write

from densehand.errors import DensehandError
from densehand.hand import HandModel
from densehand.hand.mano import from_mano_parameters, import_mano, to_mano_parameters
from densehand.hand.model import quaternion_to_matrix


def test_imported_hand_is_the_official_one(good, arrays, tmp_path) -> None:
    """Against MANO's own formula, in the file's axes, correctives included."""
    out = import_mano(good, tmp_path / "mine.npz")
    model = HandModel.load(out, dtype=torch.float64)
    assert (len(model.template), len(model.faces)) == (778, 1538)
    assert model.tip_selector.argmax(1).tolist() == [744, 320, 443, 554, 671]
    generator = torch.Generator().manual_seed(0)
    hand_pose = torch.randn(45, generator=generator, dtype=torch.float64) * 0.4
    shape = torch.randn(10, generator=generator, dtype=torch.float64)
    orient = torch.randn(3, generator=generator, dtype=torch.float64)
    pose, rotation = from_mano_parameters(model, hand_pose, orient)
    mesh = model(pose, shape, rotation)

    from test_hand_model import naive_hand, rodrigues

    raw = {**arrays, "template": arrays["v_template"], "shape_dirs": arrays["shapedirs"]}
    raw |= {
        "pose_dirs": arrays["posedirs"],
        "joint_regressor": arrays["J_regressor"],
        "tip_selector": model.tip_selector.numpy(),
    }
    raw |= {"keypoint_order": model.keypoint_order.numpy()}
    vertices, joints = naive_hand(raw, hand_pose.numpy(), shape.numpy())
    turn = rodrigues(orient.numpy())
    np.testing.assert_allclose(mesh.vertices, vertices @ turn.T, atol=2e-6)
    np.testing.assert_allclose(mesh.joints, joints @ turn.T, atol=2e-6)
    np.testing.assert_allclose(model.skeleton(pose, shape, rotation), joints @ turn.T, atol=2e-6)
    back_pose, back_orient = to_mano_parameters(model, pose, rotation)
    torch.testing.assert_close(back_pose, hand_pose, atol=1e-5, rtol=0)
    torch.testing.assert_close(back_orient, orient, atol=1e-5, rtol=0)


def test_imported_hand_lies_in_the_hand_frame(good, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DENSEHAND_DATA", str(tmp_path / "data"))
    assert import_mano(good) == tmp_path / "data" / "mano.npz"
    mano, own = HandModel.load("mano"), HandModel.load("open")
    zero = torch.zeros(45), torch.zeros(10)
    # The file was made of the open hand: the same keypoints must come out, but for a few degrees between the frames.
    assert (mano.skeleton(*zero) - own.skeleton(*zero)).norm(dim=-1).max() < 0.015
    relaxed = mano.skeleton(mano.mean_pose, zero[1]) - own.skeleton(own.mean_pose, zero[1])
    assert relaxed.norm(dim=-1).max() < 0.015
    assert (mano.joint_axes - own.joint_axes).abs().max() < 0.25
    assert quaternion_to_matrix(torch.tensor([1.0, 0, 0, 0])).equal(torch.eye(3))


@pytest.mark.parametrize("keep", [0, 1, 10, 0.3, 0.7, 0.999])
def test_truncated(good, tmp_path, keep: float) -> None:
    data = good.read_bytes()
    (tmp_path / "cut.pkl").write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(DensehandError, match=r"cut\.pkl is truncated or no pickle"):
        import_mano(tmp_path / "cut.pkl", tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("v_template", lambda v: v[:700], "v_template is 700×3, MANO's is 778×3"),
        ("f", lambda v: v[:, :2], "f is 1538×2"),
        ("shapedirs", lambda v: v[..., :9], "shapedirs is 778×3×9"),
        ("posedirs", lambda v: v[..., :45], "posedirs is 778×3×45"),
        ("hands_mean", lambda v: v[:6], "hands_mean is 6"),
        ("J_regressor", lambda v: v.T, "J_regressor is 778×16"),
        ("weights", lambda v: v * 2, "implausible weights"),
        ("v_template", lambda v: v * np.nan, "implausible v_template"),
        ("f", lambda v: v + 778, "implausible f"),
        ("kintree_table", lambda v: v[::-1], "implausible kintree_table"),
        ("v_template", lambda v: v * [-1, 1, 1], "left hand"),
        ("weights", lambda v: "text", "truncated or no pickle|refused"),
    ],
)
def test_wrong_content_is_named(tmp_path, arrays, key: str, change, message: str) -> None:
    path = write(tmp_path / "wrong.pkl", {**arrays, key: change(arrays[key])})
    with pytest.raises(DensehandError, match=message):
        import_mano(path, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_other_files(tmp_path, arrays, monkeypatch) -> None:
    without = {key: value for key, value in arrays.items() if key != "posedirs"}
    with pytest.raises(DensehandError, match="lacks posedirs"):
        import_mano(write(tmp_path / "smpl.pkl", without))
    with pytest.raises(DensehandError, match="holds a list"):
        import_mano(write(tmp_path / "list.pkl", [1, 2]))
    with pytest.raises(DensehandError, match="no file"):
        import_mano(tmp_path / "nosuch.pkl")
    with pytest.raises(DensehandError, match="no file"):
        import_mano(tmp_path)
    monkeypatch.setattr("densehand.hand.mano.MAX_BYTES", 1000)
    with pytest.raises(DensehandError, match="larger than"):
        import_mano(write(tmp_path / "large.pkl", arrays))


def test_failed_import_keeps_the_earlier_one(good, tmp_path, arrays) -> None:
    out = import_mano(good, tmp_path / "mine.npz")
    before = out.read_bytes()
    with pytest.raises(DensehandError):
        import_mano(write(tmp_path / "bad.pkl", {**arrays, "f": arrays["f"][:3]}), out)
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["MANO_RIGHT.pkl", "bad.pkl", "mine.npz"]
    with pytest.raises(DensehandError, match="npz"):
        import_mano(good, tmp_path / "mine.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(DensehandError, match="choose another"):
        import_mano(good, tmp_path / "file" / "mine.npz")
