"""Figures of a comparison show its scores: what is drawn is looked up in the figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from synthetic_scores import write_scores
from tiny import tiny_dataset

from nasproxy.compare.cost_figure import _apart, correlation_against_cost
from nasproxy.compare.rank_flow import rank_flow
from nasproxy.compare.report import draw_all, render_comparison, save_all
from nasproxy.compare.scatters import scatters
from nasproxy.compare.scores import ComparisonScores
from nasproxy.compare.side_by_side import load_images, side_by_side
from nasproxy.compare.table import compare_scores
from nasproxy.compare.within_figure import within_figure
from nasproxy.proxies.make import random_proxy
from nasproxy.proxies.proxy_file import save_proxy


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    return write_scores(tmp_path_factory.mktemp("scores"))


@pytest.fixture(scope="module")
def document(scores):
    return {**compare_scores(scores), "run": "here"}


def points(axes):
    drawn = [c.get_offsets() for c in axes.collections if isinstance(c, PathCollection)]
    return sorted(tuple(map(float, point)) for group in drawn for point in group if not np.ma.is_masked(point))


def test_a_panel_for_each_proxy_shows_each_candidate_that_was_trained_once(scores, document):
    figure = scatters(scores, document)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["good", "noisy", "flat"]
    whole = scores.repeats("whole").mean(1)
    for axes, name in zip(panels, ("good", "noisy"), strict=False):
        score = scores.repeats(name).mean(1)
        expected = sorted((x, y) for x, y in zip(score, whole, strict=True) if not np.isnan(y))
        np.testing.assert_allclose([p for p in points(axes) if not np.isnan(p[1])], expected)
    top = panels[0].collections[2].get_offsets()[:, 0]
    assert sorted(top) == pytest.approx(sorted(np.sort(scores.repeats("good").mean(1))[-6:]))


def test_cost_and_correlation_of_each_proxy_with_its_interval(document):
    (axes,) = correlation_against_cost(document).axes
    assert axes.get_xscale() == "log"
    drawn = {bars.get_label(): bars for bars in axes.containers}
    assert set(drawn) == {"good", "noisy"}
    row = document["rows"][0]
    mark, _, (bar,) = drawn["good"]
    # Two proxies of the same cost stand beside each other.
    assert mark.get_xdata()[0] == pytest.approx(120, rel=0.01)
    assert mark.get_ydata()[0] == pytest.approx(row["overall_correlation"])
    np.testing.assert_allclose(bar.get_segments()[0][:, 1], row["overall_interval"])


def test_lines_flow_through_the_ranks_of_the_best(scores, document):
    (axes,) = rank_flow(scores, document).axes
    whole = scores.repeats("whole").mean(1)
    best = np.argsort(-np.nan_to_num(whole, nan=-1), kind="stable")[:10]
    assert len(axes.lines) == 10
    order = sorted(range(30), key=lambda position: -scores.repeats("good").mean(1)[position])
    for number, (line, position) in enumerate(zip(axes.lines, best, strict=True), 1):
        height = line.get_ydata()
        assert height[0] == number
        rank = order.index(position) + 1
        assert height[1] == pytest.approx(rank) if rank <= 20 else 20 < height[1] < 30
    assert [label.get_text() for label in axes.get_xticklabels()] == ["whole data", "good", "noisy"]


def test_the_best_are_named_by_their_choices_apart_from_their_ranks(scores, document):
    drops = {**scores.facts, "choices": {**scores.facts["choices"], "dropout": [0.0, 0.5]}}
    texts = {**scores.columns, "params_dropout": ["0", "0.5"] * 15}
    for named in (scores, ComparisonScores(drops, texts)):
        figure = rank_flow(named, document)
        figure.draw_without_rendering()
        (axes,) = figure.axes
        whole = named.repeats("whole").mean(1)
        best = np.argsort(-np.nan_to_num(whole, nan=-1), kind="stable")[:10]
        boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
        for number, position in enumerate(best, 1):
            text = " ".join(f"{name}={named.choice(name)[position]}" for name in named.facts["choices"])
            assert boxes[text].x0 >= 0
            assert boxes[str(number)].x0 - boxes[text].x1 > 0.1 * figure.dpi
    assert "norm=none depth=1 dropout=0.0" in boxes
    assert figure.texts[0].get_window_extent().x1 < figure.bbox.x1


def test_the_maps_hold_the_figures_of_the_table(document):
    left, right = within_figure(document).axes
    rows = [row for row in document["rows"] if row["within"]]
    for axes, name in ((left, "correlation"), (right, "bias")):
        texts = [text.get_text() for text in axes.texts]
        found = [part[name] for parts in zip(*(row["within"] for row in rows), strict=True) for part in parts]
        assert len(texts) == len(found) == 15
        for text, value in zip(texts, found, strict=True):
            assert (
                text == "\N{EN DASH}"
                if value is None
                else float(text.replace("\N{MINUS SIGN}", "-")) == pytest.approx(value, abs=0.006)
            )
    assert left.get_yticklabels()[1].get_text() == "norm batch (n = 10)"


def test_nothing_trained_nothing_scored_and_strange_names_are_drawn_too(tmp_path):
    scores = write_scores(tmp_path)
    for name in ("whole.0", "whole.1"):
        scores.columns[name] = [""] * 30
    found = compare_scores(scores)
    assert set(draw_all(scores, found, {})) == {"scatters", "cost", "rank_flow", "within"}
    save_all(draw_all(scores, found, {}), tmp_path)


def test_files_are_pixels_and_vectors_and_the_same_every_time(scores, document, tmp_path):
    for folder in ("one", "other"):
        save_all({"cost": correlation_against_cost(document)}, tmp_path / folder)
    files = sorted((tmp_path / "one" / "figures").iterdir())
    assert [file.name for file in files] == ["cost.pdf", "cost.png"]
    assert files[0].read_bytes()[:4] == b"%PDF"
    for file in files:
        assert file.read_bytes() == (tmp_path / "other" / "figures" / file.name).read_bytes()


def test_marks_keep_their_distance_and_their_order():
    seconds = np.array([300.0, 0.2, 301.0, 300.0, 5.0])
    places = _apart(seconds)
    assert places[[1, 4]] == pytest.approx(seconds[[1, 4]])
    gaps = np.diff(np.log(np.sort(places)))
    assert gaps.min() == pytest.approx(0.012 * np.log(301 / 0.2))
    assert places[0] < places[3] < places[2]
    assert np.log(places[[0, 2, 3]]).mean() == pytest.approx(np.log(seconds[[0, 2, 3]]).mean())
    assert _apart(np.array([7.0])) == pytest.approx([7.0])


def test_of_many_proxies_one_map_stands_below_the_other_with_the_same_names(document):
    one = next(row for row in document["rows"] if row["proxy"] == "noisy")
    rows = [{**one, "proxy": f"proxy {number}"} for number in range(9)]
    upper, lower = within_figure({**document, "rows": rows}).axes
    assert upper.get_position().y0 > lower.get_position().y1
    assert [text.get_text() for text in lower.get_yticklabels()] == [t.get_text() for t in upper.get_yticklabels()]
    beside, other = within_figure({**document, "rows": rows[:8]}).axes
    assert beside.get_position().x1 < other.get_position().x0


def test_images_stand_side_by_side_a_block_for_each_proxy(tmp_path):
    dataset = tiny_dataset((9, 8, 7))
    for seed, name in enumerate(("one", "other")):
        (tmp_path / "proxies" / name).mkdir(parents=True)
        save_proxy(random_proxy(dataset, 3, seed=seed), tmp_path / "proxies" / name / "proxy.safetensors")
    (tmp_path / "proxies" / "spoilt").mkdir()
    (tmp_path / "proxies" / "spoilt" / "proxy.safetensors").write_bytes(b"nothing")
    proxies = load_images(tmp_path, ["other", "spoilt", "one", "absent", "../proxies/one"])
    assert list(proxies) == ["other", "one"]
    panels = side_by_side(proxies).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["other", "one"]
    first = panels[0].images[0].get_array()
    pixels = dataset.normalisation.invert(proxies["other"].images[:1])[0, 0]
    corner = torch.from_numpy(np.array(first[:32:4, :32:4, 0]))
    assert torch.equal(corner, pixels)


@pytest.mark.parametrize(("side", "shown"), [(8, 32), (40, 120), (64, 128), (224, 128)])
def test_a_picture_of_large_images_is_no_larger_than_one_of_small_ones(side, shown):
    proxy = random_proxy(tiny_dataset((3, 3), size=(side, side), channels=3), 2, seed=0)
    height, width, _ = side_by_side({"one": proxy}).axes[0].images[0].get_array().shape
    assert width == 2 * (shown + 2)
    assert height == 2 * (max(shown, 24) + 2)


def test_the_report_is_one_page_that_loads_nothing_and_escapes_names(scores, document):
    rows = [{**row, "proxy": "<script>x</script>"} if row["proxy"] == "flat" else row for row in document["rows"]]
    page = render_comparison(scores, {**document, "rows": rows}, {"cost": correlation_against_cost(document)})
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/svg+xml;base64,") == 1
    for text in ("noisy", "DatasetError: no images", "Holm", "bootstrap draws over candidates", "top 5"):
        assert text in page
    assert page.count("<td>batch</td>") == 3
