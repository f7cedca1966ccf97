"""The report: complete, self-contained, and safe with names that are not."""

import base64
import csv
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from synthetic_run import CHOICES, SMALL, make_proxy, make_run, write_json

from nasproxy.analysis.report import write_report
from nasproxy.errors import RunError, WriteError
from nasproxy.text import signed

HOSTILE = '"><script>alert(1)</script><img src=http://example.org/x onerror=alert(2)>'


class Page(HTMLParser):
    """The elements of a page, its text by section, and its tables."""

    VOID = ("meta", "img", "input", "link", "br")

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text, self.tables = [], [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open or "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def report(directory):
    path = write_report(directory)
    assert path == directory / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = make_run(tmp_path_factory.mktemp("report") / "run", choices=CHOICES, top=10, proxy=make_proxy())
    return directory, report(directory)


def test_the_page_loads_nothing(whole):
    _, page = whole
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "url(" not in (whole[0] / "report.html").read_text()


def test_every_link_within_the_page_has_its_target(whole):
    ids = {attributes["id"] for _, attributes in whole[1].elements if "id" in attributes}
    assert {link["href"][1:] for link in whole[1].all("a")} <= ids


def test_the_headline_is_the_winner(whole):
    directory, page = whole
    winner = json.loads((directory / "summary.json").read_text())["winner"]
    assert f"{100 * winner['test_accuracy']:.1f}\N{NO-BREAK SPACE}%" in page.text
    assert "test accuracy on 360 images (95\N{NO-BREAK SPACE}% interval" in page.text
    for name, value in winner["config"].items():
        assert f"{name} {value}" in page.text


def test_the_tables_have_all_candidates_and_mark_the_winner(whole):
    directory, page = whole
    rows = list(csv.DictReader((directory / "results.csv").read_text().splitlines()))
    finalists, candidates = page.tables[0], page.tables[-1]
    assert len(finalists) == 11
    assert [row[-1] for row in candidates[1:]] == [row["id"] for row in rows]
    column = candidates[0].index("proxy accuracy (%)")
    for shown, row in zip(candidates[1:], rows, strict=True):
        expected = f"{100 * float(row['proxy_accuracy']):.2f}" if row["proxy_accuracy"] else "\N{EN DASH}"
        assert shown[column] == expected
    winner = json.loads((directory / "summary.json").read_text())["winner"]["id"]
    html = (directory / "report.html").read_text()
    assert winner in html.split('class="marked"')[1].split("</tr>")[0]


def test_the_page_says_how_far_to_trust_the_ranking_and_what_failed(whole):
    _, page = whole
    for said in ("between the two orders of the 10 finalists", "too narrow", "2 candidates failed", "out of memory"):
        assert said in page.text
    for said in ("the test part was cut from train", "2.60.0", "a processor", "finalist_epochs", "convnet720"):
        assert said in page.text
    assert "Candidates that were cut early" in page.text
    assert "Training on the proxy went in rounds" in page.text


def test_images_and_figures_are_inside(whole):
    sources = [image["src"] for image in whole[1].all("img")]
    assert sum(source.startswith("data:image/png") for source in sources) == 100
    drawings = [base64.b64decode(source.split(",")[1]) for source in sources if "svg" in source[:20]]
    assert len(drawings) == 5
    assert all(b"<svg" in drawing for drawing in drawings)


def test_an_unfinished_run_says_so_and_shows_what_there_is(tmp_path):
    page = report(make_run(tmp_path / "run", finished=False))
    assert "This run is unfinished" in page.text
    assert "between the two orders of the 5 finalists" in page.text
    assert len(page.tables[-1]) == 1 + 16


def test_the_agreement_of_an_unfinished_run_is_of_the_proxys_order(tmp_path):
    directory = make_run(tmp_path / "run", top=10, finished=False)
    table = pd.read_csv(directory / "results.csv", keep_default_na=False, na_values=[""])
    table.loc[table["proxy_epochs"] == 20, "proxy_accuracy"] += 0.3
    table.to_csv(directory / "results.csv", index=False)
    order = table["proxy_epochs"] + table["proxy_accuracy"]
    rho, other = (each.corr(table["whole_accuracy"], method="spearman") for each in (order, table["proxy_accuracy"]))
    assert signed(rho) != signed(other)
    assert f"of the 10 finalists is {signed(rho)}:" in report(directory).text


def test_a_run_that_has_only_started(tmp_path):
    directory = make_run(tmp_path / "run", finished=False)
    path = directory / "results.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    kept = {"id", "parameters", "multiply_adds", *(f"params_{name}" for name in SMALL)}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(
            {name: row[name] if name in kept else "" for name in row} | {"state": "waiting"} for row in rows
        )
    page = report(directory)
    assert "16 candidates: 16 waiting" in page.text
    assert "No finalist has been trained" in page.text


def test_a_run_without_winner_proxy_rungs_or_failures(tmp_path):
    directory = make_run(tmp_path / "run")
    summary = json.loads((directory / "summary.json").read_text())
    write_json(directory / "summary.json", {**summary, "winner": None, "top": [], "rungs": None})
    page = report(directory)
    assert "This run has no winner" in page.text
    assert "The proxy's images" not in page.text
    assert "went in rounds" not in page.text


