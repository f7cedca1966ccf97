"""A trial in Optuna's likeness that is answered by us, and remembers what it was asked."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial, FixedTrial

from nasproxy.errors import SpaceError, some
from nasproxy.spaces.contract import check_values
from nasproxy.spaces.space import Config, Scalar

MOST_VALUES, MOST_QUESTIONS = 1_000, 1_000

Answer = Callable[[str, BaseDistribution, Sequence[Scalar]], int]
"""The position of the answer among a parameter's values."""


class AskedTrial(FixedTrial):
    """A trial whose parameters are answered one after another.

    Args:
        answer: picks each value.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__({})
        self._answer = answer
        self._asked: dict[str, BaseDistribution] = {}
        self.config: Config = {}
        self.places: list[tuple[int, int]] = []
        """The position of each answer, and the number of values it was picked from."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of ``choices``, which are JSON scalars."""
        check_values(choices, f"The parameter {name}")
        return self._ask(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """One of ``low``, ``low + step``, …, ``high``; ``log`` only says how a sampler draws."""
        return int(self._ask(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """One of ``low``, ``low + step``, …, ``high``; without a step there would be no end of candidates."""
        return float(self._ask(name, FloatDistribution(low, high, log=log, step=step)))

    @property
    def params(self) -> dict[str, Any]:
        """What was answered so far."""
        return dict(self.config)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What was asked so far."""
        return dict(self._asked)

    def _ask(self, name: str, distribution: BaseDistribution) -> Any:
        known = self._asked.setdefault(name, distribution)
        if known != distribution:
            raise SpaceError(f"One trial is asked {name} twice, as {known} and as {distribution}.", "Rename one.")
        if name not in self.config:
            if len(self.config) >= MOST_QUESTIONS:
                raise SpaceError(
                    f"A trial is asked more than {MOST_QUESTIONS} parameters, {name} among them.",
                    "Let the function come to an end whatever the answers are.",
                )
            values = values_of(name, distribution)
            place = self._answer(name, distribution, values)
            self.config[name] = values[place]
            self.places.append((place, len(values)))
        return self.config[name]


def values_of(name: str, distribution: BaseDistribution) -> Sequence[Scalar]:
    """All values of a parameter, in order.

    Raises:
        SpaceError: there is no end of them, or there are more than a thousand.
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        numbers = range(distribution.low, distribution.high + 1, distribution.step)
        return _few(name, numbers, len(numbers))
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None:
        hint = f'Say trial.suggest_float("{name}", …, step=…), or suggest_categorical with a few values.'
        raise SpaceError(f"The parameter {name} is any number from {distribution.low} to {distribution.high}.", hint)
    # In decimals, as 0.1 + 2 * 0.1 is not 0.3 otherwise.
    low, high, step = (Decimal(str(number)) for number in (distribution.low, distribution.high, distribution.step))
    count = int((high - low) // step) + 1
    _few(name, range(count), count)
    return [float(low + place * step) for place in range(count)]


def _few(name: str, values: Sequence[Scalar], count: int) -> Sequence[Scalar]:
    if count > MOST_VALUES:
        raise SpaceError(f"The parameter {name} has {count:,} values, {MOST_VALUES:,} at the most.", "Say a step=….")
    return values


def by_config(config: Mapping[str, Scalar]) -> Answer:
    """Answers with a configuration's values; one that it does not have is a SpaceError."""

    def answer(name: str, _: BaseDistribution, values: Sequence[Scalar]) -> int:
        # By their texts, as Python takes 1 and True for equal.
        texts = [json.dumps(value) for value in values]
        if name in config and json.dumps(config[name]) in texts:
            return texts.index(json.dumps(config[name]))
        raise SpaceError(
            f"The function asks for {name} out of {some(values)}, and {dict(config)} has no such value.",
            "What it asks may depend on earlier answers alone: not on chance, time or files.",
        )

    return answer


def by_positions(positions: Sequence[int]) -> Answer:
    """Answers one question after another by position, and all that come after them with the first value."""
    left = list(positions)
    return lambda *_: left.pop(0) if left else 0


def by_chance(rng: random.Random) -> Answer:
    """Every value is equally likely; where ``log`` is said, in proportion to its share of the logarithmic range."""

    def answer(_: str, distribution: BaseDistribution, values: Sequence[Scalar]) -> int:
        if not (isinstance(distribution, IntDistribution) and distribution.log):
            return rng.randrange(len(values))
        low, high = math.log(distribution.low - 0.5), math.log(distribution.high + 0.5)
        place = round(math.exp(rng.uniform(low, high))) - distribution.low
        return min(max(place, 0), len(values) - 1)

    return answer


def by_trial(trial: BaseTrial) -> Answer:
    """Lets another trial answer: Optuna's, whose sampler proposes."""

    def answer(name: str, distribution: BaseDistribution, values: Sequence[Scalar]) -> int:
        if isinstance(distribution, CategoricalDistribution):
            wanted = json.dumps(trial.suggest_categorical(name, distribution.choices))
            return [json.dumps(value) for value in values].index(wanted)
        number: float
        if isinstance(distribution, IntDistribution):
            log = distribution.log
            number = trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=log)
            return (number - distribution.low) // distribution.step
        assert isinstance(distribution, FloatDistribution)
        assert distribution.step is not None
        number = trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step)
        return round((number - distribution.low) / distribution.step)

    return answer


def following(places: Sequence[tuple[int, int]]) -> list[int] | None:
    """The positions that lead to the next point, the last answer changing fastest; None after the last point."""
    positions = [place for place, _ in places]
    while positions and positions[-1] + 1 == places[len(positions) - 1][1]:
        positions.pop()
    return [*positions[:-1], positions[-1] + 1] if positions else None
