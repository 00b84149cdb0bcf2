# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "datasets>=4.0",
#     "huggingface_hub>=1.5",
#     "matplotlib>=3.10",
#     "pandas[parquet]>=2.3",
#     "torch>=2.11",
#     "tqdm>=4.67",
#     "transformers>=5.10",
# ]
# ///
# SPDX-License-Identifier: MIT
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-28
"""Prepare GLUE MRPC for BERT: tokenize pairs of sentences, pad them batch by batch, save tensors.

python glue_mrpc.py --smoke                                           # seconds, no download
python glue_mrpc.py                                                   # nyu-mll/glue
python glue_mrpc.py --data_dir MRPC --model_name_or_path bert-base-cased

BERT reads a pair as one row of tokens, and the rows of a batch at one length. Of n rows:

    input_ids       (n, longest)  [CLS] sentence1 [SEP] sentence2 [SEP] [PAD] [PAD] ...
    token_type_ids  (n, longest)    0       0       0       1       1     0     0
    attention_mask  (n, longest)    1       1       1       1       1     0     0
    labels          (n,)          1: a paraphrase, 0: another meaning, -1: not known

The share 1 - tokens / (n * longest) is padding, computed for nothing: how much it is depends on
which rows stand together. Whoever calls every pair a paraphrase, as the share p of them is, has
accuracy p and F1 = 2p / (1 + p): the bar to clear.

Read the flags, `main`, then the functions in the order in which it uses them, one plain way of
each thing. "Speed" has one faster way; flags, downloads and pictures come last, under "Plumbing".
"""

import argparse
import codecs
import csv
import gc
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pandas as pd
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets, disable_progress_bars
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from matplotlib.figure import Figure
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    DataCollatorWithPadding,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.hf_argparser import HfArg, HfArgumentParser

COLUMNS = ["sentence1", "sentence2", "label"]
SPLITS = {"train": "train", "dev": "validation", "validation": "validation", "test": "test"}
# Of GLUE, the original corpus, the hub.
FILES = ["{}.tsv", "msr_paraphrase_{}.txt", "{}*.parquet"]
# These in all files, and those in test files.
LABELS = {"1": 1, "0": 0, "-1": -1}
NO_LABELS = {"": -1, "None": -1, "<NA>": -1}
# The published text spells it so.
TENSORS_FILE = "glue_mrpc_labled_tensor.pt"


@dataclass
class ScriptArguments:
    """Flags of this script."""

    smoke: bool = HfArg(default=False, help="Build a tiny tokenizer: no download, seconds.")
    model_name_or_path: str = HfArg(default="bert-base-uncased", help="Whose tokenizer.")
    data_dir: str | None = HfArg(default=None, help="Folder with MRPC; default: the hub's.")
    encoding: str = HfArg(default="utf-8-sig", help="Of text files: cp1252 for Western Windows.")
    max_seq_length: int = HfArg(default=128, help="Longer pairs are cut to so many tokens.")
    batch_size: int = HfArg(default=32, help="Pairs that are padded together.")
    preprocessing_num_workers: int = HfArg(default=0, help="Processes that tokenize; 0: this one.")
    output_dir: str = HfArg(default="outputs/glue_mrpc", help="Where the results go.")
    seed: int = HfArg(default=42, help="Which pair is shown.")


