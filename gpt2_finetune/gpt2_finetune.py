# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate>=1.10",
#     "datasets>=4.0",
#     "filelock>=3.16",
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
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-27
"""Fine-tune GPT-2 or another causal language model, on the built-in paragraphs or on your own text.

python gpt2_finetune.py --smoke                                         # seconds, no download
python gpt2_finetune.py --train_file book.txt --prompt "It was a dark"  # plain text of any size
python gpt2_finetune.py --do_predict --prompt "It was a" --model_name_or_path outputs/gpt2_finetune

The text becomes one long stream of tokens, cut into blocks; from the tokens before it the model
learns to predict every token of a block. Read the recipe, `main`, then its parts: data, model,
training, writing. Reading files, parsing flags and reporting come last, under "Plumbing".
"""

import argparse
import codecs
import copy
import ctypes
import difflib
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from itertools import chain, islice
from pathlib import Path
from types import MethodType
from typing import Literal, NoReturn

import huggingface_hub
import numpy as np
import torch
import transformers
from accelerate.utils.memory import should_reduce_batch_size
from datasets import load_dataset
from datasets.exceptions import DatasetsError
from filelock import FileLock
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.constants import HF_ASSETS_CACHE
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    StrictDataclassError,
)
from huggingface_hub.utils import enable_progress_bars
from matplotlib.figure import Figure
from safetensors import SafetensorError
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
)
from transformers.activations import NewGELUActivation
from transformers.hf_argparser import HfArg
from transformers.integrations import get_reporting_integration_callbacks
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


@dataclass
class ScriptArguments:
    """Flags of this script; every flag of `transformers.TrainingArguments` works beside them."""

    smoke: bool = HfArg(default=False, help="Train a tiny model: no download, seconds.")
    model_name_or_path: str = HfArg(default="gpt2", help="Hub name or folder of any causal LM.")
    train_file: list[str] | None = HfArg(
        default=None, help="Plain text of any size: files, or folders of .txt files."
    )
    validation_file: list[str] | None = HfArg(default=None, help="Text to evaluate on.")
    encoding: str = HfArg(
        default="utf-8-sig", help="Of text files: cp1252 for Excel's and Word's in Western Europe."
    )
    text_column: str | None = HfArg(
        default=None, help="Files are CSV, JSON lines or Parquet: this column holds documents."
    )
    validation_split_percentage: int = HfArg(
        default=10, help="Without a validation file: its share, the end of the training text."
    )
    block_size: int | None = HfArg(
        default=None, help="Tokens in a block; without it the model's context, at most 1024."
    )
    stride: int | None = HfArg(
        default=None, help="Tokens from the start of a block to the next; without it --block_size."
    )
    cache_dir: str = HfArg(
        default=os.path.join(HF_ASSETS_CACHE, "gpt2_finetune"), help="Folder for tokenized texts."
    )
    preprocessing_num_workers: int | None = HfArg(
        default=None, help="Threads that tokenize; without it one for every core."
    )


@dataclass
class GenerationArguments:
    """How to write: the keyword arguments of `generate`. It draws lots, but for --smoke."""

    prompt: str = HfArg(default="The lighthouse keeper", help="Text that the model continues.")
    max_new_tokens: int = HfArg(default=50, help="Tokens of the continuation, at most.")
    num_return_sequences: int = HfArg(default=1, help="Continuations; several have to be drawn.")
    temperature: float | None = HfArg(
        default=None, help="0: the likeliest text; below 1 likely tokens, above 1 all are drawn."
    )
    top_k: int | None = HfArg(default=None, help="Draw among so many likeliest tokens.")
    top_p: float = HfArg(default=0.95, help="Draw among tokens that have this share.")


@dataclass
class FineTuningArguments(transformers.TrainingArguments):
    """The recipe: `TrainingArguments` with defaults for fine-tuning GPT-2."""

    output_dir: str = "outputs/gpt2_finetune"
    per_device_train_batch_size: int = 4
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.1
    weight_decay: float = 0.1
    logging_steps: float = 0.05
    logging_nan_inf_filter: bool = False  # it hides a loss of NaN, and lets a GPU wait every step
    save_steps: float = 0.1
    save_total_limit: int = 1
    eval_strategy: str = "steps"
    load_best_model_at_end: bool = True
    metric_for_best_model: Literal["loss"] = "loss"


def main(argv: list[str] | None = None) -> None:
    """Train, evaluate and continue the prompt: all of it, or what --do_... chooses."""
    args, generation, training_args = parse_arguments(argv)
    prepare(training_args)
    with tempfile.TemporaryDirectory() as folder, training_args.main_process_first():
        if args.smoke:
            files = choose_files(args, training_args, GPT2Tokenizer().eos_token, folder)
            tokenizer, model = untrained(files["train"], args.block_size or 64)
        else:
            tokenizer, model = pretrained(args.model_name_or_path)
            files = choose_files(args, training_args, tokenizer.eos_token, folder)
        datasets = load_datasets(files, tokenizer, context_size(model), args)
    trainer = build_trainer(model, tokenizer, training_args, datasets)
    metrics = {}
    texts = [generate(model, tokenizer, **generation)] if training_args.do_predict else []
    if training_args.do_train:
        metrics |= train(trainer)
    if training_args.do_eval:
        metrics |= trainer.evaluate()
    if training_args.do_train and training_args.do_predict:
        texts.append(generate(model, tokenizer, **generation))
    if trainer.is_world_process_zero():
        write_texts(generation["prompt"], texts, training_args.output_dir)
        metrics |= measure(metrics, texts, datasets, tokenizer)
        conclude(metrics, args, generation, training_args)


class TextDataset(Dataset):
    """A stream of tokens, cut into blocks of `block_size` without any padding.

    `tokens`: integers, shape (tokens,): an array, a memory-mapped file or a slice of one. Item `i`:
    the tokens from `i * stride` on, int64 of shape (block_size,). What does not fill a last block
    is left out. Without a stride the blocks lie side by side; a smaller one makes them overlap.
    """

    def __init__(self, tokens: np.ndarray, block_size: int, stride: int | None = None):
        self.tokens = tokens
        self.block_size = block_size
        self.stride = stride or block_size

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.block_size) // self.stride + 1)

    def __getitem__(self, index: int) -> torch.Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.stride
        return torch.from_numpy(self.tokens[start : start + self.block_size].astype(np.int64))


