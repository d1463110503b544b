"""Readers of public hand datasets and of densehand's own format, by name. `docs/datasets.md` describes all of them.

    for sample in read_dataset("freihand", "/data/FreiHAND_pub_v2"):
        picture = sample.read_image()

Nothing is downloaded: the sets are the user's own downloads under their own terms. A reader only reads, holds one
sample at a time (and the set's label file where that is one file), and turns what is wrong with one sample into
`Sample.problem`; what is wrong with the whole raises InputError.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from densehand.data.photos import need_folder
from densehand.data.readers.common import BadLabel, Dataset
from densehand.data.sample import Sample
from densehand.errors import InputError

_MODULES = (
    "own", "freihand", "ho3d", "rhd", "stb", "coco", "interhand", "h2o", "fpha", "dexycb", "dexter", "ego2hands",
)  # fmt: skip

__all__ = ["BadLabel", "Dataset", "dataset", "dataset_names", "read_dataset"]


def _registry() -> dict[str, Dataset]:
    modules = (importlib.import_module(f"{__name__}.{module}") for module in _MODULES)
    return {known.name: known for module in modules for known in module.DATASETS}


def dataset_names() -> list[str]:
    """The names `dataset` knows, in the order of the documentation."""
    return list(_registry())


def dataset(name: str) -> Dataset:
    """What is known of a dataset. Raises InputError naming the known ones."""
    registry = _registry()
    if name not in registry:
        raise InputError(f"unknown dataset {name!r}; known: {', '.join(registry)}")
    return registry[name]


def read_dataset(name: str, root: Path | str, split: str | None = None) -> Iterator[Sample]:
    """The samples of a split (None: the dataset's first), in the published order.

    Errors:
        InputError: unknown dataset or split, no folder, files missing (all named), a label file that cannot be read.
        DependencyError: the format needs a package that is not installed.
    """
    known = dataset(name)
    if split is not None and split not in known.splits and not known.open_splits:
        raise InputError(f"{known.title} has no split {split!r}; known: {', '.join(known.splits)}")
    folder, chosen = need_folder(root, known.title), split or known.splits[0]
    missing = known.missing(folder, chosen)
    if missing:
        raise InputError(f"{folder}: {known.title} ({chosen}) lacks {', '.join(missing)}; see docs/datasets.md")
    return known.read(folder, chosen)
