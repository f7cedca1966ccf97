"""Candidates a second: nasproxy against the loop anyone would write and plain Ray Tune, on this machine's processor.

    python benchmarks/search_throughput.py              # throughput, scheduling, balance: about 11 minutes on two cores
    python benchmarks/search_throughput.py --quality    # are the results as good? about 15 minutes

All train the same seeded, stratified sample of the 720 ConvNets on the same proxy (random real images of digits, or
--proxy-file) by the same recipe; search_contenders.py says what each does. Every measurement is a process of its own;
contenders take turns, --rounds times; ratios are to the loop of the same round. On a machine that is not idle, those of
processor seconds say more than those of wall time.

throughput  candidates a second once workers stand ready (of several, on average), and for each second of a processor;
            the time until they are ready is given apart. nasproxy inline gets --inline-threads threads, on Tune
            --workers workers of one thread. Plain Tune trains --plain-tune-sample of the candidates; its ratio is to
            the loop's time for those.
scheduling  what Tune's engine takes for each of 720 candidates whose training takes no time, or --sleep seconds: the
            wall time less the workers' busy time, on one worker and on --workers.
balance     how long workers stand idle: of the throughput runs, and of the engine's own search simulated on 2 to 64
            workers with the candidates' times and scores in --costs, beside the share that no schedule could avoid.
quality     accuracies of the loop and of nasproxy on Tune, over other seeds each: their means, and Spearman's rho
            between them, beside that between seeds of the loop. With --against float32-direct, those of nasproxy
            inline without and with what --precision changes, over the same seeds.

Results go to ``benchmarks/results/search_throughput.json``, run by run; what is there, measured under the same
settings on the same machine with the same versions, is not measured again unless --again says so. Balance always is:
it is quick.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from result_file import RESULTS, commit
from scipy.stats import spearmanr
from search_simulation import simulated_searches

from nasproxy.cli.output import plain_table, stdout
from nasproxy.cli.screen import open_screen
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import InputError, NasproxyError, RunError
from nasproxy.files import write_json
from nasproxy.progress import Progress
from nasproxy.proxies.make import load_matching_proxy, random_proxy
from nasproxy.proxies.proxy_file import save_proxy
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.sampling import choose_candidates
from nasproxy.spaces.source import SpaceSource
from nasproxy.spaces.space import Config
from nasproxy.training.precision import resolve_precision
from nasproxy.training.recipe import PRECISIONS
from nasproxy.versions import library_versions, machine_facts, usable_cores

DATASET, SPACE = "digits", "convnet720"
LOOP = "loop float32"
CONTENDERS = {
    LOOP: ("loop", "float32"),
    "loop of nasproxy's networks float32": ("loop-own-networks", "float32"),
    "plain Tune float32": ("plain-tune", "float32"),
    "inline float32-direct": ("inline", "float32-direct"),
    "inline float32": ("inline", "float32"),
    "inline bfloat16": ("inline", "bfloat16"),
    "Tune float32": ("tune", "float32"),
    "Tune bfloat16": ("tune", "bfloat16"),
}
PARTS = ("throughput", "scheduling", "balance", "quality")
_PORTION = 20  # candidates of the quality part in one run, so that little is lost where it is interrupted


def main() -> int:
    """Measures what is missing, prints and stores it; returns the exit code."""
    arguments = _parser().parse_args()
    chosen = ["quality"] if arguments.quality else arguments.parts
    try:
        _check(arguments)
        with open_screen() as screen, tempfile.TemporaryDirectory() as folder:
            bench = Bench(arguments, Path(folder), screen)
            for part in chosen:
                bench.measure(part)
    except NasproxyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on after the last finished run.", file=sys.stderr)
        return 130
    show({part: bench.parts[part] for part in chosen})
    stdout().print(f"Written to {arguments.out}", markup=False)
    return 0


class Bench:
    """Measures parts and keeps the result file.

    Args:
        arguments: of the command line.
        folder: for files on the way.
        screen: told what goes on.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path, screen: Progress) -> None:
        self._arguments, self._folder, self._screen = arguments, folder, screen
        self._dataset = load_dataset(DATASET)
        self._proxy = folder / "proxy.safetensors"
        if arguments.proxy_file is None:
            proxy = random_proxy(self._dataset, 10, seed=arguments.seed)
        else:
            proxy = load_matching_proxy(arguments.proxy_file, self._dataset)
        save_proxy(proxy, self._proxy)
        self._about = {
            "dataset": DATASET,
            "space": SPACE,
            "proxy": {"method": proxy.method, "images": len(proxy), "recipe": dict(proxy.recipe)},
            "versions": library_versions(),
            "machine": machine_facts("cpu"),
        }
        self.parts: dict[str, Any] = _read(arguments.out)
        self._kept: dict[str, Any] = {}

    def measure(self, part: str) -> None:
        """Measures one part, unless it is there, and stores it."""
        of_part = {
            "throughput": ("rounds", "candidates", "epochs", "plain_tune_sample", "inline_threads", "workers", "seed"),
            "scheduling": ("sleep", "workers", "seed"),
            "balance": ("costs",),
            "quality": ("quality_candidates", "quality_epochs", "repeats", "precision", "against", "workers", "seed"),
        }
        settings = {name: getattr(self._arguments, name) for name in of_part[part]}
        if part == "throughput":
            settings["contenders"] = self._arguments.contenders
        about = json.loads(json.dumps({**self._about, "settings": settings}, default=lambda path: path.name))
        there = self.parts.get(part, {})
        same = part != "balance" and not self._arguments.again and all(there.get(n) == v for n, v in about.items())
        if same and "summary" in there:
            self._screen.note(f"{part}: already measured, see {self._arguments.out}; --again repeats it.")
            return
        self._kept = {**about, "runs": there["runs"] if same else {}}
        self.parts[part] = self._kept
        self._kept |= getattr(self, f"_{part}")()
        self._write()

    def _write(self) -> None:
        write_json(self._arguments.out, {"schema": 1, **self.parts})

    def _once(self, name: str, kind: str, configs: Sequence[Config], **options: Any) -> dict[str, Any]:
        """A run that an earlier invocation may have done; kept as soon as it is."""
        runs = self._kept["runs"]
        if name not in runs:
            load = round(os.getloadavg()[0], 2)
            runs[name] = {**self._run(kind, configs, **options), "load_before": load, "commit": commit()}
            self._write()
        return dict(runs[name])

    def _throughput(self) -> dict[str, Any]:
        arguments = self._arguments
        configs = self._sample(arguments.candidates)
        some = _spread(configs, arguments.plain_tune_sample)
        self._screen.stage("Throughput", arguments.rounds * len(arguments.contenders))
        runs = []
        for number in range(arguments.rounds):
            first = number % len(arguments.contenders)  # whoever comes first in one round comes last in the next
            for name in [*arguments.contenders[first:], *arguments.contenders[:first]]:
                kind, precision = CONTENDERS[name]
                chosen = some if kind == "plain-tune" else configs
                threads = arguments.inline_threads if kind == "inline" else 1
                options = {"precision": precision, "threads": threads, "epochs": arguments.epochs}
                run = self._once(f"{name}, round {number}", kind, chosen, **options)
                run["mean_accuracy"] = round(float(np.mean(run.pop("accuracies"))), 4)
                runs.append({"contender": name, "round": number, "candidates": len(chosen), **run})
                self._screen.advance(f"{name} {len(chosen) / run['seconds']:.2f}/s")
        return {"summary": summarise(runs, [configs.index(config) for config in some])}

    def _scheduling(self) -> dict[str, Any]:
        configs = self._sample(None)
        sleep = self._arguments.sleep
        asked = [(1, 0.0), (1, sleep), (self._arguments.workers, sleep)]
        self._screen.stage("Scheduling", len(asked))
        rows = []
        for workers, seconds in asked:
            run = self._once(f"{workers} workers, {seconds} s", "idle", configs, sleep=seconds, workers=workers)
            milliseconds = 1000 * (run["seconds"] - run["busy_seconds"] / workers) / len(configs)
            names = ("seconds", "busy_seconds", "ready_after", "processes", "idle_at_end")
            rows.append(
                {
                    "workers": workers,
                    "sleep": seconds,
                    "candidates": len(configs),
                    "milliseconds_each": round(milliseconds, 3),
                    **{name: run[name] for name in names},
                }
            )
            self._screen.advance(f"{milliseconds:.2f} ms a candidate")
        return {"summary": rows}

    def _balance(self) -> dict[str, Any]:
        runs = self.parts.get("throughput", {}).get("runs", {})
        names = ("processes", "idle_at_end", "idle")
        measured = [
            {"run": key, **{name: run[name] for name in names}}
            for key, run in runs.items()
            if "idle" in run and "Tune" in key
        ]
        return {"measured": measured, "simulated": simulated_searches(self._arguments.costs)}

    def _quality(self) -> dict[str, Any]:
        arguments = self._arguments
        configs = self._sample(arguments.quality_candidates)
        precision = resolve_precision(arguments.precision, torch.device("cpu"))
        reference = ("loop", "float32") if arguments.against == "loop" else ("inline", arguments.against)
        ours = "tune" if arguments.against == "loop" else "inline"
        starts = range(0, len(configs), _PORTION)
        self._screen.stage("Quality", 2 * len(starts))
        both = []
        for name, (kind, chosen) in (("reference", reference), ("nasproxy", (ours, precision))):
            options = {"precision": chosen, "epochs": arguments.quality_epochs, "repeats": arguments.repeats}
            rows = []
            for start in starts:
                portion = configs[start : start + _PORTION]
                rows += self._once(f"{name}, from candidate {start}", kind, portion, **options)["accuracies"]
                self._screen.advance(f"{name}: mean accuracy {np.mean(rows):.1%}")
            both.append(np.array(rows))
        summary = {"reference": " ".join(reference), "precision": precision, **compare_quality(*both)}
        if arguments.against != "loop":
            del summary["mean_rho_inside_range_of_seed_pairs"]  # at equal seeds it should be above
        return {"summary": summary, "candidates": [Candidate.of(config).id for config in configs]}

    def _sample(self, count: int | None) -> list[Config]:
        space = SpaceSource.parse(SPACE).load()
        candidates, _ = choose_candidates(space, self._dataset.image_size, limit=count, seed=self._arguments.seed)
        return [candidate.config for candidate in candidates]

    def _run(self, kind: str, configs: Sequence[Config], *, epochs: int = 1, **options: Any) -> dict[str, Any]:
        """Has a process of its own do one ranking; returns its answer."""
        job, answer = self._folder / "job.json", self._folder / "answer.json"
        asked = self._arguments
        common = {"dataset": DATASET, "proxy": str(self._proxy), "seed": asked.seed, "workers": asked.workers}
        write_json(job, {"kind": kind, "configs": configs, "epochs": epochs, **common, **options})
        program = Path(__file__).with_name("search_contenders.py")
        # Whoever limits this process's threads does not mean to limit what is measured.
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        done = subprocess.run([sys.executable, program, job, answer], env=environment, check=False)  # noqa: S603
        if done.returncode:
            raise RunError(f"{kind} ended with exit code {done.returncode}.", "Its message is above.")
        found = dict(json.loads(answer.read_text(encoding="utf-8")))
        missing = len(found.get("ready_after", ())) - found.get("processes", 0)
        if missing > 0:
            self._screen.note(
                f"{kind}: {missing} of Ray's workers stood ready only after the end; take a larger sample."
            )
        return found


