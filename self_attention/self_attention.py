# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.9",
#     "numpy>=2.0",
# ]
# ///
"""Self-attention in NumPy: every word of a sentence looks at every word and takes over a part of what it finds.

python self_attention.py --smoke                                       # the built-in sentence
python self_attention.py --text "Time flies like an arrow" --causal    # your own; no word sees a later one
python self_attention.py --num_heads 2 --plot attention.png            # a picture of who looks at whom
"""

import argparse
import functools
import hashlib
import itertools
import math
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np

Array = np.ndarray

SAMPLE_TEXT = "The cat sat on the mat because the mat was warm."

# Between words: spaces, control characters and the invisible marks that steer line breaks and reading direction.
SEPARATORS = r"\s\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"
# Chinese characters and Japanese kana are written without spaces: each one stands for a word.
IDEOGRAPHS = r"\u2e80-\u2fff\u3005-\u3007\u3021-\u30ff\u31f0-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
MAX_PLOT_WORDS = 60

# A step of the blockwise path: 64 tiles of queries times 128 keys, a megabyte of scores that stays in the cache.
CHUNK_TILES, BLOCK_KEYS, SPAN_KEYS = 64, 128, 2048
MAX_PRODUCT = 2**18  # of a tile and a block: BLAS multiplies so little in our thread, without threads of its own
MAX_TOTAL, MIN_EXPONENT = 2.0**64, -100.0  # far from overflow, and from the subnormal numbers, which are slow


def fail(message: object) -> NoReturn:
    """End the program with one `error:` line on stderr and exit status 2."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    raise SystemExit(2)


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place: complete or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}")
    finally:
        temporary.unlink(missing_ok=True)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; bad usage ends in one line."""
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, formatter_class=raw)
    parser.error = fail
    parser.add_argument("--smoke", action="store_true", help="the built-in sentence, as without any flag")
    parser.add_argument("--text", nargs="+", default=[SAMPLE_TEXT], metavar="SENTENCE", help="one sentence or more")
    parser.add_argument("--embedding_dim", type=int, default=4, help="numbers in a word's vector (4)")
    parser.add_argument("--num_heads", type=int, default=1, help="heads, which share these numbers (1)")
    parser.add_argument("--causal", action="store_true", help="a word sees itself and earlier words only")
    parser.add_argument("--plot", metavar="FILE", help="draw the weights: .png, .pdf or .svg")
    parser.add_argument("--seed", type=int, default=42, help="seed of the vectors and of the projections (42)")
    args = parser.parse_args(argv)
    if not 1 <= args.num_heads <= args.embedding_dim or args.embedding_dim % args.num_heads:
        fail(f"--embedding_dim {args.embedding_dim} is no multiple of --num_heads {args.num_heads}: give one, above 0")
    for number, text in enumerate(args.text, start=1):
        if not split_words(text):
            fail(f"--text: sentence {number} has no words: write at least one")
    return args


def split_words(text: str) -> list[str]:
    """Split at spaces; punctuation around a word, Chinese characters and Japanese kana stand alone.

    Punctuation inside a word (don't, 3.14) stays. Words that look the same are the same: the text becomes NFC.
    """
    text = unicodedata.normalize("NFC", text)
    marks = re.escape("".join({".", *(char for char in text if unicodedata.category(char).startswith("P"))}))
    inner, outer = f"[^{SEPARATORS}{IDEOGRAPHS}]", f"[^{SEPARATORS}{IDEOGRAPHS}{marks}]"
    return re.findall(f"[{IDEOGRAPHS}{marks}]|{outer}(?:{inner}*{outer})?", text)


def build_embeddings(words: Sequence[str], dim: int = 4, seed: int = 42) -> Array:
    """Return a vector per word, float64 of shape (words, dim), uniform with mean 0 and variance 1.

    A vector follows from the word's letters and the seed alone, through SHAKE-256: it is the same in every sentence,
    process, platform and NumPy version. A real model learns its vectors.
    """
    digests = [hashlib.shake_256(f"{seed} {word}".encode("utf-8", "surrogatepass")).digest(4 * dim) for word in words]
    numbers = np.frombuffer(b"".join(digests), "<u4").reshape(len(words), dim)
    return (numbers / 2**31 - 1) * math.sqrt(3)


def softmax(scores: Array) -> Array:
    """Turn scores (..., n) into weights (..., n) from 0 to 1 that sum to 1 over the last axis.

    A score of -inf gets weight 0; a row of nothing else gets zeros. To take the maximum off changes no weight, but
    keeps exp from overflowing.
    """
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


