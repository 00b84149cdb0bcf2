# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "datasets>=4.0",
#     "huggingface_hub>=1.5",
#     "matplotlib>=3.10",
#     "numpy>=2.1",
#     "torch>=2.11",
#     "tqdm>=4.67",
#     "transformers>=5.10",
# ]
# ///
# SPDX-License-Identifier: MIT
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-27
"""Prepare GLUE MRPC for BERT: tokenize pairs of sentences, pad them batch by batch, save tensors.

python glue_mrpc.py --smoke                                           # seconds, no download
python glue_mrpc.py                                                   # nyu-mll/glue
python glue_mrpc.py --data_dir MRPC --model_name_or_path bert-base-cased

BERT reads a pair as one row of tokens, `[CLS] sentence1 [SEP] sentence2 [SEP]`, and the rows of a
batch at one length: the rest is padding, and how much there is depends on which rows stand
together. Read the flags, `main`, then the functions in the order in which it uses them. Reading
Parquet, downloading, pictures and errors come last, under "Plumbing".
"""

import argparse
import codecs
import difflib
import glob
import json
import os
import random
import re
import shlex
import sys
import tempfile
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import huggingface_hub
import numpy as np
import torch
import transformers
from datasets import Dataset, DatasetDict, concatenate_datasets, disable_progress_bars
from datasets.exceptions import DatasetsError
from datasets.fingerprint import generate_random_fingerprint
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import enable_progress_bars
from matplotlib.figure import Figure
from torch.nn.functional import pad
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import (
    AutoTokenizer,
    BatchEncoding,
    BertTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)
from transformers.hf_argparser import HfArg, HfArgumentParser

