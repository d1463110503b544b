"""Reading the official MANO pickle: every protocol, without chumpy, and never any code. The files are made here."""

import builtins
import os
import pickle
import pickletools
import sys

import numpy as np
import pytest
from mano_files import official_layout, write

from densehand.errors import DensehandError
from densehand.hand.mano import import_mano, read_official_pickle
from densehand.hand.safe_pickle import _ChumpySelect, as_numbers


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


def test_a_short_file_cannot_ask_for_endless_numbers(tmp_path, arrays, chumpy) -> None:
    """Tuples of tuples that name each other, 2⁴⁰ numbers in 200 bytes; and stand-ins of stand-ins."""
    nested: object = (1.0, 2.0)
    for _ in range(40):
        nested = (nested, nested)
    path = write(tmp_path / "evil.pkl", official_layout(arrays, chumpy) | {"v_template": nested})
    with pytest.raises(DensehandError, match="nested"):
        import_mano(path, tmp_path / "out.npz")
    stand_in = _ChumpySelect()
    stand_in.state = {"a": np.arange(2.0), "idxs": np.arange(2)}
    for _ in range(60):  # each asks twice for the one before
        before, stand_in = stand_in, _ChumpySelect()
        stand_in.state = {"a": before, "idxs": before}
    np.testing.assert_array_equal(as_numbers(stand_in), [0, 1])


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


def test_made_files_use_the_opcodes_they_are_meant_to(good) -> None:
    names = {str(arg) for op, arg, _ in pickletools.genops(good.read_bytes()) if op.name == "GLOBAL"}
    assert {"chumpy.ch Ch", "chumpy.reordering Select", "numpy ndarray"} <= names
