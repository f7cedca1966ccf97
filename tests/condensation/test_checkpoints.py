"""What is interrupted goes on bit for bit as if it had not been, from a file that is checked before it is believed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_dataset, with_other_held_out_images

from nasproxy.condensation import evaluation, outer_loop
from nasproxy.condensation.checkpoints import Checkpoints
from nasproxy.condensation.course import Course
from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.condensation.evaluation import Evaluation
from nasproxy.condensation.networks import fresh_networks
from nasproxy.condensation.outer_loop import Material
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.coresets import whole_training
from nasproxy.coresets.whole_training import WholeRecipe
from nasproxy.datasets.image_dataset import Normalisation
from nasproxy.datasets.pixel_memory import VARIABLE
from nasproxy.errors import CheckpointError, DatasetError, DivergedError, WriteError
from nasproxy.files import replacing
from nasproxy.networks.convnet import ConvNet
from nasproxy.proxies import make
from nasproxy.proxies.make import make_proxy, open_checkpoints
from nasproxy.proxies.soft_labels import Teacher
from nasproxy.training.on_demand import ImagesOnDemand
from nasproxy.training.train import evaluate

WHERE = {"seed": 3, "device": torch.device("cpu"), "precision": "float32"}
DC = MatchingRecipe(ipc=2, iterations=5, matching_steps=2, inner_epochs=2, real_batch=4, width=4, depth=1)

SPACE = """
from torch import nn
from nasproxy import SearchSpace


class Dropping(SearchSpace):
    name = "dropping"
    choices = {"width": [2, 4, 8, 512], "dropout": [0.0, 0.5]}

    def build(self, config, *, in_channels, num_classes, image_size):
        return nn.Sequential(
            nn.Flatten(), nn.LazyLinear(config["width"]), nn.BatchNorm1d(config["width"]), nn.ReLU(),
            nn.Dropout(config["dropout"]), nn.LazyLinear(num_classes),
        )