def tokenize_file(path: str, tokenizer: PreTrainedTokenizerBase, cache_dir: str) -> np.memmap:
    """Return the token ids of a UTF-8 text, shape (tokens,), mapped from a file in `cache_dir`.

    That file is made when it is missing, in constant memory. The text is one stream, in which a
    blank line is only text; to tell documents apart write the tokenizer's end-of-text token
    (GPT-2: `<|endoftext|>`) between them, which becomes one token. Raises InputError.
    """
    dtype = np.dtype(np.uint16 if max(tokenizer.get_vocab().values()) < 2**16 else np.uint32)
    cache = Path(cache_dir, f"{digest(path, tokenizer)}.{dtype}")
    if not cache.exists():
        with whole_files(cache_dir) as folder, open(folder / cache.name, "wb") as file:
            for pieces in read_pieces(path, "Tokenizing"):
                for ids in tokenize_pieces(pieces, tokenizer):
                    np.array(ids, dtype).tofile(file)
            if not file.tell():
                raise InputError(f"{path}: no text")
    return np.memmap(cache, dtype, mode="r")


def tokenize_pieces(pieces: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the ids of pieces of whole words; joined, they are those of the joined text."""
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    whole, first, second = tokenizer(["a b", "a", " b"], **options)["input_ids"]
    if whole != first + second:  # this tokenizer (SentencePiece) adds a space before each piece
        pieces = [piece.removeprefix(" ") for piece in pieces]
    return tokenizer(pieces, **options)["input_ids"]


# Up to 32,768 characters: what is left of the text, else a part that ends between two words (after
# a letter that a space and a letter follow) or, in text without such a place, anywhere.
PIECE = re.compile(r".{1,32768}(?:\Z|(?<=[^\W\d_])(?= [^\W\d_]))|.{32768}", re.DOTALL)


def read_pieces(path: str, label: str, encoding: str = "utf-8-sig") -> Iterator[list[str]]:
    """Yield a text in lists of pieces, in constant memory; joined, they are the text.

    Between two words a token ends in every tokenizer that keeps words apart: the ids of the pieces
    are those of the whole text. A byte order mark is left out and line ends become a newline.
    """
    options = {"desc": label, "unit": "B", "unit_scale": True, "disable": None, "leave": False}
    text = ""
    try:
        with open(path, encoding=encoding_of(path, encoding)) as file, tqdm(**options) as bar:
            bar.total = os.path.getsize(path)
            try:
                while part := file.read(2**19):
                    if "\0" in part:
                        raise InputError(f"{path}: NUL bytes are no text: save the file as UTF-8")
                    *pieces, text = PIECE.findall(text + part)
                    bar.update(file.buffer.tell() - bar.n)
                    if pieces:
                        yield pieces
            except UnicodeDecodeError as error:
                byte = file.buffer.tell() - len(error.object) + error.start
                found = f"{path}, byte {byte}: not {file.encoding}"
                raise InputError(f"{found}: name its --encoding, for instance cp1252") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    yield [text]


def choose_files(
    args: ScriptArguments, training_args: FineTuningArguments, end_of_text: str | None, folder: str
) -> dict[str, str]:
    """Return the texts in UTF-8 `train` and `validation` that are needed: own ones or the sample.

    Own text in one file is that file. Several files, rows of a table and the built-in paragraphs
    are documents: they are written into one text in `folder`, with the model's end-of-text token
    between them. Without a validation file both are the training text.
    """
    files = {"train": args.train_file, "validation": args.validation_file or args.train_file}
    steps = {"train": training_args.do_train, "validation": training_args.do_eval}
    files = {split: find_files(names) for split, names in files.items() if steps[split]}
    as_it_is = not args.text_column and args.encoding == ScriptArguments.encoding
    texts = {}
    for number, paths in enumerate(dict.fromkeys(files.values())):
        name = os.path.basename(paths[0]) if paths else "sample.txt"
        if len(paths) > 1:
            name += f" and {len(paths) - 1} more"
        elif paths and as_it_is:
            texts[paths] = paths[0]
            continue
        texts[paths] = os.path.join(folder, f"{number}-{name}")
        separator = ""
        with open(texts[paths], "w", encoding="utf-8") as file:
            for document in read_documents(paths, args.text_column, args.encoding):
                file.write(separator)
                file.writelines(document)
                separator = end_of_text or "\n\n"
    return {split: texts[paths] for split, paths in files.items()}


def find_files(names: list[str] | None) -> tuple[str, ...]:
    """Return these files; of a folder its .txt files, chapter 2 before chapter 10."""
    paths = []
    for name in names or ():
        texts = [name]
        if os.path.isdir(name):
            texts = [str(path) for path in Path(name).iterdir() if path.suffix.lower() == ".txt"]
            if not texts:
                raise InputError(f"{name}: no .txt files in this folder")
        paths += sorted(texts, key=by_numbers)
    return tuple(paths)


def by_numbers(path: str) -> str:
    """Return what sorts names with 2 before those with 10."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(20), path)


def read_documents(
    paths: tuple[str, ...], column: str | None, encoding: str
) -> Iterator[Iterable[str]]:
    """Yield texts, or their pieces: every row of tables, every file, or the built-in paragraphs."""
    if not paths:
        yield from SAMPLE_PARAGRAPHS
    for path in paths:
        if column:
            yield from read_column(path, column, encoding)
        else:
            yield chain.from_iterable(read_pieces(path, "Reading", encoding))


def read_column(path: str, column: str, encoding: str) -> Iterator[str]:
    """Yield a column of a CSV, JSON lines or Parquet file, row by row. Raises InputError.

    The file may be on the hub, as hf://datasets/... JSON is read as text: the library would take
    texts that look like dates for dates.
    """
    kinds = {".csv": "csv", ".json": "text", ".jsonl": "text", ".parquet": "parquet"}
    kind = kinds.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"{path}: --text_column is for files that end in {', '.join(kinds)}")
    try:
        if "://" not in path:
            encoding = encoding_of(path, encoding)
        options = {} if kind == "parquet" else {"encoding": encoding}
        if kind == "csv":
            options |= {"converters": {column: str}, "keep_default_na": False}
        rows = load_dataset(kind, data_files=path, split="train", streaming=True, **options)
        if kind == "text":
            rows = parse_json(row["text"] for row in rows)
        for number, row in enumerate(rows, 1):
            text = dict(row).get(column)
            if isinstance(text, bytes):
                text = text.decode(encoding)
            if not isinstance(text, str):
                raise InputError(f"{path}, row {number}: no text {column!r} in {list(row)}")
            yield text
    except UnicodeDecodeError as error:
        found = f"{path}: not {encoding}"
        raise InputError(f"{found}: name its --encoding, for instance cp1252") from error
    except (DatasetsError, TypeError, *HUB_ERRORS) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def parse_json(lines: Iterator[str]) -> Iterator[dict]:
    """Yield the objects of JSON lines, or of one list of objects."""
    first = next(lines, "")
    if first.startswith("["):
        yield from json.loads("\n".join([first, *lines]))
    else:
        yield from map(json.loads, filter(str.strip, chain([first], lines)))


