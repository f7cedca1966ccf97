"""The quick preset against the full ranking: the winner's regret, and how many of the ten best are the same.

    nasproxy search --seed 0 --out runs/quick-0     # and --seed 1, 2
    python benchmarks/quick_preset.py runs/quick-0 runs/quick-1 runs/quick-2

Reads the full ranking of ``benchmarks/full_ranking.py`` and run directories of ``nasproxy search``. Finalists of
both train on the whole data, for different numbers of epochs; so a winner that is not a finalist of the full ranking is
trained here as they were. Regret is the best of the full ranking's finalists minus the winner: 0 or less means that
none of them is better. Writes ``benchmarks/results/quick_preset_digits.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from result_file import RESULTS, commit

from nasproxy.datasets.load import load_dataset
from nasproxy.files import write_json
from nasproxy.proxies.make import random_proxy
from nasproxy.search.bench import Bench, Payload
from nasproxy.search.settings import SearchSettings
from nasproxy.search.task import WHOLE, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.source import SpaceSource


def main() -> None:
    """Compares the runs and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of the quick preset")
    parser.add_argument("--full", type=Path, default=RESULTS / "full_ranking_digits.csv")
    parser.add_argument("--out", type=Path, default=RESULTS / "quick_preset_digits.json")
    arguments = parser.parse_args()
    full = pd.read_csv(arguments.full, dtype={"id": str}).set_index("id")
    facts = json.loads(arguments.full.with_suffix(".json").read_text())
    rows = [compare(run, full, facts["settings"]) for run in arguments.runs]
    print(pd.DataFrame(rows).to_string(index=False))
    about = json.loads((arguments.runs[0] / "run.json").read_text())
    write_json(
        arguments.out, {"runs": rows, "commit": commit(), "versions": about["versions"], "machine": about["machine"]}
    )


def compare(run: Path, full: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    """One run of the quick preset against the full ranking, whose finalists were trained under ``settings``."""
    summary = json.loads((run / "summary.json").read_text())
    best_on_proxy = list(full.sort_values(["proxy_accuracy", "proxy_cross_entropy"], ascending=[False, True]).index)
    top = set(pd.read_csv(run / "results.csv", dtype={"id": str})["id"][:10])
    winner = Candidate.of(summary["winner"]["config"])
    known = full.loc[winner.id, ["whole_accuracy", "test_accuracy"]]
    whole, test = (float(accuracy) for accuracy in (train_in_full(winner, settings) if known.hasnans else known))
    return {
        "seed": json.loads((run / "run.json").read_text())["settings"]["seed"],
        "winner": winner.id,
        "winner_config": winner.config,
        "winner_test_accuracy": round(summary["winner"]["test_accuracy"], 4),
        "winner_whole_accuracy_as_in_full": round(whole, 4),
        "winner_test_accuracy_as_in_full": round(test, 4),
        "regret_validation": round(float(full["whole_accuracy"].max()) - whole, 4),
        "regret_test": round(float(full["test_accuracy"].max()) - test, 4),
        "overlap_top_ten": len(top & set(best_on_proxy[:10])),
        "top_ten_in_full_best_fifty": len(top & set(best_on_proxy[:50])),
        "winner_rank_in_full": best_on_proxy.index(winner.id) + 1,
        "rho_finalists": summary["agreement"]["rho"],
        **{f"seconds_{name}": round(seconds, 1) for name, seconds in summary["seconds"].items()},
    }


def train_in_full(candidate: Candidate, settings: dict[str, Any]) -> tuple[float, float]:
    """Validation and test accuracy of a candidate trained as the full ranking's finalists were."""
    names = {"dataset", "space", "finalist_epochs", "finalist_learning_rate", "finalist_augmentation", "seed"}
    asked = SearchSettings(**{name: settings[name] for name in names})
    dataset = load_dataset(asked.dataset)
    payload = Payload.of(
        SpaceSource.parse(asked.space),
        dataset,
        random_proxy(dataset, 1, seed=0),  # not trained on
        device=settings["device"],
        precision=settings["precision"],
        threads=settings["threads_per_worker"],
    )
    recipe = asked.finalist_recipe(len(dataset.train))
    outcome = Bench(payload).perform(
        Task(candidate, WHOLE, recipe, recipe.epochs, repeat=0, seed=candidate.seed(asked.seed, 0, WHOLE))
    )
    assert outcome.test_accuracy is not None, outcome.failure
    return outcome.scores[-1].accuracy, outcome.test_accuracy


if __name__ == "__main__":
    main()
