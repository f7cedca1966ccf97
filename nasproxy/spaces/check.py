"""Tries a search space out before a search relies on it: validity everywhere, forward and backward on a sample."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parameter import is_lazy

from nasproxy.networks.cost import count_multiply_adds, count_parameters
from nasproxy.spaces.contract import check_contract, why_no_answer
from nasproxy.spaces.sampling import stratified
from nasproxy.spaces.source import space_location
from nasproxy.spaces.space import Config, SearchSpace
from nasproxy.spaces.watched_config import WatchedConfig

EXAMINED = 100_000
"""The largest number of candidates that ``is_valid`` is asked about."""

IMAGES = 4
"""Images in the batch that a candidate is tried on."""


@dataclass(frozen=True)
class SpaceReport:
    """What trying a space out has shown.

    Args:
        candidates: the size of the space.
        examined: candidates that ``is_valid`` was asked about, all of them up to a hundred thousand.
        valid: those of the examined that it accepted.
        invalid: for each reason it gave, how many it refused.
        compared: candidates that were looked at for duplicates: the valid ones of the examined where the space has a
            canonical form of its own, else those tried.
        duplicates: those of them that are the same network as one before: by the canonical form, or as the same seed
            gives them the same weights, logits and gradients.
        tried: candidates that were built and trained for one step.
        output_shape: what all that were tried make of four images; None where none came so far.
        parameters: the fewest and the most of those tried; None where none could be built.
        multiply_adds: likewise, of the forward pass of one image.
        seconds: median time of one forward and backward pass of four images.
        problems: what is wrong, in sentences.
    """

    candidates: int
    examined: int
    valid: int
    invalid: Mapping[str, int]
    compared: int
    duplicates: int
    tried: int
    output_shape: tuple[int, int] | None
    parameters: tuple[int, int] | None
    multiply_adds: tuple[int, int] | None
    seconds: float | None
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check_space(
    space: SearchSpace,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: tuple[int, int] = (16, 16),
    sample: int = 20,
    seed: int = 0,
) -> SpaceReport:
    """Asks ``is_valid`` about the space and sends random images through a stratified sample of it.

    Args:
        space: a space that keeps the contract.
        in_channels: channels of an image.
        num_classes: number of logits.
        image_size: (height, width) in pixels.
        sample: how many valid candidates are built; all of them where there are no more.
        seed: of the sample, the weights and the images. The global random state is left alone.

    Raises:
        SpaceError: the space has no name or no choices to build anything from.
    """
    check_contract(space, type(space).__name__)
    trial = _Trial(space, in_channels, num_classes, image_size, seed)
    examined: Iterable[Config] = space if len(space) <= EXAMINED else space.sample(EXAMINED, seed)
    valid = [config for config in examined if trial.is_valid(config)]
    if not valid:
        trial.problem(f"No candidate is valid for images of {image_size[0]}×{image_size[1]} pixels")
    with torch.random.fork_rng(devices=[]):
        for config in stratified(space, valid, sample, seed):
            trial.attempt(config)
    trial.judge_choices()
    compared = trial.behaviours
    if type(space).canonical_form is not SearchSpace.canonical_form:
        compared = [space.canonical_form(dict(config)) for config in valid]
    return SpaceReport(
        candidates=len(space),
        examined=min(len(space), EXAMINED),
        valid=len(valid),
        invalid=dict(trial.reasons),
        compared=len(compared),
        duplicates=len(compared) - len({*compared}),
        tried=len(trial.seconds),
        output_shape=(IMAGES, num_classes) if trial.seconds else None,
        parameters=_range(trial.parameters),
        multiply_adds=_range(trial.multiply_adds),
        seconds=statistics.median(trial.seconds) if trial.seconds else None,
        problems=trial.sentences(),
    )


@dataclass
class _Trial:
    """A space under test, and what has been found so far."""

    space: SearchSpace
    in_channels: int
    num_classes: int
    image_size: tuple[int, int]
    seed: int
    reasons: Counter[str] = field(default_factory=Counter)
    parameters: list[int] = field(default_factory=list)
    multiply_adds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    behaviours: list[str] = field(default_factory=list)
    _looked_at: dict[str, bool] = field(default_factory=dict)
    _met: WeakValueDictionary[int, nn.Parameter] = field(default_factory=WeakValueDictionary)
    _found: dict[str, list[Config | None]] = field(default_factory=dict)

    def problem(self, text: str, config: Config | None = None) -> None:
        """Notes something wrong, with ``config`` or with the space as a whole."""
        self._found.setdefault(text, []).append(config)

    def sentences(self) -> tuple[str, ...]:
        """Each problem once, with the number of candidates that have it and the first of them."""
        return tuple(_sentence(text, configs) for text, configs in self._found.items())

    def is_valid(self, config: Config) -> bool:
        """What the space says of ``config``; an answer that is none counts as a no."""
        try:
            answer = self.space.is_valid(dict(config), self.image_size)
        except (Exception, SystemExit) as error:  # whatever the user's code raises is a finding
            self.problem(f"is_valid fails{self._reason(error)}", config)
            return False
        if wrong := why_no_answer(answer):
            self.problem(f"is_valid returns {wrong}", config)
        elif answer is not True:
            self.reasons[answer or "no reason given"] += 1
        return answer is True

    def attempt(self, config: Config) -> None:
        """Builds ``config``, sends images forward and the loss backward, and counts what it costs."""
        given = WatchedConfig(config)
        step = "build"
        try:
            model = self._build(given)
            for name in config:
                self._looked_at[name] = self._looked_at.get(name, False) or name in given.read
            if not given.is_still(config):
                self.problem("build changes the configuration it is given; let it work on a copy", config)
            if not isinstance(model, nn.Module):
                self.problem(f"build returns {type(model).__name__} instead of a torch.nn.Module", config)
                return
            self._judge_layers(model, config)
            weights = _weights(model)
            step = "the forward or backward pass"
            if self._trains(model, config):
                self.parameters.append(count_parameters(model))
                step = "the forward pass of one image in evaluation mode"
                self.multiply_adds.append(count_multiply_adds(model, self.in_channels, self.image_size))
                step = "building the network again"
                self._judge_seed(weights, _weights(self._build(dict(config))), config)
        except (Exception, SystemExit) as error:  # whatever the user's code raises is a finding
            self.problem(f"{step} fails{self._reason(error)}", config)

    def judge_choices(self) -> None:
        """Finds the choices that no network depends on, where nothing else is wrong that would hide it."""
        unused = [name for name, looked_at in self._looked_at.items() if not looked_at]
        for name in unused if not self._found else ():
            self.problem(f"build never looks at the choice {name}: what differs in it alone is the same network")

    def _judge_layers(self, model: nn.Module, config: Config) -> None:
        """Finds what candidates would train for each other; frozen layers they may share."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if any(id(parameter) in self._met for parameter in trained):
            self.problem("build gives a layer that another candidate has too; let it make new ones each time", config)
        self._met.update({id(parameter): parameter for parameter in trained})

    def _judge_seed(
        self, weights: Mapping[str, torch.Tensor], again: Mapping[str, torch.Tensor], config: Config
    ) -> None:
        """Finds weights that torch's seed does not decide: resumed and distributed searches build networks again."""
        if weights.keys() != again.keys() or not all(map(_are_equal, weights.values(), again.values())):
            self.problem(
                "build gives other weights when it is called again after the same torch.manual_seed; "
                "let it draw from torch alone, not from NumPy or random",
                config,
            )

    # Not said to be a dict: checks of types at run time would look at all choices, and so count them as used.
    def _build(self, config: Any) -> Any:
        torch.manual_seed(self.seed)  # the same one for all, so that equal networks get equal weights
        return self.space.build(
            config, in_channels=self.in_channels, num_classes=self.num_classes, image_size=self.image_size
        )

    def _trains(self, model: nn.Module, config: Config) -> bool:
        """One forward and backward pass of random images; False where it leaves nothing to measure."""
        torch.manual_seed(self.seed)  # whatever building has drawn
        images = torch.randn(IMAGES, self.in_channels, *self.image_size)
        labels = torch.arange(IMAGES) % self.num_classes
        start = time.perf_counter()
        logits: object = model.train()(images)
        if not isinstance(logits, torch.Tensor):
            self.problem(f"the network returns {type(logits).__name__} instead of a tensor of logits", config)
            return False
        if logits.shape != (IMAGES, self.num_classes):
            expected, got = (IMAGES, self.num_classes), tuple(logits.shape)
            self.problem(f"the network maps {IMAGES} images to shape {got}, expected {expected}", config)
            return False
        if _are_probabilities(logits):
            self.problem("the network gives probabilities; leave the softmax out, as the loss takes logits", config)
        loss = F.cross_entropy(logits.float(), labels)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            self.problem("the network has no parameter to train", config)
            return False
        torch.autograd.backward(loss)
        self.seconds.append(time.perf_counter() - start)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        if not loss.isfinite():
            self.problem("the loss of a fresh network is not finite", config)
        elif not all(bool(gradient.isfinite().all()) for gradient in gradients):
            self.problem("the gradient of a fresh network is not finite", config)
        self.behaviours.append(_digest([*model.parameters(), logits, *gradients]))
        return True

    def _reason(self, error: BaseException) -> str:
        place = space_location(error, self.space)
        return f"{f' at {place}' if place else ''}: {type(error).__name__}: {str(error).strip().rstrip('.')}"


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the parameters and buffers of a network just built; lazy ones will be drawn by torch."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named if not is_lazy(tensor)}


def _are_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _are_probabilities(outputs: torch.Tensor) -> bool:
    sums = outputs.detach().float().sum(1)
    return outputs.shape[1] > 1 and bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums))


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _range(values: list[int]) -> tuple[int, int] | None:
    return (min(values), max(values)) if values else None


def _sentence(text: str, configs: list[Config | None]) -> str:
    first = configs[0]
    if first is None:
        return f"{text}."
    where = ", ".join(f"{name}={value}" for name, value in first.items())
    return f"{text} (with {where}{f', and {len(configs) - 1} more' if len(configs) > 1 else ''})."
