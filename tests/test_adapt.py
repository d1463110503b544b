"""Adapting to unlabelled photos: views carried back exactly, agreement, what is believed, and the whole command."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import roma
import torch
from hands import make_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from densehand.adapt import AdaptConfig, AdaptReport, adapt
from densehand.adapt.gather import HOUSE, Found, find_photos, gather, hold_back, teacher_keypoints
from densehand.adapt.labels import Keep, believable, label_error, pseudo_labels
from densehand.adapt.stream import AdaptStream, Shares
from densehand.camera import Crop
from densehand.errors import InputError, WeightsError
from densehand.hand.model import HandModel
from densehand.network.mesh import MeshParameters, encode
from densehand.network.zoo import load_card, load_model, load_state
from densehand.synth import SynthConfig, Synthesizer
from densehand.views import VIEWS, Agreement, agreement, consensus, from_crop, look, to_crop

SIDE = 96


@pytest.fixture(scope="module")
def hand():
    return HandModel.load("open")


def ramp(count):
    """Pictures whose red and green tell the place: x and y in [-1, 1] as 0 to 255; blue is 255 everywhere."""
    axis = (torch.arange(256) + 0.5) / 256
    x, y = axis.expand(256, 256), axis[:, None].expand(256, 256)
    picture = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    return (picture * 255).round().byte().expand(count, 256, 256, 3)


def true_mesh(hand, count):
    generator = torch.Generator().manual_seed(0)
    rotation = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1)
    return MeshParameters(
        pose=hand.mean_pose + 0.1 * torch.randn(count, 45, generator=generator),
        shape=torch.randn(count, 10, generator=generator),
        rotation=rotation,
        scale=torch.full((count,), 5.0),
        translation=torch.nn.functional.pad(0.2 * torch.randn(count, 2, generator=generator), (0, 1)),
    )


class Oracle:
    """Reads from a ramp's crop where the crop lies, and answers the true mesh in it (or, `blind`, always the same)."""

    training = True

    def __init__(self, hand, truth, blind=False):
        self.hand, self.truth, self.blind, self.calls = hand, truth, blind, 0
        self.config = SimpleNamespace(input_size=SIDE)

    def eval(self):
        self.training = False

    def train(self, mode):
        self.training = mode

    def render_mask(self, h, size):
        return torch.ones(len(h), size, size)

    def place(self, crops):
        """(b 2 3) crop units → picture units, fitted to the colours of the middle."""
        middle = slice(SIDE // 4, -SIDE // 4)
        axis = ((torch.arange(SIDE) + 0.5) * 2 / SIDE - 1)[middle]
        x, y = axis.expand(len(axis), -1).flatten(), axis[:, None].expand(-1, len(axis)).flatten()
        design = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        seen = crops[:, :2, middle, middle].flatten(2) * 2 - 1
        return torch.linalg.lstsq(design, seen.mT.reshape(len(crops), -1, 2).permute(1, 0, 2).flatten(1)).solution

    def __call__(self, crops):
        assert not self.training
        count, rows = len(crops), torch.arange(self.calls, self.calls + len(crops)) % len(self.truth.pose)
        self.calls += count
        affine = self.place(crops).T.reshape(count, 2, 3)
        mirrored = torch.linalg.det(affine[:, :, :2]) < 0
        truth = MeshParameters(*(value[rows] for value in self.truth))
        skeleton = self.hand.skeleton(truth.pose, truth.shape, truth.rotation) * truth.scale[:, None, None]
        points = skeleton[..., :2] + truth.translation[:, None, :2]
        back = torch.linalg.inv(affine[:, :, :2])
        flat = (points - affine[:, None, :, 2]) @ back.mT
        half = torch.linalg.det(affine[:, :, :2]).abs().sqrt()
        angle = torch.atan2(back[:, 1, 0], back[:, 0, 0])
        spin = roma.rotvec_to_unitquat(torch.stack([0 * angle, 0 * angle, angle], dim=-1))
        turned = roma.quat_product(spin, truth.rotation[:, [1, 2, 3, 0]])[:, [3, 0, 1, 2]]
        wrist = ((truth.translation[:, None, :2] - affine[:, None, :, 2]) @ back.mT)[:, 0]
        h = encode(
            truth._replace(
                rotation=turned, scale=truth.scale / half, translation=torch.nn.functional.pad(wrist, (0, 1))
            )
        )
        if self.blind:
            h, flat = torch.zeros_like(h) + 0.01, torch.zeros_like(flat) + torch.linspace(-0.5, 0.5, 21)[:, None]
        joints = torch.cat([flat, skeleton[..., 2:] / half[:, None, None]], dim=-1)
        return SimpleNamespace(
            parameters=[h], skeletons=[joints], keypoints=[flat, flat], keypoint_confidence=torch.ones(count, 21),
            mask_logits=torch.full((count, 32, 32), 20.0), hand_logit=torch.full((count,), 3.0),
            side_logit=torch.where(mirrored, -2.0, 2.0),
        )  # fmt: skip


def answers_of(hand, count=1, blind=False):
    truth = true_mesh(hand, count)
    centre, half = torch.full((count, 2), 0.05), torch.full((count,), HOUSE)
    return look(Oracle(hand, truth, blind), ramp(count), centre, half), truth, centre, half


def test_a_network_that_knows_agrees_with_itself_in_every_view(hand):
    """Turn, padding and mirroring are carried back exactly: the answers of all views fall on the truth."""
    answers, truth, *_ = answers_of(hand)
    agreed = agreement(answers)
    assert agreed.spread.item() < 0.5 and agreed.flip.item() < 0.5 and agreed.disagreement.item() < 0.5
    assert agreed.bend.item() < 0.5 and agreed.side.item() == 1 and agreed.present.item() > 0.9
    assert agreed.iou.item() == pytest.approx(1)
    for view in range(5):
        torch.testing.assert_close(answers.mesh.pose[view], truth.pose, atol=1e-5, rtol=0)
        torch.testing.assert_close(answers.mesh.scale[view], truth.scale, rtol=0.01, atol=0)
        torch.testing.assert_close(answers.mesh.translation[view], truth.translation, atol=0.01, rtol=0)
        between = (answers.mesh.rotation[view] * truth.rotation).sum(-1).abs()
        assert between.min() > math.cos(math.radians(1))
    skeleton = truth.scale[:, None, None] * hand.skeleton(truth.pose, truth.shape, truth.rotation)
    expected = skeleton[..., :2] + truth.translation[:, None, :2]
    assert (answers.heat - expected).abs().max() < 0.02  # all six views, the mirrored one too
    assert (answers.skeleton[..., :2] - expected).abs().max() < 0.02


def test_a_network_that_does_not_look_disagrees(hand):
    answers, *_ = answers_of(hand, blind=True)
    assert agreement(answers).disagreement.item() > 10


def test_agreement_against_a_loop(hand):
    answers, *_ = answers_of(hand)
    noise = torch.Generator().manual_seed(1)
    answers.skeleton = answers.skeleton + 0.03 * torch.randn(answers.skeleton.shape, generator=noise)
    answers.heat = answers.heat + 0.03 * torch.randn(answers.heat.shape, generator=noise)
    agreed = agreement(answers)
    points, heat = answers.skeleton[:, 0, :, :2].numpy(), answers.heat[:, 0].numpy()
    mean = points.mean(0)
    box = np.ptp(mean, axis=0).max()
    squares = [np.sum((points[v, k] - mean[k]) ** 2) for v in range(5) for k in range(21)]
    assert agreed.spread.item() == pytest.approx(100 * math.sqrt(np.mean(squares)) / box, rel=1e-4)
    distances = [np.linalg.norm(heat[5, k] - heat[:5, k].mean(0)) for k in range(21)]
    assert agreed.flip.item() == pytest.approx(100 * np.mean(distances) / box, rel=1e-4)
    assert agreed.disagreement.item() == pytest.approx((agreed.spread.item() + agreed.flip.item()) / 2)


def test_consensus_and_labels_of_agreeing_views_are_the_truth(hand):
    answers, truth, centre, half = answers_of(hand)
    answers.mesh.rotation[1] *= -1  # the same rotation
    mesh, keypoints, _ = consensus(answers)
    assert (mesh.rotation * truth.rotation).sum(-1).abs().min() > 0.9998
    back = from_crop(to_crop(mesh, centre, half), centre, half)
    torch.testing.assert_close(back.translation, mesh.translation, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.scale, mesh.scale, atol=1e-4, rtol=0)
    records = pseudo_labels(hand, ramp(1), answers, agreement(answers), centre, half, Keep())
    skeleton = hand.skeleton(records.pose, records.shape, records.rotation)[..., :2]
    projected = records.scale[:, None, None] * skeleton + records.translation[:, None]
    assert label_error(projected, keypoints).item() < 1.5
    assert records.trust.item() == 1 and records.keypoint_weight.min() > 0.9


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


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=40), st.floats(0.01, 0.9))
def test_whole_photos_are_held_back_and_some_are_left(hands, share):
    photo = [index for index, count in enumerate(hands) for _ in range(count)]
    found = Found(
        torch.zeros(len(photo), 1, 1, 3), [None] * len(photo), photo, [Path(str(i)) for i in range(len(hands))]
    )
    held = hold_back(found, share)
    assert held.any() and not held.all()
    by_photo = [{bool(h) for h, p in zip(held, photo, strict=True) if p == i} for i in range(len(hands))]
    assert all(len(values) == 1 for values in by_photo)
    kept = sum(values == {True} for values in by_photo) / len(hands)
    assert abs(kept - share) <= 3 / len(hands) + 0.01


