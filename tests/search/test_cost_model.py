import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasproxy.search.cost_model import Ahead, CostModel
from nasproxy.search.costs import Cost
from nasproxy.search.task import PROXY, WHOLE, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.recipe import TrainingRecipe

PROXY_IMAGES, TRAIN_IMAGES = 100, 1000
SIZES = [0, 10**4, 10**6, 3 * 10**6, 10**7, 4 * 10**7, 10**8, 5 * 10**8]
CANDIDATES = [Candidate.of({"n": n}) for n in range(len(SIZES))]


def made_model(data: str = PROXY) -> CostModel:
    costs = {candidate.id: Cost(1, size) for candidate, size in zip(CANDIDATES, SIZES, strict=True)}
    return CostModel(costs, proxy_images=PROXY_IMAGES, train_images=TRAIN_IMAGES, data=data)


def make_task(number: int, epochs: int, data: str = PROXY, batch: int = 256) -> Task:
    return Task(CANDIDATES[number], data, TrainingRecipe(1000, batch_size=batch), epochs, 0, seed=0)


TASKS = [make_task(n, epochs) for n in range(len(SIZES)) for epochs in (1, 4, 25, 100)]
WHOLE_TASKS = [make_task(n, 8, WHOLE, 16) for n in range(len(SIZES))]

# Seconds of a step and of a training, and of a multiply-add in training and in scoring.
rates = st.tuples(*[st.floats(1e-4, 1.0)] * 2, *[st.floats(1e-11, 1e-7)] * 2)
times = st.lists(st.floats(1e-4, 1e4), min_size=len(TASKS), max_size=len(TASKS))


