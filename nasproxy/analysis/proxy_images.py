"""The proxy's images as a person sees them: one row a class."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.nn.functional import interpolate

from nasproxy.analysis.canvas import STYLE, save_figure
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.text import shorten

_DPI = 150
_GUTTER = 2  # Pixels between images.
_TILE, _LABEL_HEIGHT = 64, 24  # Pixels: a tile's wanted size, and the least height of a row that a name fits.
_WIDEST, _HIGHEST = 2600, 5000  # Pixels of all rows together; a grid of 100 by 50 must not take a minute to write.


def class_tiles(proxy: ProxySet, label: int, *, largest: int | None = None) -> UInt8[np.ndarray, "n height width rgb"]:
    """The pixels of the images of class ``label``, in the proxy's order.

    Args:
        proxy: whose images.
        label: the class.
        largest: in pixels; images with a longer side are averaged down to it.
    """
    images = proxy.normalisation.invert(proxy.images[proxy.labels == label].detach().cpu())
    longest = max(proxy.image_size)
    if largest and longest > largest and len(images):
        size = [max(1, round(side * largest / longest)) for side in proxy.image_size]
        images = interpolate(images.float(), size=size, mode="area").round().to(torch.uint8)
    return images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def proxy_grid(proxy: ProxySet) -> Figure:
    """All images: a row for each class under its name, a column for each of its images.

    Small images are enlarged a whole number of times, so that each of their pixels stays a square; a grid too large
    for one picture is made of images averaged down.
    """
    rows = len(proxy.class_names)
    columns = max(1, int(torch.bincount(proxy.labels, minlength=rows).max()))
    room = max(4, min(_WIDEST // columns, _HIGHEST // rows) - _GUTTER)
    largest = max(proxy.image_size)
    zoom = max(1, min(math.ceil(_TILE / largest), room // largest))
    picture = mosaic([class_tiles(proxy, label, largest=room) for label in range(rows)], columns, zoom)
    names = [shorten(name) for name in proxy.class_names]
    with mpl.rc_context(STYLE):
        return _beside_names(
            picture, names, f"{len(proxy)} images ({shorten(proxy.method)}) of {shorten(proxy.dataset)}"
        )


def save_proxy_grid(proxy: ProxySet, path: Path) -> Path:
    """Writes ``proxy_grid`` as the path's suffix says (.png, .svg, .pdf); returns the path.

    Raises:
        InputError: another suffix.
        WriteError: the file cannot be written.
    """
    return save_figure(proxy_grid(proxy), path)


def mosaic(
    classes: list[UInt8[np.ndarray, "_ height width rgb"]], columns: int, zoom: int
) -> UInt8[np.ndarray, "all_height all_width rgb"]:
    """White paper with every image in its place, each pixel ``zoom`` by ``zoom`` large."""
    height, width = (side * zoom for side in classes[0].shape[1:3])
    row = max(height, _LABEL_HEIGHT) + _GUTTER
    picture = np.full((row * len(classes), (width + _GUTTER) * columns, 3), 255, dtype=np.uint8)
    for r, tiles in enumerate(classes):
        for c, tile in enumerate(tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)):
            left = c * (width + _GUTTER)
            picture[r * row : r * row + height, left : left + width] = tile
    return picture


def _beside_names(picture: UInt8[np.ndarray, "height width rgb"], names: list[str], title: str) -> Figure:
    """The picture pixel by pixel in a figure with a name left of each row; layout engines would resample it."""
    figure = Figure(dpi=_DPI)
    FigureCanvasAgg(figure)
    texts = [figure.text(0, 0, name, fontsize=8, ha="right", va="center") for name in names]
    heading = figure.text(0, 0, title, fontsize=9, va="center")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        margin = 12 + math.ceil(max(text.get_window_extent().width for text in texts))
        heading_width = math.ceil(heading.get_window_extent().width)
    height, width = picture.shape[:2]
    all_width, all_height = max(margin + width, 12 + heading_width) + 6, height + 38
    figure.set_size_inches(all_width / _DPI, all_height / _DPI)
    axes = figure.add_axes((margin / all_width, 6 / all_height, width / all_width, height / all_height))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    heading.set_position((6 / all_width, 1 - 16 / all_height))
    for row, text in enumerate(texts):
        middle = 6 + height - (row + 0.5) * height / len(texts)
        text.set_position(((margin - 6) / all_width, middle / all_height))
    return figure
