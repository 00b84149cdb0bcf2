# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate>=1.10",
#     "filelock>=3.16",
#     "huggingface_hub>=1.5",
#     "matplotlib>=3.10",
#     "numpy>=2.1",
#     "pandas[parquet]>=2.3",
#     "safetensors>=0.6",
#     "scikit-learn>=1.6",
#     "scipy>=1.14",
#     "torch>=2.11",
#     "tqdm>=4.67",
#     "transformers>=5.10",
# ]
# ///
# SPDX-License-Identifier: MIT
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-27
"""Fine-tune BERT for sequence classification, on the built-in sentences or on your own texts.

python bert_finetune.py --smoke                                       # seconds, no download
python bert_finetune.py --train_file train.csv --validation_file validation.csv
python bert_finetune.py --do_predict --test_file new.csv --model_name_or_path outputs/bert_finetune

BERT has learned language by guessing masked words. A new linear layer on its vector of the first
token, [CLS], gives a score per class; cross-entropy with the labels trains that layer and all of
BERT. Read the recipe, `main`, then its parts: data, model, training, results. Reading files,
parsing flags and reporting come last, under "Plumbing".
"""

import argparse
import codecs
import csv
import ctypes
import difflib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, NoReturn

import huggingface_hub
import numpy as np
import pandas as pd
import torch
import transformers
from accelerate.utils.memory import should_reduce_batch_size
from filelock import FileLock
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
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
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, classification_report, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import Dataset, Sampler, Subset, default_collate
from tqdm import trange
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
)
from transformers.hf_argparser import HfArg
from transformers.integrations import get_reporting_integration_callbacks
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask


@dataclass
class ScriptArguments:
    """Flags of this script; every flag of `transformers.TrainingArguments` works beside them."""

    smoke: bool = HfArg(default=False, help="Train a tiny model: no download, seconds.")
    model_name_or_path: str = HfArg(default="bert-base-uncased", help="Hub name or folder.")
    train_file: str | None = HfArg(default=None, help="CSV, TSV, Excel, JSON lines or Parquet.")
    validation_file: str | None = HfArg(default=None, help="Rows to evaluate on.")
    validation_split_percentage: int = HfArg(
        default=20, help="Without a validation file: its share of the training file."
    )
    test_file: str | None = HfArg(default=None, help="Rows to predict; labels may be missing.")
    encoding: str = HfArg(
        default="utf-8-sig", help="Of text files: cp1252 for Excel's and Word's in Western Europe."
    )
    column_names: list[str] | None = HfArg(default=None, help="For files without a header row.")
    text_column: str = HfArg(default="text", help="Column with the text.")
    text_pair_column: str | None = HfArg(default=None, help="Column with a pair's second text.")
    label_column: str = HfArg(default="label", help="Column with the label: a string or number.")
    max_seq_length: int = HfArg(default=128, help="Longer texts are cut to so many tokens.")
    max_train_samples: int | None = HfArg(default=None, help="Train on the first rows only.")
    early_stopping_patience: int | None = HfArg(
        default=None, help="Stop after so many evaluations without a better one."
    )
    skip_blank_rows: bool = HfArg(default=False, help="Leave out rows without text or label.")
    class_weights: Literal["balanced"] | None = HfArg(
        default=None, help="balanced: the fewer rows a class has, the more each counts."
    )
    baseline: bool = HfArg(default=True, help="Score TF-IDF with logistic regression, too.")


@dataclass
class FineTuningArguments(transformers.TrainingArguments):
    """The recipe: `TrainingArguments` with defaults for fine-tuning BERT."""

    output_dir: str = "outputs/bert_finetune"
    num_train_epochs: float | None = None  # by the number of rows: see `choose_schedule`
    per_device_train_batch_size: int | None = None
    per_device_eval_batch_size: int = 64
    learning_rate: float = 5e-5
    warmup_steps: float = 0.1
    logging_steps: float = 0.05
    logging_nan_inf_filter: bool = False  # it hides a loss of NaN, and lets a GPU wait every step
    save_strategy: str = "epoch"
    save_total_limit: int = 1
    eval_strategy: str = "epoch"
    load_best_model_at_end: bool = True
    metric_for_best_model: Literal["accuracy", "f1_macro", "loss"] = "accuracy"
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = "group_by_length"


def main(argv: list[str] | None = None) -> None:
    """Fine-tune, evaluate and predict: all that there are rows for, or what --do_... chooses."""
    args, training_args = parse_arguments(argv)
    prepare(training_args)
    tables = load_splits(args, training_args)
    if args.smoke:
        tokenizer, model = tiny(tables["train"], args.max_seq_length)
    else:
        tokenizer, model = pretrained(args.model_name_or_path, class_names(tables.get("train")))
    check_length(args.max_seq_length, model.config.max_position_embeddings)
    datasets = build_datasets(tables, tokenizer, model.config.label2id, args.max_seq_length)
    options = (args.early_stopping_patience, args.class_weights)
    trainer = build_trainer(model, tokenizer, training_args, datasets, *options)
    metrics = {}
    if "train" in datasets:
        metrics |= train(trainer)
        args.model_name_or_path = training_args.output_dir
    if "validation" in datasets:
        metrics |= evaluate(trainer, datasets["validation"], tables["validation"]["text"])
        if args.baseline and "train" in tables:
            metrics |= compare_with_baseline(tables, metrics["eval_accuracy"])
    if "test" in datasets:
        metrics |= write_predictions(trainer, datasets["test"], tables["test"])
    if trainer.is_world_process_zero():
        report(metrics, training_args.output_dir, next_command(args), args.model_name_or_path)


