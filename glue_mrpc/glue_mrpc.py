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
"""Prepare GLUE MRPC for BERT: load pairs of sentences, tokenize them, pad them batch by batch, save the tensors.

python glue_mrpc.py --smoke                                                    # seconds, no download
python glue_mrpc.py                                                            # nyu-mll/glue, bert-base-uncased
python glue_mrpc.py --data_dir MRPC --model_name_or_path bert-base-cased       # your copy of the corpus
"""

import argparse
import io
import json
import os
import random
import re
import shlex
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Features, Value, disable_progress_bars, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from matplotlib.figure import Figure
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import BertTokenizer, DataCollatorWithPadding

SAMPLE_PAIRS = {
    "train": [
        ("The museum opened its new wing on Friday.", "On Friday the museum opened a new wing.", 1),
        ("The museum opened its new wing on Friday.", "The museum closed its old wing in March.", 0),
        ("Shares of the airline rose 4 percent.", "The airline's shares were up 4 percent.", 1),
        ("Shares of the airline rose 4 percent.", "The airline ordered 40 new planes.", 0),
        ("Heavy rain flooded the streets of the town.", "Streets in the town were flooded by heavy rain.", 1),
        ("Heavy rain flooded the streets of the town.", "The town will rebuild its oldest street next year.", 0),
        ('The mayor called the plan "a good start".', '"A good start" was what the mayor called the plan.', 1),
        ('The mayor called the plan "a good start".', "The mayor did not comment on the plan.", 0),
        ("The team won its third game in a row.", "It was the third straight win for the team.", 1),
        ("The team won its third game in a row.", "The team lost the last game of the season.", 0),
        ("Scientists found water below the surface.", "Water was found beneath the surface, scientists said.", 1),
        ("Scientists found water below the surface.", "Scientists will study the surface with a new probe.", 0),
        ("The company will cut 200 jobs this year.", "This year, 200 jobs will be cut by the company.", 1),
        ("The company will cut 200 jobs this year.", "The company reported record sales this year.", 0),
        ("Two people were hurt in the fire.", "The fire injured two people, police said.", 1),
        ("Two people were hurt in the fire.", "Police are looking for two people who started the fire.", 0),
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
        ("Police closed the street after the fire.", "After the fire the street was closed by police.", -1),
        ("The airline will cut jobs.", "The airline's planes are new.", -1),
        ("The team lost its last game.", "In its last game the team was beaten.", -1),
        ("The probe found water.", "The probe will start in March.", -1),
    ],
}
GLUE_FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
ORIGINAL_FILES = {"train": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"}
HUB_FILES = {"train": "train*.parquet", "validation": "validation*.parquet", "test": "test*.parquet"}
FEATURES = Features({"sentence1": Value("string"), "sentence2": Value("string"), "label": Value("int64")})
CHECKPOINT_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
TENSORS_FILE = "glue_mrpc_labled_tensor.pt"
LABELS = {"1": 1, "0": 0, "-1": -1}  # paraphrase, another meaning, not labelled
MARKS = ",.'\"-"
Tensors = dict[str, torch.Tensor]  # "input_ids", "token_type_ids", "attention_mask", "labels"


def fail(message: object, status: int = 2) -> NoReturn:
    """End the program with one `error:` line on stderr and this exit status."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    raise SystemExit(status)


def fetch(name: str, flag: str = "--model_name_or_path", files: tuple = CHECKPOINT_FILES, kind: str = "model") -> str:
    """Return the folder of a checkpoint or data set: `name` itself, or the hub's copy, downloaded or cached."""
    if os.path.isdir(name):
        return name
    try:
        HfApi().repo_info(name, repo_type=kind, timeout=3)  # snapshot_download alone may hang behind a firewall
        return snapshot_download(name, repo_type=kind, allow_patterns=files)
    except (ValueError, *HfHubHTTPError.__bases__) as error:  # OSError and the HTTPError of the hub's HTTP library
        try:
            return snapshot_download(name, repo_type=kind, allow_patterns=files, local_files_only=True)
        except (ValueError, LocalEntryNotFoundError):
            reason = str(error).strip().splitlines()[0]
            fail(f"cannot download {name} ({reason}): try --smoke, which needs no download, or {flag} LOCAL_FOLDER")


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place: complete or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}")
    finally:
        if temporary.exists():
            temporary.unlink()


