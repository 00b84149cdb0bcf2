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
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-28
"""Translate with an LSTM encoder and decoder in TensorFlow/Keras, with attention if you like.

python seq2seq_lstm.py --smoke                                        # seconds, no download
python seq2seq_lstm.py --attention --train_file train.tsv --validation_file validation.tsv
python seq2seq_lstm.py --model_name_or_path outputs/seq2seq_lstm --text "Wo ist der Bahnhof?"

The encoder reads the source; the decoder starts from the encoder's state and writes the target, a
token at a time: p(target | source) is the product of all p(token | tokens before it, source).

An LSTM moves its state h, c on with the vector x of every token (s: the logistic function; W, U and
b: weights of each gate's own; the products are taken element by element):

    i, f, o = s(W x + U h + b)        input, forget and output gate
    g = tanh(W x + U h + b)           what the token would add
    c <- f c + i g,  h <- o tanh(c)

The plain model follows Sutskever et al. 2014 (https://arxiv.org/abs/1409.3215), with one layer: all
that the decoder knows of the source is the encoder's last state. --attention follows Luong et al.
2015 (https://arxiv.org/abs/1508.04025), with a source that is read in both directions. The decoder
at state h looks back at the encoder's outputs m_1 ... m_n, its memory:

    score_j = h W m_j / sqrt(hidden)                "general", equation 8, scaled
    a = softmax(score_1 ... score_n),  context = sum of a_j m_j
    h' = tanh(W' [context; h])                      equation 5
    p(token) = softmax(V h' + b)                    V h' + b: the logits

In training the right tokens go in, not those that the model would write (teacher forcing):

    in      <sos>  a    dog      (batch, target)
    wanted  a      dog  <eos>    (batch, target): one ahead

    source ids            (batch, source)
    state h, c            (batch, hidden), of the encoder's end and of the decoder
    memory                (batch, source, hidden)
    attention weights a   (batch, target, source)
    logits                (batch, target, vocabulary)

Read `main`, then its parts: vocabulary, model, training, decoding. "Speed" has the
search that `main` uses; flags, files and reporting come last, under "Plumbing".

The flags; --no-... switches off:

    attention                 let the decoder look back at every token of the source
    embedding_dim             size of the word vectors
    hidden_size               units of encoder and decoder
    dropout                   against learning by heart: more for few pairs, less for many
    vocab_size                subwords per language
    max_seq_length            in tokens: longer pairs are left out, longer texts cut up
    num_train_epochs          at most so many epochs
    early_stopping_patience   stop after so many epochs without a better BLEU
    batch_size                pairs per update; 8 for the built-in ones
    learning_rate             step size of Adam
    label_smoothing_factor    probability that is spread over all tokens
    seed                      decides weights, order and dropout
    smoke                     only try it: a tiny model, in seconds; the built-in pairs imply it
    do_train                  train; without any do_... files and texts decide what is done
    do_eval                   score the test pairs, and show twenty
    do_predict                translate
    model_name_or_path        folder of a trained model, which keeps its own sizes
    train_file                TSV, CSV or JSON lines of pairs; without it the built-in ones
    validation_file           pairs that choose the best epoch, else every twentieth
    test_file                 pairs to score at the end, else those of validation
    encoding                  of text files: cp1252 for Excel's and Word's in Western Europe
    max_train_samples         train on the first pairs only
    num_beams                 width of the beam search; 1 decodes greedily
    text                      sentences to translate
    input_file                text to translate line by line; - is standard input
    output_file               where translations go instead of the screen
    output_dir                folder of all else: outputs/seq2seq_lstm, or that of the given model
    resume_from_checkpoint    folder of a checkpoint, or last: the newest, if any
    bf16                      compute in mixed bfloat16: on where the machine is fast in it
"""

import argparse
import codecs
import csv
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

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

# What the model is; a loaded one keeps its own.
MODEL = {
    "attention": False,
    "embedding_dim": 256,
    "hidden_size": 512,
    "dropout": 0.4,
    "vocab_size": 6000,
    "max_seq_length": 100,
}
# What is done, and on which files: paths have no default.
RUN = {
    "smoke": False,
    "do_train": False,
    "do_eval": False,
    "do_predict": False,
    "encoding": "utf-8-sig",
    "max_train_samples": 10**9,
    "num_beams": 1,
    "text": [],
}
PAD, UNK, SOS, EOS = range(4)
SPECIAL_TOKENS = ["<pad>", "<unk>", "<sos>", "<eos>"]
# Source and target.
Pairs = list[tuple[str, str]]
# A padded batch of token ids: (batch, length).
IDS = tf.TensorSpec([None, None], tf.int32)


