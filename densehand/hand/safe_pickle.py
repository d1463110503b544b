"""Reading pickled arrays from strangers: an unpickler in whose world nothing but inert stand-ins for arrays exists.

It knows numpy's and scipy's arrays and chumpy's wrappers by name, decodes their numbers itself (not even numpy's own
unpickling code sees the file's state) and refuses every other name. `mano.py` reads the official MANO file with it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["Refused", "as_numbers", "load_arrays"]


class Refused(pickle.UnpicklingError):
    """The pickle asks for something that is no array; the message names it."""


class _Dtype:
    """Stand-in for numpy.dtype: plain numbers only."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in {"f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}:
            raise Refused(f"arrays of type {code!r}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Refused("a malformed dtype")
        self.order = state[1]

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _NumpyArray:
    """Stand-in for numpy.ndarray, both as a type name and as an array being rebuilt."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, raw = state
        self.value = _decode(raw, dtype, shape, "F" if fortran else "C")


class _SparseMatrix:
    """Stand-in for scipy's compressed sparse matrices."""

    by_column = True

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state)

    @cached_property  # else a chain of stand-ins would be worked out over and over
    def value(self) -> np.ndarray:
        shape = tuple(int(n) for n in self.state["_shape"])
        data, minor, start = (np.asarray(as_numbers(self.state[key])) for key in ("data", "indices", "indptr"))
        if len(shape) != 2 or max(shape) > 10_000 or len(start) != shape[1 if self.by_column else 0] + 1:
            raise Refused("a malformed sparse matrix")
        dense = np.zeros(shape)
        major = np.repeat(np.arange(len(start) - 1), np.diff(start))
        np.add.at(dense, (minor, major) if self.by_column else (major, minor), data)
        return dense


class _SparseRows(_SparseMatrix):
    by_column = False


class _Chumpy:
    """Stand-in for chumpy.ch.Ch: an array `x` and bookkeeping, of which only `x` is looked at."""

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state)

    @cached_property
    def value(self) -> np.ndarray:
        return as_numbers(self.state["x"])


class _ChumpySelect(_Chumpy):
    """Stand-in for chumpy.reordering.Select: entries `idxs` of `a`, in shape `preferred_shape`."""

    @cached_property
    def value(self) -> np.ndarray:
        chosen = as_numbers(self.state["a"]).ravel()[as_numbers(self.state["idxs"]).astype(np.int64)]
        shape = self.state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(tuple(int(n) for n in as_numbers(shape)))


def _decode(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(raw, str):  # a Python 2 string, read as latin1
        raw = raw.encode("latin1")
    if not isinstance(raw, (bytes, bytearray)) or not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
        raise Refused("a malformed array")
    return np.frombuffer(raw, dtype.numpy).reshape(shape, order="F" if order == "F" else "C").copy()


def _rebuild(kind: Any, *_: Any) -> _NumpyArray:
    if kind is not _NumpyArray:
        raise Refused("an array of an unknown kind")
    return _NumpyArray()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return _decode(raw, dtype, shape, order)


def _scalar(dtype: Any, raw: Any) -> np.ndarray:
    return _decode(raw, dtype, (), "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("_codecs.encode with anything but latin1")
    return text.encode("latin1")


def _reconstruct_object(kind: Any, base: Any, state: Any) -> Any:
    # copy_reg._reconstructor: how protocols 0 and 1 make an instance.
    if kind not in (_Chumpy, _ChumpySelect, _SparseMatrix, _SparseRows) or base is not _BareObject:
        raise Refused("copy_reg._reconstructor of anything but a stand-in")
    return kind()


class _BareObject:
    """Stand-in for `object`."""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NumpyArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _ChumpySelect,
    # chumpy keeps sets of names in its bookkeeping
    **{(module, "set"): set for module in ("__builtin__", "builtins")},
    **{(module, "object"): _BareObject for module in ("__builtin__", "builtins")},
    **{(module, "_reconstructor"): _reconstruct_object for module in ("copy_reg", "copyreg")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _rebuild for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{(f"scipy.sparse.{module}", "csc_matrix"): _SparseMatrix for module in ("csc", "_csc")},
    **{(f"scipy.sparse.{module}", "csr_matrix"): _SparseRows for module in ("csr", "_csr")},
}
_FORBIDDEN_OPCODES = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise Refused(f"{module}.{name}") from None


def as_numbers(value: Any) -> np.ndarray:
    """Stand-in or flat tuple of numbers → array of numbers."""
    if isinstance(value, (_NumpyArray, _SparseMatrix, _Chumpy)):
        value = value.value
    if isinstance(value, (list, tuple)) and any(isinstance(entry, (list, tuple)) for entry in value):
        raise Refused("nested tuples")  # which may name each other over and over
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise Refused(f"an array of type {array.dtype}")
    return array


def load_arrays(data: bytes) -> Any:
    """Unpickle `data`; arrays come back as stand-ins for `as_numbers`.

    Raises Refused where the pickle names anything but arrays, and whatever a damaged pickle raises.
    """
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _FORBIDDEN_OPCODES:
            raise Refused(f"opcode {opcode.name}")
        # The C unpickler reserves memory up to the largest memo index.
        if opcode.name.endswith("PUT") and argument is not None and int(argument) > len(data):
            raise Refused("a memo index beyond its own length")
    return _Unpickler(io.BytesIO(data), encoding="latin1").load()
