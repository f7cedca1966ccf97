"""``nasproxy proxy``: look into a proxy file, or turn it into another kind of file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from nasproxy.cli.options import DataDir, ImageSize, Json, parse_image_size
from nasproxy.cli.output import plain_table, print_json, stdout
from nasproxy.errors import InputError, nearest
from nasproxy.text import duration, percent

if TYPE_CHECKING:
    from nasproxy.proxies.proxy_set import ProxySet

_KINDS = (".safetensors", ".parquet", ".png")

app = typer.Typer(no_args_is_help=True, help="Proxy files.")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A proxy file.")],
    png: Annotated[
        Path | None, typer.Option(help="Where to draw the images.", show_default="beside the file, .png")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is in a proxy file, and draw its images."""
    from nasproxy.analysis.canvas import is_figure
    from nasproxy.analysis.proxy_images import save_proxy_grid
    from nasproxy.proxies.proxy_file import load_proxy
    from nasproxy.proxies.soft_labels import softness

    proxy, beside = load_proxy(file), file.with_suffix(".png")
    soft = softness(proxy)
    target = png or beside
    if target.exists() and not (target.resolve() == beside.resolve() and is_figure(target)):
        raise InputError(
            f"{target} would be overwritten, and is not the picture that nasproxy drew beside {file}.",
            "Say by --png where to draw the images, or move it away.",
        )
    drawn = save_proxy_grid(proxy, target)
    height, width = proxy.image_size
    facts = {
        "proxy": str(file),
        "method": proxy.method,
        "images": len(proxy),
        "classes": len(proxy.class_names),
        "soft_labels": soft,
        "image_size": [height, width],
        "channels": int(proxy.images.shape[1]),
        "dataset": proxy.dataset,
        "fingerprint": proxy.fingerprint,
        "recipe": dict(proxy.recipe),
        "loss": proxy.history[-1] if proxy.history else None,
        "evaluations": [list(pair) for pair in proxy.evaluations],
        "finished": proxy.finished,
        "seconds": proxy.seconds,
        "versions": dict(proxy.versions),
        "png": str(drawn),
    }
    if as_json:
        print_json({"schema": 1, **facts})
        return
    table = plain_table("", "")
    for name, text in (facts | _in_words(proxy, soft)).items():
        table.add_row(name.replace("_", " "), escape(str(text)))
    stdout().print(table)


def _in_words(proxy: ProxySet, soft: Mapping[str, float] | None) -> dict[str, str]:
    """Those facts of a proxy that are no single name or count, as a reader meets them."""
    nothing = "\N{EN DASH}"
    entropy = soft and f"entropy {soft['entropy']:.3g} nats, {percent(soft['agreement'])} agree with the class"
    return {
        "soft_labels": entropy or nothing,
        "image_size": "{}×{}".format(*proxy.image_size),
        "recipe": ", ".join(_settings(proxy.recipe)),
        "loss": f"{proxy.history[-1]:.3g}" if proxy.history else nothing,
        "evaluations": ", ".join(f"{step}: {percent(accuracy)}" for step, accuracy in proxy.evaluations) or nothing,
        "finished": "yes" if proxy.finished else "no",
        "seconds": duration(proxy.seconds),
        "versions": ", ".join(f"{library} {version}" for library, version in proxy.versions.items()) or nothing,
    }