@dataclass
class Recipe:
    """How it is trained."""

    num_train_epochs: int = 12
    early_stopping_patience: int = 4
    batch_size: int = 64
    learning_rate: float = 1e-3
    label_smoothing_factor: float = 0.1
    seed: int = 42


def main(argv: list[str] | None = None) -> None:
    """Train, score and translate: all that there is something for, or what --do_... chooses."""
    args = parse_arguments(argv)
    checkpoint = prepare_run(args)
    train, validation, test, texts = load_splits(args)
    folder = checkpoint or args.model_name_or_path
    translator = load_translator(folder) if folder else new_translator(train, **args.new_model)
    translator.search = compile_search(translator.model, args.num_beams)
    metrics = {}
    if args.do_train:
        metrics |= fit(translator, train, validation, args.output_dir, checkpoint, **args.recipe)
    if args.do_eval:
        metrics |= evaluate(translator, test, "test", args.batch_size)
    if metrics:
        report_run(metrics, test[0][0], args)
    if args.do_predict:
        predict(translator, texts, args)


def load_splits(args: argparse.Namespace) -> tuple[Pairs, Pairs, Pairs, list[str]]:
    """Return pairs to train on, to validate with and to test, and texts to translate.

    Without texts these are the sources of the test.
    """
    read = partial(read_pairs, encoding=args.encoding)
    train, texts = SAMPLE_PAIRS, list(args.text)
    if args.train_file:
        train = read(args.train_file)[: args.max_train_samples]
    few = len(train) < 50
    if args.validation_file:
        validation = read(args.validation_file)
    elif few:
        validation = train
        if args.do_train:
            print("fewer than 50 pairs: learnt by heart, they validate, too", file=sys.stderr)
    else:
        train, validation = hold_out(train)
    if few:
        # So often in an epoch: else validations, one after each, would take most of the time.
        train = train * 20
    test = validation
    if args.test_file:
        test = read(args.test_file)
    elif args.do_eval:
        origin = args.validation_file or args.train_file or "built-in"
        print(f"no --test_file: scored are the validation pairs ({origin})")
    if args.input_file:
        texts += read_lines(args.input_file, args.encoding)
    elif not texts:
        texts = [source for source, _ in test]
    return train, validation, test, texts


def hold_out(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Return pairs to train on, and all those of every twentieth source to validate with.

    A source that stands in several pairs is on one side alone, whatever its capitals and spaces:
    one that the model has learnt tells nothing.
    """

    def source(pair):
        return " ".join(pair[0].lower().split())

    held_out = set(list(dict.fromkeys(map(source, pairs)))[::20])
    train = [pair for pair in pairs if source(pair) not in held_out]
    return train, [pair for pair in pairs if source(pair) in held_out]


@dataclass
class Translator:
    """A model with the tokenizers of its two languages.

    `settings`: the arguments of `build_model`. `history`: the metrics of every epoch. `search`:
    source ids (batch, length) to target ids, in place of `greedy`: see `compile_search`.
    """

    model: keras.Model
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    settings: dict
    history: list[dict]
    search: Callable | None = None


def load_translator(folder: str | Path) -> Translator:
    """Load what `save_translator` wrote; the model computes in the dtype policy of now."""
    try:
        saved = json.loads(Path(folder, "vocabulary.json").read_text())
        tokenizers = [Tokenizer.from_str(json.dumps(side)) for side in saved["tokenizers"]]
        settings, history = saved["settings"]["model"], saved["settings"]["history"]
        model = build_model(**settings)
        model.load_weights(Path(folder, "model.keras"))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        found = f"{folder} is not a complete folder saved by this script"
        raise InputError(f"{found}: {error}") from error
    for tokenizer in tokenizers:
        # This is not saved.
        tokenizer.encode_special_tokens = True
    return Translator(model, *tokenizers, settings, history)


def new_translator(pairs: Pairs, **options) -> Translator:
    """Learn both vocabularies from the training pairs and build a model with random weights.

    `options`: what shall be otherwise than in MODEL.
    """
    settings = MODEL | options
    limits = [settings.pop(name) for name in ("vocab_size", "max_seq_length")]
    source, target = [train_tokenizer(texts, *limits) for texts in zip(*pairs, strict=True)]
    settings["sizes"] = [source.get_vocab_size(), target.get_vocab_size()]
    return Translator(build_model(**settings), source, target, settings, [])


def train_tokenizer(texts: Sequence[str], vocab_size: int, max_seq_length: int) -> Tokenizer:
    """Learn byte-pair encoding inside words; <sos> begins and <eos> ends every text.

    Source: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909. "▁" stands for the space before
    a word, so that decoding gives the text back with its spaces.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(r"▁?(\w+|[^\w▁])"), "isolated")
    steps = [pre_tokenizers.Metaspace(split=False), words]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.Metaspace()
    # No line ends, which it might write.
    texts = (" ".join(text.split()) for text in texts)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(("<eos>", EOS), ("<sos>", SOS))
    tokenizer.enable_truncation(max_seq_length)
    # "<eos>" in a text is text.
    tokenizer.encode_special_tokens = True
    return tokenizer


