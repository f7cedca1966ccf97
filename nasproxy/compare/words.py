"""What stands under the table: where figures are from, what intervals mean, which differences are not noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nasproxy.text import counted, percent, signed

_RHO = "\N{GREEK SMALL LETTER RHO}"
_FEW = 30
_MOST = 6  # differences that are spelt out; of more, it is said who is above whom


def sentences(document: Mapping[str, Any]) -> list[str]:
    """Paragraphs on a comparison, each of one matter."""
    return [*document["notes"], _how(document), _intervals(document), _differences(document)]


def _how(document: Mapping[str, Any]) -> str:
    best, repeats = document["best"], document["repeats"]
    if best is None:
        return "No candidate could be trained on the whole data, so no proxy can be judged."
    k = document["precision_k"]
    each = "once" if repeats == 1 else f"{repeats} times, and the accuracies averaged"
    return (
        f"{document['candidates']} candidates of {document['space']} were scored by every proxy; "
        f"{document['trained_on_whole']} of them, every proxy's top {document['top_k']} and a random sample of "
        f"{document['sample']}, were trained on the whole data, each {each}. Performance is the test accuracy of the "
        f"candidate that the proxy puts first. The best candidate known ({best['id']}, test accuracy "
        f"{percent(best['test_accuracy'])}) is the one with the highest validation accuracy, and regret what the "
        f"proxy's first lacks of that accuracy. {_tied(document['rows'])}"
        f"Precision@{k} is the share of the proxy's {k} best of the random "
        f"sample that belong to its {k} best on the whole data, by chance {percent(k / document['sample'], 0)}. "
        "Minutes are those of one worker, those of making the images in brackets."
        f"{_of_repeats(repeats)}"
    )


def _tied(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whose figures of the first are means over several."""
    several = [f"{row['proxy']} ({len(row['winners'])})" for row in rows if len(row["winners"] or ()) > 1]
    if not several:
        return ""
    return (
        "Where a proxy puts several candidates first together, performance and regret are means over those that were "
        f"trained on the whole data: {', '.join(several)}. "
    )


def _of_repeats(repeats: int) -> str:
    if repeats == 1:
        return ""
    return (
        f" Correlations are of the means of {repeats} repeats, which have less noise than single trainings and so "
        "higher correlations; comparison.csv has the mean of the repeats' own (single). A deviation after "
        "\N{PLUS-MINUS SIGN} is over repeats."
    )


def _intervals(document: Mapping[str, Any]) -> str:
    k, n = document["k"], document["sample"]
    chance = (
        f"By chance alone {_RHO} has a standard deviation of {_deviation(k)} on {k} candidates, {_deviation(n)} on {n}."
    )
    few = f" With fewer than {_FEW} candidates, intervals are rough, and rather too narrow than too wide." * (n < _FEW)
    return (
        f"Intervals hold the middle 95\N{NO-BREAK SPACE}% of bootstrap draws over candidates. They cover which "
        f"candidates happened to take part, and with them the noise of {_trainings(document)}; not the draw of a "
        "proxy's images, which was made once: another --seed has other images. An interval that holds 0 leaves open "
        f"whether the proxy's order says anything. {chance} Figures of the top {k} are of candidates that the proxy "
        "itself has chosen, which lie close together; the overall figures are free of that selection."
        f"{few}{_more_finalists(document)}"
    )


def _trainings(document: Mapping[str, Any]) -> str:
    repeats = document["repeats"]
    return "each score's one training" if repeats == 1 else f"each score's mean of {repeats} trainings"


def _more_finalists(document: Mapping[str, Any]) -> str:
    share = document["five_percent"]
    if share <= document["top_k"]:
        return ""
    return f" Figures of the top 5\N{NO-BREAK SPACE}% ({share} candidates) take --top-k {share}."


def _deviation(n: int) -> str:
    """Of Spearman's rho without any relation and without ties: 1 / sqrt(n - 1)."""
    return f"{1 / math.sqrt(max(1, n - 1)):.2f}"


def _differences(document: Mapping[str, Any]) -> str:
    compared = [d for d in document["differences"] if d["interval"] is not None]
    if not compared:
        return "No two proxies could be compared with each other."
    apart = [d for d in compared if d["told_apart"]]
    opening = (
        f"Overall, by a paired bootstrap of the difference in {_RHO} on the same candidates, corrected for "
        f"{counted(len(compared), 'pair')} by Holm's method: "
    )
    if not apart:
        return f"{opening}no two proxies differ by more than noise."
    many = "1 pair differs" if len(apart) == 1 else f"{len(apart)} pairs differ"
    if len(apart) <= _MOST:
        spelt = "; ".join(map(_spelt, sorted(apart, key=lambda d: -abs(d["difference"]))))
        return f"{opening}{many} by more than noise: {spelt}. Intervals are each pair's own."
    known = [row for row in document["rows"] if row["overall_correlation"] is not None]
    best_first = sorted(known, key=lambda row: -row["overall_correlation"])
    above: dict[str, list[str]] = {row["proxy"]: [] for row in best_first}
    for better, worse in map(_ordered, apart):
        above[better].append(worse)
    spelt = "; ".join(f"{better} above {', '.join(worse)}" for better, worse in above.items() if worse)
    return f"{opening}{many} by more than noise: {spelt}. By how much is in comparison.json."


def _ordered(difference: Mapping[str, Any]) -> Sequence[str]:
    """The better one first."""
    names = (difference["first"], difference["second"])
    return names if difference["difference"] > 0 else names[::-1]


def _spelt(difference: Mapping[str, Any]) -> str:
    better, worse = _ordered(difference)
    value, (low, high) = difference["difference"], difference["interval"]
    if value < 0:
        value, low, high = -value, -high, -low
    return f"{better} above {worse} by {signed(value)} ({signed(low)} to {signed(high)})"
