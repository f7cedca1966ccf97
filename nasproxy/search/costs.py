"""What each candidate costs, and in which order and portions they are handed out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.parameter import is_lazy

from nasproxy.networks.cost import count_multiply_adds, count_parameters
from nasproxy.networks.materialise import materialise
from nasproxy.search.task import Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.source import error_text, space_location
from nasproxy.spaces.space import SearchSpace


@dataclass(frozen=True)
class Cost:
    """Size of a candidate.

    Args:
        parameters: trained numbers; 0 where the network could not be built.
        multiply_adds: of one image's forward pass; 0 likewise.
        failure: why the network could not be built, or None.
    """

    parameters: int
    multiply_adds: int
    failure: str | None = None


class Costs(Mapping[str, Cost]):
    """The costs of candidates by id, each measured when it is first asked for.

    Args:
        space: that the candidates come from.
        candidates: all that may be asked for.
        channels: of the images.
        image_size: (height, width) in pixels.
        num_classes: of the labels.
        known: costs that need not be measured, by id.
    """

    def __init__(
        self,
        space: SearchSpace,
        candidates: Sequence[Candidate],
        *,
        channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        known: Mapping[str, Cost] | None = None,
    ) -> None:
        self._measure = partial(measure_cost, space, channels=channels, image_size=image_size, num_classes=num_classes)
        self._candidates = {candidate.id: candidate for candidate in candidates}
        self._found = {name: known[name] for name in self._candidates if name in known} if known else {}
        self.known = len(self._found)
        """How many are known without being measured."""
        self.measured = 0
        """How many have been measured."""
        self.seconds = 0.0
        """What that took."""

    def __getitem__(self, candidate_id: str) -> Cost:
        if candidate_id not in self._found:
            began = time.perf_counter()
            self._found[candidate_id] = self._measure(self._candidates[candidate_id])
            self.seconds += time.perf_counter() - began
            self.measured += 1
        return self._found[candidate_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._candidates)

    def __len__(self) -> int:
        return len(self._candidates)


def measure_cost(
    space: SearchSpace, candidate: Candidate, *, channels: int, image_size: tuple[int, int], num_classes: int
) -> Cost:
    """Builds a candidate once and counts; a network that cannot be built is a result, not an exception."""
    try:
        model = space.build(
            dict(candidate.config), in_channels=channels, num_classes=num_classes, image_size=image_size
        )
        if any(is_lazy(parameter) for parameter in model.parameters()):
            model = materialise(model, torch.zeros(2, channels, *image_size), num_classes)
        return Cost(count_parameters(model), count_multiply_adds(model, channels, image_size))
    except (Exception, SystemExit) as error:
        # The driver may; a worker must not catch SystemExit: Ray raises it there to end the process.
        return Cost(0, 0, error_text(error, space_location(error, space)))


class Queue(deque[Task]):
    """Trainings that wait to be handed out.

    Args:
        tasks: in the order in which they go.
        work: predicted time of all; kept up to date, so that a portion need not add up all that is left.
    """

    def __init__(self, tasks: Iterable[Task] = (), work: float = 0.0) -> None:
        super().__init__(tasks)
        self.work = work


def longest_first(tasks: Sequence[Task], predicted: Callable[[Task], float]) -> Queue:
    """Tasks in falling order of predicted time, so that no long one is left for the end."""
    times = {task.key: predicted(task) for task in tasks}
    return Queue(sorted(tasks, key=lambda task: (-times[task.key], task.key)), sum(times.values(), 0.0))


def next_bundle(
    queue: Queue, predicted: Callable[[Task], float], workers: int, fits: Callable[[Task], bool] | None = None
) -> list[Task]:
    """Takes the next portion off the front of ``queue``: half of what is left, divided by the number of workers.

    Guided self-scheduling (Polychronopoulos & Kuck 1987): portions shrink towards the end, so that the workers finish
    together, and are large before, so that handing them out costs nothing. A portion also ends where a task no longer
    ``fits``, but for the first.
    """
    share = queue.work / (2 * workers)
    bundle: list[Task] = []
    taken = 0.0
    while queue:
        time, room = predicted(queue[0]), fits is None or fits(queue[0])
        if bundle and (taken + time > share or not room):
            break
        taken += time
        bundle.append(queue.popleft())
    queue.work -= taken
    return bundle
