"""scikit-learn's handwritten digits: part of the installation, nothing to download."""

from __future__ import annotations

import torch

from nasproxy.datasets.image_dataset import Split
from nasproxy.datasets.resizing import Size, resize_images
from nasproxy.datasets.source import Source

DEFAULT_SIZE = (16, 16)


def read_digits(image_size: Size | None = None) -> Source:
    """1,797 gray images, 8x8 with pixels 0..16 in the original, resized to 16x16 unless told otherwise.

    scikit-learn ships the test part of UCI's "Optical Recognition of Handwritten Digits" alone, so there is no
    official division into training and test images.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    images = resize_images(pixels, image_size or DEFAULT_SIZE)
    labels = torch.from_numpy(bunch.target).long()
    return Source({"train": Split(images, labels)}, tuple(str(name) for name in bunch.target_names))
