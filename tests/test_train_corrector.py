"""Training the corrector: what is gathered lies beneath it, and errors that can be told from what is seen go."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from photo_folder import make_photo_folder
from tool_loader import load_tool

from densehand.data.augment import augment
from densehand.errors import InputError
from densehand.export import write_picture
from densehand.hand.model import HandModel
from densehand.network.corrector import Corrector, SideCorrector
from densehand.network.mesh import decode, skeleton_in_crop
from densehand.network.zoo import CORRECTORS, build_model, open_model
from densehand.synth import Synthesizer
from densehand.train.corrector import CROPS, FitOptions, Gathered, fit, fit_side, gather, inputs_of

WIDTH, COUNT = 5, 300
tool = load_tool("train_corrector")


@pytest.fixture(scope="module")
def open_hand() -> HandModel:
    return HandModel.load("open")


@pytest.fixture
def case(open_hand: HandModel) -> Gathered:
    """Hands whose h errs in scale and place as the first two features say, and labels."""
    draw = torch.Generator().manual_seed(5)
    true = 0.1 * torch.randn(COUNT, 63, generator=draw)
    true[:, :45] = open_hand.mean_pose
    features = torch.randn(COUNT, WIDTH, generator=draw)
    h = true.clone()
    h[:, 59] += 0.1 * features[:, 0]
    h[:, 60] += 0.1 * features[:, 1]
    skeleton = skeleton_in_crop(open_hand, true)
    points = skeleton[..., :2]
    found = decode(true)
    return Gathered(
        features=features, confidence=torch.ones(COUNT, 21), first=points, j=points + 0.05 * features[:, None, 2:4],
        h=h, keypoints=points, keypoint_weight=torch.ones(COUNT, 21), skeleton=skeleton, pose=found.pose,
        shape=found.shape, rotation=found.rotation, trust=torch.ones(COUNT), side_logit=torch.zeros(COUNT),
        is_right=torch.ones(COUNT), has_hand=torch.ones(COUNT),
    )  # fmt: skip


def off(hand: HandModel, corrector: Corrector | None, seen: Gathered) -> tuple[float, float]:
    """Mean distance of the mesh's keypoints and of j from their labels."""
    h, j = seen.h, seen.j
    if corrector is not None:
        with torch.no_grad():
            change, shift = corrector(inputs_of(hand, seen))
        h, j = h + change, j + shift
    mesh = skeleton_in_crop(hand, h)[..., :2]
    return tuple(float((p - seen.keypoints).norm(dim=-1).mean()) for p in (mesh, j))  # type: ignore[return-value]


def test_errors_that_can_be_told_from_what_is_seen_go(open_hand: HandModel, case: Gathered) -> None:
    torch.manual_seed(0)
    corrector = Corrector(WIDTH, 32)
    before = off(open_hand, None, case[250:])
    assert before == off(open_hand, corrector.eval(), case[250:])
    told = list(fit(corrector, open_hand, [(1.0, case[:250])], FitOptions(steps=300, batch=64, lr=3e-3, dropout=0.0)))
    assert [step for step, _ in told] == [100, 200, 300] and told[-1][1] < 0.3 * told[0][1]
    after = off(open_hand, corrector, case[250:])
    assert after[0] < 0.35 * before[0] and after[1] < 0.35 * before[1]


def test_sides_that_can_be_told_from_what_is_seen_are_told(open_hand: HandModel, case: Gathered) -> None:
    """Of one hand seen again: where a feature is far from 0 it is a right one, which no linear layer tells."""
    same = Gathered(**{name: value[:1].expand_as(value).clone() for name, value in vars(case).items()})
    feature = case.features[:, 0]
    same.features[:, 0], same.is_right = feature, (feature.abs() > 0.67).float()
    same.has_hand[:40], same.is_right[:40] = 0, 1 - same.is_right[:40]  # of no hand nothing is learnt
    train, test = same[:200], same[200:]
    torch.manual_seed(0)
    side = SideCorrector(WIDTH, 32)
    assert tool.side_right(open_hand, side.eval(), test)["side"] == float((test.is_right == 0).float().mean())
    options = FitOptions(steps=300, batch=64, lr=3e-3, dropout=0.0)
    told = list(fit_side(side, open_hand, [(1.0, train)], options))
    assert told[-1][1] < 0.4 * math.log(2)  # what a guess costs
    assert tool.side_right(open_hand, side, test)["side"] > 0.95


def test_of_mirrored_crops_no_mesh_is_learnt(open_hand: HandModel, case: Gathered) -> None:
    made = []
    for wrong in (0.0, 1.0):
        torch.manual_seed(0)
        corrector = Corrector(WIDTH, 8)
        mirrored = replace(case, is_right=torch.zeros(COUNT), keypoints=case.keypoints + wrong)
        list(fit(corrector, open_hand, [(1.0, Gathered.join([case, mirrored]))], FitOptions(steps=5, batch=16)))
        made.append(corrector.state_dict())
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_the_same_seed_gives_the_same_corrector(open_hand: HandModel, case: Gathered) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        corrector = Corrector(WIDTH, 8)
        list(fit(corrector, open_hand, [(0.7, case[:200]), (0.3, case[200:])], FitOptions(steps=5, batch=16, seed=3)))
        made.append(corrector.state_dict())
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_nothing_to_learn_from_is_an_error(open_hand: HandModel, case: Gathered) -> None:
    for sets in ([], [(1.0, case[:0])], [(0.0, case)]):
        with pytest.raises(InputError, match="gather some first"):
            list(fit(Corrector(WIDTH, 8), open_hand, sets))


