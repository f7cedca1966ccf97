"""A running Ray cluster: what its nodes hold, asked before a search begins.

The questions are put by a process of its own (``python -m nasproxy.search.cluster QUESTION ADDRESS``): where nobody
answers, Ray retries for minutes, writes to stderr from native code, and cannot be interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nasproxy.errors import ClusterError, InputError

_REACH = 5.0  # seconds to open a connection
_ANSWER = 90.0  # seconds for all of the question, most of which are imports on a busy machine
_IMPATIENT = {
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_gcs_rpc_server_connect_timeout_s": "2",
    "RAY_py_gcs_connect_timeout_s": "5",
    "RAY_gcs_server_request_timeout_seconds": "5",
}


@dataclass(frozen=True)
class Node:
    """What one machine of a cluster offers.

    Args:
        cpus: cores, as Ray was told.
        gpus: likewise.
    """

    cpus: float
    gpus: float

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> Node:
        """The node of which Ray says that it has ``resources``."""
        return cls(resources.get("CPU", 0.0), resources.get("GPU", 0.0))


def check_address(address: str) -> None:
    """Makes sure that ``address`` is ``auto`` or ``host:port``.

    Raises:
        InputError: it is not.
    """
    host, _, port = address.rpartition(":")
    whole = host and "/" not in host and port.isdecimal() and 0 < int(port) < 65536
    if address != "auto" and not whole:
        raise InputError(
            f"--address must be host:port or auto, got {address!r}.",
            "Give the address that ray start --head has printed; ray:// addresses are not for this.",
        )


def check_unconnected() -> None:
    """Makes sure that this process has no Ray of its own, or of a cluster, yet; does not load Ray.

    Raises:
        InputError: it has.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        raise InputError(
            "Ray is already running in this process.", "Call ray.shutdown() first, or use executor='inline'."
        )


def find_nodes(address: str) -> list[Node]:
    """The living nodes of the cluster at ``address``.

    Args:
        address: ``host:port`` of the head, or ``auto`` for the cluster that this machine is a node of.

    Raises:
        ClusterError: nobody answers there, or not as a cluster that this process could join.
    """
    if address != "auto":
        _reach(address)
    try:
        return [Node.of(resources) for resources in _answers("nodes", address)]
    except _UnansweredError as error:
        raise _refusal(address, str(error)) from error


def find_precision(address: str) -> str:
    """What the precision ``auto`` means on the GPUs of the cluster at ``address``, which its nodes are asked.

    All trainings of a search share one: ``bfloat16`` where it is fast on every GPU, ``float32`` otherwise.

    Raises:
        ClusterError: a node does not say.
    """
    try:
        return common_precision(_answers("precisions", address))
    except _UnansweredError as error:
        raise ClusterError(
            f"The nodes of the Ray cluster do not say which precision their GPUs are fast at: {error}.",
            "Every node needs the same nasproxy; or pass --precision bfloat16 or float32.",
        ) from error


def common_precision(precisions: Sequence[str]) -> str:
    """The one for all of several GPUs, given what ``auto`` means on each."""
    return "bfloat16" if {*precisions} == {"bfloat16"} else "float32"


class _UnansweredError(Exception):
    """The text says why."""


def _answers(question: str, address: str) -> list[Any]:
    words = [sys.executable, "-m", __name__, question, address]
    try:
        done = subprocess.run(  # noqa: S603, our own words
            words, env=os.environ | _IMPATIENT, capture_output=True, text=True, check=False, timeout=_ANSWER
        )
    except subprocess.TimeoutExpired as error:
        raise _UnansweredError("it does not answer") from error
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise _UnansweredError(_reason(done.stdout + done.stderr))
    answers: list[Any] = json.loads(lines[-1])
    return answers


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH).close()
    except OSError as error:
        raise _refusal(address, f"{error.strerror or error}") from error


def _refusal(address: str, reason: str) -> ClusterError:
    where = "on this machine" if address == "auto" else f"at {address}"
    return ClusterError(
        f"The Ray cluster {where} cannot be joined: {reason}.",
        "Start it by ray start --head, and join this machine to it by ray start --address.",
    )


_REASONS = {
    "InvalidAuthToken": "it asks for a token (RAY_AUTH_MODE=token, and the cluster's token where Ray looks for it)",
    "AuthenticationError": "it asks for a token (RAY_AUTH_MODE=token, and the cluster's token where Ray looks for it)",
    "Version mismatch": "its Ray or Python is of another version",
    "No node info found": "this machine is not one of its nodes",
    "Could not find any running Ray": "there is none",
    "Failed to connect": "what answers is no Ray cluster of this version, or one that is not there any more",
}


def _reason(text: str) -> str:
    return next((reason for words, reason in _REASONS.items() if words in text), text.strip().rpartition("\n")[2])


def _ask(question: str, address: str) -> list[Any]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
    alive = [node for node in ray.nodes() if node["Alive"]]
    if question == "nodes":
        return [node["Resources"] for node in alive]
    # It takes nothing of a node, so that it need not wait for what others do there.
    there = ray.remote(num_cpus=0)(_precisions)
    asked = [
        there.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in alive
        if node["Resources"].get("GPU", 0) > 0
    ]
    return [precision for answer in ray.get(asked) for precision in answer]


def _precisions() -> list[str]:
    """What ``auto`` means on each GPU of this machine."""
    # Ray hides the GPUs from a task that takes none.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    import torch

    from nasproxy.training.precision import resolve_precision

    cuda, found = torch.device("cuda"), []
    for number in range(torch.cuda.device_count()):
        with torch.cuda.device(number):
            found.append(resolve_precision("auto", cuda))
    return found or [resolve_precision("auto", cuda)]


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(_ask(*sys.argv[1:]))}\n")
