"""The quick preset against the full ranking: the winner's regret, and how many of the ten best are the same.

    nasproxy search --seed 0 --out runs/quick-0     # and --seed 1, 2
    python benchmarks/quick_preset.py runs/quick-0 runs/quick-1 runs/quick-2

Reads the full ranking of ``benchmarks/full_ranking.py`` and run directories of ``nasproxy search``. A candidate's
whole-data accuracy is its mean over all of these runs in which it was a finalist; regret is the best of these means
minus the winner's. Writes ``benchmarks/results/quick_preset_digits.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from nasproxy.search.run_directory import write_json

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Compares the runs and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of the quick preset")
    parser.add_argument("--full", type=Path, default=RESULTS / "full_ranking_digits.csv")
    parser.add_argument("--out", type=Path, default=RESULTS / "quick_preset_digits.json")
    arguments = parser.parse_args()
    full = pd.read_csv(arguments.full, dtype={"id": str}).set_index("id")
    tables = {run: pd.read_csv(run / "results.csv", dtype={"id": str}).set_index("id") for run in arguments.runs}
    accuracies = pd.concat([t[["whole_accuracy", "test_accuracy"]].dropna() for t in (full, *tables.values())])
    means = accuracies.groupby(level=0).mean()
    best_on_proxy = list(full.sort_values(["proxy_accuracy", "proxy_cross_entropy"], ascending=[False, True]).index)
    rows = [compare(run, table, means, best_on_proxy) for run, table in tables.items()]
    print(pd.DataFrame(rows).to_string(index=False))
    facts = json.loads((arguments.runs[0] / "run.json").read_text())
    write_json(arguments.out, {"runs": rows, "versions": facts["versions"], "machine": facts["machine"]})


def compare(run: Path, table: pd.DataFrame, means: pd.DataFrame, best_on_proxy: list[str]) -> dict[str, Any]:
    """One run of the quick preset against the full ranking."""
    summary = json.loads((run / "summary.json").read_text())
    settings = json.loads((run / "run.json").read_text())["settings"]
    winner = summary["winner"]["id"]
    top = set(table.index[:10])
    return {
        "seed": settings["seed"],
        "winner": winner,
        "winner_test_accuracy": round(summary["winner"]["test_accuracy"], 4),
        "regret_validation": round(float(means["whole_accuracy"].max() - means.loc[winner, "whole_accuracy"]), 4),
        "regret_test": round(float(means["test_accuracy"].max() - means.loc[winner, "test_accuracy"]), 4),
        "overlap_top_ten": len(top & set(best_on_proxy[:10])),
        "top_ten_in_full_best_fifty": len(top & set(best_on_proxy[:50])),
        "winner_rank_in_full": best_on_proxy.index(winner) + 1,
        "rho_finalists": summary["agreement"]["rho"],
        **{f"seconds_{name}": round(seconds, 1) for name, seconds in summary["seconds"].items()},
    }


if __name__ == "__main__":
    main()
