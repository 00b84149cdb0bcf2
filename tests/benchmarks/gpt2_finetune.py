"""gpt2_finetune.py against `Trainer` in float32 and against a hand-written loop, and its memory for texts of any size.

    python tests/benchmarks/gpt2_finetune.py --rounds 5 --steps 4     # speed, GPT-2 124M shape, 4 x 256 tokens a step
    python tests/benchmarks/gpt2_finetune.py --memory 10 1024         # RssAnon at step 50, texts of 10 and 1,024 MiB

Speed: three copies of one model with random weights train on the same blocks in the same order: the script as it is by
default, `Trainer` in float32, and a plain PyTorch loop in the script's dtype. All are warmed up, then take turns; the
median of the ratios of tokens per second is printed, the mean loss of each side beside it, and the fraction of this
machine's measured matrix-product rate that each side reaches. Memory: one process per size, a small model of
characters; RssAnon is the memory that no file backs, as the Linux kernel counts it.
"""

import argparse
import contextlib
import copy
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
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


def matmul_rate(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of two square matrices."""
    a, b = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times[2:])


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
        groups = {"lr": training_args.learning_rate, "weight_decay": training_args.weight_decay, "fused": True}
        self.optimizer = torch.optim.AdamW(model.parameters(), **groups)
        self.clock = Clock()

    def train(self) -> float:
        """Train `max_steps` steps; return their mean loss."""
        sampler, losses = script.EpochSampler(self.dataset, self.args.seed), []
        loader = DataLoader(self.dataset, self.args.per_device_train_batch_size, sampler=sampler)
        for _, input_ids in zip(range(self.args.max_steps), loader, strict=False):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
                loss = self.model(input_ids=input_ids, labels=input_ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
            self.clock.on_step_end()
        return statistics.mean(losses)


def build_sides(options, folder: str) -> dict:
    """Return the three sides: objects with `train` and `clock`."""
    text = Path(options.text).read_text(encoding="utf-8") if options.text else script.SAMPLE_TEXT * 100
    path = Path(folder, "text.txt")
    path.write_text(text, encoding="utf-8")
    tokenizer = GPT2Tokenizer().train_new_from_iterator([text], vocab_size=5000, show_progress=False)
    dataset = script.TextDataset(str(path), tokenizer, options.block_size, folder)
    set_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    flags = [
        "--output_dir",
        folder,
        "--max_steps",
        str(options.steps),
        "--save_strategy",
        "no",
        "--disable_tqdm",
        "true",
    ]
    flags += ["--per_device_train_batch_size", str(options.batch_size), "--lr_scheduler_type", "constant"]
    flags += ["--warmup_steps", "0", "--logging_strategy", "no"]

    def trainer_of(*more: str) -> Trainer:
        training_args = script.parse_arguments([*flags, *more])[1]
        if not more:
            return script.build_trainer(copy.deepcopy(model), tokenizer, {"train": dataset}, training_args)
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        return Trainer(copy.deepcopy(model), training_args, collator, dataset)

    sides = {"Trainer, fp32": trainer_of("--bf16", "false"), "gpt2_finetune.py": trainer_of()}
    for trainer in sides.values():
        trainer.clock = Clock()
        trainer.add_callback(trainer.clock)
        trainer._get_train_sampler = lambda *_, trainer=trainer: script.EpochSampler(dataset, trainer.args.seed)
    return sides | {"hand-written loop": Loop(model, dataset, sides["gpt2_finetune.py"].args)}


def compare_speed(options) -> None:
    """Train the sides in turn and print tokens per second, ratios, losses and fractions of the matrix-product rate."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        sides = build_sides(options, folder)
        speeds, losses = {name: [] for name in sides}, {name: [] for name in sides}
        for i in range(options.rounds + 1):
            for name, side in sides.items():
                side.clock.times.clear()
                result = side.train()
                losses[name].append(getattr(result, "training_loss", result))
                seconds = side.clock.times[-1] - side.clock.times[0]  # the first step of a round also starts things up
                tokens = (options.steps - 1) * options.batch_size * options.block_size
                speeds[name].append(tokens / seconds if i else 0)
    ours, shape = "gpt2_finetune.py", GPT2Config()
    bf16 = sides[ours].args.bf16
    rates = {dtype: matmul_rate(dtype) for dtype in (torch.bfloat16, torch.float32)}
    matrices = 12 * shape.n_layer * shape.n_embd**2 + shape.vocab_size * shape.n_embd
    flops = 6 * matrices + 6 * shape.n_layer * shape.n_embd * options.block_size  # a token, forward and backward
    for name in sides:
        dtype = torch.float32 if "fp32" in name or not bf16 else torch.bfloat16
        speed = statistics.median(speeds[name][1:])
        fraction = f"{flops * speed / rates[dtype]:.0%} of the {str(dtype).removeprefix('torch.')} matrix-product rate"
        print(f"{name}: {speed:.0f} tokens/s, loss {statistics.mean(losses[name]):.4f}, {fraction}", end=" ")
        print(f"({rates[dtype] / 1e9:.0f} GFLOP/s)")
    for name in sides:
        ratio = statistics.median(a / b for a, b in zip(speeds[ours][1:], speeds[name][1:], strict=True))
        if name != ours:
            print(f"gpt2_finetune.py is {ratio:.2f} times as fast as: {name}")


class Probe(TrainerCallback):
    """Reads this process's RssAnon, in bytes, when step 50 ends."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 50:
            status = Path("/proc/self/status").read_text()
            self.anonymous = int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1)) * 1024


def measure_memory(megabytes: int, folder: str) -> None:
    """Train 50 steps on a text of that size and print RssAnon and the size of the sampler's permutation as JSON."""
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
    flags = ["--train_file", str(path), "--model_name_or_path", str(Path(folder, "char")), "--cache_dir", folder]
    flags += ["--output_dir", folder, "--do_train", "--max_steps", "50", "--save_strategy", "no", "--bf16", "false"]
    with contextlib.redirect_stdout(io.StringIO()):
        script.main([*flags, "--logging_strategy", "no"])
    print(json.dumps({"anonymous": probe.anonymous, "permutation": 8 * probe.blocks}))


def compare_memory(sizes: list[int]) -> None:
    """Measure each size in a process of its own and print RssAnon with and without the sampler's permutation."""
    first = None
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--memory_of", str(size), folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rest = found["anonymous"] - found["permutation"]
        first = first or rest
        print(f"text of {size} MiB: RssAnon {found['anonymous'] / 2**20:.0f} MiB at step 50,", end=" ")
        print(
            f"permutation {found['permutation'] / 2**20:.1f} MiB, the rest {rest / first:.3f} of the first", flush=True
        )


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="training steps of each side in a round; at least 2")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--block_size", type=int, default=256)
    parser.add_argument("--text", help="UTF-8 text; default: the script's sample, many times")
    parser.add_argument("--memory", type=int, nargs="+", metavar="MIB", help="measure memory for texts of these sizes")
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
