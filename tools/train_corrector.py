"""Train the correctors of a network that is otherwise done (densehand/train/corrector.py, docs/network.md).

    python tools/train_corrector.py gather --photos PHOTOS --backgrounds BACKGROUNDS --fits FITS --model WEIGHTS \
        --rendered 11328 --seed 770001 --out seen-1.safetensors
    python tools/train_corrector.py gather … --passes 2 --seed 770009 --out seen-photos.safetensors
    python tools/train_corrector.py fit --model WEIGHTS --rendered seen-1.safetensors --real seen-photos.safetensors \
        --held-back seen-held.safetensors --out runs/lite-28/weights.safetensors

`gather` shows the network crops of rendered hands (`--rendered` of them, five crops each), of the training photos (all,
`--passes` times) or of the held-back ones (`--held-back`), and keeps what it says of them; with `--both-ways` then also
of the crops mirrored, which the side's corrector learns from. One core gathers 60 crops a second, in integers 100;
several `gather` with other seeds may run side by side. `fit` trains a new corrector, or with `--go-on` the one that the
model has, and, where any file has mirrored crops, a new one of the side on those files; it prints errors on the last of
the rendered crops, which it does not train on, and on the held-back photos.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from densehand.camera import ERROR_CROP, SHOWN
from densehand.data.records import Records
from densehand.errors import DensehandError, InputError
from densehand.files import write_bytes
from densehand.hand.fit import aligned_error
from densehand.hand.model import HandModel
from densehand.network.corrector import Corrector, Perceptron, SideCorrector
from densehand.network.mesh import decode, place
from densehand.network.zoo import open_model, save_weights
from densehand.synth.config import FREE_SHARE, SynthConfig
from densehand.synth.sampler import Synthesizer
from densehand.train.corrector import SAID, SIDE, FitOptions, Gathered, fit, fit_side, gather, inputs_of
from densehand.train.stream import CHUNK, load_backgrounds, load_records, pool_size

LOOKS, TESTED = 5, 6400  # crops of each rendered hand; crops that are not trained on
SYNTHESIS = SynthConfig(
    object_share=0.4, occluder_share=0.25, other_before=0.1, phone_share=0.25, upright_share=0.75, free_share=FREE_SHARE
)


def keep(seen: Gathered, path: Path) -> None:
    """Write what was gathered: what the network says in half precision, labels in single."""
    tensors = {name: (v.half() if name in SAID else v).contiguous() for name, v in vars(seen).items()}
    write_bytes(path, save(tensors))


def read(path: Path) -> Gathered:
    """What `keep` wrote. Raises InputError where the file is none of these."""
    try:
        stored = load_file(path)
        return Gathered(**{field.name: stored[field.name].float() for field in fields(Gathered)})
    except Exception as error:
        raise InputError(f"{path}: nothing gathered that can be read ({error}); gather it anew") from error


def run_gather(options: argparse.Namespace) -> None:
    """Errors: InputError where data cannot be used."""
    network = open_model(options.model)
    hand, generator = network.hand, torch.Generator().manual_seed(options.seed)
    backgrounds = load_backgrounds(options.backgrounds)
    split = "held-back" if options.held_back else "train"
    photos = load_records(options.photos, hand, options.fits, split)
    parts: list[Gathered] = []

    def look(records: Records, rows: torch.Tensor, before: torch.Tensor | None = None) -> None:
        parts.append(gather(network, records, rows, generator, before, options.both_ways))
        print(f"\r{sum(map(len, parts))} crops", end="", flush=True)

    if options.rendered:
        size, poses = pool_size(network.config.input_size), photos.pose[photos.trust > 0.5]
        maker = Synthesizer(hand, backgrounds, "cpu", size, poses=poses, config=SYNTHESIS)
        for _ in range(0, options.rendered, CHUNK):
            made = maker.records(CHUNK, generator)
            for _ in range(LOOKS):
                look(made, torch.arange(CHUNK))
    else:
        for _ in range(options.passes):
            for rows in torch.arange(len(photos)).split(CHUNK):
                look(photos, rows, backgrounds)
    print()
    keep(Gathered.join(parts), options.out)


@torch.no_grad()
def errors(hand: HandModel, corrector: Corrector, seen: Gathered) -> dict[str, float]:
    """Mean 2D errors of mesh and 2D skeleton (px of a 224-px crop, of trusted hands) and PA-MPJPE (mm)."""
    seen = seen[(seen.trust > 0.5) & (seen.is_right > 0)]
    change, shift = corrector(inputs_of(hand, seen))
    h, j = seen.h + change, seen.j + shift
    weight = seen.keypoint_weight / seen.keypoint_weight.sum()

    def pixels(points: torch.Tensor) -> float:
        return float(((points - seen.keypoints).norm(dim=-1) * weight).sum()) * ERROR_CROP / 2 * SHOWN

    found = decode(h)
    joints, true = (hand.skeleton(m.pose, m.shape, m.rotation) for m in (found, seen))
    return {
        "mesh_px": pixels(place(found, joints)[..., :2]),
        "j_px": pixels(j),
        "pa_mm": float(aligned_error(joints, true).mean()) * 1000,
    }


@torch.no_grad()
def side_right(hand: HandModel, corrector: SideCorrector, seen: Gathered) -> dict[str, float]:
    """Share of crops told the right side, each by one look."""
    seen = seen[seen.has_hand > 0]
    odds = seen.side_logit + corrector(inputs_of(hand, seen, side=True))
    return {"side": float(((odds > 0) == (seen.is_right > 0)).float().mean())}


def run_fit(options: argparse.Namespace) -> None:
    """Errors: InputError where files cannot be used or the model has no corrector."""
    network = open_model(str(options.model), fuse=False)
    if network.regressor.corrector is None or network.side_corrector is None:
        raise InputError(f"{options.model}: this model has no correctors; give a dhpe-lite or dhpe-r50")
    rendered, real, held_back = (
        [read(path) for path in paths] for paths in (options.rendered, options.real, options.held_back)
    )
    width, config, hand = network.evidence.trunk.width, network.config, network.hand
    torch.manual_seed(options.seed)
    if not options.go_on:
        network.regressor.corrector = Corrector(width, config.corrector)
    corrector = network.regressor.corrector.train().requires_grad_()
    sets, tests = split(rendered, real, held_back, options.real_share)
    how = FitOptions(steps=options.steps, seed=options.seed, lr=options.lr)
    follow("mesh", fit(corrector, hand, sets, how), corrector, lambda test: errors(hand, corrector, test), tests)
    rendered, real, held_back = (
        [part for part in parts if (part.is_right == 0).any()] for parts in (rendered, real, held_back)
    )
    if rendered:  # the same both ways
        network.side_corrector = side = SideCorrector(width, config.side_corrector)  # also where there was one
        sets, tests = split(rendered, real, held_back, options.real_share)
        learnt = fit_side(side, hand, sets, replace(SIDE, seed=options.seed))
        follow("side", learnt, side, lambda test: side_right(hand, side, test), tests)
    save_weights(network, options.out, storage=config.storage, card={"input_size": config.input_size})


def split(
    rendered: list[Gathered], real: list[Gathered], held_back: list[Gathered], real_share: float
) -> tuple[list[tuple[float, Gathered]], dict[str, Gathered]]:
    """What is learnt from, with its shares, and what is measured on: the last rendered crops, held-back photos."""
    *others, last = rendered
    sets = [(1 - real_share, Gathered.join([*others, last[:-TESTED]]))]
    if real:
        sets.append((real_share, Gathered.join(real)))
    tests = {"rendered": last[-TESTED:]}
    if held_back:
        tests["held-back"] = Gathered.join(held_back)
    return sets, tests


def follow(
    kind: str,
    learnt: Iterator[tuple[int, float]],
    perceptron: Perceptron,
    measure: Callable[[Gathered], dict[str, float]],
    tests: dict[str, Gathered],
) -> None:
    """Let training go on, and print what it is worth before, after every 2,000 steps and in the end."""

    def tell(step: int, loss: float) -> None:
        perceptron.eval()
        for name, test in tests.items():
            print(f"{kind} {name:10} {step:6} loss {loss:.4f} {words(measure(test))}", flush=True)
        perceptron.train()

    step, loss = 0, math.nan
    tell(step, loss)
    for step, loss in learnt:
        if step % 2000 == 0:
            tell(step, loss)
    if step % 2000:
        tell(step, loss)
    perceptron.eval()


def words(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    gathers, fits = modes.add_parser("gather"), modes.add_parser("fit")
    for mode in (gathers, fits):
        mode.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
        mode.add_argument("--out", type=Path, required=True)
        mode.add_argument("--seed", type=int, default=0)
    gathers.add_argument("--photos", type=Path, required=True, help="folder with labels.jsonl and crops/")
    gathers.add_argument("--backgrounds", type=Path, required=True, help="folder of hand-free photos")
    gathers.add_argument("--fits", default="", help="the photos' labels")
    gathers.add_argument("--rendered", type=int, default=0, help="rendered hands; 0: photos")
    gathers.add_argument("--passes", type=int, default=1, help="crops of each photo")
    gathers.add_argument("--held-back", action="store_true", help="the held-back photos in place of training's")
    gathers.add_argument("--both-ways", action="store_true", help="each crop mirrored, too")
    fits.add_argument("--rendered", type=Path, nargs="+", required=True, help="what was gathered of rendered hands")
    fits.add_argument("--real", type=Path, nargs="*", default=[], help="what was gathered of training photos")
    fits.add_argument(
        "--held-back", type=Path, nargs="*", default=[], help="what was gathered of held-back photos, to measure with"
    )
    fits.add_argument("--real-share", type=float, default=0.3, help="share of training photos among the crops")
    fits.add_argument("--steps", type=int, default=FitOptions.steps)
    fits.add_argument("--lr", type=float, default=FitOptions.lr, help="the mesh's learning rate")
    fits.add_argument(
        "--go-on", action="store_true", help="with the mesh's corrector that the model has, not a new one"
    )
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    try:
        (run_gather if options.mode == "gather" else run_fit)(options)
    except DensehandError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
