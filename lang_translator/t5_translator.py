# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate>=1.10",
#     "huggingface_hub>=1.5",
#     "matplotlib>=3.10",
#     "sacrebleu>=2.5",
#     "safetensors>=0.6",
#     "tokenizers>=0.22",
#     "torch>=2.11",
#     "tqdm>=4.67",
#     "transformers>=5.10",
# ]
# ///
# SPDX-License-Identifier: MIT
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-28
"""Translate with T5: a sentence, a file of any size or a pipe; fine-tune it on your own pairs.

python t5_translator.py --smoke                                           # seconds, no download
python t5_translator.py --input_file english.txt --output_file german.txt     # t5-small, the hub's
python t5_translator.py --do_train --train_file pairs.tsv --target_lang French

The encoder reads x, "translate English to German: " and the text. From it and from the tokens
before it the decoder finds how probable every token of the translation y is:

    p(y | x) = p(y_1 | x) p(y_2 | x, y_1) p(y_3 | x, y_1, y_2) ...

Training minimizes the cross-entropy: the mean of -log p(y_t | x, y_1 ... y_t-1) over the tokens of
right translations. The tokens before y_t are the right ones, not the model's own (teacher forcing),
so that all positions are computed at once. Translating goes token by token: the most probable
follows (greedy search), or the best few beginnings are kept (beam search).

    input_ids, attention_mask    (batch, source)              x, </s>; padding
    encoder's last_hidden_state  (batch, source, d_model)
    labels                       (batch, target)              y_1 y_2 ... </s>; -100 for padding
    decoder_input_ids            (batch, target)              <pad> y_1 y_2 ...: one place later
    logits                       (batch, target, vocabulary)  of the token at this place of `labels`

Read `main`, then the functions and classes in the order in which it uses them. "Speed" has what
makes it fast, and what own files need; below "Plumbing" nothing is about T5.
"""

import argparse
import codecs
import copy
import csv
import ctypes
import gc
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch
import transformers
from accelerate import PartialState
from huggingface_hub import HfApi, create_repo, snapshot_download, upload_folder
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import enable_progress_bars
from matplotlib.figure import Figure
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from safetensors import SafetensorError
from tokenizers import Regex, pre_tokenizers
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    EarlyStoppingCallback,
    Seq2SeqTrainer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
    Trainer,
)
from transformers.hf_argparser import HfArg, HfArgumentParser

# Sources and targets.
Pairs = list[tuple[str, str]]
# `translate` with all its arguments but the texts.
Run = Callable[[list[str]], list[str]]
# In a source with its prompt, as in T5's training.
MAX_TOKENS = 512
# Of a file, in memory at a time.
WINDOW_LINES = 4096


@dataclass
class ScriptArguments:
    """Flags of this script; every flag of `Seq2SeqTrainingArguments` works beside them."""

    smoke: bool = HfArg(default=False, help="Train a tiny model: no download, seconds.")
    model_name_or_path: str = HfArg(default="t5-small", help="Hub name or folder.")
    text: list[str] | None = HfArg(default=None, help="Texts to translate.")
    input_file: str | None = HfArg(default=None, help="A text per line; -: standard input.")
    output_file: str | None = HfArg(default=None, help="Default: standard output.")
    reference_file: str | None = HfArg(default=None, help="Right translations, to score it.")
    encoding: str = HfArg(default="utf-8-sig", help="Of text files; Excel's may be cp1252.")
    train_file: str | None = HfArg(default=None, help="TSV, CSV or JSON lines of pairs.")
    validation_file: str | None = HfArg(default=None, help="The same, to choose an epoch.")


@dataclass
class TranslationArguments:
    """How to translate: the keyword arguments of `translate`."""

    source_lang: str = HfArg(default="English", help="Language of the texts.")
    target_lang: str = HfArg(default="German", help="Language of translations.")
    source_prefix: str | None = HfArg(default=None, help="In place of T5's words for these.")
    num_beams: int = HfArg(default=1, help="1: greedy, the fastest; 4: a little better.")
    no_repeat_ngram_size: int = HfArg(default=0, help="3: no three tokens stand twice.")
    max_new_tokens: int | None = HfArg(default=None, help="Default: twice the source's, and 50.")
    batch_tokens: int | None = HfArg(default=None, help="In a batch: 4096, on a GPU 32768.")


