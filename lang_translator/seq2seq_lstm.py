# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "keras>=3.12",
#     "matplotlib>=3.10",
#     "numpy>=2.1",
#     "sacrebleu>=2.5",
#     "tensorflow>=2.20",
#     "tokenizers>=0.22",
#     "tqdm>=4.67",
# ]
# ///
# SPDX-License-Identifier: MIT
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-27
"""Translate with an LSTM encoder and decoder in TensorFlow/Keras, with attention if you like.

python seq2seq_lstm.py --smoke                                        # seconds, no download
python seq2seq_lstm.py --attention --train_file train.tsv --validation_file validation.tsv
python seq2seq_lstm.py --model_name_or_path outputs/seq2seq_lstm --text "Wo ist der Bahnhof?"

The plain model follows Sutskever et al. 2014 (https://arxiv.org/abs/1409.3215), with one layer: all
that the decoder knows of the source is the encoder's last state. --attention follows Luong et al.
2015 (https://arxiv.org/abs/1508.04025), with a source that is read in both directions. Read the
recipe, `main`, then its parts: vocabulary, model, training, decoding. Reading files, parsing flags
and reporting come last, under "Plumbing".
"""

import argparse
import codecs
import csv
import functools
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import compress
from pathlib import Path
from typing import NoReturn

# Read while TensorFlow is imported: it would report a missing GPU as an error. Your value wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from matplotlib.figure import Figure
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from tokenizers import (
    Encoding,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tqdm import tqdm

MODEL = {  # flag: type, default, help; a loaded model keeps its own
    "attention": (bool, False, "Let the decoder look back at every token of the source."),
    "embedding_dim": (int, 256, "Size of the word vectors."),
    "hidden_size": (int, 512, "Units of encoder and decoder."),
    "dropout": (float, 0.4, "Against learning by heart: more for few pairs, less for many."),
    "vocab_size": (int, 6000, "Subwords per language."),
    "keep_case": (bool, False, "Tell capital letters from small ones: texts are not lower-cased."),
    "max_seq_length": (int, 100, "In tokens: longer pairs are left out, longer texts cut up."),
}
RECIPE = {
    "num_train_epochs": (int, 12, "At most so many epochs."),
    "early_stopping_patience": (int, 4, "Stop after so many epochs without a better BLEU."),
    "batch_size": (int, 64, "Pairs per update; 8 for the built-in ones."),
    "learning_rate": (float, 1e-3, "Step size of Adam."),
    "label_smoothing_factor": (float, 0.1, "Probability that is spread over all tokens."),
    "num_beams": (int, 1, "Width of the beam search; 1 decodes greedily."),
    "seed": (int, 42, "Decides weights, order and dropout."),
}
RUN = {
    "smoke": (bool, False, "Train a tiny model: no download, seconds."),
    "do_train": (bool, False, "Train. Without any --do_...: train, score and translate."),
    "do_eval": (bool, False, "Score the test pairs."),
    "do_predict": (bool, False, "Translate."),
    "model_name_or_path": (str, None, "Folder of a trained model."),
    "train_file": (str, None, "TSV, CSV or JSON lines of pairs; without it the built-in ones."),
    "validation_file": (str, None, "Pairs that choose the best epoch, else every twentieth."),
    "test_file": (str, None, "Pairs to score at the end, else those of validation."),
    "baseline_file": (str, None, "Another system's translations of the test pairs, to compare."),
    "encoding": (
        str,
        "utf-8-sig",
        "Of text files: cp1252 for Excel's and Word's in Western Europe.",
    ),
    "max_train_samples": (int, None, "Train on the first pairs only."),
    "text": (list, [], "Sentences to translate."),
    "input_file": (str, None, "Text to translate line by line; - is standard input."),
    "output_file": (str, None, "Where translations go instead of the screen."),
    "output_dir": (str, "outputs/seq2seq_lstm", "Where everything else is written."),
    "resume_from_checkpoint": (str, None, "Folder of a checkpoint, or last: the newest, if any."),
    "bf16": (bool, None, "Compute in mixed bfloat16."),
}
METRICS = {"bleu": BLEU(lowercase=True), "chrf": CHRF(lowercase=True)}
SPECIAL_TOKENS = ["<pad>", "<unk>", "<sos>", "<eos>"]
PAD, UNK, SOS, EOS = range(4)
IDS = tf.TensorSpec([None, None], tf.int32)  # a padded batch of token ids: (batch, length)
Pairs = list[tuple[str, str]]  # source and target


def main(argv: list[str] | None = None) -> None:
    """Train, score and translate: all that there is something for, or what --do_... chooses."""
    args = parse_arguments(argv)
    checkpoint = prepare_run(args)
    train, validation, test = load_splits(args)
    baseline = read_baseline(args.baseline_file, args.encoding, len(test))
    if checkpoint or args.model_name_or_path:
        translator = load_translator(checkpoint or args.model_name_or_path)
    else:
        translator = new_translator(train, **{name: getattr(args, name) for name in MODEL})
    check_lengths(translator, (train, validation, test), args)
    metrics = {}
    if args.do_train:
        recipe = {name: getattr(args, name) for name in RECIPE}
        metrics |= fit(translator, train, validation, args.output_dir, checkpoint, **recipe)
        args.model_name_or_path = args.output_dir
    if args.do_eval:
        metrics |= evaluate(translator, test, "test", args.num_beams, args.batch_size, baseline)
    if metrics:
        save_results(metrics, args.output_dir, args.model_name_or_path)
    if args.do_predict:
        predict(translator, test, args)
    save_alignment(translator, test, args)
    if metrics:
        report_run(metrics, test, args)


def load_splits(args: argparse.Namespace) -> tuple[Pairs, Pairs, Pairs]:
    """Return pairs to train on, to validate with and to test: own files or the built-in pairs.

    The built-in pairs, and few of your own with --smoke, are learnt by heart and validate, too.
    """
    train = SAMPLE_PAIRS
    if args.train_file:
        train = read_pairs(args.train_file, args.encoding)[: args.max_train_samples]
    by_heart = not args.train_file or (args.smoke and len(train) < FEW_PAIRS)
    if args.validation_file:
        validation = read_pairs(args.validation_file, args.encoding)
    elif by_heart:
        validation = train
    else:
        train, validation = hold_out(train)
        if not train:
            raise InputError(f"{args.train_file}: one source: give more, or --validation_file")
    if by_heart:
        train = train * ROUNDS
    test = read_pairs(args.test_file, args.encoding) if args.test_file else validation
    return train, validation, test


def hold_out(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Return pairs to train on, and all those of every twentieth source to validate with.

    A source that stands in several pairs is on one side alone: one that the model has learnt tells
    nothing.
    """
    sources = [normalize(source) for source, _ in pairs]
    held_out = set(list(dict.fromkeys(sources))[::20])
    train, validation = [], []
    for source, pair in zip(sources, pairs, strict=True):
        (validation if source in held_out else train).append(pair)
    return train, validation


def normalize(text: str) -> str:
    """Return what texts have in common that differ in capitals or spaces alone."""
    return unicodedata.normalize("NFC", " ".join(text.lower().split()))


@dataclass
class Translator:
    """A model with the tokenizers of its two languages, and what is saved with them."""

    model: keras.Model
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    settings: dict  # the arguments of `build_model`
    history: list[dict] = field(default_factory=list)  # the metrics of every epoch

    @property
    def keep_case(self) -> bool:
        """Tell whether the tokenizers, and so the model, know capital letters."""
        return self.target_tokenizer.normalizer.normalize_str("A") == "A"


def new_translator(
    pairs: Pairs,
    *,
    attention: bool = False,
    embedding_dim: int = 256,
    hidden_size: int = 512,
    dropout: float = 0.4,
    vocab_size: int = 6000,
    keep_case: bool = False,
    max_seq_length: int = 100,
) -> Translator:
    """Learn both vocabularies from the training pairs and build a model with random weights."""
    sides = zip(*pairs, strict=True)
    options = (vocab_size, max_seq_length, keep_case)
    tokenizers = [train_tokenizer(texts, *options) for texts in sides]
    settings = {
        "sizes": [tokenizer.get_vocab_size() for tokenizer in tokenizers],
        "embedding_dim": embedding_dim,
        "hidden_size": hidden_size + hidden_size % 2,  # both directions of reading share it
        "dropout": dropout,
        "attention": attention,
    }
    return Translator(build_model(**settings), *tokenizers, settings)


def train_tokenizer(
    texts: list[str], vocab_size: int, max_seq_length: int, keep_case: bool = False
) -> Tokenizer:
    """Learn byte-pair encoding inside words; <sos> begins and <eos> ends every text.

    Source: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909. "▁" stands for the space before
    a word, so that decoding gives the text back with its spaces.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    if not keep_case:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    spaces = pre_tokenizers.Metaspace(split=False)
    words = pre_tokenizers.Split(Regex(r"▁?(\w+|[^\w▁])"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, words])
    tokenizer.decoder = decoders.Metaspace()
    options = {"special_tokens": SPECIAL_TOKENS, "show_progress": False}
    texts = (" ".join(text.split()) for text in texts)  # no line ends, which it might write
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, **options))
    tokenizer.post_processor = processors.BertProcessing(("<eos>", EOS), ("<sos>", SOS))
    tokenizer.enable_truncation(max_seq_length)
    return tokenizer