"""
"""Draws from torch's own generator, has statistics of its own, and a width that is refused."""


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset((9, 6, 5), channels=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "it.checkpoint.safetensors"


def checkpoints(file: Path, dataset, recipe=DC, every: float = 0.0, **other) -> Checkpoints:
    found = open_checkpoints(file, dataset, recipe, every=every, **(WHERE | other))
    assert found is not None
    return found


def interrupted_after(count: int) -> Callable[[int, float], None]:
    def interrupt(iteration: int, _: float) -> None:
        if iteration == count:
            raise KeyboardInterrupt

    return interrupt


def stop(file: Path, dataset, recipe=DC, *, after: int = 2, every: float = 0.0) -> None:
    course = Course(checkpoints(file, dataset, recipe, every))
    with pytest.raises(KeyboardInterrupt):
        make_proxy(dataset, recipe, **WHERE, on_iteration=interrupted_after(after), course=course)


def go_on(file: Path, dataset, recipe=DC, **more):
    kept = checkpoints(file, dataset, recipe)
    start = kept.load()
    assert start is not None
    said: list[int] = []
    made = make_proxy(
        dataset, recipe, **WHERE, on_iteration=lambda number, _: said.append(number), course=Course(kept, start, **more)
    )
    assert said == list(range(len(start.losses) + 1, len(made.history) + 1))
    return made


def cached(file: Path) -> list[Path]:
    """Proxies in the cache."""
    return list((file.parent / "cache" / "proxies").glob("*.safetensors"))


def of_space(recipe, tmp_path: Path):
    path = tmp_path / "dropping.py"
    path.write_text(SPACE)
    return replace(recipe, network=f"space:{path}", max_multiply_adds=20_000)


@pytest.mark.parametrize(
    "recipe",
    [
        DC,
        replace(DC, initial="real", image_momentum=0.0),
        SiameseRecipe(ipc=2, iterations=5, matching_steps=2, inner_epochs=1, width=4, depth=1),
        DistributionRecipe(ipc=2, iterations=5, width=4, depth=1),
        "dc of a space",
        "dm of a space",
    ],
    ids=["dc", "without momentum", "dsa", "dm", "dc of a space", "dm of a space"],
)
def test_interrupted_twice_the_images_are_those_of_an_undisturbed_run(tmp_path, file, dataset, recipe):
    if isinstance(recipe, str):
        recipe = of_space(DC if recipe.startswith("dc") else DistributionRecipe(ipc=2, iterations=5), tmp_path)
    whole = make_proxy(dataset, recipe, **WHERE, use_cache=False)
    for entry in cached(file):
        entry.unlink()
    stop(file, dataset, recipe, after=1)
    kept = checkpoints(file, dataset, recipe)
    course = Course(kept, kept.load())
    with pytest.raises(KeyboardInterrupt):
        make_proxy(dataset, recipe, **WHERE, on_iteration=interrupted_after(3), course=course)
    made = go_on(file, dataset, recipe)
    assert torch.equal(made.images, whole.images)
    assert made.history == whole.history
    assert made.finished
    assert file.exists()  # until the proxy is written where it is to be


def test_the_networks_of_a_space_go_on_where_they_were(tmp_path, dataset):
    recipe = of_space(DC, tmp_path)

    def drawing():
        return fresh_networks(dataset, recipe, torch.Generator().manual_seed(0), WHERE["device"])

    def draw(networks):
        with networks.fresh() as network:
            return [parameter.detach().clone() for parameter in network.parameters()]

    one, other = drawing(), drawing()
    for _ in range(12):
        draw(one)
    other.restore(one.state())
    for _ in range(12):
        assert all(map(torch.equal, draw(one), draw(other)))


def test_an_interruption_within_an_iteration_goes_back_to_its_beginning(monkeypatch, file, dataset):
    whole = make_proxy(dataset, DC, **WHERE)
    calls = 0
    real = Material.real_batch

    def interrupt(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == 15:  # of 6 an iteration: two steps of three classes
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Material, "real_batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_proxy(dataset, DC, **WHERE, course=Course(checkpoints(file, dataset, every=1e6)), use_cache=False)
    state = checkpoints(file, dataset).load()
    assert state is not None
    assert state.losses == whole.history[:2]
    for entry in cached(file):
        entry.unlink()
    assert torch.equal(go_on(file, dataset).images, whole.images)


def test_more_iterations_are_the_same_condensation_and_less_are_an_error(file, dataset):
    stop(file, dataset, replace(DC, iterations=9), after=3)
    with pytest.raises(CheckpointError, match="has 3 iterations already, but 2 were asked for"):
        checkpoints(file, dataset, replace(DC, iterations=2)).load()
    made = go_on(file, dataset, replace(DC, iterations=3))
    assert torch.equal(made.images, make_proxy(dataset, replace(DC, iterations=3), **WHERE, use_cache=False).images)


def test_the_time_already_spent_counts(file, dataset):
    stop(file, dataset)
    state = checkpoints(file, dataset).load()
    assert state is not None
    assert 0 < state.seconds < go_on(file, dataset).seconds


def test_a_budget_leaves_what_there_is_and_the_rest_can_be_done_later(file, dataset):
    answers = iter([False, True])
    course = Course(checkpoints(file, dataset, every=1e6), is_spent=lambda: next(answers))
    part = make_proxy(dataset, DC, **WHERE, course=course)
    assert (len(part.history), part.finished) == (2, False)
    assert cached(file) == []
    made = go_on(file, dataset)
    assert made.finished
    assert made.history[:2] == part.history
    assert not torch.equal(made.images, part.images)
    assert torch.equal(made.images, make_proxy(dataset, DC, **WHERE, use_cache=False).images)


def test_a_budget_that_is_spent_at_once_leaves_an_iteration(file, dataset):
    course = Course(checkpoints(file, dataset), is_spent=lambda: True)
    assert len(make_proxy(dataset, DC, **WHERE, course=course).history) == 1


def test_watching_changes_nothing_and_is_kept(monkeypatch, file, dataset):
    monkeypatch.setattr(Evaluation, "epochs", 2)
    watched: list[tuple[int, float]] = []
    whole = make_proxy(dataset, DC, **WHERE, use_cache=False)
    course = Course(evaluate_every=2, on_evaluation=lambda *news: watched.append(news))
    made = make_proxy(dataset, DC, **WHERE, use_cache=False, course=course)
    assert torch.equal(made.images, whole.images)
    assert [number for number, _ in made.evaluations] == [2, 4, 5]
    assert tuple(watched) == made.evaluations
    assert all(0 <= found <= 1 for _, found in watched)
    for entry in cached(file):
        entry.unlink()
    stop(file, dataset)
    again = go_on(file, dataset, evaluate_every=2)
    assert again.evaluations == made.evaluations


def test_an_evaluation_that_was_interrupted_is_made_by_the_resumed_run(monkeypatch, file, dataset):
    monkeypatch.setattr(Evaluation, "epochs", 2)
    whole = make_proxy(dataset, DC, **WHERE, use_cache=False, course=Course(evaluate_every=2))
    real, calls = Evaluation.accuracy, []

    def interrupt(self, *arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "accuracy", interrupt)
        course = Course(checkpoints(file, dataset), evaluate_every=2)
        with pytest.raises(KeyboardInterrupt):
            make_proxy(dataset, DC, **WHERE, use_cache=False, course=course)
    kept = checkpoints(file, dataset)
    state = kept.load()
    assert state is not None
    assert (len(state.losses), state.evaluations) == (4, whole.evaluations[:1])
    made = make_proxy(dataset, DC, **WHERE, use_cache=False, course=Course(kept, state, evaluate_every=2))
    assert made.evaluations == whole.evaluations


def test_a_budget_leaves_no_evaluation_in_the_resumed_run(monkeypatch, file, dataset):
    monkeypatch.setattr(Evaluation, "epochs", 2)
    whole = make_proxy(dataset, DC, **WHERE, use_cache=False, course=Course(evaluate_every=2))
    answers = iter([False, False, True])
    course = Course(checkpoints(file, dataset), is_spent=lambda: next(answers), evaluate_every=2)
    part = make_proxy(dataset, DC, **WHERE, use_cache=False, course=course)
    assert [number for number, _ in part.evaluations] == [2, 3]
    kept = checkpoints(file, dataset)
    made = make_proxy(dataset, DC, **WHERE, use_cache=False, course=Course(kept, kept.load(), evaluate_every=2))
    assert made.evaluations == whole.evaluations


def test_it_is_the_test_accuracy_of_a_training_that_nobody_notices(monkeypatch, dataset):
    monkeypatch.setattr(Evaluation, "epochs", 40)
    watch = Evaluation(dataset, DC, seed=0, device=WHERE["device"], precision="float32")
    train = dataset.normalisation.apply(dataset.train.images)
    before = torch.get_rng_state()
    good = watch.accuracy(train, dataset.train.labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert good == watch.accuracy(train, dataset.train.labels) > 0.6
    assert watch.accuracy(torch.zeros_like(train), dataset.train.labels) < 0.5
    other = with_other_held_out_images(dataset)
    blind = Evaluation(other, DC, seed=0, device=WHERE["device"], precision="float32")
    assert blind.accuracy(train, dataset.train.labels) != good


def test_a_test_part_that_memory_does_not_hold_is_normalised_batch_by_batch(monkeypatch, dataset):
    monkeypatch.setattr(Evaluation, "epochs", 10)
    watch = Evaluation(dataset, DC, seed=0, device=WHERE["device"], precision="float32")
    train, seen = (dataset.normalisation.apply(dataset.train.images), dataset.train.labels), []
    expected = watch.accuracy(*train)

    def look(model, data, **how):
        seen.append(data.images)
        return evaluate(model, data, **how)

    monkeypatch.setattr(evaluation, "evaluate", look)
    monkeypatch.setenv(VARIABLE, "0")
    assert watch.accuracy(*train) == expected
    assert [type(images) for images in seen] == [ImagesOnDemand]


def test_the_student_of_a_teacher_does_not_begin_as_the_teacher_did(monkeypatch, dataset):
    begun: list[torch.Tensor] = []

    class Recorded(ConvNet):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            begun.append(self.classifier.weight.detach().clone())

    for module in (whole_training, evaluation):
        monkeypatch.setattr(module, "ConvNet", Recorded)
    monkeypatch.setattr(Evaluation, "epochs", 1)
    Teacher.of(dataset, WholeRecipe(1, width=DC.width, depth=DC.depth), **WHERE)
    of_teacher = begun.pop()
    begun.clear()
    make_proxy(dataset, DC, **WHERE, course=Course(evaluate_every=5))
    assert begun
    assert not any(torch.equal(of_teacher, of_student) for of_student in begun)
    assert all(torch.equal(begun[0], other) for other in begun)


def test_seconds_are_those_of_the_iterations_alone(monkeypatch, file, dataset):
    """Or estimates by one iteration, and what a resume adds up, would count the rest as often."""
    clock = 0.0

    def taking(seconds, function):
        def take(*arguments):
            nonlocal clock
            clock += seconds
            return function(*arguments)

        return take

    monkeypatch.setattr(outer_loop, "time", SimpleNamespace(perf_counter=lambda: clock))
    monkeypatch.setattr(Normalisation, "apply", taking(100, Normalisation.apply))
    monkeypatch.setattr(Evaluation, "accuracy", taking(1000, lambda *_: 0.5))
    monkeypatch.setattr(Material, "real_batch", taking(1, Material.real_batch))
    an_iteration = 3 * DC.matching_steps
    made = make_proxy(dataset, DC, **WHERE, use_cache=False, course=Course(evaluate_every=2))
    assert (made.seconds, len(made.evaluations)) == (5 * an_iteration, 3)
    for entry in cached(file):
        entry.unlink()
    stop(file, dataset)
    made = go_on(file, dataset, evaluate_every=2)  # begins with an evaluation
    assert (made.seconds, len(made.evaluations)) == (5 * an_iteration, 3)


def test_divergence_keeps_what_was_before_and_names_it(monkeypatch, file, dataset):
    real, calls = Material.real_batch, 0

    def spoil(self, *arguments):
        nonlocal calls
        calls += 1
        return real(self, *arguments) * (torch.nan if calls > 12 else 1)

    with monkeypatch.context() as patched:
        patched.setattr(Material, "real_batch", spoil)
        with pytest.raises(
            DivergedError, match=r"became nan in outer iteration 3 of 5\. The images of iteration 2 "
        ) as caught:
            make_proxy(dataset, DC, **WHERE, course=Course(checkpoints(file, dataset, every=1e6)))
    assert str(file) in caught.value.message
    two = replace(DC, iterations=2)
    assert torch.equal(go_on(file, dataset, two).images, make_proxy(dataset, two, **WHERE, use_cache=False).images)


def test_divergence_at_once_keeps_nothing(file, dataset):
    recipe = replace(DC, image_learning_rate=float("inf"))
    with pytest.raises(DivergedError) as caught:
        make_proxy(dataset, recipe, **WHERE, course=Course(checkpoints(file, dataset, recipe)))
    assert "kept" not in caught.value.message
    assert not file.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": replace(DC, image_learning_rate=0.2)}, "image_learning_rate was 0.1, now 0.2"),
        ({"recipe": DistributionRecipe(ipc=2, iterations=5)}, "method was 'dc', now 'dm'"),
        ({"seed": 4}, "seed was 3, now 4"),
        ({"precision": "bfloat16"}, "precision was 'float32', now 'bfloat16'"),
        ({"dataset": tiny_dataset((9, 6, 5), channels=3, seed=1)}, "fingerprint was"),
    ],
)
def test_a_checkpoint_of_something_else_says_what_differs(file, dataset, change, words):
    stop(file, dataset)
    before = file.read_bytes()
    other = {name: value for name, value in change.items() if name in WHERE}
    with pytest.raises(CheckpointError) as caught:
        checkpoints(file, change.get("dataset", dataset), change.get("recipe", DC), **other).load()
    assert words in caught.value.message
    assert str(file) in caught.value.message
    assert file.read_bytes() == before


def test_another_version_is_named(monkeypatch, file, dataset):
    stop(file, dataset)
    monkeypatch.setattr(make, "deciding_versions", lambda: {"nasproxy": "0.0.1", "torch": torch.__version__})
    with pytest.raises(CheckpointError, match=r"nasproxy was '.*', now '0\.0\.1'"):
        checkpoints(file, dataset).load()


def rewrite(file: Path, *, tensors=None, **changes) -> None:
    with safe_open(file, framework="pt") as opened:
        written = json.loads(opened.metadata()["nasproxy-checkpoint"])
    content = load_file(file) | (tensors or {})
    save_file(content, file, {"nasproxy-checkpoint": json.dumps(written | changes)})


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"losses": []},
        {"losses": ["low"]},
        {"losses": [float("nan")]},
        {"seconds": None},
        {"evaluations": [3]},
        {"facts": 3},
        {"tensors": {"images": torch.zeros(1)}},
        {"tensors": {"images": torch.full((6, 3, 8, 8), torch.inf)}},
        {"tensors": {"optimizer.momentum_buffer": torch.zeros(6, 3, 8, 9)}},
        {"tensors": {"generator": torch.zeros(3, dtype=torch.uint8)}},
        {"tensors": {"torch": torch.zeros(5056)}},
    ],
    ids=str,
)
def test_what_makes_no_sense_in_a_checkpoint_is_an_error(file, dataset, change):
    stop(file, dataset, after=1)
    rewrite(file, **change)
    with pytest.raises(CheckpointError, match="no whole checkpoint") as caught:
        go_on(file, dataset)
    assert str(file) in caught.value.message


