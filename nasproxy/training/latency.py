"""How long a network takes for a single image."""

from __future__ import annotations

import statistics
import timeit

import torch
from jaxtyping import Float
from torch import Tensor, nn

_SECONDS, _FEWEST = 0.1, 11  # of passes, of which the median is taken
_WARM_UP = 3


@torch.inference_mode()
def milliseconds_of(model: nn.Module, image: Float[Tensor, "1 c h w"]) -> float:
    """Median time of a forward pass of one image in float32, until the logits are in main memory.

    After a warm-up, on the device of ``model`` and with the threads that PyTorch now has. It depends on the machine and
    on what else runs there.

    Args:
        model: in float32; left in evaluation mode.
        image: normalised, on the device of ``model``.
    """
    model.eval()
    timer = timeit.Timer(lambda: model(image).cpu())
    timer.timeit(_WARM_UP)
    passes = max(_FEWEST, round(_SECONDS / timer.timeit(1)))
    return 1000 * statistics.median(timer.repeat(passes, number=1))