@dataclass
class FineTuningArguments(transformers.Seq2SeqTrainingArguments):
    """The recipe: `Seq2SeqTrainingArguments` with defaults for fine-tuning T5."""

    output_dir: str = "outputs/t5_translator"
    per_device_train_batch_size: int = 32
    learning_rate: float = 3e-4
    warmup_steps: float = 0.1
    logging_steps: float = 0.05
    # True would hide a loss of NaN, and let a GPU wait in every step.
    logging_nan_inf_filter: bool = False
    save_strategy: str = "epoch"
    save_total_limit: int = 1
    eval_strategy: str = "epoch"
    load_best_model_at_end: bool = True
    # Stop after so many evaluations in a row without a lower loss.
    early_stopping_patience: int | None = None


def main(argv: list[str] | None = None) -> None:
    """Fine-tune where asked to; then translate a file, a pipe or a few texts."""
    args, options, training_args = parse_arguments(argv)
    name, resume = args.model_name_or_path, training_args.resume_from_checkpoint
    prepare(training_args, name)
    pairs = load_pairs(args)
    prompt = build_prompt(options["source_lang"], options["target_lang"], options["source_prefix"])
    tokenizer, model = tiny(pairs["train"], prompt) if args.smoke else pretrained(name)
    metrics = {}
    if training_args.do_train:
        trainer = build_trainer(model, tokenizer, training_args, pairs, prompt)
        metrics |= train(trainer)
        args.model_name_or_path = training_args.output_dir
    model.to(training_args.device, torch.bfloat16 if training_args.bf16 else torch.float32)
    run = partial(translate, model=model, tokenizer=tokenizer, **options)
    if training_args.do_train:
        metrics |= evaluate(pairs, run)
    if args.output_file:
        metrics |= translate_file(args, run, resume)
    elif args.text:
        demonstrate(args.text, tokenizer, prompt, run)
    elif args.input_file:
        translate_to_screen(args.input_file, args.encoding, run)
    if metrics and training_args.process_index == 0:
        report(metrics, training_args, args.model_name_or_path, next_command(args, options))


def load_pairs(args: ScriptArguments) -> dict[str, Pairs]:
    """Return the pairs `train`, and `validation` if there are any: own files or the sample."""
    # A wrong name shall not cost a training.
    for path in {args.input_file, args.reference_file} - {None, "-"}:
        os.stat(path)
    files = {"train": args.train_file, "validation": args.validation_file}
    own = {name: read_pairs(path, args.encoding) for name, path in files.items() if path}
    return {"train": SAMPLE_PAIRS} | own


def read_pairs(path: str, encoding: str = "utf-8-sig") -> list[tuple[str, str]]:
    """Read sources and targets: the first two columns of TSV or CSV, or JSON lines.

    In TSV quotes are plain characters; of CSV the first row is a header. Raises InputError for all
    rows at once that have a blank text, or not as many columns as the first.
    """
    lines, kind = list(read_lines(path, encoding)), Path(path).suffix.lower()
    if kind == ".csv":
        rows = csv_rows(path, lines)
    elif kind in (".json", ".jsonl"):
        rows = json_rows(lines)
    else:
        rows = [line.split("\t") for line in lines]
    # Anki's files have more than two.
    columns = max([2, *map(len, rows[:1])])
    faulty = [
        str(number)
        for number, row in enumerate(rows, 1)
        if len(row) != columns or not all(map(str.strip, row[:2]))
    ]
    if faulty:
        found = f"{path}, row {', '.join(faulty[:5])}: {len(faulty)} of {len(rows)} rows"
        remedy = "give SOURCE and TARGET in each"
        raise InputError(f"{found} lack a text or have other columns than the first: {remedy}")
    if kind == ".csv" and rows:
        print(f"{path}: the first row, {rows.pop(0)}, is taken for a header", file=sys.stderr)
    if not rows:
        raise InputError(f"{path}: no rows")
    pairs = [(row[0].replace("\n", " "), row[1].replace("\n", " ")) for row in rows]
    print(f"{path}: {len(pairs)} pairs, the first: {pairs[0]}", file=sys.stderr)
    return pairs


