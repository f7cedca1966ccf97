"""The compiled kernels are used only where they are those of these sources, for this processor."""

from __future__ import annotations

import ctypes
import hashlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nasproxy.kernels import library


def compiled(version=library.VERSION, supported=1):
    return SimpleNamespace(nasproxy_version=lambda: version, nasproxy_supported=lambda: supported)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "without a C compiler"),
        (compiled(version=library.VERSION + 1), "of another version"),
        (SimpleNamespace(), "of another version"),
        (compiled(supported=0), "no AVX2"),
    ],
)
def test_others_are_left_alone_and_it_is_said_why(found, said, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    monkeypatch.setattr(library, "_library", lambda: found)
    monkeypatch.setattr(library, "kernels", library.kernels.__wrapped__)
    assert library.kernels() is None
    assert said in library.why_none()


def test_a_file_that_cannot_be_loaded_is_none(tmp_path, monkeypatch):
    (tmp_path / f"_compiled{library.EXTENSION_SUFFIXES[0]}").write_text("of another processor")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    assert library._library.__wrapped__() is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("_maps.cpython-311-x86_64-linux-gnu.so", "of another version"),
        ("_compiled.cpython-39-x86_64-linux-gnu.so", "of another version"),
        (f"_compiled{library.EXTENSION_SUFFIXES[0]}", "cannot be loaded here"),
        ("maps.c", "without a C compiler"),
    ],
)
def test_what_lies_there_instead_decides_the_reason(name, said, tmp_path, monkeypatch):
    (tmp_path / name).write_text("of another processor")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    for function in ("_library", "kernels"):
        monkeypatch.setattr(library, function, getattr(library, function).__wrapped__)
    assert said in library.why_none()


def test_where_they_are_nothing_is_said(monkeypatch):
    if library.kernels() is None:
        pytest.skip("nasproxy was installed without a C compiler")
    assert library.why_none() is None


def test_the_version_is_that_of_the_sources():
    """It is a checksum of them: whoever changes them must change it, in both places, and compile anew."""
    folder = Path(library.__file__).parent
    said = re.search(r"^#define VERSION (\d+)$", (folder / "processor.c").read_text(), re.MULTILINE)
    text = "".join(path.read_text().replace(said[0], "") for path in sorted(folder.glob("*.[ch]")))
    assert int(said[1]) == library.VERSION == int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)


def test_memory_that_is_not_to_be_had_is_an_error():
    if library.kernels() is None:
        pytest.skip("nasproxy was installed without a C compiler")
    tail = library.Tail(images=1, height=1, width=1, channels=2**48)
    with pytest.raises(MemoryError, match="more memory than there is"):
        library.kernels()("forward", tail, *[None] * 6)


@pytest.mark.parametrize(
    "buffer",
    [
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(1).expand(2),
        torch.zeros(2, device="meta"),
        torch.zeros(1, 2, 3, 3),
        torch.zeros(1, 2, 3, 3, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last),
    ],
    ids=str,
)
def test_tensors_that_c_would_misread_are_refused(buffer):
    if library.kernels() is None:
        pytest.skip("nasproxy was installed without a C compiler")
    with pytest.raises(ValueError, match="The kernels take"):
        library.kernels()("moments", library.Tail(images=1, height=1, width=1, channels=2), buffer, None, None)


@pytest.mark.parametrize(
    "buffer",
    [
        torch.zeros(2, dtype=torch.bfloat16),
        torch.zeros(1, 1, 2),
        torch.zeros(1, 2, 3, dtype=torch.bfloat16).mT,
        torch.zeros(1, 2, 3, 3, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last),
    ],
    ids=str,
)
def test_tiles_that_c_would_misread_are_refused(buffer):
    if library.kernels() is None:
        pytest.skip("nasproxy was installed without a C compiler")
    with pytest.raises(ValueError, match="The kernels take"):
        library.kernels()("see", library.Tiled(images=1, height=1, width=1, channels=2, narrow=1), buffer, None)


def test_the_structures_are_those_of_the_compiled_code():
    if library.kernels() is None:
        pytest.skip("nasproxy was installed without a C compiler")
    assert library._library().nasproxy_tail_bytes() == ctypes.sizeof(library.Tail)
    assert library._library().nasproxy_tiled_bytes() == ctypes.sizeof(library.Tiled)
