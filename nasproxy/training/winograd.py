"""3×3 convolutions with a quarter of the multiplications: Winograd's F(4×4, 3×3) of Lavin & Gray (CVPR 2016)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_OUT, _IN = 4, 6  # a tile of 4×4 results is made of 6×6 inputs
_POINTS = _IN * _IN
# The points 0, ±3/4, ±3/2 and infinity: rounding errors are half of those with the usual 0, ±1, ±2 (such points are
# searched for by Barabasz, Anderson, Soodhalter & Gregg 2020), and bfloat16 holds the matrices' numbers exactly.
_P, _Q = 3 / 4, 3 / 2
_P2, _Q2 = _P * _P, _Q * _Q
# The one-dimensional transforms of inputs, filters and results (Lavin & Gray).
_INPUT = torch.tensor(
    [
        [_P2 * _Q2, 0, -_P2 - _Q2, 0, 1, 0],
        [0, -_P * _Q2, -_Q2, _P, 1, 0],
        [0, _P * _Q2, -_Q2, -_P, 1, 0],
        [0, -_Q * _P2, -_P2, _Q, 1, 0],
        [0, _Q * _P2, -_P2, -_Q, 1, 0],
        [0, _P2 * _Q2, 0, -_P2 - _Q2, 0, 1],
    ],
    dtype=torch.float64,
)
_FILTER = torch.tensor(
    [
        [1 / (_P2 * _Q2), 0, 0],
        *([1 / n, p / n, _P2 / n] for n in [2 * _P2 * (_P2 - _Q2)] for p in (_P, -_P)),
        *([1 / n, q / n, _Q2 / n] for n in [2 * _Q2 * (_Q2 - _P2)] for q in (_Q, -_Q)),
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_RESULT = torch.tensor(
    [[0**power, *(point**power for point in (_P, -_P, _Q, -_Q)), power // 3] for power in range(_OUT)],
    dtype=torch.float64,
)


class WinogradConvolution:
    """A 3×3 convolution of stride 1 and padding 1, and its gradients, in the transformed domain.

    There it is a matrix product at each of 36 points, and so are its two gradients. In float32 results are three times
    as far from exact ones as those of the plain sum, a millionth of their size; in bfloat16 five times, a hundredth.
    What is in work lies in the same memory at each call: a few images at a time stay in the processor's cache.

    Args:
        weight: of the convolution; a later change of it is not seen.
        bias: likewise.
        dtype: of images, transforms and products; sums over calls are in the weight's. The weight's by default.
    """

    def __init__(
        self,
        weight: Float[Tensor, "o i 3 3"],
        bias: Float[Tensor, " o"] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        outputs, inputs = weight.shape[:2]
        dtype = dtype or weight.dtype
        # One product with a matrix of 36×36 takes longer than two with one of 6×6, but not in bfloat16.
        self._at_once = dtype == torch.bfloat16
        self._input, self._result = (
            torch.kron(matrix, matrix).to(dtype) if self._at_once else matrix.to(dtype) for matrix in (_INPUT, _RESULT)
        )
        self._filter = torch.kron(_FILTER, _FILTER).to(weight.dtype)
        flat = weight.permute(2, 3, 1, 0).reshape(9, -1)
        self._weight = (self._filter @ flat).to(dtype).reshape(_POINTS, inputs, outputs)
        self._bias = None if bias is None else bias.to(dtype)
        self._slope: Tensor | None = None
        self._widened: Tensor | None = None
        self._bias_slope = weight.new_zeros(outputs)
        self._rooms: dict[str, Tensor] = {}
        self._padded = self._seen = self._weight.new_empty(0)

    def see(self, images: Float[Tensor, "n h w i"]) -> None:
        """Keeps the transformed images for :meth:`backward`."""
        number, height, width, channels = images.shape
        down, across = tiles_of(height), tiles_of(width)
        size = (number, _OUT * down + 2, _OUT * across + 2, channels)
        if self._padded.shape != size:
            self._padded = self._weight.new_zeros(size)
        self._padded[:, 1 : height + 1, 1 : width + 1] = images
        image, row, pixel, one = self._padded.stride()
        tiles = self._room("tiles", _IN, _IN, number, down, across, channels)
        tiles.copy_(self._padded.as_strided(tiles.shape, (row, pixel, image, _OUT * row, _OUT * pixel, one)))
        self._seen = self._transform(self._input, tiles, to="seen").view(_POINTS, -1, channels)

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
        products = torch.bmm(
            self._seen, self._weight, out=self._room("products", _POINTS, self._seen.shape[1], outputs)
        )
        results = self._transform(self._result, products, to="tiles")
        whole = results.view(_OUT, _OUT, number, down, across, outputs).permute(2, 3, 0, 4, 1, 5)
        bias = self._weight.new_zeros(()) if self._bias is None else self._bias
        if (height, width) == (_OUT * down, _OUT * across):
            torch.add(whole, bias, out=into.view(whole.shape))
        else:
            cut = whole.reshape(number, _OUT * down, _OUT * across, outputs)[:, :height, :width]
            torch.add(cut, bias, out=into)
        return into

    def backward(self, slope: Float[Tensor, "n h w o"]) -> Float[Tensor, "n h w i"]:
        """Adds to the gradients of weight and bias those of the last images seen, given the results'.

        Returns:
            The images' gradient.
        """
        number, height, width, outputs = slope.shape
        down, across = tiles_of(height), tiles_of(width)
        self._bias_slope += slope.sum((0, 1, 2), dtype=self._bias_slope.dtype)
        if (height, width) != (_OUT * down, _OUT * across):
            slope = F.pad(slope, (0, 0, 0, _OUT * across - width, 0, _OUT * down - height))
        tiles = self._room("tiles", _OUT, _OUT, number, down, across, outputs)
        tiles.copy_(slope.reshape(number, down, _OUT, across, _OUT, outputs).permute(2, 4, 0, 1, 3, 5))
        products = self._transform(self._result.T, tiles, to="products").view(_POINTS, -1, outputs)
        self._add_slope(products)
        on_seen = torch.bmm(products, self._weight.mT, out=self._room("tiles", *self._seen.shape))
        back = self._transform(self._input.T, on_seen, to="products")
        parts = back.view(_IN, _IN, number, down, across, -1).permute(2, 3, 0, 4, 1, 5)
        return _overlapped(parts)[:, 1 : height + 1, 1 : width + 1]

    def _add_slope(self, products: Float[Tensor, "36 t o"]) -> None:
        if self._slope is None:
            self._slope = torch.bmm(self._seen.mT, products).to(self._filter.dtype)
        elif self._slope.dtype == products.dtype:
            self._slope.baddbmm_(self._seen.mT, products)
        else:  # torch would widen the product into fresh memory each time, which takes longer than to multiply
            more = torch.bmm(self._seen.mT, products, out=self._room("slope", *self._slope.shape))
            self._widened = torch.empty_like(self._slope) if self._widened is None else self._widened
            self._slope += self._widened.copy_(more)

    def gradient(self) -> Float[Tensor, "o i 3 3"]:
        """Of the weight, summed over all calls of :meth:`backward`."""
        if self._slope is None:
            return self._filter.new_zeros(*self._weight.shape[:0:-1], 3, 3)
        flat = self._filter.T @ self._slope.reshape(_POINTS, -1)
        return flat.reshape(3, 3, *self._slope.shape[1:]).permute(3, 2, 0, 1)

    def bias_gradient(self) -> Float[Tensor, " o"]:
        """Of the bias, likewise."""
        return self._bias_slope

    def _transform(self, matrix: Float[Tensor, "a b"], tiles: Tensor, *, to: str) -> Tensor:
        """``matrix`` applied to tiles whose points come first, at once or in one direction, then the other."""
        after, before = matrix.shape
        flat = tiles.reshape(before, -1)
        if self._at_once:
            return torch.mm(matrix, flat, out=self._room(to, after, flat.shape[1]))
        rest = flat.shape[1] // before
        rows = self._room("rows", after, before, rest)
        torch.mm(matrix, flat, out=rows.view(after, -1))
        return torch.bmm(matrix.expand(after, -1, -1), rows, out=self._room(to, after, after, rest))

    def _room(self, name: str, *shape: int) -> Tensor:
        """Memory to write to; what was there is lost."""
        room = self._rooms.get(name)
        if room is None or room.numel() < math.prod(shape):
            room = self._rooms[name] = self._weight.new_empty(math.prod(shape))
        return room[: math.prod(shape)].view(shape)


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
