"""What follows a convolution in a block of the ConvNet, computed in one go where the kernels know how."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from nasproxy.kernels import fused
from nasproxy.networks.norms import GroupNorm, InstanceNorm, LayerNorm

_LAYERS = 4  # of a block
_SLOPE = 0.01  # of the leaky ReLU that the kernels know


def is_block_by_block(features: nn.Sequential) -> bool:
    """Whether maps go through the blocks of a ConvNet one by one, and not through a sequence of layers."""
    return fused.is_wanted() and len(features) % _LAYERS == 0 and not _is_watched(features)


def after_convolution(
    maps: Float[Tensor, "n c h w"], norm: nn.Module, activation: nn.Module, pooling: nn.Module
) -> Float[Tensor, "n c h2 w2"]:
    """What the three layers make of a convolution's results."""
    how = _activation(activation), _pooling(pooling, maps)
    layers = norm, activation, pooling
    # An activation alone torch computes as fast.
    alone = type(norm) is nn.Identity and type(pooling) is nn.Identity
    if (
        not alone
        and fused.can_fuse(maps)
        and all(how)
        and _is_known(norm, maps)
        and not any(_is_watched(layer) for layer in layers)
    ):
        return _fused(maps, norm, *how)
    found: Tensor = pooling(activation(norm(maps)))
    return found


def _fused(maps: Tensor, norm: nn.Module, activation: str, pooling: str) -> Tensor:
    if isinstance(norm, nn.LayerNorm):
        scale, shift = norm.weight.permute(1, 2, 0), norm.bias.permute(1, 2, 0)
        return fused.normalised_by_groups(maps, 1, scale, shift, norm.eps, activation, pooling)
    if isinstance(norm, nn.GroupNorm):
        return fused.normalised_by_groups(maps, norm.num_groups, norm.weight, norm.bias, norm.eps, activation, pooling)
    if isinstance(norm, nn.BatchNorm2d):
        return _by_batch_norm(maps, norm, activation, pooling)
    return fused.not_normalised(maps, activation, pooling)


def _by_batch_norm(maps: Tensor, norm: nn.BatchNorm2d, activation: str, pooling: str) -> Tensor:
    means, variances = norm.running_mean, norm.running_var
    assert means is not None
    assert variances is not None
    assert norm.momentum is not None
    assert norm.num_batches_tracked is not None
    if not norm.training:
        return fused.normalised_by(maps, means, variances, norm.weight, norm.bias, norm.eps, activation, pooling)
    found, mean, variance = fused.normalised_by_batch(maps, norm.weight, norm.bias, norm.eps, activation, pooling)
    count = maps.numel() // maps.shape[1]
    with torch.no_grad():
        norm.num_batches_tracked += 1
        means.lerp_(mean, norm.momentum)
        variances.lerp_(variance * (count / (count - 1)), norm.momentum)
    return found


def _is_known(norm: nn.Module, maps: Tensor) -> bool:
    """Whether the kernels know this normalisation of these maps; what it would refuse, it shall refuse itself."""
    n, c, h, w = maps.shape
    numbers = [*norm.parameters(), *(buffer for buffer in norm.buffers() if buffer.dim())]
    if not all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in numbers):
        return False
    if type(norm) is nn.Identity:
        return True
    if type(norm) is LayerNorm:
        return norm.normalized_shape == (c, h, w) and len(numbers) == 2
    if type(norm) in (InstanceNorm, GroupNorm):
        assert isinstance(norm, nn.GroupNorm)
        return norm.num_channels == c and norm.affine and n * c * h * w > norm.num_groups
    if type(norm) is not nn.BatchNorm2d:
        return False
    kept = norm.affine and norm.track_running_stats and norm.momentum is not None
    return kept and all(len(tensor) == c for tensor in numbers) and n * h * w > 1


def _activation(layer: nn.Module) -> str:
    """Its name among the kernels'; empty if they have none."""
    if type(layer) is nn.LeakyReLU:
        return "leaky_relu" if layer.negative_slope == _SLOPE else ""
    return {nn.Sigmoid: "sigmoid", nn.ReLU: "relu"}.get(type(layer), "")


def _pooling(layer: nn.Module, maps: Tensor) -> str:
    """Its name among the kernels'; empty if they have none, or if maps have no two rows and columns."""
    if type(layer) is nn.Identity:
        return "none"
    if type(layer) not in (nn.MaxPool2d, nn.AvgPool2d) or min(maps.shape[-2:]) < 2:
        return ""
    assert isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d))
    halves = layer.kernel_size == layer.stride == 2 and layer.padding == 0 and not layer.ceil_mode
    if isinstance(layer, nn.MaxPool2d):
        return "max" if halves and layer.dilation == 1 and not layer.return_indices else ""
    return "average" if halves and layer.divisor_override is None else ""


def _is_watched(layer: nn.Module) -> bool:
    """Whether somebody has asked to see what goes in or comes out, or to compute it in another way."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in vars(layer)
        or _has_any_global_hook()
    )
