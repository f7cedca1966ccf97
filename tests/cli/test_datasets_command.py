import numpy as np
from PIL import Image
from tiny_search import invoke

NAMES = ["digits", "cifar10", "cifar100", "mnist", "fashion-mnist", "svhn", "usps"]


def test_list_names_what_can_be_asked_for():
    said = invoke("datasets", "list")
    assert (said.code, said.err) == (0, "")
    rows = [line.split() for line in said.out.splitlines()]
    assert [row[0] for row in rows[1:]] == NAMES
    assert [row[-1] for row in rows[1:]] == ["no"] + ["yes"] * 6


def test_list_as_json():
    document = invoke("datasets", "list", "--json").json
    assert document["schema"] == 1
    assert [info["name"] for info in document["datasets"]] == NAMES
    assert [info["name"] for info in document["datasets"] if not info["needs_download"]] == ["digits"]


def write_pets(folder):
    rng = np.random.default_rng(0)
    for name, count in (("cat [red]", 30), ("dog", 8)):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (9, 7), np.uint8)).save(folder / "pets" / name / f"{number}.png")
    return folder / "pets"


def test_check_shows_what_there_is(folder):
    pets = write_pets(folder)
    said = invoke("datasets", "check", str(pets))
    assert said.code == 0, said.err
    for text in (
        "cat [red]     30",
        "9x7",
        "none (all pixels equal at 9x7)",
        "3.8 times",
        "21 train, 10 validation, 7 test",
    ):
        assert text in said.out
    assert "Classes are imbalanced" in said.out
    assert said.out.endswith("nothing is broken\n")


def test_check_ends_with_one_where_something_is_broken(folder):
    pets = write_pets(folder)
    (pets / "dog" / "torn.png").write_bytes(b"no")
    said = invoke("datasets", "check", str(pets), "--image-size", "8", "--json")
    assert said.code == 1
    assert (said.json["schema"], said.json["ok"]) == (1, False)
    assert [broken["name"] for broken in said.json["broken"]] == ["dog/torn.png"]
    assert said.json["classes"] == [{"name": "cat [red]", "train": 30}, {"name": "dog", "train": 8}]
    assert said.json["used_as"] == {"image_size": [8, 8], "channels": 1, "train": 21, "validation": 10, "test": 7}
    assert said.json["memory_bytes"] == {"uint8": 38 * 64, "float32": 4 * 38 * 64}
    said = invoke("datasets", "check", str(pets))
    assert said.code == 1
    assert "✗ train: dog/torn.png cannot be decoded" in said.out
    assert "--skip-broken" in said.out


def test_check_of_no_dataset_ends_with_two(folder):
    said = invoke("datasets", "check", "digit", "--json")
    assert said.code == 2
    assert said.json["error"]["kind"] == "dataset"
    assert "Did you mean digits?" in said.json["error"]["hint"]


def test_many_classes_are_cut_on_the_screen_alone(folder):
    for number in range(40):
        (folder / "many" / f"class{number}").mkdir(parents=True)
        for image in range(3):
            pixels = np.full((4, 4), 3 * number + image, np.uint8)
            Image.fromarray(pixels).save(folder / "many" / f"class{number}" / f"{image}.png")
    said = invoke("datasets", "check", "many")
    assert "… 10 classes between" in said.out
    assert len(invoke("datasets", "check", "many", "--json").json["classes"]) == 40
