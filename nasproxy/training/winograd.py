"""3×3 convolutions with a quarter of the multiplications: Winograd's F(4×4, 3×3) of Lavin & Gray (CVPR 2016)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nasproxy.kernels.buffers import Buffers
from nasproxy.kernels.tiles import CompiledTransforms, can_transform
from nasproxy.training.winograd_transforms import P2, POINTS, Q2, P, Q, TorchTransforms

# The filters' one-dimensional transform, which is its own for the two points of each absolute value.
_FILTER = torch.tensor(
    [
        [1 / (P2 * Q2), 0, 0],
        *([1 / n, p / n, P2 / n] for n in [2 * P2 * (P2 - Q2)] for p in (P, -P)),
        *([1 / n, q / n, Q2 / n] for n in [2 * Q2 * (Q2 - P2)] for q in (Q, -Q)),
        [0, 0, 1],
    ],
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
        self._buffers = Buffers(dtype)
        self._transforms = CompiledTransforms(self._buffers) if can_transform(dtype) else TorchTransforms(self._buffers)
        self._filter = torch.kron(_FILTER, _FILTER).to(weight.dtype)
        flat = weight.permute(2, 3, 1, 0).reshape(9, -1)
        self._weight = (self._filter @ flat).to(dtype).reshape(POINTS, inputs, outputs)
        self._bias = bias
        self._slope: Tensor | None = None
        self._widened: Tensor | None = None
        self._bias_slope = weight.new_zeros(outputs)
        self._seen = self._weight.new_empty(0)

    def see(self, images: Float[Tensor, "n h w i"]) -> None:
        """Keeps the transformed images for :meth:`backward`."""
        self._seen = self._transforms.see(images)

    def forward(
        self, images: Float[Tensor, "n h w i"], into: Float[Tensor, "n h w o"] | None = None
    ) -> Float[Tensor, "n h w o"]:
        """Convolves, and keeps the transformed images for :meth:`backward`.

        Args:
            images: of any layout.
            into: where the results go, of any layout; a new contiguous tensor by default.
        """
        outputs = self._weight.shape[2]
        if into is None:
            into = self._weight.new_empty(*images.shape[:3], outputs)
        self.see(images)
        products = self._buffers.take("products", POINTS, self._seen.shape[1], outputs)
        self._transforms.results(torch.bmm(self._seen, self._weight, out=products), self._bias, into)
        return into

    def backward(
        self, slope: Float[Tensor, "n h w o"], into: Float[Tensor, "n h w i"] | None = None
    ) -> Float[Tensor, "n h w i"]:
        """Adds to the gradients of weight and bias those of the last images seen, given the results'.

        Args:
            slope: of any layout.
            into: where the images' gradient goes, of any layout; a new contiguous tensor by default.

        Returns:
            The images' gradient.
        """
        if into is None:
            into = self._weight.new_empty(*slope.shape[:3], self._weight.shape[1])
        self._bias_slope += slope.sum((0, 1, 2), dtype=self._bias_slope.dtype)
        products = self._transforms.slopes(slope)
        self._add_slope(products)
        on_seen = torch.bmm(products, self._weight.mT, out=self._buffers.take("on_seen", *self._seen.shape))
        self._transforms.back(on_seen, into)
        return into

    def _add_slope(self, products: Float[Tensor, "36 t o"]) -> None:
        if self._slope is None:
            self._slope = torch.bmm(self._seen.mT, products).to(self._filter.dtype)
        elif self._slope.dtype == products.dtype:
            self._slope.baddbmm_(self._seen.mT, products)
        else:  # torch would widen the product into fresh memory each time, which takes longer than to multiply
            more = torch.bmm(self._seen.mT, products, out=self._buffers.take("slope", *self._slope.shape))
            self._widened = torch.empty_like(self._slope) if self._widened is None else self._widened
            self._slope += self._widened.copy_(more)

    def gradient(self) -> Float[Tensor, "o i 3 3"]:
        """Of the weight, summed over all calls of :meth:`backward`."""
        if self._slope is None:
            return self._filter.new_zeros(*self._weight.shape[:0:-1], 3, 3)
        flat = self._filter.T @ self._slope.reshape(POINTS, -1)
        return flat.reshape(3, 3, *self._slope.shape[1:]).permute(3, 2, 0, 1)

    def bias_gradient(self) -> Float[Tensor, " o"]:
        """Of the bias, likewise."""
        return self._bias_slope