def load_splits(args: ScriptArguments, training_args: FineTuningArguments) -> dict:
    """Return the tables `train`, `validation` and `test` that are needed: own files or the sample.

    --do_train, --do_eval and --do_predict choose; without them it is all that there is.
    """
    files = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
    steps = (training_args.do_train, training_args.do_eval, training_args.do_predict)
    chosen = [split for split, step in zip(files, steps, strict=True) if step]
    if any(files.values()):
        tables = {split: load_table(path, args, split) for split, path in files.items() if path}
    else:
        columns = ["text", "label"]
        tables = {split: pd.DataFrame(rows, columns=columns) for split, rows in SAMPLE.items()}
    if "train" in tables:
        tables["train"] = tables["train"].head(args.max_train_samples)
    measured = not chosen or {"train", "validation"} <= set(chosen)
    if args.train_file and not args.validation_file and measured:
        percentage = args.validation_split_percentage
        tables["train"], held_out = hold_out(tables["train"], percentage, training_args.seed)
        if len(held_out):
            tables["validation"] = held_out
    for split in chosen or ["train"]:
        if split not in tables:
            raise InputError(f"no {split} file: give --{split}_file, or choose with --do_...")
    tables = {split: tables[split] for split in files if split in (chosen or tables)}
    if args.smoke and "train" not in tables:
        raise InputError("--smoke builds a model to train: leave it out to use a saved one")
    report_leaks(tables)
    return tables


def hold_out(
    table: pd.DataFrame, percentage: int = 20, seed: int = 42
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to train on, and a share of each class to validate with, drawn by the seed.

    Rows of one text stand on one side, and of every class at least one text is trained on.
    """
    texts = pd.MultiIndex.from_frame(table.drop(columns="label"))
    unique = table[~texts.duplicated()].sample(frac=1, random_state=seed)
    classes = unique.groupby("label")["label"]
    sizes = classes.transform("size")
    wanted = (sizes * percentage / 100).round().clip(upper=sizes - 1)
    chosen = unique[classes.cumcount() < wanted]
    held_out = texts.isin(pd.MultiIndex.from_frame(chosen.drop(columns="label")))
    found = f"{held_out.sum():,} of {len(table):,} training rows are kept to validate with"
    print(f"{found} (--validation_split_percentage {percentage})")
    return table[~held_out].reset_index(drop=True), table[held_out].reset_index(drop=True)


def report_leaks(tables: dict[str, pd.DataFrame]) -> None:
    """Print how many rows of validation and test stand in training, too: they show no quality."""
    if "train" not in tables:
        return
    known = tables["train"].drop(columns="label").drop_duplicates()
    for split in ("validation", "test"):
        rows = tables.get(split, known[:0]).filter(known.columns)
        found = rows.merge(known, how="left", indicator=True)["_merge"]
        leaks = np.flatnonzero(found == "both")
        if len(leaks):
            share = f"{len(leaks):,} of {len(rows):,} rows"
            print(f"{split}: {share} also stand in training, the first is row {leaks[0] + 1}")


class TextClassificationDataset(Dataset):
    """Texts, or pairs of texts, as tensors of exactly `max_seq_length` tokens, padded or cut.

    Item: `input_ids`, `token_type_ids` and `attention_mask`, int64 of shape (max_seq_length,), and
    `labels`, int64 of shape (), where labels (numbers of classes) are given. Texts are tokenized
    once and kept without padding. `lengths`: tokens of each row before padding, int64 (rows,);
    `cut`: how many rows were longer; `unknown`: the share of tokens that the tokenizer lacks.
    Raises InputError if no text fits in.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: BertTokenizer,
        text_pairs: Sequence[str] | None = None,
        labels: Sequence[int] | None = None,
        max_seq_length: int = 128,
    ):
        self.pad_token_id, self.max_seq_length = tokenizer.pad_token_id, max_seq_length
        self.labels = None if labels is None else torch.tensor(labels, dtype=torch.int64)
        special_tokens = tokenizer.num_special_tokens_to_add(pair=text_pairs is not None)
        if max_seq_length <= special_tokens:
            raise InputError(f"--max_seq_length {max_seq_length} leaves no room for text")
        self.cut, unknown = 0, 0
        self.input_ids, self.token_type_ids = [], []  # arrays take less memory than lists of int
        for start in trange(0, len(texts), 1000, desc="Tokenizing", disable=None, leave=False):
            rows = slice(start, start + 1000)
            pairs = None if text_pairs is None else list(text_pairs[rows])
            options = {"truncation": True, "max_length": max_seq_length}
            options["split_special_tokens"] = True  # "[SEP]" in a text is text
            options["return_token_type_ids"] = True  # BERT reads them, whatever its tokenizer is
            encoded = tokenizer(list(texts[rows]), pairs, **options)
            self.cut += sum(bool(row.overflowing) for row in encoded.encodings)
            self.input_ids += [np.array(ids, np.int32) for ids in encoded["input_ids"]]
            self.token_type_ids += [np.array(ids, np.int8) for ids in encoded["token_type_ids"]]
        for ids in self.input_ids:
            unknown += np.count_nonzero(ids == tokenizer.unk_token_id)
        self.lengths = torch.tensor([len(ids) for ids in self.input_ids])
        self.unknown = unknown / max(1, int(self.lengths.sum()))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        input_ids = torch.from_numpy(self.input_ids[index]).long()
        token_type_ids = torch.from_numpy(self.token_type_ids[index]).long()
        padding = (0, self.max_seq_length - len(input_ids))
        item = {
            "input_ids": pad(input_ids, padding, value=self.pad_token_id),
            "token_type_ids": pad(token_type_ids, padding),
            "attention_mask": pad(torch.ones_like(input_ids), padding),
        }
        if self.labels is not None:
            item["labels"] = self.labels[index]
        return item


