"""Regret against spent epochs: each search strategy on one table of scores. Trains nothing.

    python benchmarks/search_strategies.py

Reads ``benchmarks/results/full_ranking_digits.csv`` and the ``.json`` beside it. The product's own code searches: its
campaigns, halving and samplers; in place of a training, the candidate's score after as many epochs is looked up. Where
the table has none, the nearest scored epoch below stands in for it, which the result says. A rung costs its epochs for
each of its candidates, those that an earlier rung trained included, as in the product. The finalists' training on the
whole data is not counted: it is the same for all.

``asha`` and ``hyperband`` judge a training after 4, 16 and 64 epochs; the table has no scores after 16 and 64: those
after 15 and 60 stand in for them. A training goes on where it was, and costs the epochs that it came to. What has
arrived decides, so time is simulated: an epoch of a candidate takes as long as it took when the table was made.

Regret is the best proxy accuracy after all epochs minus that of the best finalist. A curve shows the regret of the best
candidate trained in full so far; those of a rung, or of a generation of a sampler, are visited in random order.
Finalists that asynchronous halving stopped early count with what they would have come to.
Strategies with chance in them run once for each seed; mean and sample standard deviation are over the seeds, and
``halving`` of all candidates has the same result for each. The product's cuts were chosen on an earlier table, of
trainings without augmentation. Writes ``benchmarks/results/search_strategies_digits.json`` and
``docs/search_strategies.png``.

With ``--cache`` an interrupted run goes on where it was. The cache knows its table and its settings, but not the
product's code: a change of that needs a new one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from joblib import Memory
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from optuna.storages import InMemoryStorage
from result_file import RESULTS, provenance
from search_simulation import simulate

from nasproxy.analysis.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PALETTE,
    STYLE,
    VERMILLION,
    in_percent,
    new_canvas,
    save_figure,
)
from nasproxy.cli.output import plain_table, stdout
from nasproxy.cli.screen import open_screen
from nasproxy.errors import InputError, NasproxyError
from nasproxy.files import write_json
from nasproxy.progress import Progress, Silent
from nasproxy.search.campaign import Campaign
from nasproxy.search.costs import Cost
from nasproxy.search.halving import CUTS, PRUNERS, Rung, halving_rungs
from nasproxy.search.proposals import Proposals
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Study
from nasproxy.search.task import PROXY, WHOLE, Key, Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.sampling import choose_candidates
from nasproxy.spaces.source import SpaceSource
from nasproxy.training.train import Score

ROOT = Path(__file__).parent.parent
TOP = 10
LIMITS = (60, 120, 240, 480)
WORKERS = 8
"""Of asynchronous halving, beside one alone: the more there are, the less is known when a training is judged."""
OTHER_CUTS = {
    "halving, thirds": ((1 / 27, 1 / 3), (1 / 9, 1 / 3), (1 / 3, 1 / 3)),
    "halving, quarters": ((1 / 64, 1 / 4), (1 / 16, 1 / 4), (1 / 4, 1 / 4)),
    "halving, one cut": ((0.1, 1 / 12),),
}
"""Cuts other than the product's: eta = 3 and 4 as Jamieson & Talwalkar's successive halving has them, and one alone."""


SUMMARISED = ("regret", "overlap", "mean_of_finalists", "known_on_whole_data")
LINES = {
    "exhaustive": ("exhaustive, in random order", "#222222", "-"),
    "random": ("random", ORANGE, "--"),
    "nsga2": ("NSGA-II", GREEN, "-."),
    "tpe": ("TPE", BLUE, "-"),
}
PRUNED = {"asha": ("ASHA", "v", "-"), "hyperband": ("Hyperband", "P", ":")}
MARKERS = dict(zip(OTHER_CUTS, ("s", "^", "o"), strict=True))


@dataclass(frozen=True)
class HalvingSettings(SearchSettings):
    """Settings of a search by successive halving whose cuts can be chosen, see ``halving_rungs``."""

    cuts: tuple[tuple[float, float], ...] = CUTS

    def rungs(self, candidates: int) -> list[Rung]:
        """Those of ``cuts``."""
        return halving_rungs(candidates, self.epochs, self.top_k, self.cuts)


@dataclass(frozen=True)
class Strategy:
    """A way to search, with a budget.

    Args:
        name: of the way.
        budget: as a reader of the table meets it.
        settings: of the search; the seed is filled in.
    """

    name: str
    budget: str
    settings: SearchSettings


@dataclass(frozen=True)
class Result:
    """What one search came to.

    Args:
        rungs: after how many epochs how many candidates were scored.
        epochs: spent on the proxy.
        regret: of the best finalist, a fraction.
        overlap: number of finalists among the table's ten best.
        mean_of_finalists: mean proxy accuracy of the finalists after all epochs.
        known_on_whole_data: share of the finalists that the table has a whole-data score of.
        curve: regret of the best so far after each training in full.
    """

    rungs: list[Rung]
    epochs: int
    regret: float
    overlap: int
    mean_of_finalists: float
    known_on_whole_data: float
    curve: list[float]


class Table:
    """Scores of all candidates of a space after several epochs, in place of a trainer.

    Args:
        file: written by ``full_ranking.py``; settings and dataset are in a ``.json`` of the same name.

    Raises:
        InputError: there is no such file, or its candidates are not those of the space.
    """

    def __init__(self, file: Path) -> None:
        for part in (file, file.with_suffix(".json")):
            if not part.is_file():
                raise InputError(f"There is no file {part}.", "benchmarks/full_ranking.py writes it.")
        facts = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        frame = pd.read_csv(file, dtype={"id": str}, keep_default_na=False, na_values=[""]).set_index("id")
        self.facts = facts
        self.space = SpaceSource.parse(facts["settings"]["space"]).load()
        if set(frame.index) != {candidate.id for candidate in self.candidates()}:
            raise InputError(f"The candidates in {file.name} are not those of {self.space.name}.")
        self._rows = cast("dict[str, dict[str, Any]]", frame.to_dict("index"))
        self.costs = {name: Cost(row["parameters"], row["multiply_adds"]) for name, row in self._rows.items()}
        self.epochs: list[int] = sorted({*facts["settings"]["evaluate_at"], facts["settings"]["epochs"]})
        ranked = sorted(self.candidates(), key=self._place)
        self.best = self.accuracy(ranked[0])
        self.ten_best = {candidate.id for candidate in ranked[:TOP]}

    def candidates(self, limit: int | None = None, seed: int = 0) -> list[Candidate]:
        """All candidates, or the product's sample of ``limit`` of them."""
        height, width = self.facts["dataset"]["image_size"]
        return choose_candidates(self.space, (height, width), limit=limit, seed=seed)[0]

    def scored_epoch(self, epochs: int) -> int:
        """The last epoch up to ``epochs`` that the table has scores of."""
        if epochs < self.epochs[0]:
            raise InputError(f"The table has no score after {epochs} epochs, and none before.")
        return max(epoch for epoch in self.epochs if epoch <= epochs)

    def accuracy(self, candidate: Candidate) -> float:
        """Proxy accuracy after all epochs; 0 where it diverged."""
        return self._score(candidate, self.epochs[-1]).accuracy

    def perform(self, task: Task) -> Outcome:
        """What training would have come to; on the whole data it fails where nobody has trained that candidate."""
        row = self._rows[task.candidate.id]
        if task.data == PROXY:
            return Outcome(task, (self._score_for(task, task.epochs),), 0.0)
        if math.isnan(row["whole_accuracy"]):
            return Outcome(task, (), 0.0, failure="the table has no score on the whole data")
        score = Score(task.epochs, row["whole_accuracy"], row["whole_cross_entropy"])
        return Outcome(task, (score,), 0.0, row["test_accuracy"])

    def trainer(self) -> Callable[[Task], Outcome]:
        """``perform``, but that a watched training comes to its next score each time, in simulated seconds."""
        calls: Counter[Key] = Counter()

        def train(task: Task) -> Outcome:
            if not task.watched:
                return self.perform(task)
            calls[task.key] += 1
            epochs = sorted({*task.evaluate_at, task.epochs})[: calls[task.key]]
            scores = tuple(self._score_for(task, each) for each in epochs)
            seconds = self._rows[task.candidate.id]["seconds"] * epochs[-1] / self.epochs[-1]
            return Outcome(task, scores, seconds, unfinished=epochs[-1] < task.epochs and not scores[-1].diverged)

        return train

    def _score_for(self, task: Task, epochs: int) -> Score:
        return replace(self._score(task.candidate, self.scored_epoch(epochs)), epoch=epochs)

    def _place(self, candidate: Candidate) -> tuple[float, float, str]:
        score = self._score(candidate, self.epochs[-1])
        return -score.accuracy, score.cross_entropy, candidate.id

    def _score(self, candidate: Candidate, epoch: int) -> Score:
        row = self._rows[candidate.id]
        accuracy, cross_entropy = row[f"accuracy_{epoch}"], row[f"cross_entropy_{epoch}"]
        return Score(epoch, 0.0, math.inf) if math.isnan(accuracy) else Score(epoch, accuracy, cross_entropy)


