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

python self_attention.py --smoke                                       # the built-in sentence
python self_attention.py --text "Time flies like an arrow" --causal    # no word sees a later one
python self_attention.py --text "Time flies fast" --steps              # all numbers on the way
python self_attention.py --num_heads 2 --plot attention.html           # a page: who looks at whom

Read `main`, then the functions in the order in which it uses them; `blockwise_attention` is the
same once more for long texts. Flags, files and errors come last, under "Plumbing".
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn
from unicodedata import combining, east_asian_width, normalize

import numpy as np

Array = np.ndarray

FLAGS = {
    "smoke": {"action": "store_true", "help": "Use the built-in sentence, as without --text."},
    "text": {"nargs": "+", "metavar": "SENTENCE", "help": "One sentence or more."},
    "embedding_dim": {"type": int, "default": 4, "help": "Numbers in a word's vector."},
    "num_heads": {"type": int, "default": 1, "help": "Heads, which share these numbers."},
    "causal": {"action": "store_true", "help": "A word sees itself and earlier words only."},
    "steps": {"action": "store_true", "help": "Print every matrix on the way to the output."},
    "plot": {"metavar": "FILE", "help": "Draw the weights: .png, .pdf, .svg; .html to explore."},
    "seed": {"type": int, "default": 42, "help": "Seed of the vectors and of the projections."},
}


def main(argv: list[str] | None = None) -> None:
    """Attend over each sentence, print the strongest weights and draw them if asked to."""
    args = parse_arguments(argv)
    projections = random_projections(args.embedding_dim, args.seed)
    options = {"num_heads": args.num_heads, "causal": args.causal}
    sentences, vectors = [], []
    for text in args.text:
        words = split_words(text)
        x = build_embeddings(words, args.embedding_dim, args.seed)  # (words, embedding_dim)
        _, weights = self_attention(x, *projections, **options)
        sentences.append((words, weights))
        vectors.append(x)
    if args.plot:
        draw = write_page if Path(args.plot).suffix.lower() == ".html" else draw_weights
        draw(sentences, args.plot)
    for text, (words, weights), x in zip(args.text, sentences, vectors, strict=True):
        print_weights(text, words, weights, args.causal)
        if args.steps:
            print_steps(words, x, projections, **options)
    print_files_and_next(args.plot)


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


def build_embeddings(words: Sequence[str], dim: int = 4, seed: int = 42) -> Array:
    """Return a vector per word, float64 (words, dim), uniform with mean 0 and variance 1.

    A vector follows from the word's letters and the seed alone, through the hash SHAKE-256: it is
    the same in every sentence, process and platform. A real model learns its vectors.
    """
    digests = [hashlib.shake_256(f"{seed} {word}".encode()).digest(4 * dim) for word in words]
    numbers = np.frombuffer(b"".join(digests), "<u4").reshape(len(words), dim)  # below 2**32
    return (numbers / 2**31 - 1) * math.sqrt(3)


def random_projections(dim: int, seed: int = 42) -> Array:
    """Return matrices for queries, keys and values, float64 (3, dim, dim); a model learns them."""
    generator = np.random.default_rng(seed % 2**64)
    return generator.standard_normal((3, dim, dim)) / math.sqrt(dim)


def softmax(scores: Array) -> Array:
    """Turn scores (..., n) into weights (..., n) from 0 to 1 that sum to 1 over the last axis.

    A score of -inf gets weight 0; a row of nothing else gets zeros.
    """
    scores = np.asarray(scores)
    scores = scores.astype(np.result_type(scores, np.float32), copy=False)  # integers: to floats
    highest = scores.max(axis=-1, keepdims=True, initial=np.finfo(scores.dtype).min)
    weights = np.exp(scores - highest)  # the same weights as of scores, but exp can't overflow
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


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
    weights = softmax(scaled_scores(query, key, mask, causal))  # (..., queries, keys)
    return weights @ value, weights