NOT_LABELLED = {"", "-1"}  # in test files


def build_datasets(
    tables: dict[str, pd.DataFrame], tokenizer: BertTokenizer, label2id: dict, max_seq_length: int
) -> dict[str, TextClassificationDataset]:
    """Return the dataset of each table; its columns are `text` and, if given, `text_pair`, `label`.

    It has labels if every row has one. Test rows may lack them: blank, or -1 where no class has
    that name. Raises InputError if a row has a label that is not in `label2id`.
    """
    datasets = {}
    for split, table in tables.items():
        labels = list(table.get("label", []))
        unknown = set(labels) - set(label2id)
        if split == "test":
            unknown -= NOT_LABELLED
        if unknown:
            known = f"the model knows {list(label2id)}"
            raise InputError(f"{split} rows: unknown labels {sorted(unknown)}: {known}")
        numbers = [label2id.get(label) for label in labels]
        datasets[split] = TextClassificationDataset(
            table["text"],
            tokenizer,
            text_pairs=table.get("text_pair"),
            labels=numbers if numbers and None not in numbers else None,
            max_seq_length=max_seq_length,
        )
        rows, cut = len(table), datasets[split].cut
        print(f"{split}: {rows:,} rows, {cut:,} of them cut to {max_seq_length} tokens")
        unknown = datasets[split].unknown
        if unknown > 0.05:
            print(f"warning: {split}: {unknown:.0%} of the tokens are unknown to this model")
    return datasets


def cut_padding(
    items: list[dict[str, torch.Tensor]], multiple_of: int = 1
) -> dict[str, torch.Tensor]:
    """Collate a batch and cut it to its longest row: the same loss for a fraction of the work.

    `multiple_of`: cut to such a length, so that few shapes come to a model that is compiled.
    """
    batch = default_collate(items)  # (batch, max_seq_length), and labels (batch,)
    longest = int(batch["attention_mask"].sum(dim=1).max())
    longest += -longest % multiple_of
    labels = {"labels": batch.pop("labels")} if "labels" in batch else {}
    return {name: tensor[:, :longest] for name, tensor in batch.items()} | labels


def class_names(table: pd.DataFrame | None) -> list[str] | None:
    """Return the labels of the training rows, sorted, numbers by their size.

    Without rows the model keeps its classes.
    """
    if table is None:
        return None
    classes = sorted(table["label"].unique())
    if all(re.fullmatch(r"-?\d+", label) for label in classes):
        classes.sort(key=int)
    if len(classes) < 2:
        raise InputError(f"every training row has the label {classes[0]!r}: give two classes")
    numbers = pd.to_numeric(pd.Series(classes), errors="coerce")
    if len(classes) > 10 and numbers.notna().all() and (numbers % 1 != 0).any():
        print(f"Are these {len(classes):,} labels a measure? Here each number is a class")
    return classes


def pretrained(
    name: str, classes: list[str] | None = None
) -> tuple[BertTokenizer, BertForSequenceClassification]:
    """Load a checkpoint from a folder or the hub, with an output for each of the classes.

    Without classes it keeps its own, and must have been fine-tuned. Raises InputError.
    """
    folder = fetch(name, ["bert"])
    try:
        config = BertConfig.from_pretrained(folder)
        own_classes = [str(label) for _, label in sorted(config.id2label.items())]
        if classes is None and not has_trained_head(config):
            raise InputError(f"{name} has no trained classification head for single labels")
        same = classes is None or set(classes) == set(own_classes)
        if has_trained_head(config) and not same:
            print(f"A new classification head: the {len(own_classes)} classes of {name} are others")
        set_classes(config, own_classes if same else classes)
        tokenizer = load_tokenizer(folder)
        options = {"dtype": torch.float32, "use_safetensors": True, "ignore_mismatched_sizes": True}
        model, loading = BertForSequenceClassification.from_pretrained(
            folder, config=config, output_loading_info=True, **options
        )
    except LOADING_ERRORS as error:
        raise InputError(f"cannot load {name}: {error}") from error
    new = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    lost = [key for key in new if classes is None or not key.startswith(NEW_WEIGHTS)]
    if lost:
        raise InputError(f"{name} is not a whole BERT: {len(lost)} weights are missing: {lost[0]}")
    check_vocabulary(folder, len(tokenizer), config.vocab_size)
    return tokenizer, model


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer that a folder names, else `BertTokenizer`.

    The library's class would read any folder, and take most words of another family's for unknown.
    """
    named = "BertTokenizer"
    for file in ("config.json", "tokenizer_config.json"):
        path = Path(folder, file)
        settings = json.loads(path.read_bytes()) if path.exists() else {}
        named = settings.get("tokenizer_class") or named
    if named.removesuffix("Fast") == "BertTokenizer":
        return keep_capitals(BertTokenizer.from_pretrained(folder), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise InputError(f"{folder}: its {named} cannot tell which texts are cut")
    return tokenizer


def has_trained_head(config: BertConfig) -> bool:
    """Return whether a checkpoint has learned to choose one class of several."""
    trained = "BertForSequenceClassification" in (config.architectures or [])
    return trained and config.problem_type in (None, "single_label_classification")


def set_classes(config: BertConfig, classes: list[str]) -> None:
    """Give the configuration an output per class."""
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in config.id2label.items()}
    config.problem_type = "single_label_classification"


def tiny(
    table: pd.DataFrame, max_seq_length: int
) -> tuple[BertTokenizer, BertForSequenceClassification]:
    """For --smoke: a vocabulary of the table's words, and a small BERT to train on them."""
    torch.set_num_threads(1)  # so small a model gains nothing from more
    texts = table.drop(columns="label").to_numpy().ravel()[:20_000]
    blank = BertTokenizer()
    text = blank.backend_tokenizer.normalizer.normalize_str(" ".join(texts))
    words = Counter(
        word for word, _ in blank.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    )
    letters = sorted(set(text) - {" "})  # of them rare words are composed
    pieces = [word for word, _ in words.most_common(5000)] + letters
    pieces += [f"##{letter}" for letter in letters]
    vocabulary = blank.get_vocab()  # [PAD], [UNK], [CLS], [SEP] and [MASK]
    for piece in pieces:
        vocabulary.setdefault(piece, len(vocabulary))
    config = BertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=max_seq_length, **TINY_SIZE
    )
    set_classes(config, class_names(table))
    return BertTokenizer(vocab=vocabulary), BertForSequenceClassification(config)


