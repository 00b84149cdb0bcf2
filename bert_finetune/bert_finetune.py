# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate>=1.10",
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
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-28
"""Fine-tune BERT for sequence classification, on the built-in sentences or on your own texts.

python bert_finetune.py --smoke                                       # seconds, no download
python bert_finetune.py --train_file train.csv --validation_file validation.csv
python bert_finetune.py --do_predict --test_file new.csv --model_name_or_path outputs/bert_finetune

BERT has learned language by guessing masked words. A new linear layer on its vector of the first
token, [CLS], gives a score per class; cross-entropy with the labels trains that layer and all of
BERT. On the way from texts to the loss:

    [CLS] a warm film [SEP] [PAD]    input_ids      (batch, tokens)
    BERT's last layer                hidden states  (batch, tokens, hidden)
    the vector of [CLS], pooled      tanh(W1 h0)    (batch, hidden)
    one score per class              logits         (batch, classes)
    probabilities                    softmax        (batch, classes)

    loss = mean over the batch of -log softmax(logits)[label]

Read `main`, then its parts in the order of the calls: data, model, training, results.
"Speed" has what makes it faster, "Plumbing" reads flags and files and serves `main` alone.
"""

import argparse
import codecs
import copy
import csv
import ctypes
import gc
import io
import itertools
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import transformers
from huggingface_hub import HfApi, create_repo, snapshot_download, upload_folder
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import enable_progress_bars
from matplotlib.figure import Figure
from safetensors import SafetensorError
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, classification_report, f1_score
from sklearn.pipeline import make_pipeline
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import Dataset, Sampler, Subset, default_collate
from tqdm import trange
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from transformers.hf_argparser import HfArg, HfArgumentParser


@dataclass
class ScriptArguments:
    """Flags of this script; every flag of `transformers.TrainingArguments` works beside them."""

    smoke: bool = HfArg(default=False, help="A tiny model: seconds, no download.")
    model_name_or_path: str = HfArg(default="bert-base-uncased", help="Hub name or folder.")
    train_file: str | None = HfArg(default=None, help="CSV, TSV, Excel, JSON lines, Parquet.")
    validation_file: str | None = HfArg(default=None, help="Rows to evaluate on; or else:")
    validation_split_percentage: int = HfArg(default=20, help="So many of the training rows.")
    test_file: str | None = HfArg(default=None, help="Rows to predict.")
    encoding: str = HfArg(default="utf-8-sig", help="Of text files; Excel's may be cp1252.")
    column_names: list[str] | None = HfArg(default=None, help="Where a file has no header.")
    text_column: str = HfArg(default="text", help="Its column.")
    text_pair_column: str | None = HfArg(default=None, help="That of a second text.")
    label_column: str = HfArg(default="label", help="Strings or numbers.")
    max_seq_length: int = HfArg(default=128, help="Longer texts are cut to so many tokens.")
    skip_blank_rows: bool = HfArg(default=False, help="Leave out rows without text or label.")
    class_weights: Literal["balanced"] | None = HfArg(default=None, help="For rare classes.")
    baseline: bool = HfArg(default=True, help="Compare with TF-IDF and logistic regression.")


@dataclass
class FineTuningArguments(TrainingArguments):
    """The recipe: `TrainingArguments` with defaults for fine-tuning BERT."""

    output_dir: str = "outputs/bert_finetune"
    # By the number of rows: see `choose_schedule`.
    num_train_epochs: float | None = None
    per_device_train_batch_size: int | None = None
    per_device_eval_batch_size: int = 64
    learning_rate: float = 5e-5
    warmup_steps: float = 0.1
    logging_steps: float = 0.05
    # True would hide a loss of NaN, and let a GPU wait in every step.
    logging_nan_inf_filter: bool = False
    save_strategy: str = "epoch"
    save_total_limit: int = 1
    eval_strategy: str = "epoch"
    load_best_model_at_end: bool = True
    metric_for_best_model: Literal["accuracy", "f1_macro", "loss"] = "accuracy"
    # Stop after so many evaluations in a row without a better one.
    early_stopping_patience: int | None = None


