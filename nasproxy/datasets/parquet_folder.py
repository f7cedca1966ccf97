"""A folder of Hugging Face image Parquet: an image column that holds encoded bytes, and a label column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from nasproxy.datasets.encoded import Encoded, EncodedPart, Listing
from nasproxy.datasets.parquet_labels import LabelColumn, index_labels, names_in_metadata
from nasproxy.datasets.source import PartName
from nasproxy.errors import DatasetError, some

PATTERNS: dict[PartName, str] = {"train": "train*.parquet", "validation": "val*.parquet", "test": "test*.parquet"}
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
BATCH_ROWS = 256


def find_parquet(root: Path) -> dict[PartName, list[Path]]:
    """Parquet files of each part in ``root``, or else in ``root/data``; empty where neither holds any Parquet.

    Raises:
        DatasetError: there are Parquet files alone but none whose name begins with "train".
        OSError: a folder cannot be read.
    """
    for folder in (root, root / "data"):
        present = sorted(path.name for path in folder.glob("*.parquet"))
        found = {part: sorted(folder.glob(pattern)) for part, pattern in PATTERNS.items()}
        if found["train"]:
            return {part: paths for part, paths in found.items() if paths}
        if present and not any(entry.is_dir() for entry in folder.iterdir()):
            raise DatasetError(
                f"{folder} has no train*.parquet, only {some(present, 5)}.",
                "Name the files train*.parquet, and if there are such parts test*.parquet and validation*.parquet.",
            )
    return {}


def list_parquet(files: dict[PartName, list[Path]]) -> Listing:
    """The images of ``files``, in the order of files and rows.

    The image column is ``image`` or ``img``: binary, or a struct whose member ``bytes`` is (its ``path`` is never
    followed). The label column is ``label``, ``labels`` or ``fine_label``: integers or strings. Class names come
    from the Hugging Face metadata where there are any, else from the labels themselves, sorted.

    Raises:
        DatasetError: a file is not Parquet or damaged, lacks a column, or holds labels that make no sense.
    """
    columns = {part: [_read_labels(path) for path in paths] for part, paths in files.items()}
    class_names, labels, notes = index_labels(columns)
    if not class_names:
        raise DatasetError(f"The training files ({files['train'][0]}, …) have no rows.", "Copy or download them again.")
    parts = {part: EncodedPart(labels[part], _batches(paths)) for part, paths in files.items()}
    return Listing(parts, class_names, notes, [path for paths in files.values() for path in paths])


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(
            f"{path} is not a readable Parquet file, or it is truncated: {reason}.", "Copy or download it again."
        ) from error


def _read_labels(path: Path) -> LabelColumn:
    with _reading(path) as file:
        schema = file.schema_arrow
        _image_selector(path, schema)
        column = _find_column(path, schema, LABEL_COLUMNS, "label")
        values = file.read(columns=[column]).column(column).combine_chunks()
    return LabelColumn.from_arrow(path, column, values, names_in_metadata(schema.metadata, column))


def _find_column(path: Path, schema: Any, accepted: Sequence[str], kind: str) -> str:
    for column in accepted:
        if schema.names.count(column) == 1:
            return column
    raise DatasetError(
        f"{path} has no single {kind} column; its columns are {', '.join(schema.names) or '(none)'}.",
        f"The {kind} column must be called {' or '.join(accepted)}.",
    )


def _image_selector(path: Path, schema: Any) -> str:
    """What to read: the image column, or its member ``bytes``."""
    import pyarrow as pa

    column = _find_column(path, schema, IMAGE_COLUMNS, "image")
    kind = schema.field(column).type
    if _is_binary(kind):
        return column
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type):
        return f"{column}.bytes"
    raise DatasetError(
        f"The column {column} of {path} has the type {kind}.",
        "Expected binary, or a struct with a binary member called bytes, as Hugging Face writes images.",
    )


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _batches(paths: Sequence[Path]) -> Callable[[], Iterator[list[Encoded]]]:
    return partial(_iterate, paths)


def _iterate(paths: Sequence[Path]) -> Iterator[list[Encoded]]:
    for path in paths:
        with _reading(path) as file:
            selector = _image_selector(path, file.schema_arrow)
            row = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[selector]):
                images = batch.column(0)
                if selector.endswith(".bytes"):
                    images = images.flatten()[0]  # unlike field(0), this heeds the struct's own nulls
                contents = images.to_pylist()
                yield [Encoded(f"{path.name} row {row + i}", content) for i, content in enumerate(contents)]
                row += len(contents)
