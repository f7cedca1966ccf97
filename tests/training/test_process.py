"""What a process sets once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
import torch

from nasproxy.training.process import alone, default_threads, peak_memory_bytes, prepare_process
from nasproxy.versions import usable_cores


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


@pytest.mark.parametrize(
    ("said", "threads"),
    [("1", 1), ("3", 3), (" 2 ", 2), ("2,1", 2), ("64", 4), ("0", 4), ("-1", 4), ("", 4), ("many", 4), ("9" * 9999, 4)],
)
def test_a_process_has_as_many_threads_as_openmp_is_told_and_no_more_than_cores(monkeypatch, said, threads):
    monkeypatch.setattr("nasproxy.training.process.usable_cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert default_threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert default_threads() == 4


@pytest.mark.skipif(sys.platform != "linux", reason="affinity and quotas are Linux's")
def test_cores_are_those_of_the_affinity_and_of_a_containers_quota(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)))
    quota, real_open = tmp_path / "cpu.max", open
    monkeypatch.setattr(os.path, "exists", lambda path, real=os.path.exists: "cpu.max" in str(path) or real(path))
    monkeypatch.setattr(
        "builtins.open", lambda path, *more, **how: real_open(quota if "cpu.max" in str(path) else path, *more, **how)
    )
    for text, cores in (("max 100000", 48), ("200000 100000", 2), ("150000 100000", 2), ("9900000 100000", 48)):
        quota.write_text(text)
        assert usable_cores() == cores
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert usable_cores() == 1


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


@pytest.mark.usefixtures("_restored")
def test_threads_and_flags_are_afterwards_what_they_were():
    torch.set_num_threads(2)
    for fails in (False, True):
        with contextlib.suppress(KeyboardInterrupt), alone(), alone():
            prepare_process(1)
            assert torch.backends.cudnn.deterministic
            if fails:
                raise KeyboardInterrupt
        assert torch.get_num_threads() == 2
        assert (torch.tensor([1e-40]) * 1.5).item() > 0
        assert not torch.backends.cudnn.deterministic
        assert torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("_restored")
def test_flags_that_are_as_wanted_stay_so():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    with alone():
        prepare_process(1)
    assert (torch.tensor([1e-40]) * 1.5).item() == 0


def test_flags_of_pytorchs_newer_names_hinder_nothing():
    child = (
        "import torch; from nasproxy.training.process import alone, prepare_process\n"
        "torch.backends.cudnn.conv.fp32_precision = 'ieee'\n"
        "with alone(): prepare_process(1)"
    )
    subprocess.run([sys.executable, "-c", child], check=True)