def build_model(
    sizes: list[int], embedding_dim: int, hidden_size: int, dropout: float, attention: bool
) -> keras.Model:
    """Build a model: source and target ids, int32 (batch, length), to logits.

    Logits: (batch, target length, target vocabulary). `sizes`: of the two vocabularies. Training
    and decoding call its three parts `encoder`, `decoder` and `projection`. All layers are Keras'
    own, so that `keras.saving.load_model` opens a saved model without this file.
    """
    source = keras.Input((None,), dtype="int32")
    target = keras.Input((None,), dtype="int32")
    encoder = build_encoder(sizes[0], embedding_dim, hidden_size, dropout, attention)
    decoder = build_decoder(encoder.outputs, sizes[1], embedding_dim, dropout)
    output = decoder([*encoder(source), target])[0]
    return keras.Model([source, target], layers.Dense(sizes[1], name="projection")(output))


def build_encoder(
    vocab_size: int, embedding_dim: int, hidden_size: int, dropout: float, attention: bool
) -> keras.Model:
    """Build what reads source ids (batch, length); its outputs start the decoder.

    They are the last state, h and c (batch, hidden), and with attention what the decoder looks
    back at: memory (batch, length, hidden) and mask, bool (batch, length), True at real tokens.
    """
    source = keras.Input((None,), dtype="int32")
    words = layers.Dropout(dropout)(layers.Embedding(vocab_size, embedding_dim)(source))
    mask = keras.ops.not_equal(source, PAD)
    if not attention:
        # Reading backwards brings the first words close to where they are needed (section 3.3).
        lstm = layers.LSTM(hidden_size, go_backwards=True, return_state=True)
        _, h, c = lstm(words, mask=mask)
        return keras.Model(source, [h, c], name="encoder")
    lstm = layers.LSTM(hidden_size // 2, return_sequences=True, return_state=True)
    outputs = layers.Bidirectional(lstm)(words, mask=mask)
    memory, forward_h, forward_c, backward_h, backward_c = outputs
    h = layers.Concatenate()([forward_h, backward_h])
    c = layers.Concatenate()([forward_c, backward_c])
    memory = keras.ops.where(keras.ops.expand_dims(mask, -1), memory, 0)
    return keras.Model(source, [h, c, memory, mask], name="encoder")


def build_decoder(
    encoded: list[keras.KerasTensor], vocab_size: int, embedding_dim: int, dropout: float
) -> keras.Model:
    """Build what writes: it is given what the encoder puts out, and target ids (batch, length).

    Its outputs: (batch, length, hidden), the state after them, h and c, and with attention its
    weights (batch, target length, source length).
    """
    given = [keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in encoded]
    target = keras.Input((None,), dtype="int32")
    hidden_size = given[0].shape[-1]
    words = layers.Dropout(dropout)(layers.Embedding(vocab_size, embedding_dim)(target))
    lstm = layers.LSTM(hidden_size, return_sequences=True, return_state=True)
    output, *state = lstm(words, initial_state=given[:2])
    if len(given) == 2:
        outputs = [layers.Dropout(dropout)(output), *state]
        return keras.Model([*given, target], outputs, name="decoder")
    memory, mask = given[2:]
    query = layers.Dense(hidden_size, use_bias=False)(output)  # "general" score, equation 8
    scaled = [query * hidden_size**-0.5, memory]
    context, weights = layers.Attention()(scaled, [None, mask], return_attention_scores=True)
    both = layers.Concatenate()([context, output])  # (batch, target length, 2 * hidden)
    output = layers.Dense(hidden_size, "tanh", use_bias=False)(both)  # equation 5
    outputs = [layers.Dropout(dropout)(output), *state, weights]
    return keras.Model([*given, target], outputs, name="decoder")


def parts(model: keras.Model) -> list[layers.Layer]:
    """Return encoder, decoder and projection of a model of `build_model`."""
    return [model.get_layer(name) for name in ("encoder", "decoder", "projection")]


def fit(
    translator: Translator,
    train_pairs: Pairs,
    validation_pairs: Pairs,
    output_dir: str,
    checkpoint: str | None = None,
    *,
    num_train_epochs: int = 12,
    early_stopping_patience: int = 4,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    label_smoothing_factor: float = 0.1,
    num_beams: int = 1,
    seed: int = 42,
) -> dict[str, float]:
    """Train until the validation BLEU stops rising; keep the best epoch, also in `output_dir`.

    Returns its metrics, and changes `translator`. `checkpoint`: a folder in `output_dir` that
    `translator` was loaded from; such a run ends with the weights of one that was never
    interrupted. Raises InputError.
    """
    # A second model learns. The translator's gets the average of its weights: it translates better.
    learner = build_model(**translator.settings)
    learner.set_weights(translator.model.get_weights())
    adam = averaging_adam(learner, learning_rate, len(train_pairs) / batch_size)
    if checkpoint:
        learner.load_weights(Path(checkpoint, MODEL_FILE))  # with the optimizer's state
    else:
        translator.history = []
    history = translator.history
    data = encode_pairs(translator, train_pairs)
    step = compile_step(learner, adam, label_smoothing_factor)
    samples = list(dict.fromkeys(source for source, _ in validation_pairs))[:3]
    while len(history) < min(num_train_epochs, best_epoch(history) + early_stopping_patience):
        record = train_epoch(learner, step, data, len(history) + 1, batch_size, seed)
        # Copies the averages of the learner's weights into the translator's model.
        adam.finalize_variable_values(translator.model.trainable_variables)
        record |= evaluate(translator, validation_pairs, "eval", num_beams, batch_size)
        history.append(record)
        save_checkpoint(translator, learner, output_dir)
        print(", ".join(f"{name} {value:.4g}" for name, value in record.items()))
        show_translations(samples, translate(translator, samples, num_beams))
    best = best_epoch(history)
    learner.load_weights(checkpoint_folder(output_dir, best) / MODEL_FILE)
    adam.finalize_variable_values(translator.model.trainable_variables)
    save_translator(translator, output_dir)
    save_figure(draw_training_curve(history), output_dir, "training_curve.png")
    return history[best - 1] | {"train_runtime": sum(record["train_runtime"] for record in history)}


def averaging_adam(
    model: keras.Model, learning_rate: float, epoch_steps: float
) -> keras.optimizers.Adam:
    """Compile a model with Adam that clips gradients and averages weights over some two epochs."""
    momentum = 1 - 0.5 / max(1, epoch_steps)
    clipnorm = 1 / tf.distribute.get_strategy().num_replicas_in_sync  # of each device's share
    options = {"global_clipnorm": clipnorm, "use_ema": True, "ema_momentum": momentum}
    adam = keras.optimizers.Adam(learning_rate, **options)
    model.compile(adam)  # so that a checkpoint of the model holds it, too
    adam.build(model.trainable_variables)
    return adam


def train_epoch(
    learner: keras.Model,
    step: Callable,
    data: list[tf.RaggedTensor],
    epoch: int,
    batch_size: int,
    seed: int,
) -> dict[str, float]:
    """Learn from every pair once, in an order and with a dropout of seed and epoch alone."""
    start = time.perf_counter()
    rng = np.random.default_rng([seed, epoch])
    for variable in learner.variables:
        if "seed_generator" in variable.path:
            variable.assign(rng.integers(2**32, size=2, dtype=np.uint32))
    loss = run_steps(step, make_batches(data, batch_size, rng), f"Epoch {epoch}")
    return {"epoch": epoch, "train_loss": loss, "train_runtime": time.perf_counter() - start}


def best_epoch(history: list[dict]) -> int:
    """Return the epoch of the highest BLEU, of equals that of the lowest loss; at first 0."""
    ranks = [(record["eval_bleu"], -record["eval_loss"]) for record in history]
    return ranks.index(max(ranks)) + 1 if ranks else 0


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    """Tokenize texts, <sos> to <eos>; what exceeds `max_seq_length` is in `overflowing`."""
    tokenizer.encode_special_tokens = True  # "<eos>" in a text is text
    return tokenizer.encode_batch([" ".join(text.split()) for text in texts])


def encode_pairs(translator: Translator, pairs: Pairs) -> list[tf.RaggedTensor]:
    """Return source and target ids, int32 (pairs, tokens) each, of the pairs that are short enough.

    Raises InputError if none is.
    """
    return sort_out(translator, pairs)[0]


def sort_out(translator: Translator, pairs: Pairs) -> tuple[list[tf.RaggedTensor], list[bool]]:
    """Return the result of `encode_pairs`, and for each of the pairs whether it is short enough."""
    sources = encode(translator.source_tokenizer, [source for source, _ in pairs])
    targets = encode(translator.target_tokenizer, [target for _, target in pairs])
    rows, short = [], []
    for source, target in zip(sources, targets, strict=True):
        short.append(not (source.overflowing or target.overflowing))
        if short[-1]:
            rows.append((source.ids, target.ids))
    if not rows:
        raise InputError("every pair is longer than the --max_seq_length of the training")
    return [tf.ragged.constant(side, tf.int32) for side in zip(*rows, strict=True)], short


def make_batches(
    data: list[tf.RaggedTensor], batch_size: int, rng: np.random.Generator
) -> tf.data.Dataset:
    """Yield padded source and target ids, int32 (batch, length) each, in an order of `rng` alone.

    Windows of 100 batches are sorted by length and cut into batches, so that hardly any padding is
    needed; then the batches are shuffled.
    """
    lengths = [side.row_lengths().numpy() for side in data]
    order = rng.permutation(len(lengths[0]))
    batches = []
    for start in range(0, len(order), 100 * batch_size):
        window = order[start : start + 100 * batch_size]
        rows = window[np.lexsort([side[window] for side in lengths])]  # by target, then by source
        batches += np.split(rows, range(batch_size, len(rows), batch_size))
    rng.shuffle(batches)
    dataset = tf.data.Dataset.from_tensor_slices(tf.ragged.constant(batches, tf.int32))

    def pad(rows):
        return tuple(tf.gather(side, rows).to_tensor() for side in data)

    return dataset.map(pad).prefetch(2)


@functools.lru_cache(maxsize=4)
def compile_step(
    model: keras.Model, optimizer: keras.Optimizer | None = None, smoothing: float = 0.0
) -> Callable:
    """Compile a step: source and target ids of a batch to the mean loss and the number of tokens.

    With an optimizer the model learns. Each device takes its share of the rows; the loss is that
    of all of them.
    """
    strategy = tf.distribute.get_strategy()

    def device_step(source, target):
        context = tf.distribute.get_replica_context()
        devices = context.num_replicas_in_sync
        first = context.replica_id_in_sync_group
        source, target = source[first::devices], target[first::devices]
        tokens = tf.math.count_nonzero(target[:, 1:], dtype=tf.float32)  # real ones, after <sos>
        tokens = context.all_reduce("sum", tokens)
        with tf.GradientTape() as tape:
            training = optimizer is not None
            loss = summed_loss(model, source, target, smoothing, training) / tokens
            share = loss / devices
        if optimizer:
            # Summed here already, so that all devices clip alike; the optimizer adds up the shares.
            gradients = tape.gradient(share, model.trainable_variables)
            gradients = context.all_reduce("sum", gradients)
            optimizer.apply(gradients, model.trainable_variables)
        return context.all_reduce("sum", loss), tokens

    @tf.function(input_signature=[IDS, IDS])
    def step(source, target):
        results = strategy.run(device_step, args=(source, target))
        return [strategy.experimental_local_results(result)[0] for result in results]

    return step


def summed_loss(
    model: keras.Model, source: tf.Tensor, target: tf.Tensor, smoothing: float, training: bool
) -> tf.Tensor:
    """Return the cross-entropy of all real target tokens, in nats; the ids are (batch, length)."""
    encoder, decoder, projection = parts(model)
    state = encoder(source, training=training)
    # Every token is predicted from the right ones before it: <sos> goes in, <eos> is wanted.
    output = decoder([*state, target[:, :-1]], training=training)[0]  # (batch, length, hidden)
    labels = target[:, 1:]
    real = labels != PAD
    # The projection is the largest product of all: padding does not enter it.
    logits = tf.cast(projection(output[real]), tf.float32)  # (tokens, target vocabulary)
    return tf.reduce_sum(cross_entropy(logits, labels[real], smoothing))


@tf.custom_gradient
def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float
) -> tuple[tf.Tensor, Callable]:
    """Return sparse categorical cross-entropy, (tokens,), of logits (tokens, classes) and labels.

    The gradient is that of the label-smoothed loss (Szegedy et al. 2016,
    https://arxiv.org/abs/1512.00567); the value leaves smoothing out, so that training and
    validation compare. One softmax for both takes two thirds of the time of TensorFlow's own.
    """
    probabilities = tf.nn.softmax(logits)
    classes = logits.shape[-1]
    rest = smoothing / classes

    def gradient(upstream):
        wanted = tf.one_hot(labels, classes, 1 - smoothing + rest, rest)
        return (probabilities - wanted) * upstream[:, None], None, None

    right = tf.gather(probabilities, labels, batch_dims=1)
    return -tf.math.log(right + 1e-30), gradient


