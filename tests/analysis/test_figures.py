"""The figures: what they show, read back from matplotlib's objects and from the pixels."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from synthetic_run import CHOICES, make_proxy, make_run

from nasproxy.analysis import figures
from nasproxy.analysis.canvas import render, save_figure
from nasproxy.analysis.correlation import RankAgreement, spearman
from nasproxy.analysis.proxy_images import class_tiles, proxy_grid, save_proxy_grid
from nasproxy.analysis.results import load_run
from nasproxy.errors import InputError, WriteError

HOSTILE = ["$\\frac$", "<script>alert(1)</script>", "a\x00b\n\u202ec", "x" * 300, "手写数字", "\ud800"]


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(render(figure, "png"))).convert("RGB"))


def only(table, choice):
    others = [name for name in table.columns if name.startswith("params_") and name != f"params_{choice}"]
    return table.drop(columns=others)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return load_run(make_run(tmp_path_factory.mktemp("big") / "run", choices=CHOICES, top=10)).table


def test_tiles_are_the_pixels_of_the_class_in_order():
    proxy = make_proxy(classes=3, per_class=2, channels=3)
    expected = proxy.normalisation.invert(proxy.images)[2:4].permute(0, 2, 3, 1)
    assert np.array_equal(class_tiles(proxy, 1), expected.numpy())


def test_large_tiles_are_averaged_down():
    proxy = make_proxy(classes=1, per_class=1, size=(32, 16))
    tile = class_tiles(proxy, 0, largest=8)
    expected = proxy.normalisation.invert(proxy.images).float().reshape(8, 4, 4, 4).mean((1, 3)).round()
    assert tile.shape == (1, 8, 4, 3)
    assert np.array_equal(tile[0, :, :, 0], expected.numpy())


def test_the_grid_shows_every_pixel_as_a_square():
    proxy = make_proxy(classes=2, per_class=3)
    shown = pixels(proxy_grid(proxy))
    for label in (0, 1):
        for tile in class_tiles(proxy, label):
            large = tile.repeat(4, axis=0).repeat(4, axis=1)
            windows = np.lib.stride_tricks.sliding_window_view(shown[:, :, 0], large.shape[:2])
            corner = windows[:, :, 0, 0] == large[0, 0, 0]
            assert any(np.array_equal(windows[y, x], large[:, :, 0]) for y, x in np.argwhere(corner))


@pytest.mark.parametrize(
    ("classes", "per_class", "channels", "size"),
    [(1, 1, 1, (1, 1)), (100, 50, 1, (20, 20)), (10, 50, 1, (28, 28)), (3, 2, 3, (224, 160)), (2, 1, 1, (8, 64))],
)
def test_grids_of_all_sizes_stay_usable(classes, per_class, channels, size):
    shown = pixels(proxy_grid(make_proxy(classes=classes, per_class=per_class, channels=channels, size=size)))
    assert 40 < shown.shape[0] < 5200
    assert 40 < shown.shape[1] < 2900


def test_a_class_with_fewer_images_leaves_white():
    proxy = make_proxy(classes=2, per_class=4)
    fewer = torch.arange(8) < 5
    proxy = type(proxy)(**{**vars(proxy), "images": proxy.images[fewer], "labels": proxy.labels[fewer]})
    shown = pixels(proxy_grid(proxy))
    assert (shown[-30:, -150:] == 255).all()
    assert (shown[45:75, -60:-10] < 255).any()


def test_hostile_names_in_every_figure_and_format(tmp_path, table):
    proxy = make_proxy(classes=6, per_class=1, names=HOSTILE)
    renamed = table.rename(columns={"params_norm": "params_" + HOSTILE[0]}).copy()
    renamed["params_depth"] = renamed["params_depth"].cat.rename_categories(HOSTILE[:4])
    drawn = {
        "grid": proxy_grid(proxy),
        "ranking": figures.ranking(only(renamed, "depth")),
        "marginals": figures.marginal_effects(renamed),
        "times": figures.stage_times(dict.fromkeys(HOSTILE, 1.0)),
    }
    for name, figure in drawn.items():
        for suffix in ("png", "svg", "pdf"):
            path = save_figure(figure, tmp_path / f"{name}.{suffix}")
            assert path.stat().st_size > 1000
    assert "<script" not in (tmp_path / "marginals.svg").read_text()


def test_saving_by_suffix(tmp_path):
    proxy = make_proxy(classes=2, per_class=1)
    assert save_proxy_grid(proxy, tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    assert save_proxy_grid(proxy, tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in save_proxy_grid(proxy, tmp_path / "a.svg").read_bytes()
    with pytest.raises(InputError, match="Available: png, svg, pdf"):
        save_proxy_grid(proxy, tmp_path / "a.gif")
    with pytest.raises(WriteError):
        save_proxy_grid(proxy, tmp_path / "nowhere" / "a.png")


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_equal_runs_make_equal_files(table, suffix):
    first, second = (render(figures.marginal_effects(table.head(60)), suffix) for _ in range(2))
    assert first == second


def test_the_scatter_shows_the_finalists_and_names_their_ranks(table):
    finalists = table.dropna(subset=["whole_accuracy"])
    agreement = spearman(finalists["proxy_accuracy"], finalists["whole_accuracy"], resamples=200)
    figure = figures.proxy_against_whole(table, agreement)
    axes = figure.axes[0]
    points = np.concatenate([np.asarray(part.get_offsets()) for part in axes.collections])
    expected = finalists[["proxy_accuracy", "whole_accuracy"]].to_numpy(float)
    assert sorted(points.tolist()) == sorted(expected.tolist())
    ranks = {text.get_text(): text.xy for text in axes.texts}
    for row in finalists.to_dict("records"):
        assert ranks[str(row["rank"])] == pytest.approx((row["proxy_accuracy"], row["whole_accuracy"]))
    assert "10 finalists" in figure.get_suptitle()
    assert "95\N{NO-BREAK SPACE}% interval" in figure.get_suptitle()


def test_labels_of_equal_points_lie_apart(table):
    equal = table.head(4).copy()
    equal[["proxy_accuracy", "whole_accuracy"]] = 0.9
    figure = figures.proxy_against_whole(equal, spearman(equal["proxy_accuracy"], equal["whole_accuracy"]))
    places = {text.xyann for text in figure.axes[0].texts}
    assert len(places) == 4
    assert figure.get_suptitle() == "4 finalists, no rank correlation"


def test_a_rho_without_interval_is_shown_alone(table):
    figure = figures.proxy_against_whole(table, RankAgreement(-0.25, None, -0.2, 3, "a reason"))
    assert figure.get_suptitle() == "3 finalists: \N{GREEK SMALL LETTER RHO} = \N{MINUS SIGN}0.25"


def test_stage_times_show_what_no_stage_accounts_for():
    axes = figures.stage_times({"condense": 60, "search": 120.0, "finalists": None, "total": 240}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [1, 2, 1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["condense", "search", "other"]
    assert "(minutes)" in axes.get_xlabel()
    assert axes.texts[1].get_text() == "2 min 0 s (50\N{NO-BREAK SPACE}%)"


@pytest.mark.parametrize(("total", "unit"), [(50, "seconds"), (7000, "minutes"), (9000, "hours")])
def test_stage_times_choose_their_unit(total, unit):
    assert unit in figures.stage_times({"search": float(total)}).axes[0].get_xlabel()


def test_explained_variance_is_adjusted_r_squared(table):
    # F = (eta2 / (k - 1)) / ((1 - eta2) / (n - k)), and scipy has F.
    scored = table.dropna(subset=["proxy_accuracy"])
    groups = [group["proxy_accuracy"].to_numpy() for _, group in scored.groupby("params_depth", observed=True)]
    f, k, n = stats.f_oneway(*groups).statistic, len(groups), len(scored)
    unadjusted = f * (k - 1) / (f * (k - 1) + n - k)
    adjusted = 1 - (1 - unadjusted) * (n - 1) / (n - k)
    assert figures.explained_variance(table, "depth") == pytest.approx(adjusted)
    assert figures.explained_variance(table.assign(proxy_accuracy=0.5), "depth") == 0


def test_of_few_candidates_no_choice_explains_anything_by_chance(table):
    rng, shares = np.random.default_rng(0), []
    for _ in range(200):
        few = table.dropna(subset=["proxy_accuracy"]).sample(10, random_state=rng)
        few["proxy_accuracy"] = rng.random(10)
        shares.append(figures.explained_variance(few, "norm"))
    assert np.median([share for share in shares if share is not None]) < 0.1
    one_each = table.dropna(subset=["proxy_accuracy"]).drop_duplicates("params_norm")
    assert figures.explained_variance(one_each, "norm") is None
    titles = [axes.get_title("left") for axes in figures.marginal_effects(one_each).axes]
    assert titles[2] == "norm"


def test_the_ranking_takes_the_choice_that_explains_most(table):
    names = [name.removeprefix("params_") for name in table.columns if name.startswith("params_")]
    best = max(names, key=lambda name: figures.explained_variance(table, name))
    assert f"718 candidates by {best}; trained for 40, 20 or 10 epochs" == figures.ranking(table).get_suptitle()
    above, below = figures.ranking(only(table, "pooling")).axes
    assert [label.get_text() for label in below.get_yticklabels()] == ["none", "max", "average"]
    ranks = np.sort(np.concatenate([part.get_offsets()[:, 0] for part in above.collections]))
    assert ranks.tolist() == list(range(1, 719))


def test_the_ranking_of_an_asynchronous_scheduler_has_no_parts(table):
    mixed = table.assign(proxy_epochs=pd.array(np.resize([40, 10], len(table)), dtype="Int64"))
    figure = figures.ranking(mixed)
    assert "trained for 10 to 40 epochs" in figure.get_suptitle()
    assert not figure.axes[0].lines


def test_boxes_have_the_medians_of_each_value(table):
    figure = figures.marginal_effects(table)
    assert len(figure.axes) == len(CHOICES)
    axes = figure.axes[2]
    assert axes.get_title("left").startswith("norm: explains")
    medians = [line.get_xdata()[0] for line in axes.lines if line.get_color() == "#D55E00"]
    assert medians == pytest.approx(table.groupby("params_norm", observed=True)["proxy_accuracy"].median().tolist())


def test_a_run_without_scores_says_so(table):
    none = table.assign(proxy_accuracy=float("nan"), whole_accuracy=float("nan"))
    for figure in (
        figures.ranking(none),
        figures.marginal_effects(none),
        figures.proxy_against_whole(none, spearman([], [])),
        figures.stage_times({}),
    ):
        assert any("yet" in text.get_text() or "no time" in text.get_text() for text in figure.axes[0].texts)
        render(figure, "png")


def test_a_choice_with_a_value_no_candidate_has_and_one_candidate(table):
    one = table.head(1)
    alone = figures.proxy_against_whole(one, spearman([1], [1]))
    for figure in (figures.ranking(one), figures.marginal_effects(one), alone):
        assert render(figure, "svg").endswith(b"</svg>\n")


def test_a_choice_of_many_values(table):
    many = table.copy()
    many["params_depth"] = pd.Categorical([f"{i % 40}" for i in range(len(many))], [f"{i}" for i in range(40)])
    shown = pixels(figures.ranking(only(many, "depth")))
    assert shown.shape[0] > 2000


def test_accuracy_against_size_marks_what_no_other_beats(table):
    whole = table[(table["state"] == "complete") & ~table["diverged"]].dropna(subset=["proxy_accuracy"])
    for size in ("multiply_adds", "parameters"):
        axes = figures.accuracy_against_size(table, size).axes[0]
        front = {tuple(point) for point in axes.lines[0].get_xydata().tolist()}
        others = {tuple(point) for point in np.asarray(axes.collections[0].get_offsets()).tolist()}
        points = list(zip(whole[size].astype(float), whole["proxy_accuracy"], strict=True))
        assert front == {p for p in points if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points)}
        assert front | others == set(points)


def test_accuracy_against_size_without_a_candidate_says_so(table):
    figure = figures.accuracy_against_size(table.assign(state="waiting"))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no candidate has been trained in full yet"]
