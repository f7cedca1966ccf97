"""Which levers make a small set rank networks better than random real images do, at the same cost of training.

    python benchmarks/ranking_ablation.py --dataset DIR --workers 2
    python benchmarks/ranking_ablation.py --from benchmarks/results/ranking_ablation_cifar10.json

The truth is what a committed comparison (--truth) has trained on the whole data: of CIFAR-10 at 16×16, 48 stratified
candidates of at most 128 filters, 4 epochs. A contender is a way to make sets of 10 images a class, and a way to train
and to score on them. Each makes --sets sets, by seeds of their own; the truth's candidates are trained on each for 100
epochs, in bfloat16, with the seeds that nasproxy search would give them, so that set 1 of --seed 0 is that of
``search --seed 0``.

Condensing takes about as many processor seconds for all that condense (--condense-minutes), but for dc-real-long, which
has three times as many iterations: K is fixed beforehand, by speeds measured on one core of an AMD EPYC with
AVX512-bf16 before there were kernels, and is never a cut by the clock. Random sets, the rival, cost nothing to make.
Soft labels are of the network that coresets are chosen by, which is trained once on the whole training part and kept in
the cache (20 epochs, about 4 minutes of one core). Real statistics are batch-norm means and variances of 1,000 training
images, estimated anew for scoring, as --norm-statistics real does; the training is that of the contender without them,
scored twice. Siamese is the augmentation of dsa and dm where candidates are trained, as --augmentation siamese does;
without it, sets of dsa and dm are trained on as all others.

Spearman's rho is that of single sets, averaged over sets; its interval holds the middle 95 % of bootstrap draws of
candidates, the same for all contenders, and of each contender's sets. Of "averaged sets" it is that of each candidate's
mean score over the sets, which costs as many trainings.

On an Intel Xeon with AMX the 48 trainings on a set take two processor minutes, condensing one one or two
(dc-real-long: three). All contenders take 52 processor minutes for each of --sets, the teacher apart: half of that on
two idle cores.

All results are written as trainings on a set are done, those of the first sets first; the same command goes on, and
more --sets or other --contenders may be asked of it. What is in the file has a table by --from.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ranking_bench import SEEDS_APART, TEACHER, Bench, Job
from ranking_contenders import CONTENDERS, EARLY, IPC, TAUGHT, Contender
from ranking_figures import as_csv, figures, table
from result_file import RESULTS, commit, dataset_facts, open_document

from nasproxy.cli.screen import open_screen
from nasproxy.datasets.per_class import check_class_sizes
from nasproxy.errors import InputError, NasproxyError, RunError, nearest
from nasproxy.files import make_folder, write_atomically, write_json
from nasproxy.interruption import heeding_signals
from nasproxy.versions import library_versions, machine_facts

TRUTH = RESULTS / "correlation_cifar10_small"
NARROW = f"{Path(__file__).with_name('narrow_convnets.py')}:NarrowConvNets"


def main() -> int:
    """Measures what is missing, and prints the table; returns the exit code."""
    arguments = _parser().parse_args()
    try:
        if arguments.from_ is not None:
            document = _read(arguments.from_)
        else:
            with heeding_signals():
                document = measure(arguments)
    except NasproxyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. What is finished is kept; the same command goes on.", file=sys.stderr)
        return 130
    print(table(document))
    failed = [s for s in document["sets"] if s["making"] and s["making"]["failure"]]
    for entry in failed:
        print(f"{entry['images']}, set {entry['set']}: {entry['making']['failure']}", file=sys.stderr)
    return 1 if failed else 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Does what the result file lacks; returns its content."""
    asked = _check(arguments)
    bench = Bench(arguments)
    check_class_sizes(bench.dataset, IPC)
    file = arguments.out or RESULTS / f"ranking_ablation_{bench.dataset.name}.json"
    document = open_document(file, _about(bench, arguments), lambda sets: [s["making"] for s in sets])
    for entry in document["sets"]:
        bench.check(entry)
    make_folder(file.parent)
    _save(document, file)  # a place that cannot be written shows itself before hours of work
    with open_screen() as screen:
        if any(
            job.training in TAUGHT for number in range(arguments.sets) for job in _to_train(document, asked, number)
        ):
            screen.stage("Training the teacher of soft labels", TEACHER.epochs)
            bench.teacher(lambda _, loss: screen.advance(f"training loss {loss:.2f}"))
        # One set number after another, so that an early end leaves all contenders with the first.
        for number in range(arguments.sets):
            for title, jobs in (("Making", _to_make), ("Training on", _to_train)):
                waiting = jobs(document, asked, number)
                if waiting:
                    screen.stage(f"{title} sets {number + 1} of {arguments.sets}", len(waiting))
                for job, found in _performed(waiting, bench, arguments):
                    _keep(job, found, document)
                    _save(document, file)
                    screen.advance(job.images)
    return document


def _save(document: dict[str, Any], file: Path) -> None:
    """Writes everything, the figures so far as well."""
    document["rows"] = figures(document)
    write_json(file, document)
    write_atomically(file.with_suffix(".csv"), as_csv(document))


