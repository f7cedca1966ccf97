import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image
from safetensors.torch import load_file
from torch import Tensor, nn

from nasproxy.datasets.decoding import FORMATS, decode_image
from nasproxy.datasets.image_dataset import ImageDataset, Normalisation, Split
from nasproxy.errors import ExportError, WriteError
from nasproxy.export.description import Description
from nasproxy.export.standalone import write_standalone
from nasproxy.networks.convnet import ConvNet

HOSTILE = ('"""\nraise SystemExit("ran")\n"""', "'; import os #", "naïve\x1b[31m", "{{network}}\\", "a\tb\nc")
SIZES = {1: (16, 16), 3: (12, 20)}

# Runs the classify.py of each folder where nasproxy cannot be imported, and prints what it finds.
STRANGER = """
import contextlib, io, json, runpy, sys
from pathlib import Path
sys.modules["nasproxy"] = None
try:
    import nasproxy
except ImportError:
    pass
else:
    sys.exit("nasproxy can be imported")
found = {}
for folder in map(Path, sys.argv[1:]):
    images = [str(path) for path in sorted((folder.parent / "images").glob("*.png"))]
    sys.argv = ["classify.py", "--json", *images]
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())) as out:
        try:
            runpy.run_path(str(folder / "classify.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        out.flush()
        printed = json.loads(out.buffer.getvalue())
    tool = runpy.run_path(str(folder / "classify.py"))
    batch = tool["torch"].stack([tool["preprocess"](tool["Image"].open(image)) for image in images])
    rows = {n: tool["forward"](tool["load_weights"](), batch[:n].clone()).softmax(1).tolist() for n in (1, 2, 7)}
    found[folder.parent.name] = {"code": code, "printed": printed, "rows": rows}
print(json.dumps(found))
"""


def _dataset(channels: int) -> ImageDataset:
    generator = torch.Generator().manual_seed(channels)
    images = torch.randint(0, 256, (9, channels, *SIZES[channels]), generator=generator)
    # Noise of nine brightnesses, so that averages over pixels differ between images too.
    images = (images * torch.linspace(0.2, 1, 9).view(-1, 1, 1, 1)).to(torch.uint8)
    split = Split(images, torch.arange(9) % 5)
    normalisation = Normalisation((0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels])
    return ImageDataset("an <odd> name", split, split, split, HOSTILE, normalisation, "f" * 64)


class OurStyle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(8, 8), nn.ReLU(inplace=True), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.classifier = nn.Linear(8 * 8 * 8, 5)

    def forward(self, images: Tensor) -> Tensor:
        images = images.to(memory_format=torch.channels_last)
        return self.classifier(self.features(images).flatten(1))


class ViewOfLayout(nn.Module):
    """A view that only the layout of the weights allows, which the file does not keep."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3, stride=2).to(memory_format=torch.channels_last)
        self.classifier = nn.Linear(6 * 5 * 9, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images).permute(0, 2, 3, 1)
        return self.classifier(features.view(features.size(0), -1))


class TinyChannelsLast(nn.Module):
    """A view of one pixel, whose layout is ambiguous for a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, (12, 20), stride=2).to(memory_format=torch.channels_last)
        self.classifier = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images.contiguous(memory_format=torch.channels_last))
        return self.classifier(features.view(features.size(0), -1))


def batch_norm_net() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(360, 5)
    )
    net.train()
    for _ in range(3):
        net(torch.randn(16, 3, 12, 20) * 2 + 1)
    return net


def layer_norm_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 10, 18]), nn.Sigmoid(), nn.Flatten(), nn.Linear(720, 5))


