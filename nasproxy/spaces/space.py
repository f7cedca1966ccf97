"""What a search space is: named choices, and a function that builds a network from one of each."""

from __future__ import annotations

import itertools
import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial
    from torch import nn

Scalar = bool | int | float | str | None
"""A value of a choice: what JSON and an Optuna categorical can both hold."""

Config = dict[str, Scalar]
"""One value for each choice; of a define-by-run space, for each parameter that is asked on the way."""

ABSENT = "-"
"""What tables show where a configuration does not have a parameter that others have."""


class SearchSpace(ABC):
    """A finite family of networks. Subclass it, set ``choices``, write ``build``.

    A space is a sequence of configurations in the lexicographic order of ``choices`` (the last choice varies fastest).

    Example:
        >>> class Widths(SearchSpace):
        ...     name = "widths"
        ...     choices = {"width": [8, 16, 32]}
        ...     def build(self, config, *, in_channels, num_classes, image_size):
        ...         return nn.Sequential(nn.Flatten(), nn.LazyLinear(config["width"]), nn.LazyLinear(num_classes))
        >>> len(Widths())
        3
    """

    name: str
    choices: Mapping[str, Sequence[Scalar]]

    @abstractmethod
    def build(self, config: Config, *, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        """A freshly initialised network that maps (n, in_channels, *image_size) images to (n, num_classes) logits."""

    def is_valid(self, config: Config, image_size: tuple[int, int]) -> bool | str:
        """True where ``config`` makes sense at ``image_size`` = (height, width); a string says why it does not."""
        return True

    def canonical_form(self, config: Config) -> str:
        """What the configurations that build the same network share: by default their JSON, which no two do.

        ``nasproxy spaces check`` counts duplicates by it; a space that knows its own may say so here.
        """
        return json.dumps(config, sort_keys=True)

    def suggest(self, trial: BaseTrial) -> Config:
        """Lets an Optuna trial choose a configuration."""
        return {name: trial.suggest_categorical(name, tuple(values)) for name, values in self.choices.items()}

    def distributions(self, config: Config) -> dict[str, BaseDistribution]:
        """What a configuration's values were chosen from, as an Optuna study holds it."""
        from optuna.distributions import CategoricalDistribution  # a space is defined without loading Optuna

        return {name: CategoricalDistribution(tuple(self.choices[name])) for name in config}

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.choices.values())

    def __getitem__(self, index: int) -> Config:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} candidates, asked for number {index}")
        index %= len(self)
        config: Config = {}
        for name, values in reversed(list(self.choices.items())):
            index, position = divmod(index, len(values))
            config[name] = values[position]
        return {name: config[name] for name in self.choices}

    def __iter__(self) -> Iterator[Config]:
        for values in itertools.product(*self.choices.values()):
            yield dict(zip(self.choices, values, strict=True))

    def sample(self, count: int, seed: int) -> list[Config]:
        """``count`` different configurations, stratified: each value of each choice as often as can be.

        Each choice deals its values out evenly in a random order of its own; a configuration dealt twice, and a
        shortfall, are made up by uniform draws.

        Raises:
            ValueError: ``count`` is larger than the space or negative.
        """
        if not 0 <= count <= len(self):
            raise ValueError(f"{self.name} has {len(self)} candidates, cannot sample {count} different ones")
        rng = random.Random(seed)
        columns = []
        for values in self.choices.values():
            # Whole decks first, then a random part of one: no value leads another by more than one.
            deck = list(range(len(values))) * (count // len(values)) + rng.sample(
                range(len(values)), count % len(values)
            )
            rng.shuffle(deck)
            columns.append(deck)
        picked: dict[int, None] = {}
        for positions in zip(*columns, strict=True):
            index = 0
            for position, values in zip(positions, self.choices.values(), strict=True):
                index = index * len(values) + position
            picked[index] = None
        spare = rng.sample(range(len(self)), min(len(self), 2 * count)) if len(picked) < count else []
        for index in spare:
            if len(picked) == count:
                break
            picked[index] = None
        return [self[index] for index in sorted(picked)]
