"""Cost against size: seconds and peak memory of each script over three decades, and a picture.

    python tests/benchmarks/scale.py    # ten minutes on 2 cores
    python tests/benchmarks/scale.py --only glue_mrpc self_attention

SHOWCASE_DATA names the folder of data; its rows are repeated until there are enough.
Each figure is that of a whole process, imports included, on tiny models (`--smoke`), so that what
grows is the handling of data; one epoch where a script trains. The last column compares the cost
of a row in the largest run with that in the next smaller one, both without the smallest run's
seconds, which are those of starting: 1 is linear. Draws docs/scale.png, and keeps the figures in
scale.json beside this file, from which `--only` takes those that it leaves out.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from figures import DATA
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
FIGURES = Path(__file__).with_name("scale.json")
ATTEND = """
import sys
import numpy as np
import self_attention
words = int(sys.argv[1])
query, key, value = np.random.default_rng(0).standard_normal((3, words, 64), dtype=np.float32)
self_attention.blockwise_attention(query, key, value)
"""
TINY_T5 = """
import sys
import t5_translator
pairs = t5_translator.read_pairs(sys.argv[1])
for part in t5_translator.tiny(pairs, t5_translator.build_prompt("German", "English")):
    part.save_pretrained(sys.argv[2])
"""


@dataclass
class Run:
    """What a process of some size cost."""

    size: int
    seconds: float
    megabytes: float


def repeated(path: Path, rows: int, header: int = 0) -> Iterator[str]:
    """Yield the header of a file and so many of its lines, from the start again if need be."""
    lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    yield from lines[:header]
    yield from itertools.islice(itertools.cycle(lines[header:]), rows)


def write(path: Path, lines: Iterator[str]) -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    return str(path)


def bert_finetune(size: int, folder: Path) -> list[str]:
    """One epoch of the tiny BERT, in batches of 32; the rows of SST-2."""
    rows = write(folder / "train.tsv", repeated(DATA / "sst2" / "train.tsv", size))
    few = write(folder / "validation.tsv", repeated(DATA / "sst2" / "validation.tsv", 100))
    flags = f"--smoke --train_file {rows} --validation_file {few} --num_train_epochs 1"
    flags += " --baseline false --per_device_train_batch_size 32"
    return [*flags.split(), "--column_names", "text", "label"]


def gpt2_finetune(size: int, folder: Path) -> list[str]:
    """Tokenizing so many characters and one epoch of the tiny GPT-2 on blocks of 64 tokens."""
    text = (DATA / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    (folder / "text.txt").write_text((text * (size // len(text) + 1))[:size], encoding="utf-8")
    flags = f"--smoke --train_file {folder}/text.txt --cache_dir {folder}/cache"
    flags += " --num_train_epochs 1 --max_steps -1 --stride 64"  # and not 400 steps
    return f"{flags} --eval_strategy no --save_strategy no".split()


def glue_mrpc(size: int, folder: Path) -> list[str]:
    """Loading, tokenizing, padding and saving so many pairs of MRPC."""
    for name, rows in (("train", size), ("test", 100)):
        file = f"msr_paraphrase_{name}.txt"
        write(folder / file, repeated(DATA / "mrpc" / file, rows, header=1))
    return ["--smoke", "--data_dir", str(folder)]


def t5_translator(size: int, folder: Path) -> list[str]:
    """Translating so many lines with a tiny T5 of random weights, 12 tokens at most."""
    pairs, german = DATA / "multi30k" / "val.de-en.tsv", folder / "german.txt"
    write(german, (pair.split("\t")[0] for pair in repeated(pairs, size)))
    command = [sys.executable, "-c", TINY_T5, str(pairs), f"{folder}/model"]
    subprocess.run(command, cwd=ROOT / "lang_translator", check=True, capture_output=True)
    files = f"--input_file {german} --output_file {folder}/english.txt --max_new_tokens 12"
    languages = "--source_lang German --target_lang English"
    return f"--model_name_or_path {folder}/model {languages} {files}".split()


def seq2seq_lstm(size: int, folder: Path) -> list[str]:
    """One epoch of the tiny LSTM with attention on so many pairs, in batches of 64."""
    pairs = write(folder / "train.tsv", repeated(DATA / "multi30k" / "train.de-en.tsv", size))
    few = write(folder / "val.tsv", repeated(DATA / "multi30k" / "val.de-en.tsv", 100))
    flags = f"--smoke --attention --train_file {pairs} --validation_file {few} --batch_size 64"
    return f"{flags} --num_train_epochs 1 --max_train_samples {size}".split()


def self_attention(size: int, folder: Path) -> list[str]:
    """`blockwise_attention` over so many words, one head of 64 numbers: quadratic by its nature."""
    return ["-c", ATTEND, str(size)]


CURVES = {  # script: what is counted, the sizes
    bert_finetune: ("rows", (200, 2_000, 20_000, 200_000)),
    gpt2_finetune: ("characters", (10_000, 100_000, 1_000_000, 10_000_000)),
    glue_mrpc: ("pairs", (500, 5_000, 50_000, 500_000)),
    t5_translator: ("lines", (100, 1_000, 10_000, 100_000)),
    seq2seq_lstm: ("pairs", (100, 1_000, 10_000, 100_000)),
    self_attention: ("words", (100, 1_000, 10_000, 100_000)),
}


def measure(build, size: int) -> Run:
    """Run a script on data of this size in a process of its own; its output goes nowhere."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = build(size, Path(folder))
        [script] = ROOT.glob(f"*/{build.__name__}.py")
        if arguments[0] != "-c":
            arguments.insert(0, str(script))
            if "--output_file" not in arguments:
                arguments += ["--output_dir", f"{folder}/out"]
        environment = os.environ | {"PYTHONPATH": str(script.parent)}
        # A child counts the memory that this process has when it starts it: keep it small here.
        void = os.open(os.devnull, os.O_WRONLY)
        quiet = [(os.POSIX_SPAWN_DUP2, void, 1), (os.POSIX_SPAWN_DUP2, void, 2)]
        start = time.perf_counter()
        command = [sys.executable, *arguments]
        process = os.posix_spawn(sys.executable, command, environment, file_actions=quiet)
        _, status, usage = os.wait4(process, 0)
        os.close(void)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"failed: {' '.join(command)}")
    return Run(size, seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))


