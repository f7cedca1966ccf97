from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from nasproxy.datasets.load import load_dataset
from nasproxy.errors import DatasetError


def png(seed: int, size: tuple[int, int] = (5, 7)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(
    path: Path,
    labels: Sequence[object],
    *,
    names: object = None,
    image: str = "image",
    label: str = "label",
    raw: bool = False,
    images: Sequence[bytes | None] | None = None,
    label_type: pa.DataType | None = None,
) -> None:
    contents = images or [png(seed) for seed in range(len(labels))]
    path.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = path.parent / "elsewhere.png"  # must never be followed, though it leads to an image
    elsewhere.write_bytes(png(99))
    column = contents if raw else [{"bytes": content, "path": str(elsewhere)} for content in contents]
    image_type = pa.binary() if raw else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(column, image_type), label: pa.array(labels, label_type)})
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=4)


def error(root: Path) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        load_dataset(str(root))
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value


def test_shards_parts_and_class_names(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_parquet(data / "train-00000-of-00002.parquet", [0, 1] * 5, names=["cat", "dog"])
    write_parquet(data / "train-00001-of-00002.parquet", [1, 1, 0], names=["cat", "dog"])
    write_parquet(data / "validation-00000-of-00001.parquet", [1, 0], names=["cat", "dog"])
    write_parquet(data / "test-00000-of-00001.parquet", [0, 1, 1], names=["cat", "dog"])
    dataset = load_dataset(str(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 1] * 5 + [1, 1, 0]
    assert dataset.validation.labels.tolist() == [1, 0]
    assert dataset.test.labels.tolist() == [0, 1, 1]
    assert (dataset.channels, dataset.image_size, dataset.notes) == (3, (5, 7), ())
    expected = [np.asarray(Image.open(io.BytesIO(png(seed)))).transpose(2, 0, 1) for seed in [*range(10), *range(3)]]
    assert np.array_equal(dataset.train.images.numpy(), np.stack(expected))


def test_rows_are_numbered_through_all_batches(tmp_path: Path) -> None:
    images = [png(0, (1, 1))] * 700
    images[601] = b"junk"
    write_parquet(tmp_path / "train.parquet", [0, 1] * 350, images=images)
    assert "train.parquet row 601 (" in error(tmp_path).message


def test_more_rows_than_a_batch(tmp_path: Path) -> None:
    labels = [0, 1, 2] * 200
    write_parquet(tmp_path / "train.parquet", labels, images=[png(label, (1, 1)) for label in labels])
    write_parquet(tmp_path / "test.parquet", [0, 1, 2], images=[png(label, (1, 1)) for label in range(3)])
    dataset = load_dataset(str(tmp_path))
    for part in (dataset.train, dataset.validation):
        assert torch.equal(part.images, dataset.test.images[part.labels])


@pytest.mark.parametrize(
    ("image", "label", "raw"), [("img", "fine_label", False), ("image", "labels", True), ("img", "label", True)]
)
def test_other_columns(tmp_path: Path, image: str, label: str, raw: bool) -> None:
    write_parquet(tmp_path / "train.parquet", [3, 7] * 6, image=image, label=label, raw=raw)
    dataset = load_dataset(str(tmp_path))
    assert dataset.class_names == ("3", "7")
    assert len(dataset.test) == 2


@pytest.mark.parametrize("label_type", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_text_labels(tmp_path: Path, label_type: pa.DataType) -> None:
    write_parquet(tmp_path / "train.parquet", ["dog", "cat", "ant"] * 4, label_type=label_type)
    write_parquet(tmp_path / "test.parquet", ["cat", "dog", "ant"])
    dataset = load_dataset(str(tmp_path))
    assert dataset.class_names == ("ant", "cat", "dog")
    assert dataset.test.labels.tolist() == [1, 2, 0]


def test_names_without_images_are_left_out(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 2] * 6, names=["ant", "bee", "cat"])
    dataset = load_dataset(str(tmp_path))
    assert dataset.class_names == ("ant", "cat")
    assert set(dataset.train.labels.tolist()) == {0, 1}
    assert dataset.notes[0] == "Classes without any image were left out: bee."


@pytest.mark.parametrize("names", [{"0": "a"}, [], [1, 2], "ab"])
def test_malformed_metadata_are_ignored(tmp_path: Path, names: object) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1] * 6, names=names)
    assert load_dataset(str(tmp_path)).class_names == ("0", "1")


