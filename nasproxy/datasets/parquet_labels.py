"""From a label column's values, integers or strings, to class indices and names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from nasproxy.datasets.source import PartName
from nasproxy.errors import DatasetError, some


@dataclass(frozen=True)
class LabelColumn:
    """One file's labels.

    Args:
        path, column: where they are, for messages.
        values: one an image, int64 or str objects.
        names: class names that the file's metadata give to the integers 0, 1, …, if any.
    """

    path: Path
    column: str
    values: np.ndarray
    names: tuple[str, ...] | None

    @classmethod
    def from_arrow(cls, path: Path, column: str, values: Any, names: tuple[str, ...] | None) -> LabelColumn:
        """Checks an Arrow array of labels.

        Raises:
            DatasetError: they are neither integers nor strings, or some are null or negative.
        """
        import pyarrow as pa

        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        text = any(is_(values.type) for is_ in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
        if not text and not pa.types.is_integer(values.type):
            raise DatasetError(
                f"The label column {column} of {path} has the type {values.type}.", "Expected integers or strings."
            )
        if values.null_count:
            row = values.is_null().index(True).as_py()
            raise DatasetError(
                f"{values.null_count:,} labels of {path} are null, the first in row {row}, counted from 0.",
                "Remove the rows that have no label.",
            )
        array = np.array(values.to_pylist(), object) if text else values.to_numpy(zero_copy_only=False).astype(np.int64)
        if not text and len(array) and array.min() < 0:
            raise DatasetError(
                f"{int((array < 0).sum()):,} labels of {path} are negative ({array.min()}).",
                "A label of -1 commonly means that it is withheld; leave such a file or such rows out.",
            )
        return cls(path, column, array, None if text else names)


def names_in_metadata(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """The names of a Hugging Face ``ClassLabel`` feature called ``column``; None where the metadata have none."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def index_labels(
    columns: Mapping[PartName, Sequence[LabelColumn]],
) -> tuple[tuple[str, ...], dict[PartName, Int64[np.ndarray, " n"]], list[str]]:
    """Class names, the class index of each image of each part, and notes.

    Classes that the metadata name but no image has are left out, so that a subset of a dataset can be used.

    Raises:
        DatasetError: files disagree on class names or on the kind of label, a label has no name, or another part has
            labels that the training part lacks.
    """
    everything = [column for part in columns.values() for column in part]
    _check_same_kind(everything)
    names = _common_names(everything)
    values = {part: np.concatenate([column.values for column in cs]) for part, cs in columns.items()}
    used = np.unique(values["train"])
    for part, labels in values.items():
        _check_known(part, labels, used, names)
    unused = [name for index, name in enumerate(names or ()) if index not in used]
    notes = [f"Classes without any image were left out: {some(unused)}."] if unused else []
    class_names = tuple(names[value] if names else str(value) for value in used)
    return class_names, {part: np.searchsorted(used, labels) for part, labels in values.items()}, notes


def _check_same_kind(columns: Sequence[LabelColumn]) -> None:
    first = columns[0]
    for column in columns[1:]:
        if column.values.dtype != first.values.dtype:
            kinds = ["strings" if c.values.dtype == object else "integers" for c in (first, column)]
            raise DatasetError(
                f"{first.path} has {kinds[0]} as labels but {column.path} has {kinds[1]}.",
                "All files must have the same kind of label.",
            )


def _common_names(columns: Sequence[LabelColumn]) -> tuple[str, ...] | None:
    named = [column for column in columns if column.names]
    for column in named[1:]:
        if column.names != named[0].names:
            raise DatasetError(
                f"The class names in {named[0].path} ({some(named[0].names or ())}) and in {column.path} "
                f"({some(column.names or ())}) differ.",
                "All files must come from the same dataset.",
            )
    return named[0].names if named else None


def _check_known(part: PartName, labels: np.ndarray, used: np.ndarray, names: tuple[str, ...] | None) -> None:
    if names and len(labels) and labels.max() >= len(names):
        raise DatasetError(
            f"The {part} part has the label {labels.max()}, but the metadata name {len(names)} classes only.",
            "Labels must be 0 to the number of classes less one.",
        )
    unknown = np.setdiff1d(labels, used)
    if len(unknown):
        shown = [names[value] if names else str(value) for value in unknown]
        raise DatasetError(
            f"The {part} part has labels that the training part lacks: {some(shown)}.",
            f"The training part has {some([names[value] if names else str(value) for value in used])}.",
        )