def scaled_scores(
    query: Array, key: Array, mask: Array | None = None, causal: bool = False
) -> Array:
    """Return how well each key fits each query, (..., queries, keys); -inf where it is hidden."""
    scores = (query / math.sqrt(query.shape[-1])) @ key.swapaxes(-1, -2)  # (..., queries, keys)
    if causal:
        earlier = np.tri(*scores.shape[-2:], dtype=bool)  # (queries, keys): True up to the diagonal
        np.copyto(scores, -np.inf, where=~earlier)
    if mask is not None:
        np.copyto(scores, -np.inf, where=~mask)
    return scores


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
    query = split_heads(x @ w_query, num_heads)  # (..., num_heads, words, width / num_heads)
    key = split_heads(x @ w_key, num_heads)
    value = split_heads(x @ w_value, num_heads)
    output, weights = attention(query, key, value, mask=mask, causal=causal)
    return output.swapaxes(-2, -3).reshape(*x.shape[:-1], w_value.shape[-1]), weights


def split_heads(projected: Array, num_heads: int) -> Array:
    """Turn (..., words, width) into (..., num_heads, words, width / num_heads)."""
    *batch, words, width = projected.shape
    return projected.reshape(*batch, words, num_heads, width // num_heads).swapaxes(-2, -3)


def print_weights(text: str, words: Sequence[str], weights: Array, causal: bool = False) -> None:
    """Print for each head of weights (heads, words, words) what each word attends to most."""
    print(f"\nSentence: {' '.join(text.split())}")
    width, digits = max(4, *map(columns, words)), len(str(len(words)))
    for head, rows in enumerate(weights, start=1):
        title = "top-3 indices (weights) per word, second-highest attended word"
        print(f"\nHead {head} of {len(weights)}: {title}")
        for index, row in enumerate(rows):
            # Rounded, so that words of equal weight (the same word twice) keep their order.
            order = np.argsort(-row.round(6), kind="stable")
            top = order[: min(3, index + 1) if causal else 3]
            cells = "  ".join(f"{key:{digits}d} ({row[key]:.3f})" for key in top)
            word = words[index] + " " * (width - columns(words[index]))
            second = words[top[1]] if len(top) > 1 else "-"
            print(f"{index:{digits}d}  {word}  {cells:<{3 * digits + 28}}  {second}")


def columns(word: str) -> int:
    """Return a word's width in a terminal: two columns per wide character, none per accent."""
    wide = sum(east_asian_width(char) in "WF" for char in word)
    return len(word) + wide - sum(combining(char) > 0 for char in word)


def print_steps(
    words: Sequence[str], x: Array, projections: Array, num_heads: int = 1, causal: bool = False
) -> None:
    """Print each matrix of `self_attention(x, *projections)` and its shape, to check a row by hand.

    x (words, dim), projections (3, dim, width). Each head has columns of its own in the latter.
    """
    print_matrix("X: a vector per word", x, words)
    for head in range(num_heads):
        print(f"\nHead {head + 1} of {num_heads}")
        matrices = split_heads(projections, num_heads)[:, head]  # (3, dim, width / num_heads)
        query, key, value = x @ matrices  # each (words, width / num_heads)
        scores = scaled_scores(query, key, causal=causal)
        weights = softmax(scores)
        for name, matrix, product in zip("QKV", matrices, (query, key, value), strict=True):
            print_matrix(f"W_{name}", matrix, [""] * len(matrix))
            print_matrix(f"{name} = X W_{name}", product, words)
        print_matrix(f"S = Q K^T / sqrt({query.shape[-1]}): scores", scores, words, words)
        print_matrix("A = softmax of each row of S: weights", weights, words, words)
        print_matrix("A V: output of the head", weights @ value, words)


def print_matrix(title: str, matrix: Array, rows: Sequence[str], names: Sequence[str] = ()) -> None:
    """Print a title, the matrix's shape, the columns' names if any, and its rows behind theirs."""
    print(f"\n{title} {matrix.shape}")
    indent = max(map(columns, rows))
    width = max([6, *map(columns, names)]) + 2
    if names:
        print(" " * indent + "".join(" " * (width - columns(name)) + name for name in names))
    for row, numbers in zip(rows, matrix, strict=True):
        cells = "".join(f"{number:z{width}.3f}" for number in numbers)
        print(row + " " * (indent - columns(row)) + cells)


def write_page(sentences: Sequence[tuple[Sequence[str], Array]], path: str) -> None:
    """Write one HTML file, without network or library: go to a word and see where it looks.

    A sentence is its words and their weights (heads, words, words).
    """
    data = [{"words": words, "weights": weights.round(7).tolist()} for words, weights in sentences]
    text = json.dumps(data).replace("<", "\\u003c")  # or a word like </script> would end the data
    with whole_files(Path(path).parent) as folder:
        (folder / Path(path).name).write_text(PAGE.replace("SENTENCES", text), encoding="utf-8")


def draw_weights(sentences: Sequence[tuple[Sequence[str], Array]], path: str) -> None:
    """Draw a row of panels per sentence and a panel per head into a .png, .pdf or .svg file.

    A sentence is its words and their weights (heads, words, words). Raises InputError if there are
    more or larger panels than anybody can read.
    """
    from matplotlib.figure import Figure  # here, so that all else needs NumPy only

    rows, heads = len(sentences), len(sentences[0][1])
    longest = max(len(words) for words, _ in sentences)
    if longest > 60 or longest * max(rows, heads) > 240:
        panels = f"{rows} x {heads} panels of up to {longest} words"
        raise InputError(f"--plot: nobody can read {panels}: give fewer or shorter sentences")
    size = 1.5 + longest * (0.45 if longest <= 12 else 0.25)  # inches
    figure = Figure((heads * size, rows * size), layout="constrained")
    panels = figure.subplots(rows, heads, squeeze=False)
    highest = max(weights.max() for _, weights in sentences)
    for (row, head), axes in np.ndenumerate(panels):
        words, weights = sentences[row][0], sentences[row][1][head]
        image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=highest)
        labels = [f"{word} {index}" for index, word in enumerate(words)]
        axes.set_xticks(range(len(words)), labels, rotation=90, parse_math=False)
        axes.set_yticks(range(len(words)), labels, parse_math=False)
        axes.set(title=f"head {head + 1}", xlabel="attends to (key)", ylabel="word (query)")
        for (query, key), weight in np.ndenumerate(weights):
            if longest <= 12:
                color = "black" if weight < highest / 2 else "white"
                style = {"size": 7, "ha": "center", "va": "center", "color": color}
                axes.text(key, query, f"{weight:.2f}", **style)
    figure.colorbar(image, ax=panels, label="attention weight", shrink=0.7)
    with whole_files(Path(path).parent) as folder:
        figure.savefig(folder / Path(path).name, dpi=150)


