"""3×3 convolutions with a quarter of the multiplications: Winograd's F(4×4, 3×3) of Lavin & Gray (CVPR 2016)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_OUT, _IN = 4, 6  # a tile of 4×4 results is made of 6×6 inputs
_POINTS = _IN * _IN
_EVERYWHERE = _IN + 1  # the point (1, 1): what is added there is added to each result of a tile
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
    """A 3×3 convolution of stride 1 and padding 1, and its gradients, in the transformed domain.

    There it is a matrix product at each of 36 points, and so are its two gradients. In float32 the results are about
    five times as far from exact ones as those of the plain sum, a few millionths of their size. What is in work lies in
    the same memory at each call: a few images at a time stay in the processor's cache.

    Args:
        weight: of the convolution; a later change of it is not seen.
        bias: likewise.
    """

    def __init__(self, weight: Float[Tensor, "o i 3 3"], bias: Float[Tensor, " o"] | None = None) -> None:
        outputs, inputs = weight.shape[:2]
        self._input, filters, self._result = (
            torch.tensor(rows, dtype=weight.dtype, device=weight.device) for rows in (_INPUT, _FILTER, _RESULT)
        )
        self._filter = torch.kron(filters, filters)
        flat = weight.permute(2, 3, 1, 0).reshape(9, -1)
        self._weight = (self._filter @ flat).reshape(_POINTS, inputs, outputs)
        self._bias = bias
        self._slope: Tensor | None = None
        self._bias_slope = weight.new_zeros(outputs)
        self._rooms = [weight.new_empty(0)] * 3
        self._padded = self._seen = weight.new_empty(0)

    def see(self, images: Float[Tensor, "n h w i"]) -> None:
        """Keeps the transformed images for :meth:`backward`."""
        number, height, width, channels = images.shape
        down, across = tiles_of(height), tiles_of(width)
        size = (number, _OUT * down + 2, _OUT * across + 2, channels)
        if self._padded.shape != size:
            self._padded = images.new_zeros(size)
        self._padded[:, 1 : height + 1, 1 : width + 1] = images
        image, row, pixel, one = self._padded.stride()
        tiles = self._room(0, _IN, _IN, number, down, across, channels)
        tiles.copy_(self._padded.as_strided(tiles.shape, (row, pixel, image, _OUT * row, _OUT * pixel, one)))
        seen = self._transform(self._input, tiles.view(_IN, _IN, -1), by=1, to=0)
        self._seen = seen.view(_POINTS, -1, channels)

    def forward(
        self, images: Float[Tensor, "n h w i"], into: Float[Tensor, "n h w o"] | None = None
    ) -> Float[Tensor, "n h w o"]:
        """Convolves, and keeps the transformed images for :meth:`backward`.

        Args:
            images: of any layout.
            into: where the results go, of any layout; a new contiguous tensor by default.
        """
        number, height, width, _ = images.shape
        down, across = tiles_of(height), tiles_of(width)
        outputs = self._weight.shape[2]
        if into is None:
            into = images.new_empty(number, height, width, outputs)
        self.see(images)
        products = torch.bmm(self._seen, self._weight, out=self._room(1, _POINTS, self._seen.shape[1], outputs))
        if self._bias is not None:
            products[_EVERYWHERE] += self._bias
        results = self._transform(self._result, products.view(_IN, _IN, -1), by=2, to=1)
        whole = results.view(_OUT, _OUT, number, down, across, outputs).permute(2, 3, 0, 4, 1, 5)
        if (height, width) == (_OUT * down, _OUT * across):
            return into.view(whole.shape).copy_(whole).view(into.shape)
        return into.copy_(whole.reshape(number, _OUT * down, _OUT * across, outputs)[:, :height, :width])

    def backward(self, slope: Float[Tensor, "n h w o"]) -> Float[Tensor, "n h w i"]:
        """Adds to the gradients of weight and bias those of the last images seen, given the results'.

        Returns:
            The images' gradient.
        """
        number, height, width, outputs = slope.shape
        down, across = tiles_of(height), tiles_of(width)
        if (height, width) != (_OUT * down, _OUT * across):
            slope = F.pad(slope, (0, 0, 0, _OUT * across - width, 0, _OUT * down - height))
        tiles = self._room(1, _OUT, _OUT, number, down, across, outputs)
        tiles.copy_(slope.reshape(number, down, _OUT, across, _OUT, outputs).permute(2, 4, 0, 1, 3, 5))
        products = self._transform(self._result.T, tiles.view(_OUT, _OUT, -1), by=2, to=1).view(_POINTS, -1, outputs)
        self._bias_slope += products[_EVERYWHERE].sum(0)
        if self._slope is None:
            self._slope = torch.bmm(self._seen.mT, products)
        else:
            self._slope.baddbmm_(self._seen.mT, products)
        on_seen = torch.bmm(products, self._weight.mT, out=self._room(2, *self._seen.shape))
        back = self._transform(self._input.T, on_seen.view(_IN, _IN, -1), by=1, to=2)
        parts = back.view(_IN, _IN, number, down, across, -1).permute(2, 3, 0, 4, 1, 5)
        return _overlapped(parts)[:, 1 : height + 1, 1 : width + 1]

    def gradient(self) -> Float[Tensor, "o i 3 3"]:
        """Of the weight, summed over all calls of :meth:`backward`."""
        if self._slope is None:
            return self._weight.new_zeros(*self._weight.shape[:0:-1], 3, 3)
        flat = self._filter.T @ self._slope.reshape(_POINTS, -1)
        return flat.reshape(3, 3, *self._slope.shape[1:]).permute(3, 2, 0, 1)

    def bias_gradient(self) -> Float[Tensor, " o"]:
        """Of the bias, likewise."""
        return self._bias_slope

    def _transform(
        self, matrix: Float[Tensor, "a b"], tiles: Float[Tensor, "b b rest"], *, by: int, to: int
    ) -> Float[Tensor, "a a rest"]:
        """``matrix`` applied to both directions of each tile, from any room by way of another to a third or back."""
        after, before = matrix.shape
        rows = self._room(by, after, before, tiles.shape[2])
        torch.mm(matrix, tiles.reshape(before, -1), out=rows.view(after, -1))
        return torch.bmm(matrix.expand(after, -1, -1), rows, out=self._room(to, after, after, tiles.shape[2]))

    def _room(self, number: int, *shape: int) -> Tensor:
        """Memory to write to; what was there is lost."""
        if self._rooms[number].numel() < math.prod(shape):
            self._rooms[number] = self._weight.new_empty(math.prod(shape))
        return self._rooms[number][: math.prod(shape)].view(shape)


def tiles_of(size: int) -> int:
    """How many tiles cover ``size`` pixels."""
    return -(-size // _OUT)


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
