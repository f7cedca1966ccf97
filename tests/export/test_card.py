import json
import math
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nasproxy.analysis.explain import agreement_of, explain_calibration
from nasproxy.datasets.image_dataset import Normalisation
from nasproxy.export.card import Latency, Origin, model_card, plain
from nasproxy.export.description import Description, parse_description
from nasproxy.text import wilson

HOSTILE = (
    '"""\n---\nlicense: mit',
    "a|b",
    "# title",
    "<script>",
    "[x](javascript:y)",
    "`code`",
    "naïve\x1b[31m",
    "- x",
)


def _description() -> Description:
    scores = {"proxy_accuracy": 0.5, "whole_accuracy": 0.9, "test_accuracy": 0.875}
    return Description(
        "abc123", HOSTILE[0], {"width": 8, HOSTILE[1]: HOSTILE[3]}, scores, HOSTILE[4], "f" * 32, (8, 12), 1, HOSTILE,
        Normalisation((0.5,), (0.25,)), {"torch": "2"},
    )  # fmt: skip


def _origin(**more: Any) -> Origin:
    entry = {"rank": 2, "id": "abc123", "config": {"width": 8}, "parameters": 1200, "multiply_adds": 3400}
    agreement = {"rho": 0.5, "interval": [-0.2, 0.9], "kendall": 0.4, "n": 9, "reason": None, "level": 0.95}
    summary = {
        "candidates": 720, "evaluated": 700, "top": [entry] * 9, "winner": entry, "agreement": agreement,
        "rungs": [{"epochs": 4, "candidates": 720, "seconds": 1.0}],
    }  # fmt: skip
    run = {
        "settings": {"proxy": "condensed", "repeats": 1, "finalist_epochs": 8, "seed": 0},
        "dataset": {"train": 1000, "validation": 400, "test": 320},
    }
    return Origin(run, summary, entry, **more)


def _card(**more: Any) -> str:
    latency = Latency(1.25, "on a <machine>")
    return model_card(_description(), _origin(**more), library="pytorch", loading="Load it.", latency=latency)


def test_a_finalist_without_rivals_was_not_chosen_by_its_validation_accuracy():
    assert "chosen among 9 finalists" in _card()
    origin = _origin()
    origin = replace(origin, summary={**origin.summary, "top": [origin.entry]})
    assert "the only finalist" in model_card(_description(), origin, library="pytorch", loading="Load it.")


def test_all_classes_are_counted_though_not_all_are_named():
    about = replace(_description(), class_names=tuple(f"class {number}." for number in range(1200)))
    text = model_card(about, _origin(), library="pytorch", loading="Load it.")
    assert "one of 1,200 classes comes out" in text
    assert "class 49. and 1,150 more" in text


def test_a_calibration_is_told_and_what_it_trained_is_counted():
    origin = _origin()
    sample = [{"id": "abc123", "rank": 1}, {"id": "def", "rank": 5}, {"id": "ghi", "rank": 700}]
    found = {**origin.summary["agreement"], "rho": 0.7, "interval": [0.5, 0.85], "ranked": 700, "sample": sample}
    origin = replace(origin, summary={**origin.summary, "calibration": found})
    text = model_card(_description(), origin, library="pytorch", loading="Load it.")
    assert "709 of the candidates were never trained" in text
    trust = text.partition("## How far the ranking can be trusted\n\n")[2].partition("\n\n## Limits")[0].split("\n\n")
    assert trust[0] in _card()
    assert trust[1] == " ".join(explain_calibration(agreement_of(found), 700))
    assert "Over 9 candidates drawn at random from the 700 ranked ones" in trust[1]
    assert len(trust) == 2


def test_names_stay_in_their_place():
    _, front, body = _card().split("\n---\n")[0], _card()[4:].split("\n---\n")[0], _card().split("\n---\n", 1)[1]
    facts = yaml.safe_load(front)
    assert set(facts) == {"library_name", "pipeline_tag", "tags", "model-index"}
    assert facts["model-index"][0]["results"][0]["dataset"]["name"] == HOSTILE[4]
    headings = [line for line in body.splitlines() if line.startswith("#")]
    assert len(headings) == 9
    assert "<script>" not in body
    assert "](javascript" not in body
    assert "\x1b" not in body
    assert all(line.count("|") - line.count("\\|") in (0, 3, 5) for line in body.splitlines() if line.startswith("|"))


def test_it_says_how_good_and_how_sure():
    text = _card()
    low, high = (100 * bound for bound in wilson(0.875, 320))
    assert f"| test | 87.5\N{NO-BREAK SPACE}% | {low:.1f} to {high:.1f}\N{NO-BREAK SPACE}% | 320 |" in text
    for fragment in (
        "1.20 k",
        "3.40 k",
        "1.25 ms",
        "includes 0",
        "711 of the candidates were never trained",
        "flatters",
    ):
        assert fragment in text
    assert "After the search" in _card(further="After the search it was trained.")


@given(st.text(max_size=30))
def test_plain_is_one_line_without_markup(text: str):
    found = plain(text)
    assert "\n" not in found
    assert found.isprintable()
    # Every character that Markdown or HTML could take for its own has a backslash before it.
    bare = found.replace("\\\\", "")
    assert all(bare[i - 1 : i] == "\\" for i, c in enumerate(bare) if c in "`*_{}[]()<>#|~&")


@pytest.mark.parametrize(("fraction", "n"), [(0.0, 5), (1.0, 5), (0.3, 10), (0.875, 320)])
def test_the_interval_is_wilsons(fraction: float, n: int):
    z = 1.959963984540054
    centre = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n))
    assert wilson(fraction, n) == pytest.approx((max(0.0, centre - half), min(1.0, centre + half)), abs=1e-9)


def test_a_description_is_read_back_as_it_was():
    about = _description()
    assert parse_description(about.text(1200)) == about


@pytest.mark.parametrize(
    "change", [{"channels": 2}, {"image_size": [8]}, {"class_names": []}, {"schema": 2}, {"id": 3}]
)
def test_another_description_is_refused(change: dict):
    with pytest.raises(ValueError, match=r"expected|belong"):
        parse_description(json.dumps({**_description().as_json(1), **change}))
