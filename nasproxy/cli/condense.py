"""``nasproxy condense``: make a condensed set, and nothing else."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nasproxy.analysis.text import duration
from nasproxy.cli.options import (
    RUN,
    DataDir,
    Dataset,
    Device,
    ImageSize,
    Json,
    Precision,
    SkipBroken,
    parse_image_size,
)
from nasproxy.cli.output import print_json
from nasproxy.cli.screen import open_screen
from nasproxy.errors import InputError, nearest
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
            rich_help_panel=METHOD,
        ),
    ] = "dc",
    ipc: Annotated[int, typer.Option(help="Synthetic images per class.", rich_help_panel=METHOD)] = _D.ipc,
    preset: Annotated[
        str, typer.Option(help="quick (a minute on two cores at 16×16) or paper.", rich_help_panel=METHOD)
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
            help="convnet, space (each iteration draws one of convnet720), or space:S, S as in search --space.",
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
        float | None, typer.Option(help="η_S, of the images.", rich_help_panel=METHOD)
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
            help="Real images computed at a time; bounds memory.",
            show_default="16 of 32×32 pixels on a CPU, all on a GPU",
            metavar="N",
            rich_help_panel=RUN,
        ),
    ] = None,
    device: Device = _D.device,
    precision: Precision = _D.precision,
    seed: Annotated[int, typer.Option(help="Of images, networks and batches.", rich_help_panel=RUN)] = _D.seed,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The proxy file to write.", show_default="<dataset>-<method>-ipc<N>.safetensors", rich_help_panel=RUN
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Condense a dataset into a few synthetic images per class."""
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
        # Here nobody has named a space yet.
        "network": f"space:{_D.space}" if network == "space" else network,
        "max_multiply_adds": max_multiply_adds,
        "augmentation": augmentation,
        "distance": distance,
        "chunk": chunk,
    }
    check_seed(seed)
    if ipc < 1:
        raise InputError(f"--ipc must be 1 or more, got {ipc}.")
    recipe = _with_options(find_method(method).preset(preset, ipc), said)
    file = out or Path(f"{Path(dataset).name}-{method}-ipc{ipc}.safetensors")
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(
            f"--out {file} is not a file in a folder that exists.", "Name a file, like digits.safetensors."
        )
    _condense(
        dataset, data_dir, parse_image_size(image_size), skip_broken, recipe, device, precision, seed, file, as_json
    )


def _with_options(method: ProxyMethod, said: dict[str, Any]) -> ProxyMethod:
    """``method`` with the options that the user gave; not every method has every setting."""
    given = {name: value for name, value in said.items() if value is not None}
    for name in given:
        if name not in {field.name for field in fields(method)}:
            raise InputError(f"--{name.replace('_', '-')} is no setting of the method {method.name}.", "Leave it out.")
    return replace(method, **given)


def _condense(
    dataset: str,
    data_dir: Path | None,
    image_size: tuple[int, int] | None,
    skip_broken: bool,
    recipe: ProxyMethod,
    device: str,
    precision: str,
    seed: int,
    file: Path,
    as_json: bool,
) -> None:
    from nasproxy.datasets.load import load_dataset
    from nasproxy.proxies.make import make_proxy
    from nasproxy.proxies.proxy_file import save_proxy
    from nasproxy.search.devices import resolve_device
    from nasproxy.training.precision import resolve_precision
    from nasproxy.training.process import peak_memory_bytes, prepare_process
    from nasproxy.versions import usable_cores

    where = resolve_device(device)
    loaded = load_dataset(dataset, data_dir=data_dir, image_size=image_size, skip_broken=skip_broken)
    prepare_process(usable_cores())
    began = time.perf_counter()
    with open_screen() as screen:
        for note in loaded.notes:
            screen.note(note)
        screen.stage(recipe.verb, recipe.steps)
        proxy = make_proxy(
            loaded,
            recipe,
            seed=seed,
            device=where,
            precision=resolve_precision(precision, where),
            on_iteration=lambda _, loss: screen.advance(f"{recipe.loss_name} {loss:.2f}"),
        )
    save_proxy(proxy, file)
    cached = time.perf_counter() - began < proxy.seconds / 2
    summary = {
        "schema": 1,
        "proxy": str(file),
        "dataset": loaded.name,
        "method": proxy.method,
        "ipc": recipe.ipc,
        "iterations": len(proxy.history),
        "loss": proxy.history[-1],
        "seconds": proxy.seconds,
        "seconds_per_iteration": proxy.seconds / len(proxy.history),
        "peak_memory_bytes": peak_memory_bytes(where),
        "cached": cached,
    }
    if as_json:
        print_json(summary)
        return
    origin = "from the cache, made in" if cached else "in"
    made = f"{origin} {duration(proxy.seconds)}, {recipe.loss_name} {proxy.history[-1]:.2f}"
    typer.echo(f"{file}: {len(proxy)} images of {loaded.name}, {made}")
