"""The tables of accuracies: what is measured, what is kept, and that nothing is measured twice."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import ablation
import accuracies
import condensation_table
import cross_architecture

from nasproxy.condensation.checkpoints import Checkpoints
from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.coresets.random import RandomImages
from nasproxy.datasets.load import load_dataset
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.names import NETWORKS
from nasproxy.proxies.make import make_proxy, random_proxy
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, train

SMALL = ["--image-size", "8", "--iterations", "1", "--epochs", "2", "--sets", "1"]
SMALL += ["--threads", "1", "--device", "cpu", "--precision", "float32"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "results" / "table.json"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of 16×16 noise, each about a gray of its own: 12 images for training, 4 for the test."""
    folder, generator = tmp_path_factory.mktemp("somewhere") / "photos", torch.Generator().manual_seed(0)
    for part, count in (("train", 12), ("test", 4)):
        for label in range(3):
            (folder / part / f"class{label}").mkdir(parents=True)
            for number in range(count):
                pixels = 80 * label + torch.randint(80, (16, 16), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / part / f"class{label}" / f"{number}.png")
    return str(folder)


@pytest.fixture
def run(file, photos, monkeypatch):
    def run(script, *words):
        monkeypatch.setattr(sys, "argv", ["script.py", *SMALL, "--dataset", photos, "--out", str(file), *words])
        return script.main()

    return run


def read(file):
    return json.loads(file.read_text())


TABLE = ["--methods", "whole", "random", "dc", "--ipc", "2", "--whole-epochs", "1"]


def test_the_table_is_of_the_accuracies_in_the_file_and_goes_on_with_it(run, file, tmp_path, capsys):
    assert run(condensation_table, *TABLE, "--networks", "1") == 0
    first = read(file)
    assert [(s["made_by"], s["ipc"]) for s in first["sets"]] == [("whole", 0), ("random", 2), ("dc", 2)]
    assert {"dataset", "settings", "versions", "machine", "rows"} <= set(first)
    assert first["dataset"]["name"] == "photos"
    assert "somewhere" not in file.read_text()
    assert str(tmp_path) not in file.read_text()
    capsys.readouterr()

    assert run(condensation_table, *TABLE, "--networks", "2", "--sets", "2") == 0
    second = read(file)
    for before, after in zip(first["sets"], second["sets"], strict=False):
        assert after["networks"][0] == before["networks"][0]  # with its seconds: not measured again
        assert len(after["networks"]) == 2
    assert [(s["made_by"], s["ipc"], s["set"]) for s in second["sets"][3:]] == [("random", 2, 1), ("dc", 2, 1)]
    measured = [n["accuracy"] for s in second["sets"] if (s["made_by"], s["ipc"]) == ("dc", 2) for n in s["networks"]]
    assert len(measured) == 4
    cell = f"{100 * statistics.mean(measured):.1f} ± {100 * statistics.stdev(measured):.1f}"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| images/class | ratio % | whole | random | dc |"
    assert lines[2].startswith(f"| 2 | {100 * 6 / first['dataset']['train']:.2g} | ")
    assert lines[2].endswith(f" {cell} |")


def test_an_accuracy_is_that_of_a_network_trained_by_hand(run, file, photos):
    assert run(condensation_table, "--methods", "random", "--ipc", "3", "--networks", "2", "--seed", "4") == 0
    dataset = load_dataset(photos, image_size=(8, 8))
    proxy = random_proxy(dataset, 3, seed=4000)
    test = Images(dataset.normalisation.apply(dataset.test.images), dataset.test.labels)
    torch.manual_seed(4_000_001)
    network = ConvNet(1, 3, (8, 8))
    data = Images(proxy.images, proxy.labels)
    (score,) = train(network, data, TrainingRecipe(epochs=2), test, seed=4_000_001, precision="float32")
    assert read(file)["sets"][0]["networks"][1]["accuracy"] == score.accuracy


def test_a_spent_budget_leaves_a_file_that_the_same_command_goes_on_with(run, file, capsys):
    words = ["--methods", "random", "dc", "--ipc", "1", "--networks", "1"]
    assert run(condensation_table, *words, "--time-budget", "0.000001") == 0
    said = capsys.readouterr()
    assert "The time budget is spent; the same command goes on." in said.err
    assert said.out.splitlines()[2] == "| 1 | 12 | \N{EN DASH} | \N{EN DASH} |"
    assert "so far over fewer" not in said.out  # nothing at all
    assert run(condensation_table, *words) == 0
    assert [len(s["networks"]) for s in read(file)["sets"]] == [1, 1]


