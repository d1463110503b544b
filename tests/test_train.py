"""Training: exact resume, batches as functions of the step, weights that load again, loss terms that reach the net."""

from dataclasses import replace

import pytest
import torch
from train_helpers import tiny_config

from densehand.errors import InputError, WeightsError
from densehand.hand.model import HandModel
from densehand.network.zoo import build_model, load_state
from densehand.train.config import LossWeights, paper_config
from densehand.train.module import Training, mask_terms, objective
from densehand.train.stream import BatchStream, SynthPool, load_records, seeded


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_config(tmp_path_factory.mktemp("train"))


def weights_of(folder):
    return load_state(folder / "weights.safetensors", "dhpe-lite")[0]


def test_a_stopped_run_ends_where_an_undisturbed_one_does(config, tmp_path, monkeypatch):
    from densehand.train import module, run

    whole = run.run(replace(config, out=str(tmp_path / "whole")), progress=False)
    stopped = replace(config, out=str(tmp_path / "stopped"))
    step = module.Training.training_step

    def dies_at_two(self, number, index):
        if self.global_step == 2:
            raise KeyboardInterrupt
        return step(self, number, index)

    monkeypatch.setattr(module.Training, "training_step", dies_at_two)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run.run(stopped, progress=False)
    monkeypatch.undo()
    assert (tmp_path / "stopped" / "last.ckpt").is_file()
    resumed = run.run(stopped, progress=False)
    expected, got = weights_of(whole), weights_of(resumed)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name
    assert {p.name for p in resumed.glob("log-*")} == {"log-0", "log-2"}


def test_start_weights_of_another_kind_are_refused(config, tmp_path):
    from densehand.train.run import build

    with pytest.raises(WeightsError, match="no such weights"):
        build(replace(config, start=str(tmp_path / "none.safetensors")))
    with pytest.raises(InputError, match="photo_share"):
        build(replace(config, photos=""))


def test_batches_depend_on_the_step_alone(config):
    hand = HandModel.load("open")
    first, second = BatchStream(config, hand), BatchStream(config, hand)
    second.batch(0)
    assert torch.equal(first.batch(3).images, second.batch(3).images)
    assert not torch.equal(first.batch(3).images, first.batch(4).images)


def test_seeds_of_neighbouring_steps_differ():
    draws = {torch.rand(1, generator=seeded("cpu", 0, 0, n)).item() for n in range(50)}
    assert len(draws) == 50


class CountingSynthesizer:
    """Renders records that carry the first random number of their generator."""

    device = torch.device("cpu")

    def __init__(self, records):
        self.template, self.rendered = records, 0

    def records(self, count, generator):
        self.rendered += count
        value = torch.rand(count, generator=generator)
        rows = torch.arange(count) % len(self.template)
        fields = {name: tensor[rows] for name, tensor in vars(self.template).items()}
        return type(self.template)(**{**fields, "trust": value})


def test_the_pool_is_a_function_of_the_pictures_used(config):
    hand = HandModel.load("open")
    records = load_records(config.photos, hand, config.fits)
    walked = SynthPool(CountingSynthesizer(records), 256, seed=1)
    for used in range(0, 2000, 100):
        walked.records(used, replay=2.0)
    jumped = SynthPool(CountingSynthesizer(records), 256, seed=1)
    assert torch.equal(walked.records(1900, 2.0).trust, jumped.records(1900, 2.0).trust)
    assert walked.synthesizer.rendered == 256 + 1900 // 2 // 64 * 64
    assert len(jumped.records(1900, 2.0)) == 256


