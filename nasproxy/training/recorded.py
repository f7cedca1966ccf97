"""A step recorded once as a CUDA graph and replayed: the card does not wait for Python between its kernels.

Why, by arithmetic (H100, H200; not measured): a step of a small ConvNet is 60 to 120 kernels of a few microseconds.
Python and autograd take about 10 µs to launch one, a graph 1 to 2 µs: 720 candidates × 100 epochs are 72,000 steps,
40 to 90 s of launches as against 10 to 20. Recording costs three steps and some milliseconds: it pays after a few
dozen steps.

What else could be done, and is not: *many candidates as one batched network* (vmap, grouped convolutions) replaces
dense convolutions on tensor cores by grouped ones, which cuDNN runs several times slower, to save launches that a
graph has already made cheap; and of 720 candidates only repeats have equal shapes throughout. *Streams* would overlap
kernels that leave part of the card idle: those after two poolings of narrow networks, a few seconds of the whole
ranking. Several workers on one card (``--gpus-per-worker 0.5``) gain as much, as they also overlap what Python does
for each candidate.
"""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.training.step import PlainStep, Stepped, Targets

RECORDED = 32
"""Calls from which recording them pays."""
_WARM_UP = 1  # steps before recording, besides one that may not wait: libraries set themselves up, momentum begins
_PLAIN = (bool, int, float, str, type(None))

_STREAMS: dict[int, torch.cuda.Stream] = {}  # of each device the one that is recorded on: cuBLAS keeps memory for each
_FAILED: list[torch.cuda.CUDAGraph] = []  # torch's allocator of pinned memory goes on asking them

Results = tuple[Tensor, ...]
Record = Callable[[Callable[[], Results]], tuple[Callable[[], object], Results]]
"""Takes what may be called any number of times; returns what calls it again, and where its results lie."""

logger = logging.getLogger(__name__)


