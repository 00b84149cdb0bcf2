# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.10",
#     "numpy>=2.1",
# ]
# ///
# SPDX-License-Identifier: MIT
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-28
"""Self-attention in NumPy: each word of a sentence looks at every word and takes a part of it.

    softmax(Q K^T / sqrt(d)) V        equation 1 of Vaswani et al. 2017

Three matrices make of each word's vector a query (what the word looks for), a key (what it offers)
and a value (what it gives). Why the root of d, the length of a query: the product of two vectors of
d independent numbers with mean 0 and variance 1 has variance d, and divided by the root it has
variance 1. Without it, softmax would give nearly all weight to one word, and its gradient vanish.
With n words, vectors of dim numbers, and h heads that have d = dim / h numbers each:

    X        (n, dim)    a vector per word
    Q, K, V  (h, n, d)   X W_Q, X W_K and X W_V, cut into heads
    S        (h, n, n)   Q K^T / sqrt(d): scores, how well each key fits each query
    A        (h, n, n)   softmax of each row of S: weights, which sum to 1
    A V      (h, n, d)   of all values as much as the weights say
    Y        (n, dim)    the heads side by side; a transformer multiplies it by a fourth matrix, W_O

Nothing in it tells where a word stands: shuffled words give the same rows, shuffled. (--causal lets
a word see earlier ones only, and a trained BERT adds a vector for each position.)

python self_attention.py --smoke                                      # the built-in sentence
python self_attention.py --text "Time flies fast" --causal --steps    # all numbers on the way
python self_attention.py --num_heads 2 --plot attention.html          # a page: who looks at whom
python self_attention.py --model_name_or_path FOLDER --layer 2        # a trained BERT's heads

Read `main`, then the functions, which stand in the order in which they are called. "Speed", which
`main` does not need, is the same for long texts; words, flags, files and errors come last, under
"Plumbing". Only a trained model needs more packages:
uv run --with safetensors --with tokenizers self_attention.py --model_name_or_path FOLDER
"""

import argparse
import base64
import hashlib
import json
import math
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unicodedata import combining, east_asian_width, normalize

import numpy as np

Array = np.ndarray
# Of each its words, and their weights (layers, heads, words, words).
Sentences = list[tuple[list[str], Array]]

FLAGS = {
    "smoke": {"action": "store_true", "help": "Does nothing: the other scripts have this flag."},
    "text": {"nargs": "+", "help": "One sentence or more."},
    "embedding_dim": {"type": int, "default": 4, "help": "Numbers in a word's vector."},
    "num_heads": {"type": int, "default": 1, "help": "Heads, which share these numbers."},
    "causal": {"action": "store_true", "help": "A word sees itself and earlier words only."},
    "model_name_or_path": {
        "type": Path,
        "help": "Folder of a trained BERT, as transformers saves it.",
    },
    "layer": {"type": int, "default": 1, "help": "The trained model's layer to print and draw."},
    "steps": {"action": "store_true", "help": "Print every matrix on the way."},
    "plot": {"type": Path, "help": "Draw the weights: .png, .pdf, .svg; .html to explore."},
    "seed": {"type": int, "default": 42, "help": "Seed of vectors and projections."},
}
RANDOM = "Vectors and matrices are random: the pattern means nothing until a model learns them."
TRAINED = (
    "A trained model's weights: one head is no explanation of the model (Jain & Wallace 2019)."
)


def main(argv: list[str] | None = None) -> None:
    """Attend over each sentence, print the strongest weights and draw them if asked to."""
    args = parse_arguments(argv)
    if args.model_name_or_path:
        attend_with_bert(args.model_name_or_path, args.text, args.layer, args.steps, args.plot)
        return
    projections = random_projections(args.embedding_dim, args.seed)
    options = {"num_heads": args.num_heads, "causal": args.causal}
    sentences = []
    for text in args.text:
        words = split_words(text)
        x = build_embeddings(words, args.embedding_dim, args.seed)  # (words, embedding_dim)
        output, weights = self_attention(x, *projections, **options)
        print_weights(text, words, weights)
        if args.steps:
            print_steps(words, x, projections, **options)
        # One layer.
        sentences.append((words, weights[None]))
    if args.plot:
        draw(sentences, args.plot, RANDOM)
    print(f"\n{RANDOM}")
    print_next_command("--num_heads", "2")


