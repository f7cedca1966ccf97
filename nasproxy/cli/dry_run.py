"""``nasproxy search --dry-run``: what the search would do, and how long it would take."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from nasproxy.cli.output import print_json, stdout
from nasproxy.cli.screen import open_screen
from nasproxy.search.settings import SearchSettings
from nasproxy.text import counted, duration


def estimate(settings: SearchSettings, *, resume: bool, as_json: bool) -> int:
    """Prints what ``settings`` ask for and what that takes; returns the exit code."""
    from nasproxy.search.dry_run import dry_run

    with open_screen() as screen:
        found = dry_run(settings, resume=resume, progress=screen)
    if as_json:
        print_json(found)
    else:
        _print(found)
    return 1 if found["failed"] else 0


def _print(found: dict[str, Any]) -> None:
    console = stdout()
    space, proxy = escape(found["space"]), escape(found["proxy"])
    console.print(f"{counted(found['candidates'], 'candidate')} of {space} on {proxy} images:")
    for rung in found["rungs"]:
        done = f", {rung['done']} done" if rung["done"] else ""
        judged = " and ".join(map(str, rung.get("judged_after", ())))
        cut = f" at most, each stopped or not after epoch {judged}" if judged else ""
        console.print(f"  {rung['candidates']} × {counted(rung['epochs'], 'epoch')}{cut}{done}")
    if "calibration" in found:
        console.print(f"  {counted(found['calibration']['candidates'], 'random candidate')} on the whole data")
    finalists = found["finalists"]
    done = f", {finalists['done']} done" if finalists["done"] else ""
    console.print(f"  {counted(finalists['candidates'], 'finalist')} on the whole data{done}")
    times = ", ".join(
        f"{name} {'not known' if seconds is None else duration(seconds)}" for name, seconds in found["seconds"].items()
    )
    memory = found["memory_bytes"]
    console.print(f"About {times}; memory {'not known' if memory is None else f'about {memory / 2**30:.1f} GiB'}.")
    if found["failed"]:
        first = found["failed"][0]
        console.print(
            f"[bold red]{len(found['failed'])} of {counted(found['timed'], 'training')} that were timed failed[/] and"
            f" are left out of these figures, the first, {first['id']}: {escape(first['reason'])}"
        )
    if found["time_budget"] is not None:
        ends = {True: "suffices for", False: "ends before the end of", None: "may end before the end of"}
        console.print(
            f"The time budget of {duration(60 * found['time_budget'])} {ends[found['budget_suffices']]} condensing and"
            " ranking; finalists come after it."
        )
    console.print(
        f"From trainings timed on this machine, for {found['workers']} at a time; survivors of a cut are taken to be of"
        " average size. Starting, figures and the report come on top. Nothing was written.",
        style="dim",
    )
