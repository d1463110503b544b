"""Configurations of a training: files, the command line over them, and what is refused with which words."""

import re
from dataclasses import asdict, fields, is_dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand import cli
from densehand.data.augmentation import WIDE_CROPS
from densehand.errors import InputError
from densehand.options import differences, nested, options_of, updated
from densehand.train.config import DatasetShare, TrainConfig, paper_config
from densehand.train.configfile import find_config, load_config, packaged


@pytest.fixture
def configured(monkeypatch):
    """The configuration that a command line makes, without training."""
    from densehand.train import run

    seen = []

    def keep(config, resume, progress):
        seen.append((config, resume, progress))
        return find_config("lite").parent

    monkeypatch.setattr(run, "run", keep)

    def call(*arguments):
        assert cli.run(["train", *arguments]) == 0
        return seen.pop()

    return call


def test_every_option_has_a_help_and_a_name_of_its_own():
    options = list(options_of(TrainConfig()))
    assert len({o.name for o in options}) == len(options) > 50
    assert [o.name for o in options if not o.text.endswith(".")] == []
    assert [f.name for f in fields(DatasetShare) if not f.metadata["help"]] == []


def test_help_lists_every_option(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.run(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    names = set(re.findall(r"--([a-z0-9_.-]+)", shown))
    assert [o.name for o in options_of(TrainConfig()) if o.name.replace("_", "-") not in names] == []
    assert "Weights of the loss terms" in shown and "--features" in shown


def test_packaged_configurations():
    assert packaged() == ["lite", "paper"]
    assert load_config("paper") == paper_config()
    lite = load_config("lite")
    assert lite.augmentation == replace(WIDE_CROPS, occluder=0.35, blur=0.3, backdrop=0.5) and lite.weights.shape == 2.0
    assert (lite.model, lite.rare, lite.synthesis.object_share) == ("dhpe-lite", 1.2, 0.4)
    assert load_config() == TrainConfig()


def test_options_win_over_the_file(tmp_path, configured):
    path = tmp_path / "mine.toml"
    path.write_text(
        "steps = 7\nlr = 1\n[weights]\nshape = 3\npose = 0.5\nrobust = false\n[augmentation]\nzoom = [0.9, 1.1]\n"
        "[[dataset]]\nname = 'freihand'\nroot = 'F'\nweight = 2\n[[dataset]]\nname = 'rhd'\nroot = 'R'\nlimit = 9\n"
    )
    config, resume, progress = configured("--config", str(path), "--steps", "9", "--weights.pose", "0.25", "-q")
    assert (config.steps, config.lr, config.weights.shape, config.weights.pose) == (9, 1.0, 3.0, 0.25)
    assert config.weights.robust is False and config.augmentation.zoom == (0.9, 1.1)
    assert config.dataset == (DatasetShare("freihand", "F", weight=2.0), DatasetShare("rhd", "R", limit=9))
    assert resume and not progress


def test_command_lines_without_a_file_mean_what_they_did(configured):
    config, resume, progress = configured(
        "--model", "dhpe-lite", "--shape", "2", "--wide-crops", "--batch", "8", "--fresh", "--bf16", "--out", "x"
    )
    expected = replace(TrainConfig(), batch=8, bf16=True, augmentation=WIDE_CROPS, out="x")
    assert config == replace(expected, weights=replace(expected.weights, shape=2.0))
    assert not resume and progress
    paper, *_ = configured("--model", "dhpe-paper")
    assert paper.weights == paper_config().weights and paper.mask_terms_share == 1.0 and paper.size == 160
    assert configured("--augmentation.zoom", "0.8", "1.2")[0].augmentation.zoom == (0.8, 1.2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate = 1", "unknown option 'learning_rate'; the nearest known one is"),
        ("stepps = 1", "nearest known one is 'steps'"),
        ("features = 1.0", "nearest known one is 'weights.features'"),
        ("[weights]\nposes = 1", "unknown option 'weights.poses'; the nearest known one is 'weights.pose'"),
        (
            "[[dataset]]\nnamed = 'x'",
            r"unknown option 'dataset\[0\].named'; the nearest known one is 'dataset\[0\].name'",
        ),
        ("steps = 1.5", "steps = 1.5 is not a whole number"),
        ("steps = true", "steps = True is not a whole number"),
        ("lr = nan", "lr = nan is not a number"),
        ("bf16 = 1", "bf16 = 1 is not true or false"),
        ("photo_share = 1.5", "photo_share = 1.5, but it must be from 0 to 1"),
        ("steps = 0", "steps = 0, but it must be at least 1"),
        ("[augmentation]\nresolution = [0.01, 0.5]", r"resolution = \(0.01, 0.5\), but it must be from 0.05 to 1"),
        ("[augmentation]\nresolution = [0.1, 1.5]", r"resolution = \(0.1, 1.5\), but it must be from 0.05 to 1"),
        ("rank_batches = 'half'", "known: slice, own"),
        ("weights = 3", r"write \[weights\]"),
        ("[augmentation]\nzoom = [1]", "zoom = .* is not a list of 2 numbers"),
        ("dataset = 3", "dataset = 3 is not a list of tables"),
        ("steps = ", "not a TOML file"),
    ],
)
def test_what_a_file_may_not_say(tmp_path, text, words):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_missing_files_name_the_packaged_ones(tmp_path):
    with pytest.raises(InputError, match="one of lite, paper"):
        load_config(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match="one of lite, paper"):
        load_config("light")


def plain(config):
    """As TOML would give it: nested dictionaries, lists."""
    return {
        f.name: plain(getattr(config, f.name)) if is_dataclass(getattr(config, f.name)) else getattr(config, f.name)
        for f in fields(config)
    }


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 10**6), lr=st.floats(0, 1), shape=st.floats(0, 10), flip=st.floats(0, 1), bf16=st.booleans()
)
def test_a_table_of_everything_gives_the_same_configuration(steps, lr, shape, flip, bf16):
    changed = {"steps": steps, "lr": lr, "weights.shape": shape, "augmentation.flip": flip, "bf16": bf16}
    config = updated(TrainConfig(), nested(changed), "test")
    assert updated(TrainConfig(), plain(config), "test") == config
    assert updated(TrainConfig(), nested(differences(TrainConfig(), config)), "test") == config
    assert asdict(config)["weights"]["shape"] == shape


def test_synthetic_pictures_are_options_too(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("rare = 1.5\n[synthesis]\nobject_share = 0.4\n")
    config = load_config(str(file), {"synthesis": {"occluder_share": 0.25}})
    assert (config.rare, config.synthesis.object_share, config.synthesis.occluder_share) == (1.5, 0.4, 0.25)
    assert config.synthesis.zoom == TrainConfig().synthesis.zoom == (1.15, 1.45)
    with pytest.raises(InputError, match="object_share"):
        load_config("", {"synthesis": {"object_share": 1.2}})
