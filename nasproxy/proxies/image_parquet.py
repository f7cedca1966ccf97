"""A proxy as Hugging Face image Parquet: PNG bytes and class labels, which any reader of image datasets takes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nasproxy.files import write_atomically
from nasproxy.proxies.proxy_set import ProxySet

_MARK = "nasproxy"


def save_image_parquet(proxy: ProxySet, path: Path) -> float:
    """Writes the images with 256 levels a channel: what lies between two levels, or beyond black and white, is lost.

    The columns are ``image`` (a struct of PNG ``bytes`` and ``path``) and ``label``, with the class names in the
    metadata, and under ``nasproxy`` there what the images are. ``datasets.load_dataset("parquet", …)`` and nasproxy's
    own ``--dataset`` read it.

    Returns:
        The fraction of values beyond black and white, which were clipped.

    Raises:
        WriteError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(proxy.class_names)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image_type), ("label", pa.int64())]).with_metadata(
        {
            "huggingface": json.dumps({"info": {"features": features}}),
            _MARK: json.dumps({"method": proxy.method, "dataset": proxy.dataset, "fingerprint": proxy.fingerprint}),
        }
    )
    pixels = proxy.normalisation.invert(proxy.images).permute(0, 2, 3, 1).numpy()
    images = [{"bytes": png(image), "path": f"{number}.png"} for number, image in enumerate(pixels)]
    table = pa.table({"image": pa.array(images, image_type), "label": proxy.labels.tolist()}, schema=schema)
    content = io.BytesIO()
    pq.write_table(table, content)
    write_atomically(path, content.getvalue())
    return _beyond(proxy)


def is_image_parquet(path: Path) -> bool:
    """Whether ``path`` is a file that :func:`save_image_parquet` wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _MARK.encode() in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def png(pixels: UInt8[np.ndarray, "height width channels"]) -> bytes:
    """One image as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(content, "PNG")
    return content.getvalue()


def _beyond(proxy: ProxySet) -> float:
    """What no level is near to."""
    levels = proxy.normalisation.levels(proxy.images)
    return float(((levels < 0) | (levels > 255)).float().mean())
