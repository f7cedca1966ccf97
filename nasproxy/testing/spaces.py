"""Tests that every search space passes."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from nasproxy.export.description import Description
from nasproxy.export.standalone import write_standalone
from nasproxy.export.trace import MOST_CHECKED
from nasproxy.networks.materialise import materialise
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.check import check_space
from nasproxy.spaces.source import SpaceSource
from nasproxy.spaces.space import Config, SearchSpace
from nasproxy.testing.data import tiny_dataset

_MEMBERS = 200


class SpaceTests:
    """What ``nasproxy search`` relies on. Subclass it, and say which space it is.

    Example:
        >>> class TestMySpace(SpaceTests):
        ...     spec = "my_space.py"
        ...     image_size = (32, 32)
    """

    spec: ClassVar[str]
    """As for ``--space``: a registered name, ``package.module:attribute`` or ``file.py[:attribute]``."""
    in_channels: ClassVar[int] = 1
    num_classes: ClassVar[int] = 10
    image_size: ClassVar[tuple[int, int]] = (16, 16)
    """(height, width) in pixels."""
    tried: ClassVar[int] = 5
    """Candidates that are built, of a stratified sample."""

    def space(self) -> SearchSpace:
        """The space, loaded as ``--space`` loads it."""
        return SpaceSource.parse(self.spec).load()

    def test_a_sample_trains(self) -> None:
        """Validity everywhere; a sample forward and backward, with logits of the right shape and a finite loss."""
        report = check_space(
            self.space(),
            in_channels=self.in_channels,
            num_classes=self.num_classes,
            image_size=self.image_size,
            sample=self.tried,
        )
        assert report.ok, "\n".join(report.problems)

    def test_members_are_distinct_and_keep_their_ids_in_json(self) -> None:
        """A study on a disk finds every candidate again."""
        space = self.space()
        members = space.sample(min(len(space), _MEMBERS), seed=0)
        ids = [Candidate.of(member).id for member in members]
        assert len(set(ids)) == len(ids), "two members of the space are equal"
        read = [Candidate.of(json.loads(json.dumps(member))).id for member in members]
        assert read == ids, "a configuration is another one after it was written as JSON"

    def test_samples_are_members(self) -> None:
        """``--limit`` draws from the space itself, and the same for the same seed."""
        space = self.space()
        count = min(len(space), self.tried)
        sample = space.sample(count, seed=1)
        assert sample == space.sample(count, seed=1), "a seed gives two samples"
        wanted = {json.dumps(member) for member in sample}
        assert len(wanted) == count, "a sample holds a member twice"
        assert wanted <= {json.dumps(member) for member in space}, "a sample holds what is not in the space"

    def test_a_seed_decides_the_weights(self) -> None:
        """Resumed and distributed searches build the same network again: ``build`` draws from torch alone."""
        space = self.space()
        for config in self._valid(space):
            first, second = (self._built(space, config).state_dict() for _ in range(2))
            equal = first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
            assert equal, f"{config} gives other weights when it is built again after torch.manual_seed"

    def test_a_worker_loads_the_same_space(self) -> None:
        """What is sent to other processes is the text or the name of the space, and is enough."""
        space, source = self.space(), SpaceSource.parse(self.spec)
        there = pickle.loads(pickle.dumps(source)).load()  # noqa: S301, our own two lines ago
        assert there.name == space.name
        assert dict(there.choices) == dict(space.choices)
        assert len(there) == len(space)

    def test_a_winner_can_be_handed_over(self) -> None:
        """The first valid candidate of a sample, untrained, as the plain Python file that a search ends with."""
        space = self.space()
        config = self._valid(space)[0]
        data = tiny_dataset((3,) * self.num_classes, size=self.image_size, channels=self.in_channels)
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "winner"
            description = Description(
                id=Candidate.of(config).id,
                space=space.name,
                config=config,
                scores={},
                dataset=data.name,
                fingerprint=data.fingerprint,
                image_size=data.image_size,
                channels=data.channels,
                class_names=data.class_names,
                normalisation=data.normalisation,
                versions={},
            )
            images = data.normalisation.apply(data.validation.images)
            images = images[torch.arange(MOST_CHECKED) % len(images)]
            write_standalone(written, model=self._built(space, config), description=description, images=images)
            assert (written / "classify.py").exists()

    def _valid(self, space: SearchSpace) -> list[Config]:
        sample = space.sample(min(len(space), _MEMBERS), seed=0)
        valid = [config for config in sample if space.is_valid(dict(config), self.image_size) is True]
        assert valid, f"no candidate of a sample of {len(sample)} is valid at {self.image_size}"
        return valid[: self.tried]

    def _built(self, space: SearchSpace, config: Config) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = space.build(
                dict(config), in_channels=self.in_channels, num_classes=self.num_classes, image_size=self.image_size
            )
            return materialise(model, torch.zeros(2, self.in_channels, *self.image_size), self.num_classes)
