"""The transforms of Winograd's F(4×4, 3×3) as matrix products, for any processor and any format."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nasproxy.kernels.buffers import Buffers

OUT, IN = 4, 6  # a tile of 4×4 results is made of 6×6 inputs
POINTS = IN * IN
# The points 0, ±3/4, ±3/2 and infinity: rounding errors are half of those with the usual 0, ±1, ±2 (such points are
# searched for by Barabasz, Anderson, Soodhalter & Gregg 2020), and bfloat16 holds the matrices' numbers exactly.
P, Q = 3 / 4, 3 / 2
P2, Q2 = P * P, Q * Q
# The one-dimensional transforms of inputs and results (Lavin & Gray).
_INPUT = torch.tensor(
    [
        [P2 * Q2, 0, -P2 - Q2, 0, 1, 0],
        [0, -P * Q2, -Q2, P, 1, 0],
        [0, P * Q2, -Q2, -P, 1, 0],
        [0, -Q * P2, -P2, Q, 1, 0],
        [0, Q * P2, -P2, -Q, 1, 0],
        [0, P2 * Q2, 0, -P2 - Q2, 0, 1],
    ],
    dtype=torch.float64,
)
_RESULT = torch.tensor(
    [[0**power, *(point**power for point in (P, -P, Q, -Q)), power // 3] for power in range(OUT)],
    dtype=torch.float64,
)


def tiles_of(size: int) -> int:
    """How many tiles cover ``size`` pixels."""
    return -(-size // OUT)


class TorchTransforms:
    """Each transform in a few passes over memory.

    Args:
        buffers: where what is returned, and what lies between, is kept until the next call.
    """

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        # One product with a matrix of 36×36 takes longer than two with one of 6×6, but not in bfloat16.
        self._at_once = buffers.dtype == torch.bfloat16
        self._input, self._result = (
            torch.kron(matrix, matrix).to(buffers.dtype) if self._at_once else matrix.to(buffers.dtype)
            for matrix in (_INPUT, _RESULT)
        )
        self._padded = torch.empty(0, device="cpu")

    def see(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "36 t i"]:
        """Overlapping tiles of 6×6 pixels, transformed."""
        number, height, width, channels = images.shape
        down, across = tiles_of(height), tiles_of(width)
        size = (number, OUT * down + 2, OUT * across + 2, channels)
        if self._padded.shape != size:
            self._padded = torch.zeros(size, dtype=self._buffers.dtype, device="cpu")
        self._padded[:, 1 : height + 1, 1 : width + 1] = images
        image, row, pixel, one = self._padded.stride()
        tiles = self._buffers.take("tiles", IN, IN, number, down, across, channels)
        tiles.copy_(self._padded.as_strided(tiles.shape, (row, pixel, image, OUT * row, OUT * pixel, one)))
        return self._transform(self._input, tiles, to="seen").view(POINTS, -1, channels)

    def results(
        self, products: Float[Tensor, "36 t o"], bias: Float[Tensor, " o"] | None, into: Float[Tensor, "n h w o"]
    ) -> None:
        """The pixels of products, and a bias added."""
        number, height, width, outputs = into.shape
        down, across = tiles_of(height), tiles_of(width)
        results = self._transform(self._result, products, to="tiles")
        whole = results.view(OUT, OUT, number, down, across, outputs).permute(2, 3, 0, 4, 1, 5)
        more = torch.zeros((), dtype=self._buffers.dtype) if bias is None else bias.to(self._buffers.dtype)
        if (height, width) == (OUT * down, OUT * across) and into.is_contiguous():
            torch.add(whole, more, out=into.view(whole.shape))
        else:
            cut = whole.reshape(number, OUT * down, OUT * across, outputs)[:, :height, :width]
            torch.add(cut, more, out=into)

    def slopes(self, on_results: Float[Tensor, "n h w o"]) -> Float[Tensor, "36 t o"]:
        """The gradient on products from that on results."""
        number, height, width, outputs = on_results.shape
        down, across = tiles_of(height), tiles_of(width)
        if (height, width) != (OUT * down, OUT * across):
            on_results = F.pad(on_results, (0, 0, 0, OUT * across - width, 0, OUT * down - height))
        tiles = self._buffers.take("tiles", OUT, OUT, number, down, across, outputs)
        tiles.copy_(on_results.reshape(number, down, OUT, across, OUT, outputs).permute(2, 4, 0, 1, 3, 5))
        return self._transform(self._result.T, tiles, to="products").view(POINTS, -1, outputs)

    def back(self, on_seen: Float[Tensor, "36 t i"], into: Float[Tensor, "n h w i"]) -> None:
        """The gradient on images from that on tiles seen, which overlap."""
        number, height, width, channels = into.shape
        down, across, rest = tiles_of(height), tiles_of(width), IN - OUT
        tiles = self._transform(self._input.T, on_seen, to="tiles")
        parts = tiles.view(IN, IN, number, down, across, channels).permute(2, 3, 0, 4, 1, 5)
        whole = parts.new_zeros(number, down + 1, OUT, across + 1, OUT, channels)
        whole[:, :down, :, :across] = parts[:, :, :OUT, :, :OUT]
        whole[:, 1:, :rest, :across] += parts[:, :, OUT:, :, :OUT]
        whole[:, :down, :, 1:, :rest] += parts[:, :, :OUT, :, OUT:]
        whole[:, 1:, :rest, 1:, :rest] += parts[:, :, OUT:, :, OUT:]
        # Pixel (0, 0) is the padding's.
        into.copy_(
            whole.reshape(number, OUT * (down + 1), OUT * (across + 1), channels)[:, 1 : height + 1, 1 : width + 1]
        )

    def _transform(self, matrix: Float[Tensor, "a b"], tiles: Tensor, *, to: str) -> Tensor:
        """``matrix`` applied to tiles whose points come first, at once or in one direction, then the other."""
        after, before = matrix.shape
        flat = tiles.reshape(before, -1)
        if self._at_once:
            return torch.mm(matrix, flat, out=self._buffers.take(to, after, flat.shape[1]))
        rest = flat.shape[1] // before
        rows = self._buffers.take("rows", after, before, rest)
        torch.mm(matrix, flat, out=rows.view(after, -1))
        return torch.bmm(matrix.expand(after, -1, -1), rows, out=self._buffers.take(to, after, after, rest))
