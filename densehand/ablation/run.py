"""The ablation: every row trained from the same start on the same hands, measured, and kept as it is done.

Folder: `options.json`; `start.safetensors`, the rows' common start; `pool-SEED` and `test`, the rendered hands;
`SEED/ROW/`: `result.json` once it is done, weights, and while it runs a checkpoint from which a killed run goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save_file

from densehand.ablation.data import TEST_SEED, PoolStream, kept, rendered
from densehand.ablation.measure import TestHands, measure
from densehand.ablation.rows import HEAD_START_OFF, ROWS, UPRIGHT, Row, full_weights, state_of, take_refiner_out
from densehand.ablation.training import fit
from densehand.data.records import Records
from densehand.errors import InputError, WeightsError
from densehand.files import ensure_folder, write_atomically, write_bytes
from densehand.hand.model import HandModel
from densehand.network import zoo
from densehand.network.estimator import DHPE
from densehand.synth import Synthesizer
from densehand.synth.config import WIDE
from densehand.train.config import TrainConfig
from densehand.train.module import Training
from densehand.train.run import build
from densehand.train.selfsup import Reseeding, check_seeds, estimate_seeds, reseeded
from densehand.train.stream import load_records, pool_size, seeded

WATCHED = 64  # test hands that the learning curves are measured on
SEEDS_LOOKED_AT = 256  # hands of the pool of which new samples may be made
PAPER_CURVE = (0, 2, 5, 10, 20)  # of the curve of the paper's testing refinement
FAST_CURVE = (0, 1, 2, 3, 5, 8)
PACKAGED_TRUNK = "packaged-trunk"
"""A start: f_Feat's trunk of the packaged weights, all else new. From ImageNet a short run does not get near enough to
the hands for the shape loss (λ) and realistic seeds to begin."""
REAL_HANDS = 4096  # of a dataset kept in memory
CURVE_ROWS = ("full", "no-refiner")


@dataclass(frozen=True)
class Options:
    """What distinguishes one ablation from another; a folder holds rows of one kind only.

    start: as `densehand train`'s, or "packaged-trunk". photos: folder of real crops; or data, root, split, test_split:
    a dataset (docs/datasets.md). head_start: steps of the rows' common start, which is trained on the hands of
    `start_seeds` training seeds. reseed: share of a row's steps after which new samples are made from the network's own
    meshes, `children` of them at most. seed_error: largest error of a mesh they are made from (share of the hand's
    box).
    """

    model: str = "dhpe-lite"
    start: str = "imagenet"
    photos: str = ""
    data: str = "synthetic"
    root: str = ""
    split: str = ""
    test_split: str = ""
    size: int = 96
    batch: int = 32
    steps: int = 150
    head_start: int = 300
    start_seeds: int = 2
    lr: float = 1e-3
    pool: int = 1024
    test_hands: int = 200
    reseed: float = 0.4
    children: int = 384
    seed_error: float = 0.08
    freeze_early: bool = True


def row_config(options: Options, row: Row, seed: int, start: str, out: Path, device: str, threads: int) -> TrainConfig:
    """The training of one row and seed."""
    weights = replace(full_weights(options.model), **row.weights)  # type: ignore[arg-type]
    return TrainConfig(
        model=options.model, start=start, out=str(out), size=options.size, batch=options.batch, steps=options.steps,
        lr=options.lr, warmup=max(1, options.steps // 15), final_lr=0.02, ema=0.97, photo_share=0.0, negative_share=0.0,
        mask_terms_share=0.25, seed=seed, checkpoint_every=max(1, options.steps // 4), threads=threads, device=device,
        freeze_early=options.freeze_early, weights=weights, augmentation=UPRIGHT,
    )  # fmt: skip


class Ablation:
    """Rows × seeds in a folder. `say` gets a line whenever something is done.

    Raises InputError where the folder holds an ablation of other options.
    """

    def __init__(
        self, folder: Path | str, options: Options, device: str = "auto", threads: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.folder, self.options, self.say, self.threads = ensure_folder(folder), options, say, threads
        self.device = zoo.resolve_device(device)
        self.hand = HandModel.load("open").to(self.device)
        stored = self.folder / "options.json"
        mine = asdict(options)
        if stored.is_file():
            theirs = json.loads(stored.read_text())
            theirs = asdict(Options()) | theirs
            other = sorted(k for k in mine if theirs[k] != mine[k])
            if other:
                shown = ", ".join(f"{k} {theirs[k]} there and {mine[k]} here" for k in other)
                raise InputError(f"{folder}: holds an ablation of other options ({shown}); choose another folder")
        write_bytes(stored, (json.dumps(mine, indent=1) + "\n").encode())

    @cached_property
    def synthesizer(self) -> Synthesizer:
        return Synthesizer(self.hand, None, self.device, pool_size(self.options.size), config=WIDE)

    def pool(self, seed: int) -> Records:
        """The training hands of a seed."""
        path = self.folder / f"pool-{seed}.safetensors"
        return kept(path, lambda: rendered(self.synthesizer, self.options.pool, seed, self.say)).to(self.device)

    @cached_property
    def real(self) -> list[Records]:
        """Real hands to train on beside the rendered ones, where asked for."""
        options = self.options
        if options.photos:
            parts = [load_records(options.photos, self.hand, self.folder / "fits.npz")]
        elif options.data != "synthetic":
            parts = self._dataset(options.split, REAL_HANDS)
        else:
            parts = []
        return [part.to(self.device) for part in parts]

    def _dataset(self, split: str, limit: int) -> list[Records]:
        from densehand.data.labelled import load_dataset

        parts, _ = load_dataset(self.options.data, self.options.root, self.hand, split or None, limit)
        return parts

    @cached_property
    def test(self) -> TestHands:
        """The hands that rows are measured on: the test split, held-back photos, or hands rendered with a seed of their
        own. The 3D truth of real ones is the hand model's fit to their labels."""
        options = self.options
        if options.photos:
            parts = [load_records(options.photos, self.hand, self.folder / "fits-test.npz", "held-back")]
        elif options.data != "synthetic":
            parts = self._dataset(options.test_split, options.test_hands)
            parts = [max(parts, key=lambda part: float(part.trust.sum()))]  # with masks or without: the larger half
        else:
            path = self.folder / "test.safetensors"
            parts = [kept(path, lambda: rendered(self.synthesizer, options.test_hands, TEST_SEED, self.say))]
        return TestHands.cut(self.hand, parts[0].to(self.device), options.size, options.test_hands)

    def sources(self, pool: Records) -> list[tuple[Records, int]]:
        """What a batch is made of: rendered hands, or half of them and half real ones."""
        half, hands = self.options.batch // 2, sum(map(len, self.real))
        sources = [(part, max(1, round(half * len(part) / hands))) for part in self.real]
        return [*sources, (pool, self.options.batch - sum(count for _, count in sources))]

    def module(self, config: TrainConfig, row: Row, pool: Records) -> Training:
        """Network with its start weights, and the stream it is trained on."""
        packaged = config.start == PACKAGED_TRUNK
        network = build(replace(config, start="none") if packaged else config)[0].network
        if packaged:
            load_packaged_trunk(network)
        if not row.refiner:
            take_refiner_out(network)
        return Training(network, PoolStream(config, self.hand, self.sources(pool)), config)

    def start(self) -> str:
        """The rows' common start: a file, trained first without anything that a row takes away."""
        options = self.options
        if not options.head_start:
            return options.start
        path = self.folder / "start.safetensors"
        if not path.is_file():
            row = Row("start", HEAD_START_OFF)
            out = ensure_folder(self.folder / "start")
            config = row_config(options, row, 0, options.start, out, str(self.device), self.threads)
            config = replace(config, steps=options.head_start, warmup=max(1, options.head_start // 15), final_lr=0.2)
            module = self.module(config, row, Records.join([self.pool(seed) for seed in range(options.start_seeds)]))
            curve = fit(module, out, watch=self.watch)
            self.say(f"common start: {curve[-1]}")
            zoo.save_weights(module.average.module, path, card={"input_size": options.size})  # type: ignore[arg-type]
        return str(path)

    def watch(self, network: DHPE) -> dict[str, float]:
        """A point of the learning curve."""
        figures = measure(network, self.test.first(WATCHED), masks=False)
        return {name: figures[name] for name in ("px", "pa_mm", "near", "evidence_px")}

    def place(self, name: str, seed: int) -> Path:
        """Folder of a row and seed."""
        return self.folder / str(seed) / name

    def result(self, name: str, seed: int) -> dict[str, Any] | None:
        """What was measured of a row and seed; None where it is not done."""
        path = self.place(ROWS[name].trained_as or name, seed) / "result.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train and measure a row with a seed, unless it is done."""
        trained = ROWS[name].trained_as or name
        done = self.result(trained, seed)
        if done is not None:
            return done
        row, out, began = ROWS[trained], ensure_folder(self.place(trained, seed)), time.monotonic()
        config = row_config(self.options, row, seed, self.start(), out, str(self.device), self.threads)
        pool = self.pool(seed)
        module = self.module(config, row, pool)
        made: dict[str, Any] = {"samples": 0}
        late = None
        if row.augmented:
            late = (
                round(self.options.reseed * config.steps),
                lambda: made.update(self.reseed(module, pool, out, seed)),
            )
        curve = fit(module, out, watch=self.watch, late=late)
        network = cast(DHPE, module.average.module)
        with write_atomically(out / "weights.safetensors") as temporary:
            save_file(state_of(network), temporary)
        figures = {mode: measure(network, self.test, mode) for mode in ("off", "fast")}
        result = {
            "row": trained, "seed": seed, "options": asdict(self.options), "seconds": time.monotonic() - began,
            "new_samples": made, "figures": figures, "learning": curve,
        }  # fmt: skip
        write_bytes(out / "result.json", json.dumps(result, indent=1).encode())
        for checkpoint in out.glob("*.ckpt"):
            checkpoint.unlink()
        told = ", ".join(f"{k} {figures['fast'][k]:.3f}" for k in ("px", "pa_mm", "auc_20_50"))
        self.say(f"seed {seed}, {trained}: {told} ({result['seconds']:.0f} s, {made['samples']} new samples)")
        return result

    def reseed(self, module: Training, pool: Records, out: Path, seed: int) -> dict[str, Any]:
        """New samples from the network's own meshes (paper, section 3.5), added to the stream; kept in a file, so that
        a run that goes on sees the same. Returns how many, and how many seeds were realistic."""
        options, stream = self.options, cast(PoolStream, module.stream)
        path, told = out / "new.safetensors", out / "new.json"
        if not told.is_file():
            source = self.real[0] if self.real else pool
            looked = Records(**{name: value[:SEEDS_LOOKED_AT] for name, value in vars(source).items()})
            found = estimate_seeds(cast(DHPE, module.average.module), looked, options.size)
            how = Reseeding(error=options.seed_error, start=0.0)
            good = int(check_seeds(self.hand, looked, found, how).good.sum())
            count = min(options.children, how.children * good)
            if count:
                generator = seeded(self.device, seed, 3)
                kept(path, lambda: reseeded(looked, found, count, generator, self.synthesizer, how))
            write_bytes(told, json.dumps({"samples": count, "seeds": good, "looked_at": len(looked)}).encode())
        made = json.loads(told.read_text())
        if made["samples"]:
            stream.add(kept(path, _never).to(self.device))
        return made

    def refining(self, name: str, seed: int, hands: int) -> dict[str, Any]:
        """Error against the number of iterations of testing refinement, the fast one's and the paper's."""
        path = self.place(name, seed) / "refining.json"
        if not path.is_file():
            network = zoo.build_model(self.options.model, self.hand).to(self.device)
            if not ROWS[name].refiner:
                take_refiner_out(network)
            weights = self.place(name, seed) / "weights.safetensors"
            zoo.fill(network, load_file(weights), weights, network.config.name)
            network.requires_grad_(False)
            test, curves = self.test.first(hands), {}
            for mode, counts in (("fast", FAST_CURVE), ("paper", PAPER_CURVE)):
                points = [measure(network, test, mode, steps, masks=False) for steps in counts]
                curves[mode] = {"iterations": counts} | {k: [p[k] for p in points] for k in ("px", "pa_mm")}
            write_bytes(path, json.dumps(curves).encode())
            self.say(f"seed {seed}, {name}: testing refinement's curve")
        return json.loads(path.read_text())


def load_packaged_trunk(network: DHPE) -> None:
    """Put the packaged weights' trunk into a network of the same name. Raises WeightsError where there are none."""
    name, prefix = network.config.name, "evidence.trunk."
    state, _ = zoo.load_state(zoo.weights_path(name), name)
    trunk = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    absent = network.evidence.trunk.load_state_dict(trunk, strict=False).missing_keys
    if not all(k.endswith("num_batches_tracked") for k in absent):
        raise WeightsError(f"packaged weights of {name}: lack {len(absent)} tensors of its trunk; reinstall densehand")


def _never() -> Records:
    raise InputError("new.safetensors: missing beside new.json; delete the row's folder to train it again")
