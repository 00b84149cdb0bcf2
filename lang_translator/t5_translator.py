# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate>=1.10",
#     "filelock>=3.16",
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
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-27
"""Translate with T5: a sentence, a file of any size or a pipe; fine-tune it on your own pairs.

python t5_translator.py --smoke                                           # seconds, no download
python t5_translator.py --input_file english.txt --output_file german.txt     # t5-small, the hub's
python t5_translator.py --do_train --train_file pairs.tsv --target_lang French

Read `main`, then the functions and classes in the order in which it uses them. Flags, files and
errors come last, under "Plumbing": nothing there is about T5.
"""

import argparse
import codecs
import csv
import ctypes
import difflib
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
import threading
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NoReturn

import huggingface_hub
import torch
import transformers
from accelerate import PartialState
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
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from safetensors import SafetensorError
from tokenizers import Regex, pre_tokenizers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import (
    DataCollatorForSeq2Seq,
    DynamicCache,
    EncoderDecoderCache,
    Seq2SeqTrainer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
    Trainer,
)
from transformers.hf_argparser import HfArg
from transformers.integrations import get_reporting_integration_callbacks

Pairs = list[tuple[str, str]]  # source and target
MAX_TOKENS = 512  # of a source with its prompt, as in T5's training


@dataclass
class ScriptArguments:
    """Flags of this script; every flag of `Seq2SeqTrainingArguments` works beside them."""

    smoke: bool = HfArg(default=False, help="Train a tiny model: no download, seconds.")
    model_name_or_path: str = HfArg(default="t5-small", help="Hub name or folder.")
    text: list[str] | None = HfArg(default=None, help="One or more texts to translate.")
    input_file: str | None = HfArg(default=None, help="A text per line; -: standard input.")
    output_file: str | None = HfArg(default=None, help="Default: standard output.")
    reference_file: str | None = HfArg(default=None, help="Right translations, to score it.")
    baseline_file: str | None = HfArg(default=None, help="Another system's, to compare with.")
    encoding: str = HfArg(
        default="utf-8-sig", help="Of text files: cp1252 for Excel's and Word's in Western Europe."
    )
    train_file: str | None = HfArg(default=None, help="TSV, CSV or JSON lines of pairs.")
    validation_file: str | None = HfArg(default=None, help="The same, for BLEU at every epoch.")


@dataclass
class TranslationArguments:
    """How to translate: the keyword arguments of `translate`."""

    source_lang: str = HfArg(default="English", help="Language to translate from.")
    target_lang: str = HfArg(default="German", help="Language to translate to.")
    num_beams: int = HfArg(default=1, help="1: greedy, the fastest; 4: a little better.")
    no_repeat_ngram_size: int = HfArg(
        default=0, help="3: no three tokens stand twice in a translation."
    )
    max_new_tokens: int | None = HfArg(default=None, help="Default: twice the source's, and 50.")
    batch_tokens: int | None = HfArg(
        default=None, help="Source tokens in a batch. Default: 4096 on a CPU, 32768 on a GPU."
    )


@dataclass
class FineTuningArguments(transformers.Seq2SeqTrainingArguments):
    """The recipe: `Seq2SeqTrainingArguments` with defaults for fine-tuning T5."""

    output_dir: str = "outputs/t5_translator"
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    learning_rate: float = 3e-4
    warmup_steps: float = 0.1
    logging_steps: float = 0.05
    logging_nan_inf_filter: bool = False  # it hides a loss of NaN, and lets a GPU wait every step
    save_strategy: str = "epoch"
    save_total_limit: int = 1
    eval_strategy: str = "epoch"
    load_best_model_at_end: bool = True
    metric_for_best_model: Literal["bleu", "loss"] = "bleu"
    predict_with_generate: bool = True
    train_sampling_strategy: Literal["random", "sequential"] = "random"


def main(argv: list[str] | None = None) -> None:
    """Fine-tune where asked to; then translate a file, a pipe or a few texts."""
    args, options, training_args = parse_arguments(argv)
    set_up(training_args)
    data = load_pairs(args)
    prompt = build_prompt(options["source_lang"], options["target_lang"])
    name = args.model_name_or_path
    tokenizer, model = tiny(data["train"], prompt) if args.smoke else pretrained(name)
    metrics = {}
    if training_args.do_train:
        trainer = build_trainer(model, tokenizer, training_args, data, prompt)
        metrics |= train(trainer)
    model.to(training_args.device, torch.bfloat16 if training_args.bf16 else torch.float32)
    if training_args.do_train:
        scores, examples = evaluate(data, model, tokenizer, **options)
        metrics |= scores
        show(examples, metrics, training_args)
    if args.output_file:
        metrics |= translate_file(args, training_args, model, tokenizer, **options)
    elif args.input_file:
        translate_to_screen(args.input_file, args.encoding, model, tokenizer, **options)
    elif args.text:
        demonstrate(args.text, model, tokenizer, **options)
    if metrics and training_args.process_index == 0:  # of several processes one reports
        report(metrics, training_args.output_dir, next_command(args, options, training_args), name)


def build_prompt(source_lang: str, target_lang: str) -> str:
    """Return the words before a text from which T5 knows its task."""
    return f"translate {source_lang} to {target_lang}: "


