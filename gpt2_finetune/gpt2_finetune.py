# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate>=1.10",
#     "datasets>=4.0",
#     "huggingface_hub>=1.5",
#     "matplotlib>=3.10",
#     "numpy>=2.1",
#     "safetensors>=0.6",
#     "torch>=2.11",
#     "tqdm>=4.67",
#     "transformers>=5.10",
# ]
# ///
# SPDX-License-Identifier: MIT
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-28
"""Fine-tune GPT-2 or another causal language model, on the built-in paragraphs or on your own text.

python gpt2_finetune.py --smoke                                         # seconds, no download
python gpt2_finetune.py --train_file book.txt --prompt "It was a dark"  # plain text of any size
python gpt2_finetune.py --do_predict --prompt "It was a" --model_name_or_path outputs/gpt2_finetune

The text becomes one long stream of tokens, cut into blocks. Of each token of a block the model says
how probable it is after those before it. So the labels are the block itself, one to the left; ten
tokens of a text, where <end> is the model's token for the end of a text:

position    1          2          3      4      5      6     7       8       9     10
input       The        lighthouse keeper climbs ninety steps every   evening .     <end>
to predict  lighthouse keeper     climbs ninety steps  every evening .       <end>

The loss is the mean over the T tokens to predict, in nats: -1/T times the sum over t = 1 ... T of
log p(token t+1 | tokens 1 to t). Its exponential is the perplexity. The shapes on the way:

tokens     (tokens,)                          the whole text: integers in a file on the disk
input_ids  (batch, block_size)                some of its blocks, and the labels in the same shape
logits     (batch, block_size, vocabulary)    after each token, of the next one
loss       ()

Read `main`, then what it calls, in the order of the first calls: model, data, trainer, writing,
training, measures. `main` writes first to show what the model does before its training. Below stand
"Speed", which changes no meaning of a result, and "Plumbing", which serves `main` alone.
"""

import argparse
import codecs
import copy
import ctypes
import gc
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
import transformers
from datasets import load_dataset
from datasets.fingerprint import Hasher
from huggingface_hub import HfApi, create_repo, snapshot_download, upload_folder
from huggingface_hub.constants import HF_ASSETS_CACHE
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import enable_progress_bars
from matplotlib.figure import Figure
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    EarlyStoppingCallback,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
)
from transformers.hf_argparser import HfArg, HfArgumentParser


@dataclass
class ScriptArguments:
    """Flags of this script; every flag of `transformers.TrainingArguments` works beside them."""

    smoke: bool = HfArg(default=False, help="Train a tiny model: no download, seconds.")
    model_name_or_path: str = HfArg(default="gpt2", help="Hub name or folder of any causal LM.")
    train_file: list[str] | None = HfArg(default=None, help="Files, or folders of .txt files.")
    validation_file: list[str] | None = HfArg(default=None, help="Text to evaluate on.")
    validation_split_percentage: int = HfArg(default=10, help="Without it: of the training text.")
    encoding: str = HfArg(default="utf-8-sig", help="Of the files; many under Windows: cp1252.")
    text_column: str | None = HfArg(default=None, help="Its column, in CSV, JSON lines, Parquet.")
    block_size: int = HfArg(default=1024, help="Tokens in a block, at most the model's context.")
    stride: int | None = HfArg(default=None, help="From a block's start to the next one's.")
    cache_dir: str = HfArg(default=f"{HF_ASSETS_CACHE}/gpt2_finetune", help="Of tokenized texts.")


@dataclass
class GenerationArguments:
    """How to write: the keyword arguments of `generate`."""

    prompt: str = HfArg(default="The lighthouse keeper", help="Text that the model continues.")
    max_new_tokens: int = HfArg(default=50, help="Tokens of the continuation, at most.")
    num_return_sequences: int = HfArg(default=1, help="Continuations; several have to be drawn.")
    temperature: float = HfArg(default=1.0, help="0: always the likeliest token; above 1: odder.")
    top_k: int = HfArg(default=0, help="Draw among so many likeliest tokens; 0: among all.")
    top_p: float = HfArg(default=0.95, help="Draw among the likeliest that have this share.")


@dataclass
class FineTuningArguments(transformers.TrainingArguments):
    """The recipe: `TrainingArguments` with defaults for fine-tuning GPT-2."""

    output_dir: str = "outputs/gpt2_finetune"
    per_device_train_batch_size: int = 4
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.1
    weight_decay: float = 0.1
    logging_steps: float = 0.05
    # True would hide a loss of NaN, and let a GPU wait in every step.
    logging_nan_inf_filter: bool = False
    save_steps: float = 0.1
    save_total_limit: int = 1
    eval_strategy: str = "steps"
    eval_on_start: bool = True
    load_best_model_at_end: bool = True
    # Stop after so many evaluations in a row without a lower loss.
    early_stopping_patience: int | None = None


