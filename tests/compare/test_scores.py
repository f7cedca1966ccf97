"""The table of scores: read back as it was written, refused where it was changed."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_scores import write_scores

from nasproxy.compare.scores import ComparisonScores, load_scores, save_scores, spell
from nasproxy.errors import InputError, RunError


@pytest.fixture
def scores(tmp_path):
    return write_scores(tmp_path)


def lines_of(folder):
    return (folder / "scores.csv").read_text().splitlines()


def test_what_was_written_is_read(scores, tmp_path):
    for path in (tmp_path, str(tmp_path), tmp_path / "scores.csv"):
        found = load_scores(path)
        assert found.columns == scores.columns
        assert found.facts == json.loads(json.dumps(scores.facts))
        np.testing.assert_array_equal(found.repeats("whole"), scores.repeats("whole"))
    assert len(scores) == 30
    assert scores.repeats("good").shape == (30, 2)
    assert scores.sampled.sum() == 20
    assert np.isnan(scores.repeats("whole")).any()


@given(st.floats(allow_nan=False) | st.integers(-(10**9), 10**9))
def test_numbers_survive_to_the_last_bit(value):
    assert float(spell(value)) == value


def test_spelling_of_other_values():
    assert [spell(value) for value in ("batch", True, None, math.nan, np.float32(0.5))] == [
        "batch",
        "true",
        "null",
        "",
        "0.5",
    ]


def test_a_candidate_is_looked_up_by_its_configuration(scores):
    first = scores.choice("norm").index("batch")
    config = {"norm": "batch", "depth": scores.choice("depth")[first]}
    assert type(config["depth"]) is int
    for name in ("good", "whole", "test"):
        repeats = scores.repeats(name)[first]
        assert [scores.query(config, proxy=name, repeat=repeat) for repeat in (0, 1)] == list(repeats)
        assert scores.query(config, proxy=name) == pytest.approx(np.mean(repeats))
    assert scores.query(config) == scores.query(config, proxy="whole")
    missing = ComparisonScores(scores.facts, {**scores.columns, "whole.1": [""] * 30})
    assert math.isnan(missing.query(config))
    assert missing.query(config, repeat=0) == scores.query(config, repeat=0)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({"norm": "layer", "depth": 1}, {}, "No candidate"),
        ({"norm": "batch"}, {}, "norm, depth; wrong here: depth"),
        ({"norm": "batch", "depth": 2, "width": 3}, {}, "wrong here: width"),
        ({"norm": "batch", "depth": 2}, {"proxy": "goood"}, "Did you mean good"),
        ({"norm": "batch", "depth": 2}, {"proxy": "broken"}, "broken has no scores: DatasetError: no images"),
        ({"norm": "batch", "depth": 2}, {"repeat": 2}, "no repeat 2 of 2"),
        ({"norm": "batch", "depth": 2}, {"repeat": -1}, "no repeat -1"),
    ],
)
def test_what_cannot_be_looked_up_is_said(scores, config, options, message):
    with pytest.raises(InputError, match=message):
        scores.query(config, **options)


def test_the_table_holds_values_of_their_own_types(scores):
    table = scores.table
    assert len(table) == 30
    assert list(table.columns) == [name for name in scores.columns if name != "id"]
    assert table.index.tolist() == scores.columns["id"]
    assert table["params_depth"].tolist() == scores.choice("depth")
    assert table["sampled"].dtype == bool
    np.testing.assert_array_equal(table[["good.0", "good.1"]].to_numpy(), scores.repeats("good"))
    assert table["whole.0"].isna().sum() == np.isnan(scores.repeats("whole")[:, 0]).sum()


def test_a_proxy_may_be_called_as_choices_columns_are(scores, tmp_path):
    columns = [(name.replace("good", "params_good"), "", texts) for name, texts in scores.columns.items()]
    proxies = {name.replace("good", "params_good"): about for name, about in scores.proxies.items()}
    save_scores(tmp_path, {**scores.facts, "proxies": proxies}, columns)
    found = load_scores(tmp_path)
    np.testing.assert_array_equal(found.table["params_good.1"], scores.repeats("good")[:, 1])
    assert found.table["params_depth"].tolist() == scores.choice("depth")


def test_a_missing_column_is_named(scores, tmp_path):
    position = list(scores.columns).index("noisy.1")
    rows = [line.split(",") for line in lines_of(tmp_path)]
    kept = [",".join(cell for place, cell in enumerate(row) if place != position) for row in rows]
    (tmp_path / "scores.csv").write_text("\n".join(kept) + "\n")
    with pytest.raises(RunError, match=r"lacks the column 'noisy\.1'"):
        load_scores(tmp_path)


@pytest.mark.parametrize("column", ["id", "params_depth", "good.0", "whole.1", "sampled"])
def test_a_column_that_was_changed_by_hand_is_named(scores, tmp_path, column):
    position = list(scores.columns).index(column)
    lines = lines_of(tmp_path)
    cells = lines[3].split(",")
    cells[position] = "1" if column == "sampled" and cells[position] == "0" else "0"
    lines[3] = ",".join(cells)
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=f"column '{column}' is not as it was written"):
        load_scores(tmp_path)


def test_a_column_that_nobody_described_is_named(scores, tmp_path):
    lines = lines_of(tmp_path)
    text = "\n".join([lines[0] + ",mine", *(line + ",1" for line in lines[1:])]) + "\n"
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(RunError, match="'mine'"):
        load_scores(tmp_path)


def test_a_description_without_a_column_is_refused_by_its_name(scores, tmp_path):
    facts = json.loads((tmp_path / "scores.json").read_text())
    position = list(scores.columns).index("whole.0")
    del facts["columns"]["whole.0"]
    (tmp_path / "scores.json").write_text(json.dumps(facts))
    rows = [line.split(",") for line in lines_of(tmp_path)]
    kept = [",".join(cell for place, cell in enumerate(row) if place != position) for row in rows]
    (tmp_path / "scores.csv").write_text("\n".join(kept) + "\n")
    with pytest.raises(RunError, match=r"'whole\.0'"):
        load_scores(tmp_path)


def test_rows_and_cells_that_are_missing(scores, tmp_path):
    text = (tmp_path / "scores.csv").read_text()
    (tmp_path / "scores.csv").write_text(text.rsplit("\n", 2)[0] + "\n")
    with pytest.raises(RunError, match="'id' is not as it was written"):
        load_scores(tmp_path)
    (tmp_path / "scores.csv").write_text(text[:-30])
    with pytest.raises(RunError, match="truncated"):
        load_scores(tmp_path)
    (tmp_path / "scores.csv").write_text(text[: text.index("\n", 600)].rsplit(",", 1)[0] + "\n")
    with pytest.raises(RunError, match="fields"):
        load_scores(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "proxies": []}'])
def test_a_description_that_is_none(scores, tmp_path, text):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(RunError, match=r"scores\.json"):
        load_scores(tmp_path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(RunError, match=r"scores\.json.*No such file") as caught:
        load_scores(tmp_path)
    assert str(caught.value).count("cannot be read") == 1


def test_a_value_that_the_description_does_not_list(scores, tmp_path):
    facts = json.loads((tmp_path / "scores.json").read_text())
    facts["choices"]["norm"] = ["none", "layer"]
    (tmp_path / "scores.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match="'batch' among the values of norm"):
        load_scores(tmp_path)
