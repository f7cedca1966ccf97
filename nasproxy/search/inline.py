"""The executor that needs nothing: trainings one after another in this process. The reference for the others."""

from __future__ import annotations

from nasproxy.search.bench import Bench, Payload
from nasproxy.search.campaign import Campaign


def run_inline(campaign: Campaign, payload: Payload) -> None:
    """Performs all trainings of ``campaign``."""
    bench = Bench(payload)
    while not campaign.finished:
        for task in campaign.next_bundle(workers=1):
            while campaign.record(bench.perform(task)):
                pass  # it waited for a decision, and goes on