def main(argv: list[str] | None = None) -> None:
    """Train, evaluate and continue the prompt: all of it, or what --do_... chooses."""
    args, generation, training_args = parse_arguments(argv)
    prepare(training_args, args.model_name_or_path)
    with training_args.main_process_first():
        if args.smoke:
            corpus = read_texts(args.train_file, "", args.encoding, args.text_column)
            tokenizer, model = untrained(corpus, n_positions=args.block_size)
        else:
            tokenizer, model = pretrained(args.model_name_or_path)
        datasets = load_datasets(args, training_args, tokenizer, context_size(model))
    trainer = build_trainer(model, tokenizer, training_args, datasets)
    metrics = {}
    texts = [generate(model, tokenizer, **generation)] if training_args.do_predict else []
    if training_args.do_train:
        with faster_dropout(model):
            metrics |= train(trainer)
        args.model_name_or_path = training_args.output_dir
    metrics |= trainer.evaluate() if training_args.do_eval else {}
    if training_args.do_train and training_args.do_predict:
        texts.append(generate(model, tokenizer, **generation))
    if trainer.is_world_process_zero():
        write_texts(generation["prompt"], texts, training_args.output_dir)
        metrics |= measure(metrics, texts, datasets, tokenizer)
        report(metrics, training_args, args.model_name_or_path, next_command(args, generation))


def untrained(
    texts: Iterable[str], vocab_size: int = 1000, **size: int
) -> tuple[GPT2Tokenizer, GPT2LMHeadModel]:
    """Return a vocabulary of the first 1,000 of these texts and a GPT-2 of random weights.

    With a `vocab_size` of 257 every byte is a token. `size`: fields of `GPT2Config` in place
    of the tiny model's, such as `n_positions`, the tokens that it reads at most.
    """
    texts = islice(texts, 1000)
    tokenizer = GPT2Tokenizer().train_new_from_iterator(texts, vocab_size, show_progress=False)
    end = tokenizer.eos_token_id
    size = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end} | size
    return tokenizer, GPT2LMHeadModel(GPT2Config(**TINY_SIZE | size))