def check_output_dir(folder: str) -> None:
    """End the program before any work is done if nothing can be written to the folder."""
    nearest = next(path for path in (Path(folder), *Path(folder).absolute().parents) if os.path.exists(path))
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        fail(f"--output_dir {folder}: {nearest} is no folder that can be written: name another one")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults of the flags, and the commands of the description line by line."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; bad usage ends in one line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, formatter_class=HelpFormatter)
    parser.error = fail
    add = parser.add_argument
    add("--smoke", action="store_true", help="use a tiny tokenizer built on the spot: no download, seconds")
    add("--model_name_or_path", default="bert-base-uncased", help="whose tokenizer: hub name or folder")
    add("--data_dir", help="folder with MRPC: the original files, GLUE's TSV files or the hub's Parquet files")
    add("--max_seq_length", type=int, default=128, help="longer pairs are cut to so many tokens")
    add("--batch_size", type=int, default=32, help="pairs that are padded together")
    add("--preprocessing_num_workers", type=int, help="threads that tokenize (all cores)")
    add("--output_dir", default="outputs/glue_mrpc", help="where tensors, picture and figures go")
    add("--seed", type=int, default=42, help="chooses the pair that is shown")
    args = parser.parse_args(argv)
    minima = {"max_seq_length": 5, "batch_size": 1, "preprocessing_num_workers": 1}
    for name, least in minima.items():  # 5: [CLS], two [SEP] and a token of each side
        if getattr(args, name) is not None and getattr(args, name) < least:
            fail(f"--{name} {getattr(args, name)}: give {least} or more")
    if args.preprocessing_num_workers:
        os.environ["RAYON_NUM_THREADS"] = str(args.preprocessing_num_workers)  # the tokenizers' own threads
    check_output_dir(args.output_dir)
    return args


def check_pair(where: str, sentence1: str, sentence2: str, label: int) -> None:
    """End the program if a row is no pair of sentences with a label that MRPC knows; -1 stands for no label."""
    for number, sentence in enumerate((sentence1, sentence2), start=1):
        if not (sentence or "").strip():
            fail(f"{where}: sentence {number} is blank: fill it or leave the row out")
    if label not in LABELS.values():
        fail(f"{where}: found the label {label!r}: give 1 for a paraphrase, 0 for another meaning")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; anything else ends the program."""
    try:
        data = path.read_bytes()
        text, bad = data.decode("utf-8-sig"), data.find(b"\0")
    except UnicodeDecodeError as error:
        bad = error.start
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    if bad >= 0:
        line = data.count(b"\n", 0, bad) + 1
        fail(f"{path}, line {line}: byte {bad} of the file is not text in UTF-8: save the file as UTF-8")
    return text if text.strip() else fail(f"{path}: the file is empty")


def read_tsv(path: Path, labelled: bool) -> Dataset:
    """Read an original or a GLUE file: a header, tabs between the columns, quotes that mean nothing."""
    header, *lines = read_text(path).rstrip("\r\n").replace("\r\n", "\n").split("\n")
    names, rows = header.split("\t"), []
    needed = ["Quality", "#1 String", "#2 String"] if labelled else ["#1 String", "#2 String"]
    if missing := [name for name in needed if name not in names]:
        fail(f"{path}, line 1: no column {missing[0]!r} in {header[:80]!r}: the first line must name the columns")
    if not lines:
        fail(f"{path}: no rows after the header")
    for number, line in enumerate(lines, start=2):
        fields = line.split("\t")
        if len(fields) != len(names):
            fail(f"{path}, line {number}: found {len(fields)} columns, the header has {len(names)}: correct the tabs")
        row = dict(zip(names, fields, strict=True))
        quality = row.get("Quality", "-1")  # GLUE keeps the labels of its test file to itself
        pair = (row["#1 String"], row["#2 String"], LABELS.get(quality, quality))
        check_pair(f"{path}, line {number}", *pair)
        rows.append(dict(zip(FEATURES, pair, strict=True)))
    return Dataset.from_list(rows, FEATURES)


def read_parquet(files: dict[str, list[str]]) -> DatasetDict:
    """Read the Parquet files of the hub's data set: columns sentence1, sentence2, label."""
    disable_progress_bars()
    try:
        splits = load_dataset("parquet", data_files=files).select_columns(list(FEATURES)).cast(FEATURES)
    except (DatasetsError, OSError, ValueError) as error:
        fail(f"cannot read {list(FEATURES)} from {', '.join(chain(*files.values()))}: {error}")
    for name, split in splits.items():
        for number, row in enumerate(zip(*split[:].values(), strict=True), start=1):
            check_pair(f"{', '.join(files[name])}, row {number}", *row)
    return splits