def tiny(pairs: Pairs, prompt: str) -> tuple[T5Tokenizer, T5ForConditionalGeneration]:
    """For --smoke: a vocabulary of the pairs' words and characters, and a small T5 to train."""
    torch.set_num_threads(1)  # so small a model gains nothing from more
    text = " ".join([prompt, *map(" ".join, pairs)])
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]  # tokens and log probabilities
    vocabulary += [(f"▁{word}", -1.0) for word in list(dict.fromkeys(text.split()))[:8000]]
    vocabulary += [(character, -10.0) for character in sorted({"▁", *text})]  # spell the rest
    tokenizer = T5Tokenizer(vocabulary, extra_ids=0)
    keep_control_tokens_out(tokenizer)
    config = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **TINY_SIZE)
    return tokenizer, T5ForConditionalGeneration(config)


def pretrained(name: str) -> tuple[T5Tokenizer, T5ForConditionalGeneration]:
    """Load a checkpoint from a folder or the hub. Raises InputError if it is not complete."""
    folder = fetch(name, ["t5"])
    try:
        tokenizer = T5Tokenizer.from_pretrained(folder)
        options = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
        model, loading = T5ForConditionalGeneration.from_pretrained(folder, **options)
    except LOADING_ERRORS as error:
        reason = str(error)
        if "tiktoken" in reason:  # which the library tries last, whatever it lacked before
            reason = "to read its spiece.model, pip install sentencepiece protobuf"
        raise InputError(f"cannot load {name}: {reason}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise InputError(f"{name} is no complete T5: it lacks {len(missing)} weights: {missing[0]}")
    check_vocabulary(folder, len(tokenizer), model.config.vocab_size)
    keep_control_tokens_out(tokenizer)
    return tokenizer, model


def keep_control_tokens_out(tokenizer: T5Tokenizer) -> None:
    """Let `</s>`, `<extra_id_0>` and their like in a text be text: only the tokenizer adds them."""
    tokenizer.split_special_tokens = True
    # They are pieces of the vocabulary, too. A cut after their first letter keeps words from it.
    names = [
        f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in tokenizer.all_special_tokens
    ]
    cut = pre_tokenizers.Split(Regex("|".join(names)), "isolated")
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([backend.pre_tokenizer, cut])


def build_trainer(
    model: T5ForConditionalGeneration,
    tokenizer: T5Tokenizer,
    training_args: transformers.Seq2SeqTrainingArguments,
    pairs: dict[str, Pairs],
    prompt: str,
) -> Seq2SeqTrainer:
    """Return the trainer of `train`; with `validation` it keeps the epoch of the best BLEU."""
    if "validation" not in pairs:
        training_args.eval_strategy = "no"
        training_args.load_best_model_at_end = False
    elif training_args.generation_max_length is None:  # that counts the decoder's first token, too
        limit = longest_translation(pairs["validation"], tokenizer, prompt)
        training_args.generation_max_length = limit + 1
    references = [target for _, target in pairs.get("validation", [])]
    bleu = partial(bleu_of_tokens, tokenizer=tokenizer, references=references)
    warn_before_training(pairs, tokenizer, prompt)
    return Seq2SeqTrainer(
        model,
        training_args,
        data_collator=PairCollator(tokenizer, model, prompt=prompt),
        train_dataset=pairs["train"],
        eval_dataset=pairs.get("validation"),
        processing_class=tokenizer,
        compute_loss_func=partial(mean_loss, label_smoothing=training_args.label_smoothing_factor),
        compute_metrics=bleu if training_args.predict_with_generate else None,
    )


@dataclass
class PairCollator(DataCollatorForSeq2Seq):
    """Makes a batch of pairs: the source after the prompt, and the target as `labels`.

    `input_ids`, `attention_mask` (batch, source), `labels`, `decoder_input_ids` (batch, target).
    """

    prompt: str = ""

    def __call__(self, pairs: Pairs, return_tensors: str | None = None) -> dict[str, torch.Tensor]:
        cut = {"truncation": True, "max_length": MAX_TOKENS}
        rows = [self.tokenizer(self.prompt + s, text_target=t, **cut) for s, t in pairs]
        return super().__call__(rows, return_tensors)


def mean_loss(
    outputs: transformers.utils.ModelOutput,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy of labels (batch, target), -100 for padding, per token.

    The tokens are those of all processes and accumulated batches; the model's own loss would
    weigh a short batch like a long one.
    """
    options = {"reduction": "sum", "label_smoothing": label_smoothing}
    total = cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), **options)
    return total / num_items_in_batch


def bleu_of_tokens(
    output: transformers.EvalPrediction, tokenizer: T5Tokenizer, references: list[str]
) -> dict[str, float]:
    """Return BLEU of generated ids (rows, tokens), padded with -100, against the right texts.

    The labels would not do as references: decoded, they lack what the tokenizer cannot write.
    """
    translations = tokenizer.batch_decode(output.predictions.clip(0), skip_special_tokens=True)
    # Several processes fill up their last batch with the first rows once more.
    translations = [one_line(text) for text in translations[: len(references)]]
    right = [one_line(text) for text in references]
    return {"bleu": choose_bleu(right).corpus_score(translations, [right]).score}


def longest_translation(pairs: Pairs, tokenizer: T5Tokenizer, prompt: str) -> int:
    """Return how many tokens translations of these pairs get, by one number for all of them.

    It is the limit of `generate` for the longest source, and no reference is longer.
    """
    sources = tokenizer([prompt + source for source, _ in pairs]).input_ids
    references = tokenizer([reference for _, reference in pairs]).input_ids
    longest = min(MAX_TOKENS, max(map(len, sources)))
    return max(2 * longest + 50, *map(len, references))


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
    data: dict[str, Pairs], model: T5ForConditionalGeneration, tokenizer: T5Tokenizer, **options
) -> tuple[dict[str, float], list[str]]:
    """Translate the pairs `validation`, and return their scores and what to show of them.

    Without `validation` it is the first 20 of `train`: what was learnt by heart, which tells
    nothing about quality. `options` are those of `translate`.
    """
    learnt = "validation" not in data
    pairs = data["train"][:20] if learnt else data["validation"]
    sources = [source for source, _ in pairs]
    references = [one_line(target) for _, target in pairs]
    prompt = build_prompt(options["source_lang"], options["target_lang"])
    # As after every epoch: one model has one BLEU.
    limit = options["max_new_tokens"] or longest_translation(pairs, tokenizer, prompt)
    translations = translate(sources, model, tokenizer, **options | {"max_new_tokens": limit})
    scores = score(translations, references)
    exact = sum(a == b for a, b in zip(translations, references, strict=True))
    examples = [f"  {a} -> {b}" for a, b in zip(sources[:20], translations, strict=False)]
    examples += [f"{exact} of {len(pairs)} translations are exactly the reference"]
    if learnt:
        examples += ["These are training pairs; --validation_file shows how good the model is."]
    return scores, [*examples, *signatures()]


METRICS = {"bleu": BLEU(), "chrf": CHRF()}


def choose_bleu(references: Sequence[str]) -> BLEU:
    """Return METRICS' BLEU with the tokenizer for such texts: not all put spaces between words."""
    text = "".join(references)
    han, kana, others = (len(re.findall(letters, text)) for letters in UNSPACED)
    words = sum(len(reference.split()) for reference in references)
    tokenizer = "13a"
    if kana + han + others > len(text) / 4:
        tokenizer = "zh" if han > 20 * kana + others else "char"
        if 20 * kana > han + others and find_spec("MeCab") and find_spec("ipadic"):
            tokenizer = "ja-mecab"
    elif words <= max(len(references), len(text) / 20):  # a word each, or very long ones
        tokenizer = "char"
    METRICS["bleu"] = BLEU(METRICS["bleu"].lowercase, tokenize=tokenizer)
    return METRICS["bleu"]


# Letters of Chinese, of Japanese alone, and of Thai, Lao, Tibetan, Burmese and Khmer.
UNSPACED = (
    r"[\u3400-\u9fff\U00020000-\U0003ffff]",
    r"[\u3040-\u30ff]",
    r"[\u0e00-\u109f\u1780-\u17ff]",
)


def score(
    translations: Sequence[str], references: Sequence[str], baseline: Sequence[str] | None = None
) -> dict[str, float]:
    """Return BLEU and chrF, 0 to 100, of translations against one right translation each.

    `bleu_ci` is half the width of BLEU's 95 % interval, by bootstrap over the sentences (Koehn
    2004, https://aclanthology.org/W04-3250). With another system's translations, `baseline`, come
    its `bleu_baseline` and `bleu_p`: how often chance alone makes so large a difference, by
    approximate randomization (Riezler and Maxwell 2005, https://aclanthology.org/W05-0908).
    """
    if len(translations) != len(references):
        raise InputError(f"{len(references)} references for {len(translations)} translations")
    choose_bleu(references)
    systems = [("translations", translations)]
    if baseline:
        systems.insert(0, ("baseline", baseline))
    # sacrebleu holds an index for every sentence of every resample, and has a seed of its own.
    resamples = min(1000, 50_000_000 // len(references))
    _, results = PairedTest(systems, METRICS, [references], "ar", resamples, resamples)()
    _, *columns = results.values()  # the systems' names, then a column for each metric
    scores = {}
    for name, (*other, ours) in zip(METRICS, columns, strict=True):
        scores |= {name: ours.score, f"{name}_ci": float(ours.ci)}
        if baseline:
            unlike = sum(a != b for a, b in zip(translations, baseline, strict=True))
            # Of 2^unlike ways to swap them two, all and none, differ as much; sacrebleu drops ties.
            least = 2.0 ** (1 - unlike) if ours.score != other[0].score else 1.0
            scores[f"{name}_baseline"] = other[0].score
            scores[f"{name}_p"] = max(ours.p_value, least)
    return scores


def signatures() -> list[str]:
    """Return how sacrebleu counted the last scores, a line for each metric."""
    return [f"{name}: {metric.get_signature()}" for name, metric in METRICS.items()]


def one_line(text: str) -> str:
    """Return a text with one space for all white space, line ends of any kind included."""
    return " ".join(text.split())


@torch.inference_mode()
def translate(
    texts: Sequence[str],
    model: T5ForConditionalGeneration,
    tokenizer: T5Tokenizer,
    source_lang: str = "English",
    target_lang: str = "German",
    num_beams: int = 1,
    no_repeat_ngram_size: int = 0,
    max_new_tokens: int | None = None,
    batch_tokens: int | None = None,
    first_line: int = 1,
) -> list[str]:
    """Translate texts, each into one line; return them in the order of the texts.

    Rows of like length share a batch. A blank text stays blank, one of more than 512 tokens is
    translated in parts; warnings name a text by its number, which begins at `first_line`. Letters
    that the tokenizer does not know get lost: `unknown_letters` finds them. `batch_tokens`, source
    tokens in a batch, is 4,096 on a CPU, else 32,768; when memory runs out it is halved.
    """
    model.eval()  # no dropout, as in training
    prompt = build_prompt(source_lang, target_lang)
    rows, numbers = encode(texts, tokenizer, prompt, first_line)
    translations = [[] for _ in texts]  # the words
    search = {"num_beams": num_beams, "no_repeat_ngram_size": no_repeat_ngram_size}
    run = partial(generate, model, tokenizer, max_new_tokens=max_new_tokens, **search)
    _, ends, padding = control_ids(model)
    outputs = {}
    tokens = batch_tokens or (4096 if model.device.type == "cpu" else 32768)
    for batch, output in in_batches(rows, tokens, run):
        for i, ids in zip(batch, output, strict=True):
            outputs[i] = tokenizer.decode(ids, True, clean_up_tokenization_spaces=False)
            if ids[-1] not in (padding, *ends):
                line = first_line + numbers[i]
                warn(f"line {line}: cut at --max_new_tokens {len(ids)}")
    for i, number in enumerate(numbers):
        translations[number] += outputs[i].split()
    return [" ".join(words) for words in translations]


def encode(
    texts: Sequence[str], tokenizer: T5Tokenizer, prompt: str, first_line: int = 1
) -> tuple[list[list[int]], list[int]]:
    """Return rows of token ids, prompt and `</s>` included, and the number of each row's text.

    A blank text has no row, and one of more than 512 tokens several.
    """
    rows, numbers = [], []
    *start, end = tokenizer(prompt).input_ids
    encoded = tokenizer([prompt + text for text in texts]).input_ids if texts else []
    for number, ids in enumerate(encoded):
        parts = split_tokens(ids[len(start) : -1], tokenizer, MAX_TOKENS - len(start) - 1)
        if len(parts) > 1:
            found = f"line {first_line + number}: {len(ids)} tokens"
            warn(f"{found}, translated in {len(parts)} parts")
        for part in parts:
            rows.append([*start, *part, end])
            numbers.append(number)
    return rows, numbers


def split_tokens(ids: list[int], tokenizer: T5Tokenizer, limit: int) -> list[list[int]]:
    """Cut token ids into parts of at most `limit`: after a sentence if possible, or a word."""
    parts = []
    while len(ids) > limit:
        tokens = tokenizer.convert_ids_to_tokens(ids[: limit + 1])
        words = [i for i in range(1, limit + 1) if tokens[i].startswith("▁")]
        sentences = [i for i in words if tokens[i - 1].endswith((".", "!", "?"))]
        end = max(sentences or words or [limit])
        parts.append(ids[:end])
        ids = ids[end:]
    if ids:
        parts.append(ids)
    return parts


def batches(rows: list[list[int]], batch_tokens: int) -> list[list[int]]:
    """Return the rows' numbers, longest first, in batches of so many tokens, padding included."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    found = []
    while order:
        size = max(1, batch_tokens // len(rows[order[0]]))
        found.append(order[:size])
        order = order[size:]
    return found


def in_batches(
    rows: list[list[int]], batch_tokens: int, run: Callable[[list[list[int]]], list[list[int]]]
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Yield the numbers of a batch's rows and what `run` makes of the rows, batch by batch.

    Where memory runs out, that batch and all that follow are halved.
    """
    waiting = batches(rows, batch_tokens)
    with tqdm(total=len(rows), desc="Translating", leave=False, disable=None) as bar:
        while waiting:
            batch = waiting[0]
            try:
                output = run([rows[i] for i in batch])
            except RuntimeError as error:
                if len(batch) == 1 or not should_reduce_batch_size(error):
                    raise
                batch_tokens //= 2
                warn(f"out of memory: going on with --batch_tokens {batch_tokens}")
                waiting = halves(waiting)
                continue
            yield batch, output
            bar.update(len(batch))
            waiting = waiting[1:]


def halves(batches: list[list[int]]) -> list[list[int]]:
    """Return the batches cut in two."""
    found = []
    for batch in batches:
        middle = (len(batch) + 1) // 2
        found += [batch[:middle], batch[middle:]]
    return [half for half in found if half]


def generate(
    model: T5ForConditionalGeneration,
    tokenizer: T5Tokenizer,
    rows: list[list[int]],
    num_beams: int = 1,
    no_repeat_ngram_size: int = 0,
    max_new_tokens: int | None = None,
) -> list[list[int]]:
    """Return the translations of a batch as token ids, padded to one length.

    Without `max_new_tokens` they have at most twice as many as the longest row, and 50.
    """
    padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    inputs = padded.to(model.device)  # input_ids and attention_mask (batch, source)
    limit = max_new_tokens or 2 * max(map(len, rows)) + 50
    if num_beams == 1 and no_repeat_ngram_size == 0:
        output = greedy(model, **inputs, max_new_tokens=limit)  # (batch, target)
    else:
        search = {"num_beams": num_beams, "no_repeat_ngram_size": no_repeat_ngram_size}
        output = model.generate(**inputs, **search, max_new_tokens=limit)[:, 1:]  # from <pad> on
    return output.tolist()


def control_ids(model: T5ForConditionalGeneration) -> tuple[int, list[int], int]:
    """Return the ids that start, end and pad this model's translations; several may end them."""
    config = model.generation_config
    ends = config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    padding = ends[0] if config.pad_token_id is None else config.pad_token_id
    start = config.decoder_start_token_id
    return padding if start is None else start, ends, padding


def greedy(
    model: T5ForConditionalGeneration,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    max_new_tokens: int,
) -> torch.Tensor:
    """Return the most probable tokens up to `</s>`, int64 (batch, max_new_tokens), padded.

    They are those of a plain `model.generate` (of the checkpoint's generation_config only the ids
    in `control_ids` are read), but a sentence that has ended leaves batch and caches: on sentences
    of unlike length twice as fast.
    """
    start, ends, padding = control_ids(model)
    ends = torch.tensor(ends, device=input_ids.device)
    mask = attention_mask  # (left, source), as all that follows: one row per unfinished sentence
    encoded = model.encoder(input_ids, mask).last_hidden_state  # (left, source, d_model)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    output = input_ids.new_full((len(mask), max_new_tokens), padding)
    rows = torch.arange(len(mask), device=mask.device)
    tokens = input_ids.new_full((len(mask), 1), start)  # (left, 1)
    for step in range(max_new_tokens):
        # By position: releases name the cache differently.
        logits = model(None, mask, tokens, None, (encoded,), cache).logits  # (left, 1, vocabulary)
        tokens = logits[:, -1].max(-1, keepdim=True).indices  # argmax is far slower on a CPU
        output[rows, step] = tokens[:, 0]
        left = (~torch.isin(tokens[:, 0], ends)).nonzero()[:, 0]
        if len(left) == 0:
            break
        if len(left) < len(rows):
            cache.batch_select_indices(left)
            encoded, mask, rows, tokens = encoded[left], mask[left], rows[left], tokens[left]
    return output


def demonstrate(
    texts: Sequence[str], model: T5ForConditionalGeneration, tokenizer: T5Tokenizer, **options
) -> None:
    """Print the tokens and ids that the model reads, and its translation."""
    warn_of_letters(unknown_letters(texts, tokenizer), "lost (first: line {})")
    source_lang, target_lang = options["source_lang"], options["target_lang"]
    for text, translation in zip(texts, translate(texts, model, tokenizer, **options), strict=True):
        ids = tokenizer(build_prompt(source_lang, target_lang) + text).input_ids
        print(f"{source_lang}: {text}")
        print("Tokens:", *tokenizer.convert_ids_to_tokens(ids))
        print("Ids:", ids)
        print(f"{target_lang}: {translation}\n")


def windows(lines: Iterable[str], tokenizer: T5Tokenizer) -> Iterator[tuple[int, list[str]]]:
    """Yield WINDOW_LINES lines at a time, with the number of the first: memory stays flat.

    After the last it warns of all letters that the tokenizer does not know.
    """
    lines, first_line, unknown = iter(lines), 1, {}
    while window := list(islice(lines, WINDOW_LINES)):
        yield first_line, window
        unknown = unknown_letters(window, tokenizer, first_line) | unknown
        first_line += len(window)
    warn_of_letters(unknown, "lost (first: line {})")


def unknown_letters(
    texts: Sequence[str], tokenizer: T5Tokenizer, first_line: int = 1
) -> dict[str, int]:
    """Return the letters that the tokenizer does not know, each with the first line it is in."""
    unknown = tokenizer.unk_token_id
    composed = [unicodedata.normalize("NFC", text) for text in texts]  # é is one letter, not two
    letters = sorted(set().union(*composed))
    alone = tokenizer(letters).input_ids if letters else []
    suspects = {letter for letter, ids in zip(letters, alone, strict=True) if unknown in ids}
    found = {}
    for number, text in enumerate(texts):
        here = suspects.intersection(composed[number])
        if here and unknown in tokenizer(text).input_ids:
            found = dict.fromkeys(here, first_line + number) | found
    return found


def translate_to_screen(
    path: str,
    encoding: str,
    model: T5ForConditionalGeneration,
    tokenizer: T5Tokenizer,
    **options: object,
) -> None:
    """Translate a file or a pipe (`-`) window by window to standard output."""
    for first_line, texts in windows(announced(read_lines(path, encoding)), tokenizer):
        translations = as_lines(
            translate(texts, model, tokenizer, first_line=first_line, **options)
        )
        print(end="", flush=True)  # what has been printed comes first
        if hasattr(sys.stdout, "buffer"):
            sys.stdout.buffer.write(translations)
            sys.stdout.buffer.flush()
        else:  # a notebook's, or another that takes text
            print(translations.decode(), end="")


def translate_file(
    args: ScriptArguments,
    training_args: FineTuningArguments,
    model: T5ForConditionalGeneration,
    tokenizer: T5Tokenizer,
    **options: object,
) -> dict[str, float]:
    """Translate into `output_file`, which appears when it is complete; return its scores.

    Until then finished windows wait in a hidden folder, and a resumed run does not translate
    them again. Several processes take turns.
    """
    others = {}  # the references, and another system's translations
    for name in ("reference_file", "baseline_file"):
        path = getattr(args, name)
        if path:
            lines = read_lines(path, args.encoding)
            others[f"--{name} {path}"] = [one_line(line) for line in lines]
    if os.path.isfile(args.input_file or ""):  # a pipe is read once
        check_numbers(others, sum(1 for _ in read_lines(args.input_file, args.encoding)))
    folder, files = partial_folder(args, options, model), []
    lines = args.text or announced(read_lines(args.input_file, args.encoding))
    for first_line, texts in windows(lines, tokenizer):
        files.append(folder / f"{first_line:012}.txt")
        turn = len(files) % training_args.world_size == training_args.process_index
        finished = training_args.resume_from_checkpoint and files[-1].exists()
        if turn and not finished:
            translations = translate(texts, model, tokenizer, first_line=first_line, **options)
            with whole_files(folder) as whole:
                (whole / files[-1].name).write_bytes(as_lines(translations))
    if training_args.world_size > 1:
        PartialState().wait_for_everyone()
    if training_args.process_index > 0:
        return {}
    output = Path(args.output_file)
    with whole_files(output.parent) as whole, open(whole / output.name, "wb") as joined:
        for file in files:
            joined.write(file.read_bytes())
    shutil.rmtree(folder, ignore_errors=True)
    if not others:
        return {}
    translations = list(read_lines(output))
    check_numbers(others, len(translations))
    scores = score(translations, *others.values())
    print(*signatures(), sep="\n")
    return scores


# Plumbing: nothing below is about T5 --------------------------------------------------------------


class InputError(Exception):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def refuse(message: str) -> NoReturn:
    """Raise what the parser would print."""
    raise InputError(f"{message}: see --help")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the flags' defaults, and the docstring's commands line by line."""


def parse_arguments(argv: list[str] | None) -> tuple[ScriptArguments, dict, FineTuningArguments]:
    """Parse and check the command line; bad usage raises InputError."""
    classes = (ScriptArguments, TranslationArguments, FineTuningArguments)
    args, options, training_args = parse(argv, *classes)
    check_positive(options, "num_beams", "max_new_tokens", "batch_tokens")
    check_positive(training_args, "generation_num_beams", "generation_max_length")
    if options.max_new_tokens and training_args.generation_max_length is None:
        training_args.generation_max_length = options.max_new_tokens + 1
    training, several = training_args.do_train, training_args.world_size > 1
    if not (args.text or args.input_file or training):
        # A character device is a terminal or /dev/null; anything else is a pipe or a file.
        if sys.stdin is None or stat.S_ISCHR(os.fstat(0).st_mode):
            args.text = SAMPLE_TEXTS
        else:
            args.input_file = "-"
    if not training:
        follow_model(args.model_name_or_path, training_args)
    files, source = args.train_file or args.validation_file, args.text or args.input_file
    alone = args.input_file == "-" or not (training or args.output_file)
    best_by_bleu = training_args.metric_for_best_model == "bleu"
    no_bleu = best_by_bleu and not training_args.predict_with_generate
    mistakes = {
        "--smoke builds a model to train": args.smoke and not training,
        "--train_file and --validation_file need --do_train": files and not training,
        "--text and --input_file exclude each other": args.text and args.input_file,
        "--output_file needs --text or --input_file": args.output_file and not source,
        "--reference_file needs --output_file": args.reference_file and not args.output_file,
        "--baseline_file needs --reference_file": args.baseline_file and not args.reference_file,
        f"--output_file {args.output_file} is a folder": os.path.isdir(args.output_file or ""),
        "several processes share a file, not a pipe": several and alone,
        "--metric_for_best_model bleu needs --predict_with_generate": no_bleu,
        "--generation_max_length below 2 is no text": training_args.generation_max_length == 1,
    }
    for mistake, made in mistakes.items():
        if made:
            refuse(mistake)
    return args, vars(options), training_args


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


def set_up(training_args: transformers.TrainingArguments) -> None:
    """Set up this process; without a training it prints nothing but translations."""
    if training_args.do_train:
        prepare(training_args)
    else:
        transformers.logging.disable_progress_bar()
        keep_freed_memory()
    transformers.logging.set_verbosity_error()


def warn(message: str) -> None:
    """Print one line to stderr, beside the progress bar if there is one."""
    tqdm.write(f"warning: {message}", sys.stderr)


def warn_of_letters(unknown: dict[str, int], loss: str) -> None:
    """Warn of letters that the tokenizer does not know; of several processes one does.

    `loss` says what that means; {} in it stands for the first line.
    """
    if unknown and PartialState().is_main_process:
        letters = " ".join(sorted(unknown)[:50]) + (" …" if len(unknown) > 50 else "")
        warn(f"the model does not know {letters}: {loss.format(min(unknown.values()))}")


def warn_before_training(data: dict[str, Pairs], tokenizer: T5Tokenizer, prompt: str) -> None:
    """Warn of long texts and of letters that the tokenizer does not know: the share in targets.

    Line numbers go through the splits one after the other.
    """
    pairs = [pair for split in data.values() for pair in split]
    sides = [[prompt + source for source, _ in pairs], [target for _, target in pairs]]
    cut = [count_long(texts, tokenizer) for texts in sides]
    if any(cut) and PartialState().is_main_process:
        counts = f"{cut[0]} sources and {cut[1]} targets of {len(pairs)}"
        warn(f"{counts} have more than {MAX_TOKENS} tokens: training cuts them there")
    sources = [source for source, _ in pairs]
    warn_of_letters(unknown_letters(sources, tokenizer), "lost (first: pair {})")
    words = Counter(word for _, target in pairs for word in target.split())
    unknown = unknown_letters(list(words), tokenizer)
    lost = [w for w in words if not unknown.keys().isdisjoint(unicodedata.normalize("NFC", w))]
    share = sum(words[word] for word in lost) / words.total()
    warn_of_letters(unknown, f"{share:.1%} of the target words hold them and cannot be learnt")


def count_long(texts: list[str], tokenizer: T5Tokenizer) -> int:
    """Return how many texts have more than MAX_TOKENS tokens."""
    texts = [text for text in texts if len(text) > MAX_TOKENS // 2]  # the others have not
    rows = tokenizer(texts).input_ids if texts else []
    return sum(len(ids) > MAX_TOKENS for ids in rows)


def check_numbers(files: dict[str, list[str]], translations: int) -> None:
    """Raise InputError if a file has not one line for each translation."""
    for path, lines in files.items():
        if not lines or len(lines) != translations:
            counts = f"{len(lines)} lines for {translations} translations"
            raise InputError(f"{path}: {counts}: give one for each")


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


def load_pairs(args: ScriptArguments) -> dict[str, Pairs]:
    """Return the pairs `train`, and `validation` if there are any: own files or the sample."""
    for path in (args.input_file, args.reference_file, args.baseline_file):
        if path not in (None, "-") and not os.path.exists(path):
            raise InputError(f"there is no file {path}")  # known before a training
    pairs = {"train": SAMPLE_PAIRS}
    for split, path in {"train": args.train_file, "validation": args.validation_file}.items():
        if path:
            pairs[split] = read_pairs(path, args.encoding)
    return pairs


def read_pairs(path: str, encoding: str = "utf-8-sig") -> list[tuple[str, str]]:
    """Read sources and targets: the first two columns of TSV or CSV, or JSON lines.

    In TSV quotes are plain characters. An object of JSON holds two texts, or has them in
    "translation". Raises InputError for all faulty rows at once.
    """
    lines, kind = list(read_lines(path, encoding)), Path(path).suffix.lower()
    rows = {number: line.split("\t") for number, line in enumerate(lines, 1)}
    if kind in (".json", ".jsonl"):
        rows = json_rows(path, lines)
    elif kind == ".csv":
        choices = {delimiter: csv_rows(lines, delimiter) for delimiter in ",;\t"}
        best = min(choices, key=lambda delimiter: disorder(choices[delimiter]))
        rows = choices[best]
        if best != ",":
            print(f"{path}: the columns are separated by {best!r}", file=sys.stderr)
    faulty = faulty_rows(rows)
    if faulty:
        where = ", ".join(map(str, faulty[:5])) + (", …" if len(faulty) > 5 else "")
        found = f"{len(faulty)} of {len(rows)} rows have a blank text, or not as many columns as"
        raise InputError(f"{path}, line {where}: {found} the first: give SOURCE and TARGET in each")
    first = rows.get(1, [])[:2]
    if first and HEADER.issuperset(re.findall(r"\w+", " ".join(first).lower())):
        done = "left out" if kind == ".csv" else "if it is one, remove it from the file"
        print(f"{path}: the first row, {first}, looks like a header: {done}", file=sys.stderr)
        if kind == ".csv":
            del rows[1]
    if not rows:
        raise InputError(f"{path}: no rows")
    return [(row[0].replace("\n", " "), row[1].replace("\n", " ")) for row in rows.values()]


def faulty_rows(rows: dict[int, list[str]]) -> list[int]:
    """Return where rows have a blank text, or not the first one's number of columns."""
    columns = max(2, len(rows.get(1, [])))  # Anki's files have more than two
    faulty = []
    for number, row in rows.items():
        if len(row) != columns or not row[0].strip() or not row[1].strip():
            faulty.append(number)
    return faulty


def disorder(rows: dict[int, list[str]]) -> tuple[int, int]:
    """Return what is least for the right delimiter: faulty rows, then columns."""
    return len(faulty_rows(rows)), sum(map(len, rows.values()))


def csv_rows(lines: list[str], delimiter: str) -> dict[int, list[str]]:
    """Return the rows of CSV by their first lines' numbers; after a wrong quote, empty ones."""
    reader = csv.reader([f"{line}\n" for line in lines], delimiter=delimiter, strict=True)
    rows, number = {}, 1
    try:
        for row in reader:
            rows[number] = row
            number = reader.line_num + 1
    except csv.Error:
        rows |= {unread: [] for unread in range(number, len(lines) + 1)}
    return rows


def json_rows(path: str, lines: list[str]) -> dict[int, list[str]]:
    """Return the two texts of each line's object, in the order of the first one's keys."""
    rows, keys = {}, []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if isinstance(record.get("translation"), dict):
                record = record["translation"]
            keys = keys or list(record)[:2]
            rows[number] = [str.strip(record[key]) for key in keys]
        except (AttributeError, KeyError, TypeError, ValueError):  # no such object
            rows[number] = []
    print(f"{path}: source and target are {keys}", file=sys.stderr)
    return rows


HEADER = {"source", "target", "src", "tgt", "english", "german", "french", "deutsch", "englisch"}
HEADER |= {"en", "de", "fr", "es", "it", "ro", "text", "quelle", "ziel", "quelltext", "zieltext"}


def read_lines(path: str, encoding: str = "utf-8-sig") -> Iterator[str]:
    """Yield the lines of a text file, or of standard input (`-`), without their ends.

    LF, CRLF and CR end a line, and nothing else does.
    """
    if path == "-" and sys.stdin is None:
        raise InputError("there is no standard input: name a file")
    if Path(path).suffix.lower() == ".tmx":
        raise InputError(f"{path} is a translation memory: export it as tab-separated text")
    # Of a pipe nothing may be read beforehand.
    encoding = encoding_of(path if os.path.isfile(path) else os.devnull, encoding)
    options = {"encoding": encoding, "errors": "surrogateescape", "closefd": path != "-"}
    with open(0 if path == "-" else path, **options) as file:
        for number, line in enumerate(file, 1):
            wrong = NO_TEXT.search(line)
            if wrong:
                name = encoding.removesuffix("-sig")
                byte = len(line[: wrong.start()].encode(name)) + 1
                where = f"{path}, line {number}: byte {byte} is not {name.upper()} text"
                raise InputError(f"{where}: give --encoding cp1252, or another")
            yield line.removesuffix("\n")


NO_TEXT = re.compile("[\0\udc80-\udcff]")  # NUL, and how Python reads bytes that are not UTF-8


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


def announced(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines; after two seconds without the first, say where they are awaited."""
    notice = "waiting for texts on standard input; --input_file names a file, --text gives one"
    timer = threading.Timer(2, print, [notice], {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        for line in lines:
            timer.cancel()
            yield line
    finally:
        timer.cancel()


def as_lines(texts: list[str]) -> bytes:
    """Return texts as lines of UTF-8, whatever the encoding and line end of this system."""
    return "".join(f"{text}\n" for text in texts).encode()


def partial_folder(args: ScriptArguments, options: dict, model: torch.nn.Module) -> Path:
    """Return where finished windows wait; a digest of flags, input and weights finds it again."""
    digest = hashlib.sha256(f"{args} {options} {WINDOW_LINES}".encode())
    if args.input_file:  # a pipe is another one in every run: what came through it is gone
        status = os.stat(0 if args.input_file == "-" else args.input_file)
        digest.update(f"{status.st_ino} {status.st_size} {status.st_mtime_ns}".encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
    output = Path(args.output_file)
    return output.with_name(f".{output.name}.{digest.hexdigest()[:16]}.partial")


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
    """Draw the losses that the trainer logged over the epochs and, on the right axis, BLEU."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="epoch", ylabel="loss")
    for name, color in {"loss": "C0", "eval_loss": "C1", "eval_bleu": "C2"}.items():
        points = {entry["epoch"]: entry[name] for entry in log_history if name in entry}
        if points:
            side = axes.twinx() if name == "eval_bleu" else axes
            side.plot(points.keys(), points.values(), marker=".", color=color, label=name)
            side.set_ylim(0)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def next_command(args: ScriptArguments, options: dict, training_args: FineTuningArguments) -> str:
    """Return the flags that translate with the model of this run; say if it is --smoke's."""
    model = training_args.output_dir if training_args.do_train else args.model_name_or_path
    languages = ["--source_lang", options["source_lang"], "--target_lang", options["target_lang"]]
    if args.smoke and args.train_file:
        print("A tiny model was tried: its quality tells nothing about that of a real one")
    if args.encoding != ScriptArguments.encoding:
        languages += ["--encoding", args.encoding]
    return shlex.join(["--input_file", "FILE", *languages, "--model_name_or_path", model])


def show(
    examples: list[str], metrics: dict[str, float], training_args: FineTuningArguments
) -> None:
    """Write the metrics of a training, and then print examples; of several processes one does."""
    if training_args.process_index == 0:
        with whole_files(training_args.output_dir) as folder:
            text = json.dumps(metrics, indent=2, sort_keys=True)
            (folder / "all_results.json").write_text(text)
        print(*examples, sep="\n")


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


SMALLER = (
    "give a smaller --per_device_train_batch_size (to evaluate: --per_device_eval_batch_size);"
)
SMALLER += " to translate, shorter lines or a smaller --num_beams"
WINDOW_LINES = 4096  # of a file are in memory at a time
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
