"""How long a first rung must be: what successive halving would have kept of a full ranking. Trains nothing.

    python benchmarks/halving.py
    python benchmarks/halving.py --full benchmarks/results/part_ranking_digits.csv --out part.json

Reads ``benchmarks/results/full_ranking_digits.csv``. For each epoch that was scored: Spearman's rho between the order
at that epoch and the order after 100 epochs, over all candidates and over the final best fifty; how many of the final
ten best would survive a cut to the best quarter; and the share of the full cost that training all candidates so far
takes. Then the same for whole schedules of two cuts. A rung trains under the learning-rate schedule of the full
training, so that its score after e epochs is the full run's.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import pandas as pd
from result_file import RESULTS, commit
from scipy.stats import spearmanr

from nasproxy.files import write_json
from nasproxy.versions import library_versions

TOP = 10


def main() -> None:
    """Prints both tables and stores them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, default=RESULTS / "full_ranking_digits.csv")
    parser.add_argument("--out", type=Path, default=RESULTS / "halving_digits.json")
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.full, dtype={"id": str}).set_index("id")
    rungs, schedules = first_rungs(table), two_cuts(table)
    print(rungs.to_string(index=False), schedules.to_string(index=False), sep="\n\n")
    found = {"first_rung": rungs.to_dict("records"), "schedules": schedules.to_dict("records")}
    write_json(
        arguments.out, {"full": arguments.full.name, **found, "commit": commit(), "versions": library_versions()}
    )


def scored_epochs(table: pd.DataFrame) -> list[int]:
    """The epochs that the full run scored."""
    return sorted(int(name.split("_")[1]) for name in table.columns if name.startswith("accuracy_"))


def order(table: pd.DataFrame, epoch: int) -> pd.Index[str]:
    """Ids best first, as the search ranks: accuracy, then cross-entropy."""
    columns = [f"accuracy_{epoch}", f"cross_entropy_{epoch}"]
    return table.sort_values(columns, ascending=[False, True], na_position="last").index


def first_rungs(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each epoch that was scored."""
    epochs = scored_epochs(table)
    final = order(table, epochs[-1])
    rows = []
    for epoch in epochs:
        kept = order(table, epoch)[: len(table) // 4]
        early, late = (table[f"accuracy_{e}"].fillna(0) for e in (epoch, epochs[-1]))
        best = final[:50]
        rows.append(
            {
                "epochs": epoch,
                "rho_all": round(float(spearmanr(early, late).statistic), 3),
                "rho_best_50": round(float(spearmanr(early[best], late[best]).statistic), 3),
                "top_ten_in_best_quarter": len(set(final[:TOP]) & set(kept)),
                "cost_share": round(epoch / epochs[-1], 3),
            }
        )
    return pd.DataFrame(rows)


def two_cuts(table: pd.DataFrame) -> pd.DataFrame:
    """Schedules of two cuts: what they keep of the final ten, and what they cost."""
    epochs = scored_epochs(table)
    final = order(table, epochs[-1])
    per_epoch = table["seconds"] / epochs[-1]
    rows = []
    for (first, second), (share, left) in itertools.product(
        itertools.product((2, 4, 6, 10), (20, 25, 40)), ((5, 15), (4, 15), (4, 24), (4, 30), (3, 24), (3, 40))
    ):
        keep = len(table) // share
        survivors = order(table, first)[:keep]
        finalists = order(table.loc[survivors], second)[:left]
        top = order(table.loc[finalists], epochs[-1])[:TOP]
        cost = first * per_epoch.sum() + second * per_epoch[survivors].sum() + epochs[-1] * per_epoch[finalists].sum()
        rows.append(
            {
                "first": f"{len(table)} x {first}",
                "second": f"{keep} x {second}",
                "third": f"{left} x {epochs[-1]}",
                "overlap_top_ten": len(set(final[:TOP]) & set(top)),
                "best_kept": bool(final[0] in top),
                "cost_share": round(float(cost / table["seconds"].sum()), 3),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
