"""Tests that every way of making a proxy's images passes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch

from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.proxies.condensed import Condensed
from nasproxy.proxies.method import ProxyMethod
from nasproxy.testing.data import tiny_dataset, with_other_held_out_images


class ProxyMethodTests:
    """What ``nasproxy search --proxy`` relies on. Subclass it, and make the method.

    Example:
        >>> class TestMyMethod(ProxyMethodTests):
        ...     def method(self):
        ...         return MyMethod(ipc=2)
    """

    def method(self) -> ProxyMethod:
        """The method with settings that take little time, and 1 to 3 images per class."""
        raise NotImplementedError("Define method() in the class of tests.")

    def dataset(self) -> ImageDataset:
        """What the proxy is made from."""
        return tiny_dataset((7, 5, 6))

    def test_makes_its_images_of_each_class_in_order(self) -> None:
        """``ipc`` finite images of each class, of the dataset's size."""
        dataset, method = self.dataset(), self.method()
        made = self._made(dataset)
        count = method.ipc * dataset.num_classes
        assert tuple(made.images.shape) == (count, dataset.channels, *dataset.image_size)
        assert made.labels.tolist() == [label for label in range(dataset.num_classes) for _ in range(method.ipc)]
        assert made.images.is_floating_point()
        assert bool(made.images.isfinite().all()), "an image is not finite"

    def test_the_seed_decides(self) -> None:
        """Whatever the global random state is, which is left alone."""
        torch.manual_seed(1)
        first = self._made(self.dataset())
        torch.manual_seed(2)
        before = torch.random.get_rng_state()
        second = self._made(self.dataset())
        assert torch.equal(first.images, second.images), "one seed gives two proxies"
        assert torch.equal(before, torch.random.get_rng_state()), "the global random state was used"

    def test_only_the_training_part_is_looked_at(self) -> None:
        """Other validation and test images make no difference: a proxy that has seen them flatters candidates."""
        dataset = self.dataset()
        first, second = self._made(dataset), self._made(with_other_held_out_images(dataset))
        assert torch.equal(first.images, second.images), "the images depend on the validation or test part"

    def test_every_step_is_reported(self) -> None:
        """The progress display counts to ``steps``."""
        method = self.method()
        reported: list[tuple[int, float]] = []
        where: dict[str, Any] = {"device": torch.device("cpu"), "precision": "float32"}
        method.make(self.dataset(), seed=0, on_iteration=lambda *report: reported.append(report), **where)
        assert [number for number, _ in reported] == list(range(1, method.steps + 1))

    def test_settings_are_json(self) -> None:
        """They are written beside the images, and decide what the cache finds."""
        settings = asdict(self.method())
        assert json.loads(json.dumps(settings)) == settings
        assert self.method() == self.method()

    def _made(self, dataset: ImageDataset) -> Condensed:
        return self.method().make(dataset, seed=3, device=torch.device("cpu"), precision="float32")