def test_a_file_cut_anywhere_or_foreign_is_an_error(file, dataset):
    stop(file, dataset, after=1)
    whole = file.read_bytes()
    for content in (*(whole[:length] for length in (0, 7, 9, 100, len(whole) - 1)), b"x" * 500):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="no whole checkpoint"):
            checkpoints(file, dataset).load()
    save_file({"images": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        checkpoints(file, dataset).load()


def test_nothing_to_go_on_from_is_a_beginning(file, dataset):
    assert checkpoints(file, dataset).load() is None


def test_only_its_own_file_is_removed_in_the_end(file, dataset):
    stop(file, dataset)
    before = file.read_bytes()
    for _ in range(2):  # made, and from the cache
        kept = checkpoints(file, dataset, every=1e6)
        make_proxy(dataset, DC, **WHERE, course=Course(kept))
        kept.discard()
    assert file.read_bytes() == before
    with replacing(file) as written:
        written.write(before)
    half = Path(written.name)  # as a writer that was killed leaves it
    half.touch()
    kept = checkpoints(file, dataset)
    make_proxy(dataset, DC, **WHERE, course=Course(kept, kept.load()))
    kept.discard()
    assert not file.exists()
    assert not half.exists()


@pytest.mark.parametrize("recipe", [DC, DistributionRecipe(ipc=2, width=4, depth=1)], ids=["dc", "dm"])
@pytest.mark.parametrize(("channels", "size"), [(1, (64, 64)), (3, (64, 64)), (3, (9, 16))])
def test_images_of_any_size_and_classes_of_unequal_size(file, recipe, channels, size):
    data = tiny_dataset((5, 2, 3), channels=channels, size=size)
    recipe = replace(recipe, iterations=2, ipc=1)
    stop(file, data, recipe, after=1)
    made = go_on(file, data, recipe)
    assert made.images.shape == (3, channels, *size)
    assert made.labels.tolist() == [0, 1, 2]
    with pytest.raises(DatasetError, match="class 'class 1' has 2 training images"):
        make_proxy(data, replace(recipe, ipc=3), **WHERE)


def test_a_folder_that_is_gone_is_an_error(tmp_path, dataset):
    with pytest.raises(WriteError, match="nowhere"):
        make_proxy(dataset, DC, **WHERE, course=Course(checkpoints(tmp_path / "nowhere" / "it", dataset)))


def test_what_auto_stands_for_is_kept_with_the_images(file, dataset):
    recipe = SiameseRecipe(ipc=1, iterations=1, matching_steps=1, width=4, depth=1)
    plain, glyphs = (make_proxy(replace(dataset, name=name), recipe, **WHERE) for name in ("photos", "digits"))
    assert plain.recipe["augmentation"] == "color-crop-cutout-flip-scale-rotate"
    assert glyphs.recipe["augmentation"] == "color-crop-cutout-scale-rotate"
    assert not torch.equal(plain.images, glyphs.images)
    spelt = replace(recipe, augmentation="color-crop-cutout-scale-rotate")
    assert torch.equal(make_proxy(replace(dataset, name="photos"), spelt, **WHERE).images, glyphs.images)
    assert len(cached(file)) == 2


CHILD = """
import sys, time, torch
from pathlib import Path
from tiny import tiny_dataset
from nasproxy.condensation.course import Course
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.proxies.make import make_proxy, open_checkpoints

torch.set_num_threads(1)
recipe = MatchingRecipe(ipc=2, iterations=5, matching_steps=2, inner_epochs=2, real_batch=4, width=4, depth=1)
where = {"seed": 3, "device": torch.device("cpu"), "precision": "float32"}
dataset = tiny_dataset((9, 6, 5), channels=3)
kept = open_checkpoints(Path(sys.argv[1]), dataset, recipe, every=0.0, **where)

def said(number, loss):
    print(number, flush=True)
    time.sleep(0.5)

make_proxy(dataset, recipe, **where, on_iteration=said, course=Course(kept, kept.load()))
"""


def test_a_process_that_is_killed_is_gone_on_with(file, dataset):
    path = os.pathsep.join(map(str, (Path(__file__).parent.parent, *filter(None, [os.environ.get("PYTHONPATH")]))))
    words, environment = [sys.executable, "-c", CHILD, str(file)], {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for number in ("1\n", "2\n"):
            assert child.stdout.readline() == number
        time.sleep(random.uniform(0, 0.5))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    made = go_on(file, dataset)
    whole = make_proxy(dataset, DC, **WHERE, use_cache=False)
    assert torch.equal(made.images, whole.images)
    assert made.history == whole.history
