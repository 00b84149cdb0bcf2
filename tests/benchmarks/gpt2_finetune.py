"""gpt2_finetune.py against `Trainer` in float32 and a hand-written loop, and its memory.

    python tests/benchmarks/gpt2_finetune.py                   # speed, GPT-2 124M, 4 x 256 tokens
    python tests/benchmarks/gpt2_finetune.py --memory 10 1024  # RssAnon, texts of 10 and 1,024 MiB

SHOWCASE_DATA names the folder that holds tinyshakespeare/.

Speed: copies of one model with random weights train on the same blocks in the same order, each in
a process of its own: the script as it is by default, `Trainer` in float32, and a plain PyTorch loop
in the script's dtype, without and with the script's way to keep freed memory. All are warmed up,
then take turns; the median of the ratios of tokens per second is printed, each side's loss on the
same held-out blocks after the same number of steps, and the fraction of this machine's measured
matrix-product rate that it reaches. Memory: one process per size, a small model of characters, at
step 50; RssAnon is the memory that no file backs, as the Linux kernel counts it.
"""

import argparse
import contextlib
import ctypes
import functools
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from figures import DATA, print_figures
from sides import matmul_rate, take_turns
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    Trainer,
    TrainerCallback,
    logging,
    set_seed,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "gpt2_finetune"), str(ROOT / "tests")]
from make_char_checkpoint import make_char_checkpoint  # noqa: E402

import gpt2_finetune as script  # noqa: E402

TEXT = DATA / "tinyshakespeare" / "input.txt"
OURS, FP32 = "gpt2_finetune.py", "Trainer, float32"
LOOP, TUNED_LOOP = (
    "hand-written loop, same dtype",
    "hand-written loop, same dtype, keep_freed_memory",
)


def keep_freed_memory() -> None:
    """What `prepare` does in a run of the script: glibc keeps freed memory."""
    ctypes.CDLL(None).mallopt(-4, 0)
    ctypes.CDLL(None).mallopt(-1, -1)


def order(dataset, seed: int) -> list[int]:
    """The order of the blocks, the same for all sides."""
    return torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()


class Clock(TrainerCallback):
    """Notes when each training step ends."""

    def __init__(self):
        self.times = []

    def on_step_end(self, *args, **kwargs):
        self.times.append(time.perf_counter())


class Loop:
    """The hand-written loop: no `Trainer`, the same model, blocks, optimizer and dtype."""

    def __init__(self, model, dataset, training_args):
        self.model, self.dataset, self.args = model.train(), dataset, training_args
        self.clock = Clock()

    def train(self) -> None:
        """Train `max_steps` steps."""
        groups = {
            "lr": self.args.learning_rate,
            "weight_decay": self.args.weight_decay,
            "fused": True,
        }
        optimizer = torch.optim.AdamW(self.model.parameters(), **groups)
        options = {"sampler": order(self.dataset, self.args.seed)}
        loader = DataLoader(self.dataset, self.args.per_device_train_batch_size, **options)
        for _, input_ids in zip(range(self.args.max_steps), loader, strict=False):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
                loss = self.model(input_ids=input_ids, labels=input_ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            self.clock.on_step_end()


def build(side: str, options, folder: str):
    """Return what trains (with `train`, `model`, `args`, `clock`) and the blocks to judge it on."""
    text = TEXT.read_text(encoding="utf-8")
    tokenizer = GPT2Tokenizer().train_new_from_iterator(
        [text], vocab_size=5000, show_progress=False
    )
    tokens = script.load_tokens([str(TEXT)], tokenizer, folder)
    cut = len(tokens) * 9 // 10
    training = script.TextDataset(tokens[:cut], options.block_size)
    validation = script.TextDataset(tokens[cut:], options.block_size)
    set_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    flags = "--save_strategy no --eval_on_start false --logging_strategy no --disable_tqdm true"
    flags += f" --warmup_steps 0 --lr_scheduler_type constant --max_steps {options.steps}"
    flags += f" --per_device_train_batch_size {options.batch_size} --output_dir {folder}"
    flags += " --bf16 false" if side == FP32 else ""
    *_, training_args = script.parse_arguments(flags.split())
    if side in (OURS, TUNED_LOOP):
        keep_freed_memory()
    if side == OURS:
        trainer = script.build_trainer(model, tokenizer, training_args, {"train": training})
    elif side == FP32:
        trainer = Trainer(
            model, training_args, DataCollatorForLanguageModeling(tokenizer, mlm=False), training
        )
    else:
        return Loop(model, training, training_args), validation
    trainer.clock = Clock()
    trainer.add_callback(trainer.clock)
    trainer._get_train_sampler = lambda *_: order(training, trainer.args.seed)
    return trainer, validation


def prepare(side: str, options):
    """Return what trains this side for one round and gives tokens per second and loss."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = tempfile.mkdtemp()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer, validation = build(side, options, folder)
    shutil.rmtree(folder)
    held_out = torch.stack([validation[i] for i in range(8)])

    def run(number: int) -> dict[str, float]:
        trainer.args.seed = number  # other blocks in every round
        trainer.clock.times.clear()
        ours = side == OURS
        faster = script.faster_dropout(trainer.model) if ours else contextlib.nullcontext()
        with contextlib.redirect_stdout(io.StringIO()), faster:
            trainer.train()
        seconds = (
            trainer.clock.times[-1] - trainer.clock.times[0]
        )  # the first step of a round also starts things up
        with torch.no_grad():
            loss = trainer.model.eval()(
                input_ids=held_out, labels=held_out, use_cache=False
            ).loss.item()
        trainer.model.train()
        tokens = (options.steps - 1) * options.batch_size * options.block_size
        return {"tokens/s": tokens / seconds, "loss": loss, "bf16": trainer.args.bf16}

    return run


def compare_speed(options) -> None:
    """Train the sides in turn; print speeds, ratios, losses and fractions of the matrix rate."""
    sides = {
        name: functools.partial(prepare, name, options) for name in (OURS, FP32, LOOP, TUNED_LOOP)
    }
    results, shape = take_turns(sides, range(options.rounds + 1)), GPT2Config()
    rates = {dtype: matmul_rate(dtype) for dtype in (torch.bfloat16, torch.float32)}
    matrices = 12 * shape.n_layer * shape.n_embd**2 + shape.vocab_size * shape.n_embd
    flops = (
        6 * matrices + 6 * shape.n_layer * shape.n_embd * options.block_size
    )  # a token, forward and backward
    speeds = {name: [one["tokens/s"] for one in found[1:]] for name, found in results.items()}
    for name, found in results.items():
        dtype = torch.bfloat16 if found[-1]["bf16"] else torch.float32
        speed, kind = statistics.median(speeds[name]), str(dtype).removeprefix("torch.")
        print(f"{name}: {speed:.0f} tokens/s, validation loss {found[-1]['loss']:.4f},", end=" ")
        rate = f"{kind} matrix-product rate ({rates[dtype] / 1e9:.0f} GFLOP/s)"
        print(f"{flops * speed / rates[dtype]:.0%} of the {rate}")
    for name in (FP32, LOOP, TUNED_LOOP):
        ratio = statistics.median(
            ours / other for ours, other in zip(speeds[OURS], speeds[name], strict=True)
        )
        print(f"{OURS} is {ratio:.2f} times as fast as: {name}")
    print_figures({name: statistics.median(found) for name, found in speeds.items()})


class Probe(TrainerCallback):
    """Reads this process's RssAnon, in bytes, when step 50 ends."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 50:
            status = Path("/proc/self/status").read_text()
            self.anonymous = int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1)) * 1024


