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