def main(argv: list[str] | None = None) -> None:
    """Load, tokenize, pad and save MRPC, and say what the padding costs."""
    args = parse_arguments(argv)
    splits = load_splits(args.data_dir, args.smoke, args.encoding)
    pairs = concatenate_datasets([*splits.values()])
    if args.smoke:
        tokenizer = tiny_tokenizer(pairs)
    else:
        tokenizer = pretrained_tokenizer(args.model_name_or_path)
    show_tokens(tokenizer, pairs.shuffle(seed=args.seed)[0])
    tensors, figures = {}, {}
    workers = args.preprocessing_num_workers
    for name, split in splits.items():
        tokenized = tokenize_pairs(split, tokenizer, args.max_seq_length, workers)
        show_cut_and_unknown(name, tokenized, tokenizer, args.max_seq_length)
        batches = collate(tokenized, tokenizer, args.batch_size)
        shapes = {key: tuple(tensor.shape) for key, tensor in batches[0].items()}
        print(f"{name}: {len(batches)} batches, the first: {shapes}")
        tensors[name] = join(batches, tokenizer)
        figures[name] = measure(tensors[name], args.batch_size, args.max_seq_length)
    save(tensors, figures, draw_lengths(tensors, figures), args.output_dir)
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
        data_dir = download("nyu-mll/glue", ["mrpc/*.parquet"], "dataset") + "/mrpc"
    splits = DatasetDict()
    # The first kind of files that is there.
    for pattern in FILES:
        for name, split in SPLITS.items():
            parts, found = [], Path(data_dir).glob(pattern.format(name))
            # 2 before 10.
            for path in sorted(found, key=lambda path: (len(path.name), path.name)):
                if path.suffix == ".parquet":
                    parts.append(read_parquet(path, split != "test"))
                else:
                    parts.append(read_tsv(path, split != "test", encoding))
            if parts:
                splits[split] = concatenate_datasets(parts)
        if splits:
            return splits
    raise InputError(f"--data_dir {data_dir}: no file of MRPC there, such as train.tsv")


def read_tsv(path: Path, labelled: bool = True, encoding: str = "utf-8-sig") -> Dataset:
    """Read an original or a GLUE file: a header, tabs between the columns, plain quotes.

    A CSV reader with its usual quoting would join rows. But where all quotes are those of a table
    that Excel has saved, they are taken off, and a line says so. Raises InputError with the lines.
    """
    try:
        text = path.read_text(encoding_of(path, encoding))
    except UnicodeError as error:
        raise InputError(f"{path}: {error}: give --encoding cp1252, or another") from error
    lines = text.rstrip("\n").split("\n")
    rows = [line.split("\t") for line in lines]
    quoted = [field for row in rows for field in row if '"' in field]
    if quoted and all(re.fullmatch('"([^"]|"")*"', field) for field in quoted):
        print(f"{path}: read without the quotes that Excel has added")
        rows = list(csv.reader(lines, delimiter="\t"))
    header = rows[0]
    for name in ("#1 String", "#2 String", "Quality"):
        if name not in header and (labelled or name != "Quality"):
            raise InputError(f"{path}, line 1: no column {name!r} in {lines[0][:80]!r}")
    faulty = [number for number, row in enumerate(rows, 1) if len(row) != len(header)]
    if faulty:
        raise InputError(f"{path}, lines {faulty[:10]}: not {len(header)} columns as in the header")
    pairs = []
    for fields in rows[1:]:
        row = dict(zip(header, fields, strict=True))
        pairs.append((row["#1 String"], row["#2 String"], row.get("Quality", "")))
    return as_dataset(pairs, labelled, f"{path}, lines", start=2)


def as_dataset(
    pairs: list[tuple], labelled: bool = True, where: str = "rows", start: int = 1
) -> Dataset:
    """Return pairs with their labels as a dataset: sentence1, sentence2 (str) and label (int).

    A pair: two sentences and a label, a number or text as files have it. Labels: 1 for a
    paraphrase, 0 for another meaning, -1 for not known, which in data that are not `labelled` may
    also be nothing. Raises InputError with the numbers of wrong rows, from `start` on, after
    `where`.
    """
    labels = LABELS if labelled else LABELS | NO_LABELS
    rows, faulty = [], []
    for number, (*sentences, label) in enumerate(pairs, start):
        texts = [text for text in sentences if isinstance(text, str) and text.strip()]
        name = str(label).strip()
        if len(texts) == 2 and name in labels:
            rows.append((*texts, labels[name]))
        else:
            faulty.append(number)
    if not pairs:
        raise InputError(f"{where} {start}: no rows")
    if faulty:
        found = f"{len(faulty)} of {len(pairs)} lack a sentence, or 1 or 0 as label"
        first = " | ".join(map(str, pairs[faulty[0] - start]))
        raise InputError(f"{where} {faulty[:10]}: {found}; the first: {first:.200}")
    return Dataset.from_dict(dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)))


