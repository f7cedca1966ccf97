"""What Ray Tune itself costs a trial and a result, by the number of trials and of workers. Trains nothing.

    python benchmarks/tune_growth.py

Runs Tune with trainables that answer at once: one trial after another on workers that are used again, and, as the
search does, one trial as long as the worker lives; workers are processes of this machine, however few
cores it has. Reported are wall-clock milliseconds and those that the driver process computed: the latter say how many
results a second one driver can take at most. Writes ``benchmarks/results/tune_growth.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from result_file import RESULTS, provenance

from nasproxy.files import write_json
from nasproxy.search import tune as search_tune  # before Ray: it sets Ray's environment
from nasproxy.search.local_ray import ray_folder

from ray import tune  # isort: skip
from ray.tune.search import Searcher  # isort: skip

SHAPES = ((4, 100, 1), (4, 300, 1), (4, 1000, 1), (1, 1, 1000), (4, 4, 250), (16, 16, 60), (24, 24, 40))
"""Workers, trials, and results of each trial: first a trial for each candidate, then, as the search does, for each
worker."""


class Idle(tune.Trainable):
    """Answers at once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Nothing to do."""

    def step(self) -> dict[str, Any]:
        """A result as small as can be."""
        return {"done": self.iteration + 1 >= self.config["results"]}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Lets the worker be used again."""
        self.config = new_config
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep."""


class Trials(Searcher):
    """So many trials of so many results."""

    def __init__(self, trials: int, results: int) -> None:
        super().__init__()
        self._left, self._results = trials, results

    def suggest(self, trial_id: str) -> Any:
        """The next one."""
        self._left -= 1
        return {"results": self._results} if self._left >= 0 else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class Stopwatch(tune.Callback):
    """Starts at the first result, when all workers have been asked for."""

    began: tuple[float, float] | None = None
    results = 0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Counts."""
        self.results += 1
        if self.began is None:
            self.began = time.perf_counter(), time.process_time()


def main() -> None:
    """Measures every shape, prints a table and stores it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "tune_growth.json")
    arguments = parser.parse_args()
    cores = max(workers for workers, *_ in SHAPES)
    with ray_folder() as folder, search_tune._connected(None, cores, folder):
        rows = [measure(*shape) for shape in SHAPES]
    print(pd.DataFrame(rows).to_string(index=False))
    load = [round(value, 2) for value in os.getloadavg()]
    about = {**provenance(), "load_average": load}
    write_json(arguments.out, {"rows": rows, **about})


def measure(workers: int, trials: int, results: int) -> dict[str, float]:
    """One experiment."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        tune.Tuner(
            tune.with_resources(Idle, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=Trials(trials, results), num_samples=-1, reuse_actors=True, max_concurrent_trials=workers
            ),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0, callbacks=[watch]),
        ).fit()
    assert watch.results == trials * results
    assert watch.began is not None
    wall, computed = time.perf_counter() - watch.began[0], time.process_time() - watch.began[1]
    return {
        "workers": workers,
        "trials": trials,
        "results": watch.results,
        "ms_per_result": round(1000 * wall / watch.results, 2),
        "driver_cpu_ms_per_result": round(1000 * computed / watch.results, 2),
        "ms_per_trial": round(1000 * wall / trials, 2),
        "driver_cpu_ms_per_trial": round(1000 * computed / trials, 2),
    }


if __name__ == "__main__":
    main()