def build_trainer(
    model: BertForSequenceClassification,
    tokenizer: BertTokenizer,
    training_args: transformers.TrainingArguments,
    datasets: dict[str, TextClassificationDataset],
    early_stopping_patience: int | None = None,
    class_weights: Literal["balanced"] | None = None,
) -> Trainer:
    """Return the trainer of `train`; without `validation` it keeps the last epoch, not the best.

    It stops after `early_stopping_patience` evaluations without a better one. With `balanced`
    weights all classes count alike, however many rows they have.
    """
    choose_schedule(training_args, len(datasets.get("train", [])))
    validation, callbacks = datasets.get("validation"), [BreakTies()]
    if validation is None:
        training_args.eval_strategy = "no"
        training_args.load_best_model_at_end = False
    if early_stopping_patience:
        if training_args.eval_strategy == "no":
            raise InputError("--early_stopping_patience: give --validation_file and save epochs")
        callbacks.append(EarlyStoppingCallback(early_stopping_patience))
    if training_args.device.type == "cpu" and not training_args.torch_compile:
        speed_up_on_cpu(model)
    # The model's loss is a mean: the trainer must divide by accumulated steps and processes.
    model.accepts_loss_kwargs = False
    trainer = LengthGroupedTrainer(
        model,
        training_args,
        data_collator=partial(cut_padding, multiple_of=8 if training_args.torch_compile else 1),
        train_dataset=datasets.get("train"),
        eval_dataset=None if validation is None else longest_first(validation),
        processing_class=tokenizer,
        compute_metrics=accuracy_and_f1,
        callbacks=callbacks,
    )
    if class_weights:
        labels = datasets["train"].labels.numpy()
        found = np.unique(labels)
        weights = torch.ones(model.config.num_labels)
        balanced = compute_class_weight(class_weights, classes=found, y=labels)
        weights[found] = torch.from_numpy(balanced).float()
        trainer.class_weights = weights.to(training_args.device)
    return trainer


def choose_schedule(args: transformers.TrainingArguments, rows: int) -> None:
    """Set the epochs and the rows of a batch, where they are None: the fewer rows, the more steps.

    Mosbach et al. 2021 (https://arxiv.org/abs/2006.04884) and Zhang et al. 2021
    (https://arxiv.org/abs/2006.05987) train few rows for up to 20 epochs.
    """
    if args.per_device_train_batch_size is None:
        args.per_device_train_batch_size = 8 if rows < 500 else 16 if rows < 2000 else 32
    if args.num_train_epochs is None:
        args.num_train_epochs = min(20, max(3, 6000 // max(1, rows)))
        if rows and args.max_steps <= 0:
            epochs = f"{args.num_train_epochs} epochs of {rows:,} rows"
            print(f"{epochs} in batches of {args.train_batch_size}: few rows need many steps")


class BreakTies(TrainerCallback):
    """Of two epochs of equal accuracy or F1 the one of the lower loss is the better one."""

    def on_train_begin(self, args, state, control, **_):
        self.name = args.metric_for_best_model
        if self.name in ("accuracy", "f1_macro"):
            args.metric_for_best_model = "tie_broken"

    def on_evaluate(self, args, state, control, metrics, **_):
        if args.metric_for_best_model == "tie_broken":
            metrics["eval_tie_broken"] = metrics[f"eval_{self.name}"] - 1e-9 * metrics["eval_loss"]

    def on_train_end(self, args, state, control, **_):
        args.metric_for_best_model = self.name


class LengthGroupedTrainer(Trainer):
    """`Trainer` with rows of like length in a batch, so that hardly any padding is needed.

    The library's own grouping would look at the padded length, and would reorder evaluation too.
    """

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        args = self.args
        if args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        rows_per_step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        seed = args.seed if args.data_seed is None else args.data_seed
        return ShuffledBatchesSampler(rows_per_step, self.train_dataset.lengths, seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> None:
        return None

    class_weights: torch.Tensor | None = None  # (classes,)

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, **_
    ) -> torch.Tensor | tuple:
        """Return the mean cross-entropy; weights and label smoothing are for training alone."""
        options = {}
        if model.training:
            options["weight"] = self.class_weights
            options["label_smoothing"] = self.args.label_smoothing_factor
        outputs = model(**inputs)
        if "labels" in inputs:
            logits = outputs["logits"].float()
            outputs["loss"] = cross_entropy(logits, inputs["labels"], **options)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]


class ShuffledBatchesSampler(Sampler):
    """Batches of rows of like length in random order; seed and epoch alone decide it.

    So a resumed run repeats the order. Windows of 100 batches are sorted by length and cut into
    batches, then the batches are shuffled. `lengths`: tokens of each row, int64 (rows,).
    """

    def __init__(self, batch_size: int, lengths: torch.Tensor, seed: int):
        self.batch_size, self.lengths = batch_size, lengths
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1000 + self.epoch)
        batches = []
        for window in torch.randperm(len(self), generator=generator).split(100 * self.batch_size):
            rows = window[self.lengths[window].argsort(stable=True)]
            batches += rows.split(self.batch_size)
        *batches, last = batches  # the last may be smaller: it stays last
        order = torch.randperm(len(batches), generator=generator)
        return iter(torch.cat([*(batches[number] for number in order), last]).tolist())


