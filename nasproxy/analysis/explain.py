"""What a rank agreement means, in sentences that need no statistics."""

from __future__ import annotations

from nasproxy.analysis.correlation import RankAgreement
from nasproxy.analysis.text import interval, signed

_RHO = "\N{GREEK SMALL LETTER RHO}"
_STRENGTHS = ((0.2, "almost none"), (0.4, "weak"), (0.6, "moderate"), (0.8, "strong"), (float("inf"), "very strong"))
_FEW = 30


def explain(agreement: RankAgreement) -> list[str]:
    """Sentences on how far the proxy's order of the finalists agrees with their whole-data order, and how sure that is.

    Args:
        agreement: of the finalists' validation accuracies on the proxy and on the whole data.
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


def _meaning(agreement: RankAgreement, low: float, high: float) -> str:
    opening = f"Its {interval(low, high, agreement.level)}"
    if low <= 0 <= high:
        return (
            f"{opening} includes 0: {agreement.n} candidates are too few to tell whether the proxy's order among the "
            "finalists says anything about their order on the whole data."
        )
    if high < 0:
        return f"{opening} lies below 0: among the finalists, the proxy's order runs against the whole-data order."
    weakest, strongest = _strength(low), _strength(high)
    open_question = (
        f"and the agreement is {weakest}"
        if weakest == strongest
        else f"but {agreement.n} candidates leave open whether the agreement is {weakest} or {strongest}"
    )
    return (
        f"{opening} lies above 0: among the finalists, the proxy's order says something about the whole-data order, "
        f"{open_question}."
    )


def _strength(rho: float) -> str:
    return next(word for limit, word in _STRENGTHS if abs(rho) < limit)
