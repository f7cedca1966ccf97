"""The proxy file: what goes in comes out, and nothing that is damaged, foreign or hostile does."""

from __future__ import annotations

import json
import math
import os
import pickle
from dataclasses import asdict, fields, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save, save_file

from nasproxy.datasets.image_dataset import Normalisation
from nasproxy.errors import ProxyError, WriteError
from nasproxy.files import replacing, write_atomically
from nasproxy.proxies.proxy_file import load_proxy, save_proxy
from nasproxy.proxies.proxy_set import ProxySet

PROXY = ProxySet(
    images=torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(0)),
    labels=torch.tensor([0, 0, 1, 1]),
    method="dc",
    recipe={"ipc": 2, "initial": "noise", "image_learning_rate": 0.1, "seed": 3},
    dataset="pets",
    fingerprint="0123456789abcdef",
    class_names=("cat", "dög\n"),
    normalisation=Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)),
    seconds=1.25,
    history=(3.0, 2.5),
    versions={"torch": "2.15.0"},
    evaluations=((1, 0.25), (2, 0.5)),
    finished=False,
)
LATER = {"evaluations": (), "finished": True}
"""Facts that files of the first version lack, and what that means."""


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return save_proxy(PROXY, tmp_path_factory.mktemp("proxy") / "p.safetensors").read_bytes()


def facts():
    return {
        "schema": 1,
        **{name: value for name, value in asdict(PROXY).items() if name not in ("images", "labels", "soft_labels")},
    }


def write(path, *, tensors=None, said=None, **changes):
    """A safetensors file like the real one, but for ``changes`` to its metadata."""
    tensors = {"images": PROXY.images, "labels": PROXY.labels} | (tensors or {})
    said = json.dumps(facts() | changes) if said is None else said
    save_file({name: value for name, value in tensors.items() if value is not None}, path, {"nasproxy": said})
    return path


def loads_or_explains(path):
    """Either a proxy, or an error that names the file; any other exception passes through."""
    try:
        said = f"{path}: {len(load_proxy(path))} images"
    except ProxyError as error:
        said = error.message
    assert said.startswith(str(path))


def assert_same(one, other):
    for field in fields(ProxySet):
        mine, its = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(mine, its) if isinstance(mine, torch.Tensor) else mine == its, field.name


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "p.safetensors"
    assert save_proxy(PROXY, path) == path
    assert_same(load_proxy(path), PROXY)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=3),
    st.text(st.characters(codec="utf-8")),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.one_of(st.integers(), st.booleans(), st.none())),
)
def test_any_names_and_numbers_survive(tmp_path, names, dataset, history, recipe):
    proxy = replace(
        PROXY, labels=torch.zeros(4, dtype=torch.int64), class_names=tuple(names), dataset=dataset,
        history=tuple(history), recipe=recipe,
    )  # fmt: skip
    assert_same(load_proxy(str(save_proxy(proxy, str(tmp_path / "p.safetensors")))), proxy)


def test_images_that_lie_oddly_in_memory_are_saved_too(tmp_path):
    odd = replace(PROXY, images=PROXY.images.to(memory_format=torch.channels_last), labels=PROXY.labels.expand(4))
    assert_same(load_proxy(save_proxy(odd, tmp_path / "p.safetensors")), PROXY)


def test_it_is_plain_safetensors(tmp_path):
    with safe_open(write(tmp_path / "p.safetensors"), framework="pt") as mine:
        expected = json.loads(mine.metadata()["nasproxy"])
    with safe_open(save_proxy(PROXY, tmp_path / "q.safetensors"), framework="pt") as file:
        assert set(file.keys()) == {"images", "labels"}
        assert json.loads(file.metadata()["nasproxy"]) == expected


def test_nothing_is_left_beside_the_file(tmp_path):
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"old")
    save_proxy(PROXY, path)
    assert list(tmp_path.iterdir()) == [path]
    assert_same(load_proxy(path), PROXY)


