"""A search space written as a function that asks: Optuna's define-by-run, with parameters that depend on others."""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import TrialPruned
from optuna.trial import BaseTrial

from nasproxy.errors import SpaceError
from nasproxy.spaces.asked_trial import (
    AskedTrial,
    by_chance,
    by_config,
    by_positions,
    by_trial,
    following,
    values_of,
)
from nasproxy.spaces.signature import check_call, defined_at
from nasproxy.spaces.space import ABSENT, Config, Scalar, SearchSpace

if TYPE_CHECKING:
    from torch import nn

ENUMERATED = 10_000
"""A function with more points than this is sampled; so many of them then make up the space."""

_BUILD = "def build(*, in_channels, num_classes, image_size): …"

Builder = Callable[..., "nn.Module"]


class DefineByRun(SearchSpace):
    """The points that a function of a trial can come to.

    The function asks ``trial.suggest_categorical``, ``suggest_int`` and ``suggest_float``, and returns a function that
    builds the network. What it asks may depend on earlier answers; a configuration holds what was asked on its way.
    Points that it leaves by ``raise optuna.TrialPruned("why")`` are invalid.

    All points are listed where there are no more than 10,000; else the space is a fixed sample of so many, drawn as
    Optuna's random sampler draws: all values of a question equally likely, by their logarithm where ``log`` says so.
    ``choices`` has the values of all parameters that occur, and ``-`` where a parameter is not always asked. The
    space is named as the function is, or as its file where the function is called just ``space``.

    Args:
        function: takes an Optuna trial; returns ``build(*, in_channels, num_classes, image_size) -> nn.Module``.

    Raises:
        SpaceError: the function breaks these rules.

    Example:
        >>> def blocks(trial):
        ...     depth = trial.suggest_int("depth", 1, 2)
        ...     widths = [trial.suggest_categorical(f"width_{number}", [16, 32, 64]) for number in range(depth)]
        ...     return lambda *, in_channels, num_classes, image_size: ...
        >>> len(DefineByRun(blocks))  # 3 of depth 1, 9 of depth 2
        12
    """

    def __init__(self, function: Callable[[Any], Builder]) -> None:
        self.function = function
        self.name = _name_of(function)
        self._asked: dict[str, BaseDistribution] = {}
        self._values: dict[str, dict[str, Scalar]] = {}
        self._configs, self.sampled = self._points()
        if not self._values:
            raise SpaceError(
                f"{defined_at(function)} asks its trial nothing.", 'Example: trial.suggest_int("depth", 1, 4)'
            )
        self.choices: Mapping[str, Sequence[Scalar]] = {name: self._choice(name) for name in self._values}

    def build(self, config: Config, *, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        """What the function's own builder makes at this point."""
        build = self.function(AskedTrial(by_config(config)))
        return build(in_channels=in_channels, num_classes=num_classes, image_size=image_size)

    def is_valid(self, config: Config, image_size: tuple[int, int]) -> bool | str:
        """The reason that the function gives by ``raise optuna.TrialPruned("why")``; True where it does not."""
        try:
            self.function(AskedTrial(by_config(config)))
        except TrialPruned as pruned:
            return str(pruned) or "pruned"
        return True

    def distributions(self, config: Config) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each parameter, as it is asked at this point."""
        return self._walked(AskedTrial(by_config(config))).distributions

    def suggest(self, trial: BaseTrial) -> Config:
        """Lets an Optuna trial, and so its sampler, answer."""
        return self._walked(AskedTrial(by_trial(trial))).config

    def __len__(self) -> int:
        return len(self._configs)

    def __getitem__(self, index: int) -> Config:
        return dict(self._configs[index])

    def __iter__(self) -> Iterator[Config]:
        return map(dict, self._configs)

    def sample(self, count: int, seed: int) -> list[Config]:
        """``count`` different points by walks that take every answer equally often; a shortfall by uniform draws.

        Raises:
            ValueError: ``count`` is larger than the space or negative.
        """
        if not 0 <= count <= len(self):
            raise ValueError(f"{self.name} has {len(self)} candidates, cannot sample {count} different ones")
        rng = random.Random(seed)
        picked: dict[int, None] = {}
        if not self.sampled:  # a sample was drawn by such walks
            places = {json.dumps(config): place for place, config in enumerate(self._configs)}
            for _ in range(10 * count):
                if len(picked) < count:
                    picked[places[json.dumps(self._walked(AskedTrial(by_chance(rng))).config)]] = None
        left = [place for place in range(len(self)) if place not in picked]
        return [self[place] for place in sorted([*picked, *rng.sample(left, count - len(picked))])]

    def _points(self) -> tuple[list[Config], bool]:
        """All points in the order of their answers, or a sample of them, and which of the two."""
        found: list[Config] = []
        positions: list[int] | None = []
        while positions is not None and len(found) <= ENUMERATED:
            trial = self._noted(AskedTrial(by_positions(positions)))
            found.append(trial.config)
            positions = following(trial.places)
        if positions is None:
            return found, False
        rng = random.Random(0)
        drawn: dict[str, Config] = {}
        for _ in range(2 * ENUMERATED):
            if len(drawn) < ENUMERATED:
                config = self._noted(AskedTrial(by_chance(rng))).config
                drawn[json.dumps(config)] = config
        return list(drawn.values()), True

    def _noted(self, trial: AskedTrial) -> AskedTrial:
        """A point, whose parameters are compared with those of the others and kept."""
        self._walked(trial)
        for name, distribution in trial.distributions.items():
            if self._asked.get(name) == distribution:
                continue
            known = self._asked.setdefault(name, distribution)
            if type(known) is not type(distribution) or (
                known != distribution and isinstance(known, CategoricalDistribution)
            ):
                raise SpaceError(
                    f"{defined_at(self.function)} asks for {name} as {known} and, at another point, as {distribution}.",
                    "Optuna keeps one kind and one list of choices for a name; give one of them another name.",
                )
            values = self._values.setdefault(name, {})
            values.update((json.dumps(value), value) for value in values_of(name, distribution))
        return trial

    def _walked(self, trial: AskedTrial) -> AskedTrial:
        """The trial, after the function has asked it all it asks."""
        try:
            build: object = self.function(trial)
        except TrialPruned:  # a point all the same, that is not valid
            return trial
        if not inspect.isroutine(build):
            raise SpaceError(
                f"{defined_at(self.function)} returns {type(build).__name__} instead of a function that builds a"
                " network.",
                f"End it with: {_BUILD}; return build. Candidates are listed without building any of them.",
            )
        check_call(build, self.name, _BUILD, in_channels=1, num_classes=2, image_size=(8, 8))
        return trial

    def _choice(self, name: str) -> tuple[Scalar, ...]:
        values: Any = self._values[name].values()
        if not isinstance(self._asked[name], CategoricalDistribution):
            values = sorted(values)
        return (*values, *(() if all(name in config for config in self._configs) else (ABSENT,)))


def _name_of(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    stem = Path(code.co_filename).stem if code is not None else ""
    return stem if function.__name__ == "space" and stem.isidentifier() else function.__name__