def load_splits(args: argparse.Namespace) -> DatasetDict:
    """Return the splits that there are of train, validation and test: columns sentence1, sentence2 and label."""
    if args.smoke and not args.data_dir:
        splits = {name: [dict(zip(FEATURES, row, strict=True)) for row in rows] for name, rows in SAMPLE_PAIRS.items()}
        return DatasetDict({name: Dataset.from_list(rows, FEATURES) for name, rows in splits.items()})
    folder = Path(args.data_dir or fetch("nyu-mll/glue", "--data_dir", ("mrpc/*.parquet",), "dataset"))
    if not folder.is_dir():
        fail(f"--data_dir {folder}: no such folder: give the folder that holds the files of MRPC")
    for files in (GLUE_FILES, ORIGINAL_FILES):
        if found := {split: folder / name for split, name in files.items() if (folder / name).exists()}:
            return DatasetDict({split: read_tsv(path, split != "test") for split, path in found.items()})
    found = {split: [*folder.glob(f"mrpc/{name}"), *folder.glob(name)] for split, name in HUB_FILES.items()}
    found = {split: sorted(map(str, paths)) for split, paths in found.items() if paths}
    if not found:
        names = ", ".join(chain(GLUE_FILES.values(), ORIGINAL_FILES.values(), HUB_FILES.values()))
        fail(f"--data_dir {folder}: no file of MRPC there: expected some of {names}")
    return read_parquet(found)


def tiny_tokenizer(splits: DatasetDict) -> BertTokenizer:
    """Build a WordPiece vocabulary from at most 1,000 pairs of the first split: seconds, no download."""
    rows, blank = next(iter(splits.values()))[:1000], BertTokenizer()
    texts = [*rows["sentence1"], *rows["sentence2"]]
    letters = sorted(set(blank.backend_tokenizer.normalizer.normalize_str(" ".join(texts))) - {" "})
    pieces = [f"##{letter}" for letter in letters]  # the trainer would number them anew in every run
    trained = blank.train_new_from_iterator(texts, 2000, new_special_tokens=pieces, show_progress=False)
    return BertTokenizer(vocab=trained.get_vocab())


def pretrained_tokenizer(args: argparse.Namespace) -> BertTokenizer:
    """Load the tokenizer of a checkpoint, and make sure that it is the one which its model was trained with."""
    name, folder = args.model_name_or_path, Path(fetch(args.model_name_or_path, files=("*.json", "*.txt")))
    if (folder / "vocab.txt").exists():
        read_text(folder / "vocab.txt")  # the tokenizer would end in a traceback if this were not text
    try:
        tokenizer = BertTokenizer.from_pretrained(folder)
        config = json.loads((folder / "config.json").read_bytes()) if (folder / "config.json").exists() else {}
    except (OSError, ValueError, LookupError, TypeError) as error:
        fail(f"cannot load the tokenizer of {name}: {type(error).__name__}: {error}")
    known, expected = len(tokenizer), config.get("vocab_size", len(tokenizer))
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # what a folder without vocabulary gives
        fail(f"{name}: the tokenizer knows only {known} special tokens: vocab.txt or tokenizer.json is missing")
    if not expected / 2 < known <= expected:
        fail(f"{name}: the tokenizer knows {known} tokens, the model {expected}: give a folder where they fit")
    limit = min(tokenizer.model_max_length, config.get("max_position_embeddings", args.max_seq_length))
    if args.max_seq_length > limit:
        fail(f"--max_seq_length {args.max_seq_length}: {name} reads at most {limit} tokens")
    return tokenizer


def show_tokens(tokenizer: BertTokenizer, pair: dict[str, str]) -> None:
    """Print a single sentence and a pair as ids and as tokens again."""
    sentences = (pair["sentence1"], pair["sentence2"])
    for title, chosen in (("A single sentence", sentences[:1]), ("A pair", sentences)):
        encoded = tokenizer(*chosen)
        print(f"{title}:", " | ".join(chosen))
        print("  input_ids:     ", *encoded["input_ids"])
        print("  tokens:        ", *tokenizer.convert_ids_to_tokens(encoded["input_ids"]))
        print("  token_type_ids:", *encoded["token_type_ids"])


def split_words(sentence: str) -> list[str]:
    """Split where BERT splits anyway: at spaces and around frequent punctuation; the tokenizer finds the rest."""
    for mark in MARKS:
        sentence = sentence.replace(mark, f" {mark} ")
    return sentence.split(" ")