def test_one_photo_is_too_few():
    with pytest.raises(InputError, match="one photo only"):
        hold_back(Found(torch.zeros(2, 1, 1, 3), [None] * 2, [0, 0], [Path("a")]), 0.2)


def row(name, keypoints):
    """A line of labels.jsonl."""
    return {
        "crop": name, "source": "drawn", "frame": "drawn/0", "side": "right", "score": 0.9,
        "keypoints_px": np.asarray(keypoints, float).tolist(), "world_m": np.zeros((21, 3)).tolist(),
    }  # fmt: skip


class Finder:
    """An estimator that finds the hands it is given, photo after photo."""

    def __init__(self, *hands):
        self.hands = list(hands)

    def estimate(self, photos):
        return [self.hands.pop(0) for _ in photos]


def write_pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), np.full((240, 320, 3), 90, np.uint8))
    return folder


def test_hands_are_cut_out_as_right_hands(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png")
    write_pictures(tmp_path / "more", "c.png", "d.jpg")
    write_pictures(tmp_path / ".thumbs", "x.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    paths = find_photos(tmp_path)
    assert [p.name for p in paths] == ["a.png", "b.png", "c.png", "d.jpg"]
    left = make_hand("left")
    seen = []
    found = gather(paths, Finder([left, make_hand()], [], [make_hand()]), watch=lambda *a: seen.append(a))
    assert len(found) == 3 and found.empty == 1 and found.photo == [0, 0, 1]
    assert [p.name for p in found.paths] == ["a.png", "d.jpg"]
    assert len(found.unreadable) == 1 and "b.png" in str(found.unreadable[0])
    assert [crop.mirrored for crop in found.crops] == [True, False, False]
    inside = found.crops[0].to_crop(left.keypoints_2d)
    assert np.ptp(inside, axis=0).max() == pytest.approx(2 / 2.4, rel=1e-5)
    assert seen[-1] == ("finding hands", 4, 4)


def test_folders_without_use_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        find_photos(tmp_path / "none")
    with pytest.raises(InputError, match="no pictures"):
        find_photos(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"none of 1 pictures can be read.*a\.png"):
        gather(find_photos(tmp_path), Finder())
    write_pictures(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match="no hand found in 2 photos"):
        gather(find_photos(tmp_path), Finder([], []))


def test_a_teachers_keypoints_are_matched_by_path_name_and_place(tmp_path, hand):
    points = [make_hand(seed=k).keypoints_2d for k in range(3)]
    crops = [Crop((160, 120), 100, mirrored=k == 1) for k in range(3)]
    paths = [tmp_path / "p" / name for name in ("a.png", "b.png")]
    found = Found(torch.zeros(3, 1, 1, 3), crops, [0, 0, 1], paths)
    usual = torch.stack([torch.as_tensor(c.to_crop(p)) for c, p in zip(crops, points, strict=True)]).float()
    moved = points[1] + (150.0, 0)  # another hand of the first photo

    rows = [row("p/a.png", moved), row("p/a.png", points[0] + 1), row("elsewhere/b.png", points[2])]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found.crops[1] = replace(crops[1], center=(1000.0, 120.0))
    got = teacher_keypoints(found, file, usual)
    torch.testing.assert_close(got[0], usual[0] + 0.01, atol=1e-4, rtol=0)
    torch.testing.assert_close(got[2], usual[2], atol=1e-4, rtol=0)
    assert got[1].isnan().all()
    error = label_error(usual, got)
    assert error[1].isnan() and error[0] > 0.5 and error[2] < 1e-3
    with pytest.raises(InputError, match=r"named labels\.jsonl"):
        teacher_keypoints(found, tmp_path / "teacher.json", usual)
    file.write_text(json.dumps(row("other.png", points[0])) + "\n")
    with pytest.raises(InputError, match="names no hand"):
        teacher_keypoints(found, file, usual)


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
        rows.append(row(f"{k}.png", (batch.keypoints[k] + 1) * 64))
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

    def bursts(*_):
        raise FloatingPointError("loss is nan")

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
        ([photos, "--out", out, "--sheet", str(tmp_path / "s.txt")], "a sheet is written as"),
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
