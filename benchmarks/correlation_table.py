"""Section 3.2 of the paper: how well each proxy's ranking agrees with that of the whole data.

    python benchmarks/correlation_table.py --dataset cifar10 --data-dir DIR --out runs/table
    nasproxy compare --from benchmarks/results/NAME --out runs/drawn

On a GPU (--protocol paper): all 720 ConvNets at the dataset's size, proxies of 10 images a class, 100 epochs on a proxy
and on the whole data, the paper's condensation, 5 runs averaged (--repeats 1 for one). On cores (--protocol small, the
default there), which is not the paper's: 16×16 pixels, a stratified sample of 48 of the 540 ConvNets of at most 128
filters, 4 epochs in batches of 64 on the whole data, the quick preset's condensation, one run. All of that can be said
otherwise.

An interrupted run goes on where it was, and so does one whose --time-budget was spent. Every score of every candidate
goes to ``benchmarks/results/NAME/``, from which the second command draws the table and all figures without training.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nasproxy.cli.options import parse_image_size
from nasproxy.cli.screen import open_screen
from nasproxy.compare.run import CompareResult, run_compare
from nasproxy.compare.settings import CompareSettings
from nasproxy.errors import NasproxyError
from nasproxy.files import make_folder, write_atomically
from nasproxy.interruption import heeding_signals
from nasproxy.search.devices import resolve_device
from nasproxy.search.settings import SearchSettings

RESULTS = Path(__file__).parent / "results"
NARROW = Path(__file__).with_name("narrow_convnets.py")
FIGURE_5 = "condensed,random,herding,early-stopping"
RIVALS = "k-center,forgetting,parameters,multiply-adds,grad-norm,snip,synflow,naswot,jacob-cov"
MIXTURES = "random+early-stopping,condensed+early-stopping"
KEPT = ("scores.csv", "scores.json", "comparison.md")


@dataclass(frozen=True)
class Protocol:
    """What an option stands for where it is not given."""

    preset: str
    space: str
    image_size: str | None
    limit: int | None
    finalist_epochs: int
    finalist_batch_size: int | None
    repeats: int


PROTOCOLS = {
    "paper": Protocol("paper", "convnet720", None, None, 100, None, 5),
    "small": Protocol("quick", f"{NARROW}:NarrowConvNets", "16", 48, 4, 64, 1),
}


def main() -> int:
    """Runs what is missing, keeps the scores and prints the table; returns the exit code."""
    arguments = _parser().parse_args()

    def plan() -> tuple[str, CompareSettings, Path]:
        protocol, settings = _settings(arguments)
        name = arguments.name or f"correlation_{Path(arguments.dataset).name}_{protocol}"
        return protocol, settings, arguments.results / name

    return compare_and_keep(plan, arguments.time_budget)


def compare_and_keep(plan: Callable[[], tuple[str, CompareSettings, Path]], budget: float | None) -> int:
    """Runs what is missing of a comparison, keeps the scores and prints the table; returns the exit code.

    Args:
        plan: gives the protocol's name, what to compare, and the folder of results; what it raises is reported.
        budget: minutes; None is no limit.
    """
    began = time.perf_counter()
    try:
        protocol, settings, folder = plan()
        with heeding_signals(), open_screen() as screen:
            _stop_after(budget)
            result = run_compare(settings, resume=True, progress=screen)
            signal.setitimer(signal.ITIMER_REAL, 0)
        keep(result, folder, protocol, time.perf_counter() - began)
    except NasproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("What is finished is kept; the same command goes on.", file=sys.stderr)
        return 130
    print((folder / "comparison.md").read_text(encoding="utf-8"))
    return 1 if result.failed else 0


def keep(result: CompareResult, folder: Path, protocol: str, seconds: float) -> None:
    """Copies every score into ``folder``, and says there what they are of."""
    make_folder(folder)
    for name in KEPT:
        shutil.copyfile(result.directory / name, folder / name)
    facts, document = result.scores.facts, result.document
    about = {
        "Protocol": protocol if protocol == "paper" else f"{protocol}, which is not the paper's",
        "Data": f"{facts['dataset']}, fingerprint {facts['fingerprint']}",
        "Candidates": f"{document['candidates']} of the {facts['space_size']} of {facts['space']}",
        "On a proxy": f"{facts['epochs']} epochs, {facts['repeats']} training(s) a score, seed {facts['seed']}",
        "On the whole data": f"{facts['whole_epochs']} epochs, {document['trained_on_whole']} candidates",
        "Machine": ", ".join(f"{name} {value}" for name, value in facts["machine"].items()),
        "Last invocation": f"{seconds / 60:.0f} minutes; the table has those of each proxy",
    }
    columns = [f"| `{name}` | {about_column['meaning']} |" for name, about_column in facts["columns"].items()]
    lines = [f"# {folder.name}", "", *(f"- {name}: {value}." for name, value in about.items()), ""]
    lines += [(folder / "comparison.md").read_text(encoding="utf-8"), *_how_to_query(folder, result)]
    lines += [
        "## Columns of scores.csv",
        "",
        "Accuracies are fractions; a cell is empty where there is no score.",
    ]
    lines += ["", "| column | meaning |", "| --- | --- |", *columns]
    write_atomically(folder / "README.md", ("\n".join(lines) + "\n").encode())


def _how_to_query(folder: Path, result: CompareResult) -> list[str]:
    """Paragraphs on the table as a small benchmark."""
    scores = result.scores
    config = {choice: scores.choice(choice)[0] for choice in scores.facts["choices"]}
    proxy = next((name for name, about in scores.proxies.items() if about["reason"] is None), "whole")
    return [
        "## A small benchmark", "",
        "Every figure above comes from `scores.csv`; `scores.json` says what it is of. Looking up takes no training:",
        "", "```python", "from pathlib import Path", "", "from nasproxy import load_scores", "",
        f'scores = load_scores(Path("benchmarks/results/{folder.name}"))',
        f"config = {config}",
        "print(scores.query(config))  # mean validation accuracy after training on the whole data; NaN without",
        f'print(scores.query(config, proxy="{proxy}", repeat=0))',
        'print(scores.table.groupby("sampled").mean(numeric_only=True))  # a pandas row for each candidate',
        "```", "",
    ]  # fmt: skip


def _settings(arguments: argparse.Namespace) -> tuple[str, CompareSettings]:
    device = resolve_device(arguments.device).type
    name = arguments.protocol or ("paper" if device == "cuda" else "small")
    protocol = PROTOCOLS[name]
    size = parse_image_size(arguments.image_size or protocol.image_size)
    search = SearchSettings(
        dataset=arguments.dataset,
        data_dir=arguments.data_dir,
        image_size=size,
        space=arguments.space or protocol.space,
        preset=protocol.preset,
        ipc=arguments.ipc,
        epochs=arguments.epochs,
        augmentation=arguments.augmentation,
        limit=arguments.limit or protocol.limit,
        max_multiply_adds=arguments.max_multiply_adds,
        repeats=arguments.repeats or protocol.repeats,
        top_k=arguments.top_k,
        finalist_epochs=arguments.finalist_epochs or protocol.finalist_epochs,
        finalist_batch_size=arguments.finalist_batch_size or protocol.finalist_batch_size,
        executor=arguments.executor,
        gpus_per_worker=arguments.gpus_per_worker,
        device=arguments.device,
        seed=arguments.seed,
        scheduler="none",
        out=arguments.out,
    )
    return name, CompareSettings(search, tuple(arguments.proxies.split(",")), arguments.sample)


def _stop_after(minutes: float | None) -> None:
    """Makes the end of the budget the same as Ctrl-C: what is under way is finished or left, what is done is kept."""
    if minutes is not None:
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="run directory; resumed if it is there")
    parser.add_argument("--dataset", default="cifar10", help="as for nasproxy compare")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), help="paper on a GPU, small elsewhere")
    parser.add_argument("--time-budget", type=minutes, metavar="MINUTES", help="stop then; the same command goes on")
    parser.add_argument("--proxies", default=",".join((FIGURE_5, RIVALS, MIXTURES)), help=f"figure 5: {FIGURE_5}")
    parser.add_argument("--image-size", help="of the small protocol 16")
    parser.add_argument("--space", help="of the small protocol, the ConvNets of at most 128 filters")
    parser.add_argument("--limit", type=int, help="candidates; of the small protocol 48")
    parser.add_argument("--max-multiply-adds", type=int, help="leave out candidates that take more for an image")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100, help="on a proxy")
    parser.add_argument("--augmentation", default="none", help="on a proxy's images (default: none, as in the paper)")
    parser.add_argument("--finalist-epochs", type=int, help="on the whole data; paper 100, small 4")
    parser.add_argument("--finalist-batch-size", type=int, help="on the whole data; paper 256, small 64")
    parser.add_argument("--repeats", type=int, help="trainings averaged; paper 5, small 1")
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--sample", type=int, help="random candidates trained on the whole data; 40")
    parser.add_argument("--executor", default="tune", choices=("tune", "inline"))
    parser.add_argument("--gpus-per-worker", type=float, default=1.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the folder of results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def minutes(text: str) -> float:
    """The argument of --time-budget."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected minutes above 0, got {text}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