def random_projections(dim: int, seed: int = 42) -> Array:
    """Return matrices for queries, keys and values, float64 (3, dim, dim); a model learns them."""
    generator = np.random.default_rng(seed % 2**64)
    # Divided so that vectors of variance 1 become queries, keys and values of variance 1.
    return generator.standard_normal((3, dim, dim)) / math.sqrt(dim)


def build_embeddings(words: list[str], dim: int = 4, seed: int = 42) -> Array:
    """Return a vector per word, float64 (words, dim), uniform with mean 0 and variance 1.

    A vector follows from the word's letters and the seed alone, through the hash SHAKE-256: it is
    the same in every sentence, process and platform. A real model learns its vectors.
    """
    digests = [hashlib.shake_256(f"{seed} {word}".encode()).digest(4 * dim) for word in words]
    # Four bytes make an integer below 2**32.
    numbers = np.frombuffer(b"".join(digests), "<u4").reshape(len(words), dim)
    return (numbers / 2**31 - 1) * math.sqrt(3)


def self_attention(
    x: Array,
    w_query: Array,
    w_key: Array,
    w_value: Array,
    *,
    biases: Array | tuple = (0, 0, 0),
    num_heads: int = 1,
    mask: Array | None = None,
    causal: bool = False,
) -> tuple[Array, Array]:
    """Multi-head self-attention of x (..., words, dim), float32 or float64.

    The projections (dim, width) share their width among the heads: ValueError if they can't.
    biases: what is added to queries, keys and values, (3, width). mask: bool, broadcastable to
    (..., num_heads, words, words); for padding in a batch it is `is_word[:, None, None, :]`.
    True lets a word look. Returns output (..., words, width) and weights (..., num_heads, words,
    words).
    """
    b_query, b_key, b_value = biases
    # Each (..., num_heads, words, width / num_heads).
    query = split_heads(x @ w_query + b_query, num_heads)
    key = split_heads(x @ w_key + b_key, num_heads)
    value = split_heads(x @ w_value + b_value, num_heads)
    output, weights = attention(query, key, value, mask=mask, causal=causal)
    # The heads side by side: (..., words, width).
    output = output.swapaxes(-2, -3).reshape(*x.shape[:-1], w_value.shape[-1])
    return output, weights


def split_heads(projected: Array, num_heads: int) -> Array:
    """Turn (..., words, width) into (..., num_heads, words, width / num_heads)."""
    *batch, words, width = projected.shape
    return projected.reshape(*batch, words, num_heads, width // num_heads).swapaxes(-2, -3)


def attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    causal: bool = False,
) -> tuple[Array, Array]:
    """Scaled dot-product attention, equation 1 of Vaswani et al. 2017, "Attention Is All You Need".

    query (..., queries, d), key (..., keys, d), value (..., keys, width), all float32 or all
    float64; integers count as float64. mask: bool, broadcastable to (..., queries, keys), True
    where a query may look; causal: query i sees keys 0 to i. Returns output (..., queries, width)
    and weights (..., queries, keys); a query that sees nothing gets zeros.
    """
    scores = scaled_scores(query, key, mask, causal)
    weights = softmax(scores)  # (..., queries, keys)
    return weights @ value, weights


def scaled_scores(
    query: Array, key: Array, mask: Array | None = None, causal: bool = False
) -> Array:
    """Return how well each key fits each query, (..., queries, keys); -inf where it is hidden."""
    # Divided first, since products of 8-bit integers would overflow.
    scores = (query / math.sqrt(query.shape[-1])) @ key.swapaxes(-1, -2)  # (..., queries, keys)
    if causal:
        # (queries, keys): True above the diagonal.
        later = ~np.tri(*scores.shape[-2:], dtype=bool)
        np.copyto(scores, -np.inf, where=later)
    if mask is not None:
        np.copyto(scores, -np.inf, where=~mask)
    return scores