# The same without the matrix: `blockwise_attention` gives the output of `attention` for long texts.
# A step takes 512 queries of a head and 512 keys: a megabyte of scores, which stays in the cache.
TILE = 512
LATER = ~np.tri(TILE, dtype=bool)  # (query, key): True where the key comes later


def blockwise_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    causal: bool = False,
    num_threads: int | None = None,
) -> Array:
    """The output of `attention` in memory that grows with the number of words, not with its square.

    Arguments as in `attention`; query, key and value have the same leading axes, or ValueError is
    raised. num_threads: one per core by default. Returns (..., queries, value_dim), float32, or
    float64 where an argument is. Method: FlashAttention, Dao et al. 2022, algorithm 1.
    """
    *batch, queries, dim = query.shape
    keys, width = value.shape[-2:]
    if key.shape != (*batch, keys, dim) or value.shape != (*batch, keys, width):
        raise ValueError(f"{query.shape}, {key.shape} and {value.shape} do not fit together")
    dtype = np.result_type(query, key, value, np.float32)
    query, key, value = (np.asarray(array, dtype) for array in (query, key, value))
    if mask is not None:
        mask = np.broadcast_to(mask, (*batch, queries, keys))  # a view: it costs nothing
    # |score| <= |query| |key| / sqrt(dim); up to 40, exp needs no maximum off: an eighth faster
    squares = np.vecdot(query, query).max(initial=0) * np.vecdot(key, key).max(initial=0)
    small_scores = squares / dim <= 40**2
    output = np.empty((*batch, queries, width), dtype)
    starts = reversed(range(0, queries, TILE))  # causal: the last tiles take longest
    tiles = iter(list(itertools.product(starts, np.ndindex(*batch))))

    def work(_: int) -> None:
        memory = np.empty(TILE * TILE, dtype)  # for scores; new one in each step costs a tenth
        for start, head in tiles:  # each thread takes the next one that is left
            rows = slice(start, start + TILE)
            visible = None if mask is None else mask[head][rows]
            first = start if causal else None
            inputs = (query[head][rows], key[head], value[head])
            output[head][rows] = attend(*inputs, visible, first, small_scores, memory)

    threads = num_threads or os.cpu_count()
    with ThreadPoolExecutor(threads) as pool:  # NumPy lets them all compute
        list(pool.map(work, range(threads)))  # raises what was raised in a thread
    return output