def pretrained(name: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load a causal language model from a folder or the hub, or raise InputError."""
    folder, options = fetch(name), {"trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        options |= {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
        model, loading = AutoModelForCausalLM.from_pretrained(folder, **options)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"cannot load {name}: {str(error).splitlines()[0]}") from error
    complete = not loading["missing_keys"]
    # What may follow the first token must not depend on the second. Each: (vocabulary,)
    first, second = model(torch.tensor([[0, 0], [0, 1]])).logits[:, 0]
    causal = torch.allclose(first, second, atol=1e-5)
    # Without its files a tokenizer loads in silence, and knows next to nothing.
    own_tokenizer = model.config.vocab_size / 2 < len(tokenizer) <= model.config.vocab_size
    if not (complete and causal and own_tokenizer):
        raise InputError(f"{name} is no language model: {complete=}, {causal=}, {own_tokenizer=}")
    return tokenizer, model


def context_size(model: PreTrainedModel) -> int:
    """Return how many tokens the model reads at most."""
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize


def load_datasets(
    args: ScriptArguments,
    training_args: transformers.TrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
) -> dict[str, "TextDataset"]:
    """Return the blocks of `train` and `validation`, as far as needed, of at most `limit` tokens.

    Without a validation file the end of the training tokens is kept for validation.
    """
    block_size = min(args.block_size, limit)
    wanted = {"train": training_args.do_train, "validation": training_args.do_eval}
    datasets = {}
    for split in filter(wanted.get, wanted):
        paths = (split == "validation" and args.validation_file) or args.train_file
        tokens = load_tokens(paths, tokenizer, args.cache_dir, args.encoding, args.text_column)
        if not args.validation_file:
            cut = max(0, len(tokens) * (100 - args.validation_split_percentage) // 100)
            tokens = tokens[:cut] if split == "train" else tokens[cut:]
        stride = block_size if split != "train" or args.stride is None else args.stride
        origin = "" if paths else " of the built-in text"
        found = f"{len(tokens):,} tokens{origin} for {split}"
        if stride < 1 or not 1 < block_size <= len(tokens):
            raise InputError(f"{found}: no block of --block_size {block_size}, --stride {stride}")
        datasets[split] = blocks = TextDataset(tokens, block_size, stride)
        # All tokens but the first block's and what every further block adds.
        left = len(tokens) - block_size - (len(blocks) - 1) * min(stride, block_size)
        print(f"{found} in {len(blocks):,} blocks of {block_size}; left out: {left:,}")
    return datasets


def load_tokens(
    paths: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: str,
    encoding: str = "utf-8-sig",
    column: str | None = None,
) -> np.memmap:
    """Return the token ids of documents, shape (tokens,), mapped from a file in `cache_dir`.

    That file is made when it is missing, in constant memory. Every document (a file, or a row of a
    table's column) ends with the model's end-of-text token; within one a blank line is only text.
    """
    # Read twice: to name the file by its contents, and to tokenize.
    read = partial(read_texts, paths, tokenizer.eos_token or "\n\n", encoding, column)
    digest = Hasher()
    for part in chain([tokenizer], read()):
        digest.update(part)
    cache = Path(cache_dir, f"{digest.hexdigest()}.uint32")
    if not cache.exists():
        with whole_files(cache_dir) as folder, open(folder / cache.name, "wb") as file:
            pieces = tokenize(read(), tokenizer)
            for ids in tqdm(pieces, "Tokenizing", unit=" pieces", disable=None, leave=False):
                np.array(ids, np.uint32).tofile(file)
    return np.memmap(cache, np.uint32, mode="r")


def read_texts(
    paths: Sequence[str] | None,
    end: str = "",
    encoding: str = "utf-8-sig",
    column: str | None = None,
) -> Iterator[str]:
    """Yield files, rows of tables or the built-in paragraphs, in pieces, and `end` after each."""
    if not paths:
        yield from (paragraph + end for paragraph in SAMPLE_PARAGRAPHS)
    for path in chain.from_iterable(map(text_files, paths or ())):
        try:
            if column:
                yield from (text + end for text in read_column(path, column, encoding))
            else:
                yield from chain(read_pieces(path, encoding), [end])
        except (AttributeError, TypeError, ValueError, *HUB_ERRORS) as error:
            raise InputError(f"cannot read {path} with --encoding {encoding}: {error}") from error


def text_files(path: str) -> list[str]:
    """Return the texts in a folder, chapter 2 before chapter 10; a file is itself."""
    texts = map(str, Path(path).glob("*.[Tt][Xx][Tt]"))
    by_number = partial(re.sub, r"\d+", lambda digits: digits[0].zfill(20))
    return sorted(texts, key=by_number) or [path]


# Up to 4,096 characters: what is left of the text, else a part that ends between two words (after
# a letter that a space and a letter follow) or, in text without such a place, anywhere.
PIECE = re.compile(r".{1,4096}(?:\Z|(?<=[^\W\d_])(?= [^\W\d_]))|.{4096}", re.DOTALL)


def read_pieces(path: str, encoding: str) -> Iterator[str]:
    """Yield a text in pieces, in constant memory; joined, they are the text.

    Between two words a token ends in every tokenizer that keeps words apart: the ids of the pieces
    are those of the whole text. Only in text without spaces, such as Chinese, may a cut, one in
    4,096 characters, split a token. A byte order mark is left out and line ends become a newline.
    """
    with open(path, encoding=encoding_of(path, encoding)) as file:
        text = ""
        while part := file.read(2**19):
            if "\0" in part:
                raise ValueError("NUL bytes are no text")
            *pieces, text = PIECE.findall(text + part)
            yield from pieces
    yield text


def read_column(path: str, column: str, encoding: str) -> Iterator[str]:
    """Yield a column of a CSV, JSON lines or Parquet file, row by row.

    JSON is read as text: the library would take texts that look like dates for dates.
    """
    kind = {".csv": "csv", ".parquet": "parquet"}.get(Path(path).suffix.lower(), "text")
    options = {} if kind == "parquet" else {"encoding": encoding_of(path, encoding)}
    if kind == "csv":
        options |= {"converters": {column: str}, "keep_default_na": False}
    rows = load_dataset(kind, data_files=str(path), split="train", streaming=True, **options)
    if kind == "text":
        rows = (json.loads(row["text"]) for row in rows if row["text"])
    for number, row in enumerate(rows, 1):
        text = row.get(column)
        text = text.decode(encoding) if isinstance(text, bytes) else text
        if not isinstance(text, str):
            raise ValueError(f"row {number}: no text {column!r} in {list(row)}")
        yield text


def tokenize(texts: Iterator[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Yield the ids of each text.

    Those of pieces of one text, joined, are those of that text, as far as `read_pieces` has cut it
    between two words.
    """
    encode = partial(tokenizer, add_special_tokens=False)
    whole, first, second = encode(["a b", "a", " b"])["input_ids"]
    # Tokenizers of SentencePiece's kind add a space before each piece: then it loses its own.
    space = " " if whole != first + second else ""
    while batch := list(islice(texts, 128)):
        pieces = [piece.removeprefix(space) for piece in batch]
        yield from encode(pieces)["input_ids"]


class TextDataset(torch.utils.data.Dataset):
    """A stream of tokens, cut into blocks of `block_size` without any padding.

    `tokens`: integers, shape (tokens,): an array, a memory-mapped file or a slice of one. Item `i`:
    the tokens from `i * stride` on, int64 of shape (block_size,). What does not fill a last block
    is left out. Without a stride the blocks lie side by side; a smaller one makes them overlap, and
    a larger one leaves out what lies between two blocks.
    """

    def __init__(self, tokens: np.ndarray, block_size: int, stride: int | None = None):
        self.tokens, self.block_size = tokens, block_size
        self.starts = range(0, len(tokens) - block_size + 1, stride or block_size)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        start = self.starts[index]
        return torch.from_numpy(self.tokens[start : start + self.block_size].astype(np.int64))


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    training_args: transformers.TrainingArguments,
    datasets: dict[str, TextDataset],
) -> Trainer:
    """Return the trainer of `train`; without `validation` it keeps the last model, not the best."""
    args = copy.copy(training_args)
    # It would upload a binary and no pictures: see `report`.
    args.push_to_hub = False
    if "validation" not in datasets:
        args.eval_strategy, args.eval_on_start, args.load_best_model_at_end = "no", False, False
    # The labels are the block itself; the model shifts them by one. The collator would leave pad
    # tokens out of them: blocks have none, but many models pad with their end-of-text token, which
    # must be learned. So its copy of the tokenizer has no pad token.
    collator = DataCollatorForLanguageModeling(copy.deepcopy(tokenizer), mlm=False)
    collator.tokenizer.pad_token = None
    data = {"train_dataset": datasets.get("train"), "eval_dataset": datasets.get("validation")}
    trainer = BlockTrainer(model, args, collator, processing_class=tokenizer, **data)
    # The loss of a step is the mean of its batches' losses: all blocks have as many tokens. By
    # itself `Trainer` would divide GPT-2's sum by the number of all labels, also of the first one
    # of each block, which nothing predicts: with blocks of 32 it would be 31/32 of the right one.
    trainer.model_accepts_loss_kwargs = False
    patience = getattr(args, "early_stopping_patience", None)
    if patience and args.eval_strategy == "no":
        raise InputError("--early_stopping_patience: give text to evaluate on, and save steps")
    if patience:
        trainer.add_callback(EarlyStoppingCallback(patience))
    return trainer


class BlockTrainer(Trainer):
    """`Trainer` that smooths labels in training alone: evaluated is how probable the text is."""

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Return the library's metrics, without smoothed labels."""
        smoother, self.label_smoother = self.label_smoother, None
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self.label_smoother = smoother


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    max_new_tokens: int = 50,
    temperature: float = 1.0,
    seed: int = 42,
    **options,
) -> list[str]:
    """Return continuations of a prompt, until the text ends or the model's context is full.

    They have at most `max_new_tokens`, each drawn by lot, as `seed` decides, among the likeliest
    that have the share `top_p` (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751). `options`
    are those of the library's `generate`, such as top_p, top_k and num_return_sequences. With a
    temperature of 0 there is one text, of the likeliest tokens. Raises InputError for a prompt that
    is empty or leaves no room, and for numbers that cannot be.
    """
    # (1, tokens)
    ids = tokenizer.encode(prompt, add_special_tokens=False, return_tensors="pt")
    length, limit = ids.size(1), context_size(model)
    if not 0 < length < limit:
        raise InputError(f"--prompt of {length} tokens: give 1 to {limit - 1}")
    sampling = {"do_sample": temperature != 0}
    if temperature != 0:
        # By itself the library would draw among the 50 likeliest tokens.
        sampling |= {"temperature": temperature, "top_k": 0, "top_p": 0.95}
    options = sampling | options | {"max_new_tokens": min(max_new_tokens, limit - length)}
    training = model.training
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            # (texts, all tokens)
            output = model.eval().generate(ids.to(model.device), **options)
    except ValueError as error:
        raise InputError(error) from error
    finally:
        model.train(training)
    # With the prompt before it: of a continuation alone many tokenizers leave out the first space.
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    start = len(tokenizer.decode(output[0, :length], **options))
    return [text[start:] for text in tokenizer.batch_decode(output, **options)]


