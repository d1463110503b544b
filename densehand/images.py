"""Reading photos: whatever a user's folder holds becomes an upright H×W×3 uint8 RGB array, or one clear error.

How the kinds are carried over (the first frame of files with several):

- the EXIF orientation is applied, so that the array is the picture as a viewer shows it;
- grey, palette, CMYK, YCbCr and LAB are converted to RGB; embedded colour profiles are ignored;
- transparency is composited over white;
- 16 bits a channel are scaled to 8 (65,535 → 255); floats are taken as 0…1 or 0…255 where they fit, else stretched.
"""

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from densehand.errors import InputError
from densehand.files import in_order, reason

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What a folder is searched for (any case). A file named on its own is judged by its content, not by its name."""

MAX_PIXELS = 100_000_000
"""Largest picture decoded (8K is 33 million pixels); judged from the header, before memory is taken."""

READABLE = "JPEG, PNG, WebP, BMP or TIFF"
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_OWN_OUTPUTS = (".overlay.jpg", ".mask.png", ".depth.png")


def read_image(path: str | Path) -> np.ndarray:
    """Read a photo as an upright picture.

    Returns:
        H×W×3 uint8, RGB, C-contiguous.

    Errors:
        InputError: one line naming the file and the remedy, where it is missing, a folder, empty, no picture, of a kind
            that is not read, truncated or damaged, of zero size, or of more than `MAX_PIXELS` pixels.
    """
    path = Path(path)
    _check_file(path)
    # Pillow warns of large pictures below our own limit, and reports harmless oddities of metadata
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(path)
        with image:
            width, height = image.size
            if width < 1 or height < 1:
                raise InputError(f"{path}: a picture of {width}×{height} pixels holds nothing; export it again")
            if width * height > MAX_PIXELS:
                raise _too_large(path, f"{width}×{height} pixels")
            try:
                image.load()
                orientation = image.getexif().get(0x0112, 1)
                pixels = _to_rgb(image)
            except MemoryError as error:
                raise InputError(f"{path}: not enough memory to decode it; make it smaller") from error
            except _DAMAGE as error:
                raise InputError(f"{path}: truncated or damaged; copy or download it again") from error
    return np.ascontiguousarray(_upright(pixels, orientation))


def find_images(inputs: Iterable[str | Path], problems: list[InputError] | None = None) -> list[Path]:
    """Expand folders into the pictures they hold; files pass through unchanged, each picture once.

    Of a folder, the files lying directly in it with one of `IMAGE_EXTENSIONS` are taken, sorted by name (frame2 before
    frame10), without hidden ones and without densehand's own pictures (`*.overlay.jpg`, `*.mask.png`, `*.depth.png`).

    Args:
        inputs: files and folders. Files need not exist: reading them tells.
        problems: folders without pictures, or not readable, are named here; where it is None they raise instead.

    Errors:
        InputError: see `problems`.
    """
    found: dict[str, Path] = {}
    for given in map(Path, inputs):
        if not os.path.isdir(given):  # pathlib raises for names that cannot be
            found.setdefault(os.path.realpath(given), given)
            continue
        try:
            pictures = sorted((entry for entry in given.iterdir() if _is_picture(entry)), key=in_order)
            error = (
                None if pictures else InputError(f"{given}: no pictures in this folder; name one that holds {READABLE}")
            )
        except OSError as failure:
            pictures, error = (
                [],
                InputError(f"{given}: the folder cannot be read ({reason(failure)}); check its rights"),
            )
        if error and problems is None:
            raise error
        if error and problems is not None:
            problems.append(error)
        for picture in pictures:
            found.setdefault(os.path.realpath(picture), picture)
    return list(found.values())


def _is_picture(path: Path) -> bool:
    name = path.name.lower()
    return (
        name.endswith(IMAGE_EXTENSIONS)
        and not name.startswith(".")
        and not name.endswith(_OWN_OUTPUTS)
        and not os.path.isdir(path)
    )


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        cause = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: cannot be read ({cause}); check the path and its rights") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a folder, not a picture; name a file in it")
    if not stat.S_ISREG(status.st_mode):  # a pipe or device would block or never end
        raise InputError(f"{path}: is not an ordinary file; save the picture to disk first")
    if status.st_size == 0:
        raise InputError(f"{path}: the file is empty; copy or download it again")


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far more") from error
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check its rights") from error
    except _DAMAGE as error:
        with path.open("rb") as file:
            head = file.read(32)
        if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
            raise InputError(f"{path}: HEIC and AVIF are not read; export the photo as JPEG") from error
        if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")) or head[8:12] == b"WEBP":
            raise InputError(f"{path}: truncated or damaged; copy or download it again") from error
        raise InputError(f"{path}: not a picture that is read here; give {READABLE} (of a film, its frames)") from error


def _too_large(path: Path, size: str) -> InputError:
    return InputError(f"{path}: {size}, above the limit of {MAX_PIXELS // 1_000_000} million pixels; make it smaller")


def _to_rgb(image: Image.Image) -> np.ndarray:
    """H×W×3 uint8 in the file's own orientation."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _to_8_bits(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode == "P" and "transparency" not in image.info:
        image = image.convert("RGB")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", rgba.size, "white")
        image.paste(rgba, mask=rgba.getchannel("A"))
    elif image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image)


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scale deep grey values (H×W integers or floats) to uint8, see the head of this file."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high <= 255:
            low, high = 0.0, 1.0 if high <= 1 else 255.0
    else:
        low, high = 0.0, float(max(65535, int(values.max())))  # 32-bit files mostly hold 16-bit pictures
    scaled = (values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-9))
    return np.clip(scaled + 0.5, 0, 255).astype(np.uint8)


def _upright(pixels: np.ndarray, orientation: object) -> np.ndarray:
    """Undo the EXIF orientation 1…8 (other values count as 1)."""
    transforms: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        2: lambda p: cv2.flip(p, 1),
        3: lambda p: cv2.rotate(p, cv2.ROTATE_180),
        4: lambda p: cv2.flip(p, 0),
        5: cv2.transpose,
        6: lambda p: cv2.rotate(p, cv2.ROTATE_90_CLOCKWISE),
        7: lambda p: cv2.flip(cv2.transpose(p), -1),
        8: lambda p: cv2.rotate(p, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }
    transform = transforms.get(orientation if isinstance(orientation, int) else 1)
    return transform(pixels) if transform else pixels
