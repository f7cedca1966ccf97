"""Tensors and one JSON document about them in a safetensors file. Nothing in it is ever executed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nasproxy.files import write_atomically


class TensorFileError(ValueError):
    """A file that is truncated, or not safetensors at all."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], key: str, document: Any) -> Path:
    """Writes ``tensors``, no two of which may share memory, and ``document`` atomically; returns the path.

    Args:
        path: of the file.
        tensors: by name.
        key: of the metadata entry that holds the document.
        document: JSON values.

    Raises:
        WriteError: the file cannot be written.
    """
    held = {name: value.cpu().contiguous() for name, value in tensors.items()}
    return write_atomically(path, save(held, metadata={key: json.dumps(document)}))


def read_tensors(
    path: Path | str, key: str, *, names: Iterable[str] | None = None, parse: Callable[[str], Any] = json.loads
) -> tuple[Any, dict[str, Tensor]]:
    """The document that :func:`write_tensors` was given, and the tensors, which may lie in the file's mapped bytes.

    Args:
        path: of the file.
        key: of the document.
        names: of the tensors to read; None reads all.
        parse: makes the document of its text.

    Raises:
        TensorFileError: the file is not a whole safetensors file, or lacks a tensor.
        ValueError: it holds no such document, or ``parse`` raises it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
    except (SafetensorError, OSError) as error:
        raise TensorFileError(str(error)) from error
    if key not in metadata:
        raise ValueError(f"{key!r} is missing")
    try:
        return parse(metadata[key]), tensors
    except RecursionError as error:
        raise ValueError("its document is nested too deeply") from error