def softmax(scores: Array) -> Array:
    """Turn scores (..., n) into weights (..., n) from 0 to 1 that sum to 1 over the last axis.

    A score of -inf gets weight 0; a row of nothing else gets zeros.
    """
    # Integers become floats.
    scores = np.multiply(scores, 1.0)
    highest = scores.max(axis=-1, keepdims=True, initial=np.finfo(scores.dtype).min)
    # The same weights as of the scores themselves, but exp can't overflow.
    weights = np.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


def print_weights(text: str, words: list[str], weights: Array) -> None:
    """Print for each head of weights (heads, words, words) what each word attends to most."""
    print(f"\nSentence: {' '.join(text.split())}")
    width = max(map(columns, words))
    for head, rows in enumerate(weights, start=1):
        print(f"\nHead {head} of {len(weights)}: top-3 indices (weights), second-highest word")
        for index, row in enumerate(rows):
            # Rounded, so that words of equal weight (the same word twice) keep their order.
            order = np.argsort(-row.round(6), kind="stable")
            top = [key for key in order[:3] if row[key] > 0]
            cells = " ".join(f"{key:3d} ({row[key]:.3f})" for key in top)
            word = words[index] + " " * (width - columns(words[index]))
            # The second by name, since the highest is often the word itself.
            second = words[top[1]] if len(top) > 1 else "-"
            print(f"{index:3d}  {word}  {cells:<35}  {second}")


def print_steps(
    words: list[str],
    x: Array,
    projections: Array,
    biases: Array | None = None,
    num_heads: int = 1,
    causal: bool = False,
) -> None:
    """Print each matrix of `self_attention(x, *projections)` and its shape, to check a row by hand.

    x (words, dim), projections (3, dim, width), biases (3, width). Each head has columns of its own
    in the latter two.
    """
    print_matrix("X: a vector per word", x, words)
    for head in range(num_heads):
        print(f"\nHead {head + 1} of {num_heads}")
        # (3, dim, width / num_heads), then each (words, width / num_heads).
        matrices = split_heads(projections, num_heads)[:, head]
        products = x @ matrices
        if biases is not None:
            # (3, 1, width / num_heads)
            shifts = split_heads(biases[:, None], num_heads)[:, head]
            products = products + shifts
        for index, name in enumerate("QKV"):
            print_matrix(f"W_{name}", matrices[index], [""] * len(matrices[index]))
            formula = f"{name} = X W_{name}"
            if biases is not None:
                print_matrix(f"b_{name}", shifts[index], [""])
                formula += f" + b_{name}"
            print_matrix(formula, products[index], words)
        query, key, value = products
        scores = scaled_scores(query, key, causal=causal)
        weights = softmax(scores)
        print_matrix(f"S = Q K^T / sqrt({query.shape[-1]}): scores", scores, words, *words)
        print_matrix("A = softmax of each row of S: weights", weights, words, *words)
        print_matrix("A V: output of the head", weights @ value, words)


def print_matrix(title: str, matrix: Array, rows: list[str], *names: str) -> None:
    """Print a title, the matrix's shape, the columns' names if any, and its rows behind theirs.

    Of more than 16 rows or columns without names come the first 16.
    """
    print(f"\n{title} {matrix.shape}")
    if not any(rows):
        rows = rows[:16]
    width_shown = len(names) or 16
    end = "  …" if matrix.shape[1] > width_shown else ""
    indent = max(map(columns, rows))
    width = max([6, *map(columns, names)]) + 2
    if names:
        print(" " * indent + "".join(" " * (width - columns(name)) + name for name in names))
    for row, numbers in zip(rows, matrix[: len(rows)], strict=True):
        cells = "".join(f"{number:z{width}.3f}" for number in numbers[:width_shown])
        print(row + " " * (indent - columns(row)) + cells + end)
    if len(rows) < len(matrix):
        print("  …")


def draw(sentences: Sentences, path: Path, note: str, layer: int = 1) -> None:
    """Write a page or draw a picture, as the file's name says, and print the name."""
    if path.suffix.lower() == ".html":
        write_page(sentences, path, note, layer)
    else:
        draw_weights(sentences, path, note, layer)
    print(f"\nFiles:\n  {path}")


