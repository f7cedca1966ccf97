"""The model card: where a network comes from, how good it is, how sure that is, and how to load it.

Markdown with the front matter that Hugging Face's hub reads (https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from nasproxy.analysis.explain import agreement_of, explain, explain_calibration
from nasproxy.export.description import Description
from nasproxy.export.loading import STANDALONE
from nasproxy.text import count, counted, milliseconds, one_line, percent, wilson

_MOST_CLASSES = 50
_PARTS = {
    "test_accuracy": ("test", "test"),
    "whole_accuracy": ("validation", "validation, trained on all training images"),
    "proxy_accuracy": ("validation", "validation, trained on the proxy"),
}


@dataclass(frozen=True)
class Latency:
    """The measured time of one image.

    Args:
        milliseconds: of a forward pass.
        where: on what it was measured.
    """

    milliseconds: float
    where: str


@dataclass(frozen=True)
class Origin:
    """The search that a network comes from.

    Args:
        run: ``run.json``.
        summary: ``summary.json``.
        entry: of the network in ``summary["top"]``.
        further: how it was trained after the search, and by what its weights were chosen; empty where it was not.
    """

    run: Mapping[str, Any]
    summary: Mapping[str, Any]
    entry: Mapping[str, Any]
    further: str = ""

    @property
    def won(self) -> bool:
        """Whether it is the winner."""
        return bool(self.summary["winner"]) and self.summary["winner"]["id"] == self.entry["id"]


def model_card(
    description: Description,
    origin: Origin,
    *,
    library: str = "pytorch",
    loading: str = STANDALONE,
    latency: Latency | None = None,
) -> str:
    """The card's text. Whatever names the data or the space bring are shown as they are, and stay within their place.

    Args:
        description: of the network.
        origin: the search that it comes from.
        library: that loads it, by the hub's name: ``pytorch`` or ``onnx``.
        loading: Markdown that says how to load it; by default the folder that needs no nasproxy.
        latency: of one image, where it was measured.
    """
    settings, dataset = origin.run["settings"], origin.run["dataset"]
    title = f"{description.space} {description.id}, trained on {description.dataset}"
    names = [plain(name) for name in description.class_names]
    height, width = description.image_size
    content = {
        "front_matter": _front_matter(title, description, library),
        "title": plain(title),
        "chosen": "the best" if origin.won else f"number {origin.entry['rank']} in the proxy's ranking",
        "planned": f"{origin.summary['candidates']:,}",
        "space": plain(description.space),
        "height": height,
        "width": width,
        "colour": "gray" if description.channels == 1 else "colour",
        "num_classes": f"{len(names):,}",
        "classes": names[:_MOST_CLASSES],
        "more_classes": f" and {len(names) - _MOST_CLASSES:,} more" if len(names) > _MOST_CLASSES else "",
        "scores": _scores(description.scores, dataset),
        "repeats": 1 if origin.further else settings.get("repeats") or 1,
        "choice": _choice(origin),
        "parameters": count(origin.entry["parameters"] or 0),
        "multiply_adds": count(origin.entry["multiply_adds"] or 0),
        "latency": f"{milliseconds(latency.milliseconds)}, {plain(latency.where)}" if latency else "",
        "config": [(plain(name), plain(value)) for name, value in description.config.items()],
        "dataset": plain(description.dataset),
        "images": ", ".join(
            f"{dataset[part]:,} {part}" for part in ("train", "validation", "test") if dataset.get(part)
        ),
        "fingerprint": plain(description.fingerprint),
        "mean": _numbers(description.normalisation.mean),
        "std": _numbers(description.normalisation.std),
        "found": _found(origin),
        "trained": _trained(origin),
        "trust": " ".join(explain(agreement_of(origin.summary["agreement"]))),
        "calibration": _calibration(origin),
        "limits": _limits(origin),
        "loading": loading,
        "versions": ", ".join(f"{plain(name)} {plain(version)}" for name, version in description.versions.items()),
    }
    return _template().render(content)


def plain(value: object) -> str:
    r"""A text that came from outside, in one line in which nothing is Markdown or HTML.

    Example:
        >>> plain("a|b\n# <b>")
        'a\\|b \\# \\<b\\>'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~$&:@])", r"\\\1", one_line(value))


def _template() -> jinja2.Template:
    text = resources.files("nasproxy.export").joinpath("card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(  # noqa: S701, what came from outside is escaped for Markdown, not for HTML
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(text)


def _front_matter(title: str, description: Description, library: str) -> str:
    """YAML; each value is JSON, which is YAML too, so that no name can leave its place."""
    accuracy = description.scores.get("test_accuracy")
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": description.dataset, "type": description.dataset},
        "metrics": [{"type": "accuracy", "name": "Test accuracy", "value": accuracy}],
    }
    facts: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "neural-architecture-search", "nasproxy"],
    }
    if accuracy is not None:
        facts["model-index"] = [{"name": title, "results": [result]}]
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in facts.items())


def _scores(scores: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for name, (part, title) in _PARTS.items():
        value, images = scores.get(name), dataset.get(part)
        if value is None:
            continue
        between = "\N{EN DASH}"
        if images:
            low, high = wilson(value, images)
            between = f"{100 * low:.1f} to {percent(high)}"
        rows.append(
            {"name": title, "accuracy": percent(value), "interval": between, "images": f"{images:,}" if images else ""}
        )
    return rows


def _choice(origin: Origin) -> str:
    finalists = len(origin.summary["top"])
    if origin.further:
        return origin.further
    if finalists == 1:
        return "It is the only finalist, which the accuracy after training on the proxy has chosen."
    if origin.won:
        return f"It was chosen among {finalists} finalists by its validation accuracy, so that figure flatters."
    return f"It is one of {finalists} finalists, which the accuracy after training on the proxy has chosen."


def _found(origin: Origin) -> str:
    summary, settings = origin.summary, origin.run["settings"]
    rungs = ", then ".join(
        f"{rung['candidates']:,} for {counted(rung['epochs'], 'epoch')}" for rung in summary.get("rungs") or ()
    )
    ranked = f"{summary['evaluated']:,} of {summary['candidates']:,} candidates were ranked by the proxy"
    return (
        f"{ranked} {plain(settings['proxy'])}{f' ({rungs})' if rungs else ''}; the best {len(summary['top'])} were then"
        " trained on all training images."
    )


def _trained(origin: Origin) -> str:
    settings = origin.run["settings"]
    names = {
        "finalist_epochs": "epochs",
        "finalist_learning_rate": "learning rate",
        "finalist_batch_size": "batch size",
        "finalist_augmentation": "augmentation",
        "precision": "precision",
        "seed": "seed",
    }
    said = [f"{title} {plain(settings[name])}" for name, title in names.items() if settings.get(name) is not None]
    return (
        "Training in the search: SGD with momentum 0.9, a tenth of the learning rate in the second half; "
        f"{', '.join(said)}."
    )


def _calibration(origin: Origin) -> str:
    found = origin.summary.get("calibration")
    return " ".join(explain_calibration(agreement_of(found), found.get("ranked") or 0)) if found else ""


def _limits(origin: Origin) -> str:
    finalists = {entry["id"] for entry in origin.summary["top"]}
    drawn = {entry["id"] for entry in (origin.summary.get("calibration") or {"sample": []})["sample"]}
    untried = origin.summary["candidates"] - len(origin.summary["top"]) - len(drawn - finalists)
    return (
        f"{untried:,} of the candidates were never trained on all training images: a better network may be among them."
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
