"""``nasproxy condense``: make a condensed set, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nasproxy.cli.completion import among, method_names
from nasproxy.cli.condensing import Order, carry_out, print_words
from nasproxy.cli.options import (
    RUN,
    SOFT_LABELS,
    DataDir,
    Dataset,
    Device,
    ImageSize,
    Json,
    Precision,
    SkipBroken,
    Threads,
    parse_image_size,
)
from nasproxy.cli.output import print_json, say_how_to_go_on
from nasproxy.condensation.condenser import Condenser
from nasproxy.errors import DivergedError, InputError, nearest
from nasproxy.networks.names import NETWORKS
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.registry import condenser_names, find_method
from nasproxy.search.settings import PRESETS, SearchSettings, check_seed

METHOD = "Method"
_D = SearchSettings()


def condense(
    *,
    dataset: Dataset = _D.dataset,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    skip_broken: SkipBroken = False,
    method: Annotated[
        str,
        typer.Option(
            help="dc (gradient matching), dsa (the same with siamese augmentation) or dm (distribution matching).",
            autocompletion=method_names,
            rich_help_panel=METHOD,
        ),
    ] = "dc",
    ipc: Annotated[int, typer.Option(help="Synthetic images per class.", rich_help_panel=METHOD)] = _D.ipc,
    soft_labels: Annotated[
        bool, typer.Option("--soft-labels", help=SOFT_LABELS, rich_help_panel=METHOD)
    ] = _D.soft_labels,
    preset: Annotated[
        str,
        typer.Option(
            help="quick (a minute on two cores at 16×16) or paper.",
            autocompletion=among(*PRESETS),
            rich_help_panel=METHOD,
        ),
    ] = _D.preset,
    iterations: Annotated[
        int | None, typer.Option(help="K, outer iterations.", show_default="the preset's", rich_help_panel=METHOD)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop when the mean loss of N iterations is no lower than that of the N before; 0 never does.",
            show_default="0",
            metavar="N",
            rich_help_panel=METHOD,
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="convnet, mlp, lenet, alexnet, vgg11, resnet18; space (each iteration draws one of convnet720), or "
            "space:S, S as in search --space.",
            show_default="convnet",
            rich_help_panel=METHOD,
        ),
    ] = None,
    max_multiply_adds: Annotated[
        int | None,
        typer.Option(
            help="Of an image, in networks drawn from a space.",
            show_default="2.5 times the default ConvNet's",
            rich_help_panel=METHOD,
        ),
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            help="dsa, dm: kinds like color-crop-cutout-flip-scale-rotate, none, or auto (no flip for digits).",
            show_default="auto",
            rich_help_panel=METHOD,
        ),
    ] = None,
    distance: Annotated[
        str | None,
        typer.Option(
            help="dc, dsa: layerwise-cosine, squared-euclidean, or cosine.",
            show_default="layerwise-cosine",
            rich_help_panel=METHOD,
        ),
    ] = None,
    matching_steps: Annotated[
        int | None, typer.Option(help="T, matching steps in each.", rich_help_panel=METHOD)
    ] = None,
    inner_epochs: Annotated[
        int | None, typer.Option(help="ς_θ, epochs of the network between matching steps.", rich_help_panel=METHOD)
    ] = None,
    image_learning_rate: Annotated[
        float | None,
        typer.Option(
            help="η_S, of the images.", show_default="the method's; dc, dsa with mlp: 0.01", rich_help_panel=METHOD
        ),
    ] = None,
    network_learning_rate: Annotated[
        float | None, typer.Option(help="η_θ, of the network.", rich_help_panel=METHOD)
    ] = None,
    real_batch: Annotated[
        int | None, typer.Option(help="Real images of a class in each matching step.", rich_help_panel=METHOD)
    ] = None,
    initial: Annotated[
        str | None, typer.Option(help="noise, or real (random real images).", rich_help_panel=METHOD)
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            help="Images whose gradients or features are computed at a time; fewer take less memory.",
            show_default="up to 32 of 32×32 pixels on a CPU, all on a GPU",
            metavar="N",
            rich_help_panel=RUN,
        ),
    ] = None,
    device: Device = _D.device,
    precision: Precision = _D.precision,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Of images, networks and batches.", rich_help_panel=RUN)] = _D.seed,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The proxy file to write.", show_default="<dataset>-<method>-ipc<N>.safetensors", rich_help_panel=RUN
        ),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            help="Minutes of condensing, anew with each --resume; the iteration that runs is finished, and the images"
            " so far are written.",
            metavar="MINUTES",
            rich_help_panel=RUN,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with what was interrupted, or start it.", rich_help_panel=RUN),
    ] = False,
    checkpoint_every: Annotated[
        float,
        typer.Option(
            help="Seconds between checkpoints, each after an iteration, beside --out; a kill loses what came since.",
            metavar="SECONDS",
            rich_help_panel=RUN,
        ),
    ] = 30.0,
    evaluate_every: Annotated[
        int | None,
        typer.Option(
            help="Every N iterations and at the end, train the default ConvNet on the images for 300 epochs and say its"
            " test accuracy. The images stay the same; those of the cache are made anew.",
            show_default="never",
            metavar="N",
            rich_help_panel=RUN,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Condense a dataset into a few synthetic images per class: a proxy file, and a picture of them beside it."""
    if method not in (names := condenser_names()):
        raise InputError(f"No condensation method is called {method!r}.", nearest(method, names))
    if preset not in PRESETS:
        raise InputError(f"No preset is called {preset!r}.", nearest(preset, PRESETS))
    said: dict[str, Any] = {
        "iterations": iterations,
        "matching_steps": matching_steps,
        "inner_epochs": inner_epochs,
        "image_learning_rate": image_learning_rate,
        "network_learning_rate": network_learning_rate,
        "real_batch": real_batch,
        "initial": initial,
        "patience": patience,
        "network": network,
        "max_multiply_adds": max_multiply_adds,
        "augmentation": augmentation,
        "distance": distance,
        "chunk": chunk,
    }
    check_seed(seed)
    for name, value in (("--time-budget", time_budget), ("--checkpoint-every", checkpoint_every)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be a number above 0, got {value}.")
    if evaluate_every is not None and evaluate_every < 1:
        raise InputError(f"--evaluate-every must be 1 or more, got {evaluate_every}.")
    if threads is not None and threads < 1:
        raise InputError(f"--threads must be 1 or more, got {threads}.")
    if ipc < 1:
        raise InputError(f"--ipc must be 1 or more, got {ipc}.")
    recipe = _with_options(find_method(method).preset(preset, ipc), said)
    file = out or Path(f"{_last_name(dataset)}-{method}-ipc{ipc}.safetensors")
    if file.is_dir() or not file.parent.is_dir() or file.suffix == ".png":
        raise InputError(
            f"--out {file} is not a file in a folder that exists.", "Name a file, like digits.safetensors."
        )
    order = Order(
        dataset=dataset,
        data_dir=data_dir,
        image_size=parse_image_size(image_size),
        skip_broken=skip_broken,
        recipe=recipe,
        teacher_preset=preset if soft_labels else None,
        device=device,
        precision=precision,
        threads=threads,
        seed=seed,
        out=file,
        resume=resume,
        time_budget=time_budget,
        evaluate_every=evaluate_every or 0,
        checkpoint_every=checkpoint_every,
    )
    try:
        summary = carry_out(order)
    except DivergedError as error:
        if order.checkpoint.exists():
            error.hint += " --resume with --iterations up to what is kept makes a proxy of it."
        raise
    except KeyboardInterrupt:
        if order.checkpoint.exists():
            say_how_to_go_on(file)
        raise
    if as_json:
        print_json(summary)
    else:
        print_words(summary, recipe)


def _last_name(dataset: str) -> str:
    """Of a folder's path, however it is written; a name is its own."""
    from nasproxy.datasets.load import folder_name

    return folder_name(dataset) or "dataset"  # the name of / is empty


def _with_options(method: ProxyMethod, said: dict[str, Any]) -> ProxyMethod:
    """``method`` with the options that the user gave; not every method has every setting."""
    given = {name: value for name, value in said.items() if value is not None}
    for name in given:
        if name not in {field.name for field in fields(method)}:
            raise InputError(f"--{name.replace('_', '-')} is no setting of the method {method.name}.", "Leave it out.")
    if isinstance(method, Condenser) and "network" in given:
        given["network"] = _network(given["network"])
    try:
        changed = replace(method, **given)
    except InputError as error:
        raise _in_options(error, given) from None
    if "image_learning_rate" in given or not isinstance(changed, Condenser):
        return changed
    return changed.suited_to_network()


def _network(word: str) -> str:
    """What the settings call it: there ``space`` alone says nothing, and here nobody has named a space yet."""
    space = f"space:{_D.space}"
    if word == "space":
        return space
    if word not in NETWORKS and not word.startswith("space:"):
        raise InputError(f"No network is called {word!r}.", nearest(word, [*NETWORKS, "space", space]))
    return word


def _in_options(error: InputError, given: Iterable[str]) -> InputError:
    """The same, which begins with the name of a setting, as of the option that gave it."""
    message = error.message
    for name in given:
        message = re.sub(rf"^{name}\b", f"--{name.replace('_', '-')}", message)
    return InputError(message, error.hint)
