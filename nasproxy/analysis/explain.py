"""What a rank agreement means, in sentences that need no statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasproxy.analysis.correlation import RankAgreement
from nasproxy.text import interval, percent, signed

_RHO = "\N{GREEK SMALL LETTER RHO}"
_STRENGTHS = ((0.2, "almost none"), (0.4, "weak"), (0.6, "moderate"), (0.8, "strong"), (float("inf"), "very strong"))
_FEW = 30


def explain(agreement: RankAgreement) -> list[str]:
    """Sentences on how far the proxy's order of the finalists agrees with their whole-data order, and how sure that is.

    Args:
        agreement: of the finalists' order on the proxy and their validation accuracies on the whole data.
    """
    if agreement.rho is None:
        return [f"How far the two orders agree cannot be said: {agreement.reason}."]
    sentences = [
        f"Spearman's {_RHO} between the two orders of the {agreement.n} finalists is {signed(agreement.rho)}: "
        "1 would be the same order, 0 no relation, \N{MINUS SIGN}1 the reverse order."
    ]
    if agreement.interval is None:
        return [*sentences, f"It has no interval: {agreement.reason}."]
    sentences.append(_meaning(agreement, *agreement.interval))
    if agreement.n < _FEW:
        sentences.append(
            f"The interval comes from drawing the {agreement.n} finalists again and again with replacement; with so "
            "few of them it is rough, and rather too narrow than too wide."
        )
    sentences.append(
        "The finalists are the proxy's best, which as a rule lie close together. How well the proxy tells good "
        "candidates from poor ones over the whole space is another question, which these figures do not answer."
    )
    return sentences


def explain_calibration(agreement: RankAgreement, ranked: int) -> list[str]:
    """Sentences on how far the proxy's order of all candidates agrees with the whole-data order, by a random sample.

    Args:
        agreement: of the sample's order on the proxy and its validation accuracies on the whole data.
        ranked: how many candidates it was drawn from.
    """
    if agreement.rho is None:
        return [f"How far the proxy can be trusted overall cannot be estimated: {agreement.reason}."]
    opening = (
        f"Over {agreement.n} candidates drawn at random from the {ranked} ranked ones, Spearman's {_RHO} between the "
        f"proxy's order and that on the whole data is {signed(agreement.rho)}."
    )
    if agreement.interval is None:
        return [opening, f"It has no interval: {agreement.reason}."]
    return [opening, _meaning(agreement, *agreement.interval, "all candidates")]


def against_winner(found: Mapping[str, Any], winner: Mapping[str, Any] | None) -> list[str]:
    """A sentence on what drawing at random would have found, where there is a winner.

    Args:
        found: ``calibration`` of a run's summary.
        winner: of the same.
    """
    best, reached = found.get("best_whole_accuracy"), (winner or {}).get("whole_accuracy")
    if best is None or reached is None:
        return []
    than = (
        "more than the winner's" if best > reached else "as much as the winner's" if best == reached else "the winner"
    )
    return [
        f"The best of them reaches {percent(best)} validation accuracy on the whole data, {than} {percent(reached)}."
    ]


def agreement_of(found: Mapping[str, Any]) -> RankAgreement:
    """The agreement that a run's summary holds, of the finalists or of a calibration."""
    span = found.get("interval")
    return RankAgreement(
        rho=found.get("rho"),
        interval=(float(span[0]), float(span[-1])) if span else None,
        kendall=found.get("kendall"),
        n=found.get("n", 0),
        reason=found.get("reason"),
        level=found.get("level", 0.95),
    )


def _meaning(agreement: RankAgreement, low: float, high: float, whose: str = "the finalists") -> str:
    opening = f"Its {interval(low, high, agreement.level)}"
    if low <= 0 <= high:
        return (
            f"{opening} includes 0: {agreement.n} candidates are too few to tell whether the proxy's order among "
            f"{whose} says anything about their order on the whole data."
        )
    if high < 0:
        return f"{opening} lies below 0: among {whose}, the proxy's order runs against the whole-data order."
    weakest, strongest = _strength(low), _strength(high)
    open_question = (
        f"and the agreement is {weakest}"
        if weakest == strongest
        else f"but {agreement.n} candidates leave open whether the agreement is {weakest} or {strongest}"
    )
    return (
        f"{opening} lies above 0: among {whose}, the proxy's order says something about the whole-data order, "
        f"{open_question}."
    )


def _strength(rho: float) -> str:
    return next(word for limit, word in _STRENGTHS if abs(rho) < limit)