def load_datasets(
    files: dict[str, str], tokenizer: PreTrainedTokenizerBase, limit: int, args: ScriptArguments
) -> dict[str, TextDataset]:
    """Return the blocks of `train` and `validation`, of `limit` tokens or of --block_size.

    Without a validation file the end of the training tokens is kept for validation.
    """
    own_text = args.train_file or args.validation_file
    block_size = args.block_size or min(limit, 1024 if own_text else 64)
    if not 2 <= block_size <= limit:
        raise InputError(f"--block_size {block_size}: the model reads 2 to {limit} tokens")
    streams = {path: tokenize_file(path, tokenizer, args.cache_dir) for path in set(files.values())}
    datasets = {}
    for split, path in files.items():
        tokens = streams[path]
        if not args.validation_file:
            cut = len(tokens) * (100 - args.validation_split_percentage) // 100
            tokens = tokens[:cut] if split == "train" else tokens[cut:]
        stride = args.stride if split == "train" else block_size
        datasets[split] = TextDataset(tokens, block_size, stride)
        found = f"{path}: {len(tokens):,} tokens for {split}"
        if len(datasets[split]) == 0:
            raise InputError(f"{found}: give more or a smaller --block_size than {block_size}")
        left = (len(tokens) - block_size) % datasets[split].stride
        print(f"{found} in {len(datasets[split]):,} blocks of {block_size}; left out: {left:,}")
    return datasets