def test_a_set_of_dm_is_trained_on_as_it_was_condensed(run, file, photos, capsys):
    words = ["--methods", "dm", "random", "--ipc", "2", "--networks", "1", "--dm-iterations", "2"]
    assert run(condensation_table, *words, "--augmented-epochs", "5") == 0
    assert "2 epochs on a set, seed 0; 5 epochs with augmentation on one of dsa or dm" in capsys.readouterr().out
    entry, other = read(file)["sets"]
    assert (entry["made_by"], entry["augmentation"]) == ("dm", "siamese:color-crop-cutout-flip-scale-rotate")
    assert other["augmentation"] == "none"
    dataset = load_dataset(photos, image_size=(8, 8))
    where = {"seed": 0, "device": torch.device("cpu"), "precision": "float32"}
    proxy = make_proxy(replace(dataset, name="photos"), DistributionRecipe(ipc=2, iterations=2), **where)
    test = Images(dataset.normalisation.apply(dataset.test.images), dataset.test.labels)
    torch.manual_seed(0)
    network = ConvNet(1, 3, (8, 8))
    recipe = TrainingRecipe(5, augmentation=entry["augmentation"])
    (score,) = train(network, Images(proxy.images, proxy.labels), recipe, test, seed=0, precision="float32")
    assert entry["networks"][0]["accuracy"] == score.accuracy


HALF = ["--methods", "dc", "--ipc", "1", "--networks", "1"]


@pytest.fixture
def made(monkeypatch):
    """What sets are made of: the iterations that each has gone on from, and the loss of each iteration."""
    found = []

    def make(*said, course, **more):
        proxy = make_proxy(*said, course=course, **more)
        found.append((len(course.start.losses) if course.start else 0, proxy.history))
        return proxy

    monkeypatch.setattr(accuracies, "make_proxy", make)
    return found


def checkpoints(cache):
    return list((cache / "proxies").glob("*.checkpoint.safetensors"))


def test_a_half_made_set_goes_on_from_its_checkpoint(run, file, cache, made, monkeypatch):
    words = [*HALF, "--iterations", "4"]
    assert run(condensation_table, *words) == 0
    undisturbed = read(file)["sets"][0]
    file.unlink()
    shutil.rmtree(cache)
    asked = []

    def end_in_time(_):
        asked.append(1)
        if len(asked) == 3:
            raise accuracies.BudgetSpentError

    with monkeypatch.context() as patch:
        patch.setattr(accuracies.Bench, "_check_time", end_in_time)
        assert run(condensation_table, *words) == 0
    assert read(file)["sets"] == []
    assert len(checkpoints(cache)) == 1
    assert run(condensation_table, *words) == 0
    assert made == [(0, made[0][1]), (3, made[0][1])]
    found = read(file)["sets"][0]
    assert found["loss"] == undisturbed["loss"]
    assert found["networks"][0]["accuracy"] == undisturbed["networks"][0]["accuracy"]
    assert checkpoints(cache) == []


def test_where_a_checkpoint_is_of_another_version_the_set_is_made_anew(run, made, monkeypatch):
    monkeypatch.setattr(Checkpoints, "load", lambda kept: (_ for _ in ()).throw(kept.unusable("old")))
    assert run(condensation_table, *HALF) == 0
    assert made[0][0] == 0


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_the_next_one_goes_on_from(run, file, photos, cache, made):
    words = [*HALF, "--iterations", "60"]
    script = Path(condensation_table.__file__)
    said = [sys.executable, str(script), *SMALL, "--dataset", photos, "--out", str(file), *words]
    process = subprocess.Popen([*said, "--checkpoint-every", "0.001"])
    deadline = time.monotonic() + 300
    while not checkpoints(cache) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert run(condensation_table, *words) == 0
    ((start, history),) = made
    assert 0 < start < 60
    shutil.rmtree(cache)
    file.unlink()
    assert run(condensation_table, *words) == 0
    assert made[1] == (0, history)


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--methods", "herdin"], ["herdin", "Did you mean herding"]),
        (["--epochs", "0"], ["--epochs must be 1 or more, got 0"]),
        (["--whole-epochs", "0"], ["--whole-epochs must be 1 or more, got 0"]),
        (["--augmented-epochs", "0"], ["--augmented-epochs must be 1 or more, got 0"]),
        (["--checkpoint-every", "0"], ["--checkpoint-every must be seconds above 0, got 0"]),
        (["--ipc", "1", "0"], ["--ipc must be 1 or more, got 0"]),
        (["--sets", "1001"], ["1000 at most"]),
        (["--time-budget", "0"], ["--time-budget"]),
        (["--dataset", "digit"], ["Did you mean digits"]),
        (["--ipc", "5000"], ["5000"]),
        (["--ipc", "1", "--image-size", "4"], ["too small"]),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(run, file, capsys, words, fragments):
    assert run(condensation_table, *words) == 2
    said = capsys.readouterr().err
    assert all(fragment in said for fragment in fragments)
    assert not file.exists()


def test_a_file_of_other_conditions_is_left_alone(run, file, capsys):
    words = ["--methods", "random", "--ipc", "1", "--networks", "1"]
    assert run(condensation_table, *words) == 0
    before = file.read_bytes()
    assert run(condensation_table, *words, "--epochs", "3") == 2
    assert "settings.epochs was 2, now 3" in capsys.readouterr().err
    document = json.loads(before)
    document["sets"][0]["recipe"]["ipc"] = 7
    file.write_text(json.dumps(document))
    assert run(condensation_table, *words, "--networks", "2") == 2
    assert "by other settings" in capsys.readouterr().err
    file.write_text("{")
    assert run(condensation_table, *words) == 2
    assert file.read_text() == "{"


