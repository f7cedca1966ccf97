"""The executor on Ray Tune: a trial is a bundle of trainings, an iteration of it a second of them or one.

One Tune experiment carries the whole search. Its search algorithm asks the campaign for the next bundle, its callback
files every result as it arrives, and its workers are reused from bundle to bundle, so that Tune's own cost is spread
over many candidates and data are loaded once per worker.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the other one prints, however it is asked not to
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study is the one store
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches us as an exception
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed training has no score
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own record of the experiment is never read
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402, the environment comes first
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from nasproxy.errors import InputError, NasproxyError  # noqa: E402
from nasproxy.interruption import unbroken  # noqa: E402
from nasproxy.search.bench import Bench, Payload  # noqa: E402
from nasproxy.search.campaign import Campaign  # noqa: E402
from nasproxy.search.local_ray import dead_process, keeping_signals, loopback_only, ray_folder  # noqa: E402
from nasproxy.search.task import Outcome, Task  # noqa: E402

_PORTION = 1.0  # seconds of work between two reports


class _Worker(tune.Trainable):
    """Performs bundles in a process of Ray's."""

    def setup(self, config: dict[str, Any], payload: Payload | None = None) -> None:
        assert payload is not None
        self._bench = Bench(payload)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._left: list[Task] = list(new_config["bundle"])
        return True

    def step(self) -> dict[str, Any]:
        began = time.monotonic()
        outcomes = []
        # Tune takes tens of milliseconds for a result, longer than a small network trains: they go in portions.
        while self._left and time.monotonic() - began < _PORTION:
            outcomes.append(self._bench.perform(self._left.pop(0)))
        # Tune keeps every result; weights go through the object store and are fetched as they arrive.
        weights = [[ray.put(outcome.weights)] if outcome.weights else [] for outcome in outcomes]
        plain = [replace(outcome, weights={}) for outcome in outcomes]
        return {"outcomes": plain, "weights": weights, "done": not self._left}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the study holds all there is to keep."""


class _NotSaved:
    """Tune saves the description of an experiment, so as to restore it; ours is restored from the study."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Bundles(_NotSaved, Searcher):
    """Gives Tune the campaign's bundles as suggestions."""

    def __init__(self, campaign: Campaign, workers: int) -> None:
        super().__init__()
        self._campaign = campaign
        self._workers = workers

    def suggest(self, trial_id: str) -> Any:
        bundle = self._campaign.next_bundle(self._workers)
        if bundle:
            return {"bundle": bundle}
        # None tells Tune to ask again: others are still training what the next stage depends on.
        return Searcher.FINISHED if self._campaign.finished else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: results are filed by the callback."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Filing(_NotSaved, tune.Callback):
    """Files results as they arrive, and takes back what a dead worker held."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self.error: NasproxyError | None = None

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        outcomes: list[Outcome] = result["outcomes"]
        try:
            # An interruption waits until all that has arrived is stored.
            with unbroken():
                for outcome, weights in zip(outcomes, result["weights"], strict=True):
                    self._campaign.record(replace(outcome, weights=ray.get(weights[0]) if weights else {}))
        except NasproxyError as error:
            # Tune turns whatever is raised here into text; run_on_tune raises the error itself.
            self.error = error
            raise

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if (name := dead_process()) is not None:
            self.error = NasproxyError(
                f"Ray stopped: its process {name} died.", "Go on with --resume; nothing that was finished is lost."
            )
            raise self.error

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._campaign.give_up(trial.config["bundle"], "The worker process died, probably for lack of memory.")


def run_on_tune(campaign: Campaign, payload: Payload, *, workers: int, gpus_per_worker: float) -> None:
    """Performs all trainings of ``campaign`` on a local Ray of ``workers`` workers.

    Args:
        campaign: what to train.
        payload: what workers need; put into the object store once.
        workers: processes.
        gpus_per_worker: share of a GPU each takes; 0 on a CPU.
    """
    if campaign.finished:
        return
    with ray_folder() as folder, _local_ray(workers * payload.threads, folder):
        trainable = tune.with_resources(
            tune.with_parameters(_Worker, payload=payload), {"cpu": payload.threads, "gpu": gpus_per_worker}
        )
        filing = _Filing(campaign)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_Bundles(campaign, workers),
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=workers,
                trial_name_creator=lambda trial: f"bundle-{trial.trial_id}",
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0, callbacks=[filing]),
        )
        try:
            # Stdout is for results; Ray writes there when a worker dies, however it is asked not to.
            with contextlib.redirect_stdout(io.StringIO()):
                tuner.fit()
        except tune.TuneError:
            if filing.error is not None:
                raise filing.error from None
            raise


@contextlib.contextmanager
def _local_ray(cores: int, folder: Path) -> Iterator[None]:
    """A Ray of its own for the time of a search: silent, without dashboard, reachable from this machine only."""
    if ray.is_initialized():
        raise InputError(
            "Ray is already running in this process.", "Call ray.shutdown() first, or use executor='inline'."
        )
    for name in ("ray", "ray.tune", "ray.air", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with unbroken(), keeping_signals(), loopback_only():
                ray.init(
                    address="local",
                    num_cpus=cores,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    logging_level=logging.CRITICAL,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(folder),
                )
            yield
        finally:
            ray.shutdown()