def build_model(
    sizes: list[int], embedding_dim: int, hidden_size: int, dropout: float, attention: bool
) -> keras.Model:
    """Build a model: source and target ids, int32 (batch, length), to logits.

    Logits: (batch, target length, target vocabulary). `sizes`: of the two vocabularies. Its three
    parts are called `encoder`, `decoder` and `projection`, the last from the decoder's outputs to
    logits. All layers are Keras' own, so that `keras.saving.load_model` opens a saved model without
    this file.
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
    """Build what reads source ids (batch, length).

    Its outputs: the last state, h and c (batch, hidden), and with attention what the decoder looks
    back at: memory (batch, source, hidden) and mask, bool (batch, source), True at real tokens.
    """
    source = keras.Input((None,), dtype="int32")
    words = layers.Dropout(dropout)(layers.Embedding(vocab_size, embedding_dim)(source))
    mask = source != PAD
    if attention:
        # Each direction has half of the units.
        lstm = layers.LSTM(hidden_size // 2, return_sequences=True, return_state=True)
        memory, *states = layers.Bidirectional(lstm)(words, mask=mask)
        # A sum does not carry Keras' own mask along: the decoder, which is given ours, would warn.
        memory = memory + 0
        h, c = layers.Concatenate()(states[::2]), layers.Concatenate()(states[1::2])
        encoded = [h, c, memory, mask]
    else:
        # Sutskever's section 3.3: read backwards, the first words come close to their use.
        lstm = layers.LSTM(hidden_size, go_backwards=True, return_state=True)
        _, *encoded = lstm(words, mask=mask)
    return keras.Model(source, encoded, name="encoder")


def build_decoder(
    encoded: list[keras.KerasTensor], vocab_size: int, embedding_dim: int, dropout: float
) -> keras.Model:
    """Build what writes, given what `encoded` describes and target ids (batch, length).

    Its outputs: (batch, target, hidden), the state after them, h and c, and with attention its
    weights (batch, target, source).
    """
    target = keras.Input((None,), dtype="int32")
    given = [keras.Input(one.shape[1:], dtype=one.dtype) for one in encoded]
    h, c, *seen = given
    size = h.shape[-1]
    words = layers.Dropout(dropout)(layers.Embedding(vocab_size, embedding_dim)(target))
    lstm = layers.LSTM(size, return_sequences=True, return_state=True)
    output, *rest = lstm(words, initial_state=[h, c])
    if seen:
        memory, mask = seen
        # h W of equation 8, scaled
        query = layers.Dense(size, use_bias=False)(output) * size**-0.5
        context, weights = layers.Attention()(
            [query, memory], [None, mask], return_attention_scores=True
        )
        # (batch, target, 2 * hidden), for equation 5
        both = layers.Concatenate()([context, output])
        output = layers.Dense(size, "tanh", use_bias=False)(both)
        rest.append(weights)
    output = layers.Dropout(dropout)(output)
    return keras.Model([*given, target], [output, *rest], name="decoder")


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """Tokenize texts, <sos> to <eos>; what exceeds `max_seq_length` is in `overflowing`."""
    return tokenizer.encode_batch([" ".join(text.split()) for text in texts])


def encode_pairs(
    translator: Translator, pairs: Pairs, name: str
) -> tuple[Pairs, list[tf.RaggedTensor]]:
    """Return the pairs that the model reads whole, and their ids, int32 (pairs, tokens) a language.

    Says how many others are left out, and raises InputError if all are. `name`: what they are for.
    """
    rows = []
    sources, targets = zip(*pairs, strict=True)
    sources = encode(translator.source_tokenizer, sources)
    targets = encode(translator.target_tokenizer, targets)
    for pair, source, target in zip(pairs, sources, targets, strict=True):
        if not (source.overflowing or target.overflowing):
            rows.append((pair, source.ids, target.ids))
    left_out = len(pairs) - len(rows)
    found = f"{left_out} of {len(pairs)} {name} pairs are longer than --max_seq_length"
    if not rows:
        raise InputError(f"{found}: give shorter ones, or train with a higher number")
    if left_out:
        print(f"warning: {found}: left out, of all metrics, too", file=sys.stderr)
    short, *ids = zip(*rows, strict=True)
    return list(short), [tf.ragged.constant(side) for side in ids]


def fit(
    translator: Translator,
    train: Pairs,
    validation: Pairs,
    output_dir: str,
    checkpoint: str | Path | None = None,
    **options,
) -> dict[str, float]:
    """Train until the validation BLEU stops rising; keep the best epoch, also in `output_dir`.

    Returns its metrics, and changes `translator`. `checkpoint`: a folder in `output_dir` that
    `translator` was loaded from; such a run ends with the weights of one that was never
    interrupted. `options`: what shall be otherwise than in `Recipe`. Raises InputError.
    """
    recipe = Recipe(**options)
    _, data = encode_pairs(translator, train, "training")
    validation, _ = encode_pairs(translator, validation, "validation")
    # A second model learns. Adam keeps moving averages of its weights, which translate better:
    # `finalize_variable_values` copies them into the translator's model.
    learner = build_learner(translator, recipe.learning_rate, len(train) / recipe.batch_size)
    weights = translator.model.trainable_variables
    if checkpoint:
        # With the optimizer's state.
        learner.load_weights(Path(checkpoint, "model.keras"))
    else:
        translator.history = []
    history = translator.history
    step = compile_step(learner, recipe.label_smoothing_factor)
    patience = recipe.early_stopping_patience
    while len(history) < min(recipe.num_train_epochs, best_epoch(history) + patience):
        rng = np.random.default_rng([recipe.seed, len(history)])
        loss = train_epoch(learner, step, make_batches(data, recipe.batch_size, rng), rng)
        learner.optimizer.finalize_variable_values(weights)
        record = {"epoch": len(history) + 1, "train_loss": loss}
        record |= evaluate(translator, validation, "eval", recipe.batch_size)
        history.append(record)
        save_checkpoint(translator, learner, output_dir)
        print(", ".join(f"{name} {value:.4g}" for name, value in record.items()))
    best = best_epoch(history)
    learner.load_weights(Path(output_dir, f"checkpoint-{best:04}", "model.keras"))
    learner.optimizer.finalize_variable_values(weights)
    save_translator(translator, output_dir)
    draw_training_curve(history, output_dir)
    draw_alignment(translator, validation[0][0], output_dir)
    return history[best - 1]


def build_learner(translator: Translator, learning_rate: float, epoch_steps: float) -> keras.Model:
    """Return a copy of the model, with Adam.

    It clips gradients, and averages the weights over some two epochs. `epoch_steps`: updates in an
    epoch.
    """
    learner = build_model(**translator.settings)
    learner.set_weights(translator.model.get_weights())
    momentum = 1 - 0.5 / max(1, epoch_steps)
    adam = keras.optimizers.Adam(
        learning_rate, global_clipnorm=1.0, use_ema=True, ema_momentum=momentum
    )
    learner.compile(adam)
    # So that its state can be loaded.
    learner.optimizer.build(learner.trainable_variables)
    return learner


def train_epoch(
    learner: keras.Model, step: Callable, batches: tf.data.Dataset, rng: np.random.Generator
) -> float:
    """Learn from every batch, with a dropout of `rng` alone; return the mean loss of a token."""
    for variable in learner.variables:
        if "seed_generator" in variable.path:
            variable.assign(rng.integers(2**32, size=2, dtype=np.uint32))
    losses = [step(*ids) for ids in tqdm(batches, "Training", disable=None, leave=False)]
    return float(np.concatenate(losses).mean())


def train_step(
    learner: keras.Model, smoothing: float, source: tf.Tensor, target: tf.Tensor
) -> tf.Tensor:
    """Learn from a batch of ids, (batch, length) each; return the loss of every target token."""
    with tf.GradientTape() as tape:
        losses, smoothed = cross_entropy(learner, source, target, smoothing, training=True)
        loss = tf.reduce_mean(smoothed)
    gradients = tape.gradient(loss, learner.trainable_variables)
    learner.optimizer.apply(gradients)
    return losses


def cross_entropy(
    model: keras.Model,
    source: tf.Tensor,
    target: tf.Tensor,
    smoothing: float = 0.0,
    training: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return sparse categorical cross-entropy of every real target token, plain and smoothed.

    (tokens,) each, in nats; the ids are (batch, length). Smoothed (Szegedy et al. 2016,
    https://arxiv.org/abs/1512.00567) `smoothing` of the probability that is wanted is spread over
    all tokens.
    """
    encoder, decoder, projection = parts(model)
    state = encoder(source, training=training)
    # Teacher forcing: the right tokens go in, from <sos>; those ahead are wanted, up to <eos>.
    output = decoder([*state, target[:, :-1]], training=training)[0]
    labels = target[:, 1:]
    real = labels != PAD
    # The projection is the largest product of all: padding does not enter it.
    labels, logits = labels[real], tf.cast(projection(output[real]), tf.float32)
    log_p = tf.nn.log_softmax(logits)
    plain = -tf.gather(log_p, labels, batch_dims=1)
    return plain, (1 - smoothing) * plain - smoothing * tf.reduce_mean(log_p, axis=1)


