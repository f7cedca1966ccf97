"""The figures of each proxy, against scipy on the same scores; what cannot exist is null, with a reason."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats
from synthetic_scores import write_scores

from nasproxy.analysis.correlation import spearman
from nasproxy.compare.order import finalists, ordering
from nasproxy.compare.table import compare_scores
from nasproxy.compare.words import sentences
from nasproxy.compare.write import table_cells, write_tables
from nasproxy.search.study import Measurement, mean_score
from nasproxy.training.train import Score


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    return write_scores(tmp_path_factory.mktemp("scores"))


@pytest.fixture(scope="module")
def document(scores):
    return {**compare_scores(scores), "run": "here"}


def records(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def row_of(document, name):
    return next(row for row in document["rows"] if row["proxy"] == name)


@pytest.mark.parametrize("name", ["good", "noisy"])
def test_a_row_is_scipys_of_the_means_of_repeats(scores, document, name):
    proxy, whole, test = (scores.repeats(part).mean(1) for part in (name, "whole", "test"))
    row = row_of(document, name)
    best = np.argsort(-proxy)[:6]
    assert row["correlation"] == pytest.approx(stats.spearmanr(proxy[best], whole[best]).statistic)
    assert row["kendall"] == pytest.approx(stats.kendalltau(proxy[best], whole[best]).statistic)
    assert row["correlation_n"] == 6
    assert row["overall_correlation"] == pytest.approx(stats.spearmanr(proxy[:20], whole[:20]).statistic)
    assert row["overall_n"] == 20
    assert row["overall_interval"] == list(
        spearman(scores.repeats(name)[:20], scores.repeats("whole")[:20], resamples=5000).interval
    )
    assert row["performance"] == pytest.approx(test[best[0]])
    assert row["regret"] == pytest.approx(np.nanmax(whole) - whole[best[0]])
    hits = {*np.argsort(-proxy[:20])[:6]} & {*np.argsort(-whole[:20])[:6]}
    assert row["precision"] == pytest.approx(len(hits) / 6)
    assert row["winners"] == [scores.columns["id"][best[0]]]
    assert (row["minutes"], row["making_minutes"], row["storage_images"]) == (1.5, 0.5, 100)
    assert row["reason"] is None
    five = np.argsort(-proxy)[:5]
    assert [part["k"] for part in row["tops"]] == [2, 5, 6, 10]
    assert row["tops"][1]["correlation"] == pytest.approx(stats.spearmanr(proxy[five], whole[five]).statistic)


def test_repeats_have_deviations_and_correlations_of_their_own(scores, document):
    proxy, whole, test = (scores.repeats(part) for part in ("noisy", "whole", "test"))
    row, best = row_of(document, "noisy"), np.argsort(-proxy.mean(1))[:6]
    assert row["performance_deviation"] == pytest.approx(np.std(test[best[0]], ddof=1))
    for rows, names in (
        (best, ("single_correlation", "single_deviation")),
        (np.arange(20), ("overall_single", "overall_single_deviation")),
    ):
        rhos = [stats.spearmanr(proxy[rows, repeat], whole[rows, repeat]).statistic for repeat in (0, 1)]
        assert [row[name] for name in names] == pytest.approx([np.mean(rhos), np.std(rhos, ddof=1)])
    assert row_of(document, "flat")["overall_single"] is None
    cell = table_cells(document)[1][1][1]
    assert cell == f"{100 * row['performance']:.1f} ± {100 * row['performance_deviation']:.1f}\xa0%"


def test_each_value_of_each_choice_is_looked_at(scores, document):
    proxy, whole = (scores.repeats(part).mean(1)[:20] for part in ("noisy", "whole"))
    parts = row_of(document, "noisy")["within"]
    assert [(part["choice"], part["value"], part["n"]) for part in parts] == [
        ("norm", "none", 10), ("norm", "batch", 10), ("depth", 1, 7), ("depth", 2, 7), ("depth", 3, 6),
    ]  # fmt: skip
    assert parts[1]["correlation"] == pytest.approx(stats.spearmanr(proxy[1::2], whole[1::2]).statistic)
    ranks = stats.rankdata(proxy) - stats.rankdata(whole)
    assert parts[1]["bias"] == pytest.approx(ranks[1::2].mean() / 19)


def test_a_flat_proxy_has_chance_and_no_correlation(document):
    row = row_of(document, "flat")
    assert (row["correlation"], row["overall_correlation"], row["overall_interval"], row["kendall"]) == (None,) * 4
    assert row["precision"] == pytest.approx(6 / 20)
    assert "equal" in row["reason"]
    assert row["performance"] is not None


def test_figures_of_a_first_place_that_is_shared_are_said_to_be_means(document):
    winners = row_of(document, "flat")["winners"]
    assert len(winners) > 1
    said = f"regret are means over those that were trained on the whole data: flat ({len(winners)}). Precision@6"
    assert any(said in paragraph for paragraph in document["text"])
    rows = [row for row in document["rows"] if row["proxy"] != "flat"]
    assert not any("first together" in paragraph for paragraph in sentences({**document, "rows": rows}))


def test_a_proxy_that_could_not_be_made_is_a_row_that_says_why(document):
    row = row_of(document, "broken")
    assert row["reason"] == "DatasetError: no images"
    assert all(value is None for name, value in row.items() if name not in ("proxy", "reason"))
    assert not any("broken" in (d["first"], d["second"]) for d in document["differences"])


def test_the_difference_that_is_no_noise_is_spelt_out(document):
    (found,) = [d for d in document["differences"] if {d["first"], d["second"]} == {"good", "noisy"}]
    assert found["told_apart"]
    assert "good above noisy by" in document["text"][-1]
    assert "flat" not in document["text"][-1]
    assert "0.45 on 6 candidates, 0.23 on 20" in document["text"][-2]
    assert "mean of 2 trainings; not the draw" in document["text"][-2]
    assert "corrected for 1 pair by Holm's" in document["text"][-1]


def test_of_many_differences_it_is_said_who_is_above_whom(document):
    (one,) = [d for d in document["differences"] if {d["first"], d["second"]} == {"good", "noisy"}]
    pairs = [("a", "b", 0.5), ("b", "c", 0.4), ("a", "c", 0.9), ("d", "a", -0.3), ("d", "b", 0.1), ("d", "c", 0.6)]
    differences = [{**one, "first": f, "second": s, "difference": d} for f, s, d in pairs]
    rhos = {"c": -0.4, "e": None, "d": 0.1, "a": 0.5, "b": 0.0}
    rows = [{**document["rows"][0], "proxy": name, "overall_correlation": rho} for name, rho in rhos.items()]
    few = sentences({**document, "rows": rows, "differences": differences})[-1]
    assert "a above c by 0.90" in few
    assert "a above d by 0.30" in few
    many = sentences({**document, "rows": rows, "differences": [*differences, {**one, "first": "a", "second": "f"}]})[
        -1
    ]
    assert "7 pairs differ by more than noise: a above b, c, d, f; d above b, c; b above c. By how much" in many


def test_the_document_is_json_and_the_same_every_time(scores, document):
    text = json.dumps(document, allow_nan=False)
    assert {**compare_scores(scores), "run": "here"} == json.loads(text)


def test_files_hold_the_same_figures(document, tmp_path):
    write_tables(tmp_path, document)
    assert json.loads((tmp_path / "comparison.json").read_text()) == document
    rows = records(tmp_path / "comparison.csv")
    assert [row["proxy"] for row in rows] == ["good", "noisy", "flat", "broken"]
    assert float(rows[0]["overall_interval_low"]) == row_of(document, "good")["overall_interval"][0]
    assert rows[3]["overall_interval_low"] == rows[3]["correlation"] == ""
    head, cells = table_cells(document)
    markdown = (tmp_path / "comparison.md").read_text().splitlines()
    assert markdown[2].strip("| ").split(" | ") == cells[0]
    latex = (tmp_path / "comparison.tex").read_text()
    assert latex.count(" & ") == (len(head) - 1) * 5
    assert "%" not in latex.replace(r"\%", "").partition("\n")[2]
    assert "\N{GREEK SMALL LETTER RHO}" not in latex
    tops = records(tmp_path / "tops.csv")
    assert [(row["proxy"], row["k"]) for row in tops[:4]] == [
        ("good", "2"),
        ("good", "5"),
        ("good", "6"),
        ("good", "10"),
    ]
    assert (tops[3]["correlation"], tops[3]["reason"]) == (
        "",
        "of each proxy only the top 6 were trained on the whole data",
    )
    within = records(tmp_path / "within.csv")
    assert len(within) == 3 * 5


def test_cells_of_what_is_missing_are_dashes(document):
    _, cells = table_cells(document)
    assert cells[3] == ["broken", *["\N{EN DASH}"] * 8]
    assert cells[0][7] == "1.5 (+0.5)"


def test_one_repeat_and_nothing_else_to_say(tmp_path):
    found = compare_scores(write_scores(tmp_path, repeats=1))
    assert "noise of each score's one training" in found["text"][-2]
    assert "single" not in " ".join(found["text"])
    row = row_of(found, "good")
    assert [row[name] for name in row if "single" in name or "deviation" in name] == [None] * 5


def test_order_is_by_the_mean_then_by_what_breaks_ties():
    scores = [[0.5, 0.7], [0.7, 0.5], [0.9, 0.9], [0.1, np.nan], [0.6, 0.6]]
    assert list(ordering(scores, [1.0, 0.5, 3.0, np.nan, 1.0])) == pytest.approx([0, 1, 2, np.nan, 0], nan_ok=True)
    assert np.isnan(ordering([[np.nan]], [np.nan])).all()


def test_who_diverged_in_a_repeat_comes_last_as_in_a_search():
    scores, ties = [[0.9, 0.9], [0.0, 0.8], [0.3, 0.2], [0.0, 0.0], [0.0, np.nan]], [0.1, np.inf, 2.0, np.inf, np.nan]
    assert list(ordering(scores, ties)) == pytest.approx([2, 0, 1, 0, np.nan], nan_ok=True)
    by_search = [
        mean_score([Measurement((Score(1, accuracy, tie if accuracy else np.inf),), 1.0) for accuracy in row])
        for row, tie in zip(scores[:4], ties[:4], strict=True)
    ]
    assert np.argsort([(score.accuracy, -score.cross_entropy) for score in by_search], axis=0)[-2:, 0].tolist() == [
        2,
        0,
    ]


def test_correlations_are_of_the_order_in_which_who_diverged_comes_last(tmp_path):
    scores = write_scores(tmp_path)
    proxy, whole = scores.repeats("good"), scores.repeats("whole").mean(1)
    first = int(np.argmax(proxy[:20].mean(1)))
    scores.columns["good.1"][first], scores.columns["good.ties"][first] = "0", "inf"
    ranked = scores.repeats("good").mean(1)
    assert ranked[first] > np.sort(ranked)[5]
    ranked[first] = -1
    row = row_of(compare_scores(scores), "good")
    assert row["overall_correlation"] == pytest.approx(stats.spearmanr(ranked[:20], whole[:20]).statistic)
    batch = [part for part in row["within"] if part["n"] == 10][first % 2]
    assert batch["correlation"] == pytest.approx(
        stats.spearmanr(ranked[first % 2 : 20 : 2], whole[first % 2 : 20 : 2]).statistic
    )
    assert scores.columns["id"][first] not in row["winners"]


def test_the_ground_truth_agrees_with_itself_whoever_diverged(tmp_path):
    scores = write_scores(tmp_path)
    scores.columns["whole.1"][3] = "0"
    scores.columns["whole.ties"] = ["inf" if position == 3 else "0.5" for position in range(30)]
    scores.facts["proxies"]["whole"] = scores.proxies["good"]
    assert row_of(compare_scores(scores), "whole")["overall_correlation"] == 1


def test_of_the_tied_no_more_are_trained_than_make_two_k():
    order = np.array([5.0, 4.0, *[1.0] * 30, np.nan])
    chosen = finalists(order, 4, seed=0)
    assert list(chosen[:2]) == [0, 1]
    assert len(set(chosen)) == 8
    assert list(chosen) == list(finalists(order, 4, seed=0))
    assert list(chosen) != list(finalists(order, 4, seed=1))
    assert sorted(finalists(np.array([3.0, 1.0, 1.0, 2.0]), 3, seed=0)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("count", "top_k", "ks"), [(200, 10, [5, 10]), (300, 20, [5, 10, 15, 20]), (100, 4, [4])])
def test_figures_are_of_the_top_5_and_10_and_a_twentieth_where_as_many_were_trained(tmp_path, count, top_k, ks):
    found = compare_scores(write_scores(tmp_path, count=count, repeats=1, top_k=top_k))
    row = row_of(found, "good")
    assert [part["k"] for part in row["tops"] if part["correlation"] is not None] == ks
    assert {5, 10, count // 20} <= {part["k"] for part in row["tops"]}
    for part in row["tops"]:
        assert (part["interval"] is None) == (part["reason"] is not None)
    headline = next(part for part in row["tops"] if part["k"] == min(10, top_k))
    assert (row["correlation"], row["correlation_interval"]) == (headline["correlation"], headline["interval"])
    assert row["correlation_n"] == min(10, top_k)
    text = " ".join(found["text"])
    assert ("take --top-k" in text) == (top_k == 4)
