import itertools

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


CUTS = ((0.1, 0.5), (0.25, 0.1))


def test_each_cut_stands_where_the_schedule_says():
    assert halving_rungs(720, 100, 10, CUTS) == [Rung(10, 720), Rung(25, 360), Rung(100, 36)]
    assert halving_rungs(720, 30, 10, CUTS) == [Rung(3, 720), Rung(8, 360), Rung(30, 36)]
    assert halving_rungs(720, 100, 10, ()) == [Rung(100, 720)]


def test_the_quick_preset_trains_all_shortly_and_a_few_in_full():
    assert halving_rungs(720, 100, 10) == [Rung(4, 720), Rung(25, 180), Rung(100, 30)]


def test_half_as_many_again_as_the_finalists_train_in_full():
    assert halving_rungs(720, 100, 50, CUTS)[-1] == Rung(100, 75)
    assert halving_rungs(60, 100, 50, CUTS) == [Rung(100, 60)]


def test_nothing_is_cut_where_there_is_nothing_to_gain():
    assert halving_rungs(15, 100, 10) == [Rung(100, 15)]
    assert halving_rungs(720, 1, 10) == [Rung(1, 720)]
    assert halving_rungs(0, 100, 10) == [Rung(100, 0)]
