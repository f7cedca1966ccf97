import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasproxy.search.proposals import SAMPLERS, Proposals
from nasproxy.spaces.candidate import Candidate

CHOICES = {"a": [0, 1, 2, 3, 4, 5, 6, 7], "b": [0, 1, 2, 3, 4, 5, 6, 7], "c": ["x", "y", None, 1.5]}


def space(valid=lambda config: True) -> list[Candidate]:
    configs = (dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values()))
    return [Candidate.of(config) for config in configs if valid(config)]


def drive(proposals: Proposals, count: int, generation: int, values) -> list[Candidate]:
    seen: list[Candidate] = []
    while len(seen) < count and (asked := proposals.ask(min(generation, count - len(seen)))):
        seen += asked
        for candidate in asked:
            proposals.tell(candidate, values(candidate.config))
    return seen


def closeness(config) -> list[float]:
    return [1.0 - abs(config["a"] - 5) / 8 - abs(config["b"] - 2) / 8 + (config["c"] is None)]


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(sorted(SAMPLERS)), st.integers(0, 2**63 - 1), st.integers(1, 40))
def test_all_of_a_space_is_proposed_once_and_then_no_more(sampler, seed, generation):
    candidates = space(lambda config: config["a"] < 3)
    proposals = Proposals(sampler, candidates, CHOICES, ["accuracy"], seed)
    failing = {candidate.id for candidate in candidates[::7]}
    seen = drive(proposals, 10**6, generation, lambda c: None if Candidate.of(c).id in failing else closeness(c))
    assert sorted(c.id for c in seen) == sorted(c.id for c in candidates)
    assert proposals.ask(1) == []


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_the_same_seed_and_scores_give_the_same_proposals(sampler):
    def seen(seed: int) -> list[str]:
        proposals = Proposals(sampler, space(), CHOICES, ["accuracy"], seed)
        return [c.id for c in drive(proposals, 60, 10, closeness)]

    assert seen(3) == seen(3)
    assert seen(3) != seen(4)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_that_listen_find_better_candidates_than_chance(sampler):
    def found(name: str) -> float:
        runs = [drive(Proposals(name, space(), CHOICES, ["accuracy"], seed), 100, 10, closeness) for seed in range(8)]
        return sum(closeness(candidate.config)[0] for run in runs for candidate in run)

    assert found(sampler) > found("random") * 1.1


def test_several_objectives_each_in_its_direction():
    def late(seed: int) -> list[Candidate]:
        proposals = Proposals("nsga2", space(), CHOICES, ["parameters", "accuracy"], seed)
        return drive(proposals, 80, 20, lambda config: [float(config["a"]), float(config["b"])])[40:]

    # Small in the first, large in the second.
    assert sum(candidate.config["b"] - candidate.config["a"] for seed in range(8) for candidate in late(seed)) > 80
