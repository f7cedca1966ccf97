"""A folder that needs no nasproxy: weights, what they are, one plain Python file that classifies images, a model card.

The network is traced by ``torch.export``, and the traced operations are written out as Python source. Nothing is
pickled, no class of the search space is needed to run it, and no format of one torch version is tied down.
"""

from __future__ import annotations

import contextlib
import runpy
import shutil
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.errors import ExportError, WriteError
from nasproxy.export.description import Description
from nasproxy.export.graph_source import NetworkSource
from nasproxy.export.refusal import refusing
from nasproxy.export.trace import largest_difference, single, trace
from nasproxy.files import rename_durably


def write_standalone(
    directory: Path, *, model: nn.Module, description: Description, images: Float[Tensor, "n c h w"], card: str = ""
) -> float:
    """Writes ``weights.safetensors``, ``config.json``, ``classify.py`` and ``README.md`` into ``directory``.

    They replace what is there. The written network is run on ``images`` in batches of 1, 2 and 7 and must give the
    model's own logits. The folder is made beside its place and renamed.

    Args:
        directory: the folder to write; its parents are made.
        model: the trained network, on any device; it is not changed. In evaluation mode it maps normalised images to
            (n, classes) logits.
        description: what it is.
        images: normalised, 7 or more, for the check.
        card: the content of ``README.md``; without it there is none.

    Returns:
        The largest difference of a logit from the model's.

    Raises:
        ExportError: the network cannot be traced, or what was written gives other logits. Weights and description are
            in ``directory`` all the same, ``classify.py`` and the card that speaks of it are not.
        WriteError: the folder cannot be written.
    """
    tensors = _tensors(model.state_dict())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    failure: ExportError | None = None
    difference = 0.0
    with _replacing(directory) as folder:
        (folder / "config.json").write_text(description.text(parameters), encoding="utf-8")
        try:
            _write_tensors(folder, tensors)
            difference = _write_classifier(folder, model, tensors, images.cpu(), len(description.class_names))
            if card:
                (folder / "README.md").write_text(card, encoding="utf-8")
        except ExportError as error:
            (folder / "classify.py").unlink(missing_ok=True)
            failure = error
    if failure is not None:
        raise failure
    return difference


@contextlib.contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``directory`` at the end, and is removed if the body raises.

    Of a symbolic link, the folder that it leads to is replaced.
    """
    place = directory.resolve()
    # One run directory has one writer, so that fixed names let a later call clear what a killed one left.
    partial, old = (place.with_name(f".{place.name}.{state}") for state in ("partial", "old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        rename_durably(partial, place)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise WriteError(
            f"The network cannot be written to {directory}: {error}.", "Free space or choose --out."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    with refusing("safetensors cannot hold its tensors"):
        # Copies: safetensors refuses tied and strided tensors.
        whole = {name: single(tensor).clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        content = safetensors.torch.save(whole)
    (folder / "weights.safetensors").write_bytes(content)


def _write_classifier(
    folder: Path, model: nn.Module, tensors: dict[str, Tensor], images: Float[Tensor, "n c h w"], num_classes: int
) -> float:
    """Writes classify.py, adds the constants it needs to the weights, and runs it against the model."""
    traced = trace(model, images)
    program = traced.program
    with refusing("its trace cannot be written"):
        source = NetworkSource(program).text(traced.one_by_one)
    template = resources.files("nasproxy.export").joinpath("classify.py.txt").read_text(encoding="utf-8")
    (folder / "classify.py").write_text(template.replace("{{network}}", source), encoding="utf-8")
    # The state dict comes last: a network loaded from the file by its own class finds its own values.
    _write_tensors(folder, _tensors({**program.constants, **program.state_dict, **tensors}))
    with refusing("what was written does not run"):
        written = runpy.run_path(str(folder / "classify.py"))
        weights = written["load_weights"]()
    return largest_difference(traced, lambda batch: written["forward"](weights, batch), images, num_classes)