def test_what_is_gathered_lies_beneath_the_corrector(open_hand: HandModel) -> None:
    torch.manual_seed(0)
    plain = build_model("dhpe-lite", open_hand).eval()
    plain.config = plain.config.__class__(**{**vars(plain.config), "input_size": 64})
    changed = copy.deepcopy(plain)
    torch.nn.init.normal_(changed.regressor.corrector.last.weight)
    records = Synthesizer(open_hand, size=64).records(3, torch.Generator().manual_seed(1))
    rows = torch.tensor([2, 0, 1, 1])
    one, other = (gather(net, records, rows, torch.Generator().manual_seed(7)) for net in (plain, changed))
    assert len(one) == 4
    for name, value in vars(one).items():
        assert torch.equal(value, getattr(other, name)), name
    torch.testing.assert_close(one.pose, records.pose[rows])
    assert not torch.equal(one.keypoints[2], one.keypoints[3])  # new crops each time


def test_both_ways_the_crops_come_mirrored_after_themselves(open_hand: HandModel) -> None:
    torch.manual_seed(0)
    network = build_model("dhpe-lite", open_hand).eval()
    network.config = replace(network.config, input_size=64)
    records = Synthesizer(open_hand, size=64).records(2, torch.Generator().manual_seed(1))
    rows, draw = torch.tensor([0, 1, 1]), torch.Generator
    plain = gather(network, records, rows, draw().manual_seed(7))
    seen = gather(network, records, rows, draw().manual_seed(7), both_ways=True)
    batch = augment(open_hand, records, rows, 64, CROPS, draw().manual_seed(7))
    for name, value in vars(plain).items():
        assert torch.equal(value, getattr(seen[:3], name)), name
    with torch.no_grad():
        turned = network((batch.images.flip(-1) * 255).round() / 255)
    torch.testing.assert_close(seen.side_logit[3:], turned.side_logit)  # untrained, the side's corrector adds nothing
    torch.testing.assert_close(seen.j[3:], turned.keypoints[network.config.iterations])
    assert seen.is_right.tolist() == [1, 1, 1, 0, 0, 0] and (seen.has_hand == 1).all()


def test_the_tool_keeps_and_reads_what_was_gathered(case: Gathered, tmp_path) -> None:
    path = tmp_path / "seen.safetensors"
    tool.keep(case, path)
    back = tool.read(path)
    assert torch.equal(back.keypoints, case.keypoints)
    torch.testing.assert_close(back.h, case.h, atol=1e-3, rtol=1e-3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="gather it anew"):
        tool.read(path)


def test_the_tool_from_photos_to_weights(tmp_path, monkeypatch, capsys) -> None:
    photos = make_photo_folder(tmp_path / "photos", 8)
    backgrounds = tmp_path / "backgrounds"
    backgrounds.mkdir()
    write_picture(backgrounds / "wall.png", np.full((64, 64, 3), 90, np.uint8))
    for name, value in {"TESTED": 8, "CHUNK": 8, "LOOKS": 2}.items():
        monkeypatch.setattr(tool, name, value)
    files = {"real": ["--passes", "2"], "rendered": ["--rendered", "16"], "both": ["--rendered", "8", "--both-ways"]}
    common = ["--photos", str(photos), "--backgrounds", str(backgrounds), "--fits", str(tmp_path / "fits.npz")]
    for name, what in files.items():
        path = tmp_path / f"{name}.safetensors"
        monkeypatch.setattr("sys.argv", ["train_corrector", "gather", *common, *what, "--out", str(path)])
        tool.main()
    seen = tool.read(tmp_path / "rendered.safetensors")
    assert len(seen) == 32 and (seen.trust == 1).all() and (seen.is_right == 1).all()
    out = tmp_path / "weights.safetensors"
    monkeypatch.setattr(tool, "SIDE", replace(tool.SIDE, steps=2))

    def fitted(*rendered: str, more: tuple[str, ...] = ()) -> tuple[set[str], str]:
        """Which correctors moved, and what was printed."""
        given = ["--rendered", *(str(tmp_path / f"{name}.safetensors") for name in rendered)]
        given += ["--real", str(tmp_path / "real.safetensors"), "--steps", "2", "--out", str(out), *more]
        monkeypatch.setattr("sys.argv", ["train_corrector", "fit", *given])
        tool.main()
        before, after = (open_model(name, fuse=False).state_dict() for name in ("dhpe-lite", str(out)))
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert all(name.startswith(CORRECTORS) for name in moved)
        prefixes = {prefix for prefix in CORRECTORS if any(name.startswith(prefix + "last") for name in moved)}
        return prefixes, capsys.readouterr().out

    moved, said = fitted("rendered")
    assert moved == {CORRECTORS[0]} and "mesh rendered        2 loss" in said and "side" not in said
    assert fitted("rendered", more=("--go-on", "--lr", "0"))[0] == set()
    moved, said = fitted("rendered", "both")
    assert moved == set(CORRECTORS) and "mesh rendered        2 loss" in said and "side rendered        2 loss" in said
