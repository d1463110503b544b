"""Adapting to unlabelled photos: what is believed, batches of all kinds, and the whole command."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import cv2
import pytest
import torch
from adapt_files import label_row, write_pictures
from typer.testing import CliRunner
from view_oracle import answers_of, ramp

from densehand.adapt import AdaptConfig, AdaptReport, adapt
from densehand.adapt.labels import Keep, believable, pseudo_labels
from densehand.adapt.stream import AdaptStream, Shares
from densehand.errors import InputError, WeightsError
from densehand.network.zoo import load_card, load_model, load_state
from densehand.synth import SynthConfig, Synthesizer
from densehand.views import VIEWS, Agreement, agreement


def test_less_agreement_is_less_trusted(hand):
    answers, _, centre, half = answers_of(hand)
    agreed = agreement(answers)
    agreed.spread, agreed.flip = agreed.spread * 0 + 6, agreed.flip * 0 + 10
    answers.keypoints[0, :, 8] += 0.5  # one view puts the index's tip elsewhere
    records = pseudo_labels(hand, ramp(1), answers, agreed, centre, half, Keep())
    assert records.trust.item() == pytest.approx(0.2)
    assert records.keypoint_weight[0, 8] == 0 and records.keypoint_weight[0, 0].item() == pytest.approx(0.2)


def test_what_is_believed():
    def of(**changes):
        values = {"spread": 2.0, "flip": 3.0, "bend": 4.0, "side": 1.0, "iou": 0.7, "present": 1.0} | changes
        return Agreement(**{name: torch.tensor([value]) for name, value in values.items()})

    keep = Keep()
    assert believable(of(), keep).all()
    for worse in ({"spread": 7.0}, {"flip": 11.0}, {"bend": 16.0}, {"side": 0.6}, {"iou": 0.3}, {"present": 0.2}):
        assert not believable(of(**worse), keep).any(), worse
    assert believable(of(spread=7.0), keep.looser(2)).all() and not believable(of(side=0.6), keep.looser(2)).any()
    assert not believable(of(spread=torch.nan), keep).any() and of(spread=torch.nan).disagreement == 20
    assert not believable(of(), keep, torch.tensor([13.0])).any()
    assert believable(of(), keep, torch.tensor([11.0])).all()
    assert believable(of(), keep, torch.tensor([torch.nan])).all()  # the teacher says nothing of it


def test_batches_are_made_of_all_kinds_from_the_step_alone(hand):
    answers, _, centre, half = answers_of(hand, 1)
    agreed = agreement(answers)
    records = pseudo_labels(hand, ramp(1), answers, agreed, centre, half, Keep())
    grey = torch.full((2, 64, 64, 3), 120, dtype=torch.uint8)
    stream = AdaptStream(hand, records, grey, 64, 8, Shares(0.5, 0.125, 0.125), pool=64)
    assert stream.reseeding == (records.shape.abs().max() <= 3).item()
    assert stream.counts == {"photos": 4, "selfsup": 1, "negatives": 1, "synthetic": 2}
    batch = stream.batch(3)
    assert batch.images.shape == (8, 3, 64, 64) and batch.has_hand.sum() == 7
    assert torch.equal(batch.images, stream.batch(3).images) and not torch.equal(batch.images, stream.batch(4).images)
    unsure = replace(records, keypoint_weight=torch.zeros(1, 21))
    assert AdaptStream(hand, unsure, None, 64, 8, Shares(), pool=64).counts == {
        "photos": 4, "selfsup": 0, "negatives": 0, "synthetic": 4,
    }  # fmt: skip
    with pytest.raises(InputError, match="more than 1"):
        AdaptStream(hand, records, None, 64, 8, Shares(0.9, 0.2))


@pytest.fixture(scope="module")
def photos(tmp_path_factory, hand):
    """Five rendered hands as photos, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    config = SynthConfig(photograph=False, occluder_share=0, other_before=0, other_behind=0, object_share=0)
    batch = Synthesizer(hand, size=128, config=config).sample(5, torch.Generator().manual_seed(5))
    rows = []
    for k, picture in enumerate((batch.images.permute(0, 2, 3, 1) * 255).byte().numpy()):
        cv2.imwrite(str(folder / f"{k}.png"), picture[..., ::-1])
        rows.append(label_row(f"{k}.png", (batch.keypoints[k] + 1) * 64))
    (folder / "labels.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


SMALL = AdaptConfig(
    whole_image=True, steps=2, size=64, batch=4, pool=64, looser=5.0, held_back=0.4, device="cpu", force=True
)


def test_a_run_writes_weights_that_load_and_a_card_that_tells(photos, tmp_path):
    pytest.importorskip("lightning")
    out, told = tmp_path / "made" / "mine.safetensors", []
    config = replace(SMALL, labels=str(photos / "labels.jsonl"), sheet=str(tmp_path / "new.png"))
    report = adapt(photos, out, config, lambda name, done, total: told.append((name, done, total)))
    assert report.photos == 6 and len(report.unreadable) == 1 and report.hands == 5 and report.held_back == 2
    assert 1 <= report.believed <= 3 and report.written == out and report.measure == "teacher"
    assert report.before.keys() == report.after.keys() and report.before != report.after
    assert all(math.isfinite(v) for v in (*report.before.values(), *report.after.values()))
    assert {name for name, *_ in told} == {"finding hands", "comparing views", "learning", "measuring"}
    assert ("learning", 2, 2) in told
    old, new = (load_model("dhpe-lite", "cpu", path=path, fuse=False).state_dict() for path in (None, out))
    assert any(not torch.equal(old[k], new[k]) for k in old if k.endswith("weight"))
    assert all(torch.equal(old[k], new[k]) for k in old if k.endswith(("running_mean", "running_var")))
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["recipe"]["command"].startswith("densehand adapt PHOTOS --model dhpe-lite --steps 2")
    assert (
        card["accuracy"]["held-back agreement"]["hands"] == 2
        and str(photos) not in out.with_suffix(".json").read_text()
    )
    assert card["input_size"] == load_card("dhpe-lite").input_size
    load_state(out, "dhpe-lite")
    drawn = cv2.imread(str(tmp_path / "new.png"))
    assert drawn.shape[1] == 4 * 64 and 1 <= drawn.shape[0] // 64 <= 3  # rows of the photo and three children


def test_worse_weights_are_refused_unless_forced(photos, tmp_path, monkeypatch):
    from densehand.adapt import learn
    from densehand.cli import run

    def spoil(network, *_):
        network = load_model("dhpe-lite", "cpu", fuse=False)
        with torch.no_grad():
            network.regressor.f_e3d.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
        return network

    monkeypatch.setattr(learn, "learn", spoil)
    monkeypatch.setattr("densehand.adapt.run.AdaptStream", lambda *_: SimpleNamespace(reseeding=True))
    out = tmp_path / "mine.safetensors"
    command = [
        "adapt",
        str(photos),
        "--out",
        str(out),
        "--whole-image",
        "--size",
        "64",
        "--looser",
        "5",
        "--device",
        "cpu",
    ]
    assert run([*command, "--held-back", "0.4", "-q"]) == 1
    assert not out.exists() and not out.with_suffix(".json").exists()
    assert run([*command, "--held-back", "0.4", "-q", "--force"]) == 0
    assert out.exists() and out.with_suffix(".json").exists()


def test_a_loss_that_is_no_number_ends_it(monkeypatch):
    learning = pytest.importorskip("densehand.adapt.learn")
    from densehand.adapt.run import train_config
    from densehand.train.checkpoints import DivergedError

    def bursts(*_):
        raise DivergedError("loss is nan")

    monkeypatch.setattr(learning.Training, "training_step", bursts)
    stream = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(InputError, match="smaller --lr"):
        learning.learn(load_model("dhpe-lite", fuse=False), stream, train_config(SMALL, "dhpe-lite", 64))


def test_the_command_names_what_it_cannot_use(tmp_path, capsys):
    from densehand.cli import run

    write_pictures(tmp_path / "photos", "a.png")
    photos, out = str(tmp_path / "photos"), str(tmp_path / "w.safetensors")
    for arguments, message in (
        ([str(tmp_path / "none"), "--out", out], "no such folder"),
        ([photos, "--out", str(tmp_path / "w.pt")], "written as .safetensors"),
        ([photos, "--out", out, "--size", "100"], "multiple of 32"),
        ([photos, "--out", out, "--sheet", str(tmp_path / "s.txt")], "no picture is written with this suffix"),
        ([photos, "--out", out, "--backgrounds", str(tmp_path / "none")], "none: no"),
        ([photos, "--out", out, "--model", "dhpe-none"], "unknown model"),
    ):
        assert run(["adapt", *arguments, "--device", "cpu", "-q"]) == 1, arguments
        assert message in capsys.readouterr().err, arguments
    with pytest.raises(WeightsError):
        adapt(tmp_path / "photos", tmp_path / "w.safetensors", AdaptConfig(model=str(tmp_path / "no.safetensors")))


def test_the_report_counts_and_decides(capsys):
    from densehand.cli.adapt import _print

    better = AdaptReport(12, [InputError(f"{k}.jpg: damaged") for k in range(7)], 1, 6, 3, 2, False,
                         {"disagreement": 4.0, "side": 1.0}, {"disagreement": 3.5, "side": 1.0}, None)  # fmt: skip
    assert not better.worse and better.measure == "disagreement"
    assert replace(better, after={"disagreement": math.nan}).worse
    taught = replace(better, before=better.before | {"teacher": 5.0}, after=better.after | {"teacher": 5.1})
    assert taught.worse and taught.measure == "teacher"
    _print(better)
    printed = capsys.readouterr()
    assert "4.jpg" in printed.err and "5.jpg" not in printed.err and "2 more" in printed.err
    assert "7 unreadable, 1 without a hand; 6 hands: 2 held back, 3 of 4 others believed" in printed.out
    assert "too few realistic" in printed.out and "only 3 hands" in printed.err


def test_help_is_there():
    from densehand.cli import build_app

    result = CliRunner().invoke(build_app(), ["adapt", "--help"])
    assert result.exit_code == 0 and "--labels" in result.output
    assert len(VIEWS) == 6
