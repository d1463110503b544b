"""Composites and the training program of the detector, on pictures made here."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch

from densehand.detect import calibrate, compose, evaluate
from densehand.detect import train as training
from densehand.detect.compose import Composer, similarity, transform
from densehand.detect.data import (
    GUARD,
    LabelledHand,
    Picture,
    cut_out,
    is_for_training,
    is_held_back,
    read_backgrounds,
    read_crops,
    read_frames,
    visible_rectangle,
)
from densehand.detect.model import DetectorNet
from densehand.detect.weights import load_net
from densehand.errors import InputError
from densehand.metrics import tight_box
from densehand.network.backbone import create_trunk

SKIN = (200, 140, 110)


def hand_drawing(size: int = 256, box=(70, 60, 180, 200)):
    """A picture with five skin-coloured fingers and its 21 keypoints."""
    x0, y0, x1, y1 = box
    wrist = np.array([(x0 + x1) / 2, y1])
    points = [wrist]
    for finger in range(5):
        tip = np.array([x0 + (x1 - x0) * finger / 4, y0 + 15 * abs(finger - 2)])
        points += [wrist + (tip - wrist) * t for t in (0.4, 0.65, 0.85, 1.0)]
    keypoints = np.array(points, np.float32)
    image = np.full((size, size, 3), (60, 90, 60), np.uint8)
    for finger in range(5):
        chain = keypoints[[0, *range(1 + 4 * finger, 5 + 4 * finger)]].astype(np.int32)
        cv2.polylines(image, [chain], False, SKIN, 14)
    return image, keypoints


def encode(image) -> bytes:
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


@pytest.fixture(scope="module")
def composer() -> Composer:
    image, keypoints = hand_drawing()
    frame = Picture(encode(image), "subhih", [LabelledHand(keypoints, True)])
    crop = Picture(encode(image), "asl1728", [LabelledHand(keypoints, True)])
    background = Picture(encode(np.full((320, 320, 3), (60, 90, 60), np.uint8)), "background", [])
    return Composer([frame], [crop], [background], seed=0)


def test_similarity_carries_its_anchor_to_its_target_and_keeps_shapes():
    anchor, target = np.array([3.0, 4.0]), np.array([50.0, 60.0])
    for mirror in (False, True):
        matrix = similarity(anchor, target, 2.0, 0.7, mirror)
        np.testing.assert_allclose(transform(matrix, anchor[None])[0], target, atol=1e-4)
        assert np.linalg.det(matrix[:, :2]) == pytest.approx(-4.0 if mirror else 4.0, rel=1e-5)


def test_examples_are_well_formed(composer):
    seen = 0
    for _ in range(60):
        example = composer(96)
        assert example.image.shape == (96, 96, 3) and example.image.dtype == np.uint8
        n = len(example.boxes)
        assert len(example.right) == len(example.side_weight) == len(example.keypoints) == n
        assert np.all(example.boxes[:, 2:] - example.boxes[:, :2] >= 0)
        for box, keypoints in zip(example.boxes, example.keypoints, strict=True):
            np.testing.assert_array_equal(box, tight_box(keypoints))
            centre = (box[:2] + box[2:]) / 2
            assert np.all((centre >= 0) & (centre < 96))
        seen += n
    assert seen > 30


def test_labels_lie_where_the_hand_was_painted(composer, monkeypatch):
    """Keypoints must follow the pixels through scaling, turning, mirroring and reduced decoding."""
    monkeypatch.setattr(compose, "recolour", lambda image, random: image)
    picture = composer.frames["subhih"][0]
    checked = 0
    for scale, angle in ((0.3, 0.4), (0.6, -2.0), (1.0, 3.0), (1.7, 1.0)):
        for kind in ("picture", "hand"):
            scene = composer._background(256)
            scene.image[:] = (60, 90, 60)
            anchor = picture.hands[0].keypoints.mean(0)
            composer._paste(scene, picture, anchor, np.array([128.0, 128.0]), scale, angle, kind)
            (hand,) = scene.hands
            straight = similarity(anchor, np.array([128.0, 128.0]), scale, angle, False)
            mirrored = not np.allclose(transform(straight, picture.hands[0].keypoints), hand.keypoints, atol=1e-2)
            assert hand.right is not mirrored
            # the painted hand's pixels against those the labels would paint
            painted = np.abs(scene.image.astype(int) - SKIN).sum(2) < 120
            expected = np.zeros((256, 256), np.uint8)
            for finger in range(5):
                chain = hand.keypoints[[0, *range(1 + 4 * finger, 5 + 4 * finger)]]
                thickness = max(round(14 * scale), 1)
                cv2.polylines(expected, [np.round(chain - 0.5).astype(np.int32)], False, 1, thickness)
            union, common = (painted | (expected > 0)).sum(), (painted & (expected > 0)).sum()
            assert common / union > 0.6, (scale, angle, kind)
            checked += 1
    assert checked == 8


def test_covered_hands_are_not_to_be_found(composer):
    scene = composer._background(256)
    picture = composer.frames["subhih"][0]
    composer._paste(scene, picture, np.array([128.0, 128.0]), np.array([128.0, 128.0]), 0.8, 0.0)
    assert len(scene.hands) == 1
    alpha = np.zeros((256, 256), np.uint8)
    composer._blend(scene, scene.image.copy(), alpha)
    assert len(scene.hands) == 1
    alpha[:] = 255
    composer._blend(scene, scene.image.copy(), alpha)
    assert scene.hands == [] and scene.ignore == []


def test_grabcut_finds_a_hand_before_a_plain_wall():
    image, keypoints = hand_drawing()
    noise = np.random.default_rng(0).integers(-8, 9, image.shape)
    mask = cut_out(np.clip(image + noise, 0, 255).astype(np.uint8), keypoints)
    truth = np.abs(image.astype(int) - SKIN).sum(2) == 0
    assert mask is not None
    assert (truth & (mask > 127)).sum() / (truth | (mask > 127)).sum() > 0.75


def test_black_bars_are_found():
    image, _ = hand_drawing()
    image[:, :40] = 0
    image[200:] = 0
    x0, y0, x1, y1 = visible_rectangle(image)
    assert abs(x0 - 40) <= 4 and y0 == 0 and x1 == 256 and abs(y1 - 200) <= 4


def test_the_splits_are_apart():
    held, kept = ({i for i in range(2000) if rule(i)} for rule in (is_held_back, is_for_training))
    assert held and kept and not held & kept
    assert all(abs(i - j) > GUARD or i == j for i in sorted(held)[:50] for j in kept if abs(i - j) < 10)
    assert 0.1 < len(held) / 2000 < 0.15


@pytest.fixture
def folder(tmp_path):
    """A data folder in the documented layout, of drawings."""
    image, keypoints = hand_drawing()
    box = [*keypoints.min(0).tolist(), *keypoints.max(0).tolist()]
    (tmp_path / "photos" / "frames" / "subhih").mkdir(parents=True)
    (tmp_path / "photos" / "crops" / "subhih").mkdir(parents=True)
    (tmp_path / "backgrounds").mkdir()
    frames, labels = [], []
    for index in (0, 1, 150, 160):
        name = f"subhih/{index:05d}"
        cv2.imwrite(str(tmp_path / f"photos/frames/{name}.jpg"), image[:, :, ::-1])
        cv2.imwrite(str(tmp_path / f"photos/crops/{name}_0.jpg"), image[:, :, ::-1])
        teacher = [{"box": box, "side": "left", "score": 0.9}]
        human = [[0, 0, 20, 20], [box[0] - 5, box[1] - 5, box[2] + 5, box[3] + 5]]
        frames.append({"frame": f"frames/{name}.jpg", "source": "subhih", "boxes": human, "teacher": teacher})
        label = {"crop": f"crops/{name}_0.jpg", "source": "subhih", "frame": name, "side": "left", "score": 0.9}
        labels.append(label | {"keypoints_px": keypoints.tolist()})
    for index in (0, 24):
        cv2.imwrite(str(tmp_path / f"backgrounds/{index:04d}.jpg"), np.full((64, 64, 3), 90, np.uint8))
    for name, rows in (("frames", frames), ("labels", labels)):
        (tmp_path / "photos" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path, keypoints


def test_reading_a_data_folder(folder):
    path, keypoints = folder
    training_frames, held_frames = read_frames(path, False), read_frames(path, True)
    assert len(training_frames) == len(held_frames) == 2
    (hand,) = training_frames[0].hands
    np.testing.assert_allclose(hand.keypoints, keypoints, atol=0.01)
    assert not hand.right and hand.side_weight == pytest.approx(0.8)
    (ignored,) = training_frames[0].ignore  # the box with the teacher's hand inside is accounted for
    assert ignored.tolist() == [0, 0, 20, 20]
    assert len(read_crops(path, False)) == 2 and read_crops(path, True)[0].whole
    assert len(read_backgrounds(path, False)) == len(read_backgrounds(path, True)) == 1
    with pytest.raises(InputError, match="label file"):
        read_frames(path / "elsewhere", False)


def test_training_runs_logs_and_resumes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "load_imagenet_trunk", lambda name: create_trunk(name))
    monkeypatch.setattr(training, "SCHEDULE", ((0.0, 64),))
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    path, _ = folder
    run = tmp_path / "run"
    options = {"batch": 2, "rate": 1e-3, "device": torch.device("cpu"), "seed": 0}
    training.train(path, run, 0.02, **options)
    first = torch.load(run / "checkpoint.pt", weights_only=True)
    net = training.train(path, run, 0.04, **options)
    second = torch.load(run / "checkpoint.pt", weights_only=True)
    assert second["step"] > first["step"] > 0 and second["seen"] == 2 * second["step"]
    assert second["spent"] >= 0.04 * 60 > first["spent"] >= 0.02 * 60
    assert isinstance(net, DetectorNet)
    stem = "stem.conv.weight"
    assert torch.equal(first["net"][stem], second["net"][stem])  # frozen
    assert not torch.equal(first["net"]["box.weight"], second["net"]["box.weight"])
    rows = list(csv.reader((run / "log.csv").open()))
    assert rows[0][0] == "minutes" and len(rows) == 1 + second["step"]
    assert all(np.isfinite(float(value)) for row in rows[1:] for value in row)

    weights, table = tmp_path / "out" / "net.safetensors", tmp_path / "results" / "table.csv"
    calibrate.main(["--data", str(path), "--run", str(run), "--out", str(weights)])
    evaluate.main(["--data", str(path), "--weights", str(weights), "--out", str(table), "--card"])
    card = json.loads(weights.with_suffix(".json").read_text())
    (measured,) = card["accuracy"].values()
    assert measured["frames subhih"]["hands"] == 2 and "recall" not in measured["backgrounds without hands"]
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["model"] == "detector" and card["recipe"]["steps"] == second["step"]
    begun, packaged = training.start_net(weights).state_dict(), load_net(weights).state_dict()
    assert all(torch.equal(begun[name], value) for name, value in packaged.items())
    measured = {row["set"]: row for row in csv.DictReader(table.open())}
    assert measured["frames subhih"]["hands"] == measured["frames any rotation"]["hands"] == "2"
    assert measured["backgrounds without hands"]["recall"] == ""


def test_a_few_steps_on_one_batch_lower_the_loss(composer):
    torch.manual_seed(0)
    net = DetectorNet(auxiliary=True)
    images, labels = training.collate([composer(64) for _ in range(4)], torch.device("cpu"))
    targets = training.make_targets((8, 8), *labels)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    history = []
    for _ in range(25):
        total = training.detector_losses(net(images), targets).total()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        history.append(total.item())
    assert np.mean(history[-3:]) < 0.6 * history[0]
    assert all(p.grad is not None for p in net.parameters())


def test_rate_and_size_schedules():
    rates = [training.learning_rate(t) for t in np.linspace(0, 1, 101)]
    assert max(rates) <= 1.0 and rates[-1] == pytest.approx(0.02) and rates[0] < 0.1
    assert training.picture_size(0.0) == 160 and training.picture_size(1.0) == 256
