"""Gather square pictures without a hand: backdrops of rendered hands and the network's counter-examples.

    python tools/gather_backgrounds.py --data FOLDER --out runs/backgrounds
    densehand train --backgrounds runs/backgrounds …

From `FOLDER/backgrounds`, less those that show hands after all, and from the parts of `FOLDER/photos`' frames beside
all hands: rooms, faces, bare arms, what a camera that looks at hands sees of the rest. Pictures held back for measuring
(densehand/detect/data.py) stay out. Frames of films repeat themselves: `--every` takes one in so many.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from densehand.detect.data import hand_free_part, read_backgrounds, read_frames
from densehand.files import write_bytes

MOST = 2  # squares cut of one strip
LEAST_CONTRAST = 24.0  # standard deviation of grey levels: bare walls teach nothing


def squares(strip: np.ndarray) -> Iterator[np.ndarray]:
    """Squares of the strip's shorter side, spread along the longer one."""
    height, width = strip.shape[:2]
    side = min(height, width)
    count = min(MOST, max(height, width) // side)
    for place in np.linspace(0, max(height, width) - side, count) if count > 1 else [(max(height, width) - side) / 2]:
        start = int(place)
        yield strip[:, start : start + side] if width > height else strip[start : start + side]


def hand_free(data: Path, every: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """Source, RGB picture and the contrast that its squares must have."""
    for picture in read_backgrounds(data, False):
        yield picture.source, picture.decode(), 0.0
    for picture in read_frames(data, False)[::every]:
        if (part := hand_free_part(picture)) is not None:
            yield picture.source, part, LEAST_CONTRAST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds photos/ and backgrounds/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures; must be new or empty")
    parser.add_argument("--size", type=int, default=320, help="largest side of a picture")
    parser.add_argument("--every", type=int, default=3, help="of the frames, one in so many")
    chosen = parser.parse_args()
    if chosen.out.is_dir() and any(chosen.out.iterdir()):
        parser.error(f"{chosen.out} is not empty; give a new folder")
    chosen.out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for source, pixels, least in hand_free(chosen.data, chosen.every):
        for square in squares(pixels):
            if cv2.cvtColor(square, cv2.COLOR_RGB2GRAY).std() < least:
                continue
            number = counts[source] = counts.get(source, 0) + 1
            if len(square) > chosen.size:
                square = cv2.resize(square, (chosen.size, chosen.size), interpolation=cv2.INTER_AREA)
            png = cv2.imencode(".png", cv2.cvtColor(square, cv2.COLOR_RGB2BGR))[1].tobytes()
            write_bytes(chosen.out / f"{source}_{number:05d}.png", png)
    print(", ".join(f"{count} of {source}" for source, count in counts.items()))


if __name__ == "__main__":
    main()