def train(trainer: Trainer) -> dict[str, float]:
    """Train, from a checkpoint if asked to; save model, tokenizer and picture; return metrics."""
    args, model = trainer.args, trainer.model
    if args.resume_from_checkpoint:
        check_same_model(args.resume_from_checkpoint, model.config)
    # Under the model's own names, not those of older checkpoints: the trainer loads no others.
    model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
    try:
        metrics = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint).metrics
        with whole_files(args.output_dir) as folder:
            trainer.save_model(folder)
            # It is a pickle, no part of the model.
            (folder / "training_args.bin").unlink(missing_ok=True)
            # Safetensors makes its files readable by their owner alone.
            for weights in folder.glob("*.safetensors"):
                shutil.copymode(folder / "config.json", weights)
            curve = draw_training_curve(trainer.state.log_history)
            curve.savefig(folder / "training_curve.png", dpi=120)
    finally:
        del model.save_pretrained
    return metrics


def draw_training_curve(log_history: list[dict[str, float]]) -> Figure:
    """Draw the losses, in nats per token, that the trainer logged over the steps."""
    axes = Figure(figsize=(6, 4), layout="constrained").subplots()
    for name in ("loss", "eval_loss"):
        points = {entry["step"]: entry[name] for entry in log_history if name in entry}
        axes.plot(points.keys(), points.values(), ".-", label=name)
    axes.set(xlabel="step", ylabel="nats per token", ylim=(0, None))
    axes.legend()
    return axes.figure


