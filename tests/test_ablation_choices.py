"""Rows of the choices' ablation change what they name, share the rest, and are told by one table."""

from dataclasses import replace

import pytest
import torch
from photo_folder import make_photo_folder

from densehand.ablation import compare
from densehand.ablation.choices import BASE, CHOICES, FIGURES, Measurement, shared_of
from densehand.errors import InputError
from densehand.network import zoo
from densehand.network.config import CONFIGS
from densehand.options import differences
from densehand.train.stream import load_records

TITLES = {"usual": "as usual", "other": "another"}
SHOWN: compare.Figures = {"px": ("error (px)", 1)}


def test_every_row_changes_what_it_names_and_no_more():
    for name, choice in CHOICES.items():
        changed = differences(BASE, choice.config(BASE))
        assert set(changed) == set(choice.changes), name
        assert bool(choice.changes) + bool(choice.network) == (name != "usual"), name


@pytest.mark.parametrize("name", [name for name, choice in CHOICES.items() if choice.network])
def test_every_head_can_be_built_and_is_another(hand, name):
    usual = CONFIGS["dhpe-lite"]
    other = replace(usual, **CHOICES[name].network)
    estimate = zoo.build_model(other, hand=hand).eval()(torch.rand(1, 3, 64, 64))
    assert estimate.keypoints[-1].shape == (1, 21, 2)
    assert len(estimate.parameters) == other.iterations + 2  # the start, and the corrector's

    def weights(config):
        return sum(p.numel() for p in zoo.build_model(config, hand=hand).evidence.parameters())

    assert (weights(other) != weights(usual)) == (name != "one-iteration")


@pytest.fixture(scope="module")
def measurement(hand, tmp_path_factory):
    folder = make_photo_folder(tmp_path_factory.mktemp("photos"), 8)
    base = replace(
        BASE, size=64, batch=4, steps=2, warmup=1, pool=64, start="none", negative_share=0.0, photos=str(folder),
        fits=str(folder / "fits.npz"),
    )  # fmt: skip
    held_back = load_records(folder, hand, "", "all")
    held_back.trust[:] = 1.0
    return Measurement(base, held_back, tested=4)


def test_rows_share_photos_and_rendered_hands(measurement):
    base = measurement.base
    usual, again = measurement.batches(base), measurement.batches(replace(base, lr=1.0))
    plain = measurement.batches(replace(base, rare=0.0, seed=1))
    assert usual.photos is plain.photos and usual.pool is again.pool
    assert plain.pool is not usual.pool and plain.rarity is None and usual.rarity is not None
    for name, value in vars(usual.batch(1)).items():
        assert torch.equal(value, getattr(again.batch(1), name)), name


def test_a_row_repeats_and_differs_from_another(measurement):
    times = ("training_seconds", "cpu_seconds")
    lines = [
        {key: value for key, value in measurement.run(name, 1).items() if key not in times}
        for name in ("usual", "usual", "constant-lr")
    ]
    assert lines[0] == lines[1]
    assert lines[2]["photo_px_after"] != lines[0]["photo_px_after"]
    assert lines[0]["pictures"] == 8 and lines[0].items() >= shared_of(measurement.base).items()
    assert {f"{name}_after" for name in FIGURES} < set(lines[0])


def test_rows_that_a_file_holds_are_not_measured_again(tmp_path):
    path, asked = tmp_path / "rows.csv", []

    def run(name, seed):
        asked.append((name, seed))
        return {"row": name, "seed": seed, "kind": 1, "px_after": seed + 2.0 * (name == "other"), "cpu_seconds": 0.0}

    compare.measure_rows(path, ["usual"], TITLES, [0], run)
    compare.measure_rows(path, ["usual", "other"], TITLES, [0, 1], run)
    assert asked == [("usual", 0), ("usual", 1), ("other", 0), ("other", 1)]
    text = compare.table(compare.stored(path), TITLES, SHOWN, ["kind"], "usual").splitlines()
    assert text[2:] == ["| as usual | 2 | 0.5 ± 0.7 |", "| another | 2 | 2.5 ± 0.7 (+2.0 ± 0.0) |"]
    with pytest.raises(InputError, match="unknown rows elsewhere; known: usual, other"):
        compare.measure_rows(path, ["elsewhere"], TITLES, [0], run)
