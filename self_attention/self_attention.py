# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.10",
#     "numpy>=2.1",
# ]
# ///
# SPDX-License-Identifier: MIT
# Copyright 2026 The Transformer & Sequence Model Showcase authors. Version 2026-11-27
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

python self_attention.py --smoke                                      # the built-in sentence
python self_attention.py --text "Time flies fast" --causal --steps    # all numbers on the way
python self_attention.py --num_heads 2 --plot attention.html          # a page: who looks at whom

Read `main`, then the functions, which stand in the order in which they are called. "Speed" is the
same once more for long texts; words, flags, files and errors come last, under "Plumbing".
"""

import argparse
import hashlib
import json
import math
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unicodedata import combining, east_asian_width, normalize

import numpy as np

Array = np.ndarray
# Of each its words, and their weights (heads, words, words).
Sentences = list[tuple[list[str], Array]]

FLAGS = {
    "smoke": {"action": "store_true", "help": "Use the built-in sentence, as without --text."},
    "text": {"nargs": "+", "help": "One sentence or more."},
    "embedding_dim": {"type": int, "default": 4, "help": "Numbers in a word's vector."},
    "num_heads": {"type": int, "default": 1, "help": "Heads, which share these numbers."},
    "causal": {"action": "store_true", "help": "A word sees itself and earlier words only."},
    "steps": {"action": "store_true", "help": "Print every matrix on the way."},
    "plot": {"type": Path, "help": "Draw the weights: .png, .pdf, .svg; .html to explore."},
    "seed": {"type": int, "default": 42, "help": "Seed of vectors and projections."},
}
RANDOM = "Vectors and matrices are random: the pattern means nothing until a model learns them."


def main(argv: list[str] | None = None) -> None:
    """Attend over each sentence, print the strongest weights and draw them if asked to."""
    args = parse_arguments(argv)
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
        sentences.append((words, weights))
    if args.plot:
        draw = write_page if args.plot.suffix.lower() == ".html" else draw_weights
        draw(sentences, args.plot)
        print(f"\nFiles:\n  {args.plot}")
    print(f"\n{RANDOM}")
    print_next_command()


def random_projections(dim: int, seed: int = 42) -> Array:
    """Return matrices for queries, keys and values, float64 (3, dim, dim); a model learns them."""
    generator = np.random.default_rng(seed % 2**64)
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
    num_heads: int = 1,
    mask: Array | None = None,
    causal: bool = False,
) -> tuple[Array, Array]:
    """Multi-head self-attention of x (..., words, dim), float32 or float64.

    The projections (dim, width) share their width among the heads: ValueError if they can't. mask:
    bool, broadcastable to (..., num_heads, words, words); for padding in a batch it is
    `is_word[:, None, None, :]`. Returns output (..., words, width) and weights
    (..., num_heads, words, words).
    """
    # Each (..., num_heads, words, width / num_heads).
    query = split_heads(x @ w_query, num_heads)
    key = split_heads(x @ w_key, num_heads)
    value = split_heads(x @ w_value, num_heads)
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

    query (..., queries, dim), key (..., keys, dim), value (..., keys, value_dim), all float32 or
    all float64; integers count as float64. mask: bool, broadcastable to (..., queries, keys), True
    where a query may look; causal: query i sees keys 0 to i. Returns output (..., queries,
    value_dim) and weights (..., queries, keys); a query that sees nothing gets zeros.
    """
    scores = scaled_scores(query, key, mask, causal)
    weights = softmax(scores)  # (..., queries, keys)
    return weights @ value, weights


def scaled_scores(
    query: Array, key: Array, mask: Array | None = None, causal: bool = False
) -> Array:
    """Return how well each key fits each query, (..., queries, keys); -inf where it is hidden."""
    # Divided first, since products of small integers would overflow.
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
            second = words[top[1]] if len(top) > 1 else "-"
            print(f"{index:3d}  {word}  {cells:<35}  {second}")


def print_steps(
    words: list[str], x: Array, projections: Array, num_heads: int = 1, causal: bool = False
) -> None:
    """Print each matrix of `self_attention(x, *projections)` and its shape, to check a row by hand.

    x (words, dim), projections (3, dim, width). Each head has columns of its own in the latter.
    """
    print_matrix("X: a vector per word", x, words)
    for head in range(num_heads):
        print(f"\nHead {head + 1} of {num_heads}")
        # (3, dim, width / num_heads), then each (words, width / num_heads).
        matrices = split_heads(projections, num_heads)[:, head]
        products = x @ matrices
        for name, matrix, product in zip("QKV", matrices, products, strict=True):
            print_matrix(f"W_{name}", matrix, [""] * len(matrix))
            print_matrix(f"{name} = X W_{name}", product, words)
        query, key, value = products
        scores = scaled_scores(query, key, causal=causal)
        weights = softmax(scores)
        print_matrix(f"S = Q K^T / sqrt({query.shape[-1]}): scores", scores, words, *words)
        print_matrix("A = softmax of each row of S: weights", weights, words, *words)
        print_matrix("A V: output of the head", weights @ value, words)


