"""The detector as the pipeline uses it: a photo in, hands out."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from densehand.detect import weights
from densehand.detect.boxes import Candidates, peaks, suppress
from densehand.detect.model import SIDE_MULTIPLE, DetectorNet, DetectorOutput
from densehand.detect.weights import INPUT_SIZE, NAME
from densehand.errors import InputError
from densehand.network.engine import DetectorGraph, check_precision, engine, to_batch
from densehand.network.fuse import fuse_batch_norms
from densehand.network.quantise import Ranges
from densehand.network.zoo import resolve_device

Zoom = Literal["auto", "always", "never"]
PADDING_GREY = 114  # of the bars that bring a picture's sides to multiples of 32
MARGIN = 0.2  # grey on each side in the look from farther off, as a share of the photo's longer side
ZOOM_FROM = 1.5  # a picture is worth a closer look if its longer side exceeds this many input sizes
MAX_WINDOWS = 32  # of a closer look: bounds its time on any picture
WINDOW_BATCH = 8
SURE = 0.4  # a score that makes another look needless, …
SMALL = 0.15  # … but closer where no hand is larger than this, of the photo's longer side: where one is, more may be
KNOWN_TURN = 0.6  # length of the mean of sine and cosine from which on a turn is told (docs/detector.md)


@dataclass(frozen=True)
class Detection:
    """One hand. ``box`` [x0, y0, x1, y1] in continuous pixels of the photo, tight around the 21 keypoints.

    It may reach over the photo's border where the hand does. ``side`` is the hand's own, seen in a photo that is not
    mirrored; ``side_score`` is its probability, in [0.5, 1]; ``score``, in (0, 1), that there is a hand. ``turn``:
    radians by which the palm, wrist to knuckles, is turned clockwise from upright; None where the detector cannot tell.
    """

    box: NDArray[np.float64]
    side: Literal["left", "right"]
    side_score: float
    score: float
    turn: float | None = None


class FrozenNet(nn.Module):
    """An evaluation-mode network, batch norms folded; on a CPU run by ONNX Runtime where that is installed, in 8-bit
    integers where `network.engine.engine` lets `ranges` of its activations have them."""

    def __init__(self, net: DetectorNet, device: torch.device, ranges: Ranges | None = None):
        super().__init__()
        self.graph = DetectorGraph(fuse_batch_norms(net.eval())).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.engine = engine(NAME, self.graph, ranges) if device.type == "cpu" else None

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> DetectorOutput:
        if self.engine is not None and self.engine.takes(images):
            return DetectorOutput(*self.engine(images))
        return DetectorOutput(*self.graph(images.contiguous(memory_format=torch.channels_last)))


class Window(NamedTuple):
    """A part of the photo looked at on its own, px; it may reach outside."""

    x: int
    y: int
    width: int
    height: int


class Detector:
    """Finds hands of either side, any in-plane rotation and any size in photos.

    ``threshold`` is the least score reported. ``zoom`` says when to look again: ``"auto"`` if the first look found
    nothing scored 0.4 (or the threshold, if that is higher): from farther off, for a hand that fills the photo, and
    then, where the photo is larger than 384 px, closer, through overlapping windows; closer, too, if all that it found
    are small. ``"always"`` looks closer at every photo that large; ``"never"`` looks once. The first look sees the
    photo at ``input_size`` pixels along its longer side and finds hands of about a sixteenth of that side up.
    ``ranges``: of the network's activations, for 8-bit integers (`detect.weights.load`).
    """

    def __init__(
        self,
        net: nn.Module,
        threshold: float = 0.4,
        zoom: Zoom = "auto",
        device: str | torch.device = "cpu",
        input_size: int = INPUT_SIZE,
        ranges: Ranges | None = None,
    ):
        if zoom not in ("auto", "always", "never"):
            raise InputError(f"zoom={zoom!r}: use 'auto', 'always' or 'never'")
        if not 0 < threshold < 1:
            raise InputError(f"threshold={threshold}: the detector's threshold must lie between 0 and 1")
        self.device = torch.device(device)
        self.net = FrozenNet(net, self.device, ranges) if isinstance(net, DetectorNet) else net
        self.threshold, self.zoom, self.input_size = threshold, zoom, input_size

    @classmethod
    def load(
        cls,
        device: str | torch.device = "auto",
        threshold: float = 0.4,
        zoom: Zoom = "auto",
        path: str | Path | None = None,
        precision: str = "auto",
    ) -> "Detector":
        """The detector with the weights in the package (or of ``path``, a ``.safetensors`` file with its card beside
        it).

        precision: "auto" (8-bit integers on x86-64 CPUs where the card has ranges for them) or "float32".
        Raises ``WeightsError`` for missing or damaged weights, ``InputError`` for a device that cannot be had or an
        unknown precision.
        """
        target = resolve_device(device)
        integers = check_precision(precision) == "auto"
        net, ranges = weights.load(path)
        return cls(net, threshold, zoom, target, ranges=ranges if integers else None)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> list[Detection]:
        """Hands in an RGB photo, best score first; ``InputError`` if it is not an H×W×3 uint8 array with pixels."""
        image = check_image(image)
        height, width = image.shape[:2]
        found = self._look(image, [Window(0, 0, width, height)])
        if self.zoom != "never" and not self._is_sure(found):
            found = _together(found, self._look_from_farther(image))
        if self._looks_closer(image, found.boxes[found.scores >= SURE]):
            found = _together(found, self._look_closer(image))
        return _detections(found)

    def look_closer(self, image: UInt8[np.ndarray, "h w 3"], after: list[Detection]) -> list[Detection]:
        """Hands in the parts of a photo, for whoever knows that what a call gave (``after``) were none. Empty where the
        call looked closer itself, where the photo is too small for that, and where ``zoom`` is ``"never"``. Errors as
        of a call."""
        image = check_image(image)
        sure = np.array([d.box for d in after if d.score >= SURE]).reshape(-1, 4)
        if self.zoom == "never" or not self._is_large(image) or self._looks_closer(image, sure):
            return []
        return _detections(self._look_closer(image))

    def _is_large(self, image: NDArray[np.uint8]) -> bool:
        """Whether a closer look shows more."""
        return max(image.shape[:2]) > ZOOM_FROM * self.input_size

    def _looks_closer(self, image: NDArray[np.uint8], sure: Float[np.ndarray, "n 4"]) -> bool:
        """Whether a call that was sure of the hands in these boxes at first looks closer."""
        if self.zoom == "never" or not self._is_large(image):
            return False
        largest = float((sure[:, 2:] - sure[:, :2]).max(initial=0.0))
        return self.zoom == "always" or largest <= SMALL * max(image.shape[:2])

    def _look_closer(self, image: NDArray[np.uint8]) -> Candidates:
        """Candidates of the photo's parts."""
        height, width = image.shape[:2]
        return self._look(image, zoom_windows(width, height, self.input_size))

    def _is_sure(self, found: Candidates) -> bool:
        """Whether something was found that needs no other look (what a higher threshold drops does not count)."""
        return bool((found.scores >= SURE).any())

    def _look_from_farther(self, image: NDArray[np.uint8]) -> Candidates:
        """Candidates of the photo within a grey margin, in pixels of the photo: hands that fill it look smaller."""
        height, width = image.shape[:2]
        margin = round(MARGIN * max(width, height))
        return self._look(image, [Window(-margin, -margin, width + 2 * margin, height + 2 * margin)])

    @torch.inference_mode()
    def _look(self, image: NDArray[np.uint8], windows: list[Window]) -> Candidates:
        """Candidates of all windows (of one size), in pixels of the photo, not yet suppressed."""
        parts = []
        for start in range(0, len(windows), WINDOW_BATCH):
            batch = windows[start : start + WINDOW_BATCH]
            pixels, scale = zip(*(self._letterbox(image, window) for window in batch), strict=True)
            inputs = to_batch(np.stack(pixels), self.device)
            output = self.net(inputs)
            for window, (sx, sy), candidates in zip(batch, scale, peaks(output, self.threshold), strict=True):
                boxes = candidates.boxes / np.array([sx, sy, sx, sy]) + np.array([window.x, window.y] * 2)
                whole = ~cut_by_window(boxes, window, image.shape[1], image.shape[0])
                parts.append(Candidates(boxes[whole], *(values[whole] for values in candidates[1:])))
        return Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _letterbox(self, image: NDArray[np.uint8], window: Window) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        """A window at the network's size, padded right and below, and the scale factors of x and y. What of it lies
        outside the photo is grey."""
        scale = self.input_size / max(window.width, window.height)
        width, height = (max(round(n * scale), 1) for n in (window.width, window.height))
        sx, sy = width / window.width, height / window.height
        x0, y0 = max(window.x, 0), max(window.y, 0)
        x1, y1 = min(window.x + window.width, image.shape[1]), min(window.y + window.height, image.shape[0])
        left, top = round((x0 - window.x) * sx), round((y0 - window.y) * sy)
        right, below = max(round((x1 - window.x) * sx), left + 1), max(round((y1 - window.y) * sy), top + 1)
        padded_width, padded_height = (-(-n // SIDE_MULTIPLE) * SIDE_MULTIPLE for n in (width, height))
        canvas = np.full((padded_height, padded_width, 3), PADDING_GREY, np.uint8)
        canvas[top:below, left:right] = resized(image[y0:y1, x0:x1], right - left, below - top)
        return canvas, (sx, sy)


def resized(image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
    """The image at another size: means of pixels where it shrinks, bilinear where it grows.

    Large photos by whole halves first, which cv2 does ten times as fast; not the last one, which costs small hands.
    """
    while image.shape[1] >= 4 * width and image.shape[0] >= 4 * height and not any(n % 2 for n in image.shape[:2]):
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
    shrinks = image.shape[1] > width or image.shape[0] > height
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _together(a: Candidates, b: Candidates) -> Candidates:
    return Candidates(*(np.concatenate(pair) for pair in zip(a, b, strict=True)))


def _detections(found: Candidates) -> list[Detection]:
    """Of candidates those that no better one makes needless, best first."""
    return [_detection(*(values[i] for values in found)) for i in suppress(found.boxes, found.scores)]


def _detection(box: NDArray[np.float32], score: float, right: float, turn: NDArray[np.float32]) -> Detection:
    """A row of `Candidates`."""
    side: Literal["left", "right"] = "right" if right >= 0.5 else "left"
    known = math.atan2(*turn) if math.hypot(*turn) >= KNOWN_TURN else None
    return Detection(box.astype(np.float64), side, float(max(right, 1 - right)), float(score), known)


def check_image(image: object) -> NDArray[np.uint8]:
    """The image itself if it is an H×W×3 uint8 array with at least one pixel; ``InputError`` otherwise."""
    if not isinstance(image, np.ndarray):
        raise InputError(f"the detector takes an H×W×3 uint8 array, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        kind = f"{image.dtype} of shape {image.shape}"
        raise InputError(f"the detector takes an H×W×3 uint8 array, not {kind}; convert it to 8-bit RGB")
    if image.size == 0:
        raise InputError(f"the picture has no pixels (shape {image.shape}); give one of at least 1×1")
    return image


def zoom_windows(width: int, height: int, input_size: int, overlap: float = 0.3) -> list[Window]:
    """Windows of one size that cover the photo with at least ``overlap`` between neighbours; at most MAX_WINDOWS.

    Their side is a third of the longer side of the photo, in long strips twice the shorter side, but never less than
    ``input_size`` pixels (nothing would be gained) unless the photo is narrower than that.
    """
    side = max(input_size, min(max(width, height) // 3, 2 * min(width, height)))
    while True:
        columns, rows = (1 + max(-(-(n - side) // max(int(side * (1 - overlap)), 1)), 0) for n in (width, height))
        if columns * rows <= MAX_WINDOWS:
            break
        side = side * 5 // 4
    w, h = min(side, width), min(side, height)
    xs, ys = (np.linspace(0, n - m, k).round().astype(int) for n, m, k in ((width, w, columns), (height, h, rows)))
    return [Window(int(x), int(y), w, h) for y in ys for x in xs]


def cut_by_window(
    boxes: Float[np.ndarray, "n 4"], window: Window, width: int, height: int, margin: float = 0.02
) -> NDArray[np.bool_]:
    """Which boxes touch an edge of the window that is not also the photo's: such hands are cut off, another window
    has them whole."""
    dx, dy = margin * window.width, margin * window.height
    right, below = window.x + window.width, window.y + window.height
    cut = np.zeros(len(boxes), bool)
    if window.x > 0:
        cut |= boxes[:, 0] < window.x + dx
    if window.y > 0:
        cut |= boxes[:, 1] < window.y + dy
    if right < width:
        cut |= boxes[:, 2] > right - dx
    if below < height:
        cut |= boxes[:, 3] > below - dy
    return cut
