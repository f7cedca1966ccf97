"""What a person sees while something runs: a live display on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from nasproxy.text import duration

_EVERY = 15.0  # seconds between two plain lines of one stage


class LiveScreen:
    """One line a stage, the finished ones above the one that runs."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._task: TaskID | None = None

    def stage(self, name: str, total: int, *, done: int = 0, work: float | None = None) -> None:
        """Begins a line."""
        self.close()
        size = work if work is not None else float(total - done)
        self._task = self._display.add_task(
            name, total=size, steps=total, done=done, worked=0.0, headline="", waited=0.0, ends=None
        )

    def work_begins(self) -> None:
        """Leaves out of the time left what the line has waited so far."""
        if self._task is not None:
            self._display.update(self._task, waited=self._display.tasks[self._task].elapsed or 0.0)

    def advance(self, headline: str = "", work: float = 1.0) -> None:
        """Moves the bar."""
        if self._task is not None:
            fields = self._display.tasks[self._task].fields
            worked = fields["worked"] + work
            self._display.update(self._task, done=fields["done"] + 1, worked=worked, headline=headline)
            self._move(self._task, worked)

    def within_step(self, work: float) -> None:
        """Moves the bar, and foretells the end, before the step is done."""
        if self._task is not None:
            self._move(self._task, self._display.tasks[self._task].fields["worked"] + work)

    def note(self, text: str) -> None:
        """Prints above the display."""
        self._display.console.print(text, style="yellow", highlight=False, markup=False)

    def close(self) -> None:
        """Ends the line that runs."""
        if self._task is not None:
            task = self._display.tasks[self._task]
            # Predicted sizes need not add up to the last bit.
            if task.fields["done"] >= task.fields["steps"]:
                self._display.update(self._task, completed=task.total)
            self._display.stop_task(self._task)
            self._task = None

    def _move(self, line: TaskID, worked: float) -> None:
        task = self._display.tasks[line]
        ends = _end(task.elapsed or 0.0, task.fields["waited"], worked, task.total or 0.0)
        self._display.update(line, completed=worked, ends=ends)


class PlainScreen:
    """A line when a stage begins and ends, and now and then between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""
        self._steps = self._done = 0
        self._work = self._worked = 0.0
        self._began = self._said = self._waited = 0.0

    def stage(self, name: str, total: int, *, done: int = 0, work: float | None = None) -> None:
        """Says so."""
        self.close()
        self._name, self._steps, self._done = name, total, done
        self._work, self._worked = (work if work is not None else float(total - done)), 0.0
        self._began = self._said = time.monotonic()
        self._waited = 0.0
        before = f", {done} done before" if done else ""
        self._say(f"{name}: {total}{before}")

    def work_begins(self) -> None:
        """Leaves out of the time left what the stage has waited so far."""
        self._waited = time.monotonic() - self._began

    def advance(self, headline: str = "", work: float = 1.0) -> None:
        """Says so every now and then."""
        self._done += 1
        self._worked += work
        now = time.monotonic()
        if self._done < self._steps and now - self._said >= _EVERY:
            self._said = now
            spent = now - self._began
            ends = _end(spent, self._waited, self._worked, self._work)
            left = _left(ends - spent) if ends is not None and ends > spent else ""
            self._say(", ".join(filter(None, (f"{self._name}: {self._done} of {self._steps}", headline, left))))
        if self._done == self._steps:
            self.close()

    def note(self, text: str) -> None:
        """Says so."""
        self._say(text)

    def close(self) -> None:
        """Says how long the stage took."""
        if self._name:
            self._say(f"{self._name}: {self._done} of {self._steps} in {duration(time.monotonic() - self._began)}")
            self._name = ""

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def open_screen() -> Iterator[LiveScreen | PlainScreen]:
    """The screen that fits where stderr goes."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        plain = PlainScreen(console)
        yield plain
        plain.close()
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[done]} of {task.fields[steps]}", justify="right"),
        TextColumn("{task.fields[headline]}", style="cyan"),
        TimeElapsedColumn(),
        TimeLeft(),
    )
    with Progress(*columns, console=console) as display:
        live = LiveScreen(display)
        yield live
        live.close()


class TimeLeft(TextColumn):
    """The time left by the work that was left when the bar last moved, counted down; nothing once it has passed."""

    def __init__(self) -> None:
        super().__init__("", style="dim")

    def render(self, task: Task) -> Text:
        """``about 2 min left``."""
        ends = task.fields["ends"]
        if task.finished or task.stop_time is not None or ends is None or task.elapsed is None or ends <= task.elapsed:
            return Text("")
        return Text(_left(ends - task.elapsed), style="dim")


def _end(spent: float, waited: float, worked: float, work: float) -> float | None:
    """Seconds after which ``work`` is done, where ``worked`` of it is after ``spent``, and none was after ``waited``.

    None where none is yet.
    """
    return waited + (spent - waited) * work / worked if worked > 0 else None


def _left(seconds: float) -> str:
    return f"about {duration(seconds)} left"