def make_batches(
    data: list[tf.RaggedTensor], batch_size: int, rng: np.random.Generator, window: int = 100
) -> tf.data.Dataset:
    """Yield padded source and target ids, int32 (batch, length) each, in an order of `rng` alone.

    A window of 1 is the plain way: any lengths together. Of more, so many batches are sorted by
    length before they are cut, and then shuffled: hardly any padding is left, and 1.6 times as many
    pairs are learnt in a second.
    """
    lengths = [side.row_lengths().numpy() for side in data]
    order, batches = rng.permutation(len(lengths[0])), []
    for start in range(0, len(order), window * batch_size):
        rows = order[start : start + window * batch_size]
        # By target, then by source.
        rows = rows[np.lexsort([side[rows] for side in lengths])]
        batches += np.split(rows, range(batch_size, len(rows), batch_size))
    rng.shuffle(batches)

    def pad(rows):
        return tuple(tf.gather(side, rows).to_tensor() for side in data)

    return tf.data.Dataset.from_tensor_slices(tf.ragged.constant(batches)).map(pad).prefetch(2)


def best_epoch(history: list[dict]) -> int:
    """Return the epoch of the highest BLEU, of equals that of the lowest loss; at first 0."""
    best = max(history, key=lambda record: (record["eval_bleu"], -record["eval_loss"]), default={})
    return best.get("epoch", 0)


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
        (model or translator.model).save(unfinished / "model.keras")
        (unfinished / "vocabulary.json").write_text(json.dumps(saved, indent=1))


