"""A run directory read back: what is in it, and what is wrong with it."""

import csv
import json
import math

import pytest
import torch
from synthetic_run import SMALL, make_proxy, make_rows, make_run, write_json

from nasproxy.analysis.results import load_run
from nasproxy.errors import RunError


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    write_json(path, data)


def test_a_whole_run(tmp_path):
    proxy = make_proxy()
    results = load_run(str(make_run(tmp_path / "run", proxy=proxy)))
    assert results.finished
    assert results.run["space"]["choices"] == SMALL
    assert results.summary["winner"]["id"] in set(results.table["id"])
    assert torch.equal(results.proxy.images, proxy.images)


def test_the_table_has_the_values_that_were_written(run):
    table = load_run(run).table
    rows = make_rows(SMALL, top=5)
    assert table["id"].tolist() == [row["id"] for row in rows]
    assert table["rank"].tolist()[:-2] == list(range(1, len(rows) - 1))
    assert table["rank"].isna().tolist()[-2:] == [True, True]
    assert table["whole_accuracy"].notna().sum() == 5
    for written, (_, read) in zip(rows, table.iterrows(), strict=True):
        assert read["params_norm"] == str(written["params_norm"])
        assert read["params_bias"] == str(written["params_bias"])
        assert read["seconds"] == pytest.approx(written["seconds"])
        assert read["diverged"] == written["diverged"]
        assert read["reason"] == written.get("reason", "")


def test_choices_keep_the_order_and_the_names_of_the_space(run):
    table = load_run(run).table
    assert list(table["params_norm"].cat.categories) == ["None", "batch"]
    assert list(table["params_rate"].cat.categories) == ["0.1", "0.01"]


def test_who_is_on_the_pareto_front_is_a_bool(run):
    assert "pareto" not in load_run(run).table
    path = run / "results.csv"
    rows = list(csv.DictReader(path.read_text().splitlines(keepends=True)))
    for number, row in enumerate(rows):
        row["pareto"] = str(number % 3 == 0)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    table = load_run(run).table
    assert table["pareto"].dtype == bool
    assert table.loc[table["pareto"], "id"].tolist() == [row["id"] for row in rows[::3]]


def test_integers_that_a_writer_made_floats_are_recognised(run):
    path = run / "results.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    for row in rows:
        row["params_width"] += ".0"
        row["params_rate"] = f"{float(row['params_rate']):.3f}"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    table = load_run(run).table
    assert set(table["params_width"]) == {"8", "16"}
    assert set(table["params_rate"]) == {"0.1", "0.01"}


def test_numbers_that_are_not_finite_count_as_missing(run):
    edit(run / "summary.json", lambda summary: summary["winner"].update(whole_accuracy=math.nan, parameters=math.inf))
    path = run / "results.csv"
    lines = path.read_text().splitlines(keepends=True)
    place = lines[0].split(",").index("proxy_cross_entropy")
    cells = lines[1].split(",")
    cells[place] = "inf"
    path.write_text("".join([lines[0], ",".join(cells), *lines[2:]]))
    results = load_run(run)
    assert results.summary["winner"]["whole_accuracy"] is None
    assert results.summary["winner"]["parameters"] is None
    assert math.isnan(results.table["proxy_cross_entropy"][0])


def test_an_unfinished_run(tmp_path):
    results = load_run(make_run(tmp_path / "run", finished=False))
    assert not results.finished
    assert results.summary == {}
    assert results.proxy is None


def test_no_directory(tmp_path):
    with pytest.raises(RunError, match="There is no run directory"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["run.json", "results.csv"])
def test_a_missing_file_names_itself_and_the_remedy(run, name):
    (run / name).unlink()
    with pytest.raises(RunError) as caught:
        load_run(run)
    assert name in caught.value.message
    assert f"nasproxy search … --out {run} --resume" in caught.value.hint


def test_a_folder_that_never_was_a_run_is_not_sent_to_resume_one(tmp_path):
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / "cats" / "1.png").touch()
    with pytest.raises(RunError, match=r"photos is not a run directory: it holds no run\.json") as caught:
        load_run(tmp_path / "photos")
    assert (
        caught.value.hint == "Pass the --out directory of a nasproxy search; without --out that is a new one in runs."
    )