def timed_epochs(device: torch.device, epochs: int, batches: int) -> int:
    """In how many epochs a training that is to be timed comes to what a GPU records, if trainings there are recorded.

    Args:
        device: that is trained on.
        epochs: of the trainings whose time is to be told.
        batches: of an epoch.
    """
    return -(-RECORDED // batches) if device.type == "cuda" and epochs * batches >= RECORDED else 1


@dataclass(frozen=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    replay: Callable[[], object]
    results: Results


class Recorded:
    """Calls a function of tensors by replaying it; the next call may overwrite what this one returned.

    What cannot be replayed is called as it stands, for the ``reason`` kept. That is a network that waits for the card
    (data-dependent control flow), or whose step is not the same each time: it draws random numbers on the host, or
    counts. Random numbers of the card, as for dropout, are replayed anew.

    Args:
        function: to be called; its results' shapes follow from those of its inputs.
        model: what it computes with.
        put_back: a context that undoes what calls do.
        record: how it is recorded.
    """

    def __init__(
        self,
        function: Callable[..., Results],
        model: nn.Module,
        put_back: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        record: Record | None = None,
    ) -> None:
        self._function, self._model, self._put_back = function, model, put_back
        self._record = record or record_on_cuda
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self.reason: str | None = None

    def __call__(self, *inputs: Tensor) -> Results:
        """Calls the function; each shape of inputs is recorded by itself."""
        shapes = tuple(each.shape for each in inputs)
        if self.reason is None and shapes not in self._recordings:
            self._try_to_record(tuple(each.clone() for each in inputs), shapes)
        recording = self._recordings.get(shapes)
        if recording is None:
            return self._function(*inputs)
        for place, each in zip(recording.inputs, inputs, strict=True):
            place.copy_(each)
        recording.replay()
        return recording.results

    def _try_to_record(self, inputs: tuple[Tensor, ...], shapes: tuple[torch.Size, ...]) -> None:
        """Leaves everything as if nothing had been called."""
        changed: list[str] = []

        def call() -> Results:
            before = _host_state(self._model)
            results = self._function(*inputs)
            # Only the last counts: the first call of a process loads what sets up its own random numbers.
            changed[:] = [name for name, state in _host_state(self._model).items() if state != before[name]]
            return results

        try:
            with self._put_back():
                replay, results = self._record(call)
        except Exception as error:  # what fails by itself will say so when it is called as it stands
            self.reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        else:
            self.reason = f"a step changes {', '.join(changed)}" if changed else None
            self._recordings[shapes] = _Recording(inputs, replay, results)
        if self.reason is not None:
            self._recordings.clear()
            logger.info("%s is computed without recording: %s", type(self._model).__name__, self.reason)


class RecordedStep(Recorded):
    """Performs a training's step by replaying it, see :class:`~nasproxy.training.step.Step`.

    Args:
        step: to be performed.
        record: how it is recorded.
    """

    def __init__(self, step: PlainStep, record: Record | None = None) -> None:
        super().__init__(step, step.model, lambda: _put_back(step), record)
        self._step = step

    def __call__(self, images: Float[Tensor, "batch c h w"], targets: Targets) -> Stepped:  # type: ignore[override]
        """See :class:`~nasproxy.training.step.Step`; each size of batch is recorded by itself."""
        logits, loss = super().__call__(images, targets)
        return logits, loss

    def set_rate(self, learning_rate: float) -> None:
        """See :class:`~nasproxy.training.step.Step`."""
        self._step.set_rate(learning_rate)


def record_on_cuda(step: Callable[[], Results]) -> tuple[Callable[[], object], Results]:
    """Records ``step``, which may be any function, as a CUDA graph, in the manner of PyTorch's manual.

    Raises:
        Exception: it cannot be recorded. Nothing that the calls have asked of the card is under way beside what the
            caller asks of it next.
    """
    device, current = torch.cuda.current_device(), torch.cuda.current_stream()
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream()
    stream = _STREAMS[device]
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                step()
            # A recording that fails midway is hard to recover from; most of what would fail is seen here.
            with _waiting_forbidden():
                step()
    finally:
        current.wait_stream(stream)
    return _capture(step, device)


@contextlib.contextmanager
def _waiting_forbidden() -> Iterator[None]:
    """Makes a RuntimeError of what waits for the card."""
    mode = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            # Once in a process torch says that this may change; as an error it would come with the mode already set.
            warnings.filterwarnings("ignore", "Synchronization debug mode")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def _capture(step: Callable[[], Results], device: int) -> tuple[Callable[[], object], Results]:
    """The graph of one call.

    ``torch.cuda.graph`` waits for the card and gives torch's spare memory back to it, some milliseconds each time.
    Without that, memory of graphs that are gone would pile up: only this gives it back, and no recording can use it.
    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    try:
        # A recording that fails leaves torch on its stream.
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool, _STREAMS[device]):
            results = step()
    except Exception:
        _forget(device, pool)
        graph.reset()
        _FAILED.append(graph)
        raise
    return graph.replay, results


def _forget(device: int, pool: tuple[int, int]) -> None:
    """Undoes in torch what a recording that failed leaves, as if it were still under way.

    Memory would go on coming from its pool, no spare memory could be given back, and random numbers be unusable.
    """
    _STREAMS.pop(device, None)
    # Where there is nothing to end, the recording had been ended, and its graph releases the pool.
    with contextlib.suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)
    generator = torch.cuda.default_generators[device]
    generator.graphsafe_set_state(generator.clone_state())


@contextlib.contextmanager
def _put_back(step: PlainStep) -> Iterator[None]:
    """Undoes the steps of the context: weights, buffers, momentum, attributes and random numbers are as they were.

    Momentum that a first step has made becomes zero, which is the same as none.
    """
    model = step.model
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    kept = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    kept += [(momentum, momentum.clone()) for momentum in _momenta(step)]
    old = {id(tensor) for tensor, _ in kept}
    attributes = _attributes(model)
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002, whatever a network uses
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, values in attributes.items():
                vars(module).update(values)
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002
            with torch.no_grad():
                for tensor, value in kept:
                    tensor.copy_(value)
                for momentum in _momenta(step):
                    if id(momentum) not in old:
                        momentum.zero_()


def _momenta(step: PlainStep) -> list[Tensor]:
    found = (values.get("momentum_buffer") for values in step.optimizer.state.values())
    return [momentum for momentum in found if momentum is not None]


def _host_state(model: nn.Module) -> dict[str, Any]:
    """What a replay does not repeat: random numbers of the host, and numbers that modules keep in Python."""
    # Six times for each network that is recorded: text or lists of these thousands of numbers would take milliseconds.
    kind, numbers, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "random numbers of Python": random.getstate(),
        "random numbers of NumPy": (kind, np.asarray(numbers).tobytes(), *rest),
        "random numbers of PyTorch on the CPU": torch.get_rng_state().numpy().tobytes(),
        "attributes of its modules": _attributes(model),
    }


def _attributes(model: nn.Module) -> dict[nn.Module, dict[str, Any]]:
    """The numbers, words and truth values that each module keeps in Python."""
    return {
        module: {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN)}
        for module in model.modules()
    }
