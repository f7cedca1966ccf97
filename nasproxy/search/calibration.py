"""How far the proxy's order holds over all candidates: some of them, drawn at random, are trained on the whole data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from nasproxy.analysis.correlation import proxy_order, spearman
from nasproxy.analysis.explain import agreement_of
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Measurement, mean_score
from nasproxy.search.task import WHOLE, Key
from nasproxy.spaces.candidate import Candidate
from nasproxy.text import interval, signed

WEAK = 0.5
"""An estimate below is warned of, where the user names no other."""


def drawn(ranked: Sequence[Candidate], count: int, seed: int) -> list[Candidate]:
    """``count`` of the ranked candidates at random: the same ones whatever their order.

    If a resumed run ranks more of them, few are others than before.
    """
    return sorted(ranked, key=lambda candidate: candidate.seed(seed, 0, "calibration"))[:count]


def calibration(
    sample: Sequence[Candidate],
    table: pd.DataFrame,
    measurements: Mapping[Key, Measurement],
    settings: SearchSettings,
) -> dict[str, Any]:
    """The value of ``calibration`` in a search's summary: Spearman's rho with its interval, and what it is of.

    The proxy's order is by accuracy, of candidates that were cut at different times by how far they came first, and
    what diverged comes last. What the proxy ties stays tied.

    Args:
        sample: of :func:`drawn`.
        table: of :func:`~nasproxy.search.results.results_table`.
        measurements: of the study.
        settings: of the search, resolved.
    """
    epochs, repeats, limit = settings.finalist_epochs or 1, settings.repeats or 1, settings.min_correlation
    rows: dict[str, Any] = {str(row["id"]): row for row in table.to_dict("records")}
    found = [
        _entry(rows[one.id], [measurements[one.id, WHOLE, epochs, repeat] for repeat in range(repeats)])
        for one in sample
    ]
    order = proxy_order([rows[one.id] for one in sample])
    agreement = spearman(order, [np.nan if e["whole_accuracy"] is None else e["whole_accuracy"] for e in found])
    best = max((entry["whole_accuracy"] for entry in found if entry["whole_accuracy"] is not None), default=None)
    return {
        **asdict(agreement),
        "interval": list(agreement.interval) if agreement.interval else None,
        "ranked": int(table["rank"].notna().sum()),
        "min_correlation": limit,
        "below": agreement.rho is None or agreement.rho < (WEAK if limit is None else limit),
        "failed": sum(entry["reason"] is not None for entry in found),
        "best_whole_accuracy": best,
        "sample": found,
    }


def warning(found: Mapping[str, Any]) -> str | None:
    """What to tell the user of an estimate that is too low, or missing; None where it is high enough."""
    if not found["below"]:
        return None
    limit = WEAK if found["min_correlation"] is None else found["min_correlation"]
    agreement = agreement_of(found)
    if agreement.rho is None:
        return f"Warning: the calibration gives no estimate of the proxy's correlation: {agreement.reason}."
    span = f", {interval(*agreement.interval, agreement.level)}" if agreement.interval else ""
    return (
        f"Warning: the proxy's overall correlation is estimated at {signed(agreement.rho)}{span}, below "
        f"{signed(limit)}. Another proxy, or more finalists, may do better: nasproxy compare shows which proxy."
    )


def _entry(row: Mapping[str, Any], whole: Sequence[Measurement]) -> dict[str, Any]:
    reason = next((m.failure for m in whole if m.failure is not None), None)
    return {
        "rank": int(row["rank"]),
        "id": str(row["id"]),
        "proxy_epochs": int(row["proxy_epochs"]),
        "proxy_accuracy": float(row["proxy_accuracy"]),
        "whole_accuracy": None if reason is not None else mean_score(whole).accuracy,
        "reason": reason,
    }
