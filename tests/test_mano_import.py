"""Import of the official MANO pickle. The files are made here, in the official layout, from the open hand."""

import builtins
import os
import pickle
import pickletools
import sys
import types

import numpy as np
import pytest
import scipy.sparse
import torch

from densehand.errors import DensehandError
from densehand.hand import HandModel
from densehand.hand.keypoints import JOINT_PARENTS
from densehand.hand.mano import (
    MANO_TIPS,
    from_mano_parameters,
    import_mano,
    read_official_pickle,
    to_mano_parameters,
)
from densehand.hand.model import quaternion_to_matrix

# A rotation like that between MANO's axes (fingers along −x) and the hand frame's.
TO_FILE = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])


def official_arrays() -> dict[str, np.ndarray]:
    """778 of the open hand's vertices, its tips at MANO's places, random correctives, other axes, wrist off zero."""
    rng = np.random.default_rng(0)
    open_hand = HandModel.load("open", dtype=torch.float64)
    tips = open_hand.tip_selector.argmax(1).tolist()
    chosen = rng.permutation([v for v in range(len(open_hand.template)) if v not in tips])[:778]
    chosen[list(MANO_TIPS)] = tips
    template = open_hand.template.numpy()[chosen]
    joints = (open_hand.joint_regressor @ open_hand.template).numpy()
    rows = np.concatenate([template.T, np.ones((1, 778))])
    regressor = np.stack([np.linalg.lstsq(rows, np.append(j, 1), rcond=None)[0] for j in joints])
    mean = open_hand.mean_pose.numpy().reshape(15, 3)
    parents = np.array(JOINT_PARENTS, dtype=np.int64)
    parents[0] = 2**32 - 1
    return {
        "v_template": template @ TO_FILE.T + [0.0957, 0.0064, 0.0062],
        "shapedirs": rng.normal(size=(778, 3, 10)) * 1e-3,
        "posedirs": rng.normal(size=(778, 3, 135)) * 1e-4,
        "J_regressor": regressor,
        "weights": open_hand.weights.numpy()[chosen],
        "f": rng.integers(0, 778, (1538, 3)).astype(np.uint32),
        "kintree_table": np.stack([parents, np.arange(16)]),
        "hands_mean": (mean @ TO_FILE.T).reshape(45),
        "hands_components": np.eye(45),
        "J": joints,
    }


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return official_arrays()


