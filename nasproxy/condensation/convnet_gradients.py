"""The default ConvNet's gradients on a CPU, written out: they are the bulk of what condensing costs.

Activations lie channels-last from beginning to end, where torch's instance normalisation copies them to another layout
and back, and their statistics are sums over rows of contiguous channels. A convolution's bias is left out, because
normalisation takes it away again: its gradient is zero. The first convolution, of few channels, is a product of
matrices; of the others, in float32, those that gain by it are Winograd's; all are torch's if the precision is a
``-direct`` one.
"""

from __future__ import annotations

from typing import Protocol, TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.networks.convnet import ConvNet, InstanceNorm
from nasproxy.training.lowered_convolution import is_few_pixels, lowered_pixels, weight_gradient
from nasproxy.training.precision import has_amx, in_bfloat16, is_direct
from nasproxy.training.torch_convolution import torch_gradients
from nasproxy.training.winograd import WinogradConvolution
from nasproxy.training.winograd_convolution import pays

_BLOCK = (nn.Conv2d, InstanceNorm, nn.ReLU, nn.AvgPool2d)


def has_written_gradients(network: nn.Module, images: Float[Tensor, "n c h w"]) -> TypeGuard[ConvNet]:
    """Whether :class:`ConvNetGradients` can be used.

    That is, on a CPU, for a float32 or float64 ConvNet with instance normalisation, ReLU and average pooling, where all
    poolings halve an even size.
    """
    if type(network) is not ConvNet or images.device.type != "cpu":
        return False
    layers = list(network.features)
    depth = len(layers) // len(_BLOCK)
    if (
        not layers
        or [type(layer) for layer in layers] != [*_BLOCK] * depth
        or len(list(network.parameters())) != 4 * depth + 2
    ):
        return False
    convolution = layers[0]
    assert isinstance(convolution, nn.Conv2d)
    pads = 2 * (int(convolution.padding[0]) - 1)
    return all((size + pads) % 2**depth == 0 for size in images.shape[2:])


class ConvNetGradients:
    """The gradients of a network's mean cross-entropy, of which :func:`has_written_gradients` says that they are here.

    Args:
        network: its present parameters count.
        precision: in ``bfloat16`` convolutions are computed in that format, and all else in float32.
        image_size: (height, width) of the images to come, in pixels.
    """

    def __init__(self, network: ConvNet, precision: str, image_size: torch.Size) -> None:
        convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in network.features if isinstance(layer, InstanceNorm)]
        height, width = (side + 2 * int(convolutions[0].padding[0]) - 2 for side in image_size)
        self._blocks = [
            _Block(convolution, norm, precision, (height >> at, width >> at), is_first=at == 0)
            for at, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True))
        ]
        self._weight, self._bias = network.classifier.weight.detach(), network.classifier.bias.detach()

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """What the network's own ``embed`` gives."""
        return self._features(images).permute(0, 3, 1, 2).flatten(1)

    def gradients(self, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"], *, chunk: int) -> list[Tensor]:
        """In the order of the network's parameters.

        Args:
            images: of any number.
            labels: their classes.
            chunk: how many are computed at a time; memory grows with it.
        """
        on_weight, on_bias = torch.zeros_like(self._weight), torch.zeros_like(self._bias)
        for part, classes in zip(images.split(chunk), labels.split(chunk), strict=True):
            rows = self._features(part)
            # The linear layer's columns are ordered by channel, height, width.
            flat = rows.permute(0, 3, 1, 2).flatten(1)
            slope = torch.addmm(self._bias, flat, self._weight.T).softmax(dim=1)
            slope[torch.arange(len(slope)), classes] -= 1
            slope /= len(images)
            on_weight.addmm_(slope.T, flat)
            on_bias += slope.sum(dim=0)
            number, height, width, channels = rows.shape
            back = (slope @ self._weight).view(number, channels, height, width).permute(0, 2, 3, 1)
            for block in reversed(self._blocks):
                back = block.backward(back)
        return [gradient for block in self._blocks for gradient in block.gradients()] + [on_weight, on_bias]

    def _features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h2 w2 o"]:
        rows = images.permute(0, 2, 3, 1).contiguous()
        for block in self._blocks:
            rows = block.forward(rows)
        return rows


class _Convolution(Protocol):
    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]: ...

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n h w i"]: ...

    def gradient(self) -> Float[Tensor, "o i 3 3"]: ...


class _FirstConvolution:
    """As :class:`WinogradConvolution`, a product of matrices; it passes no gradient on.

    It keeps nine times the images: few channels are supposed, as images have.
    """

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype) -> None:
        weight = convolution.weight.detach().permute(2, 3, 1, 0)
        self._shape, self._padding = weight.shape, int(convolution.padding[0])
        self._weight = weight.reshape(-1, weight.shape[-1]).to(dtype)
        self._seen = self._weight
        self._slope = torch.zeros_like(self._weight, dtype=weight.dtype)

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        number, *size, _ = images.shape
        height, width = (side + 2 * self._padding - 2 for side in size)
        self._seen = lowered_pixels(images.permute(0, 3, 1, 2).to(self._weight.dtype), self._padding)
        return (self._seen.T @ self._weight).view(number, height, width, -1).to(self._slope.dtype)

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n h2 w2 o"]:
        self._slope += self._seen @ slope.view(-1, slope.shape[-1]).to(self._weight.dtype)
        return slope

    def gradient(self) -> Float[Tensor, "o i 3 3"]:
        return self._slope.view(self._shape).permute(3, 2, 0, 1)