def write_page(sentences: Sentences, path: Path, note: str = RANDOM, layer: int = 1) -> None:
    """Write one HTML file, without network or library: go to a word and see where it looks.

    It has a choice of layers and heads, and starts at the layer that is given.
    """
    data = []
    for words, weights in sentences:
        # Whole numbers of two bytes, in base64: a quarter of the characters that digits take.
        numbers = (weights * 65535).round().astype("<u2")
        data.append((words, base64.b64encode(numbers.tobytes()).decode()))
    # A word like </script> would end the data.
    text = json.dumps(data).replace("<", "\\u003c")
    layers, heads = sentences[0][1].shape[:2]
    page = PAGE.replace("NOTE", note).replace("SIZES", f"[{layers}, {heads}, {layer}]")
    page = page.replace("SENTENCES", text)
    with whole_files(path.parent) as folder:
        (folder / path.name).write_text(page, encoding="utf-8")


def draw_weights(sentences: Sentences, path: Path, note: str = RANDOM, layer: int = 1) -> None:
    """Draw a row of panels per sentence and a panel per head into a .png, .pdf or .svg file.

    Raises InputError if there are more or larger panels than anybody can read.
    """
    # Here, so that all else needs NumPy only.
    from matplotlib.figure import Figure

    layers, heads = sentences[0][1].shape[:2]
    sentences = [(words, weights[layer - 1]) for words, weights in sentences]
    rows = len(sentences)
    longest = max(len(words) for words, _ in sentences)
    if longest * max(rows, heads) > 200:
        raise InputError(f"--plot: nobody can read {rows} x {heads} panels of {longest} words")
    # In inches.
    size = 2.5 + 0.3 * longest
    figure = Figure((heads * size, rows * size), layout="constrained")
    panels = figure.subplots(rows, heads, squeeze=False)
    highest = max(weights.max() for _, weights in sentences)
    for (row, head), axes in np.ndenumerate(panels):
        words, weights = sentences[row]
        labels = [f"{word} {index}" for index, word in enumerate(words)]
        image = axes.imshow(weights[head], cmap="Blues", vmin=0, vmax=highest)
        axes.set_xticks(range(len(words)), labels, rotation=90, parse_math=False)
        axes.set_yticks(range(len(words)), labels, parse_math=False)
        title = f"layer {layer}, head {head + 1}" if layers > 1 else f"head {head + 1}"
        axes.set(title=title, xlabel="attends to (key)", ylabel="word (query)")
    figure.colorbar(image, ax=panels, label="attention weight")
    figure.supxlabel(note, size=8, wrap=True)
    with whole_files(path.parent) as folder:
        figure.savefig(folder / path.name, dpi=150)


def attend_with_bert(
    folder: Path, texts: list[str], layer: int = 1, steps: bool = False, plot: Path | None = None
) -> None:
    """What `main` does, with the vectors, matrices and layers of a trained BERT."""
    config, arrays, cut = read_bert(folder)
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    if not 1 <= layer <= layers:
        raise InputError(f"--layer {layer}: the model has layers 1 to {layers}")
    encodings = [cut(text) for text in texts]
    check_lengths([len(encoding.ids) for encoding in encodings], config)
    sentences = []
    for text, encoding in zip(texts, encodings, strict=True):
        words = encoding.tokens
        states, weights = encode(encoding.ids, arrays, config)
        print(f"\nLayer {layer} of {layers}")
        print_weights(text, words, weights[layer - 1])
        if steps:
            learned = learned_projections(arrays, layer - 1)
            print_steps(words, states[layer - 1], *learned, num_heads=heads)
        sentences.append((words, weights))
    if plot:
        draw(sentences, plot, TRAINED, layer)
    print(f"\n{TRAINED}")
    print_next_command("--model_name_or_path", str(folder))


