"""How each form is loaded: the Markdown that model cards show."""

from __future__ import annotations

STANDALONE = """\
The folder needs torch, safetensors, Pillow and numpy, and no nasproxy:

    python classify.py image.png

```python
import classify  # with this folder on the import path

classify.classify(["image.png"])  # [(class, probability)]
logits = classify.forward(classify.load_weights(), images)  # images normalised, (n, channels, height, width)
```
"""

_IMAGES = """\
import json

import numpy as np
import {library}
from PIL import Image, ImageOps


def as_input(path, about):
    height, width = about["image_size"]
    image = ImageOps.exif_transpose(Image.open(path)).convert("L" if about["channels"] == 1 else "RGB")
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    pixels = pixels.reshape(height, width, about["channels"]) / 255
    mean, std = (np.array(about["normalisation"][name], np.float32) for name in ("mean", "std"))
    return ((pixels - mean) / std).transpose(2, 0, 1)[None]
"""

_BATCH = {
    False: "It takes float32 batches of any size, (n, {channels}, {height}, {width}), and gives logits,"
    " (n, {classes}).",
    True: "It takes one float32 image at a time, (1, {channels}, {height}, {width}), and gives logits, (1, {classes}):"
    " the network's own code depends on the size of a batch.",
}


def loading_of(form: str, file: str, one_by_one: bool, shape: tuple[int, int, int], classes: int) -> str:
    """How to load a file of the form ``pt2`` or ``onnx``.

    Args:
        form: either.
        file: its name.
        one_by_one: whether it takes one image at a time.
        shape: (channels, height, width) of an image.
        classes: number of classes.
    """
    channels, height, width = shape
    batch = _BATCH[one_by_one].format(channels=channels, height=height, width=width, classes=classes)
    lines = (_PT2 if form == "pt2" else _ONNX).format(file=file)
    images = _IMAGES.format(library="torch" if form == "pt2" else "onnxruntime")
    return f"{batch} Class names, image size and normalisation are in the file too.\n\n```python\n{images}{lines}```\n"


_PT2 = """

extra = {{"config.json": ""}}
network = torch.export.load({file!r}, extra_files=extra).module()
about = json.loads(extra["config.json"])
logits = network(torch.from_numpy(as_input("image.png", about)))
print(about["class_names"][int(logits.argmax())])
"""

_ONNX = """

session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["config.json"])
(logits,) = session.run(None, {{"images": as_input("image.png", about)}})
print(about["class_names"][int(logits.argmax())])
"""
