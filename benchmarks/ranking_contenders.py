"""What ``ranking_ablation.py`` compares: ways to make a small set, to train candidates on it, and to score them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.coresets.random import RandomImages
from nasproxy.proxies.method import ProxyMethod

IPC = 10
RIVAL, EARLY = "random", "early-stopping"
HARD, SOFT, SIAMESE, BOTH = "hard", "soft", "siamese", "soft-siamese"
TAUGHT, AUGMENTED = (SOFT, BOTH), (SIAMESE, BOTH)

PER_MINUTE = {"dc": 3.5, "dc-space": 10.0, "dsa-space": 7.5, "dm": 77.0, "dm-space": 90.0}
"""Outer iterations in a minute of a busy core (AMD EPYC with AVX512-bf16), 16×16×3 images of 10 classes.

Measured, in processor seconds each: dc 13.5 to 13.9, dc-space 5.0 (3.2 and 5.8 for two draws of networks), dsa-space
6.7 (4.2 and 7.9), dm 0.65, dm-space 0.5. By these, a minute here is some 50 seconds.
"""


@dataclass(frozen=True)
class Contender:
    """A way to rank.

    Args:
        name: what ``--contenders`` calls it.
        images: which sets, one of :func:`methods`; or early stopping's, other real images in each step.
        training: how candidates are trained on a set: ``hard``, on the classes of its images; ``soft``, on their class
            probabilities; ``siamese``, on the classes, with the augmentation of dsa and dm; ``soft-siamese``, on the
            probabilities with it.
        real_statistics: whether batch-norm statistics are those of real images when candidates are scored.
    """

    name: str
    images: str
    training: str = HARD
    real_statistics: bool = False

    @property
    def score(self) -> str:
        """Which of a training's scores: one is scored under both kinds of statistics."""
        return "real_statistics" if self.real_statistics else "accuracy"


CONTENDERS = (
    Contender(RIVAL, "random"),
    Contender("random-soft", "random", SOFT),
    Contender("random-siamese", "random", SIAMESE),
    Contender("random-soft-siamese", "random", BOTH),
    Contender("random-statistics", "random", real_statistics=True),
    Contender("random-siamese-statistics", "random", SIAMESE, real_statistics=True),
    Contender(EARLY, EARLY),
    Contender("dc-noise", "dc-noise"),
    Contender("dc-real", "dc-real"),
    Contender("dc-real-statistics", "dc-real", real_statistics=True),
    Contender("dc-real-siamese", "dc-real", SIAMESE),
    Contender("dc-real-soft-siamese", "dc-real", BOTH),
    Contender("dc-real-siamese-statistics", "dc-real", SIAMESE, real_statistics=True),
    Contender("dc-real-long", "dc-real-long"),
    Contender("dc-space", "dc-space"),
    Contender("dc-space-soft", "dc-space", SOFT),
    Contender("dc-space-siamese", "dc-space", SIAMESE),
    Contender("dsa-space", "dsa-space"),
    Contender("dsa-space-siamese", "dsa-space", SIAMESE),
    Contender("dsa-space-siamese-statistics", "dsa-space", SIAMESE, real_statistics=True),
    Contender("dm", "dm"),
    Contender("dm-statistics", "dm", real_statistics=True),
    Contender("dm-siamese", "dm", SIAMESE),
    Contender("dm-siamese-statistics", "dm", SIAMESE, real_statistics=True),
    Contender("dm-space", "dm-space"),
    Contender("dm-space-soft", "dm-space", SOFT),
    Contender("dm-space-siamese", "dm-space", SIAMESE),
    Contender("dm-space-statistics", "dm-space", real_statistics=True),
)


def methods(minutes: float) -> dict[str, ProxyMethod]:
    """How each kind of set is made; each condensed one in about ``minutes`` of one core, the long one in three times.

    All networks of a space are of the 720 ConvNets that take 2.5 times the multiply-adds of the default one at most.
    """

    def iterations(name: str, times: int = 1) -> int:
        return max(1, round(times * minutes * PER_MINUTE[name]))

    quick: dict[str, Any] = {"ipc": IPC, "matching_steps": IPC, "inner_epochs": 10, "real_batch": 64}
    space: dict[str, Any] = {"network": "space:convnet720"}
    dc = MatchingRecipe(**quick, iterations=iterations("dc"), initial="real")
    return {
        "random": RandomImages(IPC),
        "dc-noise": replace(dc, initial="noise"),
        "dc-real": dc,
        "dc-real-long": replace(dc, iterations=iterations("dc", 3)),
        "dc-space": replace(dc, iterations=iterations("dc-space"), **space),
        "dsa-space": SiameseRecipe(**quick, iterations=iterations("dsa-space"), **space),
        "dm": DistributionRecipe(ipc=IPC, iterations=iterations("dm")),
        "dm-space": DistributionRecipe(ipc=IPC, iterations=iterations("dm-space"), **space),
    }