def attend(
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None,
    first: int | None,
    small_scores: bool,
    memory: Array,
) -> Array:
    """Attend from a tile of queries (rows, dim) to keys (keys, dim), block by block.

    The maximum and the sum of a row of scores are known after the last block only. So we add up
    exp(score - highest so far) and the same times value, and shrink both sums whenever a higher
    score comes (online softmax, Milakov & Gimelshein 2018). first: the number of the first query
    if no query may see a later key; small_scores: exp(score) can neither overflow nor vanish.
    memory: TILE * TILE numbers, where the scores are computed.
    """
    rows, keys = len(query), len(key)
    query = query / math.sqrt(query.shape[-1])
    highest = np.full((rows, 1), np.finfo(query.dtype).min, query.dtype)
    total = np.zeros_like(highest)
    output = np.zeros((rows, value.shape[-1]), query.dtype)
    product = np.empty_like(output)
    end = keys if first is None else min(keys, first + rows)  # nobody here sees a later key
    for start in range(0, end, TILE):
        block = slice(start, min(start + TILE, end))
        scores = memory[: rows * (block.stop - start)].reshape(rows, -1)  # (rows, block)
        small_products(query, key[block].T, scores)
        if start == first:  # the blocks before are all earlier, those behind are left out
            np.copyto(scores, -np.inf, where=LATER[:rows, : scores.shape[1]])
        if mask is not None:
            np.copyto(scores, -np.inf, where=~mask[:, block])
        if not small_scores:
            before, highest = highest, np.maximum(highest, scores.max(axis=-1, keepdims=True))
            shrink = np.exp(before - highest)  # (rows, 1)
            total *= shrink
            output *= shrink
            scores -= highest
        weights = np.exp(scores, out=scores)
        total += np.einsum("ij->i", weights)[:, None]  # sums a row in half of the time of `sum`
        small_products(weights, value[block], product)
        output += product
    return output / np.where(total == 0, 1, total)


