"""All 720 ConvNets on one condensed proxy for 100 full epochs: what the quick preset is measured against.

    python benchmarks/full_ranking.py --out runs/full
    python benchmarks/full_ranking.py --out runs/part --limit 180 --name part_ranking_digits

Writes ``benchmarks/results/NAME.csv``: a row for each candidate, with its validation accuracy and cross-entropy after
each of the epochs below, and the whole-data figures of the best. An interrupted run goes on where it was. Takes about
an hour on two cores with bfloat16; a stratified sample takes its share of that.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from result_file import RESULTS, commit

from nasproxy.cli.screen import open_screen
from nasproxy.files import write_json
from nasproxy.search.run import run_search
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Study, open_storage
from nasproxy.search.task import PROXY

EPOCHS = (2, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)


def main() -> None:
    """Runs the search in full and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="run directory; resumed if it is there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--finalists", type=int, default=40, help="candidates trained on the whole data")
    parser.add_argument("--limit", type=int, help="rank a stratified sample of so many (default: all)")
    parser.add_argument("--executor", default="tune", choices=("tune", "inline"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--name", default="full_ranking_digits", help="of the table (default: %(default)s)")
    arguments = parser.parse_args()
    settings = SearchSettings(
        scheduler="none",
        top_k=arguments.finalists,
        finalist_epochs=30,
        seed=arguments.seed,
        evaluate_at=EPOCHS,
        limit=arguments.limit,
        executor=arguments.executor,
        out=arguments.out,
    )
    with open_screen() as screen:
        run_search(settings, resume=True, progress=screen)
    write_table(arguments.out, arguments.results / arguments.name)


def write_table(run: Path, file: Path) -> None:
    """Joins the run's results with the scores of every epoch, in ``file`` with each suffix."""
    facts = json.loads((run / "run.json").read_text())
    study = Study(open_storage(run, None), "nasproxy", facts["space"]["choices"])
    curves = {
        candidate: {
            f"{name}_{s.epoch}": getattr(s, name) for s in found.scores for name in ("accuracy", "cross_entropy")
        }
        for (candidate, data, _, _), found in study.measurements.items()
        if data == PROXY
    }
    table = pd.read_csv(run / "results.csv", dtype={"id": str}).set_index("id")
    joined = table.drop(columns=["rank", "state", "reason"]).join(pd.DataFrame.from_dict(curves, orient="index"))
    joined.round(5).to_csv(file.with_suffix(".csv"))
    summary = json.loads((run / "summary.json").read_text())
    about = {name: facts[name] for name in ("settings", "dataset", "versions", "machine")} | {
        "seconds": summary["seconds"],
        "commit": commit(),
    }
    about["settings"]["out"] = None
    write_json(file.with_suffix(".json"), about)


if __name__ == "__main__":
    main()