def main() -> int:
    """Searches, prints the table, and stores it with the figure; returns the exit code."""
    arguments = _parser().parse_args()
    try:
        _check(arguments)
        table = Table(arguments.full)
        strategies = all_strategies(table, arguments.trials)
        searcher = remembered(arguments.cache, arguments.full) if arguments.cache else search
        with open_screen() as screen:
            rows, curves = compare(table, strategies, range(arguments.seeds), screen, searcher)
        document = {
            "schema": 1,
            "settings": {"table": arguments.full.name, "seeds": arguments.seeds, "finalists": TOP, "cuts": list(CUTS)},
            **provenance(),
            "rows": rows,
            "curves": curves,
        }
        write_json(arguments.out, document)
        save_figure(figure(rows, curves), arguments.figure)
    except NasproxyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    show(rows)
    stdout().print(f"Written to {arguments.out} and {arguments.figure}", markup=False)
    return 0


Searcher = Callable[[Table, Strategy, int], Result]
"""``search``, or the same with a memory."""


def remembered(folder: Path, file: Path) -> Searcher:
    """``search`` that keeps what it found in ``file``'s table below ``folder``."""
    digest = hashlib.blake2b(file.read_bytes(), digest_size=6).hexdigest()
    searcher: Searcher = Memory(folder / digest, verbose=0).cache(search, ignore=["table"])
    return searcher


