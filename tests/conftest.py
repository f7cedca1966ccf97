"""Shape annotations are checked at run time while the tests run."""

import os
import signal
from collections.abc import Iterator

# Threads that wait for each other make small tests slow on a busy machine; those of the commands that are tested with
# several had better sleep meanwhile. OpenMP asks once, as torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)

# No test depends on how fast the machine is.
hypothesis.settings.register_profile("nasproxy", deadline=None)
hypothesis.settings.load_profile("nasproxy")

# In the background of a shell script Ctrl-C is ignored, and would be by all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

install_import_hook("nasproxy", "beartype.beartype")


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """What trains in this process flushes denormal numbers to zero; hypothesis refuses to draw floats after that."""
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)
