import io
import os
import pty
import re
import subprocess
import sys

from rich.console import Console
from rich.progress import Progress

from nasproxy.cli.screen import LiveScreen, PlainScreen, TimeLeft


def test_plain_lines_say_what_begins_and_ends(capsys):
    screen = PlainScreen(Console(file=sys.stdout, width=30))
    screen.stage("Ranking, 6 epochs", 3)
    screen.advance("best 50.0%")
    screen.advance("best 50.0%")
    screen.note("a note [bold]as it is[/bold] that is longer than thirty columns")
    screen.advance("best 50.0%")
    screen.note("what follows is not of the stage")
    screen.stage("Finalists", 5, done=3)
    screen.advance()
    screen.advance()
    screen.close()
    screen.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Ranking, 6 epochs: 3"
    assert lines[1] == "a note [bold]as it is[/bold] that is longer than thirty columns"
    assert re.fullmatch(r"Ranking, 6 epochs: 3 of 3 in \d+\.\d s", lines[2])
    assert lines[3] == "what follows is not of the stage"
    assert lines[4] == "Finalists: 5, 3 done before"
    assert re.fullmatch(r"Finalists: 5 of 5 in \d+\.\d s", lines[5])
    assert len(lines) == 6


LIVE = """
from nasproxy.cli.screen import open_screen
with open_screen() as screen:
    screen.note("a note [bold]as it is[/bold]")
    screen.stage("Ranking", 4, done=1, work=7.1)
    for work in (4.0, 2.0, 1.0):
        screen.advance("best 51.0%", work)
    screen.stage("Finalists", 2)
    screen.advance("best 61.0%")
print("result")
"""


def test_a_terminal_gets_a_live_display_on_stderr_alone():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", LIVE], stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:
            pass  # the other end is closed
        assert process.stdout is not None
        assert process.stdout.read() == b"result\n"
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    last = [line for line in text.replace("\r", "\n").splitlines() if line.strip()][-2:]
    assert "a note [bold]as it is[/bold]" in text
    assert "Ranking" in last[0]
    assert "4 of 4" in last[0]
    assert "best 51.0%" in last[0]
    assert "Finalists" in last[1]
    assert "1 of 2" in last[1]


def test_without_a_terminal_nothing_moves():
    done = subprocess.run([sys.executable, "-c", LIVE], capture_output=True, text=True, check=True)
    assert done.stdout == "result\n"
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert "Ranking: 4, 1 done before\n" in done.stderr


def test_the_bar_and_the_time_left_move_within_a_step():
    now = 0.0
    display = Progress(console=Console(file=io.StringIO()), get_time=lambda: now)
    screen, column = LiveScreen(display), TimeLeft()
    screen.stage("Condensing", 8, done=4)
    line = display.tasks[-1]
    screen.within_step(0.0)
    assert column.render(line).plain == ""
    for seconds, part, left in ((10, 0.25, "2 min 30 s"), (30, 0.5, "3 min 30 s")):
        now = seconds
        screen.within_step(part)
        assert (line.completed, line.fields["done"]) == (part, 4)
        assert column.render(line).plain == f"about {left} left"
    now = 40.0
    screen.advance("matching loss 2.00")
    assert (line.completed, line.fields["done"]) == (1.0, 5)
    screen.within_step(0.5)
    assert (line.completed, line.fields["done"]) == (1.5, 5)
    screen.advance("matching loss 1.00")
    assert (line.completed, line.fields["done"]) == (2.0, 6)


def test_waiting_for_workers_is_no_part_of_the_time_left():
    now = 0.0
    display = Progress(console=Console(file=io.StringIO()), get_time=lambda: now)
    screen, column = LiveScreen(display), TimeLeft()
    screen.stage("Ranking", 15)
    now = 30.0
    screen.work_begins()
    now = 32.0
    screen.advance()
    assert column.render(display.tasks[-1]).plain == "about 28 s left"
    screen.stage("Finalists", 2)
    now = 42.0
    screen.advance()
    assert column.render(display.tasks[-1]).plain == "about 10 s left"


def test_plain_lines_leave_waiting_for_workers_out_of_the_time_left_too(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    screen = PlainScreen(Console(file=sys.stdout, width=80))
    screen.stage("Ranking", 15)
    now = 30.0
    screen.work_begins()
    now = 32.0
    screen.advance("best 50.0%")
    screen.stage("Finalists", 2)
    now = 52.0
    screen.advance("best 60.0%")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Ranking: 1 of 15, best 50.0%, about 28 s left"
    assert lines[-1] == "Finalists: 1 of 2, best 60.0%, about 20 s left"


def test_plain_lines_leave_out_what_there_is_not_to_say(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    screen = PlainScreen(Console(file=sys.stdout, width=80))
    screen.stage("Measuring", 3)
    for now in (20.0, 40.0):
        screen.advance("", 1.0 if now < 30 else 2.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["Measuring: 1 of 3, about 40 s left", "Measuring: 2 of 3"]


def test_the_time_left_is_counted_down_and_never_below_nothing():
    now = 0.0
    display = Progress(console=Console(file=io.StringIO()), get_time=lambda: now)
    screen, column = LiveScreen(display), TimeLeft()

    def shown(at: float) -> str:
        nonlocal now
        now = at
        return column.render(display.tasks[-1]).plain

    screen.stage("Finalists", 3, work=6.0)
    assert shown(60) == ""
    screen.advance(work=2.0)
    assert [shown(at) for at in (60, 100, 170, 181)] == [
        "about 2 min 0 s left",
        "about 1 min 20 s left",
        "about 10 s left",
        "",
    ]
    # It took longer than the first: so will the last.
    now = 200
    screen.advance(work=2.0)
    assert shown(200) == "about 1 min 40 s left"
    screen.advance(work=-5.0)
    assert shown(200) == ""
    screen.advance(work=7.0)
    screen.close()
    assert shown(201) == ""
