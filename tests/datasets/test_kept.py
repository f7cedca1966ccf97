"""Folders are decoded once; what is kept of them is exact, follows changes, and is made again where it is damaged."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from test_image_folder import write_images
from test_parquet_folder import write_parquet

from nasproxy.datasets import encoded
from nasproxy.datasets.assemble import assemble
from nasproxy.datasets.load import list_folder, load_dataset
from nasproxy.datasets.pixel_memory import VARIABLE, empty_pixels, memory_budget
from nasproxy.errors import InputError, WriteError
from nasproxy.files import make_folder

PARTS = ("train", "validation", "test")


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        write_images(root / name, 9, (96, 80), mode="RGB")
    return root


@pytest.fixture
def decoded(monkeypatch):
    """Counts the images that are decoded."""
    count = []
    original = encoded.decode_image
    monkeypatch.setattr(encoded, "decode_image", lambda *given: count.append(1) or original(*given))
    return count


def kept_files(cache):
    return sorted((cache / "images").iterdir())


def assert_same(one, other):
    for part in PARTS:
        assert torch.equal(getattr(one, part).images, getattr(other, part).images)
        assert torch.equal(getattr(one, part).labels, getattr(other, part).labels)
    for name in ("name", "class_names", "normalisation", "fingerprint", "notes"):
        assert getattr(one, name) == getattr(other, name)


def test_the_second_time_nothing_is_decoded_and_all_is_the_same(photos, cache, decoded):
    fresh = assemble("photos", list_folder(photos).decode(None, skip_broken=False))
    del decoded[:]
    first = load_dataset(str(photos))
    assert len(decoded) == 18
    second = load_dataset(str(photos))
    assert len(decoded) == 18
    for dataset in (first, second):
        assert_same(dataset, fresh)
        assert dataset.image_size == (64, 53)
        assert dataset.train.file is None
    assert len(kept_files(cache)) == 1


def test_parquet_is_kept_too(tmp_path, decoded):
    write_parquet(tmp_path / "shop" / "train.parquet", [0, 1] * 6, names=["cup", "pot"])
    first, second = load_dataset(str(tmp_path / "shop")), load_dataset(str(tmp_path / "shop"))
    assert len(decoded) == 12
    assert_same(first, second)


def test_each_size_is_kept_by_itself(photos, cache, decoded):
    for _ in range(2):
        assert load_dataset(str(photos), image_size=8).image_size == (8, 8)
        assert load_dataset(str(photos), image_size=(4, 6)).image_size == (4, 6)
    assert len(decoded) == 36
    assert len(kept_files(cache)) == 2


def change_pixels(root):
    """Another image, as long and as old as the one before."""
    path = root / "cat" / "000.bmp"
    before = path.stat()
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def add_an_image(root):
    write_images(root / "dog", 1, (96, 80), mode="RGB", first=100)


def rename_a_class(root):
    (root / "dog").rename(root / "bird")


@pytest.mark.parametrize("change", [change_pixels, add_an_image, rename_a_class])
def test_a_changed_folder_is_decoded_anew_and_replaces_what_was_kept(photos, cache, change):
    Image.open(photos / "cat" / "000.png").save(photos / "cat" / "000.bmp")
    first = load_dataset(str(photos))
    change(photos)
    second = load_dataset(str(photos))
    assert second.fingerprint != first.fingerprint
    assert_same(second, assemble("photos", list_folder(photos).decode(None, skip_broken=False)))
    assert len(kept_files(cache)) == 1


def cut(content):
    return content[:-100]


def flip(content):
    return content[:-50] + bytes([content[-50] ^ 1]) + content[-49:]


def forge(content):
    return content.replace(b'"U8"', b'"I8"')


@pytest.mark.parametrize("damage", [cut, flip, forge, lambda _: b"", lambda _: b"\xff" * 99])
def test_damage_is_noticed_and_mended(photos, cache, decoded, damage):
    first = load_dataset(str(photos))
    (path,) = kept_files(cache)
    path.write_bytes(damage(path.read_bytes()))
    assert_same(load_dataset(str(photos)), first)
    assert len(decoded) == 36
    assert_same(load_dataset(str(photos)), first)
    assert len(decoded) == 36


def test_broken_images_are_noted_from_the_cache_as_well(photos):
    (photos / "cat" / "zzz.png").write_bytes(b"no image")
    first = load_dataset(str(photos), skip_broken=True)
    assert "1 broken image was skipped: cat/zzz.png." in first.notes
    assert_same(load_dataset(str(photos), skip_broken=True), first)


def test_what_memory_should_not_hold_is_mapped_from_the_cache(photos, cache, monkeypatch):
    held = load_dataset(str(photos))
    shutil.rmtree(cache / "images")
    monkeypatch.setenv(VARIABLE, "0.02")  # two images
    for _ in range(2):
        mapped = load_dataset(str(photos))
        assert_same(mapped, held)
        for part in PARTS:
            split = getattr(mapped, part)
            assert split.file is not None
            assert np.array_equal(split.file.open(), split.images.numpy())
    assert len(kept_files(cache)) == 1, "files without a name are gone"


def test_a_cache_that_cannot_be_written_is_said(photos, monkeypatch):
    def full(*_):
        raise WriteError("No space left on device.")

    monkeypatch.setattr("nasproxy.datasets.load.keep", full)
    assert load_dataset(str(photos)).notes[-1].endswith("for the next time: No space left on device.")


def test_of_a_cache_that_cannot_be_written_it_is_said_how_to_put_it_elsewhere(photos, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "file" / "cache"))
    note = load_dataset(str(photos)).notes[-1]
    assert f"{tmp_path / 'file' / 'cache' / 'images'} could not be made: Not a directory" in note
    assert "set NASPROXY_CACHE to a folder that can be written" in note
    with pytest.raises(WriteError) as caught:
        make_folder(tmp_path / "file" / "run")
    assert "NASPROXY_CACHE" not in caught.value.hint


def test_a_full_disk_is_an_error_before_anything_is_written_to_it(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(WriteError, match=r"exceed memory, and .* cannot hold them: No space left on device"):
        empty_pixels((1, 1, 1, 1))


def test_budget(monkeypatch):
    assert memory_budget(available=2**40) == 2**39
    assert memory_budget(4, available=2**40) == 2**37
    assert memory_budget(8, available=1) == 64 * 2**20
    monkeypatch.setenv(VARIABLE, "1.5")
    assert memory_budget(4) == 3 * 2**19
    monkeypatch.setenv(VARIABLE, "plenty")
    with pytest.raises(InputError, match="NASPROXY_MEMORY_MIB must be a number of MiB, got 'plenty'"):
        memory_budget()


def test_a_container_has_what_its_limit_leaves_and_files_that_were_read_can_go(monkeypatch, tmp_path):
    monkeypatch.setattr("nasproxy.datasets.pixel_memory._CONTAINER", tmp_path)
    machine = memory_budget()
    assert machine > 150 * 2**20, "no container"
    mib = 2**20
    (tmp_path / "memory.current").write_text(f"{300 * mib}\n")
    stat = {"anon": 30, "file": 270, "shmem": 20, "inactive_file": 200, "active_file": 50}
    (tmp_path / "memory.stat").write_text("".join(f"{name} {size * mib}\n" for name, size in stat.items()))
    for limit, budget in ((350, 150), (250, 100), (40, 64)):
        (tmp_path / "memory.max").write_text(f"{limit * mib}\n")
        assert memory_budget() == budget * mib
    (tmp_path / "memory.max").write_text("max\n")
    assert machine / 2 < memory_budget() < machine * 2, "a container without a limit"