def run_steps(step: Callable, batches: Iterable, title: str) -> float:
    """Take a step on every batch, which learns or measures; return mean nats per token."""
    results = [step(*batch) for batch in tqdm(batches, title, disable=None, leave=False)]
    losses, tokens = zip(*results, strict=True)
    return float(np.average(losses, weights=tokens))


def evaluate(
    translator: Translator,
    pairs: Pairs,
    prefix: str = "test",
    num_beams: int = 1,
    batch_size: int = 64,
    baseline: list[str] | None = None,
) -> dict[str, float]:
    """Return loss in nats per token, perplexity and what `score` tells of the translations.

    All of them are of the pairs that are short enough for the model.
    """
    data, short = sort_out(translator, pairs)
    pairs, baseline = list(compress(pairs, short)), list(compress(baseline or [], short))
    batches = make_batches(data, batch_size, np.random.default_rng(0))
    loss = run_steps(compile_step(translator.model), batches, "Measuring the loss")
    metrics = {f"{prefix}_loss": loss, f"{prefix}_perplexity": float(np.exp(loss))}
    sources, targets = zip(*pairs, strict=True)
    translations = translate(translator, sources, num_beams, batch_size)
    warn_of_collapse(sources, translations)
    for metric in METRICS.values():
        metric.lowercase = not translator.keep_case
    scores = score(translations, targets, baseline)
    return metrics | {f"{prefix}_{name}": value for name, value in scores.items()}