COLUMNS = ["sentence1", "sentence2", "label"]
SOURCES = [  # whose files are taken: the first that are there
    {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},  # GLUE's
    {"train": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"},  # the original corpus
    {"train": "train*.parquet", "validation": "validation*.parquet", "test": "test*.parquet"},
]
TENSORS_FILE = "glue_mrpc_labled_tensor.pt"  # spelled so


@dataclass
class ScriptArguments:
    """Flags of this script."""

    smoke: bool = HfArg(default=False, help="Build a tiny tokenizer: no download, seconds.")
    model_name_or_path: str = HfArg(default="bert-base-uncased", help="Whose tokenizer.")
    data_dir: str | None = HfArg(default=None, help="Folder with MRPC; by default the hub's copy.")
    encoding: str = HfArg(
        default="utf-8-sig", help="Of text files: cp1252 for Excel's and Word's in Western Europe."
    )
    max_seq_length: int = HfArg(default=128, help="Longer pairs are cut to so many tokens.")
    batch_size: int = HfArg(default=32, help="Pairs that are padded together.")
    preprocessing_num_workers: int | None = HfArg(default=None, help="Processes that tokenize.")
    output_dir: str = HfArg(default="outputs/glue_mrpc", help="Where the results go.")
    seed: int = HfArg(default=42, help="Chooses the pair that is shown.")


def main(argv: list[str] | None = None) -> None:
    """Load, tokenize, pad and save MRPC, and say what the padding costs."""
    args = parse_arguments(argv)
    splits = load_splits(args.data_dir, args.smoke, args.encoding)
    if args.smoke:
        tokenizer = tiny_tokenizer(concatenate_datasets([*splits.values()]))
    else:
        tokenizer = pretrained_tokenizer(args.model_name_or_path, args.max_seq_length)
    first_split = next(iter(splits.values()))
    show_tokens(tokenizer, random.Random(args.seed).choice(first_split))
    workers = args.preprocessing_num_workers
    tensors, lengths, figures = {}, {}, {}
    for name, split in splits.items():
        tokenized = tokenize_pairs(split, tokenizer, args.max_seq_length, workers)
        show_losses(name, split, tokenized, tokenizer, args.max_seq_length)
        batches = collate(tokenized, tokenizer, args.batch_size)
        tensors[name] = join(batches, tokenizer)
        show_shapes(f"{name}, first of {len(batches)} batches", batches[0])
        show_shapes(f"{name}, joined", tensors[name])
        lengths[name] = tensors[name]["attention_mask"].sum(dim=1).numpy()
        figures[name] = measure(lengths[name], args.batch_size, args.max_seq_length)
        figures[name] |= always_yes(tensors[name]["labels"].numpy())
    save(tensors, figures, draw_lengths(lengths, figures), args.output_dir)
    summarize(figures, args.output_dir, args.smoke)


def load_splits(
    data_dir: str | None = None, smoke: bool = False, encoding: str = "utf-8-sig"
) -> DatasetDict:
    """Return the splits train, validation and test of a folder, as far as there are any.

    Without a folder they come from the hub, or for --smoke from the built-in sample. Columns:
    sentence1, sentence2 and label, see `as_dataset`. Raises InputError.
    """
    if smoke and data_dir is None:
        return DatasetDict({name: as_dataset(pairs) for name, pairs in SAMPLE_PAIRS.items()})
    if data_dir is None:
        folder = fetch("nyu-mll/glue", files=r"mrpc/[^/]*\.parquet", repo_type="dataset")
        data_dir = os.path.join(folder, "mrpc")
    folder, splits = Path(data_dir), DatasetDict()
    if not folder.is_dir():
        raise InputError(f"--data_dir {folder}: no such folder: give the one with MRPC's files")
    for files in SOURCES:
        found = {split: folder / name for split, name in files.items() if any(folder.glob(name))}
        if found:
            break
    else:
        names = ", ".join(name for files in SOURCES for name in files.values())
        raise InputError(f"--data_dir {folder}: no file of MRPC there: expected some of {names}")
    for split, path in found.items():
        labelled = split != "test"
        if path.suffix == ".parquet":
            splits[split] = read_parquet(path, labelled)
        else:
            splits[split] = read_tsv(path, labelled, encoding)
    return splits


def read_tsv(path: Path, labelled: bool = True, encoding: str = "utf-8-sig") -> Dataset:
    """Read an original or a GLUE file: a header, tabs between the columns, plain quotes.

    A CSV reader with its usual quoting would join rows. Raises InputError with the lines.
    """
    header, *lines = read_text(path, encoding).rstrip("\n").split("\n")
    names, pairs = header.split("\t"), []
    for name in ("Quality", "#1 String", "#2 String"):
        if name not in names and (labelled or name != "Quality"):
            raise InputError(f"{path}, line 1: no column {name!r} in the header {header[:80]!r}")
    for line in lines:
        fields = line.split("\t")
        if len(fields) != len(names):
            pairs.append(f"{len(fields)} columns, the header has {len(names)}")
            continue
        row = dict(zip(names, fields, strict=True))
        label = read_label(row.get("Quality"), labelled)  # GLUE keeps its test file's to itself
        pairs.append((row["#1 String"], row["#2 String"], label))
    return as_dataset(pairs, str(path), "line", start=2)


def as_dataset(
    pairs: list[tuple[str, str, int]], source: str = "pairs", unit: str = "row", start: int = 1
) -> Dataset:
    """Return pairs with their labels as a dataset: sentence1, sentence2 (str) and label (int).

    Labels: 1 for a paraphrase, 0 for another meaning, -1 for not known. Raises InputError, which
    names rows of the source by their numbers, from `start` on. In place of a pair may stand what is
    wrong with its row.
    """
    if not pairs:
        raise InputError(f"{source}: no rows")
    faults = {}  # and the numbers of their rows
    for number, pair in enumerate(pairs, start):
        fault = fault_of(pair)
        if fault:
            faults.setdefault(fault, []).append(str(number))
    found = []
    for fault, rows in faults.items():
        first = ", ".join(rows[:3]) + ", …" * (len(rows) > 3)
        found.append(f"{len(rows)} with {fault} ({unit} {first})")
    if found:
        raise InputError(f"{source}: wrong rows: {'; '.join(found[:5])}: mend or leave them out")
    first, second, labels = zip(*pairs, strict=True)
    columns = {"sentence1": first, "sentence2": second, "label": [int(label) for label in labels]}
    return Dataset.from_dict(columns)


def fault_of(pair: tuple | str) -> str | None:
    """Return what is wrong with a row, if anything is."""
    if isinstance(pair, str):
        return pair
    *sentences, label = pair
    for sentence in sentences:
        if not isinstance(sentence, str) or not sentence.strip():
            return "a sentence that is blank or no text"
    return None if label in (1, 0, -1) else f"the label {label!r:.40}, not 1 or 0"


def tiny_tokenizer(split: Dataset) -> BertTokenizer:
    """For --smoke: build a WordPiece vocabulary of all letters and of words of 2,000 sentences."""
    texts, blank = [*split["sentence1"], *split["sentence2"]], BertTokenizer()
    letters = " ".join(set().union(*texts))
    letters = sorted(set(blank.backend_tokenizer.normalizer.normalize_str(letters)) - {" "})
    # The trainer numbers special tokens as given, but letters anew in every run: they go in as
    # special tokens. In the tokenizer that is built of the result they are ordinary pieces.
    pieces = [f"##{letter}" for letter in letters]
    alphabet = {"initial_alphabet": letters, "limit_alphabet": len(letters)}
    options = {"new_special_tokens": pieces, "show_progress": False, **alphabet}
    trained = blank.train_new_from_iterator(texts[:2000], 2000, **options)
    return BertTokenizer(vocab=trained.get_vocab())


def pretrained_tokenizer(name: str, max_seq_length: int = 128) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer from a folder or the hub: BERT's or another one that pads.

    Raises InputError if the vocabulary is not the model's (without its file `BertTokenizer` comes
    up with 5 tokens and no word of warning), or if the model does not read so many tokens. A folder
    without config.json is a tokenizer alone, of BERT if its files do not say whose.
    """
    folder = fetch(name, files=r"[^/]*\.(json|txt|model)")  # no weights
    vocabulary = Path(folder, "vocab.txt")
    try:
        if vocabulary.exists():
            vocabulary.read_text("utf-8")  # the tokenizer itself would end in a traceback
        config = read_json(Path(folder, "config.json"))
        settings = read_json(Path(folder, "tokenizer_config.json"))
        named = "model_type" in config or "tokenizer_class" in settings
        tokenizer_class = AutoTokenizer if named else BertTokenizer
        tokenizer = tokenizer_class.from_pretrained(folder, trust_remote_code=False)
    except (ImportError, LookupError, OSError, TypeError, ValueError) as error:
        raise InputError(f"cannot load the tokenizer of {name}: {error}") from error
    check_kind(folder, tokenizer)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise InputError(f"{name}: the tokenizer knows no words: its vocabulary is missing")
    if isinstance(tokenizer, BertTokenizer) and tokenizer.unk_token_id >= tokenizer.vocab_size:
        raise InputError(f"{name}: the vocabulary has no [UNK]: is it cut off, or not WordPiece?")
    if tokenizer.pad_token is None:
        raise InputError(f"{name}: the tokenizer cannot pad: choose one that has a pad token")
    check_vocabulary(name, len(tokenizer), config.get("vocab_size", len(tokenizer)))
    check_length(max_seq_length, config.get("max_position_embeddings", max_seq_length))
    return keep_capitals(tokenizer, folder)


def show_tokens(tokenizer: PreTrainedTokenizerBase, pair: dict[str, str]) -> None:
    """Print a single sentence and a pair as ids and as tokens again."""
    sentences = (pair["sentence1"], pair["sentence2"])
    for title, chosen in (("A single sentence", sentences[:1]), ("A pair", sentences)):
        encoded = tokenizer(*chosen, split_special_tokens=True)
        print(f"{title}:", " | ".join(chosen))
        print("  input_ids:     ", *encoded["input_ids"])
        print("  tokens:        ", *tokenizer.convert_ids_to_tokens(encoded["input_ids"]))
        if "token_type_ids" in encoded:
            print("  token_type_ids:", *encoded["token_type_ids"])


def tokenize_pairs(
    split: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int = 128,
    num_proc: int | None = None,
) -> Dataset:
    """Tokenize pairs as `[CLS] sentence1 [SEP] sentence2 [SEP]`, not padded.

    The columns sentence1 and sentence2 give way to input_ids, token_type_ids (for a tokenizer that
    has them) and attention_mask, lists of integers; from longer pairs tokens are cut, of the longer
    sentence first. A [SEP] that stands in a sentence is text.
    """

    def tokenize(rows: dict[str, list[str]]) -> BatchEncoding:
        pairs = (rows["sentence1"], rows["sentence2"])
        options = {"truncation": True, "max_length": max_seq_length}
        return tokenizer(*pairs, split_special_tokens=True, **options)

    # The library would make the fingerprint by pickling the tokenizer, and lose a Ctrl-C meanwhile.
    options = {"num_proc": num_proc, "new_fingerprint": generate_random_fingerprint()}
    sentences = ["sentence1", "sentence2"]
    return split.map(tokenize, batched=True, remove_columns=sentences, **options)


def show_losses(
    title: str,
    split: Dataset,
    tokenized: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int = 128,
) -> None:
    """Print how many pairs are cut and how many tokens unknown: no tensor shows it."""
    rows = list(tokenized["input_ids"])
    full = [number for number, ids in enumerate(rows) if len(ids) == max_seq_length]
    if full:
        longer = tokenize_pairs(split.select(full), tokenizer, max_seq_length + 1)["input_ids"]
        cut = sum(len(ids) > max_seq_length for ids in longer)
        if cut:
            print(f"{title}: {cut:,} of {len(rows):,} pairs are cut to {max_seq_length} tokens")
    ids = np.concatenate(rows)
    unknown = int((ids == tokenizer.unk_token_id).sum())
    if unknown:
        tokens = len(ids) - len(rows) * tokenizer.num_special_tokens_to_add(pair=True)
        share = f"{unknown:,} of {tokens:,} tokens ({unknown / tokens:.1%})"
        hint = ": is it of this language?" if unknown > tokens / 10 else ""
        print(f"{title}: {share} are unknown to the tokenizer{hint}")


def collate(
    split: Dataset, tokenizer: PreTrainedTokenizerBase, batch_size: int = 32
) -> list[BatchEncoding]:
    """Pad batch by batch, each to its longest pair: what a training loop is given.

    A batch: input_ids, token_type_ids and attention_mask, int64 of shape (batch, longest pair), and
    labels, int64 of shape (batch,).
    """
    collator = DataCollatorWithPadding(tokenizer)
    loader = DataLoader(split, batch_size=batch_size, collate_fn=collator)
    return list(tqdm(loader, desc="Padding", disable=None, leave=False))


def join(
    batches: list[BatchEncoding], tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """Join batches into one tensor a key, for the file: int64 (pairs, longest), labels (pairs,)."""
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    fill["attention_mask"] = 0
    longest = max(batch["input_ids"].shape[1] for batch in batches)
    tensors = {key: [] for key in batches[0]}
    for batch in batches:
        missing = longest - batch["input_ids"].shape[1]
        sides = (missing, 0) if tokenizer.padding_side == "left" else (0, missing)
        for key, column in batch.items():
            column = pad(column, sides, value=fill[key]) if key in fill else column
            tensors[key].append(column)
    return {key: torch.cat(columns) for key, columns in tensors.items()}


def show_shapes(title: str, batch: dict[str, torch.Tensor]) -> None:
    """Print the shapes of a batch."""
    print(f"{title}:", ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in batch.items()))


def measure(lengths: np.ndarray, batch_size: int, max_seq_length: int) -> dict[str, float]:
    """Return how many tokens pairs have, and the share of padding in four ways to pad them.

    lengths: tokens of every pair, int64 of shape (pairs,).
    """
    pairs, tokens, longest = len(lengths), int(lengths.sum()), int(lengths.max())
    positions = {
        "fixed_length": pairs * max_seq_length,
        "longest_of_split": pairs * longest,
        "longest_of_batch": count_positions(lengths, batch_size),
        "grouped_by_length": count_positions(np.sort(lengths), batch_size),
    }
    figures = {
        "pairs": pairs,
        "tokens": tokens,
        "mean_length": round(tokens / pairs, 2),
        "longest": longest,
    }
    for way, count in positions.items():
        figures[f"padding_{way}"] = round(1 - tokens / count, 4)
    return figures


def count_positions(lengths: np.ndarray, batch_size: int) -> int:
    """Return the positions of all batches, tokens and padding, each padded to its longest pair."""
    batches = np.split(lengths, range(batch_size, len(lengths), batch_size))
    return sum(len(batch) * int(batch.max()) for batch in batches)


def always_yes(labels: np.ndarray) -> dict[str, float]:
    """Return the share of paraphrases, and how good it is to call every pair one: the bar to clear.

    labels: 1, 0, or -1 where it is not known, int64 of shape (pairs,). Without a known label: {}.
    """
    known = labels[labels >= 0]
    if len(known) == 0:
        return {}
    share = float(known.mean())  # which is also the precision; the recall is 1
    f1 = 2 * share / (share + 1)
    figures = {"paraphrases": share, "always_yes_accuracy": share, "always_yes_f1": f1}
    return {name: round(value, 4) for name, value in figures.items()}


def save(tensors: dict, figures: dict, picture: Figure, output_dir: str) -> None:
    """Write tensors and figures by split; `torch.load(path, weights_only=True)` reads tensors."""
    with whole_files(output_dir) as folder:
        torch.save(tensors, folder / TENSORS_FILE)
        (folder / "all_results.json").write_text(json.dumps(figures, indent=2))
        picture.savefig(folder / "lengths.png", dpi=100)


# Plumbing: nothing below is about sentences -------------------------------------------------------


class InputError(Exception):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def refuse(message: str) -> NoReturn:
    """Raise what the parser would print."""
    raise InputError(f"{message}: see --help")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the flags' defaults, and the docstring's commands line by line."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line; bad usage raises InputError."""
    parser = HfArgumentParser(ScriptArguments, description=__doc__, allow_abbrev=False)
    parser.formatter_class, parser.error = HelpFormatter, refuse
    args = parser.parse_args(argv)
    check_positive(args, "batch_size", "preprocessing_num_workers")
    if args.max_seq_length < 5:  # [CLS], two [SEP] and a token of each sentence
        raise InputError(f"--max_seq_length {args.max_seq_length}: give 5 or more")
    if not sys.stderr.isatty():
        disable_progress_bars()
    return args


