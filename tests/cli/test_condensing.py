"""A stranger's method, which learns nothing step by step, cannot be stopped on its way."""

from pathlib import Path

import pytest

from nasproxy.cli.condensing import Order
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.coresets.random import RandomImages
from nasproxy.errors import InputError


def order(recipe, **changes):
    asked = {"resume": False, "time_budget": None, "evaluate_every": 0, "checkpoint_every": 30.0} | changes
    data = {"dataset": "digits", "data_dir": None, "image_size": None, "skip_broken": False}
    return Order(**data, recipe=recipe, device="cpu", precision="float32", seed=0, out=Path("a.safetensors"), **asked)


@pytest.mark.parametrize("asked", [{"resume": True}, {"time_budget": 1.0}, {"evaluate_every": 2}])
def test_what_needs_a_stop_is_refused_where_there_is_none(asked):
    order(RandomImages(1))
    order(MatchingRecipe(ipc=1), **asked)
    with pytest.raises(InputError, match="random cannot be stopped") as caught:
        order(RandomImages(1), **asked)
    assert next(iter(asked)).replace("_", "-") in caught.value.hint
