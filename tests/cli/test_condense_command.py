import contextlib
import io
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from tiny_search import finish, invoke, search_words, start, write_space

from nasproxy.cli import condensing
from nasproxy.cli.screen import LiveScreen
from nasproxy.condensation.evaluation import Evaluation
from nasproxy.condensation.outer_loop import Material
from nasproxy.datasets.load import load_dataset
from nasproxy.proxies.proxy_file import load_proxy
from nasproxy.versions import usable_cores

TINY = ["--ipc", "1", "--iterations", "1", "--inner-epochs", "1", "--real-batch", "8", "--precision", "float32"]


def test_condense_writes_a_proxy_and_says_what_it_cost(folder):
    said = invoke("condense", *TINY, "--out", "tiny.safetensors", "--json")
    assert said.code == 0, said.err
    document = said.json
    promised = [
        "schema",
        "proxy",
        "method",
        "ipc",
        "iterations",
        "loss",
        "seconds",
        "seconds_per_iteration",
        "peak_memory_bytes",
    ]
    assert set(promised) <= set(document)
    assert (document["schema"], document["method"], document["ipc"], document["iterations"]) == (1, "dc", 1, 1)
    assert document["proxy"] == "tiny.safetensors"
    assert document["loss"] > 0
    assert document["peak_memory_bytes"] > 2**20
    assert "Condensing" in said.err
    proxy = load_proxy(Path("tiny.safetensors"))
    proxy.check_matches(load_dataset("digits"))
    assert len(proxy) == 10
    assert document["planned_iterations"] == 1
    assert (document["ended_by"], document["resumed_from"], document["evaluations"]) == ("iterations", 0, [])
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.png", "tiny.safetensors"]
    with Image.open(document["png"]) as drawn:
        assert drawn.format == "PNG"

    again = invoke("condense", *TINY, "--out", "again.safetensors", "--json")
    assert again.json["cached"]
    assert not document["cached"]
    assert Path("again.safetensors").read_bytes() == Path("tiny.safetensors").read_bytes()

    words = invoke("condense", *TINY)
    assert words.code == 0
    assert "digits-dc-ipc1.safetensors: 10 images of digits, from the cache, made in" in words.out
    assert "peak memory" in words.out
    assert "digits-dc-ipc1.png" in words.out
    assert Path("digits-dc-ipc1.safetensors").exists()


def test_a_terminal_shows_how_far_an_iteration_is_and_plain_lines_do_not(monkeypatch, folder):
    plain = invoke("condense", *TINY, "--seed", "1").err.splitlines()[1:]  # a note
    assert plain[0] == "Condensing: 1"
    assert plain[1].startswith("Condensing: 1 of 1 in ")
    assert len(plain) == 2
    moved = []

    class Watched(LiveScreen):
        def within_step(self, work):
            moved.append(work)
            super().within_step(work)

    with Progress(console=Console(file=io.StringIO())) as display:
        monkeypatch.setattr(condensing, "open_screen", lambda: contextlib.nullcontext(Watched(display)))
        assert invoke("condense", *TINY).code == 0
        assert len(moved) == 10  # classes
        assert display.tasks[-1].completed == 1


