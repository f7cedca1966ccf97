import itertools
import math

from hypothesis import example, given
from hypothesis import strategies as st

from nasproxy.search.halving import Rung, halving_rungs


@st.composite
def searches(draw) -> tuple[int, int, int]:
    candidates = draw(st.integers(1, 3000))
    return candidates, draw(st.integers(1, 500)), draw(st.integers(1, candidates))


@given(searches())
@example((720, 100, 10))
@example((12, 4, 2))
@example((720, 4, 10))
@example((1, 1, 1))
def test_rungs_are_a_ladder(search):
    candidates, epochs, finalists = search
    rungs = halving_rungs(candidates, epochs, finalists)
    assert rungs[0].candidates == candidates
    assert rungs[-1].epochs == epochs
    assert rungs[-1].candidates >= min(candidates, finalists)
    assert all(1 <= rung.epochs <= epochs and 1 <= rung.candidates <= candidates for rung in rungs)
    for rung, above in itertools.pairwise(rungs):
        assert above.candidates < rung.candidates, rungs
        assert above.epochs >= rung.epochs, rungs


@given(searches())
@example((720, 4, 10))
def test_no_rung_repeats_the_epochs_of_another(search):
    rungs = halving_rungs(*search)
    assert len({rung.epochs for rung in rungs}) == len(rungs), rungs


@given(searches())
def test_more_than_the_finalists_train_in_full_where_there_are_as_many(search):
    candidates, epochs, finalists = search
    assert halving_rungs(candidates, epochs, finalists)[-1].candidates >= min(candidates, math.ceil(1.5 * finalists))


def test_the_rungs_of_the_quick_preset():
    assert halving_rungs(720, 100, 10) == [Rung(4, 720), Rung(20, 144), Rung(100, 15)]


def test_nothing_is_cut_where_there_is_nothing_to_gain():
    assert halving_rungs(15, 100, 10) == [Rung(100, 15)]
    assert halving_rungs(720, 1, 10) == [Rung(1, 720)]
    assert halving_rungs(0, 100, 10) == [Rung(100, 0)]