class _PlainConvolution:
    """As :class:`WinogradConvolution`, by torch's kernels; the first of a network passes no gradient on.

    Args:
        convolution: its present weight counts.
        dtype: to compute in.
        lowers: whether the weight's gradient of few pixels is a product of matrices.
        is_first: of the network.
    """

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype, *, lowers: bool, is_first: bool) -> None:
        self._weight = convolution.weight.detach().to(dtype, memory_format=torch.channels_last)
        self._padding, self._lowers, self._is_first = int(convolution.padding[0]), lowers, is_first
        self._tiles = dtype == torch.bfloat16 and has_amx()
        self._seen = self._weight
        self._slope = torch.zeros_like(convolution.weight)

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        self._seen = images.to(self._weight.dtype).permute(0, 3, 1, 2)
        results = F.conv2d(self._seen, self._weight, padding=self._padding)
        return results.permute(0, 2, 3, 1).to(self._slope.dtype).contiguous()

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n h w i"]:
        results = slope.to(self._weight.dtype).permute(0, 3, 1, 2)
        lowered = self._lowers and is_few_pixels(self._seen, self._weight, tiles=self._tiles)
        wanted = (not self._is_first, not lowered, False)
        back, on_weight, _ = torch_gradients(results, self._seen, self._weight, wanted, padding=self._padding)
        self._slope += weight_gradient(results, self._seen) if on_weight is None else on_weight
        return slope if back is None else back.permute(0, 2, 3, 1).to(slope.dtype)

    def gradient(self) -> Float[Tensor, "o i 3 3"]:
        return self._slope


class _Block:
    """Convolution, instance normalisation, ReLU and average pooling; after each forward pass, one backward.

    Args:
        convolution: its present weight counts.
        norm: likewise.
        precision: of the convolution.
        size: (height, width) of its results.
        is_first: of the network.
    """

    def __init__(
        self, convolution: nn.Conv2d, norm: InstanceNorm, precision: str, size: tuple[int, int], *, is_first: bool
    ) -> None:
        weight = convolution.weight.detach()
        dtype = torch.bfloat16 if in_bfloat16(precision) else weight.dtype
        self._convolution: _Convolution
        if is_direct(precision):
            self._convolution = _PlainConvolution(convolution, dtype, lowers=False, is_first=is_first)
        elif is_first:
            self._convolution = _FirstConvolution(convolution, dtype)
        elif in_bfloat16(precision) or not pays(weight.shape[1], len(weight), *size):
            self._convolution = _PlainConvolution(convolution, dtype, lowers=True, is_first=False)
        else:
            self._convolution = WinogradConvolution(weight)
        self._scale, self._shift, self._eps = norm.weight.detach(), norm.bias.detach(), norm.eps
        self._on_scale, self._on_shift = torch.zeros_like(self._scale), torch.zeros_like(self._shift)

    def forward(self, images: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        maps = self._convolution.forward(images)
        number, height, width, channels = maps.shape
        centred = maps.view(number, height * width, channels)
        centred -= centred.mean(dim=1, keepdim=True)
        self._rate = (centred.square().mean(dim=1, keepdim=True) + self._eps).rsqrt_()
        self._centred = centred
        active = torch.addcmul(self._shift, centred, self._scale * self._rate).clamp_(min=0)
        self._active = active.view(number, height // 2, 2, width // 2, 2, channels)
        return F.avg_pool2d(active.view(maps.shape).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)

    def backward(self, slope: Float[Tensor, "n h2 w2 o"]) -> Float[Tensor, "n h w i"]:
        """Adds to the gradients those of the last :meth:`forward`, given the results'; returns the images'."""
        number, height, width, channels = slope.shape
        spread = (slope / 4).view(number, height, 1, width, 1, channels).expand_as(self._active)
        on_maps = torch.ops.aten.threshold_backward(spread, self._active, 0).view_as(self._centred)
        # With x the normalised maps: the mean of their gradient, and of its product with x, have no effect on x.
        mean = on_maps.mean(dim=1, keepdim=True)
        along = (on_maps * self._centred).mean(dim=1, keepdim=True) * self._rate
        pixels = self._centred.shape[1]
        self._on_shift += pixels * mean.sum(dim=(0, 1))
        self._on_scale += pixels * along.sum(dim=(0, 1))
        steep = self._scale * self._rate
        on_maps = torch.addcmul(-steep * mean, on_maps, steep)
        on_maps.addcmul_(self._centred, -steep * along * self._rate)
        return self._convolution.backward(on_maps.view(number, 2 * height, 2 * width, channels))

    def gradients(self) -> list[Tensor]:
        """Of the convolution's weight and bias, and of the normalisation's scale and shift."""
        return [self._convolution.gradient(), torch.zeros_like(self._shift), self._on_scale, self._on_shift]