@pytest.mark.parametrize("place", ["missing/p.safetensors", "file/p.safetensors", "folder", "n" * 255])
def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path, place):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="could not be written"):
        save_proxy(PROXY, tmp_path / place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    path = write_atomically(tmp_path / "f", b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the size of files stands for the disk: the write stops in the middle with an error.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(WriteError, match="could not be written"):
            write_atomically(path, b"new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_a_power_cut_leaves_the_old_file_or_the_whole_new_one(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor):
        happened.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def rename(source, target):
        happened.append(("rename", source.stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    path = write_atomically(tmp_path / "f", b"new")
    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert happened == [("flush", file), ("rename", file), ("flush", folder)]
    assert path.read_bytes() == b"new"


def test_two_hosts_write_one_file_at_once_though_their_processes_have_one_number(tmp_path):
    path = tmp_path / "f"
    with replacing(path) as first:  # one process stands for both
        first.write(b"first")
        with replacing(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path, mask):
    before = os.umask(mask)
    try:
        path = write_atomically(tmp_path / "f", b"new")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_every_truncation_is_an_error(tmp_path, content):
    path = tmp_path / "p.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ProxyError, match="is not a whole safetensors file") as caught:
            load_proxy(path)
        assert caught.value.hint


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_give_a_proxy_or_a_clear_error(tmp_path, content, data):
    damaged = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "p.safetensors"
    path.write_bytes(damaged + data.draw(st.binary(max_size=9)))
    loads_or_explains(path)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


@pytest.mark.parametrize(
    "foreign", [b"", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n" + bytes(100), b"{}" * 50, pickle.dumps(Bomb())]
)
def test_other_files_are_errors(tmp_path, foreign):
    path = tmp_path / "p.safetensors"
    path.write_bytes(foreign)
    with pytest.raises(ProxyError, match="is not a whole safetensors file"):
        load_proxy(path)


@pytest.mark.parametrize("name", ["missing.safetensors", "folder", "n" * 300])
def test_no_file_is_an_error(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ProxyError, match="no proxy file"):
        load_proxy(tmp_path / name)


@pytest.mark.parametrize("metadata", [None, {}, {"other": "1"}])
def test_safetensors_of_somebody_else_is_an_error(tmp_path, metadata):
    path = tmp_path / "p.safetensors"
    path.write_bytes(save({"images": PROXY.images, "labels": PROXY.labels}, metadata))
    with pytest.raises(ProxyError, match="not a proxy that nasproxy wrote: 'nasproxy' is missing"):
        load_proxy(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"labels": torch.tensor([0, 0, 1, 2])}, "a label lies outside the 2 classes"),
        ({"labels": torch.tensor([0, 0, -1, 1])}, "a label lies outside the 2 classes"),
        ({"labels": torch.tensor([0, 0, 1])}, "do not belong together"),
        ({"labels": torch.tensor([[0, 0, 1, 1]])}, "do not belong together"),
        ({"images": torch.empty(0, 3, 2, 5), "labels": torch.empty(0, dtype=torch.int64)}, "do not belong together"),
        ({"images": torch.zeros(4, 3, 10)}, "do not belong together"),
        ({"images": torch.full((4, 3, 2, 5), torch.nan)}, "finite float32"),
        ({"images": torch.full((4, 3, 2, 5), torch.inf)}, "finite float32"),
        ({"images": torch.zeros(4, 3, 2, 5, dtype=torch.float16)}, "finite float32"),
        ({"images": torch.zeros(4, 3, 2, 5, dtype=torch.uint8)}, "finite float32"),
        ({"labels": torch.zeros(4, dtype=torch.int32)}, "int64 labels"),
        ({"labels": torch.zeros(4)}, "int64 labels"),
        ({"images": None}, "'images' is missing"),
        ({"labels": None}, "'labels' is missing"),
    ],
)
def test_tensors_that_are_no_labelled_images_are_errors(tmp_path, tensors, message):
    with pytest.raises(ProxyError, match=message):
        load_proxy(write(tmp_path / "p.safetensors", tensors=tensors))


def test_images_without_pixels_are_an_error(tmp_path):
    with pytest.raises(ProxyError, match="not a proxy"):
        load_proxy(write(tmp_path / "p.safetensors", tensors={"images": torch.empty(4, 3, 0, 5)}))


@pytest.mark.parametrize("schema", [0, 2, None, "1", [1]])
def test_another_schema_is_an_error(tmp_path, schema):
    with pytest.raises(ProxyError, match=r"schema .*, expected 1"):
        load_proxy(write(tmp_path / "p.safetensors", schema=schema))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_errors(tmp_path, value):
    changed = {"seconds": value}, {"history": [1.0, value]}, {"recipe": {"ipc": value}}, {"evaluations": [[1, value]]}
    for fact in changed:
        with pytest.raises(ProxyError, match=r"(NaN|Infinity) is no number of a proxy"):
            load_proxy(write(tmp_path / "p.safetensors", **fact))


@pytest.mark.parametrize("name", [name for name in facts() if name != "schema"])
@pytest.mark.parametrize("value", [None, 10**400, "word", [[1]]], ids=["null", "huge", "word", "list"])
def test_facts_of_another_kind_give_a_proxy_or_a_clear_error(tmp_path, name, value):
    path = write(tmp_path / "p.safetensors", **{name: value})
    loads_or_explains(path)


@pytest.mark.parametrize("name", LATER)
def test_files_of_the_first_version_are_read(tmp_path, name):
    rest = {key: value for key, value in facts().items() if key != name}
    proxy = load_proxy(write(tmp_path / "p.safetensors", said=json.dumps(rest)))
    assert getattr(proxy, name) == LATER[name]


@pytest.mark.parametrize("name", [name for name in facts() if name not in LATER])
def test_a_fact_that_is_missing_is_named(tmp_path, name):
    rest = {key: value for key, value in facts().items() if key != name}
    with pytest.raises(ProxyError, match=f"'{name}' is missing"):
        load_proxy(write(tmp_path / "p.safetensors", said=json.dumps(rest)))


@pytest.mark.parametrize("said", ["", "{", "[]", "null", "1", '"text"', "[" * 100_000], ids=lambda said: said[:9])
def test_metadata_that_is_no_document_is_an_error(tmp_path, said):
    with pytest.raises(ProxyError, match="not a proxy"):
        load_proxy(write(tmp_path / "p.safetensors", said=said))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([0.4], [0.2]),
        ([0.4, 0.5, 0.6], [0.2]),
        ([], []),
        ([0.4, float("nan"), 0.5], [0.2, 0.2, 0.2]),
        ([0.4, 0.5, 0.6], [0.2, 0.0, 0.2]),
        ([0.4, 0.5, 0.6], [0.2, -0.1, 0.2]),
    ],
    ids=["one channel", "one deviation", "nothing", "not a number", "no deviation", "below zero"],
)
def test_a_normalisation_that_no_images_can_have_is_an_error(tmp_path, mean, std):
    with pytest.raises(ProxyError, match="not a proxy"):
        load_proxy(write(tmp_path / "p.safetensors", normalisation={"mean": mean, "std": std}))


def test_images_that_are_neither_gray_nor_colour_are_an_error(tmp_path):
    scale = {"mean": [0.4, 0.5], "std": [0.2, 0.2]}
    with pytest.raises(ProxyError, match="2 channels"):
        load_proxy(write(tmp_path / "p.safetensors", tensors={"images": torch.zeros(4, 2, 3, 5)}, normalisation=scale))


@pytest.mark.parametrize("text", ["1e999", "-1e999", '"nan"', '"inf"'])
@pytest.mark.parametrize("fact", ["seconds", "history", "evaluations"])
def test_numbers_too_large_or_in_words_are_errors(tmp_path, fact, text):
    given = {"seconds": 31.5, "history": [1.0, 31.5], "evaluations": [[1, 31.5]]}[fact]
    said = json.dumps(facts() | {fact: given}).replace("31.5", text)
    with pytest.raises(ProxyError, match="is no number of a proxy"):
        load_proxy(write(tmp_path / "p.safetensors", said=said))