def print_matrix(title: str, matrix: Array, rows: list[str], *names: str) -> None:
    """Print a title, the matrix's shape, the columns' names if any, and its rows behind theirs."""
    print(f"\n{title} {matrix.shape}")
    indent = max(map(columns, rows))
    width = max([6, *map(columns, names)]) + 2
    if names:
        print(" " * indent + "".join(" " * (width - columns(name)) + name for name in names))
    for row, numbers in zip(rows, matrix, strict=True):
        cells = "".join(f"{number:z{width}.3f}" for number in numbers)
        print(row + " " * (indent - columns(row)) + cells)


def write_page(sentences: Sentences, path: Path) -> None:
    """Write one HTML file, without network or library: go to a word and see where it looks."""
    data = [(words, weights.round(7).tolist()) for words, weights in sentences]
    # A word like </script> would end the data.
    text = json.dumps(data).replace("<", "\\u003c")
    page = PAGE.replace("RANDOM", RANDOM).replace("SENTENCES", text)
    with whole_files(path.parent) as folder:
        (folder / path.name).write_text(page, encoding="utf-8")


def draw_weights(sentences: Sentences, path: Path) -> None:
    """Draw a row of panels per sentence and a panel per head into a .png, .pdf or .svg file.

    Raises InputError if there are more or larger panels than anybody can read.
    """
    # Here, so that all else needs NumPy only.
    from matplotlib.figure import Figure

    rows, heads = len(sentences), len(sentences[0][1])
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
        axes.set(title=f"head {head + 1}", xlabel="attends to (key)", ylabel="word (query)")
    figure.colorbar(image, ax=panels, label="attention weight")
    figure.supxlabel(RANDOM, size=8, wrap=True)
    with whole_files(path.parent) as folder:
        figure.savefig(folder / path.name, dpi=150)


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
    value_dim), float32, or float64 where an argument is. Method: FlashAttention, Dao et al. 2022,
    algorithm 1.
    """
    *batch, queries, dim = query.shape
    keys, width = value.shape[-2:]
    if key.shape != (*batch, keys, dim) or value.shape != (*batch, keys, width):
        raise ValueError(f"{query.shape}, {key.shape} and {value.shape} do not fit together")
    dtype = np.result_type(query, key, value, np.float32)
    query, key, value = (np.asarray(array, dtype) for array in (query, key, value))
    if mask is not None:
        # A view: it costs nothing.
        mask = np.broadcast_to(mask, (*batch, queries, keys))
    # |score| <= |query| |key| / sqrt(dim); up to 40, exp needs no maximum off: an eighth faster.
    squares = np.vecdot(query, query).max(initial=0) * np.vecdot(key, key).max(initial=0)
    small_scores = squares / dim <= 40**2
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

    # Threads, since NumPy lets them all compute; `list` raises what was raised in one.
    threads = num_threads or os.cpu_count()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return output


def attend(
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None,
    diagonal: int | None,
    small_scores: bool,
    memory: Array,
) -> Array:
    """Attend from a tile of queries (rows, dim) to keys (keys, dim), block by block.

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
        raise InputError(f"--embedding_dim {dim} is no multiple of --num_heads {heads}, up to 4096")
    if args.plot and args.plot.suffix.lower() not in (".png", ".pdf", ".svg", ".html"):
        raise InputError(f"--plot {args.plot} does not end in .png, .pdf, .svg or .html")
    args.text = args.text or [SAMPLE_TEXT]
    lengths = [len(split_words(text)) for text in args.text]
    if 0 in lengths:
        raise InputError(f"--text: sentence {lengths.index(0) + 1} has no words")
    weights = heads * sum(length**2 for length in lengths)
    # Each has 8 bytes, and a few copies: beyond it memory ends without a word.
    if weights > 5000**2:
        raise InputError(f"--text: nobody can read {weights:,} weights: give shorter sentences")
    return args


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


def print_next_command() -> None:
    """Print a command to go on with."""
    print(f"\nNext:\n  python {shlex.quote(sys.argv[0])} --num_heads 2 --plot attention.html")


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
<p>RANDOM
<p><label>Head <select></select></label>
<script>
const head = document.querySelector("select")

function addSentence([words, weights]) {
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
    const row = weights[head.value][query]
    buttons.forEach((button, key) => {
      button.ariaCurrent = key === query
      button.style.background = `rgb(65 105 225 / ${0.6 * row[key] / Math.max(...row)})`
      button.lastChild.textContent = row[key].toFixed(3)
    })
    const keys = [...row.keys()].sort((a, b) => row[b] - row[a])
    ranking.textContent = `${words[query]}: ${keys.map(key => words[key]).join(" · ")}`
  }
  head.addEventListener("change", show)
  show()
}

const sentences = SENTENCES
sentences[0][1].forEach((_, index) => head.add(new Option(index + 1, index)))
head.parentNode.hidden = head.length === 1
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
