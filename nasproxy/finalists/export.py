"""Writes a finalist in a form that needs no nasproxy, with a model card beside it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nasproxy.errors import ExportError, InputError, nearest
from nasproxy.export.card import Latency, model_card
from nasproxy.export.loading import loading_of
from nasproxy.export.program import PROGRAMS, check_packages, make_program
from nasproxy.export.standalone import write_standalone
from nasproxy.files import make_folder, write_atomically
from nasproxy.finalists.load import Finalist
from nasproxy.text import counted
from nasproxy.training.latency import milliseconds_of
from nasproxy.versions import processor

FORMATS = ("torch", *PROGRAMS)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: the file, or the folder of ``torch``.
        card: the model card.
        any_batch: whether it takes batches of any size; otherwise one image at a time.
        difference: the largest difference of a logit from the network's own.
        checked_with: what ran it for that.
        latency_ms: milliseconds of a forward pass of one image, in PyTorch on this machine's CPU.
    """

    path: Path
    card: Path
    any_batch: bool
    difference: float
    checked_with: str
    latency_ms: float

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "path": str(self.path), "card": str(self.card), "bytes": self.bytes}

    @property
    def bytes(self) -> int:
        """Of the file, or of all files in the folder."""
        files = self.path.iterdir() if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files)


def check_export(form: str, out: Path) -> None:
    """Makes sure that something may be written to ``out`` as ``form``; writes nothing.

    Raises:
        InputError: there is no such form, a package that it takes is missing, or something is in the way.
    """
    if form not in FORMATS:
        raise InputError(f"No format is called {form!r}.", nearest(form, FORMATS))
    check_packages(form)
    files = _files(form, out)
    there = next((path for path in files if path.exists()), None)
    if form == "torch" and out.is_dir() and not any(out.iterdir()):
        if out.samefile(Path.cwd()):  # the folder that takes its place would be another, in which nobody stands
            raise InputError(f"--out {out} is the folder that the command runs in.", "Give a new one: --out NAME")
        return
    if there is not None:
        raise InputError(f"{there} is there already.", "Choose another --out, or remove it.")


def export_finalist(finalist: Finalist, form: str, out: Path) -> Exported:
    """Writes ``finalist`` to ``out``, checked against the network itself before it is kept.

    Args:
        finalist: which network.
        form: ``torch`` (a folder: weights, description, one Python file), ``pt2`` or ``onnx``.
        out: the folder, or the file; a folder for a file of its own name, too.

    Raises:
        InputError: see :func:`check_export`.
        ExportError: the network cannot be written so.
        WriteError: the disk is full, or the place not writable.
    """
    check_export(form, out)
    model, images, about = finalist.model(), finalist.images(), finalist.description
    latency = _latency(model, images[:1])
    if form == "torch":
        card = model_card(about, finalist.origin, latency=latency)
        try:
            difference = write_standalone(out, model=model, description=about, images=images, card=card)
        except ExportError:
            # Else it is in the way of the next try; the search has the weights.
            shutil.rmtree(out.resolve(), ignore_errors=True)
            if out.is_symlink():
                make_folder(out.resolve())
            raise
        return Exported(out, out / "README.md", True, difference, f"torch {torch.__version__}", latency.milliseconds)
    program = make_program(form, model, about, images)
    file, beside = _files(form, out)
    shape = (about.channels, *about.image_size)
    loading = loading_of(form, file.name, program.one_by_one, shape, len(about.class_names))
    library = "onnx" if form == "onnx" else "pytorch"
    card = model_card(about, finalist.origin, library=library, loading=loading, latency=latency)
    make_folder(file.parent)
    write_atomically(file, program.content)
    write_atomically(beside, card.encode())
    return Exported(
        file, beside, not program.one_by_one, program.difference, program.checked_with, latency.milliseconds
    )


def _files(form: str, out: Path) -> tuple[Path, ...]:
    """What is written to ``out``: the folder, or the file and its card."""
    if form == "torch":
        return (out,)
    suffix = f".{form}"
    if out.suffix == suffix and not out.is_dir():
        return out, out.with_name(f"{out.name}.md")  # so that two formats of one name have each their own
    if out.suffix and not out.is_dir():
        raise InputError(
            f"--out {out} does not end in {suffix}, as a file of the format {form} does.",
            f"Use --out {out.with_suffix(suffix)}, or a folder.",
        )
    return out / f"model{suffix}", out / "README.md"


def _latency(model: nn.Module, image: torch.Tensor) -> Latency:
    threads = torch.get_num_threads()
    where = f"PyTorch on {processor()}, {counted(threads, 'thread')}, when it was exported"
    return Latency(milliseconds_of(model, image), where)