def test_it_uses_all_cores_or_as_many_threads_as_one_says(folder, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for words, threads in (([], usable_cores()), (["--threads", "1"], 1)):
        assert invoke("condense", *TINY, *words).code == 0
        assert torch.get_num_threads() == threads


def test_openmps_variable_says_how_many_threads_and_the_option_wins(folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for words, threads in (([], 1), (["--threads", "2"], 2)):
        torch.set_num_threads(3)
        assert invoke("condense", *TINY, *words).code == 0
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        (["--method", "dsa", "--inner-epochs", "1", "--augmentation", "crop-rotate", "--distance", "cosine"], "early"),
        (["--method", "dm", "--network", "space", "--max-multiply-adds", "600000"], "late"),
    ],
)
def test_other_methods_and_networks(folder, words, ends):
    patience = ["--patience", "1"] if ends == "early" else []
    some = ["--ipc", "1", "--iterations", "30", *patience, "--real-batch", "4", "--precision", "float32"]
    said = invoke("condense", *some, "--image-size", "8", *words, "--json")
    assert said.code == 0, said.err
    assert said.json["method"] == words[1]
    assert 2 <= said.json["iterations"] <= 30
    assert (said.json["iterations"] < 30) is (ends == "early")
    proxy = load_proxy(Path(said.json["proxy"]))
    assert len(proxy.history) == said.json["iterations"]
    assert proxy.recipe["network"] == ("space:convnet720" if "space" in words else "convnet")


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        (["--network", "mlp"], 0.01),
        (["--network", "mlp", "--distance", "cosine"], 0.001),
        (["--network", "mlp", "--image-learning-rate", "0.1"], 0.1),
        (["--network", "lenet"], 0.1),
    ],
)
def test_the_mlp_has_an_image_learning_rate_of_its_own_unless_one_is_given(folder, words, rate):
    said = invoke("condense", *TINY, *words, "--json")
    assert said.code == 0, said.err
    recipe = load_proxy(Path(said.json["proxy"])).recipe
    assert (recipe["network"], recipe["image_learning_rate"]) == (words[1], rate)


@pytest.mark.parametrize(
    ("words", "kind", "fragments"),
    [
        (["--dataset", "digit"], "dataset", ["digit", "Did you mean digits?"]),
        (["--method", "dcc"], "input", ["dcc", "Did you mean dc?"]),
        (["--preset", "papper"], "input", ["papper", "Did you mean paper?"]),
        (["--ipc", "0"], "input", ["--ipc must be 1 or more, got 0"]),
        (["--ipc", "5000"], "dataset", ["5000"]),
        (["--iterations", "0"], "input", ["iterations", "0"]),
        (["--iterations", "-3"], "input", ["iterations", "-3"]),
        (["--inner-epochs", "-1"], "input", ["-1"]),
        (["--image-learning-rate", "0"], "input", ["--image-learning-rate must be above 0, got 0"]),
        (["--image-learning-rate", "nan"], "input", ["nan"]),
        (["--initial", "reel"], "input", ["reel"]),
        (["--distance", "cosin"], "input", ["cosin", "Did you mean cosine?"]),
        (["--network", "convmet"], "input", ["convmet", "Did you mean convnet?"]),
        (["--network", "spce"], "input", ["spce", "Did you mean space?", "space:convnet720"]),
        (["--network", "vgg16"], "input", ["vgg16", "Did you mean vgg11?"]),
        (["--network", "vgg11"], "input", ["16×16", "VGG-11", "32×32 or more", "--image-size 32"]),
        (["--network", "space:convnet72"], "space", ["Did you mean convnet720?"]),
        (["--max-multiply-adds", "9"], "input", ["--max-multiply-adds chooses"]),
        (
            ["--network", "space", "--max-multiply-adds", "9", "--image-size", "8"],
            "input",
            ["convnet720", "--max-multiply-adds"],
        ),
        (["--patience", "-1"], "input", ["--patience must be 0 or more"]),
        (["--patience", "5", "--network", "space"], "input", ["--patience compares losses", "convnet720"]),
        (["--augmentation", "crop"], "input", ["--augmentation is no setting of the method dc"]),
        (["--method", "dsa", "--augmentation", "flop"], "input", ["Did you mean flip?"]),
        (["--method", "dm"], "input", ["--inner-epochs is no setting of the method dm"]),
        (["--image-size", "4"], "input", ["too small for 3 poolings", "--image-size 8"]),
        (["--precision", "float8"], "input", ["float8"]),
        (["--device", "tpu"], "input", ["tpu"]),
        (["--image-size", "0"], "input", ["--image-size"]),
        (["--out", "."], "input", ["--out"]),
        (["--out", "a.png"], "input", ["--out a.png"]),
        (["--time-budget", "0"], "input", ["--time-budget must be a number above 0, got 0"]),
        (["--time-budget", "nan"], "input", ["--time-budget"]),
        (["--checkpoint-every", "-1"], "input", ["--checkpoint-every"]),
        (["--threads", "0"], "input", ["--threads must be 1 or more, got 0"]),
        (["--evaluate-every", "0"], "input", ["--evaluate-every must be 1 or more, got 0"]),
        (["--out", "nowhere/a.safetensors"], "input", ["nowhere"]),
        (["--seed", "-1"], "input", ["--seed"]),
        (["--seed", str(2**70)], "input", ["--seed"]),
    ],
)
def test_wrong_input_is_one_message_and_writes_nothing(folder, words, kind, fragments):
    said = invoke("condense", *TINY, *words, "--json")
    assert said.code == 2, said.err
    error = said.json["error"]
    for fragment in fragments:
        assert fragment in error["message"] + error["hint"]
    assert error["kind"] in (kind, "input")
    assert "Traceback" not in said.err
    assert list(folder.iterdir()) == []