def summarise(runs: Sequence[Mapping[str, Any]], some: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each contender: candidates a second and ratios to the loop of the same round, with their spread.

    Args:
        runs: of all contenders and rounds.
        some: positions in the sample of the candidates that plain Tune trains.
    """
    loops = {run["round"]: run for run in runs if run["contender"] == LOOP}
    rows = []
    for name in dict.fromkeys(run["contender"] for run in runs):
        mine = [run for run in runs if run["contender"] == name]
        ratios, processor_ratios = [], []
        for run in mine:
            loop = loops[run["round"]]
            same = run["candidates"] == loop["candidates"]
            taken = loop["seconds"] if same else sum(loop["candidate_seconds"][position] for position in some)
            chosen = range(loop["candidates"]) if same else some
            computed = sum(loop["candidate_processor_seconds"][position] for position in chosen)
            ratios.append(taken / run["seconds"])
            processor_ratios.append(computed / run["processor_seconds"])
        rows.append(
            {
                "contender": name,
                "candidates": mine[0]["candidates"],
                "threads": mine[0]["threads"],
                "per_second": _spread_of(run["candidates"] / run["seconds"] for run in mine),
                "ratio_to_loop": _spread_of(ratios),
                "per_processor_second": _spread_of(run["candidates"] / run["processor_seconds"] for run in mine),
                "processor_ratio_to_loop": _spread_of(processor_ratios),
                "startup_seconds": _spread_of(run["startup_seconds"] for run in mine),
                "mean_accuracy": mine[0]["mean_accuracy"],
            }
        )
    return rows


def compare_quality(
    reference: Float64[np.ndarray, "candidates repeats"], nasproxy: Float64[np.ndarray, "candidates repeats"]
) -> dict[str, Any]:
    """Whether nasproxy's accuracies are the reference's, but for the noise that seeds make.

    Standard errors of the means are those of the noise of training, the candidates being given; that of the
    difference is over candidates, whose mean accuracies are paired.
    """
    difference = nasproxy.mean(1) - reference.mean(1)
    repeats = range(reference.shape[1])
    among = [_rho(reference[:, i], reference[:, j]) for i, j in itertools.combinations(repeats, 2)]
    between = [[_rho(reference[:, i], nasproxy[:, j]) for j in repeats] for i in repeats]
    known = [rho for rho in among if rho is not None]
    crossed = [rho for row in between for rho in row if rho is not None]
    mean = float(np.mean(crossed)) if crossed else None
    return {
        "mean_accuracy_reference": round(float(reference.mean()), 5),
        "standard_error_reference": _standard_error(reference),
        "mean_accuracy_nasproxy": round(float(nasproxy.mean()), 5),
        "standard_error_nasproxy": _standard_error(nasproxy),
        "difference": round(float(difference.mean()), 5),
        "standard_error_difference": round(float(difference.std(ddof=1) / math.sqrt(len(difference))), 5),
        "rho_seed_pairs_of_reference": among,
        "rho_seed_pairs_of_nasproxy": [
            _rho(nasproxy[:, i], nasproxy[:, j]) for i, j in itertools.combinations(repeats, 2)
        ],
        "rho_reference_to_nasproxy_same_number": [between[i][i] for i in repeats],
        "rho_reference_to_nasproxy_all": between,
        "rho_reference_to_nasproxy_mean": None if mean is None else round(mean, 4),
        "mean_rho_inside_range_of_seed_pairs": bool(known and mean is not None and min(known) <= mean <= max(known)),
    }


def show(parts: Mapping[str, Any]) -> None:
    """Prints what was found, part by part."""
    if "throughput" in parts:
        columns = (
            "candidates",
            "threads",
            "candidates/s",
            "times the loop",
            "by processor time",
            "start-up s",
            "accuracy",
        )
        table = plain_table("throughput", *columns, right=columns)
        for row in parts["throughput"]["summary"]:
            rates = [_range(row[name]) for name in ("per_second", "ratio_to_loop", "processor_ratio_to_loop")]
            start, accuracy = f"{row['startup_seconds']['mean']:.1f}", f"{row['mean_accuracy']:.1%}"
            table.add_row(row["contender"], str(row["candidates"]), str(row["threads"]), *rates, start, accuracy)
        stdout().print(table, "")
    if "scheduling" in parts:
        for row in parts["scheduling"]["summary"]:
            each = f"{row['milliseconds_each']:.2f} ms for each of {row['candidates']} candidates of {row['sleep']} s"
            stdout().print(f"Scheduling: {each} on workers: {row['workers']}")
    if "balance" in parts:
        stdout().print("", pd.DataFrame(parts["balance"]["measured"]).to_string(index=False), "", markup=False)
        stdout().print(pd.DataFrame(parts["balance"]["simulated"]).to_string(index=False), markup=False)
    if "quality" in parts:
        stdout().print("", json.dumps(parts["quality"]["summary"], indent=2), markup=False)


def _range(spread: Mapping[str, float]) -> str:
    return f"{spread['mean']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"


def _spread(configs: Sequence[Config], count: int) -> list[Config]:
    """``count`` of the configurations, evenly over their list, whose first choices vary slowest."""
    return [configs[len(configs) * number // count] for number in range(count)]


def _spread_of(values: Iterable[float]) -> dict[str, float]:
    found = np.array(list(values))
    deviation = found.std(ddof=1) if len(found) > 1 else 0.0
    figures = {"mean": found.mean(), "std": deviation, "min": found.min(), "max": found.max()}
    return {name: round(float(value), 4) for name, value in figures.items()}


def _standard_error(accuracies: Float64[np.ndarray, "candidates repeats"]) -> float | None:
    if accuracies.shape[1] < 2:
        return None
    return round(float(math.sqrt(accuracies.var(axis=1, ddof=1).mean() / accuracies.size)), 5)


def _rho(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]) -> float | None:
    constant = np.ptp(x) == 0 or np.ptp(y) == 0
    return None if constant else round(float(spearmanr(x, y).statistic), 4)


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
        return {name: there[name] for name in PARTS if name in there}
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{file} cannot be read: {error}.", "Choose another --out.") from error


def _check(arguments: argparse.Namespace) -> None:
    for name, least in _LEAST.items():
        if getattr(arguments, name) < least:
            raise InputError(f"--{name.replace('_', '-')} must be {least} or more, got {getattr(arguments, name)}.")
    if arguments.plain_tune_sample > arguments.candidates:
        raise InputError(f"--plain-tune-sample can be {arguments.candidates} at most, the number of --candidates.")
    if LOOP not in arguments.contenders:
        raise InputError(f"Ratios are to {LOOP!r}, which must be among the --contenders.")


_LEAST = {
    "rounds": 1,
    "candidates": 1,
    "epochs": 1,
    "plain_tune_sample": 1,
    "inline_threads": 1,
    "workers": 1,
    "quality_candidates": 3,
    "quality_epochs": 1,
    "repeats": 2,
    "sleep": 0,
    "seed": 0,
}


def _parser() -> argparse.ArgumentParser:
    cores = usable_cores()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS[:3], default=PARTS[:3], help="what to measure (default: all three)")
    add("--quality", action="store_true", help="compare accuracies instead")
    add("--again", action="store_true", help="measure what is there already once more")
    add("--out", type=Path, default=RESULTS / "search_throughput.json", help="default: beside this script")
    add("--proxy-file", type=Path, help="a proxy of digits (default: 10 random real images of each class)")
    add("--seed", type=int, default=0, help="of proxy, sample and trainings (default: %(default)s)")
    add("--workers", type=int, default=cores, help="of Ray, one thread each (default: the cores)")
    add("--rounds", type=int, default=3, help="default: %(default)s")
    add("--candidates", type=int, default=24, help="in the sample (default: %(default)s)")
    add("--epochs", type=int, default=10, help="of each training (default: %(default)s)")
    add("--plain-tune-sample", type=int, default=8, help="candidates for plain Tune (default: %(default)s)")
    add("--inline-threads", type=int, default=cores, help="of nasproxy inline (default: the cores)")
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="default: all")
    add("--sleep", type=float, default=0.03, help="seconds of a training in the scheduling part (default: %(default)s)")
    add(
        "--costs",
        type=Path,
        default=RESULTS / "full_ranking_plain_digits.csv",
        help="a full ranking, for the simulation",
    )
    add("--quality-candidates", type=int, default=100, help="default: %(default)s")
    add("--quality-epochs", type=int, default=15, help="default: %(default)s")
    add("--against", choices=("loop", *PRECISIONS[1:]), default="loop", help="whom quality is measured against")
    add("--repeats", type=int, default=3, help="seeds of the quality part (default: %(default)s)")
    add(
        "--precision", choices=PRECISIONS, default="auto", help="of nasproxy in the quality part (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