def encode(ids: list[int], arrays: dict[str, Array], config: dict) -> tuple[Array, Array]:
    """Run the encoder of BERT (Devlin et al. 2019): figure 1 of Vaswani et al. 2017, on the left.

    ids: numbers of word pieces. arrays, config: from `read_bert`. Returns states (layers + 1,
    words, dim), what each layer takes and the last one gives, and weights (layers, heads, words,
    words), float32.
    """
    # Each (words, dim): learned vectors of the word pieces, of their positions and of sentence A.
    words = arrays["embeddings.word_embeddings.weight"][ids]
    positions = arrays["embeddings.position_embeddings.weight"][: len(ids)]
    sentence = arrays["embeddings.token_type_embeddings.weight"][:1]
    x = layer_norm(words + positions + sentence, arrays, "embeddings.LayerNorm", config)
    states, weights = [x], []
    for layer in range(config["num_hidden_layers"]):
        x, layer_weights = encoder_layer(x, arrays, layer, config)
        states.append(x)
        weights.append(layer_weights)
    return np.stack(states), np.stack(weights)


def encoder_layer(
    x: Array, arrays: dict[str, Array], layer: int, config: dict
) -> tuple[Array, Array]:
    """Let words look at each other, then change each by itself: x (words, dim) to the same shape.

    Both times the result is added to what was there, and normalized. Returns weights, too, (heads,
    words, words).
    """
    name = f"encoder.layer.{layer}"
    projections, biases = learned_projections(arrays, layer)
    heads = config["num_attention_heads"]
    attended, weights = self_attention(x, *projections, biases=biases, num_heads=heads)
    # The fourth matrix, W_O.
    attended = linear(attended, arrays, f"{name}.attention.output.dense")
    x = layer_norm(x + attended, arrays, f"{name}.attention.output.LayerNorm", config)
    # The feed-forward network: (words, intermediate_size), and back.
    hidden = gelu(linear(x, arrays, f"{name}.intermediate.dense"))
    hidden = linear(hidden, arrays, f"{name}.output.dense")
    return layer_norm(x + hidden, arrays, f"{name}.output.LayerNorm", config), weights


def learned_projections(arrays: dict[str, Array], layer: int) -> tuple[Array, Array]:
    """Return W_Q, W_K and W_V of a layer, (3, dim, width), and their biases (3, width)."""
    part = f"encoder.layer.{layer}.attention.self"
    projections = [arrays[f"{part}.{name}.weight"].T for name in ("query", "key", "value")]
    biases = [arrays[f"{part}.{name}.bias"] for name in ("query", "key", "value")]
    return np.stack(projections), np.stack(biases)


def linear(x: Array, arrays: dict[str, Array], name: str) -> Array:
    """Return x W + b, (words, width)."""
    return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]


def layer_norm(x: Array, arrays: dict[str, Array], name: str, config: dict) -> Array:
    """Give each vector mean 0 and variance 1, then a learned scale and bias: Ba et al. 2016."""
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = (centered**2).mean(axis=-1, keepdims=True)
    normal = centered / np.sqrt(variance + config["layer_norm_eps"])
    return normal * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """Return x times the chance that a standard normal is below x: Hendrycks & Gimpel 2016."""
    erf = np.vectorize(math.erf, otypes=[x.dtype])
    return x * (1 + erf(x / math.sqrt(2))) / 2


# Speed: the same, faster --------------------------------------------------------------------------

# So many queries of a head meet so many keys at a time: a megabyte of scores stays in the cache.
TILE = 512
# (query, key): True where the key comes later.
LATER = ~np.tri(TILE, dtype=bool)