def test_of_a_folder_of_runs_these_are_named(tmp_path):
    runs = [make_run(tmp_path / "runs" / name) for name in ("one", "other")]
    with pytest.raises(RunError) as caught:
        load_run(tmp_path / "runs")
    assert caught.value.hint == f"Pass one of the runs in it: {runs[0]}, {runs[1]}."


@pytest.mark.parametrize("name", ["run.json", "summary.json", "results.csv"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file(run, name, share):
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RunError, match=name):
        load_run(run)


def test_a_table_cut_between_rows_is_noticed_against_the_summary(run):
    path = run / "results.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:6]))
    with pytest.raises(RunError, match=r"counts .* evaluated"):
        load_run(run)


def test_a_truncated_proxy(tmp_path):
    run = make_run(tmp_path / "run", proxy=make_proxy())
    path = run / "proxy.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"proxy\.safetensors"):
        load_run(run)


@pytest.mark.parametrize("name", ["run.json", "summary.json", "results.csv"])
@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00\n", b"[]\n", b"[" * 100_000 + b"\n", b'"a","b\n', b"rank,id\n\x00,1\n"]
)
def test_a_foreign_file(run, name, content):
    (run / name).write_bytes(content)
    with pytest.raises(RunError, match=name):
        load_run(run)


def test_another_schema(run):
    edit(run / "summary.json", lambda summary: summary.update(schema=2))
    with pytest.raises(RunError, match="expected schema 1, got 2"):
        load_run(run)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("run.json", lambda run: run["space"].update(choices=[1]), r"document\.space\.choices to be an object"),
        ("run.json", lambda run: run["space"]["choices"].update(width=3), r"choices\.width to be a list"),
        ("run.json", lambda run: run["space"]["choices"].update(width=[{}]), r"width\[0\] to be bool or int"),
        ("run.json", lambda run: run["dataset"].update(class_names=None), "class_names to be a list"),
        ("run.json", lambda run: run.pop("versions"), "versions to be an object"),
        ("summary.json", lambda summary: summary["winner"].update(rank="1"), r"winner\.rank .* '1'"),
        ("summary.json", lambda summary: summary["winner"].update(test_accuracy=True), "got True"),
        ("summary.json", lambda summary: summary["top"].append(3), r"top\[5\] to be an object"),
        ("summary.json", lambda summary: summary["agreement"].update(interval=["a", "b"]), r"interval\[0\]"),
        ("summary.json", lambda summary: summary["seconds"].update(search=[]), r"seconds\.search"),
    ],
)  # fmt: skip
def test_a_member_of_another_shape_is_named(run, name, change, said):
    edit(run / name, change)
    with pytest.raises(RunError, match=said) as caught:
        load_run(run)
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("proxy_accuracy", "accuracy"), "the columns proxy_accuracy"),
        (lambda text: text.replace("params_norm", "params_other"), "columns params_norm"),
        (lambda text: text.replace("whole_seconds", "whole_seconds,params_more", 1), "params_more"),
        (lambda text: text.replace("whole_seconds", "whole_seconds,rank", 1), "columns twice"),
        (lambda text: text + "1,2,3\n", "has 3 fields"),
        (lambda text: text.replace(",batch,", ",botch,"), "norm has the value 'botch'"),
        (lambda text: text.replace("\n1,", "\nfirst,"), "column rank holds something that is not a number"),
        (lambda text: text.replace("\n1,", "\n1.5,"), "column rank"),
    ],
)
def test_a_table_of_another_shape_says_what_is_wrong(run, change, said):
    path = run / "results.csv"
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(RunError, match=said):
        load_run(run)


@pytest.mark.parametrize("sample", [None, 40])
def test_a_comparison_is_said_to_be_one(run, sample):
    (run / "results.csv").unlink()
    edit(run / "run.json", lambda facts: facts.update(identity={"seed": 0, "sample": sample}))
    with pytest.raises(RunError, match="holds a comparison of proxies") as caught:
        load_run(run)
    assert f"nasproxy compare --from {run} --out {run}" in caught.value.hint
    assert "--resume" not in caught.value.hint