def seconds_of(task: Task, rates) -> float:
    step, fixed, training, scoring = rates
    size = SIZES[task.candidate.config["n"]]
    images = {PROXY: PROXY_IMAGES, WHOLE: TRAIN_IMAGES}[task.data]
    steps = -(-images // task.recipe.batch_size)
    scorings = 1 if task.data == PROXY else 2  # whole-data trainings are tested too
    return task.epochs * (step * steps + training * size * images / PROXY_IMAGES) + fixed + scoring * size * scorings


@settings(deadline=None)
@given(rates)
def test_times_that_follow_the_model_are_predicted_exactly_on_the_whole_data_too(rates):
    model = made_model()
    for task in TASKS:
        model.learn(task, seconds_of(task, rates))
    predicted = model.predict()
    assert predicted.in_seconds
    for task in TASKS + WHOLE_TASKS:
        assert predicted(task) == pytest.approx(seconds_of(task, rates), rel=0.01)


@settings(deadline=None)
@given(rates, st.sampled_from([1, 4, 25, 100]))
def test_after_trainings_of_one_length_those_are_known_and_others_stay_in_proportion(rates, epochs):
    model = made_model()
    for number in range(len(SIZES)):
        task = make_task(number, epochs)
        model.learn(task, seconds_of(task, rates))
    predicted = model.predict()
    for number in range(len(SIZES)):
        task = make_task(number, epochs)
        assert predicted(task) == pytest.approx(seconds_of(task, rates), rel=0.01)
        assert predicted(make_task(number, 2 * epochs)) <= 2 * predicted(task) * (1 + 1e-9)


@settings(deadline=None)
@given(times)
def test_no_time_is_ever_negative_and_more_work_never_takes_less(times):
    model = made_model()
    for task, seconds in zip(TASKS, times, strict=True):
        model.learn(task, seconds)
    predicted = model.predict()
    assert all(weight >= 0 for weight in predicted.weights)
    for epochs in (1, 4, 25):
        found = [predicted(make_task(number, epochs)) for number in range(len(SIZES))]
        assert all(np.isfinite(found))
        assert found == sorted(found)
        assert all(predicted(make_task(n, epochs + 1)) >= time for n, time in enumerate(found))


@settings(deadline=None)
@given(times)
def test_relative_errors_are_no_larger_than_the_guess_can_have(times):
    """Of all scales of the guess, none is closer than what was fitted."""
    model = made_model()
    guess = np.array([model.predict()(task) for task in TASKS])
    for task, seconds in zip(TASKS, times, strict=True):
        model.learn(task, seconds)
    predicted = model.predict()
    ours = sum((predicted(task) / seconds - 1) ** 2 for task, seconds in zip(TASKS, times, strict=True))
    ratio = guess / times
    best = float(((ratio * (ratio.sum() / (ratio @ ratio)) - 1) ** 2).sum())
    assert ours <= best + 1e-3


def test_few_measurements_change_nothing():
    model = made_model()
    before = model.predict()
    for task in TASKS[:7]:
        model.learn(task, 1.0)
    assert model.predict() == before
    assert not before.in_seconds
    for task in WHOLE_TASKS:
        model.learn(task, 1.0)
    model.learn(TASKS[7], 0.0)
    assert model.predict() == before
    model.learn(TASKS[7], 1.0)
    assert model.predict().in_seconds


def test_the_guess_grows_with_epochs_and_network():
    guess = made_model().predict()
    assert 0 < guess(make_task(0, 1)) < guess(make_task(1, 1)) < guess(make_task(1, 2))
    assert guess(make_task(3, 200)) == pytest.approx(2 * guess(make_task(3, 100)), rel=0.02)


@pytest.mark.parametrize("size", [0, 10**6])
def test_candidates_that_are_all_alike_are_no_problem(size):
    costs = {candidate.id: Cost(1, size) for candidate in CANDIDATES}
    model = CostModel(costs, proxy_images=10, train_images=10)
    for number in range(len(SIZES)):
        model.learn(make_task(number, 3), 2.0)
    assert model.predict()(make_task(0, 3)) == pytest.approx(2.0)


@settings(deadline=None)
@given(rates, st.sampled_from([PROXY, WHOLE]))
def test_what_is_left_of_a_stage_is_what_its_trainings_will_take(rates, data):
    tasks = [make_task(n, epochs, data) for epochs in (100, 25, 9, 4, 1) for n in reversed(range(len(SIZES)))]
    before, model = made_model().predict(), made_model(data)
    tasks.sort(key=before, reverse=True)
    ahead, work, worked = Ahead(tasks, before, model), sum(map(before, tasks)), 0.0
    times = [seconds_of(task, rates) for task in tasks]
    for number, (task, seconds) in enumerate(zip(tasks, times, strict=True), start=1):
        model.learn(task, seconds)
        worked += ahead.advance(task, seconds)
        if number > len(tasks) // 2:
            left = sum(times[:number]) * (work / worked - 1)
            assert left == pytest.approx(sum(times[number:]), rel=0.1, abs=1e-6 * sum(times))
    assert worked == pytest.approx(work)


@given(times)
def test_before_anything_is_known_a_bar_moves_by_what_was_predicted(times):
    predicted, model = made_model().predict(), made_model()
    ahead = Ahead(TASKS, predicted, model)
    for task, seconds in zip(TASKS, times, strict=True):
        assert ahead.advance(task, seconds) == pytest.approx(predicted(task), abs=1e-9 * sum(map(predicted, TASKS)))


@settings(deadline=None)
@given(rates, st.floats(0.1, 10))
def test_few_trainings_on_the_whole_data_go_by_what_the_proxy_taught_of_their_proportions(rates, slower):
    learnt, model = made_model(), made_model(WHOLE)
    for task in TASKS:
        learnt.learn(task, seconds_of(task, rates))
    predicted, tasks = learnt.predict(), WHOLE_TASKS[:0:-1]
    ahead, work, worked = Ahead(tasks, predicted, model), sum(map(predicted, tasks)), 0.0
    times = [slower * seconds_of(task, rates) for task in tasks]
    for number, (task, seconds) in enumerate(zip(tasks, times, strict=True), start=1):
        model.learn(task, seconds)
        worked += ahead.advance(task, seconds)
        left = sum(times[:number]) * (work / worked - 1)
        assert left == pytest.approx(sum(times[number:]), rel=0.1, abs=1e-6 * sum(times))
    assert model.learnt < 8
