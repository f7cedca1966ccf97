"""What ran: the versions of the libraries that decide a result, and the machine."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nasproxy.kernels.library import kernels

_LIBRARIES = ("torch", "torchvision", "ray", "optuna", "numpy")


def library_versions() -> dict[str, str]:
    """The versions that matter for a bug report; a missing package is left out."""
    found = {"python": platform.python_version()}
    for package in ("nasproxy", *_LIBRARIES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def deciding_versions() -> dict[str, str | None]:
    """The versions that the numbers of a result depend on: by another one it is made anew."""
    found = library_versions()
    return {package: found.get(package) for package in ("nasproxy", "torch")}


def version_report() -> str:
    """One line a library, nasproxy's own first: what belongs into a bug report. Neither torch nor Ray is imported."""
    found = library_versions()
    own = found.pop("nasproxy", "unknown")
    if "torch" in found:
        found["torch"] += f" ({_torch_build()})"
    missing = {name: "not installed" for name in _LIBRARIES if name not in found}
    compiled = "none" if kernels() is None else "compiled"
    lines = [("nasproxy", own), *(found | missing).items(), ("kernels", compiled), ("platform", platform.platform())]
    return "\n".join(f"{name} {version}" for name, version in lines)


def _torch_build() -> str:
    """What PyTorch was built for, by the file that its build has left: importing it takes seconds."""
    spec = find_spec("torch")
    try:
        text = (Path(spec.origin).parent / "version.py").read_text() if spec and spec.origin else ""
    except OSError:
        text = ""
    for name, title in (("cuda", "CUDA"), ("hip", "ROCm"), ("xpu", "XPU")):
        built = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
        if built:
            return f"{title} {built[1]}"
    return "CPU"


def machine_facts(device: str) -> dict[str, Any]:
    """Processor, cores, memory and GPU of this machine, and whether nasproxy's kernels are compiled for it."""
    import torch

    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else None
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "kernels": kernels() is not None,
        "device": device,
        "gpu": gpu,
    }


def usable_cores() -> int:
    """The cores this process may fill: those of its affinity and its container's quota, or ``LOKY_MAX_CPU_COUNT``."""
    import joblib

    return int(joblib.cpu_count())


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