def growth(runs: list[Run]) -> float:
    """Cost of a row in the largest run in terms of that in the next smaller one."""
    first, *_, before, last = runs
    costs = [(run.seconds - first.seconds) / run.size for run in (before, last)]
    return costs[1] / costs[0]


def draw(curves: dict[str, list[Run]], path: Path) -> None:
    """Seconds and peak memory against size, both axes logarithmic."""
    figure = Figure((11, 4.5), layout="constrained")
    for axes, field, title in zip(
        figure.subplots(1, 2), ("seconds", "megabytes"), ("seconds", "peak memory, MB"), strict=True
    ):
        for build, (unit, _) in CURVES.items():
            if runs := curves.get(build.__name__):
                sizes, values = zip(*((run.size, getattr(run, field)) for run in runs), strict=True)
                axes.loglog(sizes, values, marker="o", label=f"{build.__name__} ({unit})")
        axes.set(title=title, xlabel="size")
        axes.grid(alpha=0.3)
    figure.get_axes()[0].legend(fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure all sizes; print the table and draw the picture."""
    names = [build.__name__ for build in CURVES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "scale.png")
    options = parser.parse_args()
    curves = {}
    if options.only != names and FIGURES.exists():
        saved = json.loads(FIGURES.read_text(encoding="utf-8"))
        curves = {name: [Run(**run) for run in runs] for name, runs in saved.items()}
    print("| script | size: seconds, peak memory | cost of a row, last ten-fold |\n|---|---|---:|")
    for build, (unit, sizes) in CURVES.items():
        name = build.__name__
        if name in options.only:
            curves[name] = [measure(build, size) for size in sizes]
        if runs := curves.get(name):
            cells = (f"{run.size:,}: {run.seconds:.3g} s, {run.megabytes:,.0f} MB" for run in runs)
            line = f"| {name}.py, {unit} | {' · '.join(cells)} | {growth(runs):.2f} × |"
            print(line, flush=True)
    draw(curves, options.picture)
    figures = {name: [asdict(run) for run in runs] for name, runs in curves.items()}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"\nFiles:\n  {options.picture}")


if __name__ == "__main__":
    main()
