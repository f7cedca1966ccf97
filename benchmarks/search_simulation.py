"""How long workers stand idle: the engine's own search on more of them than there are, in simulated time."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.storages import InMemoryStorage

from nasproxy.errors import InputError
from nasproxy.progress import Silent
from nasproxy.search.campaign import Campaign
from nasproxy.search.costs import Cost
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Study
from nasproxy.search.task import Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score

WORKERS = (2, 4, 8, 16, 32, 64)


def simulated_searches(file: Path) -> list[dict[str, Any]]:
    """A row for each scheduler and number of workers: seconds of the ranking, and the shares of them spent idle.

    A training ends with the score that the full ranking noted after as many epochs, and takes its share of the full
    one's time; that workers report once a second, and ask again after a fifth of one, is left out. ``idle`` is of all
    workers, ``idle_most`` of the one that stands idle longest. No schedule takes less than ``least_seconds``: the work
    shared evenly, or the longest of one candidate's trainings one after another; ``idle_unavoidable`` is ``idle`` then.

    Args:
        file: CSV with ``id``, ``multiply_adds``, ``parameters``, ``proxy_epochs`` and ``seconds`` of each candidate,
            and ``accuracy_E`` and ``cross_entropy_E`` after ``E`` epochs, for each rung of the quick preset.

    Raises:
        InputError: there is no score after the epochs of a rung.
    """
    table = pd.read_csv(file, dtype={"id": str}).set_index("id")
    rows: dict[str, dict[str, Any]] = {str(name): dict(table.loc[name].items()) for name in table.index}
    epochs = int(table["proxy_epochs"].max())

    def train(task: Task) -> Outcome:
        row = rows[task.candidate.id]
        accuracy, cross_entropy = (float(row[name.format(task.epochs)]) for name in _SCORE)
        seconds = row["seconds"] * task.epochs / epochs
        return Outcome(task, (Score(task.epochs, accuracy, cross_entropy),), seconds)

    found = []
    for scheduler, workers in itertools.product(("none", "halving"), WORKERS):
        settings = SearchSettings(epochs=epochs, scheduler=scheduler).resolved()
        for rung, name in itertools.product(settings.rungs(len(rows)), _SCORE):
            if name.format(rung.epochs) not in table:
                raise InputError(f"{file} has no column {name.format(rung.epochs)}.", "Choose another --costs.")
        found.append({"scheduler": scheduler, "workers": workers, **_search(settings, rows, train, workers)})
    return found


_SCORE = ("accuracy_{}", "cross_entropy_{}")


def _search(
    settings: SearchSettings, rows: Mapping[str, Mapping[str, Any]], train: Callable[[Task], Outcome], workers: int
) -> dict[str, float]:
    costs = {name: Cost(int(row["parameters"]), int(row["multiply_adds"])) for name, row in rows.items()}
    study = Study(InMemoryStorage(), "simulated", {})
    campaign = Campaign(
        settings,
        [Candidate({}, name) for name in rows],
        costs,
        study,
        train_images=1,
        finalists=(),
        keep_weights=lambda _: None,
        has_weights=lambda _: True,
        progress=Silent(),
    )
    seconds, busy = simulate(campaign, train, workers)
    chains = dict.fromkeys(rows, 0.0)
    for (name, *_), measurement in study.measurements.items():
        chains[name] += measurement.seconds
    least = max(*chains.values(), sum(busy) / workers)
    return {
        "seconds": round(seconds, 1),
        "least_seconds": round(least, 1),
        "idle_most": round(1 - min(busy) / seconds, 4),
        "idle": round(1 - sum(busy) / (workers * seconds), 4),
        "idle_unavoidable": round(1 - sum(busy) / (workers * least), 4),
    }


def simulate(campaign: Campaign, train: Callable[[Task], Outcome], workers: int) -> tuple[float, list[float]]:
    """Performs a campaign in no time: whoever is free takes the next bundle, each result is filed as it arrives.

    Args:
        campaign: to be performed.
        train: what each training comes to, with the seconds that it takes; called once more for one that goes on.
        workers: that share the work.

    Returns:
        The time of the last result, and how long each worker was busy.
    """
    now, busy = 0.0, [0.0] * workers
    idle = deque(range(workers))
    arriving: list[tuple[float, int]] = []
    held: dict[int, deque[Task]] = {}
    results: dict[int, Outcome] = {}
    spent = [0.0] * workers  # on the training under way

    def begin(worker: int) -> None:
        results[worker] = train(held[worker][0])
        heapq.heappush(arriving, (now + results[worker].seconds - spent[worker], worker))

    while not campaign.finished:
        while idle and (bundle := campaign.next_bundle(workers)):
            worker = idle.popleft()
            held[worker] = deque(bundle)
            begin(worker)
        now, worker = heapq.heappop(arriving)
        busy[worker] += results[worker].seconds - spent[worker]
        if campaign.record(results[worker]):
            spent[worker] = results[worker].seconds
        else:
            spent[worker] = 0.0
            held[worker].popleft()
        if held[worker]:
            begin(worker)
        else:
            idle.append(worker)
    return now, busy
