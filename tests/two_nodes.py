"""Holds a cluster of two Ray nodes on loopback until its input ends: ``two_nodes.py FOLDER HEAD_CORES GPUS``.

The second node has one core, or as many as it takes to share each of the GPUs that Ray is told it has by two.

Each node has a folder of its own to work in, and says which it is by the variable TINY_NODE. Says on one line, as JSON,
the cluster's address, the raylets of both and the head's server. ``ray start`` does not bind to loopback where it is
given two nodes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

LOOPBACK = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 80_000_000}


def add_node(cluster: Cluster, folder: Path, **more: Any) -> Any:
    folder.mkdir(parents=True)
    os.chdir(folder)
    return cluster.add_node(**LOOPBACK, env_vars={"TINY_NODE": folder.name}, **more)


def main(folder: Path, head_cores: int, gpus: int) -> None:
    cluster = Cluster()
    try:
        head = add_node(cluster, folder / "1", num_cpus=head_cores)
        second = add_node(cluster, folder / "2", num_cpus=max(1, 2 * gpus), num_gpus=gpus)
        raylets = [node.all_processes["raylet"][0].process.pid for node in (head, second)]
        (gcs,) = head.all_processes["gcs_server"]
        print(json.dumps({"address": cluster.address, "raylets": raylets, "gcs": gcs.process.pid}), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