def write_texts(prompt: str, texts: list[list[str]], output_dir: str) -> None:
    """Write the texts that continue the prompt to generated.txt, and print each in one line."""
    titles = ["Before training", "After training"] if len(texts) == 2 else ["Continuation"]
    lines = []
    for title, group in zip(titles, texts, strict=False):
        lines += [f"{title}: {prompt}{text}\n" for text in group]
    if lines:
        with whole_files(output_dir) as folder:
            (folder / "generated.txt").write_text("\n".join(lines), encoding="utf-8")
        print(*(" ".join(line.split()) for line in lines), sep="\n\n", end="\n\n")


def measure(
    metrics: dict[str, float],
    texts: list[list[str]],
    datasets: dict[str, TextDataset],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, float]:
    """Return perplexity, bits per byte, tokens per second, and how much of the texts is copied.

    The perplexity is exp of the loss in nats per token. Bits per byte, unlike the loss, can be
    compared between tokenizers; the end-of-text token costs bits and is no text.
    """
    found = {}
    if "eval_loss" in metrics:
        loss, blocks = metrics["eval_loss"], datasets["validation"]
        tokens = blocks.tokens[: len(blocks) * blocks.block_size]
        found["eval_perplexity"] = np.exp(loss)
        # The first token of a block, which nothing predicts, counts as the mean of the others.
        size = sum(len(text.encode()) for text in decode(tokens, tokenizer))
        found["eval_bits_per_byte"] = loss / np.log(2) * len(tokens) / size
    if "train_loss" in metrics:
        blocks = datasets["train"]
        found["train_tokens_per_second"] = metrics["train_samples_per_second"] * blocks.block_size
        if texts:
            passage, words = longest_copy(texts[-1], decode(blocks.tokens, tokenizer, " "))
            found |= {"copied_words": words, "copied_characters": len(passage)}
            unit = "characters" if 0 < words == len(passage) else "words"
            print(f"Longest passage from the training text, {words} {unit}: {passage}")
    return found