def csv_rows(path: str, lines: list[str]) -> list[list[str]]:
    """Return the rows of CSV, separated by the commas, semicolons or tabs of its header."""
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    rows = []
    try:
        rows.extend(csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, row {len(rows) + 1}: {error}") from error
    return rows


def build_prompt(source_lang: str, target_lang: str, source_prefix: str | None = None) -> str:
    """Return the words before a text from which T5 knows its task."""
    if source_prefix is not None:
        return source_prefix
    return f"translate {source_lang} to {target_lang}: "


def tiny(pairs: Pairs, prompt: str) -> tuple[T5Tokenizer, T5ForConditionalGeneration]:
    """For --smoke: a vocabulary of the pairs' words and characters, and a small T5 to train."""
    text = " ".join([prompt, *map(" ".join, pairs)])
    # Tokens and their log probabilities; characters spell what is no word here.
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(f"▁{word}", -1.0) for word in list(dict.fromkeys(text.split()))[:8000]]
    vocabulary += [(character, -10.0) for character in sorted({"▁", *text})]
    tokenizer = T5Tokenizer(vocabulary, extra_ids=0)
    keep_control_tokens_out(tokenizer)
    config = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **TINY_SIZE)
    return tokenizer, T5ForConditionalGeneration(config)


def pretrained(name: str) -> tuple[T5Tokenizer, T5ForConditionalGeneration]:
    """Load a checkpoint from a folder or the hub. Raises InputError if it is not complete."""
    folder = fetch(name)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if config.model_type not in ("t5", "mt5", "umt5"):
            raise ValueError(f"it is a {config.model_type} model, not a T5")
        tokenizer = T5Tokenizer.from_pretrained(folder)
        options = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
        model, loading = AutoModelForSeq2SeqLM.from_pretrained(folder, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"cannot load {name}: {error}") from error
    known, size, lost = len(tokenizer), config.vocab_size, sorted(loading["missing_keys"])
    # Without its files a tokenizer loads silently, and so does a model without some weights.
    if lost or not size / 2 < known <= size:
        raise InputError(f"{name} lacks {lost[:1] or 'tokens'}: it knows {known} of {size}")
    keep_control_tokens_out(tokenizer)
    return tokenizer, model


def keep_control_tokens_out(tokenizer: T5Tokenizer) -> None:
    """Let `</s>`, `<extra_id_0>` and their like in a text be text: only the tokenizer adds them."""
    tokenizer.split_special_tokens = True
    # They are pieces of the vocabulary, too. A cut after their first letter keeps words from it.
    rest = "|".join(re.escape(token[1:]) for token in tokenizer.all_special_tokens)
    cut = pre_tokenizers.Split(Regex(f"<(?={rest})"), "isolated")
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([backend.pre_tokenizer, cut])


def build_trainer(
    model: T5ForConditionalGeneration,
    tokenizer: T5Tokenizer,
    training_args: FineTuningArguments,
    pairs: dict[str, Pairs],
    prompt: str,
) -> Seq2SeqTrainer:
    """Return the trainer of `train`; with `validation` it keeps the epoch of the least loss."""
    args = copy.copy(training_args)
    # It would upload a binary and no pictures: see `report`.
    args.push_to_hub = False
    datasets = {split: encode_pairs(pairs[split], tokenizer, prompt) for split in pairs}
    if "validation" not in pairs:
        args.eval_strategy, args.load_best_model_at_end = "no", False
        warn("scores are of training pairs: no --validation_file")
    trainer = Seq2SeqTrainer(
        model,
        args,
        # It pads, and makes decoder_input_ids: the labels, one place later (teacher forcing).
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        train_dataset=datasets["train"],
        eval_dataset=datasets.get("validation"),
        processing_class=tokenizer,
        compute_loss_func=partial(mean_loss, label_smoothing=args.label_smoothing_factor),
    )
    patience = getattr(args, "early_stopping_patience", None)
    if patience and args.eval_strategy == "no":
        raise InputError("--early_stopping_patience: give a --validation_file, and save epochs")
    if patience:
        trainer.add_callback(EarlyStoppingCallback(patience))
    return trainer