def tokenize_pairs(
    tokenizer: BertTokenizer, sentence1: list[str], sentence2: list[str], max_seq_length: int
) -> dict[str, list[list[int]]]:
    """Tokenize pairs as `[CLS] sentence1 [SEP] sentence2 [SEP]`: three columns, each with a list per pair, not padded.

    The result is that of `tokenizer(sentence1, sentence2, truncation=True, max_length=max_seq_length)`, but sooner:
    WordPiece (Wu et al. 2016, section 4.1) looks at one word at a time, so every distinct word is tokenized once.
    """
    settings = {"truncation": True, "max_length": max_seq_length, "return_token_type_ids": True}
    if not all(re.fullmatch(r"\[\w+\]", token) for token in tokenizer.get_added_vocab()):
        return dict(tokenizer(sentence1, sentence2, **settings))  # other added tokens may reach over several words
    words = [split_words(sentence) for sentence in (*sentence1, *sentence2)]
    distinct, vocabulary = dict.fromkeys(chain.from_iterable(words)), tokenizer.get_vocab()
    whole = (word for word in distinct if word in vocabulary and word.isascii() and word.isalnum() and word.islower())
    ids = {word: [vocabulary[word]] for word in whole}  # WordPiece tries the whole word first
    others, backend = [word for word in distinct if word not in ids], tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    encodings = backend.encode_batch_fast(others, add_special_tokens=False)
    ids.update((word, encoding.ids) for word, encoding in zip(others, encodings, strict=True))
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    pieces = [list(chain.from_iterable(map(ids.__getitem__, sentence))) for sentence in words]
    pairs = list(zip(pieces[: len(sentence1)], pieces[len(sentence1) :], strict=True))
    encoded = {
        "input_ids": [[cls, *first, sep, *second, sep] for first, second in pairs],
        "token_type_ids": [[0] * (len(first) + 2) + [1] * (len(second) + 1) for first, second in pairs],
        "attention_mask": [[1] * (len(first) + len(second) + 3) for first, second in pairs],
    }
    if long := [row for row, tokens in enumerate(encoded["input_ids"]) if len(tokens) > max_seq_length]:
        cut = tokenizer([sentence1[row] for row in long], [sentence2[row] for row in long], **settings)
        for name, column in encoded.items():
            for row, tokens in zip(long, cut[name], strict=True):
                column[row] = tokens
    return encoded


def encode(split: Dataset, tokenizer: BertTokenizer, max_seq_length: int) -> list[dict[str, int | list[int]]]:
    """Return what a collator takes: a dictionary per pair with its `label` and its tokens, not padded."""
    rows = []
    for start in tqdm(range(0, len(split), 10_000), desc="Tokenizing", disable=None, leave=False):
        part = split[start : start + 10_000]
        encoded = tokenize_pairs(tokenizer, part["sentence1"], part["sentence2"], max_seq_length)
        columns = {**encoded, "label": part["label"]}
        rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows


def collate(name: str, rows: list[dict], tokenizer: BertTokenizer, batch_size: int) -> list[Tensors]:
    """Pad batch by batch: int64 tensors of shape (batch, longest pair of the batch), `labels` of shape (batch,)."""
    loader = DataLoader(rows, batch_size=batch_size, collate_fn=DataCollatorWithPadding(tokenizer))
    batches = [dict(batch) for batch in tqdm(loader, desc="Padding", disable=None, leave=False)]
    print(f"{name}: {len(rows):,} pairs in batches of {batch_size}")
    for number, batch in enumerate(batches[:3], start=1):
        print(f"  batch {number}:", ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in batch.items()))
    return batches


def join(batches: list[Tensors], tokenizer: BertTokenizer) -> Tensors:
    """Join batches at the length of the longest: int64 of shape (pairs, longest), `labels` of shape (pairs,)."""
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id, "attention_mask": 0}
    rows = {key: [row for batch in batches for row in batch[key]] for key in batches[0]}
    padded = {key: pad_sequence(rows[key], batch_first=True, padding_value=fill[key]) for key in fill}
    return {**padded, "labels": torch.stack(rows["labels"])}


def save(tensors: dict[str, Tensors], path: Path) -> None:
    """Write `{split: tensors}` as a file that `torch.load(path, weights_only=True)` reads."""
    buffer = io.BytesIO()  # a full disk is an OSError in Python's own writing, and in torch's a RuntimeError
    torch.save(tensors, buffer)
    write_atomically(path, lambda path: path.write_bytes(buffer.getbuffer()))


