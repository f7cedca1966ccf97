"""Hands the winner over: its weights, what it is, and one plain Python file that classifies images without nasproxy.

The network is traced by ``torch.export``, and the traced operations are written out as Python source. Nothing is
pickled, no class of the search space is needed to run it, and no format of one torch version is tied down.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import math
import runpy
import shutil
import warnings
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import WriteError
from nasproxy.search.graph_source import NetworkSource, WinnerError, refusal
from nasproxy.search.space import Config

SCHEMA = 1
CHECKED_BATCHES = (1, 2, 7)
# Other than the sizes above, so that a size that the trace took for a constant shows.
TRACED_BATCH = 5


def write_winner(
    directory: Path,
    *,
    model: nn.Module,
    config: Config,
    candidate_id: str,
    space: str,
    dataset: ImageDataset,
    scores: Mapping[str, float | int | None],
    versions: Mapping[str, str],
) -> Path:
    """Writes ``weights.safetensors``, ``config.json`` and ``classify.py`` into ``directory``, replacing what is there.

    The written network is run on validation images in batches of 1, 2 and 7 and must give the model's own logits.
    The folder is made beside its place and renamed.

    Args:
        directory: the folder to write; its parents are made.
        model: the trained network, on any device; it is not changed. In evaluation mode it maps
            (n, channels, height, width) normalised images to (n, classes) logits.
        config: the configuration it was built from.
        candidate_id: the candidate's id.
        space: the name of its search space.
        dataset: what it was trained on; gives the class names, the normalisation and the images of the check.
        scores: what is known of its quality; figures that are not finite are written as null.
        versions: of the libraries that trained it.

    Returns:
        ``directory``.

    Raises:
        WinnerError: the network cannot be traced, or what was written gives other logits. Weights and description are
            in ``directory`` all the same, ``classify.py`` is not.
        WriteError: the folder cannot be written.
    """
    tensors = _tensors(model.state_dict())
    description = {
        "schema": SCHEMA,
        "id": candidate_id,
        "space": space,
        "config": config,
        "scores": {name: value if value is None or math.isfinite(value) else None for name, value in scores.items()},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "class_names": dataset.class_names,
        "normalisation": {"mean": dataset.normalisation.mean, "std": dataset.normalisation.std},
        "versions": dict(versions),
    }
    failure: WinnerError | None = None
    with _replacing(directory) as folder:
        (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        try:
            _write_tensors(folder, tensors)
            _write_classifier(folder, model, tensors, dataset)
        except WinnerError as error:
            (folder / "classify.py").unlink(missing_ok=True)
            failure = error
    if failure is not None:
        raise failure
    return directory


@contextlib.contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``directory`` at the end, and is removed if the body raises."""
    # One run directory has one writer, so that fixed names let a later call clear what a killed one left.
    partial, old = (directory.with_name(f".{directory.name}.{state}") for state in ("partial", "old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():
            directory.rename(old)
        partial.rename(directory)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise WriteError(
            f"The winner cannot be written to {directory}: {error}.", "Free space or choose --out."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _single(tensor: Tensor) -> Tensor:
    # Half precision is slow, or missing, on many processors.
    dtype = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype
    return tensor.detach().to("cpu", dtype)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    with _as_winner_error("safetensors cannot hold its tensors"):
        # Copies: safetensors refuses tied and strided tensors.
        whole = {name: _single(tensor).clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        content = safetensors.torch.save(whole)
    (folder / "weights.safetensors").write_bytes(content)


def _write_classifier(folder: Path, model: nn.Module, tensors: dict[str, Tensor], dataset: ImageDataset) -> None:
    """Writes classify.py, adds the constants it needs to the weights, and runs it against the model."""
    positions = torch.arange(max(*CHECKED_BATCHES, TRACED_BATCH)) % len(dataset.validation)
    images = dataset.normalisation.apply(dataset.validation.images.cpu()[positions])
    with _as_winner_error("it cannot be copied"):
        model = _frozen(model)
    with torch.no_grad(), _as_winner_error("torch.export cannot trace it"), _silent():
        program, one_by_one = _traced(model, images)
    with _as_winner_error("its trace cannot be written"):
        source = NetworkSource(program).text(one_by_one)
    template = resources.files("nasproxy.search").joinpath("classify.py.txt").read_text(encoding="utf-8")
    (folder / "classify.py").write_text(template.replace("{{network}}", source), encoding="utf-8")
    # The state dict comes last: a network loaded from the file by its own class finds its own values.
    _write_tensors(folder, _tensors({**program.constants, **program.state_dict, **tensors}))
    with torch.no_grad(), _as_winner_error("what was written does not run"):
        _check(folder / "classify.py", model, images, dataset.num_classes)


@contextlib.contextmanager
def _as_winner_error(what: str) -> Iterator[None]:
    """Any exception of the body as a WinnerError: it stems from the network, which may be a stranger's."""
    try:
        yield
    except WinnerError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise refusal(f"{what}: {type(error).__name__}: {reason}") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps what torch.export prints, logs and warns of from the screen; its errors still come through."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _frozen(model: nn.Module) -> nn.Module:
    """A copy for evaluation on the CPU in single precision."""
    frozen = copy.deepcopy(model).cpu().eval()
    for tensor in (*frozen.parameters(), *frozen.buffers()):
        tensor.data = _single(tensor)
    return frozen


def _traced(model: nn.Module, images: Float[Tensor, "n c h w"]) -> tuple[ExportedProgram, bool]:
    """The traced network, and whether it takes one image at a time.

    That is the way out for a network whose trace depends on the batch size (``x.view(len(x), -1)``).
    """
    try:
        batch = (images[:TRACED_BATCH],)
        return torch.export.export(model, batch, dynamic_shapes=({0: Dim.DYNAMIC},), strict=False), False
    except Exception:  # torch.export raises nearly anything, and the second attempt says why
        return torch.export.export(model, (images[:1],), strict=False), True


def _check(file: Path, model: nn.Module, images: Float[Tensor, "n c h w"], num_classes: int) -> None:
    """Runs the written file and compares its logits with the model's.

    Raises:
        WinnerError: they differ by more than rounding, or are not one logit a class.
    """
    written = runpy.run_path(str(file))
    weights = written["load_weights"]()
    for count in CHECKED_BATCHES:
        # Clones: a network may change its input.
        expected = model(images[:count].clone())
        found = written["forward"](weights, images[:count].clone())
        if expected.shape != (count, num_classes):
            raise refusal(f"it gives {tuple(expected.shape)} for {count} images of {num_classes} classes")
        scale = max(1.0, float(expected.abs().max()))
        if found.shape != expected.shape or not torch.allclose(found, expected, 1e-4, 1e-5 * scale, equal_nan=True):
            raise refusal(f"what was written gives other logits than the network on {count} images")