def blockwise_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    causal: bool = False,
    num_threads: int | None = None,
) -> Array:
    """The output of `attention`, 2.8 times as fast for 2,048 words, causal 4.7 times.

    Memory grows with the number of words, not with its square: there is never more than a block of
    scores in each thread. Arguments as in `attention`; query, key and value have the same leading
    axes, or ValueError is raised. num_threads: one per core by default. Returns (..., queries,
    width), float32, or float64 where query, key or value is float64 or integers of 32 bits or more.
    Method: FlashAttention-2, Dao 2023, algorithm 1 (https://arxiv.org/abs/2307.08691).
    """
    *batch, queries, d = query.shape
    keys, width = value.shape[-2:]
    if key.shape != (*batch, keys, d) or value.shape != (*batch, keys, width):
        raise ValueError(f"{query.shape}, {key.shape} and {value.shape} do not fit together")
    dtype = np.result_type(query, key, value, np.float32)
    query, key, value = (np.asarray(array, dtype) for array in (query, key, value))
    if mask is not None:
        mask = np.broadcast_to(mask, (*batch, queries, keys))
    small_scores = scores_stay_small(query, key)
    output = np.empty((*batch, queries, width), dtype)
    # The last tiles come first: causal, they take longest.
    starts = range(0, queries, TILE)[::-1]
    tiles = iter([(start, head) for start in starts for head in np.ndindex(*batch)])

    def work(_: int) -> None:
        # For scores; new memory in each step would cost a tenth.
        memory = np.empty((TILE, TILE), dtype)
        # Each thread takes the next tile that is left.
        for start, head in tiles:
            rows = slice(start, start + TILE)
            seen = slice(start + TILE if causal else keys)
            output[head][rows] = attend(
                query[head][rows],
                key[head][seen],
                value[head][seen],
                None if mask is None else mask[head][rows, seen],
                start if causal else None,
                small_scores,
                memory,
            )

    run_in_threads(work, num_threads or os.cpu_count())
    return output


def scores_stay_small(query: Array, key: Array) -> bool:
    """Tell whether no score is above 40: then exp needs no maximum taken off, an eighth faster.

    |score| is at most |query| |key| / sqrt(d).
    """
    squares = np.vecdot(query, query).max(initial=0) * np.vecdot(key, key).max(initial=0)
    return squares / query.shape[-1] <= 40**2


def run_in_threads(work: Callable[[int], None], number: int) -> None:
    """Call `work` in so many threads: NumPy lets them all compute. Raises what one raised."""
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(work, range(number)))


def attend(
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None,
    diagonal: int | None,
    small_scores: bool,
    memory: Array,
) -> Array:
    """Attend from a tile of queries (rows, d) to keys (keys, d), block by block.

    The maximum and the sum of a row of scores are known after the last block only. So we add up
    exp(score - highest so far) and the same times value, and shrink both sums whenever a higher
    score comes (online softmax, Milakov & Gimelshein 2018). diagonal: the key of the first query if
    none may see a later one; small_scores: exp(score) can neither overflow nor vanish; memory
    (TILE, TILE): where the scores are computed.
    """
    query = query / math.sqrt(query.shape[-1])
    highest = np.finfo(query.dtype).min
    total = 0
    output = np.zeros((len(query), value.shape[1]), query.dtype)
    product = np.empty_like(output)
    for start in range(0, len(key), TILE):
        block = slice(start, start + TILE)
        scores = memory[: len(query), : len(key[block])]
        small_product(query, key[block].T, scores)
        # The blocks before the diagonal's are all earlier.
        if start == diagonal:
            np.copyto(scores, -np.inf, where=LATER[: len(scores), : scores.shape[1]])
        if mask is not None:
            np.copyto(scores, -np.inf, where=~mask[:, block])
        if not small_scores:
            before, highest = highest, np.maximum(highest, scores.max(axis=-1, keepdims=True))
            shrink = np.exp(before - highest)
            total = total * shrink
            output *= shrink
            scores -= highest
        weights = np.exp(scores, out=scores)
        # Sums a row in half of the time of `sum`.
        total = total + np.einsum("ij->i", weights)[:, None]
        small_product(weights, value[block], product)
        output += product
    return output / np.where(total == 0, 1, total)


