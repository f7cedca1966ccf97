"""Which candidates of a space take part in a search."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence

from nasproxy.errors import InputError, SpaceError
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.contract import why_no_answer
from nasproxy.spaces.source import space_location
from nasproxy.spaces.space import Config, SearchSpace

MOST = 10_000_000
"""Candidates of one search: more of them fill the memory."""

_LISTED = 1_000_000
"""A sample is drawn from all valid candidates of a space that is no larger."""


def choose_candidates(
    space: SearchSpace, image_size: tuple[int, int], *, limit: int | None, seed: int
) -> tuple[list[Candidate], Counter[str]]:
    """All valid candidates of ``space``, or a stratified sample of ``limit`` of them; how many are invalid, by reason.

    Of a space of more than a million candidates, only so many are looked at as a sample takes.

    Args:
        space: to choose from.
        image_size: (height, width) in pixels.
        limit: at most this many; None takes all.
        seed: of the sample.

    Raises:
        InputError: ``limit`` is larger than the number of valid candidates.
        SpaceError: no candidate is valid, there are too many, or ``is_valid`` raises or answers neither yes nor no.
    """
    size = len(space)
    if min(size, limit or size) > MOST:
        raise SpaceError(
            f"{space.name} has {size:,} candidates; a search takes {MOST:,} at most.",
            "Use --limit N to rank a sample of N.",
        )
    configs, answers = _look_at(space, image_size, limit=limit, seed=seed)
    valid = [config for config, answer in zip(configs, answers, strict=True) if answer is True]
    whose = space.name if len(configs) == size else f"{len(configs):,} drawn from {space.name}"
    reasons = Counter(answer or "no reason given" for answer in answers if answer is not True)
    if not valid:
        reason = reasons.most_common(1)[0][0]
        raise SpaceError(
            f"No candidate of {whose} is valid at {image_size[0]}×{image_size[1]} pixels: {reason}.",
            "Choose another --image-size, or other choices, as that reason says.",
        )
    if limit is not None and limit > len(valid):
        raise InputError(
            f"--limit {limit} is more than the {len(valid)} valid candidates of {whose}.",
            f"Use --limit {len(valid)} or less.",
        )
    chosen = valid if limit is None else stratified(space, valid, limit, seed)
    return [Candidate.of(config) for config in chosen], reasons


def _look_at(
    space: SearchSpace, image_size: tuple[int, int], *, limit: int | None, seed: int
) -> tuple[list[Config], list[bool | str]]:
    """All configurations, or as many of a large space as hold ``limit`` valid ones, and what ``is_valid`` says."""
    size = len(space)
    count = size if limit is None or size <= _LISTED else limit
    while True:
        configs = list(space) if count == size else space.sample(count, seed)
        answers = [_ask(space, config, image_size) for config in configs]
        if limit is None or answers.count(True) >= limit or count >= min(size, _LISTED):
            return configs, answers
        count = min(2 * count, _LISTED)


def stratified(space: SearchSpace, valid: Sequence[Config], count: int, seed: int) -> list[Config]:
    """``count`` of the valid configurations: those of a stratified sample of the space, made up by uniform draws."""
    if len(valid) <= count:
        return list(valid)
    accepted = {json.dumps(config): config for config in valid}
    wanted = [json.dumps(config) for config in space.sample(count, seed)]
    picked = [accepted.pop(key) for key in wanted if key in accepted]
    return picked + random.Random(seed).sample(list(accepted.values()), count - len(picked))


def _ask(space: SearchSpace, config: Config, image_size: tuple[int, int]) -> bool | str:
    try:
        answer = space.is_valid(dict(config), image_size)
    except (Exception, SystemExit) as error:
        where = space_location(error, space) or space.name
        raise SpaceError(
            f"is_valid of {space.name} raised {type(error).__name__}: {error} ({where}).", "Mend it and try again."
        ) from error
    if wrong := why_no_answer(answer):
        raise SpaceError(
            f"is_valid of {space.name} returned {wrong}.", "A number or an array's truth becomes one by bool(…)."
        )
    return answer