def tiny_tokenizer(pairs: Dataset) -> BertTokenizer:
    """For --smoke: a vocabulary of all words, and of all letters, alone and within words."""
    normalizer = BertTokenizer().backend_tokenizer.normalizer
    text = normalizer.normalize_str(" ".join([*pairs["sentence1"], *pairs["sentence2"]]))
    letters = set(text) - {" "}
    pieces = {f"##{letter}" for letter in letters}
    words = re.findall(r"\w+", text)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *sorted(letters.union(pieces, words))]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})


def pretrained_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer from a folder or the hub: BERT's or another one that pads.

    A vocabulary with capitals keeps them: from vocab.txt alone, as older folders have it, the
    library would make all letters small. Raises InputError for a blank one, which the library
    takes: without its vocabulary `BertTokenizer` comes up with 5 tokens.
    """
    # No weights.
    folder = download(name, ["*.json", "*.txt", "*.model"])
    try:
        settings, _ = PreTrainedConfig.get_config_dict(folder)
        # A folder that does not say whose it is has BERT's.
        config = None if "model_type" in settings else BertConfig()
        options = {"config": config, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        if sum(map(str.istitle, tokenizer.get_vocab())) > len(tokenizer) / 100:
            tokenizer = AutoTokenizer.from_pretrained(folder, do_lower_case=False, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the tokenizer of {name}: {error}") from error
    known = len(tokenizer)
    size = settings.get("vocab_size", known)
    if not max(size / 2, len(tokenizer.all_special_tokens)) < known <= size:
        raise InputError(f"{name}: {known} tokens for a model of {size}: is a file missing?")
    if tokenizer.pad_token is None:
        raise InputError(f"{name}: its tokenizer cannot pad")
    return tokenizer


def show_tokens(tokenizer: PreTrainedTokenizerBase, pair: dict[str, str]) -> None:
    """Print a single sentence and a pair as ids and as tokens again."""
    sentences = (pair["sentence1"], pair["sentence2"])
    for title, chosen in (("A single sentence", sentences[:1]), ("A pair", sentences)):
        encoded = tokenizer(*chosen, split_special_tokens=True)
        print(f"{title}:", " | ".join(chosen))
        print("  tokens:        ", *tokenizer.convert_ids_to_tokens(encoded["input_ids"]))
        for key, ids in encoded.items():
            print(f"  {key + ':':<15}", *ids)


def tokenize_pairs(
    split: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int = 128,
    num_proc: int = 0,
) -> Dataset:
    """Tokenize pairs as `[CLS] sentence1 [SEP] sentence2 [SEP]`, not padded.

    The columns sentence1 and sentence2 give way to input_ids, token_type_ids (for a tokenizer that
    has them) and attention_mask, lists of integers; from longer pairs tokens are cut, of the longer
    sentence first. A [SEP] that stands in a sentence is text.
    """

    def tokenize(rows: dict[str, list]) -> dict[str, list]:
        options = {"truncation": True, "max_length": max_seq_length, "split_special_tokens": True}
        return tokenizer(rows["sentence1"], rows["sentence2"], **options)

    # The library would make the fingerprint by pickling the tokenizer, and lose a Ctrl-C meanwhile.
    options = {"num_proc": max(num_proc, 0) or None, "new_fingerprint": uuid4().hex}
    return split.map(tokenize, batched=True, remove_columns=COLUMNS[:2], **options)


def show_cut_and_unknown(
    title: str, tokenized: Dataset, tokenizer: PreTrainedTokenizerBase, max_seq_length: int
) -> None:
    """Print how many pairs may be cut and how many tokens are unknown: no tensor shows it."""
    rows = tokenized["input_ids"][:]
    tokens = sum(map(len, rows))
    full = sum(len(ids) == max_seq_length for ids in rows)
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in rows)
    if full:
        print(
            f"{title}: {full:,} of {len(rows):,} pairs fill --max_seq_length: longer ones are cut"
        )
    if unknown:
        print(f"{title}: {unknown:,} of {tokens:,} tokens ({unknown / tokens:.1%}) are unknown")


def collate(
    split: Dataset, tokenizer: PreTrainedTokenizerBase, batch_size: int = 32
) -> list[dict[str, torch.Tensor]]:
    """Pad batch by batch, each to its longest pair: what a training loop is given.

    A batch: input_ids, token_type_ids and attention_mask, int64 of shape (batch, longest pair), and
    labels, int64 of shape (batch,).
    """
    collator = DataCollatorWithPadding(tokenizer)
    loader = DataLoader(split, batch_size=batch_size, collate_fn=collator)
    return list(tqdm(loader, desc="Padding", disable=None, leave=False))


def measure(
    tensors: dict[str, torch.Tensor], batch_size: int, max_seq_length: int
) -> dict[str, float]:
    """Return a split's numbers: its pairs, tokens and padding in four ways to pad, and the bar.

    `labelled`: how many pairs have a label that is known. The bar: how good it is to call every
    pair a paraphrase, among these.
    """
    lengths = tensors["attention_mask"].sum(dim=1)  # (pairs,)
    known = tensors["labels"][tensors["labels"] >= 0]
    pairs = len(lengths)
    tokens = lengths.sum().item()
    figures = {
        "pairs": pairs,
        "labelled": len(known),
        "tokens": tokens,
        "mean_length": tokens / pairs,
        "longest": lengths.max().item(),
        "padding_fixed_length": 1 - tokens / (pairs * max_seq_length),
        "padding_longest_of_split": padding(lengths, pairs),
        "padding_longest_of_batch": padding(lengths, batch_size),
        # The whole split in the order of length: about the least padding that there can be. A
        # training that shuffles, and groups some batches at a time, has a little more.
        "padding_grouped_by_length": padding(lengths.sort().values, batch_size),
    }
    if len(known):
        # It is the precision, too, and the recall is 1.
        share = known.double().mean().item()
        figures |= {"always_yes_accuracy": share, "always_yes_f1": 2 * share / (share + 1)}
    return {name: round(value, 4) for name, value in figures.items()}


def padding(lengths: torch.Tensor, batch_size: int) -> float:
    """Return the share of padding in batches that are each padded to their longest row."""
    positions = sum(len(batch) * batch.max() for batch in lengths.split(batch_size))
    return 1 - (lengths.sum() / positions).item()


def save(tensors: dict, figures: dict, picture: Figure, output_dir: str) -> None:
    """Write tensors and figures by split; `torch.load(path, weights_only=True)` reads tensors."""
    with whole_files(output_dir) as folder:
        torch.save(tensors, folder / TENSORS_FILE)
        (folder / "all_results.json").write_text(json.dumps(figures, indent=2))
        picture.savefig(folder / "lengths.png", dpi=100)


# Speed: the same, faster --------------------------------------------------------------------------


def join(
    batches: list[dict[str, torch.Tensor]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """Join batches into one tensor a key, for the file: int64 (pairs, longest), labels (pairs,).

    Equals `collate(split, tokenizer, batch_size=len(split))[0]` in a tenth of the time.
    """
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    options = {"batch_first": True, "padding_side": tokenizer.padding_side}
    tensors = {}
    for key in batches[0]:
        rows = [row for batch in batches for row in batch[key]]
        if key == "labels":
            tensors[key] = torch.stack(rows)
        else:
            tensors[key] = pad_sequence(rows, padding_value=fill.get(key, 0), **options)
    return tensors


# Plumbing: nothing below is about sentences -------------------------------------------------------


class InputError(ValueError):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def parse_arguments(argv: list[str] | None) -> ScriptArguments:
    """Parse and check the command line; bad usage raises InputError."""
    options = {"usage": f"%(prog)s [flags]\n\n{__doc__}", "allow_abbrev": False}
    parser = HfArgumentParser(ScriptArguments, exit_on_error=False, **options)
    try:
        (args,) = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
        codecs.lookup(args.encoding)
    except (argparse.ArgumentError, LookupError, ValueError) as error:
        raise InputError(f"{error}: see --help") from error
    # [CLS], [SEP] twice, and a token of each sentence.
    if args.max_seq_length < 5 or args.batch_size < 1:
        raise InputError("--max_seq_length is at least 5 and --batch_size 1")
    if not sys.stderr.isatty():
        disable_progress_bars()
    return args


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


def read_parquet(path: Path, labelled: bool = True) -> Dataset:
    """Read a file of the hub; texts may be bytes, as some programs write them."""
    try:
        # 1.0, as gaps in a column make of 1, is 1.
        table = pd.read_parquet(path, columns=COLUMNS).convert_dtypes()
        table = table.map(lambda cell: cell.decode() if isinstance(cell, bytes) else cell)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {COLUMNS} from {path}: {error}") from error
    return as_dataset([*table.itertuples(index=False, name=None)], labelled, f"{path}, rows")


# What the hub's client and its HTTP library raise.
HUB_ERRORS = HfHubHTTPError.__bases__


def download(name: str, files: Sequence[str], repo_type: str = "model") -> str:
    """Return a folder: `name` itself, or the hub's copy of these files, or else the cache's."""
    if os.path.isdir(name):
        return name
    unreachable = None
    try:
        # The call below has no limit of time.
        HfApi().repo_info(name, repo_type=repo_type, timeout=10)
    except (ImportError, ValueError, *HUB_ERRORS) as error:
        unreachable = error
    options = {"allow_patterns": files, "local_files_only": unreachable is not None}
    # Sub-folders hold other formats.
    options["ignore_patterns"] = "*/*" if repo_type == "model" else None
    try:
        folder = snapshot_download(name, repo_type=repo_type, **options)
    except (RuntimeError, ValueError, *HUB_ERRORS) as error:
        remedy = "try hf auth login, HF_HUB_DISABLE_XET=1, --smoke or a local folder"
        raise InputError(f"cannot download {name}: {unreachable or error}: {remedy}") from error
    # Closes the library's progress bars, or they are drawn over later lines.
    gc.collect()
    return folder


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


def draw_lengths(tensors: dict, figures: dict[str, dict[str, float]]) -> Figure:
    """Draw how long the pairs are, and the share of padding in four ways to pad."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for split, tensor in tensors.items():
        left.ecdf(tensor["attention_mask"].sum(dim=1), label=split)
    left.set(xlabel="tokens", ylabel="share of the pairs that have at most so many")
    left.legend(loc="lower right")
    # (ways, splits)
    shares = 100 * pd.DataFrame(figures).filter(like="padding_", axis="index")
    right.plot(shares, shares.index, "o", label=[*figures])
    right.set(xlabel="% of the positions is padding", xlim=(0, 100))
    right.invert_yaxis()
    right.legend()
    return figure


