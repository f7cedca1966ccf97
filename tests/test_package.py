"""What is installed is what is in the repository."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import nasproxy

ROOT = Path(__file__).parents[1]
FOLDERS = {"nasproxy": "nasproxy", "search_spaces": "nasproxy/search_spaces"}  # where they are, and as what installed
MADE = {".so", ".pyc", ".pyd"}  # by installing or importing


def written(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in MADE)
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_every_file_is_packed_and_installed(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns(*(f"*{end}" for end in MADE)))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pack = "from setuptools import build_meta; build_meta.build_sdist('packed')"
    subprocess.run([sys.executable, "-c", pack], cwd=source, check=True)
    with tarfile.open(next((source / "packed").glob("*.tar.gz"))) as packed:
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("nasproxy-*")
    for file in ("pyproject.toml", "LICENSE", *FOLDERS):
        assert (unpacked / file).exists()
    build = ["-c", "import setuptools; setuptools.setup()", "build_py", "--build-lib", "installed"]
    subprocess.run([sys.executable, *build], cwd=unpacked, check=True)
    expected = {
        Path(as_what) / path: content
        for folder, as_what in FOLDERS.items()
        for path, content in written(ROOT / folder).items()
    }
    found = written(unpacked / "installed")
    assert found.keys() == expected.keys()
    assert found == expected
    assert {Path("nasproxy/search_spaces/convnet720.py"), Path("nasproxy/kernels/maps.c")} <= found.keys()


def test_the_names_of_the_package_are_its_interface_and_load_nothing():
    names = "[name for name in dir(nasproxy) if name[0] != '_']"
    show = f"import nasproxy, sys; print({names} == nasproxy.__all__, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["True", "False"]
    assert "__version__" in dir(nasproxy)