def speed_up_on_cpu(model: PreTrainedModel) -> None:
    """Let dropout draw its random numbers faster: on a CPU they take a seventh of the training."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is torch.nn.Dropout:
                setattr(module, name, FastDropout(child.p).train(child.training))
    AttentionInterface.register("fast_dropout", attention_with_dropout)
    AttentionMaskInterface.register("fast_dropout", eager_mask)
    model.set_attn_implementation("fast_dropout")


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


def longest_first(dataset: TextClassificationDataset) -> Subset:
    """Return the dataset sorted by length, which saves padding; `indices` holds the order."""
    return Subset(dataset, dataset.lengths.argsort(descending=True, stable=True).tolist())


def accuracy_and_f1(output: transformers.EvalPrediction) -> dict[str, float]:
    """Return accuracy and macro F1 of logits (rows, classes), labels (rows,).

    F1 is the mean over the classes that occur in either.
    """
    predicted, labels = output.predictions.argmax(-1), output.label_ids
    f1_macro = f1_score(labels, predicted, average="macro", zero_division=0)
    return {"accuracy": accuracy_score(labels, predicted), "f1_macro": f1_macro}


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


def evaluate(
    trainer: Trainer, dataset: TextClassificationDataset, texts: Sequence[str]
) -> dict[str, float]:
    """Show a table per class and a few predictions, draw the confusion matrix; return the metrics.

    The table of more than 50 classes goes to a file instead of the screen.
    """
    probabilities, metrics = predict(trainer, dataset, "eval")
    id2label = trainer.model.config.id2label
    classes = np.array([id2label[number] for number in range(len(id2label))])
    labels, predicted = classes[dataset.labels.numpy()], classes[probabilities.argmax(-1)]
    table = classification_report(labels, predicted, zero_division=0)
    with whole_files(trainer.args.output_dir) as folder:
        figure = draw_confusion_matrix(labels, predicted, classes)
        figure.savefig(folder / "confusion_matrix.png", dpi=120)
        if len(classes) > 50:
            (folder / "classification_report.txt").write_text(table, encoding="utf-8")
            table = "The table of all classes is in classification_report.txt"
    print(table)
    for text, label, row in zip(texts[:12], predicted, probabilities, strict=False):
        print(f"  {label} {row.max():.3f}  {' '.join(text.split()):.90}")
    if len(set(predicted)) == 1 < len(set(labels)):
        print(f"warning: all rows are called {str(predicted[0])!r}: {MORE_TRAINING}")
    return metrics


MORE_TRAINING = "try --num_train_epochs 20 --learning_rate 1e-4 with the other flags as they are"


def compare_with_baseline(tables: dict[str, pd.DataFrame], accuracy: float) -> dict[str, float]:
    """Train TF-IDF with logistic regression on the same rows; print and return how good it is.

    Both accuracies have the 95 % interval of E. B. Wilson (1927), https://doi.org/10.2307/2276774.
    """
    train, validation = tables["train"], tables["validation"]
    texts = [table["text"] + " " + table.get("text_pair", "") for table in (train, validation)]
    if train["label"].nunique() > 300:
        print("No baseline: with more than 300 classes it takes too much memory")
        return {}
    words = {"token_pattern": r"\w+|[^\w\s]"}
    if texts[0].str.len().sum() > 20 * texts[0].str.count(r"\s").add(1).sum():
        words = {"analyzer": "char", "ngram_range": (1, 3)}  # Chinese, Thai: no spaces between them
    model = make_pipeline(TfidfVectorizer(**words), LogisticRegression(max_iter=1000))
    predicted = model.fit(texts[0], train["label"]).predict(texts[1])
    rows, options = len(predicted), {"zero_division": 0}
    metrics = {
        "baseline_accuracy": accuracy_score(validation["label"], predicted),
        "baseline_f1_macro": f1_score(validation["label"], predicted, average="macro", **options),
    }
    print(f"Accuracy of {rows:,} rows, with 95 % intervals:")
    for name, share in {"TF-IDF": metrics["baseline_accuracy"], "BERT": accuracy}.items():
        interval = binomtest(round(share * rows), rows).proportion_ci(method="wilson")
        print(f"  {name} {share:.3f} ({interval.low:.3f} to {interval.high:.3f})")
    if accuracy <= metrics["baseline_accuracy"]:
        print(f"warning: BERT is not better than counting words: {MORE_TRAINING}")
    return metrics


def predict(
    trainer: Trainer, dataset: TextClassificationDataset, prefix: str = "test"
) -> tuple[np.ndarray, dict[str, float]]:
    """Return probabilities, float64 (rows, classes) in the dataset's order, and the metrics."""
    batches = longest_first(dataset)
    output = trainer.predict(batches, metric_key_prefix=prefix)
    probabilities = np.empty(output.predictions.shape)
    probabilities[batches.indices] = torch.from_numpy(output.predictions).double().softmax(-1)
    return probabilities, output.metrics