def test_a_set_that_diverges_is_kept_as_such(file, photos, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py", *SMALL, "--dataset", photos, "--out", str(file)])
    wild = MatchingRecipe(ipc=1, iterations=3, matching_steps=1, real_batch=4, image_learning_rate=1e38)
    kinds = [accuracies.Made("wild", 1, wild, 1), accuracies.Made("tame", 1, RandomImages(1), 1)]
    plan = [(kind, [accuracies.Trained()]) for kind in kinds]
    parser = accuracies.options("", sets=1, networks=1)

    def table(arguments, record):
        return f"{record.cell('wild', 1, 'convnet')}, {record.cell('tame', 1, 'convnet')}"

    for _ in range(2):
        assert accuracies.run(parser, lambda _: plan, table, lambda _: "wild") == 1
        said = capsys.readouterr().out
        assert said.startswith("diverged, ")
        assert "diverged, \N{EN DASH}" not in said
        failed, fine = read(file)["sets"]
        assert "in outer iteration 1 of 3" in failed["failure"]
        assert (len(failed["networks"]), len(fine["networks"])) == (0, 1)


def test_the_matrix_of_architectures(run, file, capsys):
    words = ["--condense-with", "mlp", "lenet", "--train", "lenet", "mlp", "--image-size", "16", "--networks", "1"]
    assert run(cross_architecture, *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| C \\ T | LeNet | MLP |"
    sets = {s["made_by"]: s for s in read(file)["sets"]}
    for line, name in zip(lines[2:4], ("mlp", "lenet"), strict=True):
        of = {n["network"]: f"{100 * n['accuracy']:.1f}" for n in sets[name]["networks"]}
        assert line == f"| {NETWORKS[name]} | {of['lenet']} | {of['mlp']} |"
        assert sets[name]["recipe"]["network"] == name
    assert [sets[name]["recipe"]["image_learning_rate"] for name in ("mlp", "lenet")] == [0.01, 0.1]


def test_all_six_are_condensed_with_and_trained_by_default():
    arguments = argparse.Namespace(
        preset="paper", ipc=1, iterations=7, epochs=2, condense_with=NETWORKS, train=NETWORKS
    )
    plan = cross_architecture.plan(arguments)
    assert [made.method.network for made, _ in plan] == list(NETWORKS)
    assert all([network.network for network in trained] == list(NETWORKS) for _, trained in plan)
    assert {made.method.iterations for made, _ in plan} == {7}


def test_an_ablation_varies_what_condenses_and_what_is_trained(run, file, capsys):
    assert run(ablation, "norm", "--values", "instance", "batch", "--networks", "1") == 0
    assert capsys.readouterr().out.splitlines()[0] == "| norm, C \\ T | instance | batch |"
    sets = read(file)["sets"]
    assert [s["recipe"]["norm"] for s in sets] == ["instance", "batch"]
    assert all([n["network"] for n in s["networks"]] == ["norm=instance", "norm=batch"] for s in sets)


def planned(factor, **said):
    defaults = {"preset": "quick", "ipc": None, "iterations": None, "epochs": 2, "values": None, "image_size": None}
    return ablation.plan(argparse.Namespace(factor=factor, **{**defaults, **said}))


def test_the_ablations_are_those_of_the_paper():
    sizes = {factor: [len(trained) for _, trained in planned(factor)] for factor in ablation.OF_THE_CONVNET}
    assert sizes == {"norm": [5] * 5, "activation": [3] * 3, "pooling": [3] * 3, "depth": [4] * 4, "width": [4] * 4}
    for made, trained in planned("distance"):
        assert [network.network for network in trained] == [made.method.network]
    assert len(planned("distance")) == 3 * 6
    steps = [(made.method.matching_steps, made.method.inner_epochs, made.ipc) for made, _ in planned("steps")]
    assert steps == [(1, 1, 10), *((t, epochs, 10) for t in (2, 5, 10) for epochs in (1, 10, 50))]


def test_every_set_of_an_ablation_has_a_label_of_its_own():
    for factor in ablation.FACTORS:
        recipes = {made.label: made.method for made, _ in planned(factor)}
        assert len(recipes) == len(planned(factor)) == len(set(recipes.values()))


def test_an_ablation_of_no_images(run, file, capsys):
    assert run(ablation, "norm", "--ipc", "0") == 2
    assert "ipc must be 1 or more, got 0" in capsys.readouterr().err


def test_values_that_a_factor_does_not_have(run, file, capsys):
    assert run(ablation, "pooling", "--values", "max", "averag") == 2
    assert "Did you mean average" in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.parametrize("script", [condensation_table, cross_architecture, ablation])
def test_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py", "--help"])
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert script.__doc__ in said
    assert "--time-budget MINUTES" in said
