"""3×3 convolutions with a quarter of the multiplications: Winograd's F(4×4, 3×3) of Lavin & Gray (CVPR 2016)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_OUT, _IN = 4, 6  # a tile of 4×4 results is made of 6×6 inputs
_POINTS = _IN * _IN
# The one-dimensional transforms of inputs, filters and results, for the points 0, ±1, ±2 and infinity (Lavin & Gray).
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_FILTER = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_RESULT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class WinogradConvolution:
    """A 3×3 convolution of stride 1 and padding 1 without bias, and its gradients, in the transformed domain.

    There it is a matrix product at each of 36 points, and so are its two gradients. In float32 the results are about
    ten times as far from exact ones as those of the plain sum, a few millionths of their size.

    Args:
        weight: of the convolution; a later change of it is not seen.
    """

    def __init__(self, weight: Float[Tensor, "o i 3 3"]) -> None:
        outputs, inputs = weight.shape[:2]
        self._input, filters, self._result = (
            torch.tensor(rows, dtype=weight.dtype, device=weight.device) for rows in (_INPUT, _FILTER, _RESULT)
        )
        self._filter = torch.kron(filters, filters)
        flat = weight.permute(2, 3, 1, 0).reshape(9, -1)
        self._weight = (self._filter @ flat).reshape(_POINTS, inputs, outputs)
        self._slope = torch.zeros_like(self._weight)
        self._seen = weight.new_empty(0)

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h w o"]:
        """Convolves, and keeps the transformed images for :meth:`backward`."""
        number, height, width, channels = images.shape
        down, across = -(-height // _OUT), -(-width // _OUT)
        padded = images.new_zeros(number, _OUT * down + 2, _OUT * across + 2, channels)
        padded[:, 1 : height + 1, 1 : width + 1] = images
        image, row, pixel, one = padded.stride()
        tiles = padded.as_strided(
            (_IN, _IN, number, down, across, channels), (row, pixel, image, _OUT * row, _OUT * pixel, one)
        )
        self._seen = _transform(self._input, tiles.reshape(_IN, _IN, -1)).reshape(_POINTS, -1, channels)
        products = torch.bmm(self._seen, self._weight).reshape(_IN, _IN, -1)
        results = _transform(self._result, products).reshape(_OUT, _OUT, number, down, across, -1)
        whole = results.permute(2, 3, 0, 4, 1, 5).reshape(number, _OUT * down, _OUT * across, -1)
        return whole[:, :height, :width].contiguous()

    def backward(self, slope: Float[Tensor, "n h w o"]) -> Float[Tensor, "n h w i"]:
        """Adds to the weight's gradient that of the last :meth:`forward`, given the results'; returns the images'."""
        number, height, width, outputs = slope.shape
        down, across = -(-height // _OUT), -(-width // _OUT)
        slope = F.pad(slope, (0, 0, 0, _OUT * across - width, 0, _OUT * down - height))
        tiles = slope.reshape(number, down, _OUT, across, _OUT, outputs).permute(2, 4, 0, 1, 3, 5)
        products = _transform(self._result.T, tiles.reshape(_OUT, _OUT, -1)).reshape(_POINTS, -1, outputs)
        self._slope.baddbmm_(self._seen.mT, products)
        back = _transform(self._input.T, torch.bmm(products, self._weight.mT).reshape(_IN, _IN, -1))
        parts = back.reshape(_IN, _IN, number, down, across, -1).permute(2, 3, 0, 4, 1, 5)
        return _overlapped(parts)[:, 1 : height + 1, 1 : width + 1]

    def gradient(self) -> Float[Tensor, "o i 3 3"]:
        """Of the weight, summed over all calls of :meth:`backward`."""
        flat = self._filter.T @ self._slope.reshape(_POINTS, -1)
        return flat.reshape(3, 3, *self._slope.shape[1:]).permute(3, 2, 0, 1)


def _transform(matrix: Float[Tensor, "a b"], tiles: Float[Tensor, "b b rest"]) -> Float[Tensor, "a a rest"]:
    """``matrix`` applied to both directions of each tile."""
    rows = matrix @ tiles.reshape(len(tiles), -1)
    return matrix @ rows.reshape(len(matrix), len(tiles), -1)


def _overlapped(parts: Float[Tensor, "n down 6 across 6 c"]) -> Float[Tensor, "n h w c"]:
    """The sum of tiles that lie 4 pixels apart; pixel (0, 0) is the padding's."""
    number, down, _, across, _, channels = parts.shape
    whole = parts.new_zeros(number, down + 1, _OUT, across + 1, _OUT, channels)
    rest = _IN - _OUT
    whole[:, :down, :, :across] = parts[:, :, :_OUT, :, :_OUT]
    whole[:, 1:, :rest, :across] += parts[:, :, _OUT:, :, :_OUT]
    whole[:, :down, :, 1:, :rest] += parts[:, :, :_OUT, :, _OUT:]
    whole[:, 1:, :rest, 1:, :rest] += parts[:, :, _OUT:, :, _OUT:]
    return whole.reshape(number, _OUT * (down + 1), _OUT * (across + 1), channels)
