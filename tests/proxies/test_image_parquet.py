"""What is exported for others, our own reader reads back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_dataset

from nasproxy.datasets.load import load_dataset
from nasproxy.datasets.parquet_folder import find_parquet, list_parquet
from nasproxy.errors import WriteError
from nasproxy.proxies.image_parquet import save_image_parquet
from nasproxy.proxies.make import random_proxy


@pytest.mark.parametrize("channels", [1, 3])
def test_real_images_survive_and_the_folder_is_a_dataset(tmp_path, channels):
    proxy = random_proxy(tiny_dataset((6, 5), channels=channels, size=(8, 6)), 5, seed=0)
    assert save_image_parquet(proxy, tmp_path / "train.parquet") == 0
    source = list_parquet(find_parquet(tmp_path)).decode(None, skip_broken=False)
    assert source.class_names == proxy.class_names
    assert torch.equal(source.parts["train"].labels, proxy.labels)
    assert torch.equal(source.parts["train"].images, proxy.normalisation.invert(proxy.images))
    again = load_dataset(str(tmp_path))
    assert (again.image_size, again.channels, again.class_names) == ((8, 6), channels, proxy.class_names)


def test_what_lies_beyond_black_and_white_is_clipped_and_counted(tmp_path):
    proxy = random_proxy(tiny_dataset(), 2, seed=0)
    images = torch.zeros_like(proxy.images)
    images[0], images[1] = 1e3, -1e3
    clipped = save_image_parquet(replace(proxy, images=images), tmp_path / "train.parquet")
    assert clipped == pytest.approx(0.5)
    (part,) = list_parquet(find_parquet(tmp_path)).decode(None, skip_broken=False).parts.values()
    assert np.unique(part.images[:2].flatten(1), axis=1).tolist() == [[255], [0]]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(WriteError, match="nowhere"):
        save_image_parquet(random_proxy(tiny_dataset(), 1, seed=0), tmp_path / "nowhere" / "train.parquet")
