"""The executor that needs nothing: trainings one after another in this process. The reference for the others."""

from __future__ import annotations

from nasproxy.errors import ClusterError
from nasproxy.search.bench import Bench, Payload
from nasproxy.search.campaign import Campaign


def run_inline(campaign: Campaign, payload: Payload) -> None:
    """Performs all trainings of ``campaign``.

    Raises:
        ClusterError: nothing can be trained in this process, or not any more.
    """
    bench = Bench(payload)
    while not campaign.finished:
        for task in campaign.next_bundle(workers=1):
            while campaign.record(bench.perform(task)):
                pass  # it waited for a decision, and goes on
            if bench.broken is not None:
                raise ClusterError(
                    f"After a training failed, the GPU cannot be used by this process any more: {bench.broken}",
                    "Go on with --resume: a new process can.",
                )