SMALL = ["condense", "--method", "dm", "--ipc", "1", "--real-batch", "4", "--precision", "float32", "--image-size", "8"]


def undisturbed(monkeypatch, folder, *words):
    """What the command makes with another cache."""
    with monkeypatch.context() as patch:
        patch.setenv("NASPROXY_CACHE", str(folder / "elsewhere"))
        said = invoke(*SMALL, *words, "--out", "whole.safetensors", "--json")
    assert said.code == 0, said.err
    return load_proxy(folder / "whole.safetensors")


def test_a_spent_budget_leaves_the_images_so_far_and_a_resume_finishes_them(monkeypatch, folder):
    words = [*SMALL, "--iterations", "3", "--out", "a.safetensors"]
    said = invoke(*words, "--time-budget", "1e-9")
    assert said.code == 0, said.err
    assert "after 1 of 3 iterations; --resume goes on" in said.out
    part = load_proxy(folder / "a.safetensors")
    assert (len(part), len(part.history), part.finished) == (10, 1, False)
    assert sorted(path.name for path in folder.iterdir()) == ["a.checkpoint.safetensors", "a.png", "a.safetensors"]
    kept = (folder / "a.checkpoint.safetensors").read_bytes()

    other = invoke(*words, "--image-learning-rate", "0.5", "--resume", "--json")
    assert other.code == 2
    assert other.json["error"]["kind"] == "checkpoint"
    assert "image_learning_rate was 1.0, now 0.5" in other.json["error"]["message"]
    fewer = invoke(*words, "--seed", "1", "--time-budget", "1e-9")
    assert "a.checkpoint.safetensors is of an unfinished condensation" in fewer.err
    (folder / "a.checkpoint.safetensors").write_bytes(kept)

    document = invoke(*words, "--resume", "--json").json
    assert (document["iterations"], document["resumed_from"], document["ended_by"]) == (3, 1, "iterations")
    assert not document["cached"]
    made, whole = load_proxy(folder / "a.safetensors"), undisturbed(monkeypatch, folder, "--iterations", "3")
    assert torch.equal(made.images, whole.images)
    assert made.history == whole.history
    assert not (folder / "a.checkpoint.safetensors").exists()
    assert invoke(*words, "--resume", "--json").json["cached"]


def test_the_budget_is_of_condensing_and_not_of_loading_the_dataset(monkeypatch, folder):
    real, late = time.perf_counter, 0.0

    def load(*arguments, **settings):
        nonlocal late
        late += 3600
        return load_dataset(*arguments, **settings)

    monkeypatch.setattr(time, "perf_counter", lambda: real() + late)
    monkeypatch.setattr("nasproxy.datasets.load.load_dataset", load)
    said = invoke(*SMALL, "--iterations", "3", "--time-budget", "30", "--out", "a.safetensors", "--json")
    assert said.code == 0, said.err
    assert (late, said.json["iterations"], said.json["ended_by"]) == (3600, 3, "iterations")


