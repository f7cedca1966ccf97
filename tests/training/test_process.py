"""What a process sets once."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from nasproxy.training.process import peak_memory_bytes, prepare_process


@pytest.fixture
def _restored():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = False, True


@pytest.mark.usefixtures("_restored")
def test_threads_and_denormals_are_set_as_often_as_asked():
    possible = torch.set_flush_denormal(True)  # False on a processor that cannot
    torch.set_flush_denormal(False)
    denormal = torch.tensor([1e-40])
    assert (denormal * 1.5).item() > 0
    for threads in (1, 1, 2):
        prepare_process(threads)
        assert torch.get_num_threads() == threads
    assert bool((denormal * 1.5).item() == 0) == possible


@pytest.mark.usefixtures("_restored")
def test_a_gpu_is_told_to_repeat_itself_and_to_compute_float32_as_such():
    prepare_process(1)
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.allow_tf32


def test_the_peak_of_memory_is_in_bytes_and_never_falls():
    before = peak_memory_bytes(torch.device("cpu"))
    assert before > 20 * 2**20  # torch alone takes more
    block = torch.ones(2**20)
    after = peak_memory_bytes(torch.device("cpu"))
    del block
    assert before <= after <= before + 2**30


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process may start at its parent's peak")
def test_the_peak_of_memory_is_not_that_of_the_process_which_started_this_one():
    child = "import torch; from nasproxy.training import process; print(process.peak_memory_bytes(torch.device('cpu')))"
    parent = (
        f"import subprocess, sys; block = b'1' * 2**31; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    said = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True).stdout
    assert 20 * 2**20 < int(said) < 2**31
