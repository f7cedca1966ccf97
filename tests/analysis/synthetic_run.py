"""A run directory as ``nasproxy search`` leaves it, made without training anything."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasproxy.analysis.correlation import spearman
from nasproxy.datasets.image_dataset import Normalisation
from nasproxy.proxies.proxy_file import save_proxy
from nasproxy.proxies.proxy_set import ProxySet

CHOICES: dict[str, list[Any]] = {
    "width": [32, 64, 128, 256],
    "depth": [1, 2, 3, 4],
    "norm": ["none", "batch", "layer", "instance", "group"],
    "activation": ["sigmoid", "relu", "leaky_relu"],
    "pooling": ["none", "max", "average"],
}
SMALL: dict[str, list[Any]] = {"width": [8, 16], "norm": [None, "batch"], "rate": [0.1, 0.01], "bias": [True, False]}
COLUMNS = (
    "proxy_epochs", "proxy_accuracy", "proxy_cross_entropy", "diverged", "parameters", "multiply_adds", "seconds",
    "whole_accuracy", "whole_cross_entropy", "test_accuracy", "whole_seconds", "reason",
)  # fmt: skip


def make_proxy(
    *, classes: int = 10, per_class: int = 10, channels: int = 1, size: tuple[int, int] = (16, 16),
    names: list[str] | None = None,
) -> ProxySet:  # fmt: skip
    """Smooth shapes, another for each class."""
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(classes, channels, 4, 4, generator=generator).repeat_interleave(per_class, 0)
    low = low + 0.4 * torch.randn(low.shape, generator=generator)
    return ProxySet(
        images=torch.nn.functional.interpolate(low, size=size, mode="bicubic"),
        labels=torch.arange(classes).repeat_interleave(per_class),
        method="dc",
        recipe={"ipc": per_class},
        dataset="digits",
        fingerprint="f" * 64,
        class_names=tuple(names or (f"digit {c}" for c in range(classes))),
        normalisation=Normalisation((0.4,) * channels, (0.25,) * channels),
        seconds=74.2,
        history=(3.0, 2.0),
        versions={"torch": "2.15.0"},
    )


def make_rows(choices: dict[str, list[Any]], *, top: int = 10, seed: int = 0) -> list[dict[str, Any]]:
    """Candidates of a successive halving over 10, 20 and 40 epochs, ranked; ``top`` finalists; two that fail."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number, values in enumerate(itertools.product(*choices.values())):
        places = [list(choice).index(value) for choice, value in zip(choices.values(), values, strict=True)]
        quality = np.dot([1.2, 1.0, 1.0], [*places, 0][:3]) - 0.4 * (places[1] - 2) ** 2 + rng.normal(0, 1)
        rows.append({
            "id": f"{number:012x}",
            **{f"params_{k}": v for k, v in zip(choices, values, strict=True)},
            "quality": quality, "diverged": bool(rng.random() < 0.004), "parameters": int(10 ** rng.uniform(3.5, 6.3)),
            "multiply_adds": int(10 ** rng.uniform(5, 8.5)), "seconds": rng.uniform(0.1, 4),
        })  # fmt: skip
    rows.sort(key=lambda row: -row["quality"])
    for rank, row in enumerate(rows, 1):
        epochs = 40 if rank <= len(rows) // 4 else 20 if rank <= len(rows) // 2 else 10
        accuracy = 1 / (1 + np.exp(-(row.pop("quality") / 4 + epochs / 40)))
        row.update(rank=rank, proxy_epochs=epochs, state="complete" if epochs == 40 else "pruned")
        row["proxy_accuracy"] = round(accuracy * 400) / 400
        row["proxy_cross_entropy"] = -np.log(accuracy)
        if rank <= top:
            whole = round((0.94 + accuracy * 0.03 + rng.normal(0, 0.004)) * 400) / 400
            row.update(whole_accuracy=whole, whole_cross_entropy=0.1, test_accuracy=whole - 0.006, whole_seconds=12.3)
    failed = [{**row, "rank": "", "state": "failed", "proxy_accuracy": "", "proxy_epochs": "", "diverged": False,
               "proxy_cross_entropy": "", "reason": "RuntimeError: out of memory\n  (tried to allocate 3 GiB)"}
              for row in rows[-2:]]  # fmt: skip
    return rows[:-2] + failed


def make_run(
    directory: Path, *, choices: dict[str, list[Any]] = SMALL, top: int = 5, finished: bool = True,
    proxy: ProxySet | None = None, dataset: str = "digits",
) -> Path:  # fmt: skip
    """Writes the run; ``proxy`` None leaves out the file."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = make_rows(choices, top=top)
    header = ["rank", "id", "state", *(f"params_{name}" for name in choices), *COLUMNS]
    with (directory / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(rows)
    names = list(proxy.class_names) if proxy else [f"digit {c}" for c in range(10)]
    write_json(directory / "run.json", {
        "schema": 1,
        "settings": {"dataset": dataset, "space": "convnet720", "proxy": "condensed", "preset": "quick", "ipc": 10,
                     "epochs": 40, "repeats": 1, "top_k": top, "finalist_epochs": 30, "seed": 0, "storage": None},
        "dataset": {"name": dataset, "fingerprint": "f" * 64, "train": 1037, "validation": 400,
                    "test": 360, "channels": 1, "image_size": [16, 16], "class_names": names,
                    "notes": ["the test part was cut from train"]},
        "space": {"name": "convnet720", "size": len(rows), "choices": choices},
        "versions": {"nasproxy": "0.1.0", "python": "3.11.9", "torch": "2.15.0", "ray": "2.60.0", "optuna": "5.0.0"},
        "machine": {"processor": "a processor", "cores": 2, "memory_gib": 15.6, "device": "cpu", "gpu": None},
    })  # fmt: skip
    if finished:
        write_json(directory / "summary.json", make_summary(rows, choices, directory))
    if proxy is not None:
        save_proxy(proxy, directory / "proxy.safetensors")
    return directory


def make_summary(rows: list[dict[str, Any]], choices: dict[str, list[Any]], directory: Path) -> dict[str, Any]:
    """``summary.json`` of ``make_rows``."""
    keys = ("rank", "id", "proxy_accuracy", "whole_accuracy", "test_accuracy", "parameters", "multiply_adds")
    top = [
        {**{key: row[key] for key in keys}, "config": {name: row[f"params_{name}"] for name in choices}}
        for row in rows if row.get("whole_accuracy")
    ]  # fmt: skip
    agreement = spearman([t["proxy_accuracy"] for t in top], [t["whole_accuracy"] for t in top], resamples=500)
    return {
        "schema": 1, "space": "convnet720", "dataset": "digits", "proxy": "condensed", "candidates": len(rows),
        "evaluated": len(rows) - 2, "diverged": sum(row["diverged"] for row in rows), "failed": 2, "top": top,
        "winner": max(top, key=lambda t: t["whole_accuracy"]), "agreement": asdict(agreement),
        "rungs": [{"epochs": 10, "candidates": len(rows), "seconds": 61.0},
                  {"epochs": 40, "candidates": len(rows) // 4, "seconds": 40.5}],
        "seconds": {"condense": 74.2, "search": 101.5, "finalists": 63.0, "total": 251.9}, "run": str(directory),
    }  # fmt: skip


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))
