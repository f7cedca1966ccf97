"""A space against a plain enumeration of its choices."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasproxy.spaces.space import SearchSpace


class Grid(SearchSpace):
    name = "grid"

    def __init__(self, choices):
        self.choices = choices

    def build(self, config, *, in_channels, num_classes, image_size):
        raise NotImplementedError


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.lists(scalars, min_size=1, max_size=4, unique_by=repr)
grids = st.dictionaries(st.text("abcdefgh", min_size=1), values, min_size=1, max_size=4).map(Grid)


def enumerate_plainly(space: SearchSpace) -> list[dict]:
    return [dict(zip(space.choices, row, strict=True)) for row in itertools.product(*space.choices.values())]


def as_text(configs) -> list[str]:
    return [repr(config) for config in configs]  # 1 and True are equal, their texts are not


@given(grids)
def test_is_the_product_of_its_choices(space):
    expected = enumerate_plainly(space)
    assert len(space) == len(expected)
    assert as_text(space) == as_text(expected)
    assert as_text(space[index] for index in range(len(space))) == as_text(expected)
    assert as_text(space[-index] for index in range(1, len(space) + 1)) == as_text(reversed(expected))
    assert len(set(as_text(space))) == len(space)


@given(grids, st.integers(min_value=0, max_value=10**6))
def test_refuses_an_index_outside(space, beyond):
    for index in (len(space) + beyond, -len(space) - 1 - beyond):
        with pytest.raises(IndexError, match=f"grid has {len(space)} candidates"):
            space[index]


@given(grids)
def test_a_configuration_can_be_changed_without_changing_the_space(space):
    before = as_text(space)
    space[0].clear()
    next(iter(space)).clear()
    space.sample(1, seed=0)[0].clear()
    assert as_text(space) == before


@given(grids, st.data())
def test_a_sample_is_of_distinct_members_in_order(space, data):
    count = data.draw(st.integers(0, len(space)))
    seed = data.draw(st.integers(0, 2**32))
    picked = as_text(space.sample(count, seed))
    members = as_text(enumerate_plainly(space))
    positions = [members.index(config) for config in picked]
    assert len(positions) == count
    assert positions == sorted(set(positions))
    assert picked == as_text(space.sample(count, seed))


@given(grids)
def test_a_full_sample_is_the_space(space):
    assert as_text(space.sample(len(space), seed=3)) == as_text(space)


@given(st.integers(1, 9), st.data(), st.integers(0, 2**32))
def test_a_sample_deals_values_out_evenly(size, data, seed):
    # Up to 50, no value of the second choice is dealt twice, so no configuration is either.
    space = Grid({"few": list(range(size)), "many": list(range(50))})
    count = data.draw(st.integers(0, 50))
    sample = space.sample(count, seed)
    few = Counter(config["few"] for config in sample)
    assert max(few[value] for value in range(size)) - min(few[value] for value in range(size)) <= 1
    assert all(times == 1 for times in Counter(config["many"] for config in sample).values())


def test_seeds_give_different_samples():
    space = Grid({name: list(range(10)) for name in "abc"})
    assert len({tuple(as_text(space.sample(20, seed))) for seed in range(10)}) == 10


@pytest.mark.parametrize("count", [-1, 7])
def test_refuses_a_sample_that_cannot_be(count):
    with pytest.raises(ValueError, match=f"grid has 6 candidates, cannot sample {count}"):
        Grid({"a": [1, 2], "b": [1, 2, 3]}).sample(count, seed=0)


def test_a_huge_space_is_indexed_and_sampled_without_enumeration():
    space = Grid({f"c{position}": list(range(10)) for position in range(15)})
    assert space[123456789012345] == {f"c{position}": int(f"{123456789012345}"[position]) for position in range(15)}
    assert len(space.sample(100, seed=1)) == 100
