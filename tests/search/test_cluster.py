"""Searches on a running cluster: two Ray nodes on loopback, each in a working directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import two_nodes
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from tiny_search import (
    FINALISTS,
    SPACE,
    TRAININGS,
    Said,
    finish,
    invoke,
    read_table,
    recorded_trainings,
    search_words,
    start,
    write_space,
)

from nasproxy.errors import ClusterError, InputError
from nasproxy.search import plan
from nasproxy.search.cluster import Node, check_address, common_precision, find_nodes, find_precision
from nasproxy.search.devices import capacity, cluster_workers, resolve_device
from nasproxy.search.plan import make_plan
from nasproxy.search.settings import SearchSettings
from nasproxy.training.precision import resolve_precision

CLUSTER = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's word for: on loopback
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "300",  # a dead node is noticed within seconds
}

# Nodes meet before they train, so that both take part however slow one is. Where HOLD_AT trainings have begun, node 2
# stands still until it is killed, and node 1 until it does.
MEETING = """
import uuid
from pathlib import Path

Path(__file__).unlink(missing_ok=True)  # a worker must do without the file
NODE = os.environ.get("TINY_NODE")  # the driver has none
MARKS = Path(MARKS_FOLDER)


def wait_for(pattern):
    end = time.monotonic() + 300
    while not any(MARKS.glob(pattern)):
        if time.monotonic() > end:
            raise TimeoutError(pattern)
        time.sleep(0.02)


def meet():
    if NODE is None:
        return
    begun = sum(1 for _ in MARKS.glob("node-*"))
    (MARKS / f"node-{NODE}-{uuid.uuid4()}").touch()
    wait_for("node-1-*")
    wait_for("node-2-*")
    if begun >= HOLD_AT and NODE == "2":
        (MARKS / "held").touch()
        time.sleep(3600)
    if begun >= HOLD_AT:
        wait_for("held")


