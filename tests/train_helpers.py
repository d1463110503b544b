"""A training small enough for tests, and runs of it in processes of their own."""

import multiprocessing
import os
from pathlib import Path

import torch
from photo_folder import make_photo_folder

from densehand.data.fits import fit_photos
from densehand.data.photos import load_photos
from densehand.hand.model import HandModel
from densehand.train.config import TrainConfig

FORK = multiprocessing.get_context("fork")  # a child starts at once, with everything imported


def tiny_config(folder: Path, count: int = 8) -> TrainConfig:
    """Photos alone, 64 px, four a step; their fits are rough, but kept, since fitting takes the longest."""
    photos = make_photo_folder(folder / "photos", count=count)
    keep_fits(photos, folder / "fits.npz")
    return TrainConfig(
        photos=str(photos), fits=str(folder / "fits.npz"), start="none", size=64, batch=4, steps=4, photo_share=1.0,
        negative_share=0.0, warmup=1, checkpoint_every=1, validate_every=0, samples_every=0, out=str(folder / "run"),
        device="cpu",
    )  # fmt: skip


def keep_fits(photos: Path, fits: Path) -> None:
    """Rough fits of the photos that are there now."""
    read = load_photos(photos)
    fit_photos(HandModel.load("open"), read.keypoints, read.world, steps=3).save(fits, read.names)


def child(function, *arguments, **environment):
    """A started process that runs the function with these variables in its environment."""

    def body():
        os.environ.update(environment)
        torch.set_num_threads(1)
        function(*arguments)

    process = FORK.Process(target=body)
    process.start()
    return process
