from __future__ import annotations

import io
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, UnidentifiedImageError

from nasproxy.datasets.decoding import decode_image, read_header, strict_pillow
from nasproxy.datasets.resizing import check_image_size, choose_size, resize_images
from nasproxy.errors import DatasetError


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(height: int, width: int) -> np.ndarray:
    return np.add.outer(np.arange(height) * 10, np.arange(width)).astype(np.uint8)


def test_pixels_survive() -> None:
    gray = gradient(4, 6)
    colour = np.stack([gray, gray + 1, gray + 2], axis=2)
    assert np.array_equal(decode_image(encode(Image.fromarray(gray)), (4, 6), 1)[0], gray)
    assert np.array_equal(decode_image(encode(Image.fromarray(colour)), (4, 6), 3), colour.transpose(2, 0, 1))
    assert read_header(encode(Image.fromarray(colour))) == ("RGB", (4, 6))


def test_modes() -> None:
    gray = gradient(4, 6)
    sixteen = Image.fromarray(gray.astype(np.uint16) * 256 + 7)
    assert np.array_equal(decode_image(encode(sixteen), (4, 6), 1)[0], gray)
    black_white = Image.fromarray(gray > 20)
    assert np.array_equal(decode_image(encode(black_white), (4, 6), 1)[0], (gray > 20) * np.uint8(255))
    palette = Image.fromarray(gray).convert("RGB").quantize(4)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode_image(encode(palette), (4, 6), 3), expected)
    transparent = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert decode_image(encode(transparent), (2, 2), 3)[:, 0, 0].tolist() == [10, 20, 30]


def test_unbounded_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="mode F"):
        decode_image(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), (2, 2), 1)


def test_sixteen_bit_pgm_is_refused_for_its_unknown_range() -> None:
    with pytest.raises(
        ValueError, match=r"unknown range \(mode I\); save as 8 bits, or as 16-bit PNG or TIFF"
    ) as caught:
        decode_image(b"P5 2 1 1023\n" + bytes((3, 255, 0, 0)), (1, 2), 1)
    assert "32" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_its_upper_half(kind: str) -> None:
    pixels = np.array([[0x12FF, 0xFF00]], np.uint16)
    assert decode_image(encode(Image.fromarray(pixels), kind), (1, 2), 1).tolist() == [[[0x12, 0xFF]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str) -> None:
    # Left half white; "rotate by 90 degrees clockwise to see it right" puts white on top.
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = encode(Image.fromarray(pixels), kind, exif=exif)
    assert read_header(content) == ("RGB", (32, 16))
    upright = decode_image(content, (32, 16), 3)
    assert upright[:, :12].min() > 200
    assert upright[:, 20:].max() < 55


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_shrinking_averages(kind: str) -> None:
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 200
    small = decode_image(encode(Image.fromarray(stripes), kind), (16, 16), 1)
    assert abs(small.astype(int) - 100).max() <= 3, "without antialiasing stripes would be 0 or 200"


def test_only_image_formats_are_tried() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n"
    Image.open(io.BytesIO(postscript), formats=["EPS"]).close()  # Pillow alone would take it
    with pytest.raises(UnidentifiedImageError):
        read_header(postscript)


def test_decompression_bomb_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    content = encode(Image.new("L", (8, 8)))  # between once and twice the limit, where Pillow only warns
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with strict_pillow(), pytest.raises(Image.DecompressionBombWarning):
            read_header(content)


def test_choose_size() -> None:
    assert choose_size(Counter({(20, 30): 2, (10, 10): 1})) == (20, 30)
    assert choose_size(Counter({(20, 30): 1, (10, 10): 1})) == (10, 10)
    assert choose_size(Counter({(480, 640): 1})) == (48, 64)
    assert choose_size(Counter({(1000, 2): 1})) == (64, 1)


def test_check_image_size() -> None:
    assert check_image_size(None) is None
    assert check_image_size(32) == (32, 32)
    assert check_image_size((8, 16)) == (8, 16)
    for wrong in (0, -3, 100_000, (16, 0)):
        with pytest.raises(DatasetError, match="out of range"):
            check_image_size(wrong)


def test_resized_arrays_equal_torchs_antialiased_resizing() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for size in [(16, 16), (4, 5)]:
        reference = torch.nn.functional.interpolate(images.double(), size, mode="bilinear", antialias=True)
        assert (resize_images(images, size).double() - reference).abs().max() <= 1
    assert resize_images(images, (8, 12)) is images