def all_strategies(table: Table, trials: Iterable[int]) -> list[Strategy]:
    """Each way to search with each of its budgets, least epochs first within a way."""
    known = table.facts["settings"]
    common: dict[str, Any] = {
        **{name: known[name] for name in ("dataset", "space", "ipc", "epochs", "finalist_epochs")},
        "repeats": 1,
        "top_k": TOP,
    }
    everyone = f"{len(table.costs)} candidates"
    halving = HalvingSettings(**common, scheduler="halving")
    return [
        Strategy("exhaustive", everyone, SearchSettings(**common, scheduler="none")),
        *(Strategy("halving", f"--limit {limit}", replace(halving, limit=limit)) for limit in LIMITS),
        Strategy("halving", everyone, halving),
        *(Strategy(name, everyone, replace(halving, cuts=cuts)) for name, cuts in OTHER_CUTS.items()),
        *(
            Strategy(name, budget, SearchSettings(**common, scheduler=name, limit=limit, workers=workers))
            for name in PRUNERS
            for budget, limit, workers in (
                *((f"--limit {limit}", limit, 1) for limit in LIMITS),
                (everyone, None, 1),
                (f"{everyone}, {WORKERS} workers", None, WORKERS),
            )
        ),
        *(
            Strategy(name, f"{n} trials", SearchSettings(**common, scheduler="none", sampler=name, trials=n))
            for name in ("random", "tpe", "nsga2")
            for n in sorted(trials)
        ),
    ]


