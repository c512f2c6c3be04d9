"""The wheel holds the packages with their checkpoints, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("worldmodel", "envs", "agents", "evaluation")


@pytest.mark.slow
def test_wheel(tmp_path: Path) -> None:
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("setuptools 77 or newer builds it")
    source = tmp_path / "source"
    left = shutil.ignore_patterns(".*", "__pycache__", "runs", "outputs", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=left)
    build = ("wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index")
    command = [sys.executable, "-m", "pip", *build, "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    for folder in (ROOT / "worldmodel/checkpoints").iterdir():
        for file in ("config.json", "model.safetensors", "README.md"):
            assert f"worldmodel/checkpoints/{folder.name}/{file}" in names
    assert not [name for name in names if name.startswith("evaluation/results")]
    modules = {
        str(path.relative_to(ROOT)) for name in PACKAGES for path in ROOT.glob(f"{name}/**/*.py")
    }
    assert modules <= names
