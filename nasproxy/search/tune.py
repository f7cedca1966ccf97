"""The executor on Ray Tune: a trial is a worker, an iteration of it a second of trainings or one.

One Tune experiment carries the whole search. Its callback files every result as it arrives and hands the worker its
next bundle from the campaign, so that Tune's own cost is spread over many candidates, and a worker starts and loads its
data once. One that has nothing to do, because others must finish a stage, waits and asks again.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import time
import warnings
from collections import Counter
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
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # workers that start side by side
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402, the environment comes first
from ray import tune  # noqa: E402
from ray.exceptions import RayError  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from nasproxy.errors import ClusterError, NasproxyError  # noqa: E402
from nasproxy.interruption import is_ending, unbroken  # noqa: E402
from nasproxy.search.bench import Bench, Payload  # noqa: E402
from nasproxy.search.campaign import Campaign  # noqa: E402
from nasproxy.search.cluster import Node, check_unconnected  # noqa: E402
from nasproxy.search.devices import capacity  # noqa: E402
from nasproxy.search.last_words import last_words  # noqa: E402
from nasproxy.search.local_ray import Vitals, keeping_signals, loopback_only, ray_folder  # noqa: E402
from nasproxy.search.task import Outcome, Task  # noqa: E402

_PORTION = 1.0  # seconds of work between two reports,
_REPORTS = 50.0  # but no more than so many reports in a second of all workers together
_MOST = 100  # trainings in a report: a larger one would stay on its node, and be lost with it after it has arrived
_PAUSE = 0.2  # seconds after which a worker that has nothing to do asks again
_STARTS = 5  # workers in a row that die before they ask for anything
_HANDINGS = 3  # of a bundle that does not arrive
_PATIENCE = 60.0  # seconds without a node that could hold a worker
_DIED = "The worker process died: for lack of memory, or it crashed in native code; Ray does not tell which."


class _Worker(tune.Trainable):
    """Performs bundles in a process of Ray's."""

    def setup(self, config: dict[str, Any], payload: Payload | None = None) -> None:
        assert payload is not None
        self._bench = Bench(payload)
        self._left: list[Task] = []
        self._pause: float = config["pause"]
        self._portion: float = config["portion"]
        self._idle = 0  # steps in a row without work

    def give(self, bundle: list[Task], *, anew: bool = False) -> None:
        """What to do next, or ``anew`` instead of all that is left; called from the driver, between two steps."""
        if anew:
            self._left.clear()
        self._left[:0] = bundle

    def step(self) -> dict[str, Any]:
        began = time.monotonic()
        outcomes: list[Outcome] = []
        refused: tuple[str, str] | None = None  # message and hint
        if self._left:
            self._idle = 0
        else:
            self._wait()
        # Tune takes milliseconds for a result, longer than a small network trains: they go in portions.
        while self._left and len(outcomes) < _MOST and time.monotonic() - began < self._portion:
            try:
                outcomes.append(self._bench.perform(self._left[0]))
            except ClusterError as error:
                refused = error.message, error.hint
                break
            self._left.pop(0)
            if outcomes[-1].unfinished or self._bench.broken is not None:
                break
        # Tune keeps every result; weights go through the object store and are fetched as they arrive.
        weights = [[ray.put(outcome.weights)] if outcome.weights else [] for outcome in outcomes]
        plain = [replace(outcome, weights={}) for outcome in outcomes]
        worker = ray.get_runtime_context().current_actor
        # A process whose GPU is broken ends, and another one takes its place.
        ends = {"done": True} if self._bench.broken is not None else {}
        return {
            "outcomes": plain,
            "weights": weights,
            "worker": worker,
            "left": len(self._left),
            "refused": refused,
            **ends,
        }

    def _wait(self) -> None:
        """Until it is time to ask for work again; the first time at once."""
        if self._idle == 1:
            self._bench.rest()
        if self._idle:
            time.sleep(self._pause)
        self._idle += 1

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the study holds all there is to keep."""


class _NotSaved:
    """Tune saves the description of an experiment, so as to restore it; ours is restored from the study."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Lanes(_NotSaved, Searcher):
    """Has Tune start workers, as long as there is something to do for one more.

    A worker holds nothing until it runs and asks: for one that a lost node leaves without a place nobody waits.
    """

    def __init__(self, campaign: Campaign, workers: int) -> None:
        super().__init__()
        self._campaign = campaign
        self._workers = workers

    def suggest(self, trial_id: str) -> Any:
        if self._campaign.has_work:
            # Tune's one driver takes some hundred reports a second; more workers report less often.
            share = self._workers / _REPORTS
            return {"pause": max(_PAUSE, share), "portion": max(_PORTION, share)}
        # None tells Tune to ask again: others are still training what the next stage depends on.
        return Searcher.FINISHED if self._campaign.finished else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: results are filed by the callback."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _End(_NotSaved, tune.Stopper):
    """Ends all workers when the campaign is over."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether nothing is left to do."""
        return self._campaign.finished