def _settings(recipe: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """``name=value`` of all that have one. Defaults are told too: they are those of the version that made the proxy."""
    for name, value in recipe.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{within}{name}.")
        elif value not in (None, "", []):
            yield f"{within}{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


@app.command()
def convert(
    file: Annotated[
        Path, typer.Argument(help="A proxy file, or a .pt file of the code published with the paper (DC, DSA, DM).")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="What to write: .safetensors (a proxy file), .parquet (Hugging Face images of 256 levels, for"
            " others to read), or .png (a picture of all).",
            show_default="a .pt file's proxy file beside it",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="For a .pt file, which does not name it: what its images were condensed from."),
    ] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    experiment: Annotated[
        int | None, typer.Option(help="Which of a .pt file's experiments.", show_default="0, the first")
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(
            help="What a .pt file's images are normalised by: that of the authors' mnist, fashion-mnist, svhn, cifar10,"
            " cifar100 or tiny-imagenet, or own, nasproxy's of the dataset.",
            show_default="by the dataset's name",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Import the authors' .pt files, and export proxies to Parquet or a picture. Nothing in a file is executed."""
    from nasproxy.proxies.proxy_file import LEGACY

    legacy = file.suffix.lower() in LEGACY
    target = out or (file.with_suffix(".safetensors") if legacy else None)
    if target is None:
        raise InputError("Say by --out what to write.", f"Its suffix is one of {', '.join(_KINDS)}.")
    if target.suffix not in _KINDS:
        raise InputError(f"No proxy can be written as {target.suffix!r}.", nearest(target.suffix, _KINDS))
    if target.resolve() == file.resolve():
        raise InputError(f"--out {target} is the file itself.", "Name another.")
    _check_replaceable(target)
    if legacy:
        if dataset is None:
            raise InputError(f"{file} does not say what it was condensed from.", "Name it by --dataset.")
        proxy = _imported(file, dataset, data_dir, parse_image_size(image_size), experiment or 0, normalisation)
    else:
        given = {
            "--dataset": dataset,
            "--data-dir": data_dir,
            "--image-size": image_size,
            "--experiment": experiment,
            "--normalisation": normalisation,
        }
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name} is for .pt files; {file.name} says that itself.", f"Leave out {name}.")
        from nasproxy.proxies.proxy_file import load_proxy

        proxy = load_proxy(file)
    lost = _write(proxy, target)
    if proxy.doubt:
        typer.echo(proxy.doubt, err=True)
    hardened = proxy.soft_labels is not None and target.suffix != ".safetensors"
    facts: dict[str, Any] = {"proxy": str(file), "out": str(target), "images": len(proxy), "dataset": proxy.dataset}
    if as_json:
        lossy = target.suffix != ".safetensors"
        print_json({"schema": 1, **facts, "lossy": lossy, "clipped": lost, "soft_labels_left_out": hardened})
        return
    typer.echo(f"{target}: {len(proxy)} images of {proxy.dataset}")
    if hardened:
        typer.echo(f"A {target.suffix} file holds no soft labels: those of {file} are left out.", err=True)
    if lost is not None:
        typer.echo(
            f"Parquet holds 256 levels a channel: values are rounded, and {percent(lost)} of them, beyond black or"
            " white, were clipped. Rank candidates on the proxy file.",
            err=True,
        )


def _imported(
    file: Path,
    dataset: str,
    data_dir: Path | None,
    image_size: tuple[int, int] | None,
    experiment: int,
    normalisation: str | None,
) -> ProxySet:
    from nasproxy.datasets.load import load_dataset
    from nasproxy.proxies.legacy_file import load_legacy_proxy

    loaded = load_dataset(dataset, data_dir=data_dir, image_size=image_size)
    return load_legacy_proxy(file, loaded, experiment=experiment, normalisation=normalisation)


def _check_replaceable(target: Path) -> None:
    """Makes sure that nothing is overwritten but a file of the same kind that nasproxy wrote."""
    if target.suffix == ".safetensors":
        from nasproxy.proxies.proxy_file import check_replaceable

        check_replaceable(target)
        return
    if target.suffix == ".png":
        from nasproxy.analysis.canvas import is_figure as is_ours
    else:
        from nasproxy.proxies.image_parquet import is_image_parquet as is_ours
    if target.exists() and not is_ours(target):
        raise InputError(
            f"{target} would be overwritten, which nasproxy did not write.", "Choose another --out, or move it away."
        )


def _write(proxy: ProxySet, target: Path) -> float | None:
    """Returns the fraction of values that were clipped, where the format clips and somebody is to read it back."""
    if target.suffix == ".png":
        from nasproxy.analysis.proxy_images import save_proxy_grid

        save_proxy_grid(proxy, target)
        return None
    if target.suffix == ".parquet":
        from nasproxy.proxies.image_parquet import save_image_parquet

        return save_image_parquet(proxy, target)
    from nasproxy.proxies.proxy_file import save_proxy

    save_proxy(proxy, target)
    return None