def warn_of_collapse(sources: Sequence[str], translations: Sequence[str]) -> None:
    """Warn if 20 different sources or more share translations, ten or more to one."""
    different, found = len(set(sources)), len(set(translations))
    if different >= 20 and found <= different / 10:
        counts = f"{different} different sources, only {found} different translations"
        print(f"warning: {counts}: the model ignores what it reads", file=sys.stderr)


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


def translate(
    translator: Translator, texts: list[str], num_beams: int = 1, batch_size: int = 128
) -> list[str]:
    """Translate texts of any length, in order; blank stays blank. Long ones go in pieces."""
    tokenizer = translator.target_tokenizer
    search = compile_search(translator.model, num_beams)
    pieces = []  # the number of its text, and token ids
    for number, encoding in enumerate(encode(translator.source_tokenizer, texts)):
        for piece in (encoding, *encoding.overflowing):
            if len(piece) > 2:  # more than <sos> and <eos>
                pieces.append((number, piece.ids))
    # Shortest first. A text's last piece is its shortest: its pieces come in reverse order.
    pieces.reverse()
    pieces.sort(key=lambda piece: len(piece[1]))
    translations = [""] * len(texts)
    for start in tqdm(range(0, len(pieces), batch_size), "Translating", disable=None, leave=False):
        numbers, ids = zip(*pieces[start : start + batch_size], strict=True)
        target = search(tf.ragged.constant(ids, tf.int32).to_tensor()).numpy().tolist()
        for number, text in zip(numbers, tokenizer.decode_batch(target), strict=True):
            translations[number] = f"{text} {translations[number]}".strip()
    return translations