def write_predictions(
    trainer: Trainer, dataset: TextClassificationDataset, table: pd.DataFrame
) -> dict[str, float]:
    """Write predictions.tsv, a row per row of the table; return the metrics.

    Columns: what else the table has, the texts, the likeliest label and its probability, then the
    probability of each class. A blank text has none.
    """
    probabilities, metrics = predict(trainer, dataset)
    id2label = trainer.model.config.id2label
    texts = table.filter(["text", "text_pair"])
    others = table.drop(columns=["text", "text_pair", "label"], errors="ignore")
    predictions = pd.concat([others.astype("string").fillna(""), texts], axis=1)
    predictions = predictions.replace(r"[\t\r\n]+", " ", regex=True)
    classes = [re.sub(r"[\t\r\n]", " ", id2label[number]) for number in range(len(id2label))]
    predictions["label"] = [classes[number] for number in probabilities.argmax(-1)]
    predictions["probability"] = probabilities.max(-1).round(6)
    columns = pd.DataFrame(probabilities.round(6), predictions.index, classes)
    predictions = pd.concat([predictions, columns], axis=1)
    blank = (table["text"].str.strip() == "").to_numpy()
    if blank.any():
        print(f"test: {blank.sum():,} rows have no text, and so no prediction")
        predictions = predictions.astype("string")
        predictions.loc[blank, ["label", "probability", *classes]] = ""
    if "label" in table and dataset.labels is None:
        metrics |= score_labelled(probabilities, table["label"], trainer.model.config.label2id)
    with whole_files(trainer.args.output_dir) as folder:
        file = folder / "predictions.tsv"
        predictions.to_csv(file, sep="\t", index=False, quoting=csv.QUOTE_NONE)
    return metrics


def score_labelled(
    probabilities: np.ndarray, labels: pd.Series, label2id: dict[str, int]
) -> dict[str, float]:
    """Return the test metrics over the rows that have a label, where others have none."""
    labelled = labels.isin(label2id).to_numpy()
    print(f"{labelled.sum():,} of {len(labels):,} test rows have a label")
    if not labelled.any():
        return {}
    numbers = labels[labelled].map(label2id).to_numpy()
    metrics = accuracy_and_f1(transformers.EvalPrediction(probabilities[labelled], numbers))
    return {f"test_{name}": value for name, value in metrics.items()}


# Plumbing: nothing below is about BERT ------------------------------------------------------------


