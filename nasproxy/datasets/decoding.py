"""One encoded image: its header, and its pixels. Files may be broken or hostile."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

from nasproxy.datasets.resizing import Size

# The content decides the format, not the file's name: without this list an "image.png" holding PostScript would be
# handed to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
EXTENSIONS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
GRAY_MODES = frozenset(("1", "L", "I;16", "I;16B", "I;16L"))
TRANSPARENT_MODES = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))
UNBOUNDED_MODES = frozenset(("I", "F"))
SIDEWAYS = range(5, 9)  # EXIF orientations that swap height and width

Content = bytes | Path
"""An encoded image: its bytes, or the file that holds them."""


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Makes Pillow's decompression-bomb warning an error and drops its remarks on metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_header(content: Content) -> tuple[str, Size]:
    """Pillow's mode and (height, width) as it will be after the EXIF orientation; pixels are not decoded.

    Raises:
        Exception: whatever Pillow meets in a broken file.
    """
    with _open(content) as image:
        # TIFF reports its size turned already; reading another format's EXIF without need decodes the image.
        exif = image.getexif() if "exif" in image.info and image.format != "TIFF" else Image.Exif()
        sideways = exif.get(ExifTags.Base.Orientation) in SIDEWAYS
        height, width = (image.width, image.height) if sideways else (image.height, image.width)
        return image.mode, (height, width)


def decode_image(content: Content, size: Size, channels: int) -> UInt8[np.ndarray, "channels height width"]:
    """Pixels, upright by EXIF, in ``channels`` (1 or 3) and ``size``: bilinear with antialiasing where it differs.

    Sixteen-bit gray keeps its upper eight bits; transparency is dropped; of an animation the first frame counts.

    Raises:
        Exception: whatever Pillow meets in a broken file.
    """
    with _open(content) as image:
        # JPEG can decode at 1/2, 1/4 or 1/8 scale; twice the target still leaves the last step to the resizing.
        image.draft(None, (2 * max(size), 2 * max(size)))
        image.load()
        upright = ImageOps.exif_transpose(image) if _has_exif(image) else image
        converted = _convert(upright, "L" if channels == 1 else "RGB")
        if converted.size != (size[1], size[0]):
            converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.atleast_3d(np.asarray(converted)).transpose(2, 0, 1)


def _open(content: Content) -> Image.Image:
    return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS)


def _has_exif(image: Image.Image) -> bool:
    return any("exif" in str(key).lower() or "xmp" in str(key).lower() for key in image.info)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in UNBOUNDED_MODES:
        raise ValueError(
            f"Pillow reads its pixels as numbers of unknown range (mode {image.mode}); "
            "save as 8 bits, or as 16-bit PNG or TIFF"
        )
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)
