"""Whether a proxy belongs to a dataset."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import tiny_dataset

from nasproxy.errors import ProxyError
from nasproxy.proxies.make import load_matching_proxy, random_proxy
from nasproxy.proxies.proxy_file import save_proxy


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset((7, 5), size=(8, 6), channels=3)


@pytest.fixture(scope="module")
def proxy(dataset):
    return random_proxy(dataset, 2, seed=0)


def test_a_proxy_matches_its_own_dataset(dataset, proxy):
    proxy.check_matches(dataset)
    proxy.check_matches(replace(dataset, name="under another name"))
    assert len(proxy) == 4
    assert proxy.image_size == (8, 6)


def test_it_is_shown_in_a_few_lines(dataset, proxy):
    named = replace(proxy, class_names=("a name that goes on and on\nand on", *map(str, range(99))), finished=False)
    assert repr(named).splitlines() == [
        "ProxySet(random: 4 images of 3×8×6, unfinished",
        "  100 classes: a name that goes on and…, 0, 1, 2, 3, 4, 5, 6, 7, 8, …",
        f"  of the dataset tiny, fingerprint {dataset.fingerprint[:12]})",
    ]
    soft = replace(proxy, soft_labels=torch.full((4, 2), 0.5))
    assert "soft labels" in repr(soft)


def test_a_dataset_with_other_content_is_refused(proxy):
    other = tiny_dataset((7, 5), size=(8, 6), channels=3, seed=1)
    with pytest.raises(ProxyError, match=f"{proxy.fingerprint[:12]}.*{other.fingerprint[:12]}") as caught:
        proxy.check_matches(replace(other, name="pets"))
    assert "pets" in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("size", "channels", "message"),
    [
        ((6, 8), 3, "8×6 pixels and 3 channels, the dataset tiny has 6×8 pixels and 3 channels"),
        ((8, 8), 3, "8×6 pixels and 3 channels, the dataset tiny has 8×8 pixels and 3 channels"),
        ((8, 6), 1, "8×6 pixels and 3 channels, the dataset tiny has 8×6 pixels and 1 channel"),
    ],
)
def test_images_of_another_shape_are_refused(proxy, size, channels, message):
    with pytest.raises(ProxyError, match=message) as caught:
        proxy.check_matches(tiny_dataset((7, 5), size=size, channels=channels))
    assert "--image-size" in caught.value.hint


def test_a_file_is_checked_as_it_is_loaded(tmp_path, dataset, proxy):
    path = save_proxy(proxy, tmp_path / "p.safetensors")
    assert torch.equal(load_matching_proxy(path, dataset).images, proxy.images)
    with pytest.raises(ProxyError, match="was made from"):
        load_matching_proxy(path, tiny_dataset((7, 5), size=(8, 6), channels=3, seed=1))
