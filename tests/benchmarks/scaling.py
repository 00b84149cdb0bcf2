"""Weak scaling: two processes with twice the work against one, each process in one thread.

    python tests/benchmarks/scaling.py    # 2 cores, minutes

SHOWCASE_DATA names the folder of data.
Both runs of a row follow each other; an efficiency of 1 would be twice the throughput.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import DATA, minilm

ROOT = Path(__file__).resolve().parents[2]
THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "RAYON_NUM_THREADS"),
    "1",
)
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def run(processes: int, *arguments: str) -> float:
    """Run a script of torch in so many processes; return the seconds that it took."""
    begin = time.perf_counter()
    command = [*(TORCHRUN if processes > 1 else [sys.executable]), *arguments]
    subprocess.run(
        command,
        check=True,
        env=os.environ | THREADS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - begin


def trained(processes: int, folder: str, script: str, *arguments: str) -> float:
    """Rows per second of a training, without starting and loading."""
    run(
        processes,
        str(ROOT / script),
        *arguments,
        "--save_strategy",
        "no",
        "--do_train",
        "--output_dir",
        folder,
    )
    return json.loads(Path(folder, "all_results.json").read_text())["train_samples_per_second"]


def bert(processes: int, folder: str, options) -> float:
    """Sentences per second, MiniLM-L6 on SST-2, 32 per process and step."""
    data = ["--train_file", f"{DATA}/sst2/train.tsv", "--column_names", "text", "label"]
    flags = ["--model_name_or_path", options.model, "--max_steps", "40"]
    return trained(processes, folder, "bert_finetune/bert_finetune.py", *data, *flags)


def gpt2(processes: int, folder: str, options) -> float:
    """Blocks of 64 characters per second, 0.8 million parameters, 64 per process and step."""
    checkpoint = f"{folder}/checkpoint"
    text = f"{DATA}/tinyshakespeare/input.txt"
    subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests/make_char_checkpoint.py"),
            "--text",
            text,
            "--output_dir",
            checkpoint,
        ],
        check=True,
    )
    flags = [
        "--block_size",
        "64",
        "--max_steps",
        "60",
        "--per_device_train_batch_size",
        "64",
        "--cache_dir",
        folder,
    ]
    files = ["--model_name_or_path", checkpoint, "--train_file", text]
    return trained(processes, folder, "gpt2_finetune/gpt2_finetune.py", *files, *flags)


def t5(processes: int, folder: str, options) -> float:
    """Lines per second of translating a file of a window per process, starting and loading included."""
    sys.path.insert(0, str(ROOT / "lang_translator"))
    import t5_translator as script
    import torch

    torch.manual_seed(0)
    pairs = script.read_pairs(f"{DATA}/multi30k/train.de-en.tsv")[: script.WINDOW_LINES * processes]
    tokenizer, _ = script.tiny(pairs, script.build_prompt("German", "English"))
    size = {"d_model": 256, "d_ff": 1024, "num_layers": 4, "num_heads": 4}
    config = script.T5Config(vocab_size=len(tokenizer), **size, decoder_start_token_id=0)
    for part in (tokenizer, script.T5ForConditionalGeneration(config)):
        part.save_pretrained(folder)
    Path(folder, "german.txt").write_text(
        "".join(f"{german}\n" for german, _ in pairs), encoding="utf-8"
    )
    files = ["--input_file", f"{folder}/german.txt", "--output_file", f"{folder}/english.txt"]
    flags = ["--model_name_or_path", folder, "--source_lang", "German", "--target_lang", "English"]
    script_path = str(ROOT / "lang_translator/t5_translator.py")
    return len(pairs) / run(processes, script_path, *flags, *files, "--max_new_tokens", "12")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=minilm(), help="folder of a pretrained BERT")
    parser.add_argument("--only", nargs="+", choices=["bert", "gpt2", "t5"])
    options = parser.parse_args()
    for row in (bert, gpt2, t5):
        if options.only and row.__name__ not in options.only:
            continue
        speeds = []
        for processes in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                speeds.append(row(processes, folder, options))
        one, two = speeds
        print(
            f"{row.__name__:5} {one:8.1f} per second, two processes {two:8.1f}: {two / one / 2:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