def boolean(mask: Array) -> Array:
    """Return the mask; raise TypeError if it is not boolean, since 0 and 1 mean different things to different people."""
    if np.asarray(mask).dtype != bool:
        raise TypeError(f"the mask holds {np.asarray(mask).dtype}: give bool, True where a query may look")
    return np.asarray(mask)


def attention(
    query: Array, key: Array, value: Array, *, mask: Array | None = None, causal: bool = False
) -> tuple[Array, Array]:
    """Scaled dot-product attention, equation 1 of Vaswani et al. 2017, "Attention Is All You Need".

    query (..., queries, dim), key (..., keys, dim), value (..., keys, value_dim): all float32 or all float64.
    mask: bool, broadcastable to (..., queries, keys), True where a query may look; causal: query i sees keys 0 to i.
    Returns output (..., queries, value_dim) and weights (..., queries, keys); a query that sees nothing gets zeros.
    """
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])  # (..., queries, keys)
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    if mask is not None:
        scores = np.where(boolean(mask), scores, -np.inf)
    weights = softmax(scores)  # (..., queries, keys)
    return weights @ value, weights


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
    """Multi-head self-attention of x (..., words, dim); the projections (dim, width) share width among the heads.

    mask: bool, broadcastable to (..., num_heads, words, words); for padding in a batch, `is_word[:, None, None, :]`.
    Returns output (..., words, width) and weights (..., num_heads, words, words), float32 or float64 as x is.
    Raises ValueError if a width is not a multiple of num_heads.
    """

    def project(weights: Array) -> Array:
        heads = (x @ weights).reshape(*x.shape[:-1], num_heads, weights.shape[-1] // num_heads)
        return heads.swapaxes(-2, -3)  # (..., num_heads, words, width / num_heads)

    output, weights = attention(project(w_query), project(w_key), project(w_value), mask=mask, causal=causal)
    return output.swapaxes(-2, -3).reshape(*x.shape[:-1], w_value.shape[-1]), weights


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """Return an uninitialized array that begins with a cache line: BLAS is a sixth faster on it."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def lay_out(key: Array, value: Array, key_blocks: Array, values: Array) -> None:
    """Copy keys (n, dim), scaled and turned, to key_blocks (blocks, dim, BLOCK_KEYS), and values as they are."""
    whole, rest = divmod(len(key), BLOCK_KEYS)
    key_blocks[:whole] = key[: len(key) - rest].reshape(whole, BLOCK_KEYS, -1).swapaxes(1, 2)
    if rest:
        key_blocks[whole, :, :rest] = key[-rest:].T
    key_blocks[: whole + 1] *= math.log2(math.e) / math.sqrt(key.shape[1])  # exp2 is faster than exp
    values[: len(value)] = value


def find_visible(mask: Array | None, causal: bool, first: int, last: int, start: int, stop: int) -> Array | None:
    """Return which keys from start to stop the queries from first to last see, as bool, or None: all of them."""
    visible = None if mask is None else mask[first:last, start:stop]
    if causal and stop > first + 1:
        earlier = np.tri(last - first, stop - start, first - start, dtype=bool)
        visible = earlier if visible is None else visible & earlier
    return visible


def attend(
    query: Array,
    key: Array,
    value: Array,
    output: Array,
    memory: tuple[Array, ...],
    visible_keys: Callable[[int, int], Array | None],
    careful: bool,
) -> bool:
    """Fill output (tiles, tile, value_dim) for query (tiles, tile, dim), one block of keys after the other.

    The weights of a row are exp(score) over their total, which is known only after the last block: so add up both
    exp(score) and exp(score) * value, and divide at the end. Return False if exp may have overflowed. The careful way
    takes the largest score so far off, as softmax does, and shrinks the sums whenever a block brings a larger one.
    """
    key_blocks, values, ones, scores_memory, product = memory
    scores_memory, product = scores_memory[: len(query), : query.shape[1]], product[: len(query), : query.shape[1]]
    total, part = np.zeros((2, *query.shape[:2], 1), output.dtype)
    top = np.finfo(output.dtype).min / 2
    for start in range(0, len(key), BLOCK_KEYS):
        if (offset := start % SPAN_KEYS) == 0:
            lay_out(key[start : start + SPAN_KEYS], value[start : start + SPAN_KEYS], key_blocks, values)
        size = min(BLOCK_KEYS, len(key) - start)
        visible = visible_keys(start, start + size)
        if start and visible is not None and not visible.any():
            continue
        scores = np.matmul(query, key_blocks[offset // BLOCK_KEYS, :, :size], out=scores_memory[..., :size])
        if careful:
            if visible is not None:
                np.copyto(scores, -np.inf, where=~visible.reshape(scores.shape))
            top, shrink = online_maximum(scores, top)
