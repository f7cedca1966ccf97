"""Calibration: who is drawn, what is trained, and what the estimate is, against pandas."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from optuna.storages import InMemoryStorage
from test_campaign import SETTINGS, Trainer, campaign_of, made, outcome_of, run_plainly, run_shuffled
from tiny_search import SPACE, Said, invoke, recorded_trainings, search_words, write_space

from nasproxy.analysis.calibration_figure import calibration_figure
from nasproxy.analysis.correlation import RankAgreement
from nasproxy.analysis.explain import against_winner
from nasproxy.analysis.results import load_run
from nasproxy.errors import InputError
from nasproxy.search.calibration import drawn, warning
from nasproxy.search.settings import SearchSettings
from nasproxy.search.task import WHOLE

CALIBRATED = replace(SETTINGS, calibrate=12)


def test_the_draw_depends_on_the_seed_alone_and_hardly_on_who_else_is_there():
    every = made()
    some = drawn(every, 10, 0)
    assert len({candidate.id for candidate in some}) == 10
    assert drawn(every[::-1], 10, 0) == some
    assert drawn(every, 11, 0)[:10] == some
    assert drawn(every, 10, 1) != some
    without = [candidate for candidate in every if candidate != some[3]]
    assert drawn(without, 9, 0) == some[:3] + some[4:]
    # Each has the same chance: over 400 seeds 100 times 10 of 40, standard deviation 8.7.
    counts = Counter(candidate.id for seed in range(400) for candidate in drawn(every, 10, seed))
    assert all(60 < counts[candidate.id] < 140 for candidate in every)


def test_random_candidates_are_trained_once_before_the_finalists_and_change_nothing_else():
    plain, trainer = campaign_of(InMemoryStorage()), Trainer()
    run_plainly(plain[0], trainer)
    campaign, _ = campaign_of(InMemoryStorage(), settings=CALIBRATED)
    order: list[str] = []
    while not campaign.finished:
        for task in campaign.next_bundle(1):
            order += [task.candidate.id] * (task.data == WHOLE)
            campaign.record(trainer.perform(task))
    assert campaign.ranking == plain[0].ranking
    assert campaign.finalists == plain[0].finalists
    sample = {candidate.id for candidate in campaign.calibration}
    assert set(order[:12]) == sample
    assert sorted(order[12:]) == sorted({c.id for c in campaign.finalists} - sample)


def test_workers_and_interruptions_make_no_difference():
    rng, storage, trainer = random.Random(0), InMemoryStorage(), Trainer(failing={3, 17}, diverging={5})
    whole, study = campaign_of(InMemoryStorage(), settings=CALIBRATED)
    run_plainly(whole, Trainer(failing={3, 17}, diverging={5}))
    for most in (7, 30, 20, 5):
        run_shuffled(campaign_of(storage, settings=CALIBRATED)[0], trainer, rng, 3, most)
    found = campaign_of(storage, settings=CALIBRATED)
    run_shuffled(found[0], trainer, rng, 3)
    assert outcome_of(*found) == outcome_of(whole, study)
    assert found[0].calibration == whole.calibration
    assert set(trainer.trained.values()) == {1}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"calibrate": 2}, "--calibrate must be 3 or more"),
        ({"min_correlation": 0.3}, "Add --calibrate N"),
        ({"min_correlation": 1.5, "calibrate": 9}, "between -1 and 1"),
        ({"min_correlation": float("nan"), "calibrate": 9}, "between -1 and 1"),
    ],
)
def test_what_cannot_be_estimated_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        SearchSettings(**changed)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrated")


@pytest.fixture(scope="module")
def plain(home: Path) -> Said:
    return invoke(*search_words(write_space(home), home / "run", "--json"))


@pytest.fixture(scope="module")
def calibrated(plain: Said, home: Path) -> Said:
    """The finished run of ``plain``, gone on with."""
    return invoke(*search_words(home / "my_space.py", home / "run", "--json", "--resume", "--calibrate", "9"))


def test_a_finished_run_is_calibrated_and_keeps_its_ranking(plain: Said, calibrated: Said, home: Path):
    assert calibrated.code == 0, calibrated.err
    assert plain.json["calibration"] is None
    for name in ("top", "winner", "candidates", "evaluated"):
        assert calibrated.json[name] == plain.json[name]
    assert list(calibrated.json["seconds"]) == ["condense", "search", "calibration", "finalists", "total"]
    assert "Calibration, whole data: 9" in calibrated.err
    assert set(recorded_trainings(home / "run").values()) == {1}


def test_a_calibrated_run_that_is_gone_on_with_keeps_its_estimate(calibrated: Said, home: Path):
    words = search_words(home / "my_space.py", home / "run", "--json", "--resume")
    for lost in (None, "report.html"):
        if lost is not None:
            (home / "run" / lost).unlink()
        assert invoke(*words).json["calibration"] == calibrated.json["calibration"]
        assert load_run(home / "run").summary["calibration"] == calibrated.json["calibration"]


def test_a_run_ranked_without_a_proxys_images_keeps_its_estimate_too(home: Path):
    words = search_words(write_space(home), home / "stopped", "--json", "--proxy", "early-stopping")
    calibrated = invoke(*words, "--calibrate", "5").json
    assert calibrated["calibration"]["n"] == 5
    assert invoke(*words, "--resume").json == calibrated
    assert load_run(home / "stopped").summary == calibrated


def test_the_estimate_is_spearmans_rho_of_the_order_and_the_accuracies(calibrated: Said):
    found = calibrated.json["calibration"]
    assert (found["n"], len(found["sample"]), found["ranked"], found["failed"]) == (9, 9, 12, 0)
    table = pd.DataFrame(found["sample"])
    # Levels and accuracies as one number, so that ties stay ties.
    order = table["proxy_epochs"] + table["proxy_accuracy"]
    assert found["rho"] == pytest.approx(order.corr(table["whole_accuracy"], method="spearman"))
    assert found["kendall"] == pytest.approx(order.corr(table["whole_accuracy"], method="kendall"))
    assert found["interval"][0] <= found["rho"] <= found["interval"][1]
    assert found["best_whole_accuracy"] == table["whole_accuracy"].max()


def test_the_run_and_its_report_hold_it(calibrated: Said, home: Path):
    assert load_run(home / "run").summary["calibration"] == calibrated.json["calibration"]
    page = (home / "run" / "report.html").read_text()
    assert "Over 9 candidates drawn at random from the 12 ranked ones" in page


def test_the_exit_code_is_1_below_the_least_correlation(calibrated: Said, home: Path):
    rho = calibrated.json["calibration"]["rho"]
    words = search_words(home / "my_space.py", home / "run", "--resume", "--calibrate", "9", "--min-correlation")
    low, high = invoke(*words, str(rho - 0.01)), invoke(*words, str(rho + 0.01))
    assert (low.code, high.code) == (0, 1)
    assert "Warning" not in low.err
    assert "Warning: the proxy's overall correlation is estimated at" in " ".join(high.err.split())
    for said in (low, high):
        assert "Over 9 candidates drawn at random" in " ".join(said.out.split())
    summary = json.loads((home / "run" / "summary.json").read_text())
    assert summary["calibration"]["below"] is True


def test_more_than_there_are_is_refused_before_anything_is_made(tmp_path: Path):
    said = invoke(*search_words(write_space(tmp_path), tmp_path / "run", "--calibrate", "13"))
    assert said.code == 2
    assert "--calibrate 13 is more than the 12 candidates" in said.err
    assert not (tmp_path / "run").exists()


def test_a_random_candidate_that_fails_on_the_whole_data_is_left_out_and_told(tmp_path: Path):
    # Only the whole training part has batches of 64.
    refuse = "if self.training and len(images) > 20:\n            raise ValueError('many')\n        if self.training:"
    text = SPACE.replace("if self.training:", refuse)
    said = invoke(*search_words(write_space(tmp_path, text), tmp_path / "run", "--calibrate", "5", "--json"))
    assert said.code == 1
    found = said.json["calibration"]
    assert (found["rho"], found["n"], found["failed"], found["below"]) == (None, 0, 5, True)
    assert "at least 3 points, there are 0" in found["reason"]
    assert "gives no estimate" in said.err
    top = {entry["id"] for entry in said.json["top"]}
    assert said.json["failed"] == len(top | {entry["id"] for entry in found["sample"]})
    assert "5 candidates" not in said.out


def test_what_is_said_of_an_estimate():
    base = {"kendall": 0.2, "n": 9, "reason": None, "level": 0.95, "interval": [0.1, 0.6], "min_correlation": None}
    assert warning({**base, "rho": 0.6, "below": False}) is None
    assert "estimated at 0.40, 95\xa0% interval 0.10 to 0.60, below 0.50" in warning(
        {**base, "rho": 0.4, "below": True}
    )
    lower = warning({**base, "rho": 0.4, "below": True, "min_correlation": 0.45, "interval": None})
    assert "estimated at 0.40, below 0.45" in lower
    assert "more than the winner's 80.0" in against_winner({"best_whole_accuracy": 0.9}, {"whole_accuracy": 0.8})[0]
    assert against_winner({"best_whole_accuracy": None}, {"whole_accuracy": 0.8}) == []
    assert against_winner({"best_whole_accuracy": 0.9}, None) == []


def test_the_figure_has_a_point_for_each_that_was_trained():
    sample = [{"rank": rank, "whole_accuracy": None if rank == 3 else 0.9 - rank / 100} for rank in range(1, 6)]
    figure = calibration_figure(sample, RankAgreement(1.0, (0.9, 1.0), 1.0, 4, None), 12)
    offsets = figure.axes[0].collections[0].get_offsets()
    assert offsets.tolist() == [[rank, 0.9 - rank / 100] for rank in (1, 2, 4, 5)]
    assert "1.00" in figure.get_suptitle()
    nothing = calibration_figure([], RankAgreement(None, None, None, 0, "none", 0.95), 12)
    assert "no random candidate" in nothing.axes[0].texts[0].get_text()