class Wait("""

STRANGER = """
if os.environ.get("TINY_NODE") == "2":
    raise ImportError("no such library on this node")


class Wait("""


def meeting_space(folder: Path, *, hold_at: int = 10**6) -> tuple[Path, Path]:
    """A space's file, and the folder where its nodes leave marks."""
    marks = folder / "marks"
    marks.mkdir(parents=True)
    text = MEETING.replace("MARKS_FOLDER", repr(str(marks))).replace("HOLD_AT", str(hold_at))
    text = SPACE.replace("\nclass Wait(", text).replace(
        "        activation = {", "        meet()\n        activation = {"
    )
    return write_space(folder / "driver", text), marks


class Cluster:
    """A head and a second node, of one core each unless said otherwise, in processes of their own.

    Of ``gpus`` on the second node there need be none: Ray believes what it is told.
    """

    def __init__(self, folder: Path, *, head_cores: int = 1, gpus: int = 0) -> None:
        self._temporary = tempfile.mkdtemp(prefix="nr-")  # a socket's path must be short
        self._log = folder.with_suffix(".log")
        with self._log.open("wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, Path(two_nodes.__file__), folder, str(head_cores), str(gpus)],
                env={**os.environ, **CLUSTER, "RAY_TMPDIR": self._temporary},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def wait_until_up(self) -> None:
        line = self._keeper.stdout.readline()
        assert line, self._log.read_text()
        said = json.loads(line)
        self.address, self.gcs, self.head_raylet, self.raylet = said["address"], said["gcs"], *said["raylets"]

    def lose_second_node(self) -> None:
        """As when the machine is lost: Ray's workers end as their raylet does, without a word to anybody."""
        os.kill(self.raylet, signal.SIGKILL)

    def stop(self) -> None:
        self._keeper.communicate(timeout=300)
        shutil.rmtree(self._temporary, ignore_errors=True)


def wait_until(happened: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module", autouse=True)
def _on_loopback() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CLUSTER.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One that tests leave as they find it."""
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        found.wait_until_up()
        yield found
    finally:
        found.stop()


@pytest.fixture
def mortal(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One that a test may kill the second node of."""
    found = Cluster(tmp_path / "cluster", head_cores=getattr(request, "param", 1))
    try:
        found.wait_until_up()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of the inline executor, the reference."""
    folder = tmp_path_factory.mktemp("inline")
    assert invoke(*search_words(write_space(folder), folder / "run")).code == 0
    return folder / "run"


def cluster_words(space: Path, out: Path, address: str, *more: str) -> list[str]:
    return search_words(space, out, "--executor", "tune", "--address", address, "--json", *more)


def check_equals(said: Said, out: Path, inline: Path) -> None:
    """The table is that of the reference, each training was recorded once, and Ray has said nothing."""
    assert said.code == 0, said.err
    assert said.json["run"] == str(out)
    assert_frame_equal(read_table(out), read_table(inline))
    trained = recorded_trainings(out)
    assert set(trained.values()) == {1}
    assert trained.keys() == recorded_trainings(inline).keys()
    begins = ("There is no test part", "Measuring candidates", "Ranking, ", "Finalists, ")
    assert all(line.startswith(begins) for line in said.err.splitlines()), said.err
    names = sorted(path.name for path in (inline / "finalists").iterdir())
    assert sorted(path.name for path in (out / "finalists").iterdir()) == names
    for name in names:
        assert (out / "finalists" / name).read_bytes() == (inline / "finalists" / name).read_bytes()


def test_two_nodes_do_the_work_of_one_process(cluster: Cluster, tmp_path: Path, inline: Path):
    space, marks = meeting_space(tmp_path)
    said = finish(start(cluster_words(space, tmp_path / "run", cluster.address), cwd=space.parent))
    check_equals(said, tmp_path / "run", inline)
    assert not space.exists()
    assert len(list(marks.glob("node-*"))) == TRAININGS


@pytest.mark.slow
def test_the_cluster_is_left_as_it_was_and_found_by_itself(
    cluster: Cluster, tmp_path: Path, inline: Path, monkeypatch: pytest.MonkeyPatch
):
    before = sorted(find_nodes(cluster.address), key=str)
    assert before == [Node(1.0, 0.0), Node(1.0, 0.0)]
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    space, _ = meeting_space(tmp_path)
    said = finish(start(cluster_words(space, tmp_path / "run", "auto")))
    check_equals(said, tmp_path / "run", inline)
    assert sorted(find_nodes(cluster.address), key=str) == before


@pytest.mark.slow
@pytest.mark.parametrize("hold_at", [4, TRAININGS - FINALISTS], ids=["ranking", "finalists"])
def test_a_node_killed_midway_loses_nothing(mortal: Cluster, tmp_path: Path, inline: Path, hold_at: int):
    space, marks = meeting_space(tmp_path, hold_at=hold_at)
    process = start(cluster_words(space, tmp_path / "run", mortal.address))
    wait_until(lambda: (marks / "held").exists() or process.poll() is not None)
    mortal.lose_second_node()
    check_equals(finish(process), tmp_path / "run", inline)


@pytest.mark.slow
def test_a_node_killed_at_any_moment_loses_nothing(mortal: Cluster, tmp_path: Path, inline: Path):
    space, _ = meeting_space(tmp_path)
    out = tmp_path / "run"
    process = start(cluster_words(space, out, mortal.address))
    wait_until(lambda: recorded_trainings(out).total() >= 1 or process.poll() is not None)
    mortal.lose_second_node()
    check_equals(finish(process), out, inline)


LOSSY = """
import os, signal, sys, time
from nasproxy.cli.main import run
from nasproxy.search import tune

raylet, file_results, lost = int(sys.argv[1]), tune._Filing.on_trial_result, []

def lose_weights_first(self, iteration, trials, trial, result, **more):
    if any(result["weights"]) and not lost:
        lost.append(trial)
        os.kill(raylet, signal.SIGKILL)
        os.kill(result["pid"], signal.SIGKILL)
        time.sleep(2)
    file_results(self, iteration, trials, trial, result, **more)

tune._Filing.on_trial_result = lose_weights_first
run(sys.argv[2:])
"""


@pytest.mark.slow
def test_weights_lost_between_their_announcement_and_their_arrival_are_trained_again(
    mortal: Cluster, tmp_path: Path, inline: Path
):
    words = cluster_words(write_space(tmp_path), tmp_path / "run", mortal.address)
    process = subprocess.run(
        [sys.executable, "-c", LOSSY, str(mortal.raylet), *words], capture_output=True, text=True, check=False
    )
    check_equals(Said(process.returncode, process.stdout, process.stderr), tmp_path / "run", inline)


@pytest.mark.slow
@pytest.mark.parametrize("mortal", [0], indirect=True, ids=["head without cores"])
def test_without_a_node_that_holds_a_worker_the_search_ends_and_can_go_on(mortal: Cluster, tmp_path: Path):
    space = write_space(tmp_path, SPACE.replace("if self.training:", 'if "TINY_NODE" in os.environ:'))
    out = tmp_path / "run"
    process = start(cluster_words(space, out, mortal.address))
    wait_until(lambda: (out / "study.log").exists() or process.poll() is not None)
    mortal.lose_second_node()
    said = finish(process)
    assert said.code == 2, said.err
    assert said.json["error"]["kind"] == "cluster"
    assert "No node of the cluster is left" in said.json["error"]["message"]
    assert invoke(*search_words(space, out, "--resume")).code == 0
    assert set(recorded_trainings(out).values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("process", ["head_raylet", "gcs"])
def test_a_search_whose_ray_dies_ends_and_can_go_on(mortal: Cluster, tmp_path: Path, process: str):
    waiting = 'if "TINY_NODE" in os.environ:\n            time.sleep(0.5)\n        if self.training:'
    space, out = write_space(tmp_path, SPACE.replace("if self.training:", waiting)), tmp_path / "run"
    search = start(cluster_words(space, out, mortal.address))
    wait_until(lambda: recorded_trainings(out).total() >= 3 or search.poll() is not None)
    os.kill(getattr(mortal, process), signal.SIGKILL)
    said = finish(search)
    assert said.code == 1, said.err
    told = "its process raylet died" if process == "head_raylet" else "the head of the cluster"
    assert told in said.json["error"]["message"]
    assert "--resume" in said.json["error"]["hint"]
    assert f"Error: {said.json['error']['message']}" in said.err
    assert invoke(*search_words(space, out, "--resume")).code == 0
    assert set(recorded_trainings(out).values()) == {1}


SHARED = """
import sys
from nasproxy.cli.main import run
from nasproxy.search import tune

run_on_tune = tune.run_on_tune
# As --device cuda would have it, but for the device.
tune.run_on_tune = lambda campaign, payload, **more: run_on_tune(campaign, payload, **more | {"gpus_per_worker": 0.5})
run(sys.argv[1:])
"""

WITNESS = """
def note(folder=FOLDER):
    if "TINY_NODE" in os.environ:
        names = os.environ["TINY_NODE"], os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()
        open(os.path.join(folder, "-".join(map(str, names))), "w").close()
        end = time.monotonic() + 300  # nobody goes on before all have come
        while len(os.listdir(folder)) < WORKERS and time.monotonic() < end:
            time.sleep(0.02)


class Wait("""


def witnessed_space(folder: Path, *, workers: int) -> tuple[Path, Path]:
    """A space's file, and the folder where each of ``workers`` leaves a mark before any of them trains."""
    marks = folder / "marks"
    marks.mkdir()
    note = WITNESS.replace("FOLDER", repr(str(marks))).replace("WORKERS", str(workers))
    text = SPACE.replace("\nclass Wait(", note)
    return write_space(folder, text.replace("        activation = {", "        note()\n        activation = {")), marks


@pytest.mark.slow
def test_two_workers_share_a_gpu_where_there_is_one(tmp_path: Path, inline: Path):
    space, marks = witnessed_space(tmp_path, workers=2)
    uneven = Cluster(tmp_path / "cluster", head_cores=2, gpus=1)
    try:
        uneven.wait_until_up()
        words = cluster_words(space, tmp_path / "run", uneven.address, "--workers", "2", "--device", "cpu")
        done = subprocess.run([sys.executable, "-c", SHARED, *words], capture_output=True, text=True, check=False)
    finally:
        uneven.stop()
    check_equals(Said(done.returncode, done.stdout, done.stderr), tmp_path / "run", inline)
    assert sorted(path.name.rpartition("-")[0] for path in marks.iterdir()) == ["2-0", "2-0"]


# The bytes that each node's object store has ever been given, looked at just before the search leaves the cluster.
STORES = """
import json, sys
import ray
from nasproxy.cli.main import run
from nasproxy.search import tune
from ray._private.internal_api import node_stats

file, run_on_tune, shutdown = sys.argv[1], tune.run_on_tune, ray.shutdown
found = {}

def given(node):
    return node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats.cumulative_created_bytes

def look_and_shut_down():
    found["stores"] = [given(node) for node in ray.nodes()]
    shutdown()

def run_and_look(campaign, payload, **more):
    found["payload"] = sum(images.nbytes + labels.nbytes for images, labels in payload.splits.values())
    run_on_tune(campaign, payload, **more)

ray.shutdown, tune.run_on_tune = look_and_shut_down, run_and_look
try:
    run(sys.argv[2:])
finally:
    with open(file, "w") as out:
        json.dump(found, out)
"""


@pytest.mark.slow
def test_the_data_travel_to_a_node_once_however_many_workers_it_has(tmp_path: Path, inline: Path):
    space, marks = witnessed_space(tmp_path, workers=4)
    # A node with a GPU has two cores; nobody uses the GPU.
    even = Cluster(tmp_path / "cluster", head_cores=2, gpus=1)
    try:
        even.wait_until_up()
        words = cluster_words(space, tmp_path / "run", even.address, "--workers", "4", "--device", "cpu")
        program = [sys.executable, "-c", STORES, str(tmp_path / "stores")]
        done = subprocess.run([*program, *words], capture_output=True, text=True, check=False)
    finally:
        even.stop()
    check_equals(Said(done.returncode, done.stdout, done.stderr), tmp_path / "run", inline)
    assert sorted(path.name[0] for path in marks.iterdir()) == ["1", "1", "2", "2"]
    found = json.loads((tmp_path / "stores").read_text())
    assert len(found["stores"]) == 2
    assert all(1 <= stored / found["payload"] < 1.5 for stored in found["stores"]), found


@pytest.mark.slow
def test_nodes_with_gpus_are_asked_for_their_precision(tmp_path: Path):
    told = Cluster(tmp_path / "cluster", head_cores=0, gpus=1)
    try:
        told.wait_until_up()
        assert find_precision(told.address) == resolve_precision("auto", torch.device("cuda"))
    finally:
        told.stop()


@pytest.mark.slow
def test_a_node_on_which_the_space_cannot_be_loaded_is_named(cluster: Cluster, tmp_path: Path):
    space = write_space(tmp_path, SPACE.replace("\nclass Wait(", STRANGER))
    said = finish(start(cluster_words(space, tmp_path / "run", cluster.address)))
    assert said.code == 2, said.err
    error = said.json["error"]
    assert error["kind"] == "cluster"
    assert "A worker on the node 127.0.0.1 cannot start" in error["message"]
    assert "no such library on this node" in error["message"]
    assert "Traceback" not in said.err + error["message"]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_node_whose_gpu_cannot_be_used_is_named_and_no_candidate_blamed(tmp_path: Path):
    told = Cluster(tmp_path / "cluster", head_cores=0, gpus=1)
    out = tmp_path / "run"
    try:
        told.wait_until_up()
        words = cluster_words(write_space(tmp_path), out, told.address, "--device", "cuda", "--precision", "float32")
        said = finish(start(words))
    finally:
        told.stop()
    assert said.code == 2, said.err
    assert said.json["error"]["kind"] == "cluster"
    assert "A worker on the node 127.0.0.1 cannot start" in said.json["error"]["message"]
    assert "The device cuda cannot be used here" in said.json["error"]["message"]
    assert not recorded_trainings(out)


def refused(address: str, out: Path, *more: str) -> Mapping[str, str]:
    said = invoke(*cluster_words(write_space(out.parent), out, address, *more))
    assert said.code == 2, said.err
    assert not out.exists()
    error: Mapping[str, str] = said.json["error"]
    return error


def test_where_nobody_answers_the_search_does_not_begin(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        error = refused(address, tmp_path / "run")
        assert time.monotonic() - began < 60  # Ray by itself gives up after minutes
    assert error["kind"] == "cluster"
    assert f"{address} cannot be joined" in error["message"]
    assert "ray start" in error["hint"]


@pytest.mark.slow
def test_where_no_ray_answers_the_search_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert "is no Ray cluster" in refused(address, tmp_path / "run")["message"]
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert "on this machine cannot be joined" in refused("auto", tmp_path / "run")["message"]


@pytest.mark.slow
def test_more_than_the_cluster_holds_is_refused(cluster: Cluster, tmp_path: Path):
    assert "holds 2 workers of 1 threads" in refused(cluster.address, tmp_path / "run", "--workers", "3")["message"]
    error = refused(cluster.address, tmp_path / "run", "--threads-per-worker", "2")
    assert "holds 0 workers of 2 threads" in error["message"]
    error = refused(cluster.address, tmp_path / "run", "--device", "cuda")
    assert "Ray knows of none in this cluster" in error["message"]


@pytest.mark.parametrize("address", ["auto", "head:6379", "127.0.0.1:1", "[::1]:65535"])
def test_addresses_that_ray_prints_are_taken(address: str):
    check_address(address)


@pytest.mark.parametrize("address", ["", "head", "head:", ":6379", "head:0", "head:65536", "ray://head:10001", "local"])
def test_other_addresses_are_refused(address: str):
    with pytest.raises(InputError, match="host:port or auto"):
        check_address(address)


def test_a_cluster_is_not_for_the_inline_executor(tmp_path: Path):
    words = search_words(write_space(tmp_path), tmp_path / "run", "--address", "auto", "--json")
    said = invoke(*words)
    assert said.code == 2
    assert "--executor inline joins no cluster" in said.json["error"]["message"]


MIXED = [Node(8.0, 2.0), Node(3.0, 0.0), Node(2.0, 4.0), Node(0.0, 0.0)]


@pytest.mark.parametrize(
    ("threads", "share", "expected"),
    [
        (1, 0.0, 8 + 3 + 2),
        (2, 0.0, 4 + 1 + 1),
        (9, 0.0, 0),
        (1, 1.0, 2 + 2),
        (1, 0.25, 8 + 2),
        (1, 0.1, 8 + 2),
        (1, 0.4, 4 + 2),  # two on each GPU, for none is shared between GPUs
        (1, 2.0, 1 + 2),
        (1, 4.0, 1),
        (2, 0.5, 4 + 1),
    ],
)
def test_workers_fill_nodes_of_different_kinds(threads: int, share: float, expected: int):
    assert capacity(MIXED, threads, share) == expected


@given(st.integers(1, 100), st.integers(1, 8))
def test_equal_shares_of_a_gpu_leave_nothing_over(parts: int, gpus: int):
    assert capacity([Node(1e4, float(gpus))], 1, 1 / parts) == parts * gpus


def test_the_number_of_workers_is_what_the_cluster_holds_or_less():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert cluster_workers(None, MIXED, cpu, 1, 1.0) == 13
    assert cluster_workers(5, MIXED, cpu, 1, 1.0) == 5
    assert cluster_workers(None, MIXED, cuda, 1, 0.25) == 10
    for workers, device in ((14, cpu), (11, cuda)):
        with pytest.raises(ClusterError, match=f"not {workers}"):
            cluster_workers(workers, MIXED, device, 1, 0.25)
    with pytest.raises(ClusterError, match="holds 0 workers"):
        cluster_workers(None, [], cpu, 1, 1.0)


@pytest.mark.parametrize(
    ("precisions", "common"),
    [
        (["bfloat16", "bfloat16"], "bfloat16"),
        (["bfloat16", "float32", "bfloat16"], "float32"),
        (["float32"], "float32"),
        ([], "float32"),
    ],
)
def test_one_gpu_that_is_slow_at_bfloat16_decides_for_all(precisions: list[str], common: str):
    assert common_precision(precisions) == common


@pytest.mark.parametrize("found", ["bfloat16", "float32"])
def test_the_precision_is_the_cluster_s(monkeypatch: pytest.MonkeyPatch, found: str):
    asked = []
    monkeypatch.setattr(plan, "find_nodes", lambda _: MIXED)
    monkeypatch.setattr(plan, "find_precision", lambda address: asked.append(address) or found)
    # What the driver's own GPU would say.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: found == "float32")
    settings = SearchSettings(address="head:6379", proxy="random")
    assert make_plan(settings, resume=False).settings.precision == found
    assert asked == ["head:6379"]
    named = make_plan(replace(settings, precision="float32-direct"), resume=False)
    assert named.settings.precision == "float32-direct"
    assert make_plan(replace(settings, device="cpu"), resume=False).settings.device == "cpu"
    assert asked == ["head:6379"]


def test_what_this_machine_computes_itself_has_its_own_precision(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan, "find_nodes", lambda _: MIXED)
    monkeypatch.setattr(plan, "find_precision", lambda _: "bfloat16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    settings = SearchSettings(address="head:6379", proxy="random")
    found = make_plan(settings, resume=False)
    assert (found.device.type, found.precision) == ("cpu", "float32")
    assert (found.settings.device, found.settings.precision) == ("cuda", "bfloat16")
    assert make_plan(replace(settings, precision="bfloat16"), resume=False).precision == "bfloat16"


@pytest.mark.parametrize(
    ("workers", "share", "fits"), [(1, 1.0, True), (2, 1.0, False), (4, 0.25, True), (5, 0.25, False), (1, 2.0, False)]
)
def test_more_workers_than_the_gpus_of_this_machine_hold_are_refused(
    monkeypatch: pytest.MonkeyPatch, workers: int, share: float, fits: bool
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked = SearchSettings(proxy="random", device="cuda", precision="float32", workers=workers, gpus_per_worker=share)
    if fits:
        assert make_plan(asked, resume=False).workers == workers
        return
    with pytest.raises(InputError, match=f"{workers} workers of {share:g} GPUs each do not fit on the 1 of") as caught:
        make_plan(asked, resume=False)
    assert "--gpus-per-worker" in caught.value.hint
    assert make_plan(replace(asked, executor="inline"), resume=False).device.type == "cuda"


def test_the_device_is_the_clusters():
    assert resolve_device("auto", MIXED).type == "cuda"
    assert resolve_device("auto", [Node(8.0, 0.0)]).type == "cpu"
    assert resolve_device("cpu", MIXED).type == "cpu"
    for name, nodes in (("cuda", [Node(8.0, 0.0)]), ("mps", MIXED)):
        with pytest.raises(InputError, match="Ray knows of none"):
            resolve_device(name, nodes)