def _keep(job: Job, found: dict[str, Any], document: dict[str, Any]) -> None:
    entry = _entry(document, job.images, job.number)
    if entry is None:
        entry = {"images": job.images, "set": job.number, "making": None, "commit": commit()}
        document["sets"].append(entry)
    entry[job.training or "making"] = found


def _about(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """All that every set of one file must share."""
    pairs = zip(bench.candidates, bench.truth, strict=True)
    return {
        "schema": 1,
        "dataset": dataset_facts(bench.dataset),
        "settings": {
            **{name: getattr(arguments, name) for name in ("epochs", "condense_minutes", "precision", "seed")},
            "truth": arguments.truth.name,
        },
        "candidates": [{"id": c.id, "config": dict(c.config), "whole": accuracy} for c, accuracy in pairs],
        "versions": library_versions(),
        "machine": machine_facts("cpu"),
    }


def _to_make(document: Mapping[str, Any], asked: Sequence[Contender], number: int) -> list[Job]:
    """The sets of this number that are not there."""
    kinds = dict.fromkeys(contender.images for contender in asked if contender.images != EARLY)
    return [Job(kind, number) for kind in kinds if _entry(document, kind, number) is None]


def _to_train(document: Mapping[str, Any], asked: Sequence[Contender], number: int) -> list[Job]:
    """The trainings on sets of this number that were not done."""
    jobs = []
    for images, training in dict.fromkeys((contender.images, contender.training) for contender in asked):
        entry = _entry(document, images, number) or {"making": None}
        if training not in entry and not (entry["making"] and entry["making"]["failure"]):
            jobs.append(Job(images, number, training))
    return jobs


def _entry(document: Mapping[str, Any], images: str, number: int) -> dict[str, Any] | None:
    return next((s for s in document["sets"] if (s["images"], s["set"]) == (images, number)), None)


def _performed(
    jobs: Sequence[Job], bench: Bench, arguments: argparse.Namespace
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Each job with what came of it, as they end; in processes of their own where several are asked for."""
    if arguments.workers == 1:
        for job in jobs:
            yield job, bench.perform(job)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(arguments.workers, context, initializer=_begin, initargs=(arguments,))
    try:
        waiting = {pool.submit(_perform, job): job for job in jobs}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:
        # Of what an error or Ctrl-C has left, nothing is worth waiting for.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


_benches: list[Bench] = []  # of a worker: its own


def _begin(arguments: argparse.Namespace) -> None:
    """A worker's beginning. It is stopped by the process that started it, not by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _benches.append(Bench(arguments))


def _perform(job: Job) -> dict[str, Any]:
    return _benches[0].perform(job)


def _read(file: Path) -> dict[str, Any]:
    """What is in a result file, with its figures worked out anew.

    Raises:
        RunError: it is none.
    """
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {**document, "rows": figures(document)}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RunError(f"{file} is no result file of this script: {type(error).__name__}: {error}.") from error


def _check(arguments: argparse.Namespace) -> list[Contender]:
    """The contenders asked for."""
    for name in ("sets", "epochs", "workers"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} must be 1 or more, got {getattr(arguments, name)}.")
    if arguments.seed < 0 or arguments.sets > SEEDS_APART:
        raise InputError(f"--seed must be 0 or more, --sets at most {SEEDS_APART}.")
    if not 0 < arguments.condense_minutes < float("inf"):
        raise InputError(f"--condense-minutes must be minutes above 0, got {arguments.condense_minutes}.")
    known = {contender.name: contender for contender in CONTENDERS}
    for name in arguments.contenders:
        if name not in known:
            raise InputError(f"No contender is called {name!r}.", nearest(name, known))
    return [known[name] for name in arguments.contenders]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    names = [contender.name for contender in CONTENDERS]
    add("--dataset", default="cifar10", help="that the truth is of (default: %(default)s)")
    add("--data-dir", type=Path, help="where torchvision's datasets are, or go")
    add("--image-size", default="16", metavar="N", help="of the truth (default: %(default)s)")
    add("--truth", type=Path, default=TRUTH, help="a folder of scores (default: results/correlation_cifar10_small)")
    add("--space", default=NARROW, help="that the truth's candidates are of (default: the ConvNets of 128 filters)")
    add("--contenders", nargs="+", default=names, metavar="C", help=f"default: all, {' '.join(names)}")
    add("--sets", type=int, default=2, help="of each contender (default: %(default)s)")
    add("--condense-minutes", type=float, default=2.5, help="of one core, for a set (default: %(default)s)")
    add("--epochs", type=int, default=100, help="of a candidate's training on a set (default: %(default)s)")
    add("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="default: %(default)s")
    add("--seed", type=int, default=0, help="of sets and trainings (default: %(default)s)")
    add("--workers", type=int, default=1, help="processes of one thread each (default: %(default)s)")
    add(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="default: results/ranking_ablation_<dataset>.json",
    )
    add("--from", dest="from_", type=Path, metavar="FILE.json", help="draw the table of a result file, train nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