def small_product(left: Array, right: Array, output: Array) -> None:
    """Write left @ right to `output`, computed a few rows at a time in the calling thread.

    For more than 2**18 multiplications BLAS starts threads of its own, which get in the way of
    ours: twice as slow. A stack of small matrices is one call, and BLAS takes one after the other.
    """
    # Or BLAS turns it once per piece: a third slower.
    right = np.ascontiguousarray(right)
    rows = max(1, 2**18 // right.size)
    whole = len(left) // rows * rows
    # To split the first axis makes a view, so that `out` writes to `output` itself.
    stack = left[:whole].reshape(-1, rows, left.shape[1])
    np.matmul(stack, right, out=output[:whole].reshape(-1, rows, right.shape[1]))
    np.matmul(left[whole:], right, out=output[whole:])


# Plumbing: nothing below is about attention ------------------------------------------------------


class InputError(ValueError):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


class Parser(argparse.ArgumentParser):
    """A parser that raises what it would print."""

    def error(self, message: str) -> None:
        raise InputError(f"{message}: see --help")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line; bad usage raises InputError."""
    parser = Parser(usage=f"%(prog)s [flags]\n\n{__doc__}", allow_abbrev=False)
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    for name, options in FLAGS.items():
        parser.add_argument(f"--{name}", **options)
    args = parser.parse_args(argv)
    dim, heads = args.embedding_dim, args.num_heads
    if not 1 <= heads <= dim <= 4096 or dim % heads:
        raise InputError(f"--embedding_dim {dim} is no multiple up to 4096 of --num_heads {heads}")
    if args.plot and args.plot.suffix.lower() not in (".png", ".pdf", ".svg", ".html"):
        raise InputError(f"--plot {args.plot} does not end in .png, .pdf, .svg or .html")
    own = ("embedding_dim", "num_heads", "causal", "seed")
    changed = [name for name in own if getattr(args, name) != parser.get_default(name)]
    if args.model_name_or_path and changed:
        raise InputError(f"--{changed[0]}: a trained model has its own, so leave the flag out")
    if args.layer != 1 and not args.model_name_or_path:
        raise InputError(f"--layer {args.layer}: there is one layer without --model_name_or_path")
    args.text = args.text or [SAMPLE_TEXT]
    lengths = [len(split_words(text)) for text in args.text]
    if 0 in lengths:
        raise InputError(f"--text: sentence {lengths.index(0) + 1} has no words")
    check_readable(heads, lengths)
    return args


def check_readable(heads: int, lengths: list[int]) -> None:
    """Refuse sentences with more weights than anybody reads; lengths in words."""
    weights = heads * sum(length**2 for length in lengths)
    # Each has 8 bytes, and a few copies: beyond it memory ends without a word.
    if weights > 5000**2:
        raise InputError(f"--text: nobody can read {weights:,} weights: give shorter sentences")


# The encoder that `encode` computes, in the words of config.json.
BERT = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
}


def read_bert(folder: Path) -> tuple[dict, dict[str, Array], Callable]:
    """Read a BERT that transformers has saved.

    Returns its configuration, its arrays by name, float32, and the function that cuts a text into
    word pieces.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ImportError as error:
        raise InputError(f"{error}: pip install safetensors tokenizers") from error
    if not folder.is_dir():
        raise InputError(f"--model_name_or_path {folder} is no folder: nothing is downloaded here")
    config = read_json(folder / "config.json")
    # What is absent is as it is here.
    for name, value in BERT.items():
        found = config.get(name, value)
        if found != value:
            raise InputError(
                f"{folder}: {name} is {found} in config.json, and only {value} is read"
            )
    try:
        saved = load_file(folder / "model.safetensors")
    except (SafetensorError, TypeError) as error:
        raise InputError(f"{folder / 'model.safetensors'}: {error}") from error
    arrays = Contents(folder / "model.safetensors")
    for name, array in saved.items():
        # A model with a head says bert.; Google's names were gamma and beta.
        name = name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
        arrays[name] = array.astype(np.float32)
    read_json(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The file may ask for both.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return config, arrays, tokenizer.encode


class Contents(dict):
    """What a file holds by name; asking for what it lacks raises InputError."""

    def __init__(self, file: Path, items: dict | None = None) -> None:
        super().__init__(items or {})
        self.file = file

    def __missing__(self, name: str) -> None:
        raise InputError(f"{self.file} lacks {name}")


def read_json(file: Path) -> Contents:
    """Return the object in a JSON file."""
    try:
        return Contents(file, json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} is no JSON object: {error}") from error


def check_lengths(lengths: list[int], config: dict) -> None:
    """Refuse sentences that the model has no positions for, or too many weights to read."""
    longest, most = max(lengths), config["max_position_embeddings"]
    if longest > most:
        raise InputError(f"--text: a sentence has {longest} word pieces; the model reads {most}")
    check_readable(config["num_hidden_layers"] * config["num_attention_heads"], lengths)


# Chinese characters and Japanese kana are written without spaces: each one stands for a word.
IDEOGRAPHS = "\u3000-\u30ff\u3400-\u9fff"
PUNCTUATION = re.escape("""!"'(),.:;?[]{}…–—‘’“”„«»¡¿，！？：；（）،؛؟।""")


def split_words(text: str) -> list[str]:
    """Split at spaces; punctuation at the ends of a word stands alone, inside (3.14) it stays.

    Words that look the same are the same: the text becomes NFC, and what is invisible a space.
    """
    visible = "".join(char if char.isprintable() else " " for char in normalize("NFC", text))
    inner, end = rf"[^\s{IDEOGRAPHS}]", rf"[^\s{IDEOGRAPHS}{PUNCTUATION}]"
    return re.findall(f"[{IDEOGRAPHS}{PUNCTUATION}]|{end}(?:{inner}*{end})?", visible)


def columns(word: str) -> int:
    """Return a word's width in a terminal: two columns per wide character, none per accent."""
    wide = sum(east_asian_width(char) in "WF" for char in word)
    return len(word) + wide - sum(combining(char) > 0 for char in word)


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


def print_next_command(*arguments: str) -> None:
    """Print a command to go on with."""
    command = ["python", sys.argv[0], *arguments, "--plot", "attention.html"]
    print(f"\nNext:\n  {shlex.join(command)}")


# Words go in as text only. A sentence runs from right to left where its first word does; what has
# the role "status" is read aloud when it changes.
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Self-attention</title>
<style>
  body { max-width: 48rem; margin: auto; padding: 1rem; font: 1rem system-ui }
  section { overflow-wrap: anywhere }
  button { margin: 2px; font: inherit; border: 0; border-radius: 0.4rem }
  button[aria-current=true] { outline: 2px solid }
  small { display: block }
</style>
<h1>Where does a word look?</h1>
<p>Point at a word or press Tab: below each word stands the weight that it gets.
<p>NOTE
<p><label>Layer <select></select></label> <label>Head <select></select></label>
<script>
const [layers, heads, first] = SIZES
const [layer, head] = document.querySelectorAll("select")

function addSentence([words, base64]) {
  // Two bytes a number, the lower one first.
  const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt())
  const weights = new Uint16Array(bytes.buffer)
  const section = document.body.appendChild(document.createElement("section"))
  section.dir = "auto"
  let query = 0
  const buttons = words.map((word, index) => {
    const button = section.appendChild(document.createElement("button"))
    button.append(word, document.createElement("small"))
    button.onmouseenter = button.onfocus = () => { query = index; show() }
    return button
  })
  const ranking = section.appendChild(document.createElement("p"))
  ranking.role = "status"

  function show() {
    const start = ((layer.value * heads + +head.value) * words.length + query) * words.length
    const row = Array.from(weights.slice(start, start + words.length), weight => weight / 65535)
    buttons.forEach((button, key) => {
      button.ariaCurrent = key === query
      button.style.background = `rgb(65 105 225 / ${0.6 * row[key] / Math.max(...row)})`
      button.lastChild.textContent = row[key].toFixed(3)
    })
    const keys = [...row.keys()].sort((a, b) => row[b] - row[a])
    ranking.textContent = `${words[query]}: ${keys.map(key => words[key]).join(" · ")}`
  }
  layer.addEventListener("change", show)
  head.addEventListener("change", show)
  show()
}

const sentences = SENTENCES
for (const [select, length] of [[layer, layers], [head, heads]]) {
  for (const index of Array(length).keys()) select.add(new Option(index + 1, index))
  select.parentNode.hidden = length === 1
}
layer.selectedIndex = first - 1
sentences.forEach(addSentence)
</script>
"""

SAMPLE_TEXT = "The cat sat on the mat because the mat was warm."

if __name__ == "__main__":
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # Not every screen can show every character.
        stream.reconfigure(errors="replace")
    try:
        main()
        print(end="", flush=True)
    except (InputError, ImportError, MemoryError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # Or Python would try to write the rest again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, MemoryError):
            error = f"{error}: give shorter sentences to --text"
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
