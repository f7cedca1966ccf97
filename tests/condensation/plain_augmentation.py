"""A second implementation of the augmentations, as plain as can be."""

from __future__ import annotations

import math

import torch

from nasproxy.condensation import inner_training, outer_loop
from nasproxy.training.train import in_batches
from nasproxy.training.transforms import draw_transform


class Augmented:
    """The transformations that were drawn, applied once more in float64 by other code, an image at a time."""

    def __init__(self, monkeypatch):
        self.drawn, self.orders, self._turn = [], [], 0
        monkeypatch.setattr(outer_loop, "draw_transform", self._draw)
        monkeypatch.setattr(inner_training, "in_batches", self._batches)

    def _draw(self, *arguments, **named):
        self.drawn.append(draw_transform(*arguments, **named))
        return self.drawn[-1]

    def _batches(self, order, size):
        self.orders.append((len(self.drawn), order.tolist()))
        return in_batches(order, size)

    def restart(self):
        self.drawn.clear()
        self.orders.clear()

    def __call__(self, images):
        order = dict(self.orders).get(self._turn, range(len(images)))  # that in which the batch was drawn for
        transform, self._turn = self.drawn[self._turn], self._turn + 1
        results = [None] * len(images)
        for place, at in enumerate(order):
            settings = {name: one_of(value, place) for name, value in transform.keywords.items()}
            results[at] = PLAIN[transform.func.__name__](images[at], **settings)
        return torch.stack(results)


def one_of(value, place):
    if isinstance(value, tuple):
        return [one_of(each, place) for each in value]
    return value.reshape(-1)[place].item() if value.numel() > 1 else value.item()


def colored(image, *, brightness, saturation, contrast):
    image = image + brightness
    gray = image.sum(dim=0) / len(image)
    image = torch.stack([gray * (1 - saturation) + channel * saturation for channel in image])
    mean = image.sum() / image.numel()
    return mean * (1 - contrast) + image * contrast


def shifted(image, *, down, right):
    image = image.roll((down, right), (1, 2)).clone()
    height, width = image.shape[1:]
    rows, columns = torch.arange(height)[:, None] - down, torch.arange(width)[None] - right
    return torch.where((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width), image, 0.0)


def without_rectangle(image, *, rows, columns):
    kept = torch.ones_like(image)
    kept[:, rows[0] : rows[1], columns[0] : columns[1]] = 0
    return image * kept


def sampled(image, source):
    """Bilinear, zeros outside; ``source`` gives (row, column) from the centre, in pixels, for those of the result."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y, x = source(row - (height - 1) / 2, column - (width - 1) / 2)
            y, x = y + (height - 1) / 2, x + (width - 1) / 2
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        share = torch.zeros(height, width, dtype=image.dtype)
                        share[row, column] = (1 - abs(y - i)) * (1 - abs(x - j))
                        result = result + share * image[:, i, j].view(channels, 1, 1)
    return result


def turned(image, *, degrees):
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return sampled(image, lambda y, x: (sine * x + cosine * y, cosine * x - sine * y))


PLAIN = {
    "color": colored,
    "shift": shifted,
    "cut_out": without_rectangle,
    "mirror": lambda image, *, chosen: image[:, :, torch.arange(image.shape[2] - 1, -1, -1)] if chosen else image,
    "scale": lambda image, *, vertical, horizontal: sampled(image, lambda y, x: (y / vertical, x / horizontal)),
    "rotate": turned,
}