@functools.lru_cache(maxsize=4)
def compile_search(model: keras.Model, num_beams: int) -> Callable:
    """Compile beam search, greedy with one beam: source ids (batch, length) to target ids.

    These are (batch, at most twice the length), from the first word to <eos>. The loop over tokens
    runs inside the graph and ends when every sentence has its <eos>. The beam of the highest mean
    log probability per token wins: by the sum short translations would. <unk> is never chosen.
    """
    encoder, decoder, projection = parts(model)
    classes = model.output.shape[-1]
    never = tf.where(tf.range(classes) < EOS, -1e9, 0.0)  # <pad>, <unk> and <sos>
    only_padding = tf.where(tf.range(classes) == PAD, 0.0, -1e9)  # follows <eos>, at no cost

    @tf.function(input_signature=[IDS])
    def search(source):
        batch = tf.shape(source)[0]
        limit = 2 * tf.math.count_nonzero(source, axis=1, dtype=tf.int32)  # each sentence's own
        encoded = [limit, *encoder(source)]
        limit, h, c, *seen = [tf.repeat(tensor, num_beams, axis=0) for tensor in encoded]
        first = tf.range(batch)[:, None] * num_beams  # (batch, 1): where a sentence's beams begin
        # All beams of a sentence begin alike: at first only one of them counts.
        scores = tf.repeat([[0.0] + [-1e9] * (num_beams - 1)], batch, axis=0)  # (batch, beams)
        tokens = tf.fill([batch * num_beams, 1], SOS)  # (batch * beams, length)
        finished = tf.fill([batch * num_beams], False)
        while not tf.reduce_all(finished):
            tf.autograph.experimental.set_loop_options(shape_invariants=[(tokens, IDS.shape)])
            output, h, c = decoder([h, c, *seen, tokens[:, -1:]])[:3]
            logits = tf.cast(projection(output[:, 0]), tf.float32)  # (batch * beams, classes)
            gains = tf.nn.log_softmax(logits + never)
            gains = tf.where(finished[:, None], only_padding, gains)
            totals = tf.reshape(scores, [-1, 1]) + gains
            scores, chosen = tf.math.top_k(tf.reshape(totals, [batch, -1]), num_beams)
            parent = tf.reshape(first + chosen // classes, [-1])  # the beam that each continues
            token = tf.reshape(chosen % classes, [-1])
            h, c = tf.gather(h, parent), tf.gather(c, parent)
            tokens = tf.concat([tf.gather(tokens, parent), token[:, None]], axis=1)
            finished = tf.gather(finished, parent) | (token == EOS) | (tf.shape(tokens)[1] > limit)
        lengths = tf.math.count_nonzero(tokens[:, 1:], axis=1, dtype=tf.float32)
        mean = scores / tf.reshape(lengths, [batch, num_beams])
        best = tf.argmax(mean, axis=1, output_type=tf.int32)
        return tf.gather(tokens, first[:, 0] + best)[:, 1:]

    return search


def draw_alignment(translator: Translator, text: str, num_beams: int = 1) -> Figure:
    """Draw where the decoder looks in the source while it writes each token of its translation.

    Of a text that is longer than `max_seq_length` it is the first piece.
    """
    encoder, decoder, _ = parts(translator.model)
    [source] = encode(translator.source_tokenizer, [text])
    [target] = encode(translator.target_tokenizer, translate(translator, [text], num_beams))
    given = [*encoder(tf.constant([source.ids])), tf.constant([target.ids[:-1]])]
    weights = tf.cast(decoder(given)[3][0], tf.float32)  # (target length - 1, source length)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(source)), source.tokens, rotation=60, ha="right")
    axes.set_yticks(range(len(target) - 1), target.tokens[1:])
    return figure


# Plumbing: nothing below is about LSTMs -----------------------------------------------------------


class InputError(Exception):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def refuse(message: str) -> NoReturn:
    """Raise what the parser would print."""
    raise InputError(f"{message}: see --help")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the flags' defaults, and the docstring's commands line by line."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line; bad usage raises InputError."""
    options = {"description": __doc__, "allow_abbrev": False, "formatter_class": HelpFormatter}
    parser = argparse.ArgumentParser(**options)
    parser.error = refuse
    flags = MODEL | RECIPE | RUN
    for name, (kind, default, text) in flags.items():
        how = {"type": kind}
        if kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif kind is list:
            how = {"nargs": "+"}
        parser.add_argument(f"--{name}", default=default, help=text, **how)
    parser.set_defaults(bf16=has_bf16())
    args = parser.parse_args(argv)
    if not (args.train_file or args.model_name_or_path):
        parser.set_defaults(**SAMPLE_RECIPE)
    if args.smoke:
        parser.set_defaults(**SMOKE)
    args = parser.parse_args(argv)
    limits = {"dropout": 1, "label_smoothing_factor": 1, "seed": 2**32}
    for name, limit in limits.items():
        value = getattr(args, name)
        if not 0 <= value < limit:
            raise InputError(f"--{name} {value}: give 0, or more but less than {limit}")
    numbers = {name for name, (kind, _, _) in flags.items() if kind in (int, float)}
    check_positive(args, *sorted(numbers - limits.keys()))
    if args.max_seq_length < 3:
        raise InputError(f"--max_seq_length {args.max_seq_length}: give 3 or more")
    if not (args.do_train or args.do_eval or args.do_predict):
        args.do_train = not args.model_name_or_path
        args.do_eval = args.do_train or bool(args.test_file or args.baseline_file)
        args.do_predict = True
    model = args.model_name_or_path
    if not args.do_train and os.path.isdir(model or "") and args.output_dir == RUN["output_dir"][1]:
        args.output_dir = model  # what is made of a model goes to its folder
    if not (args.do_train or model):
        raise InputError("no model: add --do_train, or name one with --model_name_or_path")
    return args


def check_positive(args: object, *names: str) -> None:
    """Raise InputError if one of these flags has a number that is not above 0."""
    for name in names:
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name} {value}: give a number above 0")


