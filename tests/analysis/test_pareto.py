import math

from hypothesis import given
from hypothesis import strategies as st

from nasproxy.analysis.pareto import front_numbers

VALUES = st.integers(0, 4).map(float) | st.just(math.inf)


def peeled(losses: list[list[float]]) -> list[int]:
    """By the definition: take away what nobody dominates, again and again."""
    numbers: dict[int, int] = {}
    while len(numbers) < len(losses):
        left = [i for i in range(len(losses)) if i not in numbers]
        front = [i for i in left if not any(dominates(losses[j], losses[i]) for j in left)]
        numbers |= dict.fromkeys(front, max(numbers.values(), default=-1) + 1)
    return [numbers[i] for i in range(len(losses))]


def dominates(one: list[float], other: list[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(VALUES, min_size=width, max_size=width), max_size=25)))
def test_fronts_are_what_peeling_gives(losses):
    assert front_numbers(losses) == peeled(losses)


def test_one_objective_makes_a_front_of_each_value():
    assert front_numbers([[3.0], [1.0], [2.0], [1.0]]) == [2, 0, 1, 0]


def test_two_objectives():
    assert front_numbers([[1.0, 4.0], [2.0, 2.0], [4.0, 1.0], [3.0, 3.0], [4.0, 4.0]]) == [0, 0, 0, 1, 2]