class Stranger(nn.Module):
    """What somebody else might write: functional operations, constants, sizes, names that hinder."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.classifier = nn.Linear(33, 5)
        self.register_buffer("shift", torch.rand(8), persistent=False)
        self.register_parameter("naïve ' \" name", nn.Parameter(torch.tensor(1.5)))

    def forward(self, weights: Tensor) -> Tensor:
        x = F.relu_(self.first(weights)) * self.get_parameter("naïve ' \" name")
        x = x + F.leaky_relu(self.second(x), 0.1)
        with torch.no_grad():
            scale = torch.tensor([0.5, 1.0, 2.0, 4.0] * 2)
        mean = x.mean((2, 3)) * scale + self.shift
        pooled = F.adaptive_avg_pool2d(x, (1, 2)).flatten(1)
        top = x.view(x.shape[0], 8, -1).double().amax(2).to(torch.float32)
        ones = torch.ones(x.shape[0] * 2, 1, dtype=x.dtype, device=x.device).reshape(-1, 2)[:, :1]
        clipped = x.reshape(x.size(0), -1).clamp(-float("inf"), 1.0).sum(1, keepdim=True)
        joined = torch.cat([mean, pooled, top, ones * clipped / 100], dim=1)
        return self.classifier(F.dropout(joined[:, list(range(33))], 0.5, self.training))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.place = nn.Parameter(torch.rand(16, 16))
        self.classifier = nn.Linear(16, 5)

    def forward(self, aten: Tensor) -> Tensor:
        with torch.enable_grad():
            x = aten.squeeze(1) + self.place
        with torch.autocast("cpu", enabled=False):
            x = self.layer(x)
        return self.classifier(x.mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 5)
        self.second.weight = self.first.weight
        self.last.weight = nn.Parameter(torch.randn(256, 5).t() / 16)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.second(self.first(images.flatten(1)).tanh()).tanh())


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(256, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images.view(len(images), -1))


def conv_net(norm: str, activation: str, pooling: str, channels: int) -> Callable[[], nn.Module]:
    shape = {"width": 8, "depth": 2, "norm": norm, "activation": activation, "pooling": pooling}
    return lambda: ConvNet(channels, 5, SIZES[channels], **shape)


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "our style": (OurStyle, 1),
    "view of layout": (ViewOfLayout, 3),
    "one pixel": (TinyChannelsLast, 3),
    "batch norm": (batch_norm_net, 3),
    "layer norm": (layer_norm_net, 3),
    "stranger": (Stranger, 3),
    "attention": (Attention, 1),
    "tied": (Tied, 1),
    "fixed batch": (FixedBatch, 1),
    "convnet none": (conv_net("none", "sigmoid", "none", 1), 1),
    "convnet batch": (conv_net("batch", "leaky_relu", "max", 3), 3),
    "convnet layer": (conv_net("layer", "relu", "average", 1), 1),
    "convnet instance": (conv_net("instance", "relu", "average", 3), 3),
    "convnet group": (conv_net("group", "relu", "max", 1), 1),
}


def _write(directory: Path, model: nn.Module, channels: int = 1, card: str = "") -> Path:
    dataset = _dataset(channels)
    description = Description(
        id="abc123",
        space=HOSTILE[1],
        config={"width": 8, "note": HOSTILE[0]},
        scores={"proxy_accuracy": 0.5, "test_accuracy": None, "loss": float("nan"), "rank": 1},
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        image_size=dataset.image_size,
        channels=dataset.channels,
        class_names=dataset.class_names,
        normalisation=dataset.normalisation,
        versions={"torch": "2"},
    )
    images = dataset.normalisation.apply(dataset.validation.images[:7])
    assert write_standalone(directory, model=model, description=description, images=images, card=card) < 1e-3
    return directory


def _save_images(folder: Path, channels: int) -> None:
    folder.mkdir(parents=True)
    for index, image in enumerate(_dataset(channels).validation.images[:7].numpy()):
        Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)).save(folder / f"{index}.png")


def _run(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-W", "error", "-c", STRANGER, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What each net's classify.py says in a process without nasproxy, and what the net itself says here."""
    root = tmp_path_factory.mktemp("winners")
    own = {}
    for name, (make, channels) in NETS.items():
        torch.manual_seed(0)
        model = make()
        _save_images(root / name / "images", channels)
        _write(root / name / "made", model, channels)
        # A folder that was moved must work.
        (root / name / "made").rename(root / name / "moved")
        dataset = _dataset(channels)
        with torch.no_grad():
            images = dataset.normalisation.apply(dataset.validation.images[:7])
            own[name] = model.eval()(images).softmax(1)
    done = _run([str(root / name / "moved") for name in NETS], cwd=Path(os.sep))
    assert done.returncode == 0, done.stderr
    return {name: {**here, "own": own[name]} for name, here in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", NETS)
def test_probabilities_are_those_of_the_network(found: dict[str, dict], name: str) -> None:
    own = found[name]["own"]
    assert own.std(0).max() > 1e-3  # images differ, so that agreement says something
    for count in (1, 2, 7):
        rows = torch.tensor(found[name]["rows"][str(count)])
        torch.testing.assert_close(rows, own[:count], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_command_line_prints_class_and_probability(found: dict[str, dict], name: str) -> None:
    own = found[name]["own"]
    assert found[name]["code"] == 0
    assert found[name]["printed"]["schema"] == 1
    rows = found[name]["printed"]["images"]
    assert [Path(row["file"]).name for row in rows] == [f"{index}.png" for index in range(7)]
    assert [row["class"] for row in rows] == [HOSTILE[label] for label in own.argmax(1)]
    torch.testing.assert_close(torch.tensor([row["probability"] for row in rows]), own.amax(1), rtol=0, atol=1e-5)


def _command(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["classify.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(folder / "classify.py"), run_name="__main__")
    return end.value.code


@pytest.fixture(scope="module")
def winner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("winner")
    _save_images(folder / "images", 1)
    return _write(folder / "made", FixedBatch())


@pytest.mark.parametrize("name", HOSTILE)
def test_lines_stay_lines_whatever_the_class_is_called(winner, tmp_path, monkeypatch, capsys, name: str) -> None:
    images, winner = winner.parent / "images", Path(shutil.copytree(winner, tmp_path / "winner"))
    about = json.loads((winner / "config.json").read_text())
    (winner / "config.json").write_text(json.dumps(about | {"class_names": [name] * 5}))
    paths = [str(images / f"{index}.png") for index in range(7)]
    assert _command(winner, monkeypatch, *paths) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == paths
    assert all(len(line.split("\t")) == 3 and line.replace("\t", "").isprintable() for line in lines)
    assert all(0.2 <= float(line.split("\t")[2]) <= 1 for line in lines)


def test_images_of_any_size_and_mode_are_brought_to_the_training_images(winner) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    tool = runpy.run_path(str(winner / "classify.py"))
    small = F.interpolate(torch.tensor(pixels)[None, None].float(), (16, 16), mode="bilinear", antialias=True)
    expected = (small[0] / 255 - 0.4) / 0.2
    for mode in ("L", "RGB", "RGBA", "P"):
        given = tool["preprocess"](Image.fromarray(pixels).convert(mode))
        torch.testing.assert_close(given, expected, rtol=0, atol=1.01 / 255 / 0.2)
    assert tool["classify"]([Image.fromarray(pixels)])[0][0] in HOSTILE


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_give_the_pixels_of_training(winner, tmp_path, orientation: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 210), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "large.jpg"
    Image.fromarray(noise).save(path, exif=exif)
    tool = runpy.run_path(str(winner / "classify.py"))
    normalise = _dataset(1).normalisation.apply
    expected = normalise(torch.from_numpy(decode_image(path, SIZES[1], 1).copy())[None])[0]
    assert torch.equal(tool["preprocess"](tool["_opened"](path)), expected)
    assert not torch.equal(tool["preprocess"](Image.open(path)), expected), "it was reduced while it was decoded"


def test_formats_are_those_of_training(winner, tmp_path) -> None:
    tool = runpy.run_path(str(winner / "classify.py"))
    assert tool["FORMATS"] == FORMATS
    path = tmp_path / "postscript.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n")
    with pytest.raises(tool["InputError"], match="cannot identify"):
        tool["classify"]([path])


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_unknown_range_are_refused(winner, tmp_path, monkeypatch, capsys, kind: type) -> None:
    image, path = Image.fromarray(np.full((16, 16), 30_000, kind)), tmp_path / "depth.tiff"
    image.save(path)
    assert _command(winner, monkeypatch, str(path)) == 2
    err = capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown range") as training:
        decode_image(path, SIZES[1], 1)
    assert str(training.value) in err
    assert str(path) in err
    tool = runpy.run_path(str(winner / "classify.py"))
    with pytest.raises(tool["InputError"], match=f"unknown range .mode {image.mode}"):
        tool["classify"]([image])


def _broken(folder: Path) -> dict[str, Path]:
    whole = (folder.parent / "images" / "0.png").read_bytes()
    files = {"text": b"not an image", "empty": b"", "cut": whole[: len(whole) // 2], "header": whole[:12]}
    for name, content in files.items():
        (folder.parent / f"{name}.png").write_bytes(content)
    return {name: folder.parent / f"{name}.png" for name in files} | {"missing": folder / "no.png", "folder": folder}


@pytest.mark.parametrize("what", ["text", "empty", "cut", "header", "missing", "folder"])
def test_broken_image_is_named_with_exit_code_2(winner, monkeypatch, capsys, what: str) -> None:
    path = str(_broken(winner)[what])
    good = str(winner.parent / "images" / "0.png")
    assert _command(winner, monkeypatch, good, path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert path in err
    assert err.count("\n") == 1
    assert _command(winner, monkeypatch, "--json", good, path) == 2
    assert path in json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json"])
def test_broken_neighbour_is_named_with_exit_code_2(tmp_path, monkeypatch, capsys, name: str) -> None:
    folder = _write(tmp_path / "winner", FixedBatch())
    _save_images(tmp_path / "images", 1)
    for content in (b"\xff\x00", None):
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        assert _command(folder, monkeypatch, str(tmp_path / "images" / "0.png")) == 2
        assert name in capsys.readouterr().err


def test_description_and_weights_are_the_models(tmp_path) -> None:
    model = Tied()
    folder = _write(tmp_path / "runs" / "winner", model)
    about = json.loads((folder / "config.json").read_text())
    assert about["config"] == {"width": 8, "note": HOSTILE[0]}
    assert about["scores"] == {"proxy_accuracy": 0.5, "test_accuracy": None, "loss": None, "rank": 1}
    assert about["class_names"] == list(HOSTILE)
    assert (about["image_size"], about["channels"], about["parameters"]) == ([16, 16], 1, 256 * 256 + 256 * 2 + 5 * 257)
    assert (about["id"], about["space"], about["dataset"]) == ("abc123", HOSTILE[1], "an <odd> name")
    other = Tied()
    other.load_state_dict(load_file(folder / "weights.safetensors"))
    images = torch.rand(3, 1, 16, 16)
    assert torch.equal(other(images), model(images))


def test_model_is_left_as_it_is(tmp_path) -> None:
    model = batch_norm_net().to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _write(tmp_path / "winner", model, 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert model[0].weight.requires_grad
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_half_precision_is_handed_over_in_single_precision(tmp_path) -> None:
    folder = _write(tmp_path / "winner", OurStyle().bfloat16())
    assert {value.dtype for value in load_file(folder / "weights.safetensors").values()} == {torch.float32}
    assert (folder / "classify.py").exists()


class Branches(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :5] if images.sum() > 0 else images.flatten(1)[:, 5:10]


class Random(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return F.dropout(images.flatten(1)[:, :5], 0.5, training=True)


class Remembers(nn.Module):
    """Gives other logits each time, by a number that a trace takes for a constant."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images.flatten(1)[:, :5] * self.calls


class TooWide(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :6]


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.flatten(1)[:, :5], images.mean()


class Raises(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise OSError("made up")


@torch.library.custom_op("nasproxy_test::twice", mutates_args=())
def twice(images: Tensor) -> Tensor:
    return images * 2


@twice.register_fake
def _(images: Tensor) -> Tensor:
    return torch.empty_like(images)


class Foreign(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return twice(images).flatten(1)[:, :5]


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Branches, "cannot trace"),
        (Random, "other logits"),
        (Remembers, "other logits"),
        (TooWide, r"\(1, 6\)"),
        (Pair, "2 results"),
        (Raises, "OSError: made up"),
        (Foreign, "nasproxy_test.twice"),
    ],
)
def test_network_that_cannot_be_written_leaves_weights_and_reason(tmp_path, capfd, network, reason: str) -> None:
    model = network()
    model.register_buffer("kept", torch.tensor([1.0, 2.0]))
    with pytest.raises(ExportError, match=reason):
        _write(tmp_path / "winner", model, card="How to use classify.py.")
    assert sorted(path.name for path in (tmp_path / "winner").iterdir()) == ["config.json", "weights.safetensors"]
    assert load_file(tmp_path / "winner" / "weights.safetensors")["kept"].tolist() == [1.0, 2.0]
    assert capfd.readouterr() == ("", "")


def test_older_winner_and_what_a_killed_run_left_are_replaced(tmp_path) -> None:
    for name in ("winner", ".winner.partial", ".winner.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stale").touch()
    _write(tmp_path / "winner", FixedBatch())
    assert [path.name for path in tmp_path.iterdir()] == ["winner"]
    assert sorted(path.name for path in (tmp_path / "winner").iterdir()) == [
        "classify.py",
        "config.json",
        "weights.safetensors",
    ]


def test_place_that_cannot_be_written_is_an_error(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="winner"):
        _write(tmp_path / "file" / "winner", FixedBatch())
