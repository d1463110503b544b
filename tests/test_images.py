"""Reading photos: every kind a folder may hold, and every way a file may be bad."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from densehand import images
from densehand.errors import InputError
from densehand.images import find_images, read_image

COLOURS = np.array([[[250, 20, 30], [20, 240, 40]], [[30, 40, 230], [240, 230, 20]], [[10, 10, 10], [128, 0, 128]]])


def picture(scale: int = 16) -> Image.Image:
    """Three rows, two columns of flat colours: every orientation of it is different."""
    return Image.fromarray(np.kron(COLOURS, np.ones((scale, scale, 1))).astype(np.uint8))


def centres(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    h, w = pixels.shape[0] // rows, pixels.shape[1] // columns
    return pixels[h // 2 :: h, w // 2 :: w].astype(int)


@pytest.mark.parametrize(("name", "options"), [
    ("a.jpg", {"quality": 95, "subsampling": 0}), ("a.jpeg", {"quality": 95, "subsampling": 0}), ("a.png", {}),
    ("a.webp", {"lossless": True}), ("a.bmp", {}), ("a.tif", {}), ("a.tiff", {"compression": "tiff_lzw"}),
])  # fmt: skip
def test_formats(tmp_path, name, options):
    picture().save(tmp_path / name, **options)
    pixels = read_image(tmp_path / name)
    assert pixels.dtype == np.uint8 and pixels.shape == (48, 32, 3) and pixels.flags.c_contiguous
    assert np.abs(centres(pixels, 3, 2) - COLOURS).max() <= 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_agrees_with_pillow(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    picture().save(path, exif=exif)
    with Image.open(path) as stored:
        expected = np.array(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(read_image(path), expected)


def test_exif_orientation_that_is_nonsense_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (48, 32, 3)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "YCbCr", "1", "LAB"])
def test_colour_modes(tmp_path, mode):
    from PIL import ImageCms

    if mode == "LAB":
        lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        converted = ImageCms.applyTransform(picture(), lab)
    else:
        converted = picture().convert(mode)
    path = tmp_path / ("a.png" if mode in ("L", "P", "1") else "a.tif")
    converted.save(path)
    got = centres(read_image(path), 3, 2)
    if mode in ("L", "1"):
        assert (got == got[..., :1]).all()
        assert got[2, 0, 0] < 30 < got[1, 1, 0]
    else:
        assert np.abs(got - COLOURS).max() <= (60 if mode == "P" else 30)


def test_cmyk_jpeg(tmp_path):
    picture().convert("CMYK").save(tmp_path / "a.jpg", quality=95, subsampling=0)
    assert np.abs(centres(read_image(tmp_path / "a.jpg"), 3, 2) - COLOURS).max() <= 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(tmp_path, mode):
    path = tmp_path / "a.png"
    if mode == "P":
        paletted = Image.new("P", (4, 4), 0)
        paletted.putpalette([10, 20, 30] * 256)
        paletted.save(path, transparency=0)
        expected = 255
    else:
        Image.new("RGBA", (4, 4), (0, 0, 0, 51)).convert(mode).save(path)
        expected = 204
    assert (np.abs(read_image(path).astype(int) - expected) <= 1).all()


def test_16_bits_are_scaled(tmp_path):
    deep = np.array([[0, 257 * 100, 257 * 200, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "grey.png")
    Image.fromarray(deep).save(tmp_path / "grey.tif")
    for name in ("grey.png", "grey.tif"):
        assert read_image(tmp_path / name)[0, :, 0].tolist() == [0, 100, 200, 255]
    rows = b"\0" + struct.pack(">6H", 65535, 257 * 100, 0, 257 * 7, 257 * 8, 257 * 9)
    write_png(tmp_path / "deep.png", 2, 1, rows, depth=16, colour=2)
    assert read_image(tmp_path / "deep.png")[0].tolist() == [[255, 100, 0], [7, 8, 9]]


@pytest.mark.parametrize(("values", "expected"), [
    ([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 255.0], [0, 100, 255]), ([-10.0, 0.0, 10.0], [0, 128, 255]),
    ([float("nan"), 0.5, float("inf")], [0, 128, 0]), ([0.0, 0.0, 0.0], [0, 0, 0]),
    ([0.0, 200.0, 400.0], [0, 128, 255]),
])  # fmt: skip
def test_float_tiff(tmp_path, values, expected):
    Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == expected


def test_first_frame_of_several(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    for name in ("a.tif", "a.webp"):
        assert read_image(tmp_path / name)[4, 4].tolist() == [255, 0, 0]


def test_8k_is_read(tmp_path):
    Image.new("RGB", (7680, 4320), (1, 2, 3)).save(tmp_path / "8k.png", compress_level=1)
    assert read_image(tmp_path / "8k.png").shape == (4320, 7680, 3)


def write_png(path, width, height, rows, depth=8, colour=2):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and ";" in message, message
    for word in words:
        assert word in message, message


def encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    picture(40).save(buffer, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    return buffer.getvalue()


def test_missing_folder_and_empty(tmp_path):
    refused(tmp_path / "none.jpg", "no such file", "check the path")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.jpg").touch()
    refused(tmp_path / "empty.jpg", "empty")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    refused(tmp_path / "broken.png", "no such file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    refused(tmp_path / "pipe.jpg", "not an ordinary file")


@pytest.mark.parametrize("content", [b"hello\n", b"\0" * 100, b"%PDF-1.7 ...", b"<svg></svg>", b"GIF89a" + b"\0" * 50])
def test_no_picture(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    refused(tmp_path / "a.jpg", "not a picture", "JPEG")


def test_heic_is_named(tmp_path):
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64)
    refused(tmp_path / "phone.heic", "HEIC", "JPEG")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.8])
def test_truncated(tmp_path, suffix, kept):
    data = encoded(suffix)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data[: max(16, int(len(data) * kept))])
    refused(path, "truncated or damaged")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["jpg", "png", "webp", "bmp", "tiff"]), where=st.floats(0, 1), noise=st.binary(max_size=40)
)
def test_any_damage_reads_or_is_refused(tmp_path, suffix, where, noise):
    data = bytearray(encoded(suffix))
    start = int(where * (len(data) - 1))
    data[start : start + len(noise)] = noise
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data)
    try:
        pixels = read_image(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8


@pytest.mark.parametrize(("width", "height"), [(20000, 20000), (100_000_001, 1), (65500, 65500)])
def test_decompression_bomb_is_refused_by_its_header(tmp_path, width, height):
    write_png(tmp_path / "bomb.png", width, height, b"\0" * 1000)
    refused(tmp_path / "bomb.png", "100 million pixels", "smaller")


def test_limit_is_inclusive(tmp_path, monkeypatch):
    picture().save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 48 * 32)
    assert read_image(tmp_path / "a.png").size == 48 * 32 * 3
    monkeypatch.setattr(images, "MAX_PIXELS", 48 * 32 - 1)
    refused(tmp_path / "a.png", "48")


def test_zero_size(tmp_path):
    write_png(tmp_path / "flat.png", 0, 5, b"")
    refused(tmp_path / "flat.png")
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 0, 0, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "flat.bmp").write_bytes(header)
    refused(tmp_path / "flat.bmp")


def test_find_images_expands_sorts_and_takes_each_once(tmp_path):
    names = ["b.PNG", "a.jpg", "c.webp", "notes.txt", ".hidden.jpg", "a.overlay.jpg", "a.0.mask.png", "a.0.depth.png"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "deep.jpg").touch()
    single = tmp_path / "notes.txt"
    found = find_images([single, tmp_path, tmp_path / "a.jpg", tmp_path / "missing.jpg", str(tmp_path)])
    assert [p.name for p in found] == ["notes.txt", "a.jpg", "b.PNG", "c.webp", "missing.jpg"]


def test_find_images_counts_frames_as_people_do(tmp_path):
    for name in ("frame10.jpg", "frame2.jpg", "frame1b.jpg", "frame1.jpg", "a2.jpg"):
        (tmp_path / name).touch()
    found = [path.name for path in find_images([tmp_path])]
    assert found == ["a2.jpg", "frame1.jpg", "frame1b.jpg", "frame2.jpg", "frame10.jpg"]


def test_find_images_passes_on_paths_that_cannot_be(tmp_path):
    """Reading them names the fault; looking for them must not end a run over a folder."""
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "a.jpg").touch()
    long = tmp_path / ("x" * 300 + ".jpg")
    assert find_images([tmp_path, long]) == [tmp_path / "a.jpg", tmp_path / "loop.jpg", long]
    refused(tmp_path / "loop.jpg")
    refused(long)


def test_find_images_names_folders_without_pictures(tmp_path):
    with pytest.raises(InputError, match="no pictures"):
        find_images([tmp_path])
    problems: list[InputError] = []
    assert find_images([tmp_path, tmp_path / "a.png"], problems) == [tmp_path / "a.png"]
    assert len(problems) == 1 and str(tmp_path) in str(problems[0])