def prepare_run(args: argparse.Namespace) -> str | None:
    """Set up devices, seed and precision; return the checkpoint to continue from, if any."""
    if args.input_file not in (None, "-") and not os.path.exists(args.input_file):
        raise InputError(f"there is no file {args.input_file}")
    if args.do_train or args.do_eval:
        with whole_files(args.output_dir):
            pass  # fails now, before any work, if nothing can be written there
        earlier_results(args.output_dir)
    tf.distribute.experimental_set_strategy(choose_devices())
    keras.utils.set_random_seed(args.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if args.bf16 else "float32")
    if args.resume_from_checkpoint == "last":
        complete = sorted(Path(args.output_dir).glob(f"checkpoint-*/{VOCABULARY_FILE}"))
        return str(complete[-1].parent) if complete else None
    checkpoint = args.resume_from_checkpoint
    if checkpoint and Path(checkpoint).resolve().parent != Path(args.output_dir).resolve():
        raise InputError(f"--resume_from_checkpoint {checkpoint} lies outside of --output_dir")
    return checkpoint


def choose_devices() -> tf.distribute.Strategy:
    """Return the strategy for the hosts of TF_CONFIG, else for all GPUs, else for the CPU."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def has_bf16() -> bool:
    """Tell whether bfloat16 is fast: on GPUs from Ampere, on CPUs with AVX-512 BF16 or AMX."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


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


