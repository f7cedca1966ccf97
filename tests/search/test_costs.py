import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasproxy.errors import SpaceError
from nasproxy.search.cost_model import CostModel, Prediction
from nasproxy.search.costs import Cost, longest_first, measure_cost, next_bundle
from nasproxy.search.task import Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.source import SpaceSource
from nasproxy.spaces.space import SearchSpace
from nasproxy.training.recipe import TrainingRecipe


def make_task(number: int, epochs: int = 1, repeat: int = 0) -> Task:
    return Task(Candidate.of({"n": number}), "proxy", TrainingRecipe(100), epochs, repeat, seed=0)


def guessed(costs: dict[str, Cost]) -> Prediction:
    return CostModel(costs, proxy_images=100, train_images=1000).predict()


# (multiply-adds, epochs of each repeat) of each candidate, and the order that the trainings come in.
queues = st.lists(
    st.tuples(st.integers(0, 10**9), st.lists(st.integers(1, 100), min_size=1, max_size=3)), min_size=1, max_size=40
)


def make_queue(queue, rng: random.Random) -> tuple[list[Task], Prediction]:
    tasks = [make_task(n, epochs, repeat) for n, (_, row) in enumerate(queue) for repeat, epochs in enumerate(row)]
    rng.shuffle(tasks)
    return tasks, guessed({Candidate.of({"n": n}).id: Cost(1, size) for n, (size, _) in enumerate(queue)})


@settings(deadline=None)
@given(queues, st.randoms(), st.integers(1, 8))
def test_bundles_hold_every_task_once_longest_first(queue, rng, workers):
    tasks, predicted = make_queue(queue, rng)
    left = longest_first(tasks, predicted)
    handed: list[Task] = []
    while left:
        share = sum(predicted(task) for task in left) / (2 * workers)
        bundle = next_bundle(left, predicted, workers)
        assert bundle
        assert len(bundle) == 1 or sum(predicted(task) for task in bundle) <= share * (1 + 1e-9)
        handed += bundle
    assert next_bundle(left, predicted, workers) == []
    assert sorted(task.key for task in handed) == sorted(task.key for task in tasks)
    lengths = [predicted(task) for task in handed]
    assert lengths == sorted(lengths, reverse=True)


@settings(deadline=None)
@given(queues, st.randoms())
def test_the_order_does_not_depend_on_where_tasks_came_from(queue, rng):
    tasks, predicted = make_queue(queue, rng)
    assert longest_first(tasks, predicted) == longest_first(list(reversed(tasks)), predicted)


def test_portions_shrink_towards_the_end():
    unordered = [make_task(n) for n in range(64)]
    predicted = guessed({task.candidate.id: Cost(1, 1) for task in unordered})
    tasks = longest_first(unordered, predicted)
    sizes = []
    while tasks:
        sizes.append(len(next_bundle(tasks, predicted, 2)))
    assert sizes[0] == 64 // 4
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 10_000))
def test_handing_out_looks_at_a_task_once_or_twice_however_many_workers_there_are(count, workers):
    tasks = [make_task(n) for n in range(count)]
    asked: list[Task] = []

    def predicted(task: Task) -> float:
        asked.append(task)
        return float(10**6 + task.candidate.config["n"] % 7)

    queue = longest_first(tasks, predicted)
    assert len(asked) == count
    asked.clear()
    while next_bundle(queue, predicted, workers):
        pass
    assert count <= len(asked) <= 2 * count


class Layers(SearchSpace):
    name = "layers"
    choices = {"width": (3, 7)}  # noqa: RUF012

    def build(self, config, *, in_channels, num_classes, image_size):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(config["width"]), nn.Linear(config["width"], num_classes))


def test_counts_what_a_network_has():
    cost = measure_cost(Layers(), Candidate.of({"width": 7}), channels=2, image_size=(5, 4), num_classes=3)
    assert cost == Cost(parameters=(40 * 7 + 7) + (7 * 3 + 3), multiply_adds=40 * 7 + 7 * 3)


BROKEN = """
from torch import nn

from nasproxy import SearchSpace


class Broken(SearchSpace):
    name = "broken"
    choices = {"how": ["raise", "shape", "forward", "layers"]}

    def build(self, config, *, in_channels, num_classes, image_size):
        if config["how"] == "raise":
            raise RuntimeError("out of ideas")  # HERE raise
        if config["how"] == "shape":
            return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes + 1))
        if config["how"] == "layers":
            return nn.Sequential(nn.Flatten(), nn.Linear(3, num_classes))
        return Forward()


class Forward(nn.Module):
    def forward(self, images):
        return images.nothing  # HERE forward
"""


@pytest.fixture
def broken(tmp_path: Path) -> SearchSpace:
    file = tmp_path / "broken_space.py"
    file.write_text(BROKEN)
    return SpaceSource.parse(str(file)).load()


def measure(space: SearchSpace, how: str) -> Cost:
    return measure_cost(space, Candidate.of({"how": how}), channels=1, image_size=(8, 8), num_classes=4)


@pytest.mark.parametrize(("how", "error"), [("raise", "RuntimeError: out of ideas"), ("forward", "AttributeError: ")])
def test_a_network_that_cannot_be_built_is_a_failure_that_names_the_line(broken: SearchSpace, how: str, error: str):
    cost = measure(broken, how)
    line = next(n for n, text in enumerate(BROKEN.split("\n"), 1) if text.endswith(f"# HERE {how}"))
    assert (cost.parameters, cost.multiply_adds) == (0, 0)
    assert cost.failure is not None
    assert cost.failure.startswith(error)
    assert cost.failure.endswith(f"(broken_space.py:{line})")


def test_a_wrong_shape_is_a_failure_that_says_both_shapes(broken: SearchSpace):
    failure = measure(broken, "shape").failure
    assert failure is not None
    assert failure.startswith(SpaceError.__name__)
    assert re.search(r"\(2, 5\).*expected \(2, 4\)", failure)


def test_a_layer_that_does_not_fit_is_a_failure(broken: SearchSpace):
    failure = measure(broken, "layers").failure
    assert failure is not None
    assert "shapes cannot be multiplied" in failure