def measure_memory(megabytes: int, folder: str) -> None:
    """Train 50 steps on a text of that size; print RssAnon and the order's size as JSON."""
    path, text = Path(folder, "text.txt"), script.SAMPLE_TEXT.replace("<|endoftext|>", "\n")
    with open(path, "w", encoding="utf-8") as file:
        for i in range(megabytes * 2**20 // (len(text) + 10)):
            file.write(f"{i:9d}\n{text}")
    make_char_checkpoint(text + "0123456789", Path(folder, "char"), n_layer=2)
    probe, build_trainer = Probe(), script.build_trainer

    def build(*args):
        trainer = build_trainer(*args)
        trainer.add_callback(probe)
        probe.blocks = len(trainer.train_dataset)
        return trainer

    script.build_trainer = build
    flags = [
        "--train_file",
        str(path),
        "--model_name_or_path",
        str(Path(folder, "char")),
        "--cache_dir",
        folder,
    ]
    flags += [
        "--output_dir",
        folder,
        "--do_train",
        "--max_steps",
        "50",
        "--save_strategy",
        "no",
        "--bf16",
        "false",
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        script.main([*flags, "--logging_strategy", "no"])
    print(json.dumps({"anonymous": probe.anonymous, "permutation": 40 * probe.blocks}))


def compare_memory(sizes: list[int]) -> None:
    """Measure each size in a process of its own; print RssAnon with and without the order."""
    first = None
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--memory_of", str(size), folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rest = found["anonymous"] - found["permutation"]
        first = first or rest
        print(
            f"text of {size} MiB: RssAnon {found['anonymous'] / 2**20:.0f} MiB at step 50,", end=" "
        )
        print(f"permutation {found['permutation'] / 2**20:.1f} MiB,", end=" ")
        print(f"the rest {rest / first:.3f} of the first", flush=True)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=6, help="training steps of each side in a round; at least 2"
    )
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--block_size", type=int, default=256)
    parser.add_argument(
        "--memory",
        type=int,
        nargs="+",
        metavar="MIB",
        help="measure memory for texts of these sizes",
    )
    parser.add_argument("--memory_of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.memory_of:
        measure_memory(int(options.memory_of[0]), options.memory_of[1])
    elif options.memory:
        compare_memory(options.memory)
    else:
        compare_speed(options)


if __name__ == "__main__":
    main()