def test_the_accuracy_on_the_way_is_said_and_kept(monkeypatch, folder):
    monkeypatch.setattr(Evaluation, "epochs", 2)
    words = [*SMALL, "--iterations", "3", "--out", "a.safetensors"]
    assert invoke(*words).code == 0
    plain = load_proxy(folder / "a.safetensors")
    said = invoke(*words, "--evaluate-every", "2", "--json")
    found = said.json["evaluations"]
    assert [entry["iteration"] for entry in found] == [2, 3]
    assert all(0 <= entry["test_accuracy"] <= 1 for entry in found)
    assert "Iteration 2: test accuracy" in said.err
    proxy = load_proxy(folder / "a.safetensors")
    assert torch.equal(proxy.images, plain.images)
    assert proxy.evaluations == tuple((entry["iteration"], entry["test_accuracy"]) for entry in found)
    assert "Test accuracy of the default ConvNet" in invoke(*words, "--evaluate-every", "2").out


def test_a_kill_before_the_proxy_is_written_costs_no_iteration(monkeypatch, folder):
    monkeypatch.setattr(Evaluation, "epochs", 2)
    more = ["--checkpoint-every", "1e-9", "--evaluate-every", "3"]  # passes the cache by
    words = [*SMALL, "--iterations", "3", "--out", "a.safetensors", *more]

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nasproxy.proxies.proxy_file.save_proxy", kill)
        assert invoke(*words).code == 130
    assert not (folder / "a.safetensors").exists()
    said = invoke(*words, "--resume", "--json")
    assert said.code == 0, said.err
    document = said.json
    assert (document["iterations"], document["resumed_from"], document["cached"]) == (3, 3, False)
    assert [entry["iteration"] for entry in document["evaluations"]] == [3]
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "a.safetensors"]


def test_nothing_is_overwritten_but_a_proxy_and_its_picture(folder):
    for name in ("notes.safetensors", "photo.png", "a.checkpoint.safetensors"):
        (folder / name).write_text("mine")
    for out, named in (
        ("notes.safetensors", "notes.safetensors"),
        ("photo.safetensors", "photo.png"),
        ("a.safetensors", "a.checkpoint.safetensors"),
    ):
        said = invoke("condense", *TINY, "--out", out, "--json")
        assert (said.code, said.json["error"]["kind"]) == (2, "input"), said.err
        assert said.json["error"]["message"].startswith(f"{named} would be overwritten")
        assert "another --out" in said.json["error"]["hint"]
        assert {path.name: path.read_text() for path in folder.iterdir()} == {
            "notes.safetensors": "mine",
            "photo.png": "mine",
            "a.checkpoint.safetensors": "mine",
        }
    proxy, other = folder / "b.safetensors", folder / "b.checkpoint.safetensors"
    assert invoke("condense", *TINY, "--out", proxy.name).code == 0
    shutil.copy(proxy, other)  # a proxy is no checkpoint
    said = invoke("condense", *TINY, "--seed", "1", "--checkpoint-every", "1e-9", "--out", proxy.name, "--json")
    assert (said.code, said.json["error"]["kind"], other.read_bytes()) == (2, "input", proxy.read_bytes()), said.err
    (folder / "a.checkpoint.safetensors").unlink()
    assert [invoke("condense", *TINY, "--out", "a.safetensors").code for _ in range(2)] == [0, 0]
    (folder / "photo.png").rename(folder / "a.png")
    said = invoke("condense", *TINY, "--out", "a.safetensors", "--json")
    assert (said.code, said.json["error"]["kind"], (folder / "a.png").read_text()) == (2, "input", "mine")


def test_the_proxy_of_a_folder_has_its_name_however_the_path_is_written(folder, monkeypatch):
    classes = folder / "leaves" / "train"
    for number, label in enumerate(("oak", "elm")):
        (classes / label).mkdir(parents=True)
        for at in range(10):
            Image.new("L", (8, 8), 100 * number + at).save(classes / label / f"{at}.png")
    monkeypatch.chdir(folder / "leaves")
    said = invoke("condense", *TINY, "--dataset", ".", "--json")
    assert said.code == 0, said.err
    assert said.json["proxy"] == "leaves-dc-ipc1.safetensors"