def small_products(left: Array, right: Array, output: Array) -> None:
    """Write left @ right to `output`, computed a few rows at a time in the calling thread.

    For more than 2**18 multiplications BLAS starts threads of its own, which get in the way of
    ours: twice as slow. A stack of small matrices is one call, and BLAS takes one after the other.
    """
    right = np.ascontiguousarray(right)  # or BLAS turns it once per piece: a third slower
    rows = max(1, 2**18 // right.size)
    whole = len(left) // rows * rows
    stack = left[:whole].reshape(-1, rows, left.shape[1])
    np.matmul(stack, right, out=output[:whole].reshape(-1, rows, right.shape[1]))
    np.matmul(left[whole:], right, out=output[whole:])


# Plumbing: nothing below is about attention ------------------------------------------------------


class InputError(Exception):
    """What the user can mend: the program ends with this as one line, and exit status 2."""


def refuse(message: str) -> NoReturn:
    """Raise what the parser would print."""
    raise InputError(f"{message}: see --help")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the flags' defaults, and the docstring's commands line by line."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line; bad usage raises InputError."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.formatter_class, parser.error = HelpFormatter, refuse
    for name, options in FLAGS.items():
        parser.add_argument(f"--{name}", **options)
    args = parser.parse_args(argv)
    dim, heads = args.embedding_dim, args.num_heads
    if not 1 <= heads <= dim or dim % heads:
        raise InputError(f"--embedding_dim {dim} is no multiple of --num_heads {heads} above 0")
    if dim > 4096:
        raise InputError(f"--embedding_dim {dim}: give 4096 or less")
    suffix = Path(args.plot or "").suffix.lower()
    if args.plot is not None and suffix not in (".png", ".pdf", ".svg", ".html"):
        raise InputError(f"--plot {args.plot}: give a name that ends in .png, .pdf, .svg or .html")
    if suffix in (".png", ".pdf", ".svg") and not find_spec("matplotlib"):
        raise InputError("--plot needs matplotlib: pip install matplotlib")
    args.text = args.text or [SAMPLE_TEXT]
    weights = 0
    for number, text in enumerate(args.text, start=1):
        words = len(split_words(text))
        if words == 0:
            raise InputError(f"--text: sentence {number} has no words: write at least one")
        weights += heads * words**2
    if weights > 5000**2:  # of 8 bytes, and a few copies: beyond it memory ends without a word
        remedy = "give shorter sentences, or use blockwise_attention"
        raise InputError(f"--text: nobody can read {weights:,} weights: {remedy}")
    return args


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


def print_files_and_next(plot: str | None) -> None:
    """Print what the weights are worth, the file that was written and a command to go on with."""
    print("\nVectors and matrices are random: the pattern means nothing until a model learns them.")
    if plot:
        print(f"\nFiles:\n  {plot}")
    print(f"\nNext:\n  python {shlex.quote(sys.argv[0])} --num_heads 2 --plot attention.html")


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Self-attention</title>
<style>
  :root { color-scheme: light dark }
  body { max-width: 48rem; margin: auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif }
  section { margin-top: 2rem; overflow-wrap: anywhere }
  button { margin: 2px; padding: 0.2rem 0.4rem; min-width: 3.5rem; font: inherit; color: inherit;
           border: 2px solid transparent; border-radius: 0.4rem;
           background: rgb(65 105 225 / calc(0.6 * var(--share))) }
  button[aria-current=true] { border-color: currentcolor }
  small { display: block }
</style>
<h1>Where does a word look?</h1>
<p>Point at a word, or go to it with the Tab key: below each word stands the weight that it gets.
<p>Vectors and matrices are random: the pattern means nothing until a model learns them.
<p><label>Head <select></select></label>
<script>
const head = document.querySelector("select")

function addSentence({ words, weights }) {
  const section = document.body.appendChild(document.createElement("section"))
  section.dir = "auto"  // from right to left where the first word is
  const buttons = words.map(word => {
    const button = section.appendChild(document.createElement("button"))
    button.append(word, document.createElement("small"))
    return button
  })
  const ranking = section.appendChild(document.createElement("p"))
  ranking.role = "status"  // read aloud when it changes
  let query = 0

  function show() {
    const row = weights[head.value][query]
    buttons.forEach((button, key) => {
      button.ariaCurrent = key === query
      button.style.setProperty("--share", row[key] / Math.max(...row))
      button.lastChild.textContent = row[key].toFixed(3)
    })
    const keys = [...row.keys()].sort((a, b) => row[b] - row[a])
    const parts = keys.map(key => `\u2068${words[key]}\u2069\u00a0${row[key].toFixed(6)}`)
    ranking.textContent = `\u2068${words[query]}\u2069: ${parts.join(" · ")}`
  }
  buttons.forEach((button, index) => {
    button.onmouseenter = button.onfocus = () => { query = index; show() }
  })
  head.addEventListener("change", show)
  show()
}

const sentences = SENTENCES
sentences[0].weights.forEach((_, index) => head.add(new Option(index + 1, index)))
head.parentNode.hidden = head.length === 1
sentences.forEach(addSentence)
</script>
"""

SAMPLE_TEXT = "The cat sat on the mat because the mat was warm."

if __name__ == "__main__":
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # not every screen can show every character
    try:
        main()
        print(end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try it again
        print("error: the output was closed before its end", file=sys.stderr)
        sys.exit(2)
    except (InputError, MemoryError, OSError) as error:
        if isinstance(error, MemoryError):
            error = f"{error}: give shorter sentences to --text"
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
