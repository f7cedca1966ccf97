"""A running Ray cluster: what its nodes hold, asked before a search begins.

The question is put by a process of its own (``python -m nasproxy.search.cluster ADDRESS``): where nobody answers, Ray
retries for minutes, writes to stderr from native code, and cannot be interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nasproxy.errors import ClusterError, InputError

_REACH = 5.0  # seconds to open a connection
_ANSWER = 90.0  # seconds for all of the question, most of which is the import of Ray on a busy machine
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


def find_nodes(address: str) -> list[Node]:
    """The living nodes of the cluster at ``address``.

    Args:
        address: ``host:port`` of the head, or ``auto`` for the cluster that this machine is a node of.

    Raises:
        ClusterError: nobody answers there, or not as a cluster that this process could join.
    """
    if address != "auto":
        _reach(address)
    words = [sys.executable, "-m", __name__, address]
    try:
        done = subprocess.run(  # noqa: S603, our own words
            words, env=os.environ | _IMPATIENT, capture_output=True, text=True, check=False, timeout=_ANSWER
        )
    except subprocess.TimeoutExpired as error:
        raise _refusal(address, "it does not answer") from error
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise _refusal(address, _reason(done.stdout + done.stderr))
    return [Node.of(resources) for resources in json.loads(lines[-1])]


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


def _ask(address: str) -> list[dict[str, Any]]:
    import ray

    ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(_ask(sys.argv[1]))}\n")
