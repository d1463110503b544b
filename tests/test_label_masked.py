"""tools/label_masked.py: meshes drawn onto masks, and a masked photo made a labelled one."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tool_loader import load_tool

from densehand.data.labelled import load_dataset
from densehand.hand import HandModel
from densehand.images import read_image
from densehand.network.mesh import MeshParameters, encode, skeleton_in_crop
from densehand.network.zoo import open_model
from densehand.pipeline import HandEstimator

PHOTO = Path(__file__).resolve().parent.parent / "demo_photos" / "open_palm_1.jpg"
tool = load_tool("label_masked")


@pytest.fixture(scope="module")
def network():
    return open_model("dhpe-lite").requires_grad_(False)


def flat_hand(hand, bend):
    """A hand that lies before the camera, all joints bent by as much more than the mean pose, units of the square."""
    return encode(
        MeshParameters(
            pose=hand.mean_pose[None] + bend,
            shape=torch.zeros(1, 10),
            rotation=torch.tensor([[0.0, 1.0, 0.0, 0.0]]),
            scale=torch.tensor([5.0]),
            translation=torch.tensor([[0.0, -0.4, 0.0]]),
        )
    )


def test_pixels_of_the_hands_side_of_the_wrist():
    skeleton = torch.zeros(1, 21, 3)
    skeleton[0, 0, :2], skeleton[0, 9, :2] = torch.tensor([0.1, 0.3]), torch.tensor([0.3, -0.2])
    side = tool.hand_side(skeleton)[0]
    for row, column in ((0, 0), (10, 100), (60, 60), (80, 40), (111, 111)):
        x, y = ((v + 0.5) / tool.SIDE * 2 - 1 for v in (column, row))
        along = (x - 0.1) * (0.1 - 0.3) + (y - 0.3) * (0.3 + 0.2)
        assert bool(side[row, column]) == (along < 0)


def test_a_mesh_is_drawn_onto_a_mask_without_leaving_the_keypoints(network):
    truth = flat_hand(network.hand, 0.3)
    mask = network.render_mask(truth, tool.SIDE)
    mask = torch.maximum(mask, ~tool.hand_side(skeleton_in_crop(network.hand, truth)) * 1.0)  # a forearm tells nothing
    start = flat_hand(network.hand, 0.0)
    evidence = skeleton_in_crop(network.hand, truth)[..., :2]
    h, before, after = tool.draw_onto(network, start, mask, evidence, 60)
    assert before < 0.85 < 0.93 < after

    def off(h):
        return (skeleton_in_crop(network.hand, h)[..., :2] - evidence).norm(dim=-1).mean()

    assert off(h) < 0.5 * off(start)


def test_a_masked_photo_becomes_a_sample_that_training_reads(network, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    image = cv2.copyMakeBorder(read_image(PHOTO), 0, 0, 400, 0, cv2.BORDER_CONSTANT, value=(90, 90, 90))
    hand = max(HandEstimator(network)(image), key=lambda hand: hand.score)
    forearm = np.zeros(image.shape[:2], np.uint8)
    wrist, middle = hand.keypoints_2d[0], hand.keypoints_2d[9]
    cv2.line(forearm, wrist.astype(int).tolist(), (2 * wrist - middle).astype(int).tolist(), 255, 60)
    mask = np.maximum(hand.mask(image.shape[:2]).astype(np.uint8) * 255, forearm)
    for name in ("a", "b", "c"):
        cv2.imwrite(str(photos / f"{name}.jpg"), image[..., ::-1])
    cv2.imwrite(str(photos / "a.png"), mask)
    cv2.imwrite(str(photos / "b.png"), np.zeros_like(mask))
    options = ["--photos", str(photos), "--out", str(tmp_path / "out"), "--sheet", str(tmp_path / "sheet.png")]
    tool.main([*options, "--steps", "20"])
    printed = capsys.readouterr().out
    assert "kept 1" in printed and "no hand found under the mask" in printed and "c.png" in printed
    (records,), skipped = load_dataset("densehand", tmp_path / "out", HandModel.load("open"))
    assert len(records) == 1 and not skipped.counts and float(records.trust[0]) > 0.5
    stored = cv2.imread(str(tmp_path / "out" / "a.png"), cv2.IMREAD_GRAYSCALE) > 127
    x, y = (wrist + 0.6 * (wrist - middle)).astype(int)
    assert mask[y, x] and not stored[y, x]  # the forearm is cut off
    assert (stored & hand.mask(stored.shape)).sum() > 0.95 * hand.mask(stored.shape).sum()
    assert (tmp_path / "sheet.png").is_file()


def test_nothing_that_fits_is_an_error_that_says_why(tmp_path):
    with pytest.raises(SystemExit, match="no hand that fits its mask"):
        tool.main(["--photos", str(tmp_path), "--out", str(tmp_path / "out")])