@pytest.mark.parametrize("model", ["dhpe-lite", "dhpe-r50"])
def test_every_weight_gets_a_gradient(config, model):
    """All terms together reach every parameter, the costly mask terms included."""
    hand = HandModel.load("open")
    stream = BatchStream(config, hand)
    batch = stream.batch(0)
    axis = torch.linspace(-1, 1, config.size)
    batch.mask = ((axis[:, None].square() + axis.square()) < 0.4).float().expand(4, -1, -1)
    batch.has_mask, batch.is_right = torch.ones(4, dtype=torch.bool), torch.ones(4)
    weights = LossWeights(features=1.0, shape=1.0, laplacian=1.0, hierarchical=False)
    config = replace(config, weights=weights, mask_terms_share=1.0)
    network = build_model(model, hand)
    for perceptron in (network.regressor.corrector, network.side_corrector):
        torch.nn.init.normal_(perceptron.last.weight, std=0.01)  # at 0 it holds back what lies beneath
    estimate = network(batch.images)
    loss, terms = objective(network, estimate, batch, config)
    assert set(terms) == {f for f in vars(weights) if f not in ("robust", "hierarchical")}
    assert all(torch.isfinite(v) for v in terms.values())
    loss.backward()
    silent = [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent, silent


def test_shape_loss_waits_for_the_skeleton(config):
    """λ of eq. 12: far from the evidence the shape term is 0, and it counts once the skeleton is there."""
    hand = HandModel.load("open")
    batch = BatchStream(config, hand).batch(0)
    batch.has_mask, batch.is_right = torch.ones(4, dtype=torch.bool), torch.ones(4)
    config = replace(config, weights=LossWeights(shape=1.0), mask_terms_share=1.0)
    network = build_model("dhpe-lite", hand).eval()
    with torch.no_grad():
        estimate = network(batch.images)
        batch.keypoint_weight = torch.ones(4, 21)
        batch.keypoints = estimate.skeletons[-1][..., :2] + 1.0
        assert mask_terms(network, estimate, batch, config)["shape"].max() == 0
        batch.keypoints = estimate.skeletons[-1][..., :2]
        assert mask_terms(network, estimate, batch, config)["shape"].min() > 0


def test_the_papers_objective_has_the_papers_terms():
    config = paper_config(steps=7)
    on = {name for name, value in vars(config.weights).items() if value is not False and value}
    assert on == {"articulation", "refiner", "heatmaps", "features", "shape", "laplacian", "hierarchical"}
    assert config.steps == 7 and config.model == "dhpe-paper" and config.size == 224


def test_frozen_early_layers_stay_as_they_start(config, tmp_path):
    from densehand.train import run

    folder = run.run(
        replace(config, out=str(tmp_path), start="none", steps=1, freeze_early=True, ema=0.0), progress=False
    )
    torch.manual_seed(config.seed)
    start = build_model("dhpe-lite", hand=HandModel.load("open"), imagenet=False).state_dict()
    after = weights_of(folder)
    same = {name for name, value in after.items() if torch.equal(value.float(), start[name].half().float())}
    assert "evidence.trunk.stem.conv.weight" in same and "evidence.trunk.blocks.2.expand.conv.weight" in same
    assert "evidence.trunk.blocks.3.expand.conv.weight" not in same


def test_the_average_keeps_what_is_no_number(config):
    """Indices, such as the mesh's faces, are copied; averaged and cut off, they would be other indices."""
    network = build_model("dhpe-lite", HandModel.load("open"))
    training = Training(network, BatchStream(config, network.hand), replace(config, ema=0.9))
    for _ in range(3):
        with torch.no_grad():
            next(network.parameters()).add_(1.0)
        training.average.update_parameters(network)
    averaged = training.average.module
    for name, value in network.hand.named_buffers():
        assert torch.equal(value, dict(averaged.hand.named_buffers())[name]), name
    behind = next(network.parameters()) - next(averaged.parameters())
    assert float(behind.mean()) == pytest.approx(0.9 + 0.9**2, rel=1e-3)  # the first update copies


def test_hands_before_black_leave_the_statistics_alone(config):
    """L_Feat looks at pictures whose background is cut away: batch norms must not take those for the data's."""
    network = build_model("dhpe-lite", HandModel.load("open"))
    batch = BatchStream(config, network.hand).batch(0)
    batch.has_mask, batch.is_right = torch.ones(4, dtype=torch.bool), torch.ones(4)
    config = replace(config, weights=LossWeights(features=1.0), mask_terms_share=1.0)
    estimate = network(batch.images)
    before = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
    assert mask_terms(network, estimate, batch, config)["features"].mean() > 0
    after = dict(network.named_buffers())
    assert before and all(torch.equal(value, after[name]) for name, value in before.items())
    network(batch.images)
    assert any(not torch.equal(value, after[name]) for name, value in before.items())


def test_with_replay_1_each_rendered_picture_is_shown_once(config):
    records = load_records(config.photos, HandModel.load("open"), config.fits)
    pool, shown = SynthPool(CountingSynthesizer(records), 256, seed=1), []
    for step in range(40):
        ring, index = pool.draw(step * 24, 24, 1.0, seeded("cpu", step))
        shown += ring.trust[index].tolist()
    assert len(set(shown)) == len(shown) == 960
    ring, index = pool.draw(960, 24, 4.0, seeded("cpu", 1))
    assert len(index) == 24 and int(index.max()) < len(ring)


def test_shares_beyond_a_whole_batch_are_refused(config):
    with pytest.raises(InputError, match=r"photo_share 0.9 \+ negative_share 0.3 .* more than 1"):
        BatchStream(replace(config, photo_share=0.9, negative_share=0.3), HandModel.load("open"))