def summarize(figures: dict[str, dict[str, float]], output_dir: str, smoke: bool = False) -> None:
    """Print the figures, every file and the next command."""
    # A split may lack labels.
    print(pd.DataFrame(figures).to_string(float_format="{:,.10g}".format, na_rep="-"))
    print("Files:", *sorted(Path(output_dir).iterdir()), sep="\n  ")
    if smoke:
        print("The vocabulary is a tiny one of these pairs: with a real one all figures differ")
    file = json.dumps(os.path.join(output_dir, TENSORS_FILE))
    split = next(iter(figures))
    code = f'import torch; print(torch.load({file}, weights_only=True)["{split}"])'
    print(f"Next:\n  {shlex.join(['python', '-c', code])}")


# What PyTorch says in its exceptions, and what helps.
REMEDIES = {
    "inline_container": "is the disk full?",
    "allocate memory": "give a smaller --max_seq_length",
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
    # Or the hub's storage, out of reach, is tried again for minutes.
    os.environ.setdefault("HF_XET_CLIENT_RETRY_BASE_DELAY", "300ms")
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # not every screen can show every character
    try:
        main()
        print(end="", flush=True)
    except KeyboardInterrupt:
        print("error: interrupted: the same command starts again", file=sys.stderr)
        sys.exit(130)
    except (InputError, ImportError, RuntimeError, *HUB_ERRORS) as error:
        found = str(error) if isinstance(error, RuntimeError) else ""
        remedies = [remedy for text, remedy in REMEDIES.items() if text in found]
        if isinstance(error, RuntimeError) and not remedies:
            raise  # a bug
        print("error:", " ".join(str(error).split()), *remedies[:1], file=sys.stderr)
        sys.exit(2)
