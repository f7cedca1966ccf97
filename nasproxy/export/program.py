"""One file that holds the whole network: a program of ``torch.export`` (``.pt2``), or ONNX."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.export.description import Description
from nasproxy.export.refusal import refusing
from nasproxy.export.trace import Trace, largest_difference, silent, trace
from nasproxy.optional import require

PROGRAMS = {"pt2": "a torch.export program", "onnx": "ONNX"}
"""The forms, and what messages call them."""


@dataclass(frozen=True)
class Program:
    """A network in one file.

    Args:
        content: of the file.
        one_by_one: whether it takes one image at a time instead of a batch of any size.
        difference: the largest difference of a logit from the network's own.
        checked_with: what ran it for that.
    """

    content: bytes
    one_by_one: bool
    difference: float
    checked_with: str


def make_program(form: str, model: nn.Module, description: Description, images: Float[Tensor, "n c h w"]) -> Program:
    """Writes ``model`` as ``form``, loads that, and compares its logits with the model's.

    Args:
        form: ``pt2`` or ``onnx``.
        model: on any device; it is not changed.
        description: goes into the file.
        images: normalised, 7 or more, for the check; nothing of them goes into the file.

    Raises:
        MissingPackageError: ONNX takes packages that are not there.
        ExportError: the network cannot be written so, or what was written gives other logits.
    """
    check_packages(form)
    name = PROGRAMS[form]
    traced = trace(model, images, name)
    about = description.text(sum(parameter.numel() for parameter in model.parameters()))
    with refusing("it cannot be converted", name), silent():
        content = (_pt2 if form == "pt2" else _onnx)(traced, about)
    with refusing("what was written cannot be loaded", name), silent():
        run, checked_with = (_run_pt2 if form == "pt2" else _run_onnx)(content)
    if traced.one_by_one:
        whole, run = run, lambda batch: torch.cat([whole(image) for image in batch.split(1)])
    difference = largest_difference(traced, run, images.cpu(), len(description.class_names), name)
    return Program(content, traced.one_by_one, difference, checked_with)


def check_packages(form: str) -> None:
    """Makes sure that what ``form`` takes is there.

    Raises:
        MissingPackageError: it is not.
    """
    if form == "onnx":
        require("ONNX", "onnx", "onnxscript")


def _pt2(traced: Trace, about: str) -> bytes:
    file = io.BytesIO()
    torch.export.save(traced.program, file, extra_files={"config.json": about})
    return file.getvalue()


def _run_pt2(content: bytes) -> tuple[Callable[[Tensor], Tensor], str]:
    run: Any = torch.export.load(io.BytesIO(content)).module()
    return run, f"torch {torch.__version__}"


def _onnx(traced: Trace, about: str) -> bytes:
    written: Any = torch.onnx.export(
        traced.program, dynamo=True, verbose=False, input_names=["images"], output_names=["logits"], external_data=False
    )
    proto = written.model_proto
    _name_batch(proto.graph)
    proto.metadata_props.add(key="config.json", value=about)
    content: bytes = proto.SerializeToString()
    return content


def _name_batch(graph: Any) -> None:
    """Calls the batch dimension ``batch``, which the trace has given a name like ``s34``."""
    given = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if given and dimension.dim_param == given:
                dimension.dim_param = "batch"


def _run_onnx(content: bytes) -> tuple[Callable[[Tensor], Tensor], str]:
    """The file's network, by onnxruntime if it is there, else by the slow reference that comes with onnx."""
    import onnx

    onnx.checker.check_model(onnx.load_from_string(content))
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        name = f"onnxruntime {onnxruntime.__version__}"
        return lambda batch: torch.from_numpy(session.run(None, {"images": batch.numpy()})[0]), name
    from onnx.reference import ReferenceEvaluator

    evaluator: Any = ReferenceEvaluator(onnx.load_from_string(content))
    name = f"the reference of onnx {onnx.__version__}"
    return lambda batch: torch.from_numpy(evaluator.run(None, {"images": batch.numpy()})[0]), name