class _Filing(_NotSaved, tune.Callback):
    """Files results as they arrive, hands out what comes next, and takes back what a dead worker or node held."""

    def __init__(self, campaign: Campaign, workers: int, threads: int, gpus_per_worker: float) -> None:
        self._campaign = campaign
        self._workers = workers
        self._needs = threads, gpus_per_worker
        self._held: dict[str, list[Task]] = {}
        self._unheard: Counter[str] = Counter()
        self._stillborn = 0
        self._dead_before = _dead_nodes()
        self._vitals = Vitals()
        self._last_room = self._last_look = time.monotonic()
        self.error: NasproxyError | None = None

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        held = self._held.setdefault(trial.trial_id, [])
        # Tune would keep all it is shown.
        outcomes, weights_of, worker = result.pop("outcomes"), result.pop("weights"), result.pop("worker")
        refused = result.pop("refused")
        with self._kept():
            # From here on they are no matter of this trial any more, even if one is lost and goes to another.
            for outcome in outcomes:
                held.remove(outcome.task)
            missing = len(held) != result.pop("left")
            for outcome, weights in zip(outcomes, weights_of, strict=True):
                try:
                    fetched = ray.get(weights[0]) if weights else {}
                except RayError:
                    self._give_up([outcome.task])
                else:
                    if self._campaign.record(replace(outcome, weights=fetched)):
                        held.append(outcome.task)
                        worker.give.remote([outcome.task])
            if refused is not None:
                message, hint = refused
                raise ClusterError(f"A worker on the node {result['node_ip']} cannot go on: {message}", hint)
            if result.get("done"):
                return
            if missing:
                self._hand_out_again(trial.trial_id, worker)
                return
            self._unheard.pop(trial.trial_id, None)
            if not held and (bundle := self._campaign.next_bundle(self._workers)):
                held.extend(bundle)
                # It arrives before the next step, which Tune asks for when this callback is done.
                worker.give.remote(bundle)

    def _hand_out_again(self, trial_id: str, worker: Any) -> None:
        """Of a worker that has not received what it was handed; one that never does is replaced by another."""
        self._unheard[trial_id] += 1
        if self._unheard[trial_id] > _HANDINGS:
            ray.kill(worker)
        else:
            worker.give.remote(self._held[trial_id], anew=True)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A worker ends with the campaign; should one end before, it leaves what it held to others."""
        if held := self._held.pop(trial.trial_id, []):
            with self._kept():
                self._give_up(held)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        with self._kept():
            error = Path(trial.error_file).read_text(encoding="utf-8")
            self._stillborn = 0 if trial.trial_id in self._held else self._stillborn + 1
            _check_started(error, self._stillborn)
            self._give_up(self._held.pop(trial.trial_id, []))

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Tune waits for ever where nothing is left to run on; so long as a node can still come, so do we."""
        now = time.monotonic()
        if now - self._last_look < _PATIENCE / 20:
            return
        self._last_look = now
        if capacity([Node.of(node["Resources"]) for node in ray.nodes() if node["Alive"]], *self._needs):
            self._last_room = now
        elif now - self._last_room > _PATIENCE:
            with self._kept():
                raise ClusterError(
                    "No node of the cluster is left that holds a worker; what is finished is kept.",
                    "Add a node, and go on with --resume.",
                )

    def _give_up(self, tasks: list[Task]) -> None:
        # A node that is lost may have taken any of them with it, through no fault of theirs.
        self._campaign.give_up(tasks, _DIED, tries=2 + _dead_nodes() - self._dead_before)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Keeps an error for run_on_tune to raise: Tune turns whatever is raised here into text."""
        try:
            # An interruption waits until all that has arrived is stored.
            with unbroken():
                yield
        except NasproxyError as error:
            self.error = error
            raise

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if (name := self._vitals.dead_process()) is not None:
            with self._kept():
                pass  # A signal that went to Ray's processes too, and was swallowed here: an interruption it is.
            with self._kept():
                raise _death_of(name)


def _death_of(process: str) -> NasproxyError:
    return NasproxyError(
        f"Ray stopped: its process {process} died.", "Go on with --resume; nothing that was finished is lost."
    )


def _dead_nodes() -> int:
    return sum(not node["Alive"] for node in ray.nodes())


def _check_started(error: str, stillborn: int) -> None:
    """Makes sure that workers start: of one Tune reports ``error``, so many in a row have never asked for work."""
    if "raised in its creation task" not in error and stillborn < _STARTS:
        return
    place = re.search(r"\bip=([^,)]+)", error)
    raise ClusterError(
        f"A worker{f' on the node {place[1]}' if place else ''} cannot start: {error.strip().rpartition(chr(10))[2]}",
        "Every node needs the same nasproxy, and what the search space imports; go on with --resume.",
    )


def run_on_tune(
    campaign: Campaign, payload: Payload, *, workers: int, gpus_per_worker: float, address: str | None = None
) -> None:
    """Performs all trainings of ``campaign`` on ``workers`` workers of a Ray of its own, or of a cluster.

    Args:
        campaign: what to train.
        payload: what workers need; put into the object store once, from which it travels to a node once.
        workers: processes.
        gpus_per_worker: share of a GPU each takes; 0 on a CPU.
        address: of a running cluster, which is left as it was found.

    Raises:
        ClusterError: the cluster cannot be joined any more, a worker cannot start on it, or no node is left for one.
    """
    if campaign.finished:
        return
    with ray_folder() as folder, _connected(address, workers * payload.threads, folder):
        trainable = tune.with_resources(
            tune.with_parameters(_Worker, payload=payload), {"cpu": payload.threads, "gpu": gpus_per_worker}
        )
        filing = _Filing(campaign, workers, payload.threads, gpus_per_worker)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_Lanes(campaign, workers),
                num_samples=-1,
                max_concurrent_trials=workers,
                trial_name_creator=lambda trial: f"worker-{trial.trial_id}",
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=str(folder / "tune"), verbose=0, callbacks=[filing], stop=_End(campaign)
            ),
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
def _connected(address: str | None, cores: int, folder: Path) -> Iterator[None]:
    """A running cluster, or a Ray of its own for the time of a search: silent, without dashboard, on this machine."""
    check_unconnected()
    for name in ("ray", "ray.tune", "ray.air", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Until Ray is shut down, which a dead one may not survive either.
    with contextlib.ExitStack() as explained, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        silent: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.CRITICAL}
        try:
            with unbroken(), keeping_signals():
                if address is None:
                    with loopback_only():
                        ray.init(
                            "local",
                            num_cpus=cores,
                            include_dashboard=False,
                            _node_ip_address="127.0.0.1",
                            _temp_dir=str(folder),
                            **silent,
                        )
                else:
                    _join(address, silent)
            explained.enter_context(_explained(address))
            yield
        finally:
            # Of a cluster, this takes leave only. A Ray of our own dies with the process; to shut it down where the
            # signal went to it too takes seconds, in which it may end the process with a code of its own.
            if address is not None or not is_ending():
                ray.shutdown()


def _explained(address: str | None) -> contextlib.AbstractContextManager[None]:
    """Has an end that Ray makes to this process told as an error that it raises."""
    node: Any = ray._private.worker._global_node
    raylet = node.raylet_socket_name, _death_of("raylet")
    if address is None:
        return last_words(*raylet)
    lost = NasproxyError(
        f"Ray ended the search: the head of the cluster, {node.gcs_address}, does not answer any more.",
        "Go on with --resume when it is back; nothing that was finished is lost.",
    )
    return last_words(*raylet, node.gcs_address, lost)


def _join(address: str, silent: dict[str, Any]) -> None:
    try:
        ray.init(address, **silent)
    except (ConnectionError, RuntimeError, RayError) as error:
        raise ClusterError(
            f"The Ray cluster at {address} was there before, but cannot be joined: {error}",
            "Go on with --resume when it is back.",
        ) from error