def compare(
    table: Table, strategies: Sequence[Strategy], seeds: Sequence[int], progress: Progress, searcher: Searcher
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """A row for each strategy; and a curve for each way that trains all it tries in full, of its largest budget."""
    rows, curves = [], {}
    progress.stage("Searches in the table", len(strategies) * len(seeds))
    for strategy in strategies:
        results = []
        for seed in seeds:
            results.append(searcher(table, strategy, seed))
            progress.advance(f"{strategy.name}, {strategy.budget}")
        rows.append(summarise(table, strategy, results))
        if strategy.settings.scheduler == "none":
            curves[strategy.name] = mean_curve(results, strategy.settings.epochs)
    return rows, curves


def search(table: Table, strategy: Strategy, seed: int) -> Result:
    """One search by the product's code."""
    settings = replace(strategy.settings, seed=seed)
    campaign, study = open_campaign(table, settings)
    if settings.scheduler in PRUNERS:
        simulate(campaign, table.trainer(), settings.workers or 1)
    else:
        perform_in_random_order(campaign, table.perform, seed)
    trained = [(name, found) for (name, data, *_), found in study.measurements.items() if data == PROXY]
    ends = [found.scores[-1].epoch for _, found in trained]
    by_id = {candidate.id: candidate for candidate in campaign.candidates}
    in_full = [by_id[name] for (name, _), end in zip(trained, ends, strict=True) if end == settings.epochs]
    regrets = [table.best - table.accuracy(candidate) for candidate in in_full]
    finalists = campaign.finalists
    accuracies = [table.accuracy(candidate) for candidate in finalists]
    whole = [found for (_, data, _, _), found in study.measurements.items() if data == WHOLE]
    return Result(
        rungs=[replace(rung, candidates=_scored(study, rung.epochs)) for rung in campaign.rungs],
        epochs=sum(ends),
        regret=table.best - max(accuracies),
        overlap=len(table.ten_best & {candidate.id for candidate in finalists}),
        mean_of_finalists=statistics.mean(accuracies),
        known_on_whole_data=sum(found.failure is None for found in whole) / len(finalists),
        curve=np.minimum.accumulate(regrets).tolist(),
    )


def perform_in_random_order(campaign: Campaign, perform: Callable[[Task], Outcome], seed: int) -> None:
    """Performs a campaign stage by stage."""
    order = random.Random(seed)
    while not campaign.finished:
        waiting: list[Task] = []
        while bundle := campaign.next_bundle(1):
            waiting += bundle
        order.shuffle(waiting)
        for task in waiting:
            campaign.record(perform(task))


def _scored(study: Study, epochs: int) -> int:
    """How many trainings on the proxy the study has a score of after so many epochs."""
    proxies = (found for (_, data, *_), found in study.measurements.items() if data == PROXY)
    return sum(any(score.epoch == epochs for score in found.scores) for found in proxies)


def open_campaign(table: Table, settings: SearchSettings) -> tuple[Campaign, Study]:
    """The product's campaign, with its results in memory."""
    candidates = table.candidates(settings.limit, settings.seed)
    study = Study(InMemoryStorage(), "nasproxy", table.space.choices)
    campaign = Campaign(
        settings,
        candidates,
        table.costs,
        study,
        train_images=table.facts["dataset"]["train"],
        proposals=None
        if settings.sampler == "grid"
        else Proposals(settings.sampler, candidates, table.space.choices, settings.objectives, settings.seed),
        keep_weights=lambda _: None,
        has_weights=lambda _: True,
        progress=Silent(),
    )
    return campaign, study


def summarise(table: Table, strategy: Strategy, results: Sequence[Result]) -> dict[str, Any]:
    """Mean and sample standard deviation over the seeds; for one seed the deviation is null."""
    rungs = [
        Rung(same[0].epochs, round(statistics.mean(rung.candidates for rung in same)))
        for same in zip(*(result.rungs for result in results), strict=True)
    ]
    return {
        "strategy": strategy.name,
        "budget": strategy.budget,
        "rungs": [[rung.candidates, rung.epochs] for rung in rungs],
        "scored_after": [table.scored_epoch(rung.epochs) for rung in rungs],
        "searches": len(results),
        "epochs": round(statistics.mean(result.epochs for result in results)),
        **{name: _spread([getattr(result, name) for result in results]) for name in SUMMARISED},
        "regrets": [round(result.regret, 4) for result in results],
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    deviation = round(statistics.stdev(values), 5) if len(values) > 1 else None
    return {"mean": round(statistics.mean(values), 5), "std": deviation}


def mean_curve(results: Sequence[Result], epochs: int) -> list[dict[str, Any]]:
    """Regret of the best so far, at some forty numbers of spent epochs, evenly spaced in their logarithm."""
    regrets = np.array([result.curve for result in results])
    counts = np.unique(np.geomspace(1, regrets.shape[1], 40).round().astype(int))
    return [{"epochs": int(n) * epochs, **_spread(regrets[:, n - 1].tolist())} for n in counts]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table."""
    numbers = ("epochs", "regret, points", "of the ten best", "mean of the ten, %", "scored on whole data, %")
    table = plain_table("strategy", "budget", *numbers, right=numbers)
    for row in rows:
        regret, overlap, mean, known = (row[name] for name in SUMMARISED)
        table.add_row(
            row["strategy"],
            row["budget"],
            f"{row['epochs']:,}",
            _figures(regret, 100, 2),
            _figures(overlap, 1, 1),
            _figures(mean, 100, 2),
            _figures(known, 100, 0),
        )
    stdout().print(table)
    epochs = {pair for row in rows for pair in zip([e for _, e in row["rungs"]], row["scored_after"], strict=True)}
    for asked, given in sorted(epochs):
        if asked != given:
            stdout().print(f"Scores after {given} epochs stand in for those after {asked}, which the table lacks.")


def _figures(spread: dict[str, float | None], scale: int, digits: int) -> str:
    mean, deviation = spread["mean"], spread["std"]
    assert mean is not None
    after = "" if deviation is None else f" ± {scale * deviation:.{digits}f}"
    return f"{scale * mean:.{digits}f}{after}"


def figure(rows: Sequence[dict[str, Any]], curves: dict[str, list[dict[str, Any]]]) -> Figure:
    """Regret against spent epochs: curves of the best so far, and points where searches by halving of any kind end."""
    with mpl.rc_context(STYLE):
        drawing, axes = new_canvas(6.4, 4.4)
        _draw_halving(axes, rows)
        _draw_pruned(axes, rows)
        _draw_curves(axes, curves)
        axes.set_xscale("log")
        axes.set_xlim(1000, 80000)
        axes.set_ylim(-0.001, 0.04)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xticks([1000, 2000, 5000, 10000, 20000, 50000])
        axes.xaxis.set_minor_locator(NullLocator())
        in_percent(axes, "y")
        axes.set_xlabel("epochs spent on the proxy, all candidates together")
        axes.set_ylabel("regret (percentage points)")
        axes.grid(visible=True)
        axes.legend(fontsize=8, title="mean ± standard deviation over seeds", title_fontsize=8, alignment="left")
    return drawing


def _draw_curves(axes: Axes, curves: dict[str, list[dict[str, Any]]]) -> None:
    for name, (label, colour, line) in LINES.items():
        x, mean, std = (np.array([point[key] or 0.0 for point in curves[name]]) for key in ("epochs", "mean", "std"))
        axes.plot(x, mean, color=colour, linestyle=line, linewidth=1.8, label=label)
        if name == "random":  # the beginning of the exhaustive search by another name, and so is its spread
            continue
        axes.fill_between(x, np.maximum(mean - std, 0), mean + std, color=colour, alpha=0.08, linewidth=0)
        axes.plot(x, mean + std, color=colour, linestyle=line, linewidth=0.6, alpha=0.7)


def _draw_halving(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    mine = [row for row in rows if row["strategy"] == "halving"]
    mean = [row["regret"]["mean"] for row in mine]
    std = [row["regret"]["std"] or 0.0 for row in mine]
    bars = np.array([np.minimum(mean, std), std])
    style: Any = {"color": VERMILLION, "zorder": 4}
    label = f"halving of {', '.join(str(row['rungs'][0][0]) for row in mine)}"
    axes.errorbar([row["epochs"] for row in mine], mean, bars, fmt="D-", capsize=3, label=label, **style)
    for name, marker in MARKERS.items():
        (row,) = (row for row in rows if row["strategy"] == name)
        looks: Any = {"markersize": 8, "markerfacecolor": "white", "linestyle": "", "label": name, **style}
        axes.plot(row["epochs"], row["regret"]["mean"], marker=marker, **looks)


def _draw_pruned(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Of one worker: with eight there is nothing else to see."""
    for name, (label, marker, line) in PRUNED.items():
        mine = [row for row in rows if row["strategy"] == name and "workers" not in row["budget"]]
        x, y = ([row["epochs"] for row in mine], [row["regret"]["mean"] for row in mine])
        looks: Any = {"marker": marker, "linestyle": line, "color": PALETTE[3], "zorder": 3}
        axes.plot(x, y, label=f"{label} of as many as halving", **looks)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.seeds < 1:
        raise InputError(f"--seeds must be 1 or more, got {arguments.seeds}.")
    if min(arguments.trials) < TOP:
        raise InputError(f"--trials must be {TOP} or more, the number of finalists; got {min(arguments.trials)}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--full", type=Path, default=RESULTS / "full_ranking_digits.csv", help="the table (default: %(default)s)")
    add("--seeds", type=int, default=20, help="searches of each kind (default: %(default)s)")
    add("--trials", type=int, nargs="+", default=[20, 50, 100, 200], metavar="N", help="of the samplers")
    add("--cache", type=Path, metavar="DIR", help="keep finished searches here (default: nowhere)")
    add("--out", type=Path, default=RESULTS / "search_strategies_digits.json", metavar="FILE.json")
    add("--figure", type=Path, default=ROOT / "docs" / "search_strategies.png", metavar="FILE.png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