def test_failures_are_grouped_by_reason(tmp_path):
    directory = make_run(tmp_path / "run", choices={"a": list(range(40)), "b": [1, 2]})
    path = directory / "results.csv"
    rows = list(csv.DictReader(path.read_text().splitlines(keepends=True)))
    for number, row in enumerate(rows):
        row["diverged"] = str(number == 0)
        row["state"] = "failed" if 10 <= number < 30 else "complete"
        row["reason"] = {12: "odd", 40: "on the whole data: odd"}.get(number, "")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = report(directory).text
    for said in (
        "1 candidate diverged",
        "the loss left the finite numbers",
        "19 candidates failed",
        "and 9 more",
        "odd",
    ):
        assert said in text
    assert text.count("1 candidate failed") == 2
    assert f"{rows[12]['id']} (a {rows[12]['params_a']}, b {rows[12]['params_b']})" in text


def test_of_three_hundred_different_reasons_the_page_has_a_hundred(tmp_path):
    directory = make_run(tmp_path / "run", choices={"a": list(range(150)), "b": [1, 2]})
    path = directory / "results.csv"
    rows = list(csv.DictReader(path.read_text().splitlines(keepends=True)))
    for number, row in enumerate(rows):
        row.update(state="failed", diverged="False", reason=f"tried to allocate {max(1, number)} bytes")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = report(directory).text
    assert text.count("tried to allocate") == 100
    assert "199 candidates for 199 more reasons" in text


def test_hostile_names_and_values_stay_text(tmp_path):
    proxy = make_proxy(classes=3, per_class=1, names=[HOSTILE, "\ud800", "手"])
    choices = {HOSTILE: [1, 2], "norm": [HOSTILE, "{{ 7 * 7 }}"], "d": [1, 2, 3]}
    directory = make_run(tmp_path / "run", choices=choices, proxy=proxy, dataset=HOSTILE)
    run = json.loads((directory / "run.json").read_text())
    run["settings"][HOSTILE] = {"a": HOSTILE}
    run["dataset"]["notes"] = [HOSTILE]
    run["machine"]["gpu"] = HOSTILE
    write_json(directory / "run.json", run)
    path = directory / "results.csv"
    path.write_text(path.read_text().replace("RuntimeError", "</pre>" + HOSTILE.replace('"', "'")))
    page = report(directory)
    assert len(page.all("script")) == 1
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7 * 7 }}" in page.text


def test_a_password_in_a_storage_address_is_left_out(tmp_path):
    directory = make_run(tmp_path / "run")
    run = json.loads((directory / "run.json").read_text())
    run["settings"]["storage"] = "postgresql://me:secret@host/db"
    write_json(directory / "run.json", run)
    page = report(directory)
    assert "secret" not in (directory / "report.html").read_text()
    assert "postgresql://host/db" in page.text


def test_large_proxies_and_spaces_are_cut_and_say_so(tmp_path):
    directory = make_run(
        tmp_path / "run",
        choices={"a": list(range(50)), "b": list(range(42))},
        proxy=make_proxy(classes=150, per_class=8),
    )
    page = report(directory)
    assert "Shown: the first 6 of each class." in page.text
    assert sum(image["src"].startswith("data:image/png") for image in page.all("img")) == 900
    assert len(page.tables[-1]) == 2001
    assert "The 2000 best are here, 100 more in results.csv." in page.text


def test_a_report_replaces_the_last_one_whole_or_not_at_all(tmp_path, monkeypatch):
    directory = make_run(tmp_path / "run")
    (directory / "report.html").write_text("old")
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(WriteError, match="No space left"):
        write_report(directory)
    assert (directory / "report.html").read_text() == "old"
    assert not [path for path in directory.iterdir() if path.name.startswith(".")]
    monkeypatch.undo()
    assert re.match("<!doctype html>", write_report(directory).read_text())


def test_no_run_no_report(tmp_path):
    with pytest.raises(RunError):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_first_choice_that_is_as_good_as_the_winner_is_said_to_be(tmp_path):
    run = make_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    first, second, *_ = summary["top"]
    first["whole_accuracy"], summary["winner"] = second["whole_accuracy"], second
    write_json(run / "summary.json", summary)
    assert "was number 2 on the proxy; the proxy's first choice has the same validation accuracy" in report(run).text


def test_a_first_choice_that_could_not_be_trained_is_said_to_be(tmp_path):
    run = make_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    first, second, *_ = summary["top"]
    first["whole_accuracy"], summary["winner"] = None, second
    write_json(run / "summary.json", summary)
    text = report(run).text
    assert "was number 2 on the proxy; the proxy's first choice could not be trained on the whole data." in text
    assert "first choice is also" not in text


@pytest.mark.parametrize(("decided", "shown"), [("siamese:color-crop", "siamese:color-crop"), (None, "none")])
def test_it_says_what_an_automatic_augmentation_came_to(tmp_path, decided, shown):
    directory = make_run(tmp_path / "run")
    run = json.loads((directory / "run.json").read_text())
    run["settings"]["augmentation"] = "auto"
    run["identity"] = {"augmentation": decided}
    write_json(directory / "run.json", run)
    text = report(directory).text
    assert re.search(rf"augmentation\s*{shown}\s", text)
