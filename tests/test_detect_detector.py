"""The detector as a whole: coordinates, windows, bad input, and the packaged weights on photos."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from densehand.detect import Detection, Detector
from densehand.detect.detector import MAX_WINDOWS, Window, cut_by_window, resized, zoom_windows
from densehand.detect.model import REFERENCE_SIZE, STRIDE, DetectorOutput
from densehand.errors import InputError


class BlobNet(nn.Module):
    """Stands in for the network: calls the bounding box of the bright pixels a hand, a right one if it is reddish."""

    def forward(self, images):
        batch, _, height, width = images.shape
        grid = height // STRIDE, width // STRIDE
        centre = torch.full((batch, *grid), -9.0)
        offset, log_size, side = torch.zeros(batch, 2, *grid), torch.zeros(batch, 2, *grid), torch.zeros(batch, *grid)
        for b in range(batch):
            bright = images[b].amax(0) > 0.6
            if not bright.any():
                continue
            rows, columns = torch.nonzero(bright, as_tuple=True)
            x0, x1 = columns.min().item(), columns.max().item() + 1
            y0, y1 = rows.min().item(), rows.max().item() + 1
            row, column = int((y0 + y1) / 2 // STRIDE), int((x0 + x1) / 2 // STRIDE)
            centre[b, row, column] = 3.0
            offset[b, 0, row, column] = (x0 + x1) / 2 / STRIDE - column - 0.5
            offset[b, 1, row, column] = (y0 + y1) / 2 / STRIDE - row - 0.5
            log_size[b, :, row, column] = (torch.tensor([x1 - x0, y1 - y0]) / REFERENCE_SIZE).log()
            side[b, row, column] = 2.0 if images[b, 0][bright].mean() > images[b, 2][bright].mean() else -2.0
        return DetectorOutput(centre, offset, log_size, side, torch.zeros_like(offset))


def blob_detector(**options) -> Detector:
    return Detector(BlobNet(), **options)  # type: ignore[arg-type]


def with_blob(width, height, box, colour=(255, 255, 200)):
    image = np.full((height, width, 3), 30, np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = colour
    return image


@settings(max_examples=40, deadline=None)
@given(st.integers(150, 900), st.integers(150, 900), st.data())
def test_boxes_come_back_in_the_pixels_of_the_photo(width, height, data):
    x0, y0 = data.draw(st.integers(0, width // 2)), data.draw(st.integers(0, height // 2))
    x1, y1 = data.draw(st.integers(x0 + width // 4, width)), data.draw(st.integers(y0 + height // 4, height))
    red = data.draw(st.booleans())
    colour = (255, 200, 180) if red else (180, 200, 255)
    (found,) = blob_detector()(with_blob(width, height, (x0, y0, x1, y1), colour))
    tolerance = 2.0 * max(width, height, 256) / 256  # two pixels of the network's eye
    np.testing.assert_allclose(found.box, [x0, y0, x1, y1], atol=tolerance)
    assert found.side == ("right" if red else "left")
    assert found.side_score == pytest.approx(torch.sigmoid(torch.tensor(2.0)).item(), abs=1e-5)
    assert found.score == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item(), abs=1e-5)


def test_threshold_drops_what_scores_lower():
    image = with_blob(300, 200, (50, 50, 150, 150))
    assert len(blob_detector(threshold=0.9)(image)) == 1
    assert blob_detector(threshold=0.99)(image) == []


@settings(deadline=None)
@given(st.integers(1, 9000), st.integers(1, 9000))
def test_windows_cover_the_photo_evenly_and_are_few(width, height):
    windows = zoom_windows(width, height, 256)
    assert 1 <= len(windows) <= MAX_WINDOWS
    assert len({(w.width, w.height) for w in windows}) == 1
    for axis, length in ((0, width), (1, height)):
        extent = windows[0][2 + axis]
        starts = sorted({w[axis] for w in windows})
        assert starts[0] == 0 and starts[-1] + extent == length
        for a, b in itertools.pairwise(starts):
            assert b - a <= 0.7 * extent + 2  # neighbours share about 30 %
    assert len(windows) == len({w.x for w in windows}) * len({w.y for w in windows})


def test_hands_cut_by_a_window_are_left_to_its_neighbours():
    window = Window(100, 0, 100, 100)
    boxes = np.array(
        [[120, 20, 160, 60], [100, 20, 150, 60], [150, 20, 200, 60], [120, 0, 160, 60], [120, 60, 160, 100]]
    )
    assert cut_by_window(boxes, window, 300, 100).tolist() == [False, True, True, False, False]
    assert cut_by_window(boxes, window, 200, 200).tolist() == [False, True, False, False, True]


class SmallBlobNet(BlobNet):
    """Sees only what is larger than 30 px of its eye, as a network has its limits."""

    def forward(self, images):
        output = super().forward(images)
        large = output.log_size.exp().amax(1) * REFERENCE_SIZE > 30
        return output._replace(centre_logit=torch.where(large, output.centre_logit, -9.0))


def test_a_closer_look_finds_the_small_hand_of_a_large_photo_once():
    image = with_blob(1600, 1200, (700, 500, 780, 590))
    assert Detector(SmallBlobNet(), zoom="never")(image) == []  # type: ignore[arg-type]
    for zoom in ("auto", "always"):
        (found,) = Detector(SmallBlobNet(), zoom=zoom)(image)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.box, [700, 500, 780, 590], atol=8)


class WholeBlobNet(BlobNet):
    """Sees only what fills less than 0.85 of its eye."""

    def forward(self, images):
        output = super().forward(images)
        small = output.log_size.exp().amax(1) * REFERENCE_SIZE < 0.85 * max(images.shape[-2:])
        return output._replace(centre_logit=torch.where(small, output.centre_logit, -9.0))


@settings(max_examples=20, deadline=None)
@given(st.integers(60, 380), st.integers(60, 380))
def test_a_look_from_farther_off_finds_the_hand_that_fills_the_photo(width, height):
    image = with_blob(width, height, (0, 0, width, height))
    assert Detector(WholeBlobNet(), zoom="never")(image) == []  # type: ignore[arg-type]
    (found,) = Detector(WholeBlobNet())(image)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.box, [0, 0, width, height], atol=0.02 * max(width, height))


@pytest.mark.parametrize(
    "image",
    [
        None,
        "photo.jpg",
        [[0, 0, 0]],
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
    ],
)
def test_what_is_no_photo_is_refused(image):
    with pytest.raises(InputError) as error:
        blob_detector()(image)
    assert "\n" not in str(error.value)


def test_nonsense_settings_are_refused():
    with pytest.raises(InputError, match="zoom"):
        blob_detector(zoom="sometimes")
    with pytest.raises(InputError, match="threshold"):
        blob_detector(threshold=1.5)
    with pytest.raises(InputError, match="device"):
        Detector.load("quantum")


@pytest.mark.parametrize(
    "size", [(480, 640), (1080, 1920), (481, 640), (700, 1000), (200, 150), (3000, 4000), (1, 900)]
)
def test_resizing_is_near_the_mean_of_each_pixels_area(size):
    """Also over several halves, odd sides and enlargement, on a picture with detail at all scales."""
    rng = np.random.default_rng(size[0])
    image = np.zeros((*size, 3), np.float32)
    for cells in (4, 16, 64, 256):
        coarse = rng.random((cells, cells, 3), dtype=np.float32)
        image += cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR) * 64
    image = image.astype(np.uint8)
    scale = 256 / max(size)
    width, height = max(round(size[1] * scale), 1), max(round(size[0] * scale), 1)
    found = resized(image, width, height)
    assert found.shape == (height, width, 3) and found.dtype == np.uint8
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    expected = cv2.resize(image, (width, height), interpolation=mode).astype(float)
    assert np.abs(found - expected).mean() < 3


# ---- the packaged weights


@pytest.fixture(scope="module")
def packaged() -> Detector:
    return Detector.load("cpu")


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 8192), (8192, 3), (40, 40), (257, 31)])
@pytest.mark.parametrize("fill", ["black", "white", "noise"])
def test_degenerate_pictures_give_sane_answers(packaged, shape, fill):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = {"black": np.zeros_like(noise), "white": np.full_like(noise, 255), "noise": noise}[fill]
    found = packaged(image)
    assert len(found) <= 3
    for detection in found:
        assert np.all(np.isfinite(detection.box)) and np.all(detection.box[2:] > detection.box[:2])


def test_grey_and_strided_views_are_fine(packaged):
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    flipped = packaged(image[::-1, ::-1, ::-1])
    copied = packaged(np.ascontiguousarray(image[::-1, ::-1, ::-1]))
    assert [d.score for d in flipped] == [d.score for d in copied]


def read(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def best_overlap(found: list[Detection], box) -> float:
    from densehand.metrics import box_iou

    return max((float(box_iou(d.box[None], np.array([box]))[0, 0]) for d in found), default=0.0)


@pytest.mark.parametrize("number", [1, 2])
def test_each_demo_photo_has_one_hand(packaged, shared_dir, number):
    image = read(shared_dir / "fixtures" / f"open_palm_{number}.jpg")
    (found,) = packaged(image)
    height, width = image.shape[:2]
    share = np.prod(found.box[2:] - found.box[:2]) / (width * height)
    assert 0.25 < share < 1.0


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_turned_photo_has_its_hand_turned(packaged, shared_dir, quarter_turns):
    image = read(shared_dir / "fixtures" / "open_palm_1.jpg")
    (upright,) = packaged(image)
    height, width = image.shape[:2]
    corners = upright.box.reshape(2, 2)
    for _ in range(quarter_turns):  # np.rot90: x, y → y, width − x
        corners = np.stack([corners[:, 1], width - corners[:, 0]], 1)
        width, height = height, width
    expected = np.concatenate([corners.min(0), corners.max(0)])
    assert best_overlap(packaged(np.rot90(image, quarter_turns)), expected) > 0.6


def test_most_hands_of_the_measuring_photos_are_found(packaged, shared_dir):
    from densehand.detect.evaluate import fixture_samples, measure

    scores = measure(packaged, fixture_samples(shared_dir / "fixtures")[::3], threshold=0.4)
    assert scores.hands >= 20
    assert scores.recall > 0.6
