"""Scores of a comparison that nobody had to train for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nasproxy.compare.scores import ComparisonScores, save_scores

CHOICES = {"norm": ["none", "batch"], "depth": [1, 2, 3]}


def write_scores(folder: Path, *, count: int = 30, repeats: int = 2, top_k: int = 6, seed: int = 0) -> ComparisonScores:
    """A good proxy, a noisy one, one that says nothing, and one that could not be made; 20 of 30 are sampled.

    The whole data were used for the sample and for each proxy's best.
    """
    rng = np.random.default_rng(seed)
    truth = np.linspace(0.2, 0.9, count)
    truth = truth[rng.permutation(count)]
    proxies = {
        "good": truth[:, None] + 0.01 * rng.normal(size=(count, repeats)),
        "noisy": truth[:, None] + 0.6 * rng.normal(size=(count, repeats)),
        "flat": np.zeros((count, repeats)),
    }
    columns: list[tuple[str, str, Any]] = [
        ("id", "candidate", [f"c{number}" for number in range(count)]),
        ("params_norm", "norm", [("none", "batch")[number % 2] for number in range(count)]),
        ("params_depth", "depth", [1 + number % 3 for number in range(count)]),
        ("sampled", "1 for the sample", [int(number < 20) for number in range(count)]),
    ]
    for name, values in proxies.items():
        columns += [(f"{name}.{repeat}", "score", values[:, repeat]) for repeat in range(repeats)]
        columns.append((f"{name}.ties", "ties", np.zeros(count)))
    trained = np.arange(count) < 20
    for name in ("good", "noisy"):
        trained[np.argsort(-proxies[name].mean(1))[:top_k]] = True
    for name in ("whole", "test"):
        values = np.where(trained[:, None], truth[:, None] + 0.005 * rng.normal(size=(count, repeats)), np.nan)
        columns += [(f"{name}.{repeat}", name, values[:, repeat]) for repeat in range(repeats)]
    about = {"reason": None, "seconds": 90.0, "making_seconds": 30.0, "images": 100}
    facts = {
        "dataset": "digits",
        "space": "tiny",
        "choices": CHOICES,
        "preset": "quick",
        "seed": 0,
        "repeats": repeats,
        "top_k": top_k,
        "proxies": {**dict.fromkeys(proxies, about), "broken": {**about, "reason": "DatasetError: no images"}},
        "notes": ["30 of 60 candidates."],
    }
    return save_scores(folder, facts, columns)