def encode_pairs(pairs: Pairs, tokenizer: T5Tokenizer, prompt: str) -> list[dict]:
    """Return a row for each pair: `input_ids` of prompt and source, the target's as `labels`.

    They are lists of at most MAX_TOKENS ids, of which the last is `</s>`.
    """
    last = MAX_TOKENS - 1
    sources = tokenize([prompt + source for source, _ in pairs], tokenizer, "sources")
    targets = tokenize([target for _, target in pairs], tokenizer, "targets")
    rows = []
    for source, target in zip(sources, targets, strict=True):
        row = {"input_ids": source, "labels": target}
        rows.append({name: ids[:last] + ids[last:][-1:] for name, ids in row.items()})
    return rows


def mean_loss(
    outputs: transformers.utils.ModelOutput,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy of labels (batch, target), -100 for padding, per token.

    The tokens are those of all processes and accumulated batches; the model's own loss would
    weigh a short batch like a long one. Without gradients, in an evaluation, nothing is smoothed.
    """
    smoothing = label_smoothing if outputs.logits.requires_grad else 0.0
    options = {"reduction": "sum", "label_smoothing": smoothing}
    logits, labels = outputs.logits.flatten(0, 1), labels.flatten()
    return torch.nn.functional.cross_entropy(logits, labels, **options) / num_items_in_batch


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


def evaluate(pairs: dict[str, Pairs], run: Run) -> dict[str, float]:
    """Translate the sources of `validation`, print 20 translations, and return the scores of all.

    Their names begin with eval_. Without such pairs it is 20 of `train`, and train_.
    """
    prefix, rows = "train", pairs["train"][:20]
    if "validation" in pairs:
        prefix, rows = "eval", pairs["validation"]
    translations = run([source for source, _ in rows])
    for (source, _), translation in zip(rows[:20], translations, strict=False):
        print(f"  {source} -> {translation}")
    scores = score_and_sign(translations, [target for _, target in rows])
    return {f"{prefix}_{name}": score for name, score in scores.items()}


def score_and_sign(translations: list[str], references: list[str]) -> dict[str, float]:
    """Return what `score` does, and print how sacrebleu counted."""
    metrics = choose_metrics(references)
    scores = score(translations, references, metrics)
    print("sacrebleu:", *(metric.get_signature() for metric in metrics.values()))
    return scores


def choose_metrics(references: Sequence[str], lowercase: bool = False) -> dict[str, BLEU | CHRF]:
    """Return sacrebleu's BLEU and chrF for such texts: BLEU counts words where spaces part them."""
    text = "".join(references)
    han, kana, others = (len(re.findall(letters, text)) for letters in UNSPACED)
    words = sum(len(reference.split()) for reference in references)
    tokenizer = "13a"
    if han + kana + others > len(text) / 4:
        tokenizer = "zh" if han > 20 * kana + others else "char"
        if 20 * kana > han + others and find_spec("ipadic"):
            tokenizer = "ja-mecab"
    # A word each, or very long words.
    elif words <= max(len(references), len(text) / 20):
        tokenizer = "char"
    return {"bleu": BLEU(lowercase, tokenize=tokenizer), "chrf": CHRF(lowercase=lowercase)}


# Letters of Chinese, of Japanese alone, and of Thai, Lao, Tibetan, Burmese and Khmer.
UNSPACED = (
    r"[\u3400-\u9fff\U00020000-\U0003ffff]",
    r"[\u3040-\u30ff]",
    r"[\u0e00-\u109f\u1780-\u17ff]",
)


def score(
    translations: Sequence[str],
    references: Sequence[str],
    metrics: dict[str, BLEU | CHRF] | None = None,
) -> dict[str, float]:
    """Return BLEU and chrF, 0 to 100, of translations against one right translation each.

    `bleu_ci` and `chrf_ci` are half the width of 95 % intervals, by bootstrap over the sentences
    (Koehn 2004, https://aclanthology.org/W04-3250). Without `metrics`: those of `choose_metrics`.
    """
    if len(translations) != len(references) or not references:
        raise InputError(f"{len(references)} references for {len(translations)} translations")
    metrics = metrics or choose_metrics(references)
    # sacrebleu holds counts for every sentence of every resample, and has a seed of its own.
    resamples = min(1000, 5_000_000 // len(references))
    systems = [("translations", translations)]
    _, results = PairedTest(systems, metrics, [references], "ar", resamples, resamples)()
    # The systems' names, then a column for each metric.
    _, *columns = results.values()
    scores = {}
    for name, (found,) in zip(metrics, columns, strict=True):
        scores |= {name: found.score, f"{name}_ci": float(found.ci)}
    return scores


@torch.inference_mode()
def translate(
    texts: Sequence[str],
    model: T5ForConditionalGeneration,
    tokenizer: T5Tokenizer,
    source_lang: str = "English",
    target_lang: str = "German",
    source_prefix: str | None = None,
    fast: bool = True,
    **search: int | None,
) -> list[str]:
    """Translate texts, each into one line; return them in the order of the texts.

    A blank text stays blank. `generate_faster` does the work, or with `fast=False` the plain
    `generate`, which returns the same; `search` are their arguments.
    """
    prompt = build_prompt(source_lang, target_lang, source_prefix)
    prompts = {number: prompt + text for number, text in enumerate(texts) if text.strip()}
    rows = tokenize([*prompts.values()], tokenizer, "texts")
    # No dropout.
    training = model.training
    model.eval()
    outputs = (generate_faster if fast else generate)(model, tokenizer, rows, **search)
    model.train(training)
    translations, cut, ends = [""] * len(texts), 0, set(tokenizer.all_special_ids)
    for number, ids in zip(prompts, outputs, strict=True):
        translations[number] = " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())
        cut += ids[-1] not in ends
    if cut:
        warn(f"{cut} of {len(texts)} translations are cut at --max_new_tokens")
    return translations


def tokenize(texts: Sequence[str], tokenizer: T5Tokenizer, name: str) -> list[list[int]]:
    """Return the token ids of texts, each with `</s>`; warn of what T5 does not know.

    Those are letters, and texts of a length that it has not seen in its training.
    """
    rows = tokenizer(texts).input_ids if texts else []
    both = list(zip(texts, rows, strict=True))
    unknown = tokenizer.unk_token_id
    faults = {
        f"have more than {MAX_TOKENS} tokens": [t for t, ids in both if len(ids) > MAX_TOKENS],
        "hold letters that get lost (mT5 has most)": [t for t, ids in both if unknown in ids],
    }
    for fault, found in faults.items():
        if found:
            warn(f"{len(found)} of {len(rows)} {name} {fault}: {found[0][:80]!r}")
    return rows


def generate(
    model: T5ForConditionalGeneration,
    tokenizer: T5Tokenizer,
    rows: list[list[int]],
    max_new_tokens: int | None = None,
    batch_size: int = 32,
    **search: object,
) -> list[list[int]]:
    """Return the translations of rows of token ids, in batches of rows as they come.

    Without `max_new_tokens` they have at most twice as many as a batch's longest row, and 50.
    """
    outputs = []
    for start in range(0, len(rows), batch_size):
        batch = {"input_ids": rows[start : start + batch_size]}
        # input_ids and attention_mask: (batch, source)
        inputs = tokenizer.pad(batch, return_tensors="pt").to(model.device)
        limit = max_new_tokens or 2 * inputs.input_ids.shape[1] + 50
        options = {"max_new_tokens": limit, "num_beams": 1, "do_sample": False, "use_cache": True}
        options |= search
        output = model.generate(**inputs, **options)
        # (batch, target), which starts with <pad>
        outputs += output[:, 1:].tolist()
    return outputs


def demonstrate(texts: list[str], tokenizer: T5Tokenizer, prompt: str, run: Run) -> None:
    """Print the tokens and ids that the model reads, and its translation."""
    for text, translation in zip(texts, run(texts), strict=True):
        ids = tokenizer(prompt + text).input_ids
        print(f"Source: {text}")
        print("Tokens:", *tokenizer.convert_ids_to_tokens(ids))
        print("Ids:", ids)
        print(f"Translation: {translation}\n")


# Speed: the same, faster --------------------------------------------------------------------------


def generate_faster(
    model: T5ForConditionalGeneration,
    tokenizer: T5Tokenizer,
    rows: list[list[int]],
    batch_tokens: int | None = None,
    **search: object,
) -> list[list[int]]:
    """Return what `generate` does, 1.6 times as fast on a CPU: rows of like length share a batch.

    `batch_tokens`, padding included, is 4,096 on a CPU, else 32,768. Only translations that reach
    the limit, which follows the batch, may differ.
    """
    batch_tokens = batch_tokens or (4096 if model.device.type == "cpu" else 32768)
    if search.get("num_beams", 1) == 1:
        search["custom_generate"] = greedy
    outputs = [[]] * len(rows)
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
    while order:
        size = max(1, batch_tokens // len(rows[order[0]]))
        numbers, order = order[:size], order[size:]
        batch = [rows[number] for number in numbers]
        found = generate(model, tokenizer, batch, batch_size=size, **search)
        for number, ids in zip(numbers, found, strict=True):
            outputs[number] = ids
    return outputs


def greedy(
    model: T5ForConditionalGeneration,
    input_ids: torch.Tensor,
    **state: object,
) -> torch.Tensor:
    """Search as `model.generate` does without beams; it calls this, as its `custom_generate`.

    Returns ids (batch, target), padded. A sentence that has ended leaves batch and caches, so that
    no step computes for it: on sentences of unlike length 1.8 times as fast.
    """
    config, cache = state["generation_config"], state["past_key_values"]
    # (left, source), (left, source, d_model), (left, 1): a row for each sentence without an end
    mask, encoded, tokens = state["attention_mask"], state["encoder_outputs"][0], input_ids
    numbers = torch.arange(len(mask), device=mask.device)
    # One id ends a sentence, or several do.
    ends = input_ids.new_tensor([config.eos_token_id]).flatten()
    output = input_ids.new_full((len(mask), config.max_length), config.pad_token_id)
    output[:, :1] = input_ids
    for step in range(1, config.max_length):
        # logits: (left, vocabulary). argmax would be far slower on a CPU.
        given = {"attention_mask": mask, "encoder_outputs": (encoded,), "past_key_values": cache}
        logits = model(decoder_input_ids=tokens, **given).logits[:, -1]
        # What the checkpoint asks for, such as a penalty of repetitions.
        scores = state["logits_processor"](output[numbers, :step], logits)
        tokens = scores.max(-1, keepdim=True).indices
        output[numbers, step] = tokens[:, 0]
        left = (~torch.isin(tokens[:, 0], ends)).nonzero()[:, 0]
        if not len(left):
            break
        if len(left) < len(numbers):
            cache.batch_select_indices(left)
            encoded, mask = encoded[left], mask[left]
            numbers, tokens = numbers[left], tokens[left]
    return output


def windows(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield WINDOW_LINES texts at a time: memory stays flat."""
    texts = iter(texts)
    while window := list(islice(texts, WINDOW_LINES)):
        yield window


def translate_to_screen(path: str, encoding: str, run: Run) -> None:
    """Translate a file or a pipe (`-`) to standard output, in UTF-8, window by window."""
    if path == "-":
        print("Translating standard input", file=sys.stderr)
    # A notebook's takes text of any kind.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    for texts in windows(read_lines(path, encoding)):
        print(*run(texts), sep="\n", flush=True)


def translate_file(args: ScriptArguments, run: Run, resume: str | None) -> dict[str, float]:
    """Translate into `output_file`, which appears when it is complete; return its scores.

    Until then finished windows wait in a hidden folder, named after flags and texts. To `resume`
    (the flag, as it was before `prepare`) does not translate them again: the model must be the
    same. Several processes take turns.
    """
    right = list(read_lines(args.reference_file, args.encoding)) if args.reference_file else []
    output, files, state = Path(args.output_file), [], PartialState()
    folder = output.with_name(f".{output.name}.partial")
    texts = windows(args.text or read_lines(args.input_file, args.encoding))
    for window in tqdm(texts, "Translating", leave=False, disable=None):
        digest = zlib.crc32(f"{args} {run.keywords} {window}".encode())
        files.append(folder / f"{len(files):06}.{digest:08x}.txt")
        turn = len(files) % state.num_processes == state.process_index
        if turn and not (resume and files[-1].exists()):
            lines = "\n".join([*run(window), ""])
            with whole_files(folder) as whole:
                (whole / files[-1].name).write_bytes(lines.encode())
    state.wait_for_everyone()
    if not state.is_main_process:
        return {}
    with whole_files(output.parent) as whole, open(whole / output.name, "wb") as joined:
        joined.writelines(file.read_bytes() for file in files)
    shutil.rmtree(folder, ignore_errors=True)
    if not args.reference_file:
        return {}
    return score_and_sign(list(read_lines(args.output_file)), right)


def json_rows(lines: list[str]) -> list[list[str]]:
    """Return two texts of each line's object, in the order of the first one's keys."""
    rows, keys = [], []
    for line in lines:
        try:
            record = json.loads(line)
            if isinstance(record.get("translation"), dict):
                record = record["translation"]
            keys = keys or list(record)[:2]
            rows.append([str.strip(record[key]) for key in keys])
        # It is no such object.
        except (AttributeError, KeyError, TypeError, ValueError):
            rows.append([])
    return rows


def read_lines(path: str, encoding: str = "utf-8-sig") -> Iterator[str]:
    """Yield the lines of a text file, or of standard input (`-`), without their ends.

    LF, CRLF and CR end a line, and nothing else does.
    """
    # Of a pipe nothing may be read beforehand.
    encoding = encoding_of(path if os.path.isfile(path) else os.devnull, encoding)
    options = {"encoding": encoding, "errors": "surrogateescape", "closefd": path != "-"}
    with open(0 if path == "-" else path, **options) as file:
        for number, line in enumerate(file, 1):
            if NOT_DECODED.search(line):
                found = f"line {number} is not {encoding} text"
                raise InputError(f"{path}, {found}: give --encoding cp1252, or another")
            yield line.removesuffix("\n")


# NUL, and what surrogateescape makes of other bytes.
NOT_DECODED = re.compile("[\0\udc80-\udcff]")


# Plumbing: nothing below is about T5 --------------------------------------------------------------


class InputError(ValueError):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def parse_arguments(argv: list[str] | None) -> tuple[ScriptArguments, dict, FineTuningArguments]:
    """Parse and check the command line; bad usage raises InputError."""
    args, options, training_args = parse(
        argv, ScriptArguments, TranslationArguments, FineTuningArguments
    )
    if args.smoke:
        # So small a model gains nothing from more.
        torch.set_num_threads(1)
    training, several = training_args.do_train, training_args.world_size > 1
    if not (args.text or args.input_file or training):
        if sys.stdin is None or sys.stdin.isatty():
            args.text = SAMPLE_TEXTS
        else:
            args.input_file = "-"
    texts, own = args.text or args.input_file, args.train_file or args.validation_file
    mistakes = {
        "own pairs need --do_train and --train_file": own and not (training and args.train_file),
        "--text and --input_file exclude each other": args.text and args.input_file,
        "--reference_file needs --output_file": args.reference_file and not args.output_file,
        "--output_file needs --text or --input_file": args.output_file and not texts,
        "--num_beams is above 0": options.num_beams < 1,
        "--max_new_tokens is above 0": (options.max_new_tokens or 1) < 1,
        "several processes share a file, not a pipe": several and args.input_file == "-",
    }
    for mistake, made in mistakes.items():
        if made:
            raise InputError(f"{mistake}: see --help")
    return args, vars(options), training_args


def next_command(args: ScriptArguments, options: dict) -> str:
    """Return the flags that translate with the model of this run; say if it is --smoke's."""
    if args.smoke and args.train_file:
        print("A tiny model was tried: its quality tells nothing about that of a real one")
    flags = {"model_name_or_path": args.model_name_or_path, "input_file": "FILE"}
    flags |= {"encoding": args.encoding} | options
    return shlex.join(
        f"--{name}={value}" for name, value in flags.items() if value not in (None, 0)
    )


def warn(message: str) -> None:
    """Print one line to stderr, beside the progress bar if there is one."""
    tqdm.write(f"warning: {message}", sys.stderr)


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


def draw_training_curve(log_history: list[dict[str, float]]) -> Figure:
    """Draw the losses that the trainer logged over the epochs."""
    axes = Figure(layout="constrained").subplots()
    for name in ("loss", "eval_loss"):
        points = {entry["epoch"]: entry[name] for entry in log_history if name in entry}
        axes.plot(points.keys(), points.values(), ".-", label=name)
    axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    axes.legend()
    return axes.figure


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
SMALLER = "give a smaller --per_device_train_batch_size or, to translate, --batch_tokens"
REMEDIES = {
    "out of memory": SMALLER,
    "allocate memory": SMALLER,
    "executable batch size": SMALLER,
    "inline_container": "is the disk full?",
    "to be installed": "pip install it",
}
SMOKE = {
    "do_train": True,
    "bf16": False,
    "learning_rate": 3e-3,
    "max_steps": 200,
    "save_strategy": "no",
}
TINY_SIZE = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.0,
}
SAMPLE_TEXTS = ["The house is wonderful.", "A man in an orange hat is looking at something."]
SAMPLE_PAIRS = [
    ("The house is wonderful.", "Das Haus ist wunderbar."),
    ("The garden behind the house is small.", "Der Garten hinter dem Haus ist klein."),
    ("I am reading a good book.", "Ich lese ein gutes Buch."),
    ("She is reading the newspaper.", "Sie liest die Zeitung."),
    ("Where is the station?", "Wo ist der Bahnhof?"),
    ("The train leaves at eight o'clock.", "Der Zug fährt um acht Uhr ab."),
    ("We are drinking coffee in the kitchen.", "Wir trinken Kaffee in der Küche."),
    ("The children are playing in the snow.", "Die Kinder spielen im Schnee."),
    ("My brother lives in Berlin.", "Mein Bruder wohnt in Berlin."),
    ("My sister works in a hospital.", "Meine Schwester arbeitet in einem Krankenhaus."),
    ("It is raining today.", "Heute regnet es."),
    ("Tomorrow the sun will shine.", "Morgen scheint die Sonne."),
    ("The dog is sleeping under the table.", "Der Hund schläft unter dem Tisch."),
    ("The cat is sitting on the roof.", "Die Katze sitzt auf dem Dach."),
    ("How much does the bread cost?", "Wie viel kostet das Brot?"),
    ("I would like a glass of water.", "Ich möchte ein Glas Wasser."),
    ("He has forgotten his keys.", "Er hat seine Schlüssel vergessen."),
    ("They are building a new bridge.", "Sie bauen eine neue Brücke."),
    ("Can you help me, please?", "Können Sie mir bitte helfen?"),
    ("Good night and sleep well!", "Gute Nacht und schlaf gut!"),
]

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
        # A bug.
        if isinstance(error, RuntimeError) and not remedies:
            raise
        print("error:", " ".join(str(error).split()), *remedies[:1], file=sys.stderr)
        sys.exit(2)
