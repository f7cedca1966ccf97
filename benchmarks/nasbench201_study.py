"""How well proxies rank the cells of NAS-Bench-201 on scikit-learn's digits, on two cores.

    python benchmarks/nasbench201_study.py --out runs/cells
    nasproxy compare --from benchmarks/results/nasbench201_digits --out runs/drawn

A seeded sample of cells, no two of which are the same network, at 16×16 pixels: 16 channels and one cell a stage, where
the paper trains five a stage on CIFAR-10 for 200 epochs. Every cell is trained on each proxy, and on the whole training
part; cut-off cells (no path from input to output) take part as any other. An interrupted run goes on where it was, and
so does one whose --time-budget was spent. Every score of every candidate goes to ``benchmarks/results/NAME/``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from correlation_table import RESULTS, compare_and_keep, minutes

from nasproxy.compare.settings import CompareSettings
from nasproxy.search.settings import SearchSettings

PROXIES = "condensed,random,dm,early-stopping,parameters,multiply-adds,synflow,naswot"
PROTOCOL = "one cell a stage where NAS-Bench-201 has five"


def main() -> int:
    """Runs what is missing, keeps the scores and prints the table; returns the exit code."""
    arguments = _parser().parse_args()
    folder = arguments.results / arguments.name
    return compare_and_keep(lambda: (PROTOCOL, _settings(arguments), folder), arguments.time_budget)


def _settings(arguments: argparse.Namespace) -> CompareSettings:
    search = SearchSettings(
        dataset=arguments.dataset,
        data_dir=arguments.data_dir,
        image_size=(arguments.image_size, arguments.image_size),
        space=arguments.space,
        preset="quick",
        ipc=arguments.ipc,
        epochs=arguments.epochs,
        augmentation=arguments.augmentation,
        limit=arguments.limit,
        repeats=arguments.repeats,
        top_k=arguments.top_k,
        finalist_epochs=arguments.finalist_epochs,
        executor=arguments.executor,
        workers=arguments.workers,
        device="cpu",
        seed=arguments.seed,
        scheduler="none",
        out=arguments.out,
    )
    return CompareSettings(search, tuple(arguments.proxies.split(",")), arguments.sample)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="run directory; resumed if it is there")
    parser.add_argument("--dataset", default="digits", help="as for nasproxy compare")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--space", default="nasbench201-unique", help="as for nasproxy compare")
    parser.add_argument("--proxies", default=PROXIES)
    parser.add_argument("--image-size", type=int, default=16, help="pixels a side")
    parser.add_argument("--limit", type=int, default=60, help="cells")
    parser.add_argument("--sample", type=int, default=60, help="random ones trained on the whole data")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100, help="on a proxy")
    parser.add_argument("--augmentation", default="auto", help="on a proxy's images, as for nasproxy compare")
    parser.add_argument("--finalist-epochs", type=int, default=8, help="on the whole data")
    parser.add_argument("--repeats", type=int, default=1, help="trainings averaged")
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--executor", default="tune", choices=("tune", "inline"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-budget", type=minutes, metavar="MINUTES", help="stop then; the same command goes on")
    parser.add_argument("--name", default="nasbench201_digits", help="of the folder of results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