def test_divergence_says_how_to_use_what_is_kept(monkeypatch, folder):
    real, seen = Material.real_batch, []

    def spoil(self, *arguments):
        seen.append(arguments)
        return real(self, *arguments) * (torch.nan if len(seen) > 10 else 1)

    monkeypatch.setattr(Material, "real_batch", spoil)
    words = [*SMALL, "--iterations", "3", "--out", "a.safetensors"]
    said = invoke(*words, "--json")
    assert said.code == 1
    error = said.json["error"]
    assert (error["kind"], error["message"].count("a.checkpoint.safetensors")) == ("diverged", 1)
    assert "image learning rate" in error["hint"]
    assert "--resume with --iterations" in error["hint"]
    assert invoke(*words, "--iterations", "1", "--resume", "--json").json["iterations"] == 1


def test_a_loss_that_does_not_fall_is_said_by_condense_and_by_search(folder):
    # The last of the default ConvNet's blocks normalises over 2×2 pixels.
    words = ["--image-size", "8", "--ipc", "1", "--precision", "float32"]
    said = invoke("condense", *words, "--iterations", "4", "--real-batch", "4", "--image-learning-rate", "1")
    assert (said.code, said.err.count("The matching loss did not fall, from ")) == (0, 1), said.err
    said = invoke(*search_words(write_space(folder), folder / "run", *words, "--proxy", "dc"))
    assert (said.code, said.err.count("The matching loss did not fall, from ")) == (0, 1), said.err


def moment(folder, most):
    """Waits until the process has begun to keep its state, and up to ``most`` seconds longer."""
    while not list(folder.glob("a.checkpoint.safetensors")):
        time.sleep(0.01)
    time.sleep(random.uniform(0, most))


LONG = ["--iterations", "60", "--checkpoint-every", "0.001"]


def test_two_processes_do_not_write_one_proxy(folder):
    words = [*SMALL, "--out", "a.safetensors", "--json"]
    process = start([*SMALL, *LONG, "--iterations", "100000", "--out", "a.safetensors"])
    try:
        moment(folder, 0.0)
        process.send_signal(signal.SIGSTOP)
        for more in ([], ["--resume"]):
            said = invoke(*words, *more)
            assert (said.code, said.json["error"]["kind"]) == (2, "input")
            assert said.json["error"]["message"] == "Another process is condensing to a.safetensors."
            assert not (folder / "a.safetensors").exists()
        assert invoke("condense", *TINY, "--out", "b.safetensors").code == 0
    finally:
        process.kill()
        finish(process)
    # What it held is free again, and nothing of it is left in the end.
    assert invoke(*words, "--iterations", "1").code == 0
    assert not list(folder.glob(".*"))


@pytest.mark.slow
def test_killed_again_and_again_the_images_are_those_of_an_undisturbed_run(monkeypatch, folder):
    words = [*SMALL, *LONG, "--out", "a.safetensors", "--resume"]
    for _ in range(5):
        process = start(words)
        moment(folder, 1.0)
        process.kill()
        finish(process)
    said = finish(start([*words, "--json"]))
    assert said.code == 0, said.err
    assert said.json["resumed_from"] > 0
    made, whole = load_proxy(folder / "a.safetensors"), undisturbed(monkeypatch, folder, "--iterations", "60")
    assert torch.equal(made.images, whole.images)
    assert made.history == whole.history
    left = sorted(path.name for path in folder.iterdir() if path.is_file() and path.stem != "whole")
    assert left == ["a.png", "a.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_the_state_and_prints_the_command_that_goes_on(folder, number):
    process = start([*SMALL, *LONG, "--iterations", "100000", "--out", "a.safetensors"])
    moment(folder, 0.3)
    process.send_signal(number)
    said = finish(process)
    assert said.code == 128 + number
    (line,) = (line for line in said.err.splitlines() if line.startswith("  nasproxy condense"))
    assert line.endswith("--out a.safetensors --resume")
    assert (folder / "a.checkpoint.safetensors").exists()


def test_without_kernels_it_is_said_that_it_could_be_faster(monkeypatch, folder):
    monkeypatch.setattr("nasproxy.kernels.library.why_none", lambda: "There are no kernels.")
    assert "There are no kernels." in invoke("condense", *TINY).err