def decode(tokens: np.ndarray, tokenizer: PreTrainedTokenizerBase, end: str = "") -> Iterator[str]:
    """Yield the text of tokens, a part at a time, with `end` for the end-of-text token."""
    for part in np.array_split(tokens, len(tokens) // 2**18 + 1):
        text = tokenizer.decode(part, clean_up_tokenization_spaces=False)
        # A text holds no NUL.
        yield text.replace(tokenizer.eos_token or "\0", end)


def longest_copy(texts: list[str], parts: Iterable[str]) -> tuple[str, int]:
    """Return the longest passage of the texts that stands in the joined parts, and its words.

    They are whole words; white space of any kind counts as one space. Where words stand without
    spaces between them, as in Chinese (so that the mean "word" has more than 15 characters), every
    character is a word. Memory: that of one part.
    """
    words, space = [text.split() for text in texts], " "
    if sum(map(len, texts)) > 15 * sum(map(len, words)):
        words, space = [list("".join(text)) for text in words], ""
    longest, window = [], space
    overlap = max(map(len, texts)) + 2
    for part in chain(parts, [space]):
        # With the end of the last part: a passage may cross from one to the next.
        window = re.sub(r"\s+", space, window[-overlap:] + part)
        for text in words:
            for start in range(len(text) - len(longest)):
                # Only what would be longer than the longest, word by word.
                end = start + len(longest) + 1
                while end <= len(text) and space + space.join(text[start:end]) + space in window:
                    longest = text[start:end]
                    end += 1
    return space.join(longest), len(longest)


# Speed: the same, faster --------------------------------------------------------------------------


@contextmanager
def faster_dropout(model: PreTrainedModel) -> Iterator[None]:
    """Within, on a CPU, `fast_dropout` is PyTorch's: training takes three quarters of the time."""
    dropout, attention = torch.nn.functional.dropout, model.config._attn_implementation
    try:
        # Models without dropout would only lose their faster attention.
        drops = any(module.p for module in model.modules() if isinstance(module, torch.nn.Dropout))
        if drops and model.device.type == "cpu":
            torch.nn.functional.dropout = fast_dropout
            # Eager attention calls that function; PyTorch's own does not.
            model.set_attn_implementation("eager")
        yield
    finally:
        torch.nn.functional.dropout = dropout
        model.set_attn_implementation(attention)


def fast_dropout(
    x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """Set a share `p` of the elements to zero and scale the others, as `torch.dropout` does.

    16 random bits decide on each, so that `p` is a multiple of 1/65536; PyTorch draws 32.
    """
    if not training or not 0 < p < 1:
        return torch.dropout(x, p, training)
    # Random in all 64 bits.
    bits = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None)
    bits = bits.view(torch.int16)[: x.numel()].view(x.shape)
    keep = bits.ge_(round(p * 2**16) - 2**15)
    return x * keep.to(x.dtype).mul_(1 / (1 - p))


# Plumbing: nothing below is about GPT-2 -----------------------------------------------------------


class InputError(ValueError):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def parse_arguments(argv: list[str] | None) -> tuple[ScriptArguments, dict, FineTuningArguments]:
    """Parse and check the command line; bad usage raises InputError."""
    args, generation, training_args = parse(
        argv, ScriptArguments, GenerationArguments, FineTuningArguments
    )
    # The built-in text is short.
    if not (args.train_file or args.validation_file):
        args.block_size, args.stride = min(args.block_size, 64), args.stride or 8
    if not (training_args.do_train or training_args.do_eval or training_args.do_predict):
        training_args.do_train = training_args.do_predict = True
        training_args.do_eval = bool(args.validation_file or args.validation_split_percentage)
    if args.smoke:
        training_args.do_train = True
        # So small a model gains nothing from more.
        torch.set_num_threads(1)
    if generation.top_p > 1:
        raise InputError(f"--top_p {generation.top_p}: give a number from 0 to 1")
    if training_args.do_train and args.validation_file and not args.train_file:
        raise InputError("no train file: give --train_file, or choose with --do_...")
    return args, vars(generation) | {"seed": training_args.seed}, training_args


def parse(argv: list[str] | None, *dataclasses: type) -> list:
    """Parse flags into dataclasses, with defaults for this machine and for --smoke."""
    argv = sys.argv[1:] if argv is None else argv
    options = {"usage": f"%(prog)s [flags]\n\n{__doc__}"}
    # Not for `--help all`.
    if "all" not in argv and not {"-h", "--help"}.isdisjoint(argv):
        more = "All flags of transformers.TrainingArguments work, too: --help all shows them."
        HfArgumentParser(dataclasses[:-1], epilog=more, **options).parse_args(["-h"])
    parser = HfArgumentParser(dataclasses, exit_on_error=False, **options)
    gpu, cpu = torch.accelerator.is_available(), torch.cpu.get_capabilities()
    bf16 = torch.cuda.is_bf16_supported(False) if gpu else cpu.get("avx512_bf16", False)
    parser.set_defaults(use_cpu=not gpu, disable_tqdm=not sys.stderr.isatty())
    try:
        known, _ = parser.parse_known_args(argv)
        defaults = {"bf16": bf16 and not known.fp16} | (SMOKE if known.smoke else {})
        parser.set_defaults(**defaults)
        known, _ = parser.parse_known_args(argv)
        # Evaluate whenever a checkpoint is saved.
        if known.save_strategy != "best":
            parser.set_defaults(eval_strategy=known.save_strategy, eval_steps=known.save_steps)
        *own, training_args = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
        codecs.lookup(known.encoding)
    except (argparse.ArgumentError, ImportError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{error}: see --help") from error
    # The library sets it when it sees --eval_strategy.
    training_args.do_eval = known.do_eval
    return [*own, training_args]


def prepare(args: transformers.TrainingArguments, model: str) -> None:
    """Set up this process; without a training the output folder is the model's, or named so."""
    transformers.set_seed(args.seed)
    transformers.logging.set_verbosity_error()
    # Bars of loading and saving, not those of downloads, which that silences, too.
    transformers.logging.disable_progress_bar()
    enable_progress_bars()
    # glibc would map large tensors anew (M_MMAP_MAX is -4) and give freed memory back
    # (M_TRIM_THRESHOLD is -1): more to clear in every step.
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(-4, 0)
        ctypes.CDLL(None).mallopt(-1, -1)
    # Of several processes only the first prints.
    if args.process_index:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    print(f"Computing on {args.device}, mixed precision: {args.mixed_precision}", file=sys.stderr)
    if not args.do_train and args.output_dir == type(args).output_dir:
        args.output_dir = model if os.path.isdir(model) else f"outputs/{Path(model).name}"
    if args.resume_from_checkpoint == "last":
        # A complete checkpoint has this file, which is written last.
        complete = Path(args.output_dir).glob("checkpoint-*/trainer_state.json")
        newest = max(complete, key=os.path.getmtime, default=None)
        args.resume_from_checkpoint = newest and str(newest.parent)
        if args.do_train and newest is None:
            print(f"No checkpoint in {args.output_dir}: starting anew", file=sys.stderr)
    # Fails now without a network or a login.
    if args.push_to_hub:
        name = args.hub_model_id or Path(args.output_dir).name
        repository = create_repo(name, private=args.hub_private_repo, exist_ok=True)
        args.hub_model_id = repository.repo_id


# How files begin that are no plain text: of the kinds ZIP (Word, Excel), PDF, old Office, XML.
NO_TEXT = (b"PK\3\4", b"%PDF", b"\xd0\xcf\x11\xe0", b"<?xml")


def encoding_of(path: str | Path, encoding: str = "utf-8-sig") -> str:
    """Return a text file's encoding, by its first bytes, or else the given one."""
    with open(path, "rb") as file:
        start = file.read(5)
    if start.startswith(NO_TEXT):
        raise InputError(f"{path} is no plain text: export it as text, or a table as CSV")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if start.startswith(codecs.BOM_UTF8) else encoding


# What of a checkpoint is read: no weights in other formats.
MODEL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "model.safetensors", "model-*.safetensors")
# What the hub's client and its HTTP library raise.
HUB_ERRORS = HfHubHTTPError.__bases__


def fetch(name: str) -> str:
    """Return a model's folder: `name` itself, or the hub's copy of it, or else the cache's."""
    if os.path.isdir(name):
        return name
    unreachable = None
    try:
        # The call below has no limit of time.
        HfApi().model_info(name, timeout=10)
    except (ImportError, ValueError, *HUB_ERRORS) as error:
        unreachable = error
    # Sub-folders hold other formats.
    options = {"allow_patterns": MODEL_FILES, "ignore_patterns": "*/*"}
    try:
        folder = snapshot_download(name, local_files_only=unreachable is not None, **options)
    except (RuntimeError, ValueError, *HUB_ERRORS) as error:
        remedy = "try hf auth login, HF_HUB_DISABLE_XET=1, --smoke or a local folder"
        raise InputError(f"cannot download {name}: {unreachable or error}: {remedy}") from error
    # Closes the library's progress bars, or they are drawn over later lines.
    gc.collect()
    return folder


def check_same_model(checkpoint: str, config: transformers.PreTrainedConfig) -> None:
    """Raise InputError if a checkpoint has other classes or sizes: weights would get lost."""
    saved = type(config).from_json_file(Path(checkpoint, "config.json"))
    for name in ("id2label", "vocab_size", "hidden_size", "num_hidden_layers"):
        found, expected = getattr(saved, name), getattr(config, name)
        if found != expected:
            raise InputError(f"{checkpoint}: {name} {found}, not {expected}: give an --output_dir")


@contextmanager
def whole_files(output_dir: str | Path) -> Iterator[Path]:
    """Yield a folder whose files move to `output_dir` at the end: each is whole, or not there."""
    try:
        os.makedirs(output_dir, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=output_dir) as folder:
            yield Path(folder)
            for file in sorted(Path(folder).iterdir()):
                os.replace(file, Path(output_dir, file.name))
    except OSError as error:
        raise InputError(f"cannot write {output_dir}: {error}") from error


def next_command(args: ScriptArguments, generation: dict) -> str:
    """Return the flags that continue the prompt in the same way; say if the model is --smoke's."""
    if args.smoke:
        print("A tiny model was tried: its quality tells nothing about that of a real one")
    flags = generation | {"model_name_or_path": args.model_name_or_path}
    return shlex.join(["--do_predict", *(f"--{name}={value}" for name, value in flags.items())])


def report(
    metrics: dict[str, float], args: transformers.TrainingArguments, model: str, command: str
) -> None:
    """Write and print metrics, files and the next command; a finished run needs no checkpoints.

    A model in this folder keeps the metrics of its training; those of another are not its own.
    """
    results, earlier = Path(args.output_dir, "all_results.json"), {}
    if "train_loss" in metrics:
        for state in results.parent.glob("checkpoint-*/trainer_state.json"):
            shutil.rmtree(state.parent)
    elif results.exists() and Path(model).resolve() == results.parent.resolve():
        earlier = json.loads(results.read_text())
    text = json.dumps(earlier | metrics, indent=2, sort_keys=True)
    with whole_files(results.parent) as folder:
        (folder / results.name).write_text(text)
    print(*(f"{name:>28} = {metrics[name]:.4g}" for name in sorted(metrics)), sep="\n")
    print("Files:", *sorted(results.parent.glob("*.*")), sep="\n  ")
    if args.push_to_hub:
        options = {"folder_path": results.parent, "allow_patterns": [*MODEL_FILES, "*.png"]}
        # No texts or predictions, which may hold what is nobody else's business; no sub-folders.
        options["ignore_patterns"] = ["generated.txt", "*/*"]
        upload_folder(repo_id=args.hub_model_id, **options)
        print(f"Uploaded to {args.hub_model_id}")
    print(f"Next:\n  python {shlex.quote(sys.argv[0])} {command}")


# What PyTorch says, and what helps.
SMALLER = (
    "give a smaller --per_device_train_batch_size, --per_device_eval_batch_size or --block_size"
)
REMEDIES = {
    "out of memory": SMALLER,
    "allocate memory": SMALLER,
    "executable batch size": SMALLER,
    "inline_container": "is the disk full?",
    "to be installed": "pip install it",
}
TINY_SIZE = {"n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4}
TINY_SIZE |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
SMOKE = {
    "max_steps": 400,
    "learning_rate": 5e-3,
    "per_device_train_batch_size": 8,
    "save_steps": 0.5,
    "block_size": 64,
    "stride": 1,
    "bf16": False,
    "temperature": 0.0,
}
# The last paragraph, most of which the split leaves for validation, repeats sentences of the
# others: a model that has learned those can predict it.
SAMPLE_TEXT = """
The lighthouse keeper climbs ninety steps every evening. Before dark she lights the lamp, winds the
clock and writes the weather into a blue book that her grandfather began.

Fishing boats leave the harbour before sunrise. Their crews carry bread, coffee and dry socks, and
nobody speaks until the last rope has been thrown from the pier.

Our baker opens at five o'clock. Sailors buy his dark rolls, children his sweet buns, and
yesterday's bread is for the ducks behind the mill.

In the old school the windows face the sea. When a whale swims past, the teacher closes her book and
the whole class runs out to the wall.

Every Friday a market fills the square. Farmers bring apples and cheese, a woman repairs umbrellas,
and a boy with a violin plays the same three songs.

The post office has two counters and one clerk. Letters wait in wooden boxes, parcels wait on the
floor, and the cat sleeps on whatever is warm.

A narrow railway crosses the marsh. Its train is never fast, but it is always on time, because the
driver sets his watch by the tide.

Behind the church stands a garden of herbs. Mint grows by the gate, thyme between the stones, and
rosemary wherever the wind has dropped a seed.

Two brothers build boats in a shed near the river. One measures everything twice, the other never
measures at all, and their boats are equally straight.

On stormy nights the inn is full. Travellers dry their coats at the fire, the cook makes soup from
onions, and somebody always tells of the ship of glass.

The doctor rides a green bicycle. In the morning she visits the farms, in the afternoon the harbour,
and every dog knows her by name.

A library of four hundred books belongs to the town. Half of them are about the sea, and the other
half were left by people who missed the train.

Summer brings painters to the cliffs. All set up their easels in a row, argue about the colour of
the water and go home with seven different seas.

Winter is the season of nets. Families sit together in the long hall, mend what the rocks have torn
and count the knots aloud to keep warm.

The mayor collects shells. Large ones hold the papers on his desk, small ones mark the pages of his
books, and the finest is kept in his hat.

Once a year the children race along the beach with lanterns. Whoever wins may ring the harbour bell,
and everyone else may eat as much cake as they like.

Nobody has ever mapped the caves under the castle. Some say they lead to the island, some say they
lead nowhere, and the bats do not say.

When fog covers the bay, the bell rings every minute. One after another the boats answer with their
horns, and slowly they all find the way home.

So every day ends as it began. Farmers bring apples and cheese, a woman repairs umbrellas, and a boy
with a violin plays the same three songs. Its train is never fast, but it is always on time, because
the driver sets his watch by the tide. Letters wait in wooden boxes, parcels wait on the floor, and
the cat sleeps on whatever is warm. One after another the boats answer with their horns, and slowly
they all find the way home.
""".strip()
SAMPLE_PARAGRAPHS = [" ".join(lines.split()) for lines in SAMPLE_TEXT.split("\n\n")]

if __name__ == "__main__":
    # Or the hub's storage, out of reach, is tried again for minutes.
    os.environ.setdefault("HF_XET_CLIENT_RETRY_BASE_DELAY", "300ms")
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # Not every screen can show every character.
        stream.reconfigure(errors="replace")
    try:
        main()
        # A full disk or a closed pipe shows here, and not after the end.
        print(end="", flush=True)
    except KeyboardInterrupt:
        remedy = "the same command with --resume_from_checkpoint last continues"
        print(f"error: interrupted: {remedy}", file=sys.stderr)
        sys.exit(130)
    except (InputError, ImportError, RuntimeError, SafetensorError, *HUB_ERRORS) as error:
        found = str(error) if isinstance(error, RuntimeError) else ""
        remedies = [remedy for text, remedy in REMEDIES.items() if text in found]
        if isinstance(error, RuntimeError) and not remedies:
            # A bug.
            raise
        print("error:", " ".join(str(error).split()), *remedies[:1], file=sys.stderr)
        sys.exit(2)