def check_positive(args: object, *names: str) -> None:
    """Raise InputError if one of these flags has a number that is not above 0."""
    for name in names:
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name} {value}: give a number above 0")


def read_text(path: Path, encoding: str = "utf-8-sig") -> str:
    """Read a text file, with or without a byte order mark; it must hold something.

    Line ends become a newline.
    """
    try:
        encoding = encoding_of(path, encoding)
        text = path.read_text(encoding, errors="surrogateescape").removeprefix("\ufeff")
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    bad = re.search("[\0\ud800-\udfff]", text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        remedy = "name another with --encoding, for instance cp1252"
        raise InputError(f"{path}, line {line} is no text in {encoding}: {remedy}")
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    return text


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


def read_json(path: Path) -> dict:
    """Read a file of settings; one that is missing has none."""
    return json.loads(path.read_bytes()) if path.exists() else {}


def read_label(value: object, labelled: bool) -> object:
    """Return 1, 0 or -1 for what a file holds; in files without labels nothing means -1."""
    text = "" if value is None or value != value else str(value).strip()  # NaN is not itself
    if not text and not labelled:
        return -1
    return {"1": 1, "0": 0, "-1": -1}.get(text, value)


def read_parquet(path: Path, labelled: bool = True) -> Dataset:
    """Read the hub's files of a split, by their numbers; the name may hold a `*`.

    Raises InputError.
    """
    files = sorted(path.parent.glob(path.name), key=number_order)
    names = [glob.escape(str(file)) for file in files]
    try:
        split = Dataset.from_parquet(names, keep_in_memory=True).select_columns(COLUMNS)
        columns = [as_text(split[name]) for name in COLUMNS]
    except (DatasetsError, OSError, ValueError) as error:
        raise InputError(f"cannot read {COLUMNS} from {path}: {error}") from error
    pairs = []
    for sentence1, sentence2, label in zip(*columns, strict=True):
        pairs.append((sentence1, sentence2, read_label(label, labelled)))
    return as_dataset(pairs, str(path))


def number_order(file: Path) -> str:
    """Return a key that sorts train-2 before train-10."""
    return re.sub("[0-9]+", lambda digits: digits[0].zfill(20), file.name)


def as_text(column: Iterable) -> list:
    """Return values with text for bytes: some programs write texts of Parquet so."""
    return [value.decode() if isinstance(value, bytes) else value for value in column]


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


def keep_capitals(tokenizer: PreTrainedTokenizerBase, folder: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder, with capitals if only its vocabulary says that it has them.

    Without the setting do_lower_case (older folders hold vocab.txt alone) the library makes all
    letters small.
    """
    settings = Path(folder, "tokenizer_config.json")
    stated = settings.exists() and b'"do_lower_case"' in settings.read_bytes()
    if stated or not getattr(tokenizer, "do_lower_case", False):
        return tokenizer
    words = [token for token in tokenizer.get_vocab() if not token.startswith(("[", "<"))]
    capitals = sum(word != word.lower() for word in words)
    if capitals <= len(words) / 100:
        return tokenizer
    print("The vocabulary has capitals and no setting do_lower_case: capitals are kept")
    return type(tokenizer).from_pretrained(folder, do_lower_case=False)


def check_vocabulary(folder: str, known: int, expected: int) -> None:
    """Raise InputError if a tokenizer has lost its vocabulary: without it, it loads silently."""
    if not expected / 2 < known <= expected:
        counts = f"the tokenizer knows {known} tokens, the model {expected}"
        raise InputError(f"{folder}: {counts}: is a file missing, or of another model?")


def check_length(max_seq_length: int, limit: int) -> None:
    """Raise InputError if texts may be longer than the model reads."""
    if max_seq_length > limit:
        raise InputError(f"--max_seq_length {max_seq_length}: the model reads {limit} at most")


def check_kind(folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise InputError if a class makes another kind of tokenizer than the folder's file holds.

    A class takes any vocabulary, and most words of another family's become unknown.
    """
    kind = read_json(Path(folder, "tokenizer.json")).get("model", {}).get("type")
    if not kind or not tokenizer.is_fast:
        return
    made = type(tokenizer.backend_tokenizer.model).__name__
    if made != kind:
        found = f"tokenizer.json is {kind}, but {type(tokenizer).__name__} {made}"
        raise InputError(f"{folder}: {found}: correct tokenizer_class in tokenizer_config.json")


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


def draw_lengths(lengths: dict[str, np.ndarray], figures: dict[str, dict[str, float]]) -> Figure:
    """Draw how long the pairs are, and the share of padding in four ways to pad."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    longest = max(values["longest"] for values in figures.values())
    for number, (split, values) in enumerate(figures.items()):
        percent = np.full(values["pairs"], 100 / values["pairs"])
        bins = np.arange(0, longest + 5, 4)
        left.hist(lengths[split], bins, weights=percent, histtype="step", label=split)
        ways = [key for key in values if key.startswith("padding_")]
        padding = {key.removeprefix("padding_"): 100 * values[key] for key in ways}
        places = np.arange(len(padding)) + 0.28 * number
        bars = right.bar(places, padding.values(), width=0.28)
        right.bar_label(bars, fmt="%.1f", fontsize=8)
    left.set(xlabel="tokens of a pair, [CLS] and [SEP] included", ylabel="% of the pairs")
    left.legend()
    right.set(ylabel="% of the positions is padding", xticks=np.arange(len(padding)))
    right.set_xticklabels([way.replace("_", "\n") for way in padding])
    return figure


def summarize(figures: dict[str, dict[str, float]], output_dir: str, smoke: bool = False) -> None:
    """Print the figures, every file and the next command."""
    print(f"{'':<26}", *(f"{name:>12}" for name in figures))
    keys = max(figures.values(), key=len)  # a split without labels has fewer
    for key in keys:
        shown = [f"{column[key]:,}" if key in column else "-" for column in figures.values()]
        print(f"{key:<26}", *(f"{value:>12}" for value in shown))
    print("Files:", *sorted(Path(output_dir).iterdir()), sep="\n  ")
    if smoke:
        print("The vocabulary is a tiny one of these pairs: with a real one all figures differ")
    file = json.dumps(os.path.join(output_dir, TENSORS_FILE))
    split = json.dumps(next(iter(figures)))
    code = f"import torch; print(torch.load({file}, weights_only=True)[{split}])"
    print(f"Next:\n  {shlex.join(['python', '-c', code])}")


# What PyTorch says in its exceptions, and what helps.
REMEDIES = {
    "inline_container": "is the disk full?",
    "can't allocate memory": "give a smaller --max_seq_length",
}
SAMPLE_PAIRS = {
    "train": [
        ("The museum opened its new wing on Friday.", "On Friday the museum opened a new wing.", 1),
        (
            "The museum opened its new wing on Friday.",
            "The museum closed its old wing in March.",
            0,
        ),
        ("Shares of the airline rose 4 percent.", "The airline's shares were up 4 percent.", 1),
        ("Shares of the airline rose 4 percent.", "The airline ordered 40 new planes.", 0),
        (
            "Heavy rain flooded the streets of the town.",
            "Streets in the town were flooded by heavy rain.",
            1,
        ),
        (
            "Heavy rain flooded the streets of the town.",
            "The town will rebuild its oldest street next year.",
            0,
        ),
        (
            'The mayor called the plan "a good start".',
            '"A good start" was what the mayor called the plan.',
            1,
        ),
        ('The mayor called the plan "a good start".', "The mayor did not comment on the plan.", 0),
        ("The team won its third game in a row.", "It was the third straight win for the team.", 1),
        ("The team won its third game in a row.", "The team lost the last game of the season.", 0),
        (
            "Scientists found water below the surface.",
            "Water was found beneath the surface, scientists said.",
            1,
        ),
        (
            "Scientists found water below the surface.",
            "Scientists will study the surface with a new probe.",
            0,
        ),
        (
            "The company will cut 200 jobs this year.",
            "This year, 200 jobs will be cut by the company.",
            1,
        ),
        (
            "The company will cut 200 jobs this year.",
            "The company reported record sales this year.",
            0,
        ),
        ("Two people were hurt in the fire.", "The fire injured two people, police said.", 1),
        (
            "Two people were hurt in the fire.",
            "Police are looking for two people who started the fire.",
            0,
        ),
    ],
    "validation": [
        ("The bridge opened in March.", "In March the bridge was opened.", 1),
        ("The bridge opened in March.", "The bridge will cost 40 percent more.", 0),
        ("Sales rose 4 percent this year.", "This year's sales were up 4 percent.", 1),
        ("Sales rose 4 percent this year.", "The company will open a new museum.", 0),
        ("The storm flooded the old town.", "The old town was flooded by the storm.", 1),
        ("The storm flooded the old town.", "Scientists will study the storm next year.", 0),
        ("The mayor won the vote on Friday.", "On Friday, the vote was won by the mayor.", 1),
        ("The mayor won the vote on Friday.", "The mayor did not comment on the fire.", 0),
    ],
    "test": [
        (
            "Police closed the street after the fire.",
            "After the fire the street was closed by police.",
            -1,
        ),
        ("The airline will cut jobs.", "The airline's planes are new.", -1),
        ("The team lost its last game.", "In its last game the team was beaten.", -1),
        ("The probe found water.", "The probe will start in March.", -1),
    ],
}

if __name__ == "__main__":
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # not every screen can show every character
    try:
        main()
        print(end="", flush=True)
    except KeyboardInterrupt:
        remedy = "the same command starts again; earlier results are as they were"
        print(f"error: interrupted: {remedy}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try it again
        print("error: the output was closed before its end", file=sys.stderr)
        sys.exit(2)
    except (InputError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError):  # PyTorch reports a full disk or memory as it does bugs
            known = [remedy for words, remedy in REMEDIES.items() if words in str(error)]
            if not known:
                raise
            error = f"{error}: {known[0]}"
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