def check_lengths(
    translator: Translator, splits: tuple[Pairs, Pairs, Pairs], args: argparse.Namespace
) -> None:
    """Print how many pairs are too long for the model. Raises InputError if all of a split are."""
    files = (args.train_file, args.validation_file or args.train_file, args.test_file)
    limit = translator.source_tokenizer.truncation["max_length"]
    names = ("training", "validation", "test")
    used = (args.do_train, args.do_train, args.do_eval and (args.test_file or not args.do_train))
    for pairs, name, file, needed in zip(splits, names, files, used, strict=True):
        if not needed:
            continue
        different = list(dict.fromkeys(pairs))  # few pairs stand there several times
        try:
            short = sort_out(translator, different)[1]
        except InputError as error:
            raise InputError(f"{file}: {name}: {error}") from error
        if not all(short):
            counts = f"{short.count(False)} of {len(short)} different {name} pairs"
            left_out = f"longer than --max_seq_length {limit}: left out, of all metrics, too"
            print(f"warning: {counts} are {left_out}", file=sys.stderr)


def read_baseline(path: str | None, encoding: str, wanted: int) -> list[str] | None:
    """Read another system's translations, if any. Raises InputError for a wrong number of lines."""
    if path is None:
        return None
    lines = list(read_lines(path, encoding))
    if len(lines) != wanted:
        raise InputError(f"{path}: {len(lines)} lines for {wanted} translations: give one for each")
    return lines


MODEL_FILE, VOCABULARY_FILE = "model.keras", "vocabulary.json"


def load_translator(folder: str | Path) -> Translator:
    """Load what `save_translator` wrote; the model computes in the dtype policy of now."""
    try:
        saved = json.loads(Path(folder, VOCABULARY_FILE).read_text())
        tokenizers = [Tokenizer.from_str(json.dumps(side)) for side in saved["tokenizers"]]
        settings = saved["settings"]["model"]
        model = build_model(**settings)
        model.load_weights(Path(folder, MODEL_FILE))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        remedy = "is not a complete folder saved by this script"
        raise InputError(f"{folder} {remedy}: {error}") from error
    return Translator(model, *tokenizers, settings, saved["settings"]["history"])


def save_translator(
    translator: Translator, folder: str | Path, model: keras.Model | None = None
) -> None:
    """Write the weights and, as the sign of a complete folder, vocabularies, settings, history.

    The weights are those of `model`, if given, with its optimizer's state.
    """
    tokenizers = (translator.source_tokenizer, translator.target_tokenizer)
    saved = {
        "settings": {"model": translator.settings, "history": translator.history},
        "tokenizers": [json.loads(tokenizer.to_str()) for tokenizer in tokenizers],
    }
    with whole_files(folder) as unfinished:
        (model or translator.model).save(unfinished / MODEL_FILE)
        (unfinished / VOCABULARY_FILE).write_text(json.dumps(saved, indent=1))


def checkpoint_folder(output_dir: str, epoch: int) -> Path:
    """Return the folder of an epoch's checkpoint."""
    return Path(output_dir, f"checkpoint-{epoch:04}")


def save_checkpoint(translator: Translator, learner: keras.Model, output_dir: str) -> None:
    """Save the epoch that has just ended; of the earlier ones only the best stays."""
    last = checkpoint_folder(output_dir, len(translator.history))
    best = checkpoint_folder(output_dir, best_epoch(translator.history))
    (last / VOCABULARY_FILE).unlink(missing_ok=True)  # of an earlier run
    save_translator(translator, last, learner)
    for folder in Path(output_dir).glob("checkpoint-*"):
        if folder not in (last, best):
            remove_checkpoint(folder)


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, first the sign that it is complete: half a checkpoint is none."""
    (folder / VOCABULARY_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder)


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


def draw_training_curve(history: list[dict]) -> Figure:
    """Draw the losses of every epoch."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("train_loss", "eval_loss"):
        losses = [record[name] for record in history]
        axes.plot(range(1, len(losses) + 1), losses, "o-", label=name)
    axes.set(xlabel="epoch", ylabel="nats per token", ylim=(0, None))
    axes.legend()
    return figure


def save_figure(figure: Figure, output_dir: str, name: str) -> None:
    """Write a picture as PNG."""
    warnings.filterwarnings("ignore", "Glyph")  # the font lacks most languages
    with whole_files(output_dir) as folder:
        figure.savefig(folder / name, dpi=120)


def predict(translator: Translator, pairs: Pairs, args: argparse.Namespace) -> None:
    """Translate --text and --input_file, or else the sources of the pairs, to file or screen."""
    texts = list(args.text)
    if args.input_file:
        texts += read_lines(args.input_file, args.encoding)
    elif not texts:
        pairs = pairs if args.output_file else pairs[:20]
        texts = [source for source, _ in pairs]
    translations = translate(translator, texts, args.num_beams, args.batch_size)
    if args.output_file:
        path = Path(args.output_file)
        with whole_files(path.parent) as folder:
            text = "".join(f"{line}\n" for line in translations)
            (folder / path.name).write_text(text, encoding="utf-8")
    elif args.text or args.input_file:
        print(*translations, sep="\n")
    else:
        show_translations(texts, translations)