def pretrained(name: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load a causal language model from a folder or the hub, or raise InputError."""
    folder = fetch(name, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        options = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
        model, loading = AutoModelForCausalLM.from_pretrained(folder, **options)
    except LOADING_ERRORS as error:
        raise InputError(f"cannot load {name}: {error}") from error
    if loading["missing_keys"]:
        raise InputError(f"{name} is not a whole causal language model: parts are missing")
    if looks_ahead(model):
        raise InputError(f"{name} is no causal language model: it sees the words to predict")
    check_vocabulary(folder, len(tokenizer), model.config.vocab_size)
    return tokenizer, model


def looks_ahead(model: PreTrainedModel) -> bool:
    """Return whether a later token changes what a model says about an earlier one."""
    with torch.no_grad():
        first, second = model(torch.tensor([[0, 0], [0, 1]])).logits[:, 0]  # each (vocabulary,)
    return not torch.allclose(first, second, atol=1e-5)


def untrained(
    path: str | None, n_positions: int = 64, vocab_size: int = 1000, **size: int
) -> tuple[GPT2Tokenizer, GPT2LMHeadModel]:
    """Return a vocabulary of a text's first two million characters and a GPT-2 of random weights.

    Without a text it is that of the built-in paragraphs. With a `vocab_size` of 257 every byte is a
    token. `size`: fields of `GPT2Config`; without them the model is tiny, for --smoke.
    """
    tokenizer = GPT2Tokenizer()
    texts = SAMPLE_PARAGRAPHS
    if path:
        pieces = chain.from_iterable(islice(read_pieces(path, "Reading"), 4))
        texts = chain.from_iterable(piece.split(tokenizer.eos_token) for piece in pieces)
    tokenizer = tokenizer.train_new_from_iterator(texts, vocab_size, show_progress=False)
    end = tokenizer.eos_token_id
    options = {"vocab_size": len(tokenizer), "n_positions": n_positions, **TINY_SIZE, **size}
    config = GPT2Config(bos_token_id=end, eos_token_id=end, **options)
    return tokenizer, GPT2LMHeadModel(config)


def context_size(model: PreTrainedModel) -> int:
    """Return how many tokens the model reads at most."""
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    training_args: transformers.TrainingArguments,
    datasets: dict[str, TextDataset],
) -> Trainer:
    """Return the trainer of `train`; without `validation` it keeps the last model, not the best."""
    validation = datasets.get("validation")
    training_args.eval_on_start = validation is not None
    if validation is None:
        training_args.eval_strategy = "no"
        training_args.load_best_model_at_end = False
    if isinstance(model, GPT2LMHeadModel) and not training_args.torch_compile:
        speed_up(model, training_args.device)
    if training_args.device.type == "cuda" and "train" in datasets:
        advise_compiling(training_args, datasets["train"])
    if training_args.n_gpu <= 1:  # of several in one process each calls a copy of the model
        model.forward = MethodType(loss_alone(type(model).forward), model)
    # Some classes leave it None: the library then assumes this, with a warning.
    model.loss_type = model.loss_type or "ForCausalLM"
    # The labels are the block itself; the model shifts them by one. The collator would leave pad
    # tokens out of them: blocks have none, but many models pad with their end-of-text token, which
    # must be learned. So its copy of the tokenizer has no pad token.
    collator = DataCollatorForLanguageModeling(copy.deepcopy(tokenizer), mlm=False)
    collator.tokenizer.pad_token = None
    return BlockTrainer(
        model,
        training_args,
        data_collator=collator,
        train_dataset=datasets.get("train"),
        eval_dataset=validation,
        processing_class=tokenizer,
    )


def advise_compiling(args: transformers.TrainingArguments, dataset: TextDataset) -> None:
    """Print a line if the run is long enough to pay for compiling the model, 45 s on an H200."""
    rows = args.num_train_epochs * len(dataset)
    if args.max_steps > 0:
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        rows = args.max_steps * batch
    tokens = round(rows * dataset.block_size)
    if tokens > 10_000_000 and not args.torch_compile:
        print(f"{tokens:,} tokens to train on: --torch_compile true takes about half the time")


def loss_alone(forward: Callable) -> Callable:
    """Return a model's `forward` which in training gives the loss and no logits.

    Nobody reads them there, and for 8 blocks of 1,024 tokens of GPT-2 they are 412 million numbers,
    which the trainer would copy to float32 in every step.
    """

    @wraps(forward)
    def forward_to_loss(self, *args, **kwargs):
        outputs = forward(self, *args, **kwargs)
        return {"loss": outputs["loss"]} if self.training and "loss" in outputs else outputs

    return forward_to_loss


def speed_up(model: GPT2LMHeadModel, device: torch.device) -> None:
    """Compute the activation in one pass over the memory instead of eight; the formula stays.

    On a CPU dropout and loss, too, in fewer.
    """
    on_cpu = device.type == "cpu"
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
            elif type(child) is torch.nn.Dropout and on_cpu:
                setattr(module, name, FastDropout(child.p).train(child.training))
    if not on_cpu:
        return
    AttentionInterface.register("fast_dropout", attention_with_dropout)
    AttentionMaskInterface.register("fast_dropout", eager_mask)
    model.set_attn_implementation("fast_dropout")
    model.loss_function = next_token_loss


class FastDropout(torch.nn.Dropout):
    """`torch.nn.Dropout` by `fast_dropout`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fast_dropout(x, self.p) if self.training else x


def fast_dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Set a share `p` of the elements to zero and scale the others; 16 random bits decide on each.

    So `p` is a multiple of 1/65536. PyTorch's own draws 32 bits and takes five times as long.
    """
    if not 0 < p < 1:
        return torch.nn.functional.dropout(x, p)
    bits = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None)  # all 64
    bits = bits.view(torch.int16)[: x.numel()].view(x.shape)
    keep = bits.ge_(round(p * 2**16) - 2**15)  # 1 or 0
    return x * keep.to(x.dtype).mul_(1 / (1 - p))


def attention_with_dropout(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options,
) -> tuple[torch.Tensor, None]:
    """Attend as the library asks for it, with `fast_dropout` of the weights; without any, by SDPA.

    query, key, value: (batch, heads, tokens, dim); the mask is added to the scores. Returns
    (batch, tokens, heads, dim), and no weights.
    """
    if dropout == 0:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = (query * scaling) @ key.transpose(2, 3)  # (batch, heads, query, key)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = fast_dropout(scores.softmax(-1), dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


def next_token_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    vocab_size: int,
    num_items_in_batch: torch.Tensor | int | None = None,
    **options,
) -> torch.Tensor:
    """Return the mean cross-entropy of each next token, as the library's `ForCausalLMLoss` does.

    logits (batch, tokens, vocabulary), labels (batch, tokens). `num_items_in_batch`: divide by it.
    """
    labels = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:].flatten()
    loss = SummedCrossEntropy.apply(logits.view(-1, vocab_size), labels)
    return loss / ((labels >= 0).sum() if num_items_in_batch is None else num_items_in_batch)


class SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy in nats, summed, of logits (tokens, classes) and labels (tokens,).

    A label below 0 does not count. For 1,024 tokens of GPT-2 a float32 copy of the logits takes
    200 MB, and PyTorch makes three of them. Here 16 tokens at a time become probabilities, and
    these at once the gradient, probabilities minus one-hot: what is copied stays in the cache.
    """

    @staticmethod
    def forward(context, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum, float32 of shape (), and keep the gradient in the dtype of the logits."""
        loss = logits.new_zeros((), dtype=torch.float32)
        context.gradient = torch.empty_like(logits)
        for start in range(0, len(labels), 16):
            rows = slice(start, start + 16)
            probabilities = logits[rows].softmax(-1, dtype=torch.float32)  # (16, classes)
            real = labels[rows] >= 0
            right = real.nonzero()[:, 0], labels[rows][real]
            loss -= probabilities[right].clamp(min=1e-38).log().sum()
            probabilities[right] -= 1
            probabilities[~real] = 0
            context.gradient[rows] = probabilities
        return loss

    @staticmethod
    def backward(context, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of the logits, (tokens, classes); labels have none."""
        return context.gradient * upstream, None


class BlockTrainer(Trainer):
    """`Trainer` whose random order takes little memory and is the same after a resumption.

    Labels are smoothed in training alone: an evaluation measures how probable the text is.
    """

    def compute_loss(self, model: torch.nn.Module, *args, **kwargs) -> torch.Tensor | tuple:
        """Return the library's loss, in an evaluation without smoothed labels."""
        smoother = self.label_smoother
        self.label_smoother = smoother if model.training else None
        try:
            return super().compute_loss(model, *args, **kwargs)
        finally:
            self.label_smoother = smoother

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.args.train_sampling_strategy != "random":
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return EpochSampler(self.train_dataset, seed)


class EpochSampler(Sampler):
    """A random order that depends on seed and epoch alone, in 8 bytes an item.

    PyTorch's own sampler makes a list of it, 40 bytes an item.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed, self.epoch = dataset, seed, 0

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self))
        return map(int, order)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    max_new_tokens: int = 50,
    num_return_sequences: int = 1,
    seed: int = 42,
    **sampling: float | None,
) -> list[str]:
    """Return continuations of a prompt, until the text ends or the model's context is full.

    They have at most `max_new_tokens`. With `temperature`, `top_k` or `top_p` they are drawn by
    lot, and `seed` decides (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751, compare these
    ways); without, or with a temperature of 0, there is one, the likeliest. The model is in
    evaluation mode afterwards. Raises InputError if the prompt is empty or leaves no room.
    """
    options = {"add_special_tokens": False, "return_token_type_ids": False}
    inputs = tokenizer(prompt, return_tensors="pt", **options).to(model.device)  # (1, tokens)
    length, limit = inputs["input_ids"].size(1), context_size(model)
    if not 0 < length < limit:
        raise InputError(f"--prompt of {length} tokens: give 1 to {limit - 1}")
    chosen = {name: value for name, value in sampling.items() if value is not None}
    drawn = bool(chosen) and chosen.get("temperature") != 0
    options = {"do_sample": drawn, "num_beams": 1, "use_cache": True}
    if drawn:  # the library's own default would draw among 50 tokens
        options |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | chosen
    options["max_new_tokens"] = min(max_new_tokens, limit - length)
    options["pad_token_id"] = tokenizer.eos_token_id  # against a warning
    options["num_return_sequences"] = num_return_sequences
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        output = model.eval().generate(**inputs, **options)  # (sequences, all tokens)
    # With the prompt before it: of a continuation alone many tokenizers leave out the first space.
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    start = len(tokenizer.decode(output[0, :length], **options))
    return [text[start:] for text in tokenizer.batch_decode(output, **options)]


def train(trainer: Trainer) -> dict[str, float]:
    """Train, from a checkpoint if asked to, and save model and tokenizer; return the metrics."""
    checkpoint = trainer.args.resume_from_checkpoint
    check_flags(trainer)
    if checkpoint:
        check_same_model(checkpoint, trainer)
    # Under the model's own names, not those of older checkpoints: the trainer loads no others.
    save = trainer.model.save_pretrained
    trainer.model.save_pretrained = partial(save, save_original_format=False)
    # Of two runs in one folder, each would take the other's checkpoints for its own.
    lock = Path(trainer.args.output_dir, f".another_run_is_here_{trainer.args.process_index}")
    with FileLock(lock, blocking=False):
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        with whole_files(trainer.args.output_dir) as folder:
            trainer.save_model(folder)
            # a pickle, no part of the model
            (folder / "training_args.bin").unlink(missing_ok=True)
            curve = draw_training_curve(trainer.state.log_history)
            curve.savefig(folder / "training_curve.png", dpi=120)
        lock.unlink(missing_ok=True)
    return metrics


def measure(
    metrics: dict[str, float],
    texts: list[list[str]],
    datasets: dict[str, TextDataset],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, float]:
    """Return perplexity (exp of the loss in nats per token), bits per byte, tokens per second.

    And how much of the last texts is copied from the training tokens.
    """
    found = {}
    if "eval_loss" in metrics:
        found["eval_perplexity"] = float(np.exp(metrics["eval_loss"]))
        blocks = datasets["validation"]
        tokens = blocks.tokens[: len(blocks) * blocks.block_size]
        found["eval_bits_per_byte"] = bits_per_byte(metrics["eval_loss"], tokens, tokenizer)
    if "train_loss" in metrics:
        blocks_per_second = metrics["train_samples_per_second"]
        found["train_tokens_per_second"] = blocks_per_second * datasets["train"].block_size
    if texts and "train" in datasets:
        found |= copied(texts[-1], datasets["train"].tokens, tokenizer)
    return found


def bits_per_byte(loss: float, tokens: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return a loss in nats per token as bits per byte of the text of these tokens, in UTF-8.

    Unlike the loss it can be compared between tokenizers. Control tokens cost bits and are no text.
    """
    size = sum(len(text.encode()) for text in decode(tokens, tokenizer, skip_special_tokens=True))
    return loss / float(np.log(2)) * len(tokens) / size


def decode(
    tokens: np.ndarray, tokenizer: PreTrainedTokenizerBase, **options: bool
) -> Iterator[str]:
    """Yield the text of tokens, a part at a time, in constant memory."""
    for start in range(0, len(tokens), 2**18):
        yield tokenizer.decode(
            tokens[start : start + 2**18], clean_up_tokenization_spaces=False, **options
        )


def copied(
    texts: list[str], tokens: np.ndarray, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """Print the longest passage of the texts that stands in the tokens; return its size."""
    parts = decode(tokens, tokenizer)
    if tokenizer.eos_token:
        parts = (part.replace(tokenizer.eos_token, " ") for part in parts)
    passage = longest_copy(texts, parts)
    words, unit = len(passage.split()), "words"
    if lacks_spaces(texts):
        words, unit = len(passage), "characters"
    print(f"Longest passage from the training text, {words} {unit}: {passage}")
    return {"copied_words": words, "copied_characters": len(passage)}


# Characters of Thai, Lao, Burmese, Khmer, Japanese and Chinese.
WITHOUT_SPACES = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def lacks_spaces(texts: list[str]) -> bool:
    """Return whether the words of texts stand without spaces between them, or are one word."""
    text = " ".join(texts)
    return len(WITHOUT_SPACES.findall(text)) > len(text) / 2 or len(text) > 20 * len(text.split())


def longest_copy(texts: list[str], parts: Iterable[str]) -> str:
    """Return the longest passage of whole words of the texts that stands in the joined parts.

    White space of any kind counts as one space. In texts without spaces between words every
    character counts as a word. Memory grows with the longest part alone.
    """
    split, space = (list, "") if lacks_spaces(texts) else (str.split, " ")
    texts = [" ".join(text.split()) for text in texts]
    longest, window = [], " "
    overlap = max(map(len, texts)) + 2
    for part in chain(parts, [" "]):
        window = re.sub(r"\s+", " ", window[-overlap:] + part)
        for words in map(split, texts):
            for start in range(len(words) - len(longest)):
                end = start + len(longest) + 1
                while end <= len(words) and space + space.join(words[start:end]) + space in window:
                    longest = words[start:end]
                    end += 1
    return space.join(longest)


def write_texts(prompt: str, texts: list[list[str]], output_dir: str) -> None:
    """Write the texts that continue the prompt to generated.txt, and print each in one line."""
    titles = ["Before training", "After training"] if len(texts) == 2 else ["Continuation"]
    lines = []
    for title, continuations in zip(titles, texts, strict=False):
        lines += [f"{title}: {prompt}{text}\n" for text in continuations]
    if texts:
        with whole_files(output_dir) as folder:
            (folder / "generated.txt").write_text("\n".join(lines), encoding="utf-8")
        print(*(" ".join(line.split()) for line in lines), sep="\n\n", end="\n\n")


# Plumbing: nothing below is about GPT-2 -----------------------------------------------------------


class InputError(Exception):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def refuse(message: str) -> NoReturn:
    """Raise what the parser would print."""
    raise InputError(f"{message}: see --help")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the flags' defaults, and the docstring's commands line by line."""


def parse_arguments(argv: list[str] | None) -> tuple[ScriptArguments, dict, FineTuningArguments]:
    """Parse and check the command line; bad usage raises InputError."""
    classes = (ScriptArguments, GenerationArguments, FineTuningArguments)
    args, generation, training_args = parse(argv, *classes)
    check_positive(args, "block_size", "stride", "preprocessing_num_workers")
    check_positive(generation, "max_new_tokens", "num_return_sequences", "top_k", "top_p")
    if generation.top_p is None:  # with --smoke, unless it is asked to draw
        generation.top_p = GenerationArguments.top_p
        if not generation.temperature and not generation.top_k:
            generation.temperature = 0.0
    if generation.top_p > 1:
        raise InputError(f"--top_p {generation.top_p}: give a number from 0 to 1")
    if generation.temperature is not None and not generation.temperature >= 0:
        raise InputError(f"--temperature {generation.temperature}: give 0 or more")
    if generation.num_return_sequences > 1 and generation.temperature == 0:
        raise InputError("--num_return_sequences: draw them, for instance with --temperature 1")
    percentage = args.validation_split_percentage
    if not 0 <= percentage < 100:
        raise InputError(f"--validation_split_percentage {percentage}: give a number from 0 to 99")
    if args.preprocessing_num_workers:
        os.environ["RAYON_NUM_THREADS"] = str(args.preprocessing_num_workers)
    if not (args.train_file or args.validation_file):  # the sample is short
        args.stride = args.stride or 8
    if not (training_args.do_train or training_args.do_eval or training_args.do_predict):
        training_args.do_train = training_args.do_predict = True
        training_args.do_eval = bool(args.validation_file or percentage)
    if not training_args.do_train:
        follow_model(args.model_name_or_path, training_args)
    if args.smoke:
        torch.set_num_threads(1)  # so small a model gains nothing from more
    if args.smoke and not training_args.do_train:
        raise InputError("--smoke builds a model to train: leave it out to use a saved one")
    if training_args.do_train and args.validation_file and not args.train_file:
        raise InputError("no train file: give --train_file, or choose with --do_...")
    return args, vars(generation) | {"seed": training_args.seed}, training_args


class ShortHelp(HelpFormatter):
    """Shows these flags alone."""

    def __init__(self, names: Iterable[str], prog: str):
        super().__init__(prog)
        self.names = {"help", *names}

    def add_usage(self, usage: str, actions: list, *others) -> None:
        super().add_usage("%(prog)s [flags]", [], *others)

    def add_arguments(self, actions: Iterable[argparse.Action]) -> None:
        super().add_arguments([action for action in actions if action.dest in self.names])


# Flags of the library that most runs need; `--help` shows them beside the script's own.
COMMON = ("do_train", "do_eval", "do_predict", "num_train_epochs", "max_steps", "learning_rate")
COMMON += ("bf16", "seed", "resume_from_checkpoint", "auto_find_batch_size", "torch_compile")


def parse(argv: list[str] | None, *dataclasses: type) -> tuple:
    """Parse flags into dataclasses, with defaults for this machine, for --smoke and for others."""
    argv = sys.argv[1:] if argv is None else argv
    parser = transformers.HfArgumentParser(dataclasses, description=__doc__, allow_abbrev=False)
    parser.formatter_class, parser.error = HelpFormatter, refuse
    if "all" not in argv:
        own = chain(COMMON, *(kind.__annotations__ for kind in dataclasses))
        parser.formatter_class = partial(ShortHelp, list(own))
        parser.epilog = "More flags, those of transformers.TrainingArguments: --help all"
    gpu, cpu = torch.accelerator.is_available(), torch.cpu.get_capabilities()
    bf16 = torch.cuda.is_bf16_supported(False) if gpu else cpu.get("avx512_bf16", False)
    parser.set_defaults(use_cpu=not gpu, dataloader_pin_memory=gpu)
    parser.set_defaults(disable_tqdm=not sys.stderr.isatty())
    known, _ = parser.parse_known_args(argv)
    parser.set_defaults(bf16=bf16 and not known.fp16)
    parser.set_defaults(**SMOKE if known.smoke else {})
    known, _ = parser.parse_known_args(argv)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun
    if gpu and not known.use_cpu and processes > torch.accelerator.device_count():
        gpus = f"{processes} processes for {torch.accelerator.device_count()} GPUs"
        raise InputError(f"--nproc_per_node: {gpus}: start one for each, or give --use_cpu")
    if known.save_strategy != "best":  # evaluate whenever a checkpoint is saved
        parser.set_defaults(eval_strategy=known.save_strategy, eval_steps=known.save_steps)
    try:
        "".join(argv).encode()  # what is no text fails here
        parsed = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    except (ImportError, TypeError, ValueError) as error:  # of TrainingArguments
        refuse(str(error))
    parsed[-1].do_eval = known.do_eval  # the library sets it when it sees --eval_strategy
    return parsed


def follow_model(model: str, training_args: transformers.TrainingArguments) -> None:
    """Without a training and an --output_dir, let what is made of a model go to its folder."""
    unnamed = training_args.output_dir == type(training_args).output_dir
    if unnamed and os.path.isdir(model):
        training_args.output_dir = model


def check_positive(args: object, *names: str) -> None:
    """Raise InputError if one of these flags has a number that is not above 0."""
    for name in names:
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name} {value}: give a number above 0")


POSITIVE = ("per_device_train_batch_size", "per_device_eval_batch_size", "num_train_epochs")
POSITIVE += ("gradient_accumulation_steps", "eval_accumulation_steps", "learning_rate")
# For metrics that are computed in another way than here.
REFUSED = ("batch_eval_metrics", "eval_do_concat_batches", "label_names", "prediction_loss_only")
REFUSED += ("dataloader_drop_last",)


def prepare(args: transformers.TrainingArguments) -> None:
    """Check the trainer's flags before any work is done, and set up this process."""
    check_positive(args, *POSITIVE)
    for name in REFUSED:
        if getattr(args, name) != getattr(type(args), name):
            raise InputError(f"--{name}: this script computes its metrics from all rows at once")
    checkpoint = args.resume_from_checkpoint
    if checkpoint == "last":
        args.resume_from_checkpoint = next(reversed(complete_checkpoints(args.output_dir)), None)
    elif checkpoint is not None and not Path(checkpoint, "trainer_state.json").exists():
        raise InputError(f"--resume_from_checkpoint {checkpoint}: no complete checkpoint there")
    try:
        transformers.set_seed(args.seed)
        for callback in get_reporting_integration_callbacks(args.report_to):
            callback()
    except (ImportError, RuntimeError, ValueError) as error:
        raise InputError(f"the trainer refuses these flags: {error}") from error
    with whole_files(args.output_dir):
        pass  # fails now if nothing can be written there
    earlier_results(args.output_dir)
    if args.process_index:  # of several processes only the first prints
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"
    print(f"Computing on {args.device} in {precision}")
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", "Glyph")  # of pictures, whose font lacks most languages
    transformers.logging.disable_progress_bar()  # of loading and saving; the trainer has its own
    keep_freed_memory()


def find_advice(error: RuntimeError) -> str | None:
    """Return what helps against a full memory or disk, which PyTorch reports as it reports bugs."""
    if should_reduce_batch_size(error) or "executable batch size" in str(error):
        return SMALLER
    return "is the disk full?" if "inline_container" in str(error) else None


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: on a CPU every step would map and clear it all again."""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(-4, 0)  # M_MMAP_MAX: no mapping of their own for large tensors
        ctypes.CDLL(None).mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing given back


def digest(path: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a name for the tokens of a text: it changes with the text and with the tokenizer."""
    sha256 = hashlib.sha256(PIECE.pattern.encode())
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted(tokenizer.save_pretrained(folder)):
            sha256.update(Path(file).read_bytes())
    for pieces in read_pieces(path, "Reading"):
        sha256.update("".join(pieces).encode())
    return sha256.hexdigest()


def encoding_of(path: str | Path, encoding: str) -> str:
    """Return the encoding of a text file: of its byte order mark, or else the one that is given.

    Raises InputError for a name that is none, and for files that are no text.
    """
    try:
        "".encode(encoding)
    except LookupError as error:
        raise InputError(f"--encoding {encoding}: give utf-8, cp1252 or another name") from error
    with open(path, "rb") as file:
        start = file.read(4)
    for mark, kind in NO_TEXT_FILES.items():
        if start.startswith(mark):
            raise InputError(f"{path} is {kind}: save it as CSV or plain text in UTF-8")
    if start.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if utf16 else encoding


# How files begin that are no text, and what they are.
NO_TEXT_FILES = {
    b"PK\3\4": "a file of Word or Excel, or another ZIP archive",
    b"\xd0\xcf\x11\xe0": "a file of an old Word or Excel",
    b"%PDF": "a PDF",
}


# What of a checkpoint is read: no weights in other formats, and nothing in sub-folders.
MODEL_FILES = r"[^/]*\.(json|txt|model)|model(-\d+-of-\d+)?\.safetensors"
# What the hub's HTTP library raises: httpx or httpx2, as the hub's release has it.
HTTP = sys.modules[HfHubHTTPError.__bases__[0].__module__]
HUB_ERRORS = (OSError, ImportError, ValueError, HTTP.HTTPError, HTTP.InvalidURL)


def fetch(
    name: str,
    model_types: Container[str] | None = None,
    files: str = MODEL_FILES,
    repo_type: str = "model",
) -> str:
    """Return a folder: `name` itself, or the hub's copy of what matches `files`, or the cache's.

    Raises InputError, of a model of none of these types before its weights are fetched.
    """
    if os.path.isdir(name):
        check_model_type(name, name, model_types)
        return name
    os.environ.setdefault("HF_XET_CLIENT_RETRY_BASE_DELAY", "300ms")  # or it waits four minutes
    enable_progress_bars()  # the library switches them off together with its own
    reason = ""
    try:  # a firewall may swallow all calls, and only the first can be bounded
        repo = HfApi().repo_info(name, repo_type=repo_type, timeout=10)
        found = [file.rfilename for file in repo.siblings if re.fullmatch(files, file.rfilename)]
        for file in sorted(found, key=lambda file: file != "config.json"):  # that one first
            path = download(name, file, repo_type, repo.sha)
            if file == "config.json":
                check_model_type(os.path.dirname(path), name, model_types)
        if not found:
            raise InputError(f"{name} on the hub holds no such files")
        download(name, found[0], repo_type)  # without a commit: now the cache has a whole "main"
    except HUB_ERRORS as error:
        reason = explain(error, name)
    try:
        options = {"repo_type": repo_type, "local_files_only": True}
        return snapshot_download(name, allow_patterns="config.json", **options)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot download {name} from the hub: {reason}") from error


def download(name: str, file: str, repo_type: str, commit: str | None = None) -> str:
    """Return the path of a file from the hub, or of its copy in the cache."""
    options = {"repo_type": repo_type, "revision": commit}
    try:
        return hf_hub_download(name, file, **options)
    except RuntimeError:  # of the hub's Xet storage, which cannot be reached: try without
        huggingface_hub.constants.HF_HUB_DISABLE_XET = True
        return hf_hub_download(name, file, **options)


def explain(error: Exception, name: str) -> str:
    """Return what went wrong with the hub, and what helps."""
    if isinstance(error, LocalEntryNotFoundError):
        error = error.__cause__ or error  # why the hub did not give what the cache lacks
    if isinstance(error, GatedRepoError):
        page = f"https://huggingface.co/{name}"
        return f"it is gated: accept its terms at {page}, then log in with: hf auth login"
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        places = (*Path(name).parent.glob("*"), *Path().glob("*/*"))
        names = [str(place) for place in places if place.is_dir()]
        near = difflib.get_close_matches(name, [*names, ScriptArguments.model_name_or_path], 1)
        hint = f"did you mean {near[0]}?" if near else "is it private? log in with: hf auth login"
        return f"no such folder here, and no such name on the hub: {hint}"
    reason = str(error).strip().partition("\n")[0]
    return f"{reason}: try --smoke, log in (hf auth login), or give a local folder"


def check_model_type(folder: str, name: str, model_types: Container[str] | None) -> None:
    """Raise InputError if a model's configuration is missing, or names none of these types."""
    if model_types is None:
        return
    if not Path(folder, "config.json").exists():
        raise InputError(f"cannot load {name}: there is no config.json, so it is no model")
    config = transformers.PreTrainedConfig.get_config_dict(folder)[0]
    found = config.get("model_type")
    if found and found not in model_types:
        raise InputError(f"{name} is a {found} model: this script is not for it")
    if "auto_map" in config:
        raise InputError(f"{name} wants to run code of its own: choose another model")


# What the libraries raise for a folder that holds no checkpoint, or a damaged one.
LOADING_ERRORS = (OSError, TypeError, ValueError, SafetensorError, StrictDataclassError)


def check_vocabulary(folder: str, known: int, expected: int) -> None:
    """Raise InputError if a tokenizer has lost its vocabulary: without it, it loads silently."""
    if not expected / 2 < known <= expected:
        counts = f"the tokenizer knows {known} tokens, the model {expected}"
        raise InputError(f"{folder}: {counts}: is a file missing, or of another model?")


def complete_checkpoints(output_dir: str) -> list[str]:
    """Return the complete checkpoints in a folder, oldest first."""
    states = Path(output_dir).glob("checkpoint-[0-9]*/trainer_state.json")  # written last of all
    complete = [str(state.parent) for state in states if state.read_bytes().endswith(b"}\n")]
    return sorted(complete, key=lambda folder: int(folder.rpartition("-")[2]))


def check_flags(trainer: Trainer) -> None:
    """Raise InputError for flags that the library would fail over only when training begins."""
    try:
        trainer.get_train_dataloader()
        trainer.create_optimizer_and_scheduler(num_training_steps=1)
    except (ImportError, TypeError, ValueError) as error:
        raise InputError(f"the trainer refuses these flags: {error}") from error
    trainer.optimizer = trainer.lr_scheduler = None


def check_same_model(checkpoint: str, trainer: Trainer) -> None:
    """Raise InputError if a checkpoint has other classes or sizes, or if the best one is gone."""
    config = type(trainer.model.config).from_pretrained(checkpoint)
    for name in ("id2label", "vocab_size", "hidden_size", "num_hidden_layers"):
        found, expected = getattr(config, name), getattr(trainer.model.config, name)
        if found != expected:
            difference = f"{name} {found}, not {expected}"
            raise InputError(f"{checkpoint} has {difference}: choose another --output_dir")
    state = json.loads(Path(checkpoint, "trainer_state.json").read_bytes())
    best = state["best_model_checkpoint"] if trainer.args.load_best_model_at_end else None
    if best and not Path(checkpoint).with_name(Path(best).name).exists():
        raise InputError(f"{checkpoint}: the best so far, {best}, is not beside it")


@contextmanager
def whole_files(output_dir: str | Path) -> Iterator[Path]:
    """Yield a folder whose files move to `output_dir` at the end: each is whole, or not there."""
    try:
        os.makedirs(output_dir, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=output_dir) as folder:
            yield Path(folder)
            umask = os.umask(0)
            os.umask(umask)
            for file in sorted(Path(folder).iterdir()):
                file.chmod(0o666 & ~umask)  # safetensors hides its files from everybody else
                os.replace(file, Path(output_dir, file.name))
    except OSError as error:
        raise InputError(f"cannot write {output_dir}: {error}") from error


def draw_training_curve(log_history: list[dict[str, float]]) -> Figure:
    """Draw the losses, in nats per token, that the trainer logged over the steps."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("loss", "eval_loss"):
        points = {entry["step"]: entry[name] for entry in log_history if name in entry}
        axes.plot(points.keys(), points.values(), marker=".", label=name)
    axes.set(xlabel="step", ylabel="nats per token", ylim=(0, None))
    axes.legend()
    return figure


def conclude(
    metrics: dict[str, float],
    args: ScriptArguments,
    generation: dict,
    training_args: FineTuningArguments,
) -> None:
    """Report, with the flags that continue the prompt with this run's model in the same way."""
    model = training_args.output_dir if training_args.do_train else args.model_name_or_path
    flags = ["--do_predict", "--prompt", generation["prompt"]]
    if generation["prompt"].startswith("-"):
        flags = ["--do_predict", f"--prompt={generation['prompt']}"]
    defaults = vars(GenerationArguments()) | {"seed": FineTuningArguments.seed}
    for name, default in defaults.items():
        if name != "prompt" and generation[name] != default:
            flags += [f"--{name}", str(generation[name])]
    command = shlex.join([*flags, "--model_name_or_path", model])
    if args.smoke and args.train_file:
        print("A tiny model was tried: its quality tells nothing about that of a real one")
    report(metrics, training_args.output_dir, command, args.model_name_or_path)


def report(metrics: dict[str, float], output_dir: str, command: str, model: str) -> None:
    """Write and print metrics, files and the next command; a finished run needs no checkpoints.

    A model in this folder keeps the metrics of its training; those of another are not its own.
    """
    results, earlier = Path(output_dir, "all_results.json"), {}
    if "train_loss" in metrics:
        for checkpoint in complete_checkpoints(output_dir):
            Path(checkpoint, "trainer_state.json").unlink()  # first: half a checkpoint is none
            shutil.rmtree(checkpoint)
    elif Path(model).resolve() == Path(output_dir).resolve():
        earlier = earlier_results(output_dir)
    with whole_files(output_dir) as folder:
        text = json.dumps(earlier | metrics, indent=2, sort_keys=True)
        (folder / results.name).write_text(text)
    print(*(f"{name:>28} = {metrics[name]:.4g}" for name in sorted(metrics)), sep="\n")
    print(
        "Files:", *sorted(path for path in results.parent.iterdir() if path.is_file()), sep="\n  "
    )
    print(f"Next:\n  python {shlex.quote(sys.argv[0])} {command}")


def earlier_results(output_dir: str) -> dict[str, float]:
    """Return the metrics of an earlier run in this folder. Raises InputError if it was no run."""
    results = Path(output_dir, "all_results.json")
    try:
        return dict(json.loads(results.read_bytes() if results.exists() else "{}"))
    except (TypeError, ValueError) as error:
        other = f"{results} is of another program"
        raise InputError(f"{other}: give another --output_dir") from error


SMALLER = "give a smaller --per_device_train_batch_size (to evaluate: --per_device_eval_batch_size)"
SMALLER += " or --block_size; --auto_find_batch_size tries smaller batches by itself"
SMOKE = {
    "max_steps": 400,
    "learning_rate": 5e-3,
    "per_device_train_batch_size": 8,
    "save_steps": 0.5,
    "stride": 1,
    "bf16": False,
    "top_p": None,
}
TINY_SIZE = {
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
# The last paragraph, which the split leaves for validation, repeats sentences of the others: a
# model that has learned those can predict it.
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
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # not every screen can show every character
    try:
        main()
        print(end="", flush=True)
    except KeyboardInterrupt:
        remedy = "the same command with --resume_from_checkpoint last continues"
        print(f"error: interrupted: {remedy}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try it again
        print("error: the output was closed before its end", file=sys.stderr)
        sys.exit(2)
    except (InputError, ImportError, OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError):
            advice = find_advice(error)
            if advice is None:
                raise  # a bug
            error = f"{str(error).partition(' GPU ')[0]}: {advice}"
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