def evaluate(
    translator: Translator, pairs: Pairs, prefix: str = "test", batch_size: int = 64
) -> dict[str, float]:
    """Return loss in nats per token, perplexity and what `score` tells of the translations."""
    pairs, data = encode_pairs(translator, pairs, prefix)
    batches = make_batches(data, batch_size, np.random.default_rng(0))
    losses = [cross_entropy(translator.model, *ids)[0] for ids in batches]
    loss = float(np.concatenate(losses).mean())
    sources, targets = zip(*pairs, strict=True)
    translations = translate(translator, sources, batch_size)
    examples = dict(zip(sources, translations, strict=True))
    for pair in list(examples.items())[: 20 if prefix == "test" else 3]:
        print(" ", " -> ".join(pair))
    if len(set(translations)) <= len(examples) / 10:
        print("warning: translations are alike: the model ignores what it reads", file=sys.stderr)
    # Translations have no capital letters.
    metrics = choose_metrics(targets, lowercase=True)
    scores = score(translations, targets, metrics=metrics)
    if prefix == "test":
        print("sacrebleu:", *(metric.get_signature() for metric in metrics.values()))
    results = {"loss": loss, "perplexity": float(np.exp(loss))} | scores
    return {f"{prefix}_{name}": value for name, value in results.items()}


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


