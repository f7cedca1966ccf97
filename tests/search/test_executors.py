"""The same work by the inline executor and by real Ray Tune. Ray runs in processes of its own: it starts slowly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pandas.testing import assert_frame_equal
from tiny_search import (
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

from nasproxy.datasets.load import load_dataset
from nasproxy.errors import ClusterError
from nasproxy.search.bench import Bench, Payload
from nasproxy.spaces.source import SpaceSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("executors")


@pytest.fixture(scope="module")
def inline(folder: Path) -> Path:
    """The run directory of the inline executor, the reference."""
    assert invoke(*search_words(write_space(folder), folder / "inline")).code == 0
    return folder / "inline"


NORMALISED = SPACE.replace('width"]), activation', 'width"]), nn.BatchNorm1d(config["width"]), activation')
REAL = ["--norm-statistics", "real", "--augmentation", "siamese"]


@pytest.fixture(scope="module")
def inline_real(folder: Path) -> Path:
    """The same of networks with batch normalisation, on augmented images, under statistics of real ones."""
    words = search_words(write_space(folder, NORMALISED, "normalised.py"), folder / "inline-real", *REAL)
    assert invoke(*words).code == 0
    return folder / "inline-real"


def on_tune(space: Path, out: Path, workers: int, *more: str) -> Said:
    words = search_words(space, out, "--executor", "tune", "--workers", str(workers), "--json", *more)
    return finish(start(words))


@pytest.mark.parametrize(
    ("workers", "reference", "words"),
    [pytest.param(1, "inline_real", REAL, marks=pytest.mark.slow), (2, "inline", [])],
)
def test_the_same_scores_on_ray_tune(
    folder: Path, workers: int, reference: str, words: list[str], request: pytest.FixtureRequest
):
    inline: Path = request.getfixturevalue(reference)
    out = folder / f"tune-{workers}"
    said = on_tune(folder / ("normalised.py" if words else "my_space.py"), out, workers, *words)
    assert said.code == 0, said.err
    assert_frame_equal(read_table(out), read_table(inline))
    assert set(recorded_trainings(out).values()) == {1}
    assert recorded_trainings(out).total() == TRAININGS
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in (out, inline))
    for name in ("top", "winner", "agreement", "candidates", "evaluated", "failed", "diverged"):
        assert ours[name] == theirs[name]
    assert said.json == ours
    # Ray says nothing: every line on stderr is one of ours.
    begins = ("There is no test part", "Measuring candidates", "Ranking, ", "Finalists, ")
    assert all(line.startswith(begins) for line in said.err.splitlines()), said.err
    weights = [sorted(path.name for path in (run / "finalists").iterdir()) for run in (out, inline)]
    assert weights[0] == weights[1]
    for name in weights[0]:
        assert (out / "finalists" / name).read_bytes() == (inline / "finalists" / name).read_bytes()


def test_a_ray_of_our_own_is_on_loopback():
    code = (
        "import ray; from nasproxy.search.local_ray import ray_folder; from nasproxy.search.tune import _connected\n"
        "with ray_folder() as folder, _connected(None, 1, folder):\n"
        "    print(ray.nodes()[0]['NodeManagerAddress'], ray.get_runtime_context().gcs_address)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    node, _, head = said.strip().partition(" ")
    assert node == "127.0.0.1"
    assert head.startswith("127.0.0.1:")


HOSTILE = (
    SPACE.replace("import os\n", "import os\nimport signal\nimport sys\n")
    .replace('    name = "tiny"\n', '    name = "hostile"\n')
    .replace(
        "    choices = {",
        '    choices = {"fate": ["none", "raise", "shape", "die"], ',
    )
    .replace(
        '"width": [2, 4, 8, 16], "activation": ["relu", "tanh", "sigmoid"]', '"width": [2, 4], "activation": ["relu"]'
    )
    .replace(
        "        activation = {",
        """        fate = config["fate"]
        # This process, or one of Ray's? The candidates' sizes are measured in this one.
        in_worker = "default_worker" in sys.argv[0]
        if fate == "raise" and in_worker:
            raise RuntimeError("only here")  # HERE
        if fate == "shape" and in_worker:
            return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes + 1))
        if fate == "die" and in_worker and config["width"] == 2:
            DIE
        activation = {""",
    )
)


def scores_of(run: Path) -> dict[tuple[str, str], object]:
    storage = JournalStorage(JournalFileBackend(str(run / "study.log")))
    trials = optuna.load_study(study_name="nasproxy", storage=storage).trials
    return {
        (trial.params["fate"] + str(trial.params["width"]), name): value["scores"]
        for trial in trials
        for name, value in trial.user_attrs.items()
        if name.startswith("proxy:") and "failure" not in value
    }


@pytest.mark.slow
@pytest.mark.parametrize("die", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)"])
def test_workers_that_die_take_nobody_with_them(tmp_path: Path, die: str):
    space = write_space(tmp_path, HOSTILE.replace("DIE", die))
    out = tmp_path / "tune"
    said = on_tune(space, out, 2)
    assert said.code == 1, said.err
    assert "Traceback" not in said.err
    document = said.json
    table = read_table(out)
    reasons = {f"{row['params_fate']}{row['params_width']}": row["reason"] for row in table.to_dict("records")}
    failed = {name for name, reason in reasons.items() if isinstance(reason, str)}
    assert failed == {"raise2", "raise4", "shape2", "shape4", "die2"}
    assert document["failed"] == len(failed)
    assert set(table["state"]) <= {"complete", "pruned", "failed"}
    line = next(n for n, text in enumerate(HOSTILE.splitlines(), 1) if text.endswith("# HERE"))
    assert reasons["raise2"] == f"RuntimeError: only here (my_space.py:{line})"
    assert "(2, 11)" in reasons["shape2"]
    assert "worker process died" in reasons["die2"]
    assert document["winner"] is not None
    assert document["evaluated"] == 3
    inline = tmp_path / "inline"
    assert invoke(*search_words(space, inline)).code == 0
    found, expected = scores_of(out), scores_of(inline)
    shared = found.keys() & expected.keys()
    assert {name for name, _ in shared} >= {"none2", "none4", "die4"}
    assert {key: found[key] for key in shared} == {key: expected[key] for key in shared}
    assert set(recorded_trainings(out).values()) == {1}


TERMINATED = SPACE.replace("import os\n", "import os\nimport signal\nimport sys\n").replace(
    "        activation = {",
    """        chosen = (config["width"], config["activation"]) == (4, "tanh")
        if chosen and "default_worker" in sys.argv[0] and not os.path.exists(MARK):
            os.mkdir(MARK)
            os.kill(os.getpid(), signal.SIGTERM)
        activation = {""",
)


@pytest.mark.slow
def test_a_worker_that_is_terminated_costs_no_candidate(folder: Path, inline: Path, tmp_path: Path):
    mark = tmp_path / "terminated"
    space = write_space(tmp_path, TERMINATED.replace("MARK", repr(str(mark))))
    said = on_tune(space, tmp_path / "run", 2)
    assert said.code == 0, said.err
    assert mark.exists()
    assert_frame_equal(read_table(tmp_path / "run"), read_table(inline))
    assert set(recorded_trainings(tmp_path / "run").values()) == {1}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_cannot_be_used_is_found_as_a_worker_begins(tmp_path: Path):
    dataset, source = load_dataset("digits"), SpaceSource.parse(str(write_space(tmp_path)))
    with pytest.raises(ClusterError, match="The device cuda cannot be used here: "):
        Bench(Payload.of(source, dataset, None, device="cuda", precision="float32", threads=1))


SICK = (
    SPACE.replace("import os\n", "import inspect\nimport os\n")
    .replace("class Tiny(SearchSpace):\n", "class Tiny(SearchSpace):\n    broken = False\n")
    .replace(
        "        activation = {",
        """        trained = any(frame.filename.endswith("bench.py") for frame in inspect.stack())  # or measured
        if trained and (self.broken or (config["width"], config["activation"]) == (4, "tanh")):
            # As CUDA does: from then on nothing works in this process.
            Tiny.broken = True
            raise RuntimeError("CUDA error: device-side assert triggered")
        activation = {""",
    )
)


@pytest.mark.parametrize("executor", ["inline", pytest.param("tune", marks=pytest.mark.slow)])
def test_what_breaks_the_gpu_of_a_process_costs_no_other_candidate(tmp_path: Path, executor: str):
    words = search_words(write_space(tmp_path, SICK), tmp_path / "run", "--executor", executor, "--json")
    if executor == "inline":
        said = invoke(*words)
        assert said.code == 2, said.err
        assert "the GPU cannot be used by this process any more" in said.json["error"]["message"]
        said = finish(start([*words, "--resume"]))
    else:  # Ray has another process
        said = finish(start([*words, "--workers", "1"]))
    assert said.code == 1, said.err
    assert "error" not in said.json
    table = read_table(tmp_path / "run")
    failed = table[table["state"] == "failed"]
    assert list(zip(failed["params_width"], failed["params_activation"], strict=True)) == [(4, "tanh")]
    assert "device-side assert" in failed["reason"].item()
    assert set(recorded_trainings(tmp_path / "run").values()) == {1}


HARD_OF_HEARING = """
import os, sys
from nasproxy.cli.main import run
from nasproxy.search import tune

class Worker(tune._Worker):
    calls = 0

    def setup(self, config, payload=None):
        super().setup(config, payload)
        try:
            os.mkdir(FOLDER + "/deaf")
            self.deaf = True
        except FileExistsError:
            self.deaf = False

    def give(self, bundle, *, anew=False):
        self.calls += 1
        # The first worker hears nothing, every other one not its first bundle, and of its fourth only a part.
        if not self.deaf and self.calls != 1:
            super().give(bundle[1:] if self.calls == 4 else bundle, anew=anew)

FOLDER, tune._Worker = sys.argv[1], Worker
run(sys.argv[2:])
"""


@pytest.mark.slow
def test_bundles_that_do_not_arrive_are_handed_out_again(folder: Path, inline: Path, tmp_path: Path):
    words = search_words(write_space(folder), tmp_path / "run", "--executor", "tune", "--workers", "2", "--json")
    program = [sys.executable, "-c", HARD_OF_HEARING, str(tmp_path)]
    said = subprocess.run([*program, *words], capture_output=True, text=True, timeout=600)
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "deaf").exists()
    assert_frame_equal(read_table(tmp_path / "run"), read_table(inline))
    assert set(recorded_trainings(tmp_path / "run").values()) == {1}
