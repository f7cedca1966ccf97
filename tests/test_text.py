"""Numbers as texts, and what an agreement is said to mean."""

import doctest

import pytest

from nasproxy import text
from nasproxy.analysis.correlation import RankAgreement, spearman
from nasproxy.analysis.explain import explain


def test_examples_in_the_docstrings():
    result = doctest.testmod(text)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (9.96, "10 s"),
        (59.7, "59 s"),
        (59.97, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (360_000, "100 h 0 min"),
    ],
)
def test_duration_never_shows_sixty_of_a_unit(seconds, said):
    assert text.duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (999, "999"),
        (9_996, "10.0 k"),
        (99_960, "100 k"),
        (999_499, "999 k"),
        (999_600, "1.00 M"),
        (2.5e13, "25.0 T"),
    ],
)
def test_count_keeps_three_digits(number, said):
    assert text.count(number) == said


def test_shorten_makes_hostile_names_printable():
    assert text.shorten("a\x00b\n\u202ec\ud800") == "a b c"
    assert len(text.shorten("x" * 500)) == 24


def agreement(rho, low, high, n=10):
    return RankAgreement(rho, (low, high), rho, n, None)


def test_an_interval_around_zero_is_said_to_tell_nothing():
    said = " ".join(explain(agreement(0.4, -0.2, 0.8)))
    assert "includes 0: 10 candidates are too few" in said
    assert "rather too narrow" in said


def test_an_interval_above_zero_names_what_it_leaves_open():
    assert "leave open whether the agreement is weak or very strong" in " ".join(explain(agreement(0.7, 0.3, 0.9)))
    said = " ".join(explain(agreement(0.9, 0.85, 0.95, n=200)))
    assert "and the agreement is very strong" in said
    assert "too narrow" not in said


def test_an_interval_below_zero_is_said_to_be_a_reverse_order():
    assert "runs against" in " ".join(explain(agreement(-0.7, -0.9, -0.3)))


def test_no_rho_is_explained_by_its_reason():
    assert explain(spearman([1, 2], [1, 2])) == [
        "How far the two orders agree cannot be said: a rank correlation needs at least 3 points, there are 2."
    ]


def test_no_interval_is_explained_by_its_reason():
    said = explain(RankAgreement(0.5, None, 0.3, 3, "every bootstrap draw was constant on one side"))
    assert said[-1] == "It has no interval: every bootstrap draw was constant on one side."
