"""The images that proxies consist of, side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from nasproxy.analysis.canvas import STYLE
from nasproxy.analysis.proxy_images import class_tiles, mosaic
from nasproxy.errors import ProxyError
from nasproxy.proxies.proxy_file import load_proxy
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.text import shorten

_TILES = 24  # in a row of all proxies together, where a proxy shows more than two
_CLASSES = 20
_ZOOM = 4  # pixels of the picture for each of a small image, so that the gaps between images are narrow
_LARGEST, _WIDEST = 64, 128  # pixels: of an image's side, averaged down; of its side in the picture


def load_images(directory: Path, names: Iterable[str]) -> dict[str, ProxySet]:
    """The images of the named proxies of a comparison, where the run directory still holds them."""
    found = {}
    for name in (name for name in names if Path(name).name == name):  # scores.json may be anyone's
        with contextlib.suppress(ProxyError):  # a picture is all that is lost
            found[name] = load_proxy(directory / "proxies" / name / "proxy.safetensors")
    return found


def side_by_side(proxies: Mapping[str, ProxySet]) -> Figure:
    """A block for each proxy: a row for each class, the same number of its first images in each.

    Args:
        proxies: at least one, of one dataset.
    """
    some = next(iter(proxies.values()))
    classes = some.class_names[:_CLASSES]
    fewest = min(int(torch.bincount(proxy.labels).max()) for proxy in proxies.values())
    shown = max(1, min(fewest, max(2, _TILES // len(proxies))))
    zoom = max(1, min(_ZOOM, _WIDEST // min(_LARGEST, max(some.image_size))))
    blocks = [
        mosaic([class_tiles(proxy, label, largest=_LARGEST)[:shown] for label in range(len(classes))], shown, zoom)
        for proxy in proxies.values()
    ]
    tile = 0.3 if shown * len(proxies) <= _TILES else 0.22
    with mpl.rc_context(STYLE):
        size = (1.0 + tile * shown * len(blocks) + 0.15 * len(blocks), 0.5 + tile * len(classes))
        figure = Figure(figsize=size, dpi=200, layout="constrained")
        panels = figure.subplots(1, len(blocks), squeeze=False)[0]
        for axes, block, name in zip(panels, blocks, proxies, strict=True):
            axes.imshow(block, interpolation="nearest")
            axes.set_title(shorten(name), fontsize=8)
            axes.set_axis_off()
        height = blocks[0].shape[0] / len(classes)
        for row, name in enumerate(classes):
            panels[0].text(
                -0.02, 1 - (row + 0.5) * height / blocks[0].shape[0], shorten(name, 14), fontsize=8,
                transform=panels[0].transAxes, ha="right", va="center",
            )  # fmt: skip
    return figure
