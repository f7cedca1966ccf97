"""A trained network traced by ``torch.export``, and whether what was made of the trace gives the network's logits."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from nasproxy.export.refusal import PYTHON, refusal, refusing

CHECKED_BATCHES = (1, 2, 7)
MOST_CHECKED = max(CHECKED_BATCHES)
# Other than the sizes above, so that a size that the trace took for a constant shows.
_TRACED_BATCH = 5


@dataclass(frozen=True)
class Trace:
    """A network and its trace.

    Args:
        model: for evaluation, on the CPU, in single precision.
        program: what ``torch.export`` made of it.
        one_by_one: whether the program takes one image at a time instead of a batch of any size.
    """

    model: nn.Module
    program: ExportedProgram
    one_by_one: bool


def trace(model: nn.Module, images: Float[Tensor, "n c h w"], form: str = PYTHON) -> Trace:
    """Traces a copy of ``model``, which is not changed.

    A network whose trace depends on the batch size (``x.view(len(x), -1)``) is traced for one image.

    Args:
        model: maps images to logits, on any device.
        images: of the shape that it takes. The trace holds none of their pixels.
        form: what it is traced for, as an error says.

    Raises:
        ExportError: it cannot be traced.
    """
    with refusing("it cannot be copied", form):
        frozen = _frozen(model)
    with torch.no_grad(), refusing("torch.export cannot trace it", form), silent():
        program, one_by_one = _traced(frozen, torch.zeros(_TRACED_BATCH, *images.shape[1:]))
    for graph in program.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, GraphModule) else ():
            # The lines of the user's files: what is handed on must not tell where they lie.
            node.meta.pop("stack_trace", None)
    return Trace(frozen, program, one_by_one)


def largest_difference(
    traced: Trace,
    written: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    num_classes: int,
    form: str = PYTHON,
) -> float:
    """Runs what was written on batches of 1, 2 and 7 images; the largest difference of a logit from the network's own.

    Args:
        traced: the network.
        written: what was made of it.
        images: normalised, 7 or more.
        num_classes: logits expected for each image.
        form: what was written, as an error says.

    Raises:
        ExportError: they differ by more than rounding, or are not one logit a class.
    """
    largest = 0.0
    with torch.no_grad(), refusing("what was written does not run", form), silent():
        for count in CHECKED_BATCHES:
            # Clones: a network may change its input.
            expected = traced.model(images[:count].clone())
            if expected.shape != (count, num_classes):
                raise refusal(f"it gives {tuple(expected.shape)} for {count} images of {num_classes} classes", form)
            found = written(images[:count].clone())
            scale = max(1.0, float(expected.abs().max()))
            if found.shape != expected.shape or not torch.allclose(found, expected, 1e-4, 1e-5 * scale, equal_nan=True):
                raise refusal(f"what was written gives other logits than the network on {count} images", form)
            largest = max(largest, float((found - expected).abs().nan_to_num().max()))
    return largest


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps what torch.export prints, logs and warns of from the screen; its errors still come through."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def single(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, half precision as single: half is slow, or missing, on many processors."""
    dtype = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype
    return tensor.detach().to("cpu", dtype)


def _frozen(model: nn.Module) -> nn.Module:
    frozen = copy.deepcopy(model).cpu().eval()
    for tensor in (*frozen.parameters(), *frozen.buffers()):
        tensor.data = single(tensor)
    return frozen


def _traced(model: nn.Module, images: Float[Tensor, "n c h w"]) -> tuple[ExportedProgram, bool]:
    try:
        return torch.export.export(model, (images,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False), False
    except Exception:  # torch.export raises nearly anything, and the second attempt says why
        return torch.export.export(model, (images[:1],), strict=False), True