def main(argv: list[str] | None = None) -> None:
    """Fine-tune, evaluate and predict: all that there are rows for, or what --do_... chooses."""
    args, training_args = parse_arguments(argv)
    prepare(training_args, args.model_name_or_path)
    tables = load_splits(args, training_args)
    classes = class_names(tables["train"]["label"]) if "train" in tables else None
    if args.smoke:
        tokenizer, model = tiny(joined(tables["train"]), classes)
    else:
        tokenizer, model = pretrained(args.model_name_or_path, classes)
    datasets = build_datasets(tables, tokenizer, model.config, args.max_seq_length)
    trainer = build_trainer(model, tokenizer, training_args, datasets, args.class_weights)
    metrics = {}
    if "train" in datasets:
        with faster_dropout(model):
            metrics |= train(trainer)
        args.model_name_or_path = training_args.output_dir
    if "validation" in datasets:
        metrics |= evaluate(trainer, datasets["validation"], tables["validation"]["text"])
    if args.baseline and "validation" in tables and 1 < len(classes or []) <= 300:
        metrics |= compare_with_baseline(tables, metrics["eval_accuracy"], args.class_weights)
    if "test" in datasets:
        metrics |= write_predictions(trainer, datasets["test"], tables["test"])
    if trainer.is_world_process_zero():
        report(metrics, training_args, args.model_name_or_path, next_command(args))


def load_splits(args: ScriptArguments, training_args: FineTuningArguments) -> dict:
    """Return the tables `train`, `validation` and `test`, as far as asked for.

    Without any file they are the sample; without that of validation a part of training is kept.
    """
    files = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
    steps = (training_args.do_train, training_args.do_eval, training_args.do_predict)
    tables = {}
    for split in itertools.compress(files, steps):
        if files[split]:
            tables[split] = load_table(files[split], args, split)
        elif not any(files.values()):
            tables[split] = pd.DataFrame(SAMPLE[split], columns=["text", "label"])
        elif split == "validation" and "train" in tables:
            share, seed = args.validation_split_percentage / 100, training_args.seed
            tables["train"], tables[split] = hold_out(tables["train"], share, seed)
        else:
            raise InputError(f"no {split} file: give --{split}_file, or choose with --do_...")
    return {split: table for split, table in tables.items() if len(table)}


def joined(table: pd.DataFrame) -> pd.Series:
    """Return the texts of a table; those of pairs are put together."""
    return (table["text"] + "\n" + table.get("text_pair", "")).str.strip()