@pytest.fixture(scope="module")
def chumpy():
    """Classes with chumpy's names and state, present only while files are written."""
    package, ch, reordering = (types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering"))

    class Ch:
        pass

    class Select(Ch):
        pass

    for cls, module in ((Ch, ch), (Select, reordering)):
        cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
        setattr(module, cls.__name__, cls)
    modules = {"chumpy": package, "chumpy.ch": ch, "chumpy.reordering": reordering}
    sys.modules.update(modules)
    yield types.SimpleNamespace(Ch=Ch, Select=Select)
    for name in modules:
        del sys.modules[name]


def wrap(cls, **state):
    value = cls.__new__(cls)
    value.__dict__.update(state, _dirty_vars={"x"}, _itr=None, _depends_on_deps=False)
    return value


def official_layout(arrays: dict, chumpy) -> dict:
    """As the authors ship it: a sparse regressor, chumpy around the shape directions, text and numbers beside."""
    inner = wrap(chumpy.Ch, x=arrays["shapedirs"].ravel())
    return {
        **arrays,
        "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
        "shapedirs": wrap(chumpy.Select, a=inner, idxs=np.arange(778 * 30), preferred_shape=(778, 3, 10)),
        "v_template": wrap(chumpy.Ch, x=arrays["v_template"]),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write(path, content, protocol: int = 2):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.fixture
def good(tmp_path, arrays, chumpy):
    return write(tmp_path / "MANO_RIGHT.pkl", official_layout(arrays, chumpy))


@pytest.mark.parametrize("protocol", range(6))
def test_reads_every_protocol(tmp_path, arrays, chumpy, protocol: int) -> None:
    path = write(tmp_path / "m.pkl", official_layout(arrays, chumpy), protocol)
    for key, value in read_official_pickle(path).items():
        np.testing.assert_array_equal(value, arrays[key], err_msg=key)


def test_reads_python_2_and_old_numpy_names(tmp_path, arrays, chumpy) -> None:
    data = pickle.dumps(official_layout(arrays, chumpy), 2)
    old = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    old = old.replace(b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n").replace(
        b"c__builtin__\nset", b"c__builtin__\nset"
    )
    assert b"numpy.core" in old and b"_csc" not in old
    (tmp_path / "old.pkl").write_bytes(old)
    np.testing.assert_array_equal(read_official_pickle(tmp_path / "old.pkl")["posedirs"], arrays["posedirs"])


def test_reads_python_2_strings_and_fortran_order(tmp_path, arrays) -> None:
    # Python 2 writes array bytes as a str: BINSTRING 'T', which Python 3 never writes.
    raw = np.asfortranarray(arrays["weights"]).tobytes(order="F")
    weights = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(K\x01(M\x0a\x03K\x10t"
        + b"cnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x88T"
        + len(raw).to_bytes(4, "little")
        + raw
        + b"tb"
    )
    rest = pickle.dumps({k: v for k, v in arrays.items() if k != "weights"}, 2)
    assert rest.endswith(b".") and rest[2:3] == b"}"
    data = b"\x80\x02" + rest[2:-1] + b"(U\x07weights" + weights + b"u."
    (tmp_path / "py2.pkl").write_bytes(data)
    np.testing.assert_array_equal(read_official_pickle(tmp_path / "py2.pkl")["weights"], arrays["weights"])


def test_needs_neither_chumpy_nor_scipy(good, monkeypatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] in ("chumpy", "scipy")]:
        monkeypatch.setitem(sys.modules, name, None)
    assert set(read_official_pickle(good)) >= {"v_template", "f"}


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


GADGETS = {
    "posix.system": (os.system, ("touch HACKED",)),
    "eval": (builtins.eval, ("open('HACKED', 'w')",)),
    "exec": (builtins.exec, ("open('HACKED', 'w')",)),
    "getattr": (builtins.getattr, ("", "join")),
    "builtins.open": (open, ("HACKED", "w")),
    "importlib": (__import__, ("os",)),
    "numpy load": (np.load, ("x.npy", None, True)),
    "numpy.fromfile": (np.fromfile, ("/etc/passwd",)),
}


class Gadget:
    def __init__(self, call) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", GADGETS)
def test_refuses_code(tmp_path, monkeypatch, arrays, name: str, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    function, _ = GADGETS[name]
    path = write(tmp_path / "evil.pkl", {**arrays, "extra": Gadget(GADGETS[name])}, protocol)
    with pytest.raises(DensehandError, match="refused") as refusal:
        import_mano(path, tmp_path / "out.npz")
    assert function.__name__ in str(refusal.value), "the refusal names what the file asked for"
    assert not (tmp_path / "HACKED").exists() and not (tmp_path / "out.npz").exists()


def raw_pickle(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"cos\nsystem\n(U\x04truetR", "os.system"),
        (b"(U\x04trueios\nsystem\n", "os.system"),
        (b"(cos\nsystem\nU\x04trueo", "os.system"),
        (b"cnumpy\ncore.os.system\n", "core.os.system"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n", "__globals__"),
        (b"\x82\x01", "EXT1"),
        (b"Psomething\n", "PERSID"),
        (b"cchumpy.ch\nMatVecMult\n", "chumpy.ch.MatVecMult"),
        (b"ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtR", "_reconstructor"),
        (b"cnumpy\ndtype\n(U\x01OK\x00K\x01tR", "'O'"),
        (b"c_codecs\nencode\n(U\x01xU\x05rot13tR", "_codecs"),
        (b"N" + b"r" + (2**31 - 2).to_bytes(4, "little"), "memo"),
    ],
)
def test_refuses_hand_made_opcodes(tmp_path, body: bytes, named: str) -> None:
    (tmp_path / "evil.pkl").write_bytes(raw_pickle(body))
    with pytest.raises(DensehandError, match="refused") as refusal:
        read_official_pickle(tmp_path / "evil.pkl")
    assert named in str(refusal.value)


def test_stand_ins_cannot_be_turned_into_something_else(tmp_path) -> None:
    # BUILD on the class itself, or state that is no array: an error, never an effect.
    for body in (
        b"cchumpy.ch\nCh\n}U\x01xK\x01sb",
        b"cnumpy\nndarray\n}U\x05valueK\x01sb",
        b"c__builtin__\nset\n}U\x03addK\x01sb",
    ):
        (tmp_path / "evil.pkl").write_bytes(raw_pickle(body))
        with pytest.raises(DensehandError):
            read_official_pickle(tmp_path / "evil.pkl")
    from densehand.hand import safe_pickle

    assert safe_pickle._NumpyArray.value is None and not hasattr(safe_pickle._Chumpy, "x")


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
    with pytest.raises(DensehandError, match="cannot write"):
        import_mano(good, tmp_path / "file" / "mine.npz")


def test_made_files_use_the_opcodes_they_are_meant_to(good) -> None:
    names = {str(arg) for op, arg, _ in pickletools.genops(good.read_bytes()) if op.name == "GLOBAL"}
    assert {"chumpy.ch Ch", "chumpy.reordering Select", "numpy ndarray"} <= names