def translate(translator: Translator, texts: Sequence[str], batch_size: int = 64) -> list[str]:
    """Translate texts of any length, in order; blank stays blank. Long ones go in pieces."""
    search = translator.search or partial(greedy, translator.model)
    # The number of its text, and token ids.
    pieces = []
    for number, encoding in enumerate(encode(translator.source_tokenizer, texts)):
        for piece in (encoding, *encoding.overflowing):
            # More than <sos> and <eos>.
            if len(piece) > 2:
                pieces.append((number, piece.ids))
    # Longest first. A text's last piece is its shortest: its pieces stay in order.
    pieces.sort(key=lambda piece: -len(piece[1]))
    translations = [""] * len(texts)
    for start in tqdm(range(0, len(pieces), batch_size), "Translating", disable=None, leave=False):
        numbers, ids = zip(*pieces[start : start + batch_size], strict=True)
        target = search(keras.utils.pad_sequences(ids, padding="post"))
        decoded = translator.target_tokenizer.decode_batch(np.array(target).tolist())
        for number, text in zip(numbers, decoded, strict=True):
            translations[number] = f"{translations[number]} {text}".strip()
    return translations


def greedy(model: keras.Model, source: np.ndarray) -> np.ndarray:
    """Write the likeliest token, again and again: source ids (batch, length) to target ids.

    These are (batch, at most twice the length), from the first word to <eos>. <unk> is never
    chosen. In float32 `compile_search` with one beam gives the same.
    """
    encoder, decoder, projection = parts(model)
    h, c, *seen = encoder(source)
    tokens = [np.full(len(source), SOS)]
    # Each sentence's own.
    limit = 2 * np.count_nonzero(source, axis=1)
    finished = np.zeros(len(source), bool)
    while not finished.all():
        output, h, c, *_ = decoder([h, c, *seen, tf.constant(tokens[-1][:, None])])
        # (batch, vocabulary)
        logits = tf.cast(projection(output[:, 0]), tf.float32)
        # Not <pad>, <unk> and <sos>.
        token = EOS + np.argmax(logits[:, EOS:], axis=1)
        tokens.append(np.where(finished, PAD, token))
        finished |= (token == EOS) | (len(tokens) > limit)
    return np.stack(tokens[1:], axis=1)


def parts(model: keras.Model) -> list[layers.Layer]:
    """Return encoder, decoder and projection of a model of `build_model`."""
    return [model.get_layer(name) for name in ("encoder", "decoder", "projection")]


def draw_alignment(translator: Translator, text: str, output_dir: str) -> None:
    """Draw where the decoder looks in the source while it writes each token of its translation.

    Of a text that is longer than `max_seq_length` it is the first piece. Without attention there is
    nothing to draw.
    """
    if not translator.settings["attention"]:
        return
    encoder, decoder, _ = parts(translator.model)
    [source] = encode(translator.source_tokenizer, [text])
    # What the decoder writes for this piece alone, which ends with the token before <eos>.
    piece = " ".join(text.split())[: source.offsets[-2][1]]
    [target] = encode(translator.target_tokenizer, translate(translator, [piece]))
    given = [*encoder(tf.constant([source.ids])), tf.constant([target.ids[:-1]])]
    # (target length - 1, source length)
    weights = tf.cast(decoder(given)[3][0], tf.float32)
    axes = Figure(layout="constrained").subplots()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(source)), source.tokens, rotation=60, ha="right")
    axes.set_yticks(range(len(target) - 1), target.tokens[1:])
    save_figure(axes.figure, Path(output_dir, "alignment.png"))


# Speed: the same, faster --------------------------------------------------------------------------


def compile_step(learner: keras.Model, smoothing: float) -> Callable:
    """Compile `train_step` for a learner: it learns from 2.5 times as many pairs a second."""
    return tf.function(partial(train_step, learner, smoothing), input_signature=[IDS, IDS])