def test_missing_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1] * 6, image="picture")
    message = error(tmp_path).message
    assert "no single image column; its columns are picture, label" in message
    write_parquet(tmp_path / "train.parquet", [0, 1] * 6, label="kind")
    assert "no single label column; its columns are image, kind" in error(tmp_path).message


def test_column_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["a.png"], "label": [0]}), tmp_path / "train.parquet")
    assert "type string" in error(tmp_path).message
    write_parquet(tmp_path / "train.parquet", [0.5, 1.0] * 6)
    assert "type double" in error(tmp_path).message


def test_labels_that_make_no_sense(tmp_path: Path) -> None:
    train = tmp_path / "train.parquet"
    write_parquet(train, [0, None, 1])
    assert "1 labels" in error(tmp_path).message
    assert "first in row 1, counted from 0" in error(tmp_path).message
    write_parquet(train, [0, -1, 1])
    assert "negative (-1)" in error(tmp_path).message
    write_parquet(train, [0, 2, 1], names=["a", "b"])
    assert "label 2, but the metadata name 2 classes" in error(tmp_path).message
    write_parquet(train, [4] * 9)
    assert "one class only (4)" in error(tmp_path).message
    write_parquet(train, [], label_type=pa.int64(), images=[])
    assert "have no rows" in error(tmp_path).message


def test_parts_must_agree(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1] * 6, names=["a", "b"])
    test = tmp_path / "test.parquet"
    write_parquet(test, [0, 1], names=["b", "a"])
    assert "(a, b)" in error(tmp_path).message
    assert "(b, a)" in error(tmp_path).message
    write_parquet(test, ["a", "b"])
    assert "integers as labels" in error(tmp_path).message
    write_parquet(tmp_path / "train.parquet", [0, 1] * 6)
    write_parquet(test, [0, 1, 5])
    assert "test part has labels that the training part lacks: 5." in error(tmp_path).message


@pytest.mark.parametrize("keep", [0, 3, 100, -10])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "train.parquet"
    write_parquet(path, [0, 1] * 6)
    path.write_bytes(path.read_bytes()[:keep])
    assert "train.parquet is not a readable Parquet file, or it is truncated" in error(tmp_path).message


def test_damaged_pages(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_parquet(path, [0, 1] * 6)
    whole = bytearray(path.read_bytes())
    whole[4 : len(whole) // 2] = bytes(len(whole) // 2 - 4)
    path.write_bytes(whole)
    assert "train.parquet" in error(tmp_path).message


def test_broken_images(tmp_path: Path) -> None:
    images: list[bytes | None] = [png(seed) for seed in range(12)]
    images[3], images[10] = b"junk", None
    write_parquet(tmp_path / "train.parquet", [0, 1] * 6, images=images)
    message = error(tmp_path).message
    assert message.startswith("2 of 12 images cannot be decoded: train.parquet row 3 (not one of")
    assert "row 10 (it holds no image bytes)" in message
    dataset = load_dataset(str(tmp_path), skip_broken=True)
    assert "2 broken images were skipped: train.parquet row 3, train.parquet row 10." in dataset.notes
    assert sum(len(part) for part in (dataset.train, dataset.validation, dataset.test)) == 10


def test_no_training_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0000.parquet", [0, 1] * 6)
    assert "no train*.parquet, only 0000.parquet" in error(tmp_path).message
