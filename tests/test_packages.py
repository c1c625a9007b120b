"""The four packages have generic names: each must be this checkout's, wherever it was imported from."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cli", "pipeline", "stages", "data")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_this_checkouts(name: str):
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == ROOT / name / "__init__.py"


def test_packages_are_this_checkouts_in_another_folder_too(tmp_path: Path):
    """As for a user who types `distill` anywhere: the installation decides, not the folder one stands in."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong package')")
    script = f"import {', '.join(PACKAGES)}\nprint(*(module.__file__ for module in ({', '.join(PACKAGES)})), sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if "No module named" in result.stderr:
        pytest.skip("the project is not installed in this interpreter, only on pytest's path")
    assert result.returncode == 0, result.stderr
    assert [Path(line).resolve() for line in result.stdout.splitlines()] == [
        ROOT / name / "__init__.py" for name in PACKAGES
    ]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_folder_of_code_is_a_package(name: str):
    """A folder without `__init__.py` would be left out of an installation, and be found only in a checkout."""
    folders = {path.parent for path in (ROOT / name).rglob("*.py")}
    assert folders
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_tests_are_no_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))