def measure(lengths: np.ndarray, batch_size: int, max_seq_length: int) -> dict[str, float]:
    """Return how many tokens the pairs of a split have, and what share of all positions four ways to pad waste."""

    def positions(lengths: np.ndarray) -> int:
        batches = np.split(lengths, range(batch_size, len(lengths), batch_size))
        return sum(len(batch) * int(batch.max()) for batch in batches)

    tokens, longest = int(lengths.sum()), int(lengths.max())
    return {
        "pairs": len(lengths),
        "tokens": tokens,
        "mean_length": round(tokens / len(lengths), 2),
        "longest": longest,
        "at_max_seq_length": int((lengths == max_seq_length).sum()),
        "padding_fixed_length": round(1 - tokens / (len(lengths) * max_seq_length), 4),
        "padding_longest_of_split": round(1 - tokens / (len(lengths) * longest), 4),
        "padding_longest_of_batch": round(1 - tokens / positions(lengths), 4),
        "padding_grouped_by_length": round(1 - tokens / positions(np.sort(lengths)), 4),
    }


def draw_lengths(lengths: dict[str, np.ndarray], results: dict[str, dict], args: argparse.Namespace) -> None:
    """Draw how long the pairs are, and what share of the positions is padding in four ways to pad."""
    left, right = Figure(figsize=(10, 4), layout="constrained").subplots(1, 2)
    size, places = args.batch_size, np.arange(4)
    ways = [f"all to {args.max_seq_length}", "longest\nof split", f"longest\nof {size}", f"{size} of\nlike length"]
    for number, (name, tokens) in enumerate(lengths.items()):
        share = np.full(len(tokens), 100 / len(tokens))
        left.hist(tokens, range(0, args.max_seq_length + 5, 4), weights=share, histtype="step", label=name)
        padding = [100 * value for key, value in results[name].items() if key.startswith("padding")]
        bars = right.bar(places + 0.28 * number, padding, width=0.28, label=name)
        right.bar_label(bars, fmt="%.1f", fontsize=8)
    left.set(xlabel="tokens of a pair, [CLS] and [SEP] included", ylabel="% of the pairs")
    right.set(xticks=places + 0.14 * (len(lengths) - 1), xticklabels=ways, ylabel="% of the positions is padding")
    left.legend()
    right.legend()
    write_atomically(Path(args.output_dir, "lengths.png"), lambda path: left.figure.savefig(path, dpi=100))


def report(results: dict[str, object], splits: DatasetDict, output_dir: Path) -> None:
    """Write and print the figures, read the tensors again, name every file and the next command."""
    tensors, figures, picture = (output_dir / name for name in (TENSORS_FILE, "all_results.json", "lengths.png"))
    write_atomically(figures, lambda path: path.write_text(json.dumps(results, indent=2)))
    print(f"{'':<26}", *(f"{name:>12}" for name in splits))
    for key in next(iter(results.values())):
        print(f"{key:<26}", *(f"{results[name][key]:>12,}" for name in splits))
    print(f"Tokenized in {results['tokenize_runtime']} s, everything in {results['runtime']} s.")
    for name, saved in torch.load(tensors, weights_only=True).items():
        print(f"{name}:", ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in saved.items()))
    print("Files:", tensors, figures, picture, sep="\n  ")
    code = f"import torch; print(torch.load({json.dumps(str(tensors))}, weights_only=True)[{json.dumps(name)}])"
    print(f"Next:\n  python -c {shlex.quote(code)}")


def main(argv: list[str] | None = None) -> None:
    """Load, tokenize, pad and save MRPC as the command line says."""
    start = time.perf_counter()
    args = parse_arguments(argv)
    splits = load_splits(args)
    tokenizer = tiny_tokenizer(splits) if args.smoke else pretrained_tokenizer(args)
    show_tokens(tokenizer, random.Random(args.seed).choice(next(iter(splits.values()))))

    tokenizing = time.perf_counter()
    encoded = {name: encode(split, tokenizer, args.max_seq_length) for name, split in splits.items()}
    tokenized = time.perf_counter()
    batches = {name: collate(name, rows, tokenizer, args.batch_size) for name, rows in encoded.items()}
    tensors = {name: join(split, tokenizer) for name, split in batches.items()}
    save(tensors, Path(args.output_dir, TENSORS_FILE))

    lengths = {name: np.array([len(row["input_ids"]) for row in rows]) for name, rows in encoded.items()}
    results = {name: measure(tokens, args.batch_size, args.max_seq_length) for name, tokens in lengths.items()}
    draw_lengths(lengths, results, args)
    runtimes = {"tokenize_runtime": tokenized - tokenizing, "runtime": time.perf_counter() - start}
    results |= {name: round(seconds, 3) for name, seconds in runtimes.items()}
    report(results, splits, Path(args.output_dir))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted: the same command starts again; earlier results are as they were", 130)
