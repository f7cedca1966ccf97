"""Which candidates of a space take part, of spaces that fit into memory and of those that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from nasproxy.errors import InputError, SpaceError
from nasproxy.spaces import sampling
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.sampling import MOST, choose_candidates
from nasproxy.spaces.space import Config, SearchSpace


class Digits(SearchSpace):
    """All numbers of so many digits; those are valid whose last is one of ``valid``. It is only drawn from."""

    name = "digits"

    def __init__(self, length: int, valid: str = "0123456789") -> None:
        self.choices = {f"c{position}": list(range(10)) for position in range(length)}
        self._last, self._valid = f"c{length - 1}", valid

    def __iter__(self) -> Iterator[Config]:
        pytest.fail("it was listed")

    def is_valid(self, config: Config, image_size: tuple[int, int]) -> bool | str:
        return str(config[self._last]) in self._valid or "another digit"

    def build(self, config, *, in_channels, num_classes, image_size):
        raise NotImplementedError


def choose(space: SearchSpace, limit: int | None) -> tuple[list[Candidate], int]:
    chosen, invalid = choose_candidates(space, (8, 8), limit=limit, seed=0)
    return chosen, invalid.total()


def test_a_huge_space_is_not_listed_but_drawn_from():
    chosen, invalid = choose(Digits(15), 100)
    assert invalid == 0
    assert len({candidate.id for candidate in chosen}) == 100
    assert choose(Digits(15), 100)[0] == chosen
    for name in ("c0", "c14"):
        assert set(Counter(candidate.config[name] for candidate in chosen).values()) == {10}


@pytest.mark.parametrize("valid", ["7", "12345", "012345678"])
def test_of_a_huge_space_only_valid_candidates_are_chosen(valid: str):
    chosen, invalid = choose(Digits(15, valid), 100)
    assert invalid > 0
    assert len({candidate.id for candidate in chosen}) == 100
    assert {str(candidate.config["c14"]) for candidate in chosen} <= {*valid}
    assert choose(Digits(15, valid), 100)[0] == chosen


@pytest.mark.parametrize("limit", [None, MOST + 1])
def test_more_candidates_than_fit_into_memory_are_refused(limit: int | None):
    with pytest.raises(SpaceError, match=r"digits has 1,000,000,000,000,000 candidates") as caught:
        choose(Digits(15), limit)
    assert "--limit" in caught.value.hint


def test_a_huge_space_without_valid_candidates_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "_LISTED", 1000)
    with pytest.raises(
        SpaceError, match="No candidate of 1,000 drawn from digits is valid at 8×8 pixels: another digit"
    ):
        choose(Digits(4, ""), 10)
    with pytest.raises(
        InputError, match="--limit 900 is more than the 100 valid candidates of 1,000 drawn from digits"
    ):
        choose(Digits(4, "3"), 900)
