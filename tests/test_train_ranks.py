"""Several processes train as one: the same gradients, the same pictures, one writer."""

import socket
from dataclasses import replace
from itertools import product

import pytest
import torch
from train_helpers import child, tiny_config

from densehand.data.records import TrainingBatch
from densehand.hand.model import HandModel
from densehand.train import module, ranks, run, stream
from densehand.train.config import LossWeights
from densehand.train.stream import BatchStream, SynthPool


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_config(tmp_path_factory.mktemp("ranks"))


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def torchrun_variables(rank: int, world: int, port: str) -> dict[str, str]:
    """What torchrun tells the processes that it starts."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    return {name: str(value) for name, value in numbers.items()} | address


def test_two_processes_have_the_gradients_of_one(config, tmp_path, monkeypatch):
    """All terms, batch norms frozen (each process would take the statistics of its own half), two steps.

    The rate is so low that the weights stay, and each step compares gradients of other pictures.
    """
    make, clip = BatchStream._make, module.Training.configure_gradient_clipping

    def with_masks(self, *arguments):
        batch: TrainingBatch = make(self, *arguments)
        axis = torch.linspace(-1, 1, self.config.size)
        disc = (axis[:, None].square() + axis.square() < 0.4).float()
        batch.mask = batch.silhouette = disc.expand(len(batch), -1, -1).clone()
        batch.has_mask = torch.arange(len(batch)) != 1  # one without, so that the parts differ
        return batch

    def keeping(self, optimizer, *arguments, **options):
        gradients = {n: p.grad.clone() for n, p in self.network.named_parameters() if p.grad is not None}
        torch.save(gradients, f"{self.config.out}/gradients-{self.global_step}.pt")
        clip(self, optimizer, *arguments, **options)

    monkeypatch.setattr(BatchStream, "_make", with_masks)
    monkeypatch.setattr(module.Training, "configure_gradient_clipping", keeping)
    weights = LossWeights(features=1.0, shape=1.0, laplacian=1.0, hierarchical=False)
    config = replace(config, weights=weights, mask_terms_share=0.5, freeze_batchnorm=True, lr=1e-9, batch=6, steps=2,
                     checkpoint_every=2, clip=0.0)  # fmt: skip
    folders = [tmp_path / name for name in ("one", "first", "second")]
    port = free_port()
    processes = [
        child(run.run, replace(config, out=str(folders[1 + rank])), True, False, **torchrun_variables(rank, 2, port))
        for rank in range(2)
    ]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    run.run(replace(config, out=str(folders[0])), progress=False)
    for step in range(2):
        one, first, second = (torch.load(f / f"gradients-{step}.pt", weights_only=True) for f in folders)
        assert one.keys() == first.keys() == second.keys() and len(one) > 100
        largest = max(float(g.abs().max()) for g in one.values())
        assert largest > 1e-2
        for name, expected in one.items():
            torch.testing.assert_close(first[name], expected, rtol=1e-5, atol=1e-5, msg=f"{name} at step {step}")
            assert torch.equal(first[name], second[name]), f"{name}: the processes disagree"
    assert {p.name for p in folders[1].iterdir()} >= {"last.ckpt", "config.json", "weights.safetensors", "log-0"}
    assert {p.name for p in folders[2].iterdir()} == {f"gradients-{step}.pt" for step in range(2)}, "only one writes"


def placed(monkeypatch, rank, world):
    monkeypatch.setattr(ranks, "rank", lambda: rank)
    monkeypatch.setattr(ranks, "world", lambda: world)


def test_slices_are_the_whole_batch_for_any_number_of_processes(config, monkeypatch):
    source = BatchStream(replace(config, batch=12), HandModel.load("open"))
    whole = source.batch(5)
    for world in (2, 3, 4):
        parts = []
        for rank in range(world):
            placed(monkeypatch, rank, world)
            parts.append(source.batch(5).images)
        assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole.images), world


def test_own_batches_differ_between_processes_and_repeat(config, monkeypatch):
    source = BatchStream(replace(config, batch=8, rank_batches="own"), HandModel.load("open"))
    made = {}
    for rank, again in product((0, 1), (0, 1)):
        placed(monkeypatch, rank, 2)
        made[rank, again] = source.batch(3).images
    assert len(made[0, 0]) == 4
    assert torch.equal(made[0, 0], made[0, 1]) and torch.equal(made[1, 0], made[1, 1])
    assert not torch.equal(made[0, 0], made[1, 0])


def test_own_pools_hold_other_pictures(monkeypatch):
    drawn = {}

    class Noting:
        device = torch.device("cpu")

        def records(self, count, generator):
            return stream.Records(*[torch.rand(count, generator=generator)] * 11)

    for rank, own in product((0, 1), (False, True)):
        placed(monkeypatch, rank, 2)
        drawn[rank, own] = SynthPool(Noting(), 64, seed=1, own=own).records(0, 1.0).trust
    assert torch.equal(drawn[0, False], drawn[1, False]) and not torch.equal(drawn[0, True], drawn[1, True])


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("share", [0.01, 0.25, 1.0])
def test_spread_rows_are_dealt_out_like_the_batch(monkeypatch, world, share):
    """Against the plain way: choose in the whole batch, then see which rows each process holds."""
    usable = torch.rand(12, generator=torch.Generator().manual_seed(world)) < 0.6
    rows = torch.nonzero(usable).flatten().tolist()
    wanted = max(1, round(12 * share))
    expected = [rows[k * len(rows) // wanted] for k in range(wanted)] if wanted < len(rows) else rows

    def gather(parts, _):
        for part, rank in zip(parts, range(world), strict=True):
            part.copy_(usable[rank::world])

    monkeypatch.setattr(ranks.dist, "all_gather", gather)
    found = []
    for rank in range(world):
        placed(monkeypatch, rank, world)
        mine, count = ranks.spread_rows(usable[rank::world], share)
        found += [row * world + rank for row in mine.tolist()]
        assert count == len(expected)
    assert sorted(found) == expected


def test_torchruns_count_wins(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert ranks.launched(2, 3) == (2, 3)
    for name, value in torchrun_variables(1, 4, "1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert ranks.launched(1, 1) == (4, 2) and ranks.local_rank() == 1
