"""Training the corrector: what is gathered lies beneath it, and errors that can be told from what is seen go."""

import copy

import numpy as np
import pytest
import torch
from photo_folder import make_photo_folder
from tool_loader import load_tool

from densehand.errors import InputError
from densehand.export import write_picture
from densehand.hand.model import HandModel
from densehand.network.corrector import Corrector
from densehand.network.mesh import decode, skeleton_in_crop
from densehand.network.zoo import CORRECTOR, build_model, open_model
from densehand.synth import Synthesizer
from densehand.train.corrector import FitOptions, Gathered, fit, gather, inputs_of

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
        shape=found.shape, rotation=found.rotation, trust=torch.ones(COUNT),
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


def test_the_tool_keeps_and_reads_what_was_gathered(case: Gathered, tmp_path) -> None:
    path = tmp_path / "seen.safetensors"
    tool.keep(case, path)
    back = tool.read([path, path])
    assert len(back) == 2 * COUNT
    assert torch.equal(back.keypoints[:COUNT], case.keypoints)
    torch.testing.assert_close(back.h[COUNT:], case.h, atol=1e-3, rtol=1e-3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="gather it anew"):
        tool.read([path])


def test_the_tool_from_photos_to_weights(tmp_path, monkeypatch, capsys) -> None:
    photos = make_photo_folder(tmp_path / "photos", 8)
    backgrounds = tmp_path / "backgrounds"
    backgrounds.mkdir()
    write_picture(backgrounds / "wall.png", np.full((64, 64, 3), 90, np.uint8))
    for name, value in {"TESTED": 8, "CHUNK": 8, "LOOKS": 2}.items():
        monkeypatch.setattr(tool, name, value)
    files = {"real": ["--passes", "2"], "rendered": ["--rendered", "16"]}
    common = ["--photos", str(photos), "--backgrounds", str(backgrounds), "--fits", str(tmp_path / "fits.npz")]
    for name, what in files.items():
        path = tmp_path / f"{name}.safetensors"
        monkeypatch.setattr("sys.argv", ["train_corrector", "gather", *common, *what, "--out", str(path)])
        tool.main()
    seen = tool.read([tmp_path / "rendered.safetensors"])
    assert len(seen) == 32 and (seen.trust == 1).all()
    out = tmp_path / "weights.safetensors"
    given = ["--rendered", str(tmp_path / "rendered.safetensors"), "--real", str(tmp_path / "real.safetensors")]
    monkeypatch.setattr("sys.argv", ["train_corrector", "fit", *given, "--steps", "2", "--out", str(out)])
    tool.main()
    assert "rendered        2 loss" in capsys.readouterr().out
    before, after = (open_model(name, fuse=False).state_dict() for name in ("dhpe-lite", str(out)))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith(CORRECTOR) for name in moved)