def compile_search(model: keras.Model, num_beams: int = 1) -> Callable:
    """Compile beam search: source ids (batch, length) to target ids.

    With one beam it is `greedy`, four times as fast. The loop over tokens runs inside the graph and
    ends when every sentence has its <eos>. The beam of the highest mean log probability per token
    wins: by the sum short translations would.
    """
    encoder, decoder, projection = parts(model)
    classes = model.output.shape[-1]
    # <pad>, <unk> and <sos> are never written; after <eos> comes padding, at no cost.
    never = tf.where(tf.range(classes) < EOS, -1e9, 0.0)
    only_padding = tf.one_hot(PAD, classes, 0.0, -1e9)

    @tf.function(input_signature=[IDS])
    def search(source):
        batch = tf.shape(source)[0]
        limit = 2 * tf.math.count_nonzero(source, axis=1, dtype=tf.int32)
        encoded = [limit, *encoder(source)]
        limit, h, c, *seen = [tf.repeat(tensor, num_beams, axis=0) for tensor in encoded]
        # (batch, 1): where a sentence's beams begin
        first = tf.range(batch)[:, None] * num_beams
        # (batch, beams). All beams of a sentence begin alike: at first only one of them counts.
        scores = tf.repeat([[0.0] + [-1e9] * (num_beams - 1)], batch, axis=0)
        # (batch * beams, length)
        tokens = tf.fill([batch * num_beams, 1], SOS)
        finished = tf.fill([batch * num_beams], False)
        while not tf.reduce_all(finished):
            tf.autograph.experimental.set_loop_options(shape_invariants=[(tokens, IDS.shape)])
            output, h, c = decoder([h, c, *seen, tokens[:, -1:]])[:3]
            # (batch * beams, classes)
            logits = tf.cast(projection(output[:, 0]), tf.float32)
            gains = tf.where(finished[:, None], only_padding, tf.nn.log_softmax(logits + never))
            totals = tf.reshape(scores, [-1, 1]) + gains
            scores, chosen = tf.math.top_k(tf.reshape(totals, [batch, -1]), num_beams)
            # The beam that each continues, and by which token.
            parent = tf.reshape(first + chosen // classes, [-1])
            token = tf.reshape(chosen % classes, [-1])
            h, c = tf.gather(h, parent), tf.gather(c, parent)
            tokens = tf.concat([tf.gather(tokens, parent), token[:, None]], axis=1)
            finished = (token == EOS) | (token == PAD) | (tf.shape(tokens)[1] > limit)
        tokens = tf.reshape(tokens[:, 1:], [batch, num_beams, -1])
        lengths = tf.math.count_nonzero(tokens, axis=2, dtype=tf.float32)
        return tf.gather(tokens, tf.argmax(scores / lengths, axis=1), batch_dims=1)

    return search


# Plumbing: nothing below is about LSTMs -----------------------------------------------------------


class InputError(ValueError):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def refuse(message: str) -> None:
    """Raise what the parser would print."""
    raise InputError(f"{message}: see --help")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line; bad usage raises InputError."""
    about, _, flags = __doc__.partition("The flags")
    defaults = MODEL | vars(Recipe()) | RUN | {"bf16": has_bf16()}
    parser = argparse.ArgumentParser(usage=f"%(prog)s [flags]\n\n{about}")
    parser.error = refuse
    # The flags are those of the docstring, their types those of their defaults.
    for name, text in re.findall(r"    (\w+) +(.*)", flags):
        default = defaults.get(name, "")
        how = {"type": type(default)}
        if type(default) is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif default == []:
            how = {"nargs": "+"}
        parser.add_argument(f"--{name}", default=default, help=f"{text} [%(default)s]", **how)
    args = parser.parse_args(argv)
    if args.smoke or not (args.train_file or args.model_name_or_path):
        parser.set_defaults(**SMOKE)
    args = parser.parse_args(argv)
    for name, value in vars(args).items():
        count = type(value) is int and name != "seed"
        rate = type(value) is float
        if (count and value < 1) or (rate and not 0 <= value < 1):
            raise InputError(f"--{name} {value}: counts are above 0, rates from 0 to below 1")
    try:
        codecs.lookup(args.encoding)
    except LookupError as error:
        raise InputError(f"--encoding: {error}") from error
    if not (args.do_train or args.do_eval or args.do_predict):
        args.do_train = not args.model_name_or_path
        args.do_eval = args.do_train or args.test_file
        args.do_predict = args.text or args.input_file or args.output_file or not args.do_eval
    if not (args.do_train or args.model_name_or_path):
        raise InputError("no model: add --do_train, or name one with --model_name_or_path")
    if not args.output_dir:
        args.output_dir = "outputs/seq2seq_lstm" if args.do_train else args.model_name_or_path
    args.new_model = {name: getattr(args, name) for name in MODEL}
    args.recipe = {name: getattr(args, name) for name in vars(Recipe())}
    return args


def has_bf16() -> bool:
    """Tell whether bfloat16 is fast: on GPUs from Ampere, on CPUs with AVX-512 BF16 or AMX."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0])["compute_capability"] >= (8, 0)
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "_bf16" in cpu.read_text()


def prepare_run(args: argparse.Namespace) -> str | Path | None:
    """Set up this process: devices, seed, precision; return the checkpoint to continue, if any."""
    keras.utils.set_random_seed(args.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if args.bf16 else "float32")
    # From pictures, whose font lacks most languages.
    warnings.filterwarnings("ignore", "Glyph")
    if args.resume_from_checkpoint != "last":
        return args.resume_from_checkpoint
    complete = Path(args.output_dir).glob("checkpoint-*/vocabulary.json")
    return max((file.parent for file in complete), default=None)


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


def save_checkpoint(translator: Translator, learner: keras.Model, output_dir: str) -> None:
    """Save the epoch that has just ended; of the earlier ones only the best stays."""
    last = Path(output_dir, f"checkpoint-{len(translator.history):04}")
    best = Path(output_dir, f"checkpoint-{best_epoch(translator.history):04}")
    # Of an earlier run.
    shutil.rmtree(last, ignore_errors=True)
    save_translator(translator, last, learner)
    for folder in Path(output_dir).glob("checkpoint-*"):
        if folder not in (last, best):
            shutil.rmtree(folder)


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


def draw_training_curve(history: list[dict], output_dir: str) -> None:
    """Draw the losses of every epoch."""
    axes = Figure(layout="constrained").subplots()
    epochs = range(1, len(history) + 1)
    for name in ("train_loss", "eval_loss"):
        axes.plot(epochs, [record[name] for record in history], "o-", label=name)
    axes.set(xlabel="epoch", ylabel="nats per token", ylim=(0, None))
    axes.legend()
    save_figure(axes.figure, Path(output_dir, "training_curve.png"))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture as PNG."""
    with whole_files(path.parent) as folder:
        figure.savefig(folder / path.name, dpi=120)
    print("Picture:", path, file=sys.stderr)


def report_run(metrics: dict[str, float], source: str, args: argparse.Namespace) -> None:
    """Write the metrics beside earlier ones of this model; print them and the next command.

    That one translates `source`. A finished run needs no checkpoints.
    """
    results, earlier = Path(args.output_dir, "all_results.json"), {}
    if args.do_train:
        for checkpoint in results.parent.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    elif results.exists() and args.output_dir == args.model_name_or_path:
        earlier = json.loads(results.read_text())
    with whole_files(args.output_dir) as folder:
        text = json.dumps(earlier | metrics, indent=2, sort_keys=True)
        (folder / results.name).write_text(text)
    print(*(f"{name:>28} = {metrics[name]:.4g}" for name in sorted(metrics)), sep="\n")
    print("Files:", *sorted(results.parent.glob("*.*")), sep="\n  ")
    folder = args.output_dir if args.do_train else args.model_name_or_path
    # In one word: a source may begin with a dash.
    command = ["python", sys.argv[0], "--model_name_or_path", folder, f"--text={source}"]
    print("Next:\n ", shlex.join(command))


def predict(translator: Translator, texts: list[str], args: argparse.Namespace) -> None:
    """Translate to file or screen; with attention draw where it looked in the first text."""
    lines = translate(translator, texts, args.batch_size)
    text = "".join(f"{line}\n" for line in lines)
    if args.output_file:
        path = Path(args.output_file)
        with whole_files(path.parent) as folder:
            (folder / path.name).write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    if args.text:
        draw_alignment(translator, texts[0], args.output_dir)


SMOKE = {
    "embedding_dim": 64,
    "hidden_size": 128,
    "learning_rate": 5e-3,
    "batch_size": 8,
    "dropout": 0.0,
    "max_train_samples": 1000,
    "bf16": False,
}
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
        # Not every screen can show every character.
        stream.reconfigure(errors="replace")
    try:
        main()
        print(end="", flush=True)
    except KeyboardInterrupt:
        remedy = "the same command with --resume_from_checkpoint last continues"
        print(f"error: interrupted: {remedy}", file=sys.stderr)
        sys.exit(130)
    except tf.errors.ResourceExhaustedError:
        print("error: out of memory: give a smaller --batch_size", file=sys.stderr)
        sys.exit(2)
    except (InputError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
