"""How long a network takes for a single image."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.benchmark import Timer

_SECONDS = 0.1  # of passes, of which the median is taken


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
    timer = Timer("model(image).cpu()", globals={"model": model, "image": image}, num_threads=torch.get_num_threads())
    return 1000 * timer.blocked_autorange(min_run_time=_SECONDS).median
