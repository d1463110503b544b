"""Training pictures of the detector, put together from photos: whole frames, cut-out hands and crops over backgrounds.

One call of :meth:`Composer.__call__` gives one S×S picture with its boxes. All hands are turned, scaled, mirrored
(which swaps the sides) and recoloured; frames keep their people, faces and forearms, which are the hard negatives.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from densehand.detect.data import (
    LabelledHand,
    Picture,
    Pixels,
    Points,
    cut_out,
    decoded,
    read_backgrounds,
    read_crops,
    read_frames,
    visible_rectangle,
)
from densehand.detect.photometric import as_photographed, recolour
from densehand.detect.plane import similarity, transform, transform_box
from densehand.detect.rendered import render_crops
from densehand.metrics import tight_box

FRAME_SHARES = {"subhih": 0.5, "rf100": 0.25, "fingercount": 0.25}
CROP_SHARES = {
    "asl1728": 0.26, "rf839": 0.26, "subhih": 0.16, "fingercount": 0.14, "digits": 0.1, "rf100": 0.08,
    "rendered": 0.35,  # where there are: a quarter of all
}  # fmt: skip
MIN_HAND, MAX_HAND = 12.0, 1.05  # sizes of hands drawn: from pixels to a share of the picture's side


@dataclass
class Scene:
    """A picture in the making. Boxes are [x0, y0, x1, y1] px of the picture, tight around the keypoints, not
    clipped."""

    image: Pixels
    hands: list[LabelledHand] = field(default_factory=list)
    ignore: list[Points] = field(default_factory=list)


@dataclass(frozen=True)
class Example:
    """A training example: S×S×3 uint8 RGB, n boxes with side and its weight, m boxes to leave out of the loss."""

    image: Pixels
    boxes: Points
    right: Points
    side_weight: Points
    ignore: Points
    keypoints: Points  # (n, 21, 2) px


class Composer:
    """Makes training examples at random; not thread safe (one generator inside)."""

    def __init__(
        self, frames: list[Picture], crops: list[Picture], backgrounds: list[Picture], seed: int | None = None
    ):
        self.random = np.random.default_rng(seed)
        self.backgrounds = backgrounds
        self.frames: dict[str, list[Picture]] = defaultdict(list)
        self.crops: dict[str, list[Picture]] = defaultdict(list)
        for pictures, groups in ((frames, self.frames), (crops, self.crops)):
            for picture in pictures:
                groups[picture.source].append(picture)

    @classmethod
    def of(cls, folder: str | Path, held_back: bool, rendered: int = 0) -> "Composer":
        """Of one split of a folder (layout: densehand/detect/data.py) and so many rendered hands; raises what the
        folder's readers raise."""
        backgrounds = read_backgrounds(folder, held_back)
        crops = read_crops(folder, held_back) + render_crops(rendered, backgrounds)
        return cls(read_frames(folder, held_back), crops, backgrounds)

    def begin(self, *numbers: int) -> None:
        """Draw from a generator seeded with these numbers from now on."""
        self.random = np.random.default_rng(numbers)

    def __call__(self, size: int) -> Example:
        """One example of ``size`` pixels a side."""
        u = self.random.random()
        scene = self._background(size)
        if u < 0.45:
            self._add_frame(scene)
            if self.random.random() < 0.3:
                self._add_cutout(scene, largest=0.5)
        elif u < 0.82:
            for _ in range(self.random.choice([1, 2, 3, 4], p=[0.35, 0.35, 0.2, 0.1])):
                self._add_cutout(scene)
            if self.random.random() < 0.25:
                self._add_occluder(scene)
        elif u < 0.94:
            self._add_crop(scene)
        scene.image = as_photographed(scene.image, self.random)
        return self._finish(scene)

    def close_up(self, size: int) -> Example:
        """One hand that takes up most of the picture: cheap to make, and what sides and poses are learnt from."""
        scene = self._background(size)
        self._add_crop(scene, self.random.uniform(0.45, 0.95), self.random.choice(["picture", "hand"], p=[0.6, 0.4]))
        scene.image = as_photographed(scene.image, self.random)
        return self._finish(scene)

    # ---- ingredients

    def _pick(self, groups: dict[str, list[Picture]], shares: dict[str, float]) -> Picture:
        names = [name for name in shares if groups.get(name)]
        p = np.array([shares[name] for name in names])
        pictures = groups[names[self.random.choice(len(names), p=p / p.sum())]]
        return pictures[self.random.integers(len(pictures))]

    def _background(self, size: int) -> Scene:
        if not self.backgrounds or self.random.random() < 0.12:  # plain walls
            colour = self.random.integers(0, 256, (2, 2, 3)).astype(np.uint8)
            if self.random.random() < 0.5:
                colour[:] = colour[0, 0]
            return Scene(cv2.resize(colour, (size, size), interpolation=cv2.INTER_LINEAR))
        image = self.backgrounds[self.random.integers(len(self.backgrounds))].decode()
        side = int(min(image.shape[:2]) * self.random.uniform(0.4, 1.0))
        y, x = (self.random.integers(0, n - side + 1) for n in image.shape[:2])
        image = cv2.resize(image[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA)
        if self.random.random() < 0.3:
            image = np.ascontiguousarray(np.rot90(image, int(self.random.integers(4))))
        return Scene(image)

    def _angle(self, turn_often: float = 0.5) -> float:
        free = self.random.random() < turn_often
        return float(self.random.uniform(-np.pi, np.pi) if free else self.random.normal(0, 0.3))

    def _hand_size(self, size: int, largest: float = MAX_HAND) -> float:
        low, high = np.log(MIN_HAND), np.log(largest * size)
        return float(
            np.exp(
                self.random.uniform(low, high)
                if self.random.random() < 0.6
                else self.random.triangular(low, 0.35 * low + 0.65 * high, high)
            )
        )

    # ---- ways to put hands into a scene

    def _add_frame(self, scene: Scene) -> None:
        size = scene.image.shape[0]
        picture = self._pick(self.frames, FRAME_SHARES)
        points = [hand.keypoints for hand in picture.hands]
        if points and self.random.random() < 0.9:
            box = tight_box(points[self.random.integers(len(points))])
            extent, anchor = float(np.max(box[2:] - box[:2])), (box[:2] + box[2:]) / 2
        else:  # somewhere in the frame: people without their hands
            extent, anchor = 80.0, self.random.uniform(60, 260, 2)
        scale = self._hand_size(size) / max(extent, 8.0)
        target = self.random.uniform(0.08, 0.92, 2) * size
        self._paste(scene, picture, anchor, target, float(np.clip(scale, 0.12, 4.0)), self._angle(0.4))

    def _add_crop(self, scene: Scene, share: float | None = None, kind: str = "picture") -> None:
        size = scene.image.shape[0]
        share = self.random.uniform(0.35, 1.1) if share is None else share
        for _ in range(20):
            picture = self._pick(self.crops, CROP_SHARES)
            if picture.whole or kind == "hand":
                break
        box = tight_box(picture.hands[0].keypoints)
        scale = share * size / max(float(np.max(box[2:] - box[:2])), 8.0)
        target = (0.5 + self.random.normal(0, 0.08, 2)) * size
        self._paste(scene, picture, (box[:2] + box[2:]) / 2, target, scale, self._angle(), kind)

    def _add_cutout(self, scene: Scene, largest: float = 0.9) -> None:
        size = scene.image.shape[0]
        picture = self._pick(self.crops, CROP_SHARES)
        box = tight_box(picture.hands[0].keypoints)
        scale = self._hand_size(size, largest) / max(float(np.max(box[2:] - box[:2])), 8.0)
        target = self.random.uniform(0.02, 0.98, 2) * size
        kind = "rectangle" if picture.whole and self.random.random() < 0.25 else "hand"
        self._paste(scene, picture, (box[:2] + box[2:]) / 2, target, scale, self._angle(), kind)

    def _add_occluder(self, scene: Scene) -> None:
        """A piece of background before everything, as of an object held or in the way."""
        size = scene.image.shape[0]
        piece = self._background(size).image
        centre, radius = self.random.uniform(0, size, 2), self.random.uniform(0.03, 0.2, 2) * size
        mask = np.zeros((size, size), np.uint8)
        cv2.ellipse(mask, (centre.tolist(), (2 * radius).tolist(), float(self.random.uniform(0, 180))), 255, -1)
        self._blend(scene, piece, cv2.GaussianBlur(mask, (0, 0), 0.7))

    def _paste(
        self,
        scene: Scene,
        picture: Picture,
        anchor: Points,
        target: Points,
        scale: float,
        angle: float,
        kind: str = "picture",
    ) -> None:
        reduce = 1
        while reduce < 8 and scale * reduce < 0.5:  # decode small what is shown small: cheap, and free of aliasing
            reduce *= 2
        image = picture.decode(reduce)
        size = scene.image.shape[0]
        mirror = bool(self.random.random() < 0.5)
        matrix = similarity(np.asarray(anchor), np.asarray(target), scale, angle, mirror)
        if kind == "hand":
            mask = self._cutout_mask(picture)
            mask = mask if reduce == 1 else cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_AREA)
        else:
            mask = np.zeros(image.shape[:2], np.uint8)
            x0, y0, x1, y1 = visible_rectangle(image)
            mask[y0:y1, x0:x1] = 255
            mask[[0, -1]] = 0
            mask[:, [0, -1]] = 0
            if kind == "rectangle":
                soft = 0.03 * max(image.shape[:2])
                mask[y0 : y0 + int(2 * soft)] = mask[max(y1 - int(2 * soft), 0) : y1] = 0
                mask[:, x0 : x0 + int(2 * soft)] = mask[:, max(x1 - int(2 * soft), 0) : x1] = 0
                mask = cv2.GaussianBlur(mask, (0, 0), soft)
        small = matrix.copy()
        small[:, :2] *= reduce
        # cv2 puts pixel centres at whole numbers, the labels have continuous pixels: shift by half a pixel on both
        # sides
        small[:, 2] += small[:, :2] @ np.array([0.5, 0.5], np.float32) - 0.5
        if self.random.random() < 0.4:
            image = recolour(image, self.random)
        warped = cv2.warpAffine(image, small, (size, size), flags=cv2.INTER_LINEAR)
        alpha = cv2.warpAffine(mask, small, (size, size), flags=cv2.INTER_LINEAR)
        self._blend(scene, warped, alpha)
        for hand in picture.hands:
            points = transform(matrix, hand.keypoints)
            scene.hands.append(LabelledHand(points, hand.right != mirror, hand.side_weight))
        if kind != "hand":
            scene.ignore += [transform_box(matrix, box) for box in picture.ignore]

    def _cutout_mask(self, picture: Picture) -> Pixels:
        """The hand's mask, cut out on first use and kept; where cutting fails, the keypoints' hull, grown and
        softened."""
        if picture.cutout is None:
            image, points = picture.decode(), picture.hands[0].keypoints
            mask = cut_out(image, points)
            if mask is None:
                mask = np.zeros(image.shape[:2], np.uint8)
                cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 255)
                grow = int(0.12 * np.max(points.max(0) - points.min(0))) | 1
                mask = cv2.GaussianBlur(cv2.dilate(mask, np.ones((grow, grow), np.uint8)), (0, 0), grow / 4)
            picture.cutout = cv2.imencode(".png", mask)[1].tobytes()
        return decoded(picture.cutout, cv2.IMREAD_GRAYSCALE)

    def _blend(self, scene: Scene, layer: Pixels, alpha: Pixels) -> None:
        """Put a layer over the scene; hands it covers to more than 70 % vanish, those over 40 % become don't-care."""
        weight = (alpha.astype(np.float32) / 255)[..., None]
        scene.image = (scene.image + (layer.astype(np.float32) - scene.image) * weight + 0.5).astype(np.uint8)
        left = []
        for hand in scene.hands:
            columns, rows = np.clip(hand.keypoints, 0, len(alpha) - 1).astype(int).T
            covered = float((alpha[rows, columns] > 127).mean())
            if covered <= 0.4:
                left.append(hand)
            elif covered < 0.7:
                scene.ignore.append(tight_box(hand.keypoints))
        scene.hands = left

    def _finish(self, scene: Scene) -> Example:
        """Sort hands into those to find and those to leave out: too small, or less than half in the picture."""
        size = scene.image.shape[0]
        boxes, right, weight, keypoints, ignore = [], [], [], [], list(scene.ignore)
        for hand in scene.hands:
            box = tight_box(hand.keypoints)
            extent, centre = np.max(box[2:] - box[:2]), (box[:2] + box[2:]) / 2
            seen = float(((hand.keypoints >= 0) & (hand.keypoints < size)).all(1).mean())
            if seen >= 0.5 and extent >= 8 and np.all((centre >= 0) & (centre < size)):
                boxes.append(box)
                right.append(float(hand.right))
                weight.append(hand.side_weight)
                keypoints.append(hand.keypoints)
            elif seen > 0:
                ignore.append(box)
        return Example(
            scene.image,
            np.asarray(boxes, np.float32).reshape(-1, 4),
            np.asarray(right, np.float32),
            np.asarray(weight, np.float32),
            np.asarray(ignore, np.float32).reshape(-1, 4),
            np.asarray(keypoints, np.float32).reshape(-1, 21, 2),
        )
