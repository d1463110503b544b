"""Files in the layout of the official MANO pickle, made from the open hand."""

import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import scipy.sparse
import torch

from densehand.hand import HandModel
from densehand.hand.keypoints import JOINT_PARENTS
from densehand.hand.mano import MANO_TIPS

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


@contextmanager
def chumpy_classes() -> Iterator[types.SimpleNamespace]:
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