def hold_out(table: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to train on, and a share of each class to validate with, drawn by the seed.

    Rows of one text stand on one side, and of every class at least one text is trained on.
    """
    texts = joined(table)
    labels = table["label"][~texts.duplicated()].sample(frac=1, random_state=seed)
    classes = labels.groupby(labels)
    sizes = classes.transform("size")
    chosen = classes.cumcount() < (sizes * share).round().clip(upper=sizes - 1)
    held_out = texts.isin(texts[labels.index[chosen]])
    print(f"{held_out.sum():,} of {len(table):,} training rows are kept to validate with")
    return table[~held_out], table[held_out]


class TextClassificationDataset(Dataset):
    """Texts, or pairs of texts, as tensors of exactly `max_seq_length` tokens, padded or cut.

    Item: `input_ids`, `token_type_ids` and `attention_mask`, int64 of shape (max_seq_length,), and
    `labels`, int64 of shape (), where labels (numbers of classes) are given. Texts are tokenized
    once and kept without padding. `lengths`: tokens of each row before padding, int64 (rows,);
    `cut`: how many rows were longer; `unknown`: the share of tokens that the tokenizer lacks.
    """

    def __init__(
        self,
        texts: list[str],
        tokenizer: BertTokenizer,
        text_pairs: list[str] | None = None,
        labels: list[int] | None = None,
        max_seq_length: int = 128,
    ):
        self.pad_token_id, self.max_seq_length = tokenizer.pad_token_id, max_seq_length
        self.labels = None if labels is None else torch.tensor(labels, dtype=torch.int64)
        self.rows, self.cut, unknown = [], 0, 0
        options = {"truncation": True, "max_length": max_seq_length}
        # "[SEP]" in a text is text.
        options["split_special_tokens"] = True
        # BERT reads them, whatever its tokenizer is.
        options["return_token_type_ids"] = True
        for start in trange(0, len(texts), 1000, desc="Tokenizing", disable=None, leave=False):
            part = slice(start, start + 1000)
            encoded = tokenizer(texts[part], text_pairs and text_pairs[part], **options)
            columns = encoded["input_ids"], encoded["token_type_ids"]
            self.rows += [np.array(row, np.int32) for row in zip(*columns, strict=True)]
            self.cut += sum(bool(row.overflowing) for row in encoded.encodings)
            unknown += sum(ids.count(tokenizer.unk_token_id) for ids in encoded["input_ids"])
        self.lengths = torch.tensor([row.shape[1] for row in self.rows])
        self.unknown = unknown / max(1, int(self.lengths.sum()))

    def __len__(self) -> int:
        return len(self.rows)

    def longest_first(self) -> Subset:
        """Return the rows sorted by length, which saves padding; `indices` holds their order."""
        return Subset(self, self.lengths.argsort(descending=True, stable=True).tolist())

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids, types = torch.from_numpy(self.rows[index]).long()
        padding = (0, self.max_seq_length - len(ids))
        item = {
            "input_ids": pad(ids, padding, value=self.pad_token_id),
            "token_type_ids": pad(types, padding),
            "attention_mask": pad(torch.ones_like(ids), padding),
        }
        if self.labels is not None:
            item["labels"] = self.labels[index]
        return item


def build_datasets(
    tables: dict[str, pd.DataFrame], tokenizer: BertTokenizer, config: BertConfig, max_length: int
) -> dict[str, TextClassificationDataset]:
    """Return the dataset of each table; its columns are `text` and, if given, `text_pair`, `label`.

    That of `test` has no labels. Raises InputError for those that the model does not know.
    """
    if not 4 <= max_length <= config.max_position_embeddings:
        raise InputError(f"--max_seq_length {max_length}: 4 to {config.max_position_embeddings}")
    datasets, known = {}, []
    for split, table in tables.items():
        columns = table.to_dict("list")
        labels = columns["label"] if split != "test" else []
        unknown = set(labels) - set(config.label2id)
        if unknown:
            raise InputError(f"{split} rows: unknown labels {sorted(unknown)}: train with them")
        texts, pairs = columns["text"], columns.get("text_pair")
        numbers = [config.label2id[label] for label in labels] or None
        dataset = TextClassificationDataset(texts, tokenizer, pairs, numbers, max_length)
        print(f"{split}: {len(texts):,} rows, {dataset.cut:,} of them cut to {max_length} tokens")
        leaks = joined(table).isin(known).sum()
        if leaks:
            print(f"{split}: {leaks:,} of {len(texts):,} rows also stand in training")
        if split == "train":
            known = joined(table)
        if dataset.unknown > 0.05:
            print(f"warning: {split}: this model does not know {dataset.unknown:.0%} of the tokens")
        datasets[split] = dataset
    return datasets


def class_names(labels: pd.Series) -> list[str]:
    """Return the classes that occur, sorted, numbers by their size."""
    classes = sorted(labels.unique())
    if len(classes) < 2:
        raise InputError(f"every training row has the label {classes[0]!r}: give two classes")
    with suppress(ValueError):
        classes.sort(key=float)
    return classes


def pretrained(
    name: str, classes: list[str] | None = None
) -> tuple[BertTokenizer, BertForSequenceClassification]:
    """Load a checkpoint from a folder or the hub, with an output for each of the classes.

    Without classes it keeps its own, and must have been fine-tuned. Raises InputError.
    """
    folder = fetch(name)
    try:
        config = AutoConfig.from_pretrained(folder)
        if config.model_type != "bert":
            raise InputError(f"it is a {config.model_type} model, and no BERT")
        own = [config.id2label[number] for number in sorted(config.id2label)]
        trained = "BertForSequenceClassification" in (config.architectures or [])
        trained &= config.problem_type in (None, "single_label_classification")
        trained &= len(own) > 1
        if classes is None and not trained:
            raise InputError("it has no trained classification head for single labels")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # From vocab.txt alone, as older folders have it, the library would make letters small.
        if sum(map(str.istitle, tokenizer.get_vocab())) > len(tokenizer) / 100:
            tokenizer = AutoTokenizer.from_pretrained(folder, do_lower_case=False)
        if not config.vocab_size / 2 < len(tokenizer) <= config.vocab_size:
            known = f"{len(tokenizer)} of {config.vocab_size}"
            raise InputError(f"the tokenizer knows {known} tokens: is a file missing?")
        if not tokenizer.is_fast:
            raise InputError("its tokenizer cannot tell which texts are cut")
        kept = trained and set(classes or own) == set(own)
        if trained and not kept:
            print(f"A new classification head: the {len(own)} classes of {name} are others")
        config.id2label = dict(enumerate(own if kept else classes))
        config.label2id = {label: number for number, label in config.id2label.items()}
        config.problem_type = "single_label_classification"
        model, loading = BertForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        new = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
        lost = [key for key in new if kept or not key.startswith(NEW_WEIGHTS)]
        if lost:
            raise InputError(f"{len(lost)} weights are missing, such as {lost[0]}")
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"cannot load {name}: {error}") from error
    return tokenizer, model


# On top of BERT: not every checkpoint has them.
NEW_WEIGHTS = ("classifier.", "bert.pooler.")


def tiny(
    texts: Iterable[str], classes: list[str]
) -> tuple[BertTokenizer, BertForSequenceClassification]:
    """For --smoke: a vocabulary of the words of these texts, and a small BERT to train on them."""
    text = BertTokenizer().backend_tokenizer.normalizer.normalize_str(" ".join(texts))
    words = dict(Counter(re.findall(r"\w+|[^\w\s]", text)).most_common(5000))
    letters = sorted(set(text) - {" "})
    # Of them rare words are composed.
    within = [f"##{letter}" for letter in letters]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *words, *letters, *within])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    label2id = {label: number for number, label in enumerate(classes)}
    names = {"id2label": dict(enumerate(classes)), "label2id": label2id}
    config = BertConfig(vocab_size=len(vocabulary), **names, **TINY_SIZE)
    return BertTokenizer(vocab=vocabulary), BertForSequenceClassification(config)


def build_trainer(
    model: BertForSequenceClassification,
    tokenizer: BertTokenizer,
    training_args: TrainingArguments,
    datasets: dict[str, TextClassificationDataset],
    class_weights: Literal["balanced"] | None = None,
) -> Trainer:
    """Return the trainer of `train`; without `validation` it keeps the last epoch, not the best.

    With `balanced` weights all classes count alike, by scikit-learn's formula.
    """
    args = copy.copy(training_args)
    # It would upload a binary and no pictures: see `report`.
    args.push_to_hub = False
    rows, validation = datasets.get("train"), datasets.get("validation")
    choose_schedule(args, len(rows or []))
    if validation is None:
        args.eval_strategy, args.load_best_model_at_end = "no", False
    # See `ShuffledBatchesSampler`; the library's others would reorder evaluations, too.
    if args.train_sampling_strategy != "sequential":
        args.train_sampling_strategy = "random"
    trainer = ClassificationTrainer(
        model,
        args,
        data_collator=cut_padding,
        train_dataset=rows,
        eval_dataset=validation and validation.longest_first(),
        processing_class=tokenizer,
        compute_metrics=lambda out: accuracy_and_f1(out.label_ids, out.predictions.argmax(-1)),
    )
    # The loss is a mean: divide by accumulated steps.
    trainer.model_accepts_loss_kwargs = False
    patience = getattr(args, "early_stopping_patience", None)
    if patience and args.eval_strategy == "no":
        raise InputError("--early_stopping_patience: give rows to evaluate on, and save epochs")
    if patience:
        trainer.add_callback(EarlyStoppingCallback(patience, early_stopping_threshold=1e-6))
    if class_weights and rows:
        counts = rows.labels.bincount(minlength=model.config.num_labels).to(args.device)
        trainer.class_weights = len(rows) / (counts.count_nonzero() * counts.clamp(min=1))
    return trainer


def choose_schedule(args: TrainingArguments, rows: int) -> None:
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
            why = ": few rows need many steps" if args.num_train_epochs > 3 else ""
            print(f"{epochs} in batches of {args.train_batch_size}{why}")


class ClassificationTrainer(Trainer):
    """`Trainer` with weights of the classes (classes,) and with batches of rows of like length."""

    class_weights: torch.Tensor | None = None

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        """Return the mean cross-entropy; weights and label smoothing are for training alone.

        PyTorch's own mean would divide by the weights of a batch, and so take them back.
        """
        labels, options = inputs.pop("labels"), {"reduction": "sum"}
        outputs = model(**inputs)
        if model.training:
            options["weight"] = self.class_weights
            options["label_smoothing"] = self.args.label_smoothing_factor
        loss = cross_entropy(outputs["logits"].float(), labels, **options) / len(labels)
        return (loss, outputs) if return_outputs else loss

    def _determine_best_metric(self, metrics, trial):
        """Of two epochs of equal accuracy or F1 the one of the lower loss is the better one."""
        loss = metrics["eval_loss"]
        scores = {name: score - 1e-9 * loss for name, score in metrics.items()}
        return super()._determine_best_metric(scores | {"eval_loss": loss}, trial)

    def _get_train_sampler(self, *datasets):
        args = self.args
        if args.train_sampling_strategy == "sequential":
            return super()._get_train_sampler(*datasets)
        rows_per_step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        seed = args.seed if args.data_seed is None else args.data_seed
        # `set_epoch` does not reach every sampler of a run that several processes resume.
        options = {"seed": seed, "epoch": lambda: int(self.state.epoch or 0)}
        return ShuffledBatchesSampler(rows_per_step, self.train_dataset.lengths, **options)


def accuracy_and_f1(labels: Sequence, predicted: Sequence, prefix: str = "") -> dict[str, float]:
    """Return accuracy and macro F1: the mean over the classes that occur in either."""
    f1_macro = f1_score(labels, predicted, average="macro", zero_division=0)
    accuracy = accuracy_score(labels, predicted)
    return {f"{prefix}accuracy": accuracy, f"{prefix}f1_macro": f1_macro}


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


def check_same_model(checkpoint: str, config: transformers.PreTrainedConfig) -> None:
    """Raise InputError if a checkpoint has other classes or sizes: weights would get lost."""
    saved = type(config).from_json_file(Path(checkpoint, "config.json"))
    for name in ("id2label", "vocab_size", "hidden_size", "num_hidden_layers"):
        found, expected = getattr(saved, name), getattr(config, name)
        if found != expected:
            raise InputError(f"{checkpoint}: {name} {found}, not {expected}: give an --output_dir")


def draw_training_curve(log_history: list[dict[str, float]]) -> Figure:
    """Draw the losses and the accuracy that the trainer logged over the epochs."""
    axes = Figure(figsize=(6, 4), layout="constrained").subplots()
    for name in ("loss", "eval_loss", "eval_accuracy"):
        points = {entry["epoch"]: entry[name] for entry in log_history if name in entry}
        axes.plot(points.keys(), points.values(), ".-", label=name)
    axes.set(xlabel="epoch", ylim=(0, None))
    axes.legend()
    return axes.figure


def evaluate(
    trainer: Trainer, dataset: TextClassificationDataset, texts: Sequence[str]
) -> dict[str, float]:
    """Show a table per class and a few predictions, draw the confusion matrix; return metrics."""
    predicted, probabilities, metrics = predict(trainer, dataset, "eval")
    labels = probabilities.columns[dataset.labels.numpy()]
    frequent = dict(Counter([*labels, *predicted, *probabilities]).most_common(30))
    names = [name for name in probabilities if name in frequent]
    figure = Figure(figsize=2 * [2 + 0.7 * len(names)], layout="constrained")
    if len(names) < len(probabilities.columns):
        figure.suptitle(f"The {len(names)} most frequent classes of {len(probabilities.columns)}")
    ConfusionMatrixDisplay.from_predictions(
        labels,
        predicted,
        labels=names,
        # A dollar would begin mathematics.
        display_labels=[name.replace("$", r"\$") for name in names],
        xticks_rotation="vertical",
        cmap="Blues",
        colorbar=False,
        ax=figure.subplots(),
    )
    with whole_files(trainer.args.output_dir) as folder:
        figure.savefig(folder / "confusion_matrix.png", dpi=120)
    print(classification_report(labels, predicted, zero_division=0))
    best = probabilities.max(axis=1)
    for text, label, probability in zip(texts[:12], predicted, best, strict=False):
        print(f"  {label} {probability:.3f}  {' '.join(text.split()):.90}")
    if len(set(predicted)) == 1 < len(set(labels)):
        print(f"warning: all rows are called {predicted[0]!r}: {MORE_TRAINING}")
    return metrics


MORE_TRAINING = "try --num_train_epochs 20 --learning_rate 1e-4 with the other flags as they are"


def compare_with_baseline(
    tables: dict[str, pd.DataFrame], accuracy: float, class_weight: str | None = None
) -> dict[str, float]:
    """Train TF-IDF with logistic regression on the same rows; print and return how good it is.

    A labelled test file, which chose nothing, tells more than the rows of the validation.
    Both accuracies have the 95 % interval of E. B. Wilson (1927), https://doi.org/10.2307/2276774.
    """
    texts, validation = joined(tables["train"]), tables["validation"]
    words = {"token_pattern": r"\w+|[^\w\s]"}
    # Chinese, Thai: no spaces between words.
    if texts.str.len().sum() > 20 * texts.str.count(r"\s+").sum():
        words = {"analyzer": "char", "ngram_range": (1, 3)}
    classifier = LogisticRegression(max_iter=1000, class_weight=class_weight)
    model = make_pipeline(TfidfVectorizer(**words), classifier)
    predicted = model.fit(texts, tables["train"]["label"]).predict(joined(validation))
    metrics = accuracy_and_f1(validation["label"], predicted, "baseline_")
    baseline, rows = metrics["baseline_accuracy"], len(validation)
    print(f"Accuracy of {rows:,} rows, which chose BERT's epoch, with 95 % intervals:")
    for name, share in (("TF-IDF", baseline), ("BERT", accuracy)):
        interval = binomtest(round(share * rows), rows).proportion_ci(method="wilson")
        print(f"  {name} {share:.3f} ({interval.low:.3f} to {interval.high:.3f})")
    if accuracy <= baseline and accuracy < 1:
        print(f"warning: BERT is not better than counting words: {MORE_TRAINING}")
    return metrics


def predict(
    trainer: Trainer, dataset: TextClassificationDataset, prefix: str = "test"
) -> tuple[np.ndarray, pd.DataFrame, dict[str, float]]:
    """Return the likeliest classes, a column of probabilities for each class, and the metrics.

    Rows stand in the dataset's order.
    """
    batches = dataset.longest_first()
    output = trainer.predict(batches, metric_key_prefix=prefix)
    scores = torch.from_numpy(output.predictions).double().softmax(-1).numpy()
    table = pd.DataFrame(scores, batches.indices).sort_index()
    table = table.rename(columns=trainer.model.config.id2label)
    return table.columns.to_numpy()[table.to_numpy().argmax(-1)], table, output.metrics


def write_predictions(
    trainer: Trainer, dataset: TextClassificationDataset, table: pd.DataFrame
) -> dict[str, float]:
    """Write predictions.tsv, a row per row of the table; return the metrics.

    Columns: those of the table (its label as `true_label`), the likeliest label, its probability,
    then that of each class. A blank text has none. Rows that have a label are scored.
    """
    predicted, probabilities, metrics = predict(trainer, dataset)
    table = table.reset_index(drop=True)
    labels, blank = table.pop("label"), table["text"] == ""
    scored = labels.isin(probabilities.columns) & ~blank
    print(f"test: {blank.sum():,} rows have no text: no prediction; {scored.sum():,} are scored")
    if scored.any():
        metrics |= accuracy_and_f1(labels[scored], predicted[scored], "test_")
    if (labels != "").any():
        table["true_label"] = labels
    columns = pd.DataFrame({"label": predicted, "probability": probabilities.max(axis=1)})
    columns = pd.concat([columns, probabilities], axis=1).round(6)
    table = pd.concat([table, columns[~blank]], axis=1).replace(r"[\t\r\n]+", " ", regex=True)
    table.columns = table.columns.str.replace(r"\s+", " ", regex=True)
    with whole_files(trainer.args.output_dir) as folder:
        file = folder / "predictions.tsv"
        table.to_csv(file, sep="\t", index=False, quoting=csv.QUOTE_NONE)
    return metrics


def next_command(args: ScriptArguments) -> str:
    """Return the flags that predict with this model; say if it is --smoke's."""
    if args.smoke and args.train_file:
        print("A tiny model was tried: its quality tells nothing about that of a real one")
    flags = ["--do_predict", "--test_file", "FILE"]
    for name in PREDICTION_FLAGS:
        value = str(getattr(args, name))
        if value != str(getattr(ScriptArguments, name)):
            flags += [f"--{name}", value]
    return shlex.join(flags)


# Speed: the same, faster --------------------------------------------------------------------------


def cut_padding(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Do what `default_collate` does, and cut the batch to its longest row: the same loss.

    A sentence of SST-2 has a sixth of 128 tokens: the training takes a fifth of the time.
    """
    # (batch, max_seq_length), and labels (batch,)
    batch = default_collate(items)
    longest = batch["attention_mask"].sum(dim=1).max()
    labels = {"labels": batch.pop("labels")} if "labels" in batch else {}
    return {name: tensor[:, :longest] for name, tensor in batch.items()} | labels


class ShuffledBatchesSampler(Sampler):
    """Do what `RandomSampler` does, with rows of like length in a batch: hardly any padding.

    Windows of 100 batches are sorted by length and cut into batches, which are then shuffled.
    Seed and epoch alone decide the order, so that a resumed run repeats it. The library's own
    grouping would look at the padded length. `lengths`: tokens of each row, int64 (rows,);
    `epoch` tells the number of the epoch.
    """

    def __init__(self, batch_size: int, lengths: torch.Tensor, seed: int, epoch: Callable[[], int]):
        self.batch_size, self.lengths, self.seed, self.epoch = batch_size, lengths, seed, epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1000 + self.epoch())
        batches, order = [], torch.randperm(len(self), generator=generator)
        for window in order.split(100 * self.batch_size):
            rows = window[self.lengths[window].argsort(stable=True)]
            batches += rows.split(self.batch_size)
        # The last may be smaller: it stays last.
        *batches, last = batches
        order = torch.randperm(len(batches), generator=generator)
        return iter(torch.cat([*(batches[number] for number in order), last]).tolist())


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


# Plumbing: nothing below is about BERT ------------------------------------------------------------


class InputError(ValueError):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def parse_arguments(argv: list[str] | None) -> tuple[ScriptArguments, FineTuningArguments]:
    """Parse the command line, and choose the steps; bad usage raises InputError."""
    # A text may be long.
    csv.field_size_limit(2**31 - 1)
    # From pictures, whose font lacks most languages.
    warnings.filterwarnings("ignore", "Glyph")
    args, training_args = parse(argv, ScriptArguments, FineTuningArguments)
    if not (training_args.do_train or training_args.do_eval or training_args.do_predict):
        training_args.do_train = training_args.do_eval = True
        training_args.do_predict = bool(args.test_file or not args.train_file)
    if args.smoke and not training_args.do_train:
        raise InputError("--smoke builds a model to train: leave it out to use a saved one")
    if args.smoke:
        # So small a model gains nothing from more.
        torch.set_num_threads(1)
    return args, training_args


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


def load_table(path: str, args: ScriptArguments, split: str) -> pd.DataFrame:
    """Return the rows of a file; its columns with text and labels have these names, and no blanks.

    Raises InputError with all rows that lack something; rows to predict may.
    """
    table = read_table(path, args.column_names, args.encoding)
    if split == "test" and args.label_column not in table:
        table[args.label_column] = ""
    names = {args.text_column: "text", args.label_column: "label"}
    if args.text_pair_column:
        names[args.text_pair_column] = "text_pair"
    for column, name in names.items():
        if column not in table:
            raise InputError(f"{path}: no {column!r} among {list(table)}: give --{name}_column")
    table = table.drop(columns={"text", "text_pair", "label"} - set(names), errors="ignore")
    table = table.rename(columns=names)
    # 1.0, as gaps in a column make of 1, is 1.
    table["label"] = table["label"].str.replace(r"^(-?\d+)\.0$", r"\1", regex=True)
    faults, blank = [], table[[*names.values()]] == ""
    for name in blank.columns[blank.any()]:
        rows = table.index[blank[name]].tolist()
        faults.append(f"the {name} is blank in {len(rows):,} rows: {rows[:5]}")
    if split == "test" or not faults:
        return table
    found = f"{path}, counted as a spreadsheet does: {', '.join(faults)}"
    if not args.skip_blank_rows or blank.any(axis=1).all():
        raise InputError(f"{found}: fill them, or leave them out with --skip_blank_rows")
    print(f"{found}: left out")
    return table[~blank.any(axis=1)]


def read_table(
    path: str, column_names: list[str] | None = None, encoding: str = "utf-8-sig"
) -> pd.DataFrame:
    """Read CSV, TSV, Excel, JSON lines or Parquet, all as str without spaces around it.

    The index is the number of a row as a spreadsheet counts: a header is row 1. Raises InputError.
    """
    suffix, rows = Path(path).suffix.lower(), []
    header = suffix not in ("", ".parquet", ".json", ".jsonl") and not column_names
    try:
        if suffix in ("", ".parquet"):
            # So that bytes become text.
            table = pd.read_parquet(path, dtype_backend="pyarrow")
        elif suffix == ".xlsx":
            options = {"dtype": str, "keep_default_na": False, "header": 0 if header else None}
            table = pd.read_excel(path, **options)
            table.columns = column_names or table.columns
        else:
            text = Path(path).read_text(encoding=encoding_of(path, encoding))
            rows.extend(map(dict, rows_of(text.rstrip(), suffix, column_names)))
            table = pd.DataFrame(rows, dtype=object)
    except UnicodeError as error:
        raise InputError(f"{path}: {error}: name its --encoding, such as cp1252") from error
    except (csv.Error, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}, row {1 + header + len(rows)}: {error}") from error
    table.index = range(1 + header, 1 + header + len(table))
    if table.empty:
        raise InputError(f"{path}: no rows")
    # Where the rest of a row is.
    if None in table:
        row = table[None].first_valid_index()
        raise InputError(f"{path}, row {row}: more columns than names: look at its quotes")
    return table.astype("string").fillna("").apply(lambda texts: texts.str.strip())


def rows_of(text: str, suffix: str, column_names: list[str] | None) -> Iterator[Iterable]:
    """Return the rows of CSV, of TSV or, an object a line, of JSON: what `dict` takes.

    A blank line of a table is a row, too: predictions stay beside their rows.
    """
    if suffix in (".json", ".jsonl"):
        return (json.loads(line) for line in text.split("\n") if line.strip())
    header = text.partition("\n")[0]
    separator = "\t" if suffix == ".tsv" else max(",;\t", key=header.count)
    if separator == ";":
        print("The columns are separated by semicolons")
    # TSV has plain quotes; if one is doubled in a field in quotes, Excel wrote it.
    excel = re.search(r'(?m)(?:^|\t)"[^"\t]*(?:""[^"\t]*)+"(?=[\t\n])', text)
    plain = separator == "\t" and not excel
    options = {"quoting": csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, "strict": True}
    options |= {"skipinitialspace": True, "delimiter": separator}
    rows = csv.reader(io.StringIO(text), **options)
    names = column_names or next(rows, [])
    return (itertools.zip_longest(names, row) for row in rows)


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


# What of the flags of a training a prediction needs, too.
PREDICTION_FLAGS = ("model_name_or_path", "text_column", "text_pair_column", "max_seq_length")
PREDICTION_FLAGS += ("encoding",)
# What PyTorch says, and what helps.
SMALLER = (
    "give a smaller --per_device_train_batch_size, --per_device_eval_batch_size or --max_seq_length"
)
REMEDIES = {
    "out of memory": SMALLER,
    "allocate memory": SMALLER,
    "executable batch size": SMALLER,
    "inline_container": "is the disk full?",
    "to be installed": "pip install it",
}
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