def show_translations(texts: list[str], translations: list[str]) -> None:
    """Print texts with their translations."""
    for text, translation in zip(texts, translations, strict=True):
        print(f"  {text} -> {translation}")


def save_alignment(translator: Translator, pairs: Pairs, args: argparse.Namespace) -> None:
    """Draw where attention looks in the first --text, else in the first source that is scored."""
    if not (translator.settings["attention"] and (args.text or args.do_eval)):
        return
    text = args.text[0] if args.text else pairs[0][0]
    save_figure(draw_alignment(translator, text, args.num_beams), args.output_dir, "alignment.png")
    print("Alignment:", Path(args.output_dir, "alignment.png"), file=sys.stderr)


def save_results(metrics: dict[str, float], output_dir: str, model: str) -> None:
    """Write the metrics beside earlier ones of this model; a finished run needs no checkpoints."""
    trained = "train_loss" in metrics
    same = not trained and Path(model).resolve() == Path(output_dir).resolve()
    earlier = earlier_results(output_dir) if same else {}
    with whole_files(output_dir) as folder:
        text = json.dumps(earlier | metrics, indent=2, sort_keys=True)
        (folder / "all_results.json").write_text(text)
    for checkpoint in Path(output_dir).glob("checkpoint-*") if trained else []:
        remove_checkpoint(checkpoint)


def earlier_results(output_dir: str) -> dict[str, float]:
    """Return the metrics of an earlier run in this folder. Raises InputError if it was no run."""
    results = Path(output_dir, "all_results.json")
    try:
        return dict(json.loads(results.read_bytes() if results.exists() else "{}"))
    except (TypeError, ValueError) as error:
        other = f"{results} is of another program"
        raise InputError(f"{other}: give another --output_dir") from error


def report_run(metrics: dict[str, float], pairs: Pairs, args: argparse.Namespace) -> None:
    """Print metrics, how they count, files and the next command, which translates a source."""
    for name in sorted(metrics):
        print(f"{name:>28} = {metrics[name]:.4g}")
    print("sacrebleu:", *(metric.get_signature() for metric in METRICS.values()))
    files = sorted(path for path in Path(args.output_dir).iterdir() if path.is_file())
    print("Files:", *files, sep="\n  ")
    if args.smoke and args.train_file:
        print("A tiny model was tried: its quality tells nothing about that of a real one")
    # In one word: a source may begin with a dash.
    flags = ["--model_name_or_path", args.model_name_or_path, f"--text={pairs[0][0]}"]
    print("Next:\n ", shlex.join(["python", sys.argv[0], *flags]))


SMOKE = {
    "embedding_dim": 64,
    "hidden_size": 128,
    "learning_rate": 5e-3,
    "batch_size": 8,
    "dropout": 0.0,
    "max_train_samples": 1000,
    "bf16": False,
}
SAMPLE_RECIPE = {"batch_size": 8, "dropout": 0.0}
FEW_PAIRS = 50  # too few to hold some out
ROUNDS = 20  # an epoch goes so often through few pairs: enough for a validation after it
SAMPLE_PAIRS = [
    ("Ein Hund läuft durch den Schnee.", "A dog runs through the snow."),
    ("Eine Katze schläft auf dem Sofa.", "A cat is sleeping on the sofa."),
    ("Zwei Kinder spielen im Park.", "Two children are playing in the park."),
    ("Der Mann liest eine Zeitung.", "The man reads a newspaper."),
    ("Die Frau trinkt eine Tasse Kaffee.", "The woman drinks a cup of coffee."),
    ("Ein Junge wirft einen roten Ball.", "A boy throws a red ball."),
    ("Ein Mädchen malt ein Bild.", "A girl paints a picture."),
    ("Der Zug kommt heute später.", "The train arrives later today."),
    ("Wir essen zusammen zu Abend.", "We eat dinner together."),
    ("Ich habe meinen Schlüssel verloren.", "I have lost my key."),
    ("Wo ist der Bahnhof?", "Where is the station?"),
    ("Das Wetter ist heute schön.", "The weather is nice today."),
    ("Es regnet seit drei Tagen.", "It has been raining for three days."),
    ("Meine Schwester wohnt in Berlin.", "My sister lives in Berlin."),
    ("Der Lehrer erklärt die Aufgabe.", "The teacher explains the exercise."),
    ("Sie fährt mit dem Fahrrad zur Arbeit.", "She rides her bicycle to work."),
    ("Die Bäckerei öffnet um sechs Uhr.", "The bakery opens at six o'clock."),
    ("Kannst du mir bitte helfen?", "Can you help me, please?"),
    ("Das Boot liegt am Ufer.", "The boat lies on the shore."),
    ("Vögel fliegen über das Meer.", "Birds fly over the sea."),
    ('Der Arzt sagt: "Alles ist gut."', 'The doctor says: "All is well."'),
    ("Er kauft Brot, Käse und Wein.", "He buys bread, cheese and wine."),
    ("Das Buch ist besser als der Film.", "The book is better than the film."),
    ("Niemand kennt die Antwort.", "Nobody knows the answer."),
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
    except (InputError, OSError, tf.errors.ResourceExhaustedError) as error:
        if isinstance(error, tf.errors.ResourceExhaustedError):
            error = f"out of memory, {error.message.splitlines()[0]}: give a smaller --batch_size"
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
