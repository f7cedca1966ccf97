from pathlib import Path

import pytest
from tiny_search import invoke

from nasproxy.datasets.load import load_dataset
from nasproxy.proxies.proxy_file import load_proxy

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
    assert [path.name for path in folder.iterdir()] == ["tiny.safetensors"]

    again = invoke("condense", *TINY, "--out", "again.safetensors", "--json")
    assert again.json["cached"]
    assert not document["cached"]
    assert Path("again.safetensors").read_bytes() == Path("tiny.safetensors").read_bytes()

    words = invoke("condense", *TINY)
    assert words.code == 0
    assert "digits-dc-ipc1.safetensors: 10 images of digits" in words.out
    assert Path("digits-dc-ipc1.safetensors").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "dsa", "--inner-epochs", "1", "--augmentation", "crop-rotate", "--distance", "cosine"],
        ["--method", "dm", "--network", "space", "--max-multiply-adds", "600000"],
    ],
)
def test_other_methods_and_networks(folder, words):
    some = ["--ipc", "1", "--iterations", "30", "--patience", "1", "--real-batch", "4", "--precision", "float32"]
    said = invoke("condense", *some, "--image-size", "8", *words, "--json")
    assert said.code == 0, said.err
    assert said.json["method"] == words[1]
    assert 2 <= said.json["iterations"] < 30
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
        (["--image-learning-rate", "0"], "input", ["0"]),
        (["--image-learning-rate", "nan"], "input", ["nan"]),
        (["--initial", "reel"], "input", ["reel"]),
        (["--distance", "cosin"], "input", ["cosin", "Did you mean cosine?"]),
        (["--network", "convmet"], "input", ["convmet", "Did you mean convnet?"]),
        (["--network", "vgg16"], "input", ["vgg16", "Did you mean vgg11?"]),
        (["--network", "vgg11"], "input", ["16×16", "VGG-11", "32×32 or more", "--image-size 32"]),
        (["--network", "space:convnet72"], "space", ["Did you mean convnet720?"]),
        (["--max-multiply-adds", "9"], "input", ["max_multiply_adds"]),
        (
            ["--network", "space", "--max-multiply-adds", "9", "--image-size", "8"],
            "input",
            ["convnet720", "--max-multiply-adds"],
        ),
        (["--patience", "-1"], "input", ["patience"]),
        (["--augmentation", "crop"], "input", ["--augmentation is no setting of the method dc"]),
        (["--method", "dsa", "--augmentation", "flop"], "input", ["Did you mean flip?"]),
        (["--method", "dm"], "input", ["--inner-epochs is no setting of the method dm"]),
        (["--image-size", "4"], "input", ["too small for 3 poolings"]),
        (["--precision", "float8"], "input", ["float8"]),
        (["--device", "tpu"], "input", ["tpu"]),
        (["--image-size", "0"], "input", ["--image-size"]),
        (["--out", "."], "input", ["--out"]),
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