class InputError(Exception):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def refuse(message: str) -> NoReturn:
    """Raise what the parser would print."""
    raise InputError(f"{message}: see --help")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the flags' defaults, and the docstring's commands line by line."""


def parse_arguments(argv: list[str] | None) -> tuple[ScriptArguments, FineTuningArguments]:
    """Parse and check the command line; bad usage raises InputError."""
    args, training_args = parse(argv, ScriptArguments, FineTuningArguments)
    check_positive(args, "max_seq_length", "max_train_samples")
    percentage = args.validation_split_percentage
    if not 0 <= percentage < 100:
        raise InputError(f"--validation_split_percentage {percentage}: give a number from 0 to 99")
    if not training_args.do_train and (training_args.do_eval or training_args.do_predict):
        follow_model(args.model_name_or_path, training_args)
    return args, training_args


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


def load_table(path: str, args: ScriptArguments, split: str) -> pd.DataFrame:
    """Return the columns `text`, `text_pair` and `label`, as far as there are any, all str.

    A table to predict keeps its other columns, too. Raises InputError with all that is wrong.
    """
    table = read_table(path, args.column_names, args.encoding)
    if table.empty:
        raise InputError(f"{path}: no rows")
    names = {name: getattr(args, f"{name}_column") for name in ("text", "text_pair", "label")}
    names = {name: column for name, column in names.items() if column is not None}
    if split == "test" and args.label_column not in table:
        names.pop("label")
    missing = [column for column in names.values() if column not in table]
    if missing:
        flags = " and ".join(f"--{name}_column" for name in names)
        found = f"no column {missing[0]!r} among {list(table)}"
        raise InputError(f"{path}: {found}: name it with {flags}")
    columns = {name: as_strings(table[column], path) for name, column in names.items()}
    columns = pd.DataFrame(columns)
    labels = columns.get("label", pd.Series(dtype="string"))
    if (labels != labels.str.strip()).any():
        print(f"{path}: spaces around labels are left out")
        columns["label"] = labels.str.strip()
    if split == "test":
        others = table.drop(columns=[*names.values(), *names], errors="ignore")
        columns = pd.concat([others, columns], axis=1)
    else:
        columns = without_blanks(columns, path, names, args)
    return columns.reset_index(drop=True)


def without_blanks(
    table: pd.DataFrame, path: str, names: dict[str, str], args: ScriptArguments
) -> pd.DataFrame:
    """Return the rows that are whole. Raises InputError with the others, if they are not to go."""
    faults = []
    for name, column in names.items():
        blank = table.index[table[name].str.strip() == ""]
        if len(blank):
            faults.append(f"column {column!r} is empty in {row_numbers(blank)}")
    if not faults:
        return table
    found = f"{path}: {' and '.join(faults)}"
    if not args.column_names and Path(path).suffix.lower() in SHEETS:
        found += ", counted as a spreadsheet does: row 1 is the header"
    if not args.skip_blank_rows:
        raise InputError(f"{found}: fill them, or leave them out with --skip_blank_rows")
    print(f"{found}: left out")
    blank = table.apply(lambda texts: texts.str.strip() == "").any(axis=1)
    return table[~blank]


def row_numbers(rows: Sequence[int]) -> str:
    """Return the first of many numbers, and how many they are."""
    first = ", ".join(map(str, rows[:5]))
    if len(rows) == 1:
        return f"row {first}"
    more = " …" if len(rows) > 5 else ""
    return f"rows {first}{more} ({len(rows):,} in all)"


def as_strings(values: pd.Series, path: str) -> pd.Series:
    """Return texts or labels as str. Raises InputError with the row of a list."""
    lists = np.flatnonzero(values.map(pd.api.types.is_list_like))
    if len(lists):
        found = f"column {values.name!r} holds {values.iloc[lists[0]]!s:.60}"
        row = values.index[lists[0]]
        raise InputError(f"{path}, row {row}: {found}: give one text or number a row")
    if values.map(type).eq(bytes).any():  # of Parquet
        values = values.str.decode("utf-8")
    strings = values.astype("string").fillna("")
    if pd.api.types.is_float_dtype(values):  # as whole numbers are beside missing ones
        strings = strings.str.removesuffix(".0")
    return strings


def read_table(
    path: str, column_names: list[str] | None = None, encoding: str = "utf-8-sig"
) -> pd.DataFrame:
    """Read CSV, TSV, Excel, JSON lines or Parquet; "None" stays text. Raises InputError.

    The index is the number of a row as people count them: in a sheet the header is row 1.
    """
    suffix = Path(path).suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            return read_rows(path, suffix, column_names, encoding)
        if suffix in (".json", ".jsonl"):
            return read_json_lines(path, encoding)
        if suffix in SHEETS:
            rows = pd.read_excel(path, dtype=str, keep_default_na=False, header=None)
            return as_table(rows.to_numpy().tolist(), path, column_names)
        table = pd.read_parquet(path)
    except (AttributeError, TypeError, zipfile.BadZipFile, *HUB_ERRORS) as error:
        kinds = "CSV, TSV, Excel, JSON lines or Parquet"
        raise InputError(f"cannot read {path} as {kinds}: {error}") from error
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index()
    return table.set_axis(range(1, len(table) + 1))


SPACE_BEFORE_QUOTE = re.compile(r'(?:^|\0)[ ]+"')
SHEETS = (".csv", ".tsv", ".xlsx", ".xlsm")
# A field in quotes with a doubled quote inside, as Excel writes TSV.
EXCELS_QUOTES = re.compile(r'(?:^|\t)"[^"\t]*(?:""[^"\t]*)+"(?=[\t\r\n])', re.MULTILINE)


def read_rows(
    path: str, suffix: str, column_names: list[str] | None, encoding: str
) -> pd.DataFrame:
    """Read CSV, commas or semicolons, or TSV, whose quotes are plain unless Excel wrote them."""
    encoding = encoding_of(path, encoding)
    with open(path, encoding=encoding, newline="") as file:
        try:
            text = file.read()
        except UnicodeError as error:
            found = f"{path}: byte {error.start} is not {encoding}"
            raise InputError(f"{found}: name its --encoding, for instance cp1252") from error
    if "\0" in text:
        raise InputError(f"{path}: NUL bytes are no text: name its --encoding, for instance utf-16")
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    options = {"delimiter": "\t" if suffix == ".tsv" else ",", "strict": True}
    if suffix == ".tsv" and not EXCELS_QUOTES.search(text):
        options["quoting"] = csv.QUOTE_NONE
    if suffix == ".csv" and header.count(";") > header.count(","):
        print(f"{path}: semicolons between the columns")
        options["delimiter"] = ";"
    reader = csv.reader(io.StringIO(text, newline=""), **options)
    limit = csv.field_size_limit(2**31 - 1)  # a text may be long
    rows = []
    try:
        rows.extend(reader)
    except csv.Error as error:
        row = f"{path}, row {len(rows) + 1}"
        raise InputError(f"{row}: {error}: quotes inside quotes are doubled") from error
    finally:
        csv.field_size_limit(limit)
    return as_table(rows, path, column_names)


def as_table(rows: list[list[str]], path: str, column_names: list[str] | None) -> pd.DataFrame:
    """Return the rows of a sheet as a table. Raises InputError with those of another length."""
    numbered = {number: row for number, row in enumerate(rows, 1) if row}
    if not numbered:
        raise InputError(f"{path}: no rows")
    if column_names is None:
        header = numbered.pop(min(numbered))
        column_names = [name.strip() for name in header]
    odd = [number for number, row in numbered.items() if len(row) != len(column_names)]
    if odd:
        found = f"not the columns {column_names} in {row_numbers(odd)}"
        raise InputError(f"{path}: {found}: correct the separators and the quotes")
    for number, row in numbered.items():
        if path.endswith(".csv") and SPACE_BEFORE_QUOTE.search("\0".join(row)):
            found = "a space before a quotation mark"
            raise InputError(f"{path}, row {number}: {found}: leave it out")
    return pd.DataFrame(numbered.values(), list(numbered), column_names, dtype="object")


def read_json_lines(path: str, encoding: str) -> pd.DataFrame:
    """Read an object per line; numbers and keys stay what they are. Raises InputError."""
    rows = {}
    with open(path, encoding=encoding_of(path, encoding)) as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError as error:
                raise InputError(f"cannot read {path}, line {number}: {error}") from error
            if isinstance(row, dict):
                rows[number] = row
            elif row is not None:
                raise InputError(f"cannot read {path}, line {number}: {line:.40} is no object")
    return pd.DataFrame(list(rows.values()), list(rows), dtype="object")


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


NEW_WEIGHTS = ("classifier.", "bert.pooler.")  # on top of BERT: not every checkpoint has them

# What the libraries raise for a folder that holds no checkpoint, or a damaged one.
LOADING_ERRORS = (OSError, TypeError, ValueError, SafetensorError, StrictDataclassError)


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


def next_command(args: ScriptArguments) -> str:
    """Return the flags that predict with this model; say if it is --smoke's."""
    if args.smoke and args.train_file:
        print("A tiny model was tried: its quality tells nothing about that of a real one")
    flags = ["--do_predict", "--test_file", "FILE"]
    names = ("model_name_or_path", "text_column", "text_pair_column", "max_seq_length")
    for name in (*names, "encoding"):
        if getattr(args, name) != getattr(ScriptArguments, name):
            flags += [f"--{name}", str(getattr(args, name))]
    return shlex.join(flags)


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
    """Draw the losses and the accuracy that the trainer logged over the epochs."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("loss", "eval_loss", "eval_accuracy"):
        points = {entry["epoch"]: entry[name] for entry in log_history if name in entry}
        axes.plot(points.keys(), points.values(), marker=".", label=name)
    axes.set(xlabel="epoch", ylim=(0, None))
    axes.legend()
    return figure


def draw_confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]
) -> Figure:
    """Draw how many rows of each class were taken for which; of many classes the 30 worst."""
    if len(classes) > 30:
        wrong = labels != predicted
        mistakes, rows = Counter([*labels[wrong], *predicted[wrong]]), Counter(labels)
        worst = sorted(classes, key=lambda name: (mistakes[name], rows[name]))[-30:]
        classes = [name for name in classes if name in worst]
    size = 2 + 0.7 * len(classes)
    figure = Figure(figsize=(size, size), layout="constrained")
    options = {"labels": classes, "cmap": "Blues", "colorbar": False, "ax": figure.subplots()}
    options["display_labels"] = [name.replace("$", r"\$") for name in classes]  # no mathematics
    longest = max(map(len, classes))
    options["xticks_rotation"] = 0 if longest <= 7 else 90  # letters that fit beside each other
    ConfusionMatrixDisplay.from_predictions(labels, predicted, **options)
    return figure


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
SMALLER += " or --max_seq_length; --auto_find_batch_size tries smaller batches by itself"
SMOKE = {
    "learning_rate": 3e-3,
    "num_train_epochs": 12,
    "per_device_train_batch_size": 8,
    "metric_for_best_model": "loss",
    "bf16": False,
}
TINY_SIZE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
}
SAMPLE = {
    "train": [
        ("A wonderful film, warm and funny from start to finish.", "positive"),
        ("A terrible film, dull and slow from start to finish.", "negative"),
        ("The food was delicious and the staff were friendly.", "positive"),
        ("The food was cold and the staff were rude.", "negative"),
        ("I love this phone, the screen is beautiful.", "positive"),
        ("I hate this phone, the screen is broken.", "negative"),
        ("An excellent book that I will happily read again.", "positive"),
        ("A boring book that I will never read again.", "negative"),
        ("What a great concert, the band was brilliant!", "positive"),
        ("What an awful concert, the band was horrible!", "negative"),
        ("The hotel room was clean, quiet and comfortable.", "positive"),
        ("The hotel room was dirty, noisy and cramped.", "negative"),
        ("A charming story with superb acting.", "positive"),
        ("A stupid story with terrible acting.", "negative"),
        ("Best coffee in town, simply perfect.", "positive"),
        ("Worst coffee in town, simply disgusting.", "negative"),
        ("The service was fast and the waiter was friendly.", "positive"),
        ("The service was slow and the waiter was rude.", "negative"),
        ("I really enjoyed every minute of this play.", "positive"),
        ("I regret every minute of this play.", "negative"),
        ("A delightful album, full of beautiful songs.", "positive"),
        ("A disappointing album, full of boring songs.", "negative"),
        ("The teacher was patient, kind and helpful.", "positive"),
        ("The teacher was impatient, unfair and useless.", "negative"),
        ("This camera takes excellent pictures, I am very happy.", "positive"),
        ("This camera takes awful pictures, I am very disappointed.", "negative"),
        ("A brilliant plot and a perfect ending.", "positive"),
        ("A dull plot and a stupid ending.", "negative"),
        ("The garden is beautiful and the tour was great.", "positive"),
        ("The garden is ugly and the tour was a waste of time.", "negative"),
        ("Comfortable shoes, great price, I recommend them.", "positive"),
        ("Painful shoes, poor quality, I regret buying them.", "negative"),
        ("I love the delicious cakes in this bakery.", "positive"),
        ("I hate the disgusting cakes in this bakery.", "negative"),
        ("Helpful support and fast delivery, I am happy.", "positive"),
        ("Useless support and late delivery, I am angry.", "negative"),
        ("A superb meal in a charming little restaurant.", "positive"),
        ("A horrible meal in a dirty little restaurant.", "negative"),
        ("The museum was wonderful, my children enjoyed it.", "positive"),
        ("The museum was boring, my children hated it.", "negative"),
        ("Great game, funny dialogue and beautiful music.", "positive"),
        ("Poor game, stupid dialogue and ugly music.", "negative"),
        ("The doctor was kind and the clinic was clean.", "positive"),
        ("The doctor was rude and the clinic was dirty.", "negative"),
        ("I enjoyed the trip, the guide was brilliant.", "positive"),
        ("I hated the trip, the guide was useless.", "negative"),
        ("An excellent hotel, I happily recommend it.", "positive"),
        ("An awful hotel, a waste of money.", "negative"),
    ],
    "validation": [
        ("A superb concert, I enjoyed every song.", "positive"),
        ("A horrible concert, I hated every song.", "negative"),
        ("The waiter was kind and the meal was delicious.", "positive"),
        ("The waiter was rude and the meal was disgusting.", "negative"),
        ("Beautiful pictures and an excellent price.", "positive"),
        ("Ugly pictures and poor quality.", "negative"),
        ("I love this charming little hotel.", "positive"),
        ("I hate this dirty little hotel.", "negative"),
        ("The guide was helpful and very funny.", "positive"),
        ("The guide was useless and very boring.", "negative"),
        ("A perfect trip, wonderful and comfortable.", "positive"),
        ("A terrible trip, noisy and a waste of money.", "negative"),
    ],
}
SAMPLE["test"] = SAMPLE["validation"]

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
