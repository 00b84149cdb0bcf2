# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.10",
#     "numpy>=2.1",
# ]
# ///
"""Self-attention in NumPy: every word of a sentence looks at every word and takes over a part of what it finds.

python self_attention.py --smoke                                       # the built-in sentence
python self_attention.py --text "Time flies like an arrow" --causal    # your own; no word sees a later one
python self_attention.py --num_heads 2 --plot attention.png            # a picture of who looks at whom
"""

import argparse
import hashlib
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn
from unicodedata import bidirectional, category, east_asian_width, normalize

import numpy as np

SAMPLE_TEXT = "The cat sat on the mat because the mat was warm."

Arr, Mask = np.ndarray, np.ndarray | None  # a mask is boolean: True where a query may look at a key

# Between words: spaces, control characters and the invisible marks that steer line breaks and reading direction.
SEPARATORS = r"\s\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
# Chinese characters and Japanese kana are written without spaces: each one stands for a word.
IDEOGRAPHS = r"\u2e80-\u2fff\u3005-\u3007\u3021-\u30ff\u31f0-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

# A step of the blockwise path: 64 tiles of queries times 128 keys, a megabyte of scores that stays in the cache.
CHUNK_TILES, BLOCK_KEYS, SPAN_KEYS = 64, 128, 2048
MAX_PRODUCT = 2**18  # of a tile and a block: BLAS multiplies so little in our thread, without threads of its own
MAX_TOTAL, MIN_EXPONENT = 2.0**64, -100.0  # far from overflow, and from the subnormal numbers, which are slow


def fail(message: object, status: int = 2) -> NoReturn:
    """End the program with one `error:` line on stderr and this exit status."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    raise SystemExit(status)


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
        if temporary.exists():
            temporary.unlink()


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; bad usage ends in one line."""
    raw = argparse.RawDescriptionHelpFormatter
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
    if args.plot is not None and Path(args.plot).suffix.lower() not in (".png", ".pdf", ".svg"):
        fail(f"--plot {args.plot}: give a file name that ends in .png, .pdf or .svg")
    if args.plot is not None and not find_spec("matplotlib"):
        fail("--plot needs matplotlib: pip install matplotlib")
    if empty := [number for number, text in enumerate(args.text, start=1) if not split_words(text)]:
        fail(f"--text: sentence {empty[0]} has no words: write at least one")
    return args


def split_words(text: str) -> list[str]:
    """Split at spaces; punctuation around a word, Chinese characters and Japanese kana stand alone.

    Punctuation inside a word (don't, 3.14) stays. Words that look the same are the same: the text becomes NFC.
    """
    text = normalize("NFC", text)
    marks = re.escape("".join({".", *(char for char in text if category(char).startswith("P"))}))
    inner, outer = f"[^{SEPARATORS}{IDEOGRAPHS}]", f"[^{SEPARATORS}{IDEOGRAPHS}{marks}]"
    return re.findall(f"[{IDEOGRAPHS}{marks}]|{outer}(?:{inner}*{outer})?", text)


def build_embeddings(words: Sequence[str], dim: int = 4, seed: int = 42) -> Arr:
    """Return a vector per word, float64 of shape (words, dim), uniform with mean 0 and variance 1.

    A vector follows from the word's letters and the seed alone, through SHAKE-256: it is the same in every sentence,
    process, platform and NumPy version. A real model learns its vectors.
    """
    digests = [hashlib.shake_256(f"{seed} {word}".encode("utf-8", "surrogatepass")).digest(4 * dim) for word in words]
    numbers = np.frombuffer(b"".join(digests), "<u4").reshape(len(words), dim)
    return (numbers / 2**31 - 1) * math.sqrt(3)


def softmax(scores: Arr) -> Arr:
    """Turn scores (..., n) into weights (..., n) from 0 to 1 that sum to 1 over the last axis.

    A score of -inf gets weight 0; a row of nothing else gets zeros. To take the maximum off changes no weight, but
    keeps exp from overflowing.
    """
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


def attention(query: Arr, key: Arr, value: Arr, *, mask: Mask = None, causal: bool = False) -> tuple[Arr, Arr]:
    """Scaled dot-product attention, equation 1 of Vaswani et al. 2017, "Attention Is All You Need".

    query (..., queries, dim), key (..., keys, dim), value (..., keys, value_dim): all float32 or all float64.
    mask: bool, broadcastable to (..., queries, keys), True where a query may look; causal: query i sees keys 0 to i.
    Returns output (..., queries, value_dim) and weights (..., queries, keys); a query that sees nothing gets zeros.
    """
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])  # (..., queries, keys)
    if causal:
        np.copyto(scores, -np.inf, where=~np.tri(*scores.shape[-2:], dtype=bool))
    if mask is not None:
        np.copyto(scores, -np.inf, where=~mask)
    weights = softmax(scores)  # (..., queries, keys)
    return weights @ value, weights


def self_attention(
    x: Arr, w_query: Arr, w_key: Arr, w_value: Arr, *, num_heads: int = 1, mask: Mask = None, causal: bool = False
) -> tuple[Arr, Arr]:
    """Multi-head self-attention of x (..., words, dim); the projections (dim, width) share width among the heads.

    mask: bool, broadcastable to (..., num_heads, words, words); for padding in a batch, `is_word[:, None, None, :]`.
    Returns output (..., words, width) and weights (..., num_heads, words, words), float32 or float64 as x is.
    Raises ValueError if a width is not a multiple of num_heads.
    """

    def project(weights: Arr) -> Arr:
        # (..., words, width) becomes (..., words, num_heads, width / num_heads); then heads come before words.
        return (x @ weights).reshape(*x.shape[:-1], num_heads, weights.shape[-1] // num_heads).swapaxes(-2, -3)

    output, weights = attention(project(w_query), project(w_key), project(w_value), mask=mask, causal=causal)
    return output.swapaxes(-2, -3).reshape(*x.shape[:-1], w_value.shape[-1]), weights


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> Arr:
    """Return an uninitialized array that begins with a cache line: BLAS is a sixth faster on it."""
    memory = np.empty(math.prod(shape) + 64 // dtype.itemsize, dtype)
    start = -memory.ctypes.data % 64 // dtype.itemsize
    return memory[start : start + math.prod(shape)].reshape(shape)


def lay_out(key: Arr, value: Arr, key_blocks: Arr, values: Arr) -> None:
    """Copy keys (n, dim), scaled and turned, to key_blocks (blocks, dim, BLOCK_KEYS), and values as they are."""
    (keys, dim), whole = key.shape, len(key) // BLOCK_KEYS
    key_blocks[:whole] = key[: whole * BLOCK_KEYS].reshape(whole, BLOCK_KEYS, dim).swapaxes(1, 2)
    key_blocks[whole : whole + 1, :, : keys % BLOCK_KEYS] = key[whole * BLOCK_KEYS :].T
    key_blocks[: math.ceil(keys / BLOCK_KEYS)] *= math.log2(math.e) / math.sqrt(dim)  # exp2 is faster than exp
    values[:keys] = value


@np.errstate(over="ignore", invalid="ignore")
def attend(query: Arr, key: Arr, value: Arr, output: Arr, memory: list, mask: Mask, first: int | None, careful: bool):
    """Fill output (tiles, tile, value_dim) for query (tiles, tile, dim), one block of keys after the other.

    A weight is exp(score) over the row's total, which is known only after the last block: add up exp(score) and
    exp(score) * value on the way, and divide at the end. As long as no total leaves the safe range, that is all;
    otherwise return False. The careful way is the online softmax, right for any scores and about half as fast.
    """
    (tiles, tile, _), (key_blocks, values, scores_memory, product), dtype = query.shape, memory, output.dtype
    scores_memory, product = scores_memory[:tiles, :tile], product[:tiles, :tile]
    total, part = np.zeros((2, tiles, tile, 1), dtype)
    ones, top = np.ones((BLOCK_KEYS, 1), dtype), np.finfo(dtype).min / 2
    for start in range(0, len(key), BLOCK_KEYS):
        if (offset := start % SPAN_KEYS) == 0:
            lay_out(key[start : start + SPAN_KEYS], value[start : start + SPAN_KEYS], key_blocks, values)
        size = min(BLOCK_KEYS, len(key) - start)
        visible = True if mask is None else mask[:, start : start + size]
        if first is not None and start + size > first + 1:  # causal, and there are keys after the first query
            visible = visible & np.tri(tiles * tile, size, first - start, dtype=bool)
        if start and visible is not True and not visible.any():
            continue
        scores = np.matmul(query, key_blocks[offset // BLOCK_KEYS, :, :size], out=scores_memory[..., :size])
        if careful:
            if visible is not True:
                np.copyto(scores, -np.inf, where=~visible.reshape(scores.shape))
            before, top = top, np.maximum(top, scores.max(axis=-1, keepdims=True))
            total *= np.exp2(before - top)  # what is added up so far had a lower maximum taken off
            output *= np.exp2(before - top)
            np.maximum(np.subtract(scores, top, out=scores), MIN_EXPONENT, out=scores)
        weights = np.exp2(scores, out=scores)
        if visible is not True:
            weights *= visible.reshape(scores.shape)
        np.matmul(weights, ones[:size], out=part if start else total)  # a sum, at the speed of BLAS
        np.matmul(weights, values[offset : offset + size], out=product if start else output)
        if start:
            total += part
            output += product
        elif not careful and not 1 / MAX_TOTAL < total.min() <= total.max() < MAX_TOTAL:
            return False
    output /= np.where(total == 0, 1, total)
    return careful or 1 / MAX_TOTAL < total.min() <= total.max() < MAX_TOTAL


def blockwise_attention(
    query: Arr, key: Arr, value: Arr, *, mask: Mask = None, causal: bool = False, num_threads: int | None = None
) -> Arr:
    """The output of `attention` without its (queries, keys) matrix: memory grows with their sum, not their product.

    Arguments as in `attention`; query, key and value have the same leading axes. num_threads: one per core by default.
    Returns (..., queries, value_dim), float32, or float64 where an argument is. Raises ValueError if shapes do not fit.
    Milakov & Gimelshein 2018 (online softmax), Rabe & Staats 2021, Dao et al. 2022 (FlashAttention).
    """
    (*batch, queries, dim), (keys, width) = query.shape, value.shape[-2:]
    if not keys or key.shape != (*batch, keys, dim) or value.shape != (*batch, keys, width):
        raise ValueError(f"query {query.shape}, key {key.shape} and value {value.shape} do not fit, or have no keys")
    if mask is not None and mask.dtype != bool:
        raise TypeError(f"the mask holds {mask.dtype}: give bool, True where a query may look")
    mask = None if mask is None else np.broadcast_to(mask, (*batch, queries, keys))  # a view: it costs nothing
    dtype, threads = np.result_type(query, key, value, np.float32), num_threads or os.cpu_count()
    output = np.empty((*batch, queries, width), dtype)
    tile = max(1, min(64, MAX_PRODUCT // (BLOCK_KEYS * max(dim, width))))
    whole, unit = queries // tile * tile, threads // math.gcd(threads, max(1, math.prod(batch)))
    parts = max(1, math.ceil(whole / tile / CHUNK_TILES / unit)) * unit  # per head: as much work for every thread
    edges = sorted({queries, *(whole // tile * part // parts * tile for part in range(parts + 1))})
    chunks = [(rows, head) for rows in zip(edges[:-1], edges[1:], strict=True) for head in np.ndindex(*batch)]

    def work(thread: int) -> None:
        shapes = [(SPAN_KEYS // BLOCK_KEYS, dim, BLOCK_KEYS), (SPAN_KEYS, width)]
        shapes += [(CHUNK_TILES, tile, BLOCK_KEYS), (CHUNK_TILES, tile, width)]
        memory = [aligned_empty(shape, dtype) for shape in shapes]
        for (first, last), head in chunks[thread::threads]:
            rows, known = slice(first, last), slice(last if causal else None)
            tiles = query[head][rows].reshape(-1, min(tile, last - first), dim)
            inputs = tiles, key[head][known], value[head][known], output[head][rows].reshape(*tiles.shape[:2], width)
            seen = None if mask is None else mask[head][rows]
            any(attend(*inputs, memory, seen, first if causal else None, careful) for careful in (False, True))

    with ThreadPoolExecutor(threads) as pool:
        others = pool.map(work, range(1, min(threads, len(chunks))))
        work(0)
        list(others)  # waits for the other threads, and raises what they raise
    return output


def columns(word: str) -> int:
    """Return how many terminal columns a word takes: two per wide character, none per combining mark."""
    return sum(1 + (east_asian_width(char) in "WF") for char in word if category(char) not in ("Mn", "Me", "Cf"))


def print_weights(text: str, words: list[str], weights: Arr, causal: bool) -> None:
    """Print the sentence and, per head and word, the three words that it attends to most; the second also by name."""
    print(f"\nSentence: {re.sub(f'[{SEPARATORS}]+', ' ', text).strip()}")
    width, digits = max(4, *map(columns, words)), len(str(len(words)))
    for head, rows in enumerate(weights, start=1):
        print(f"\nHead {head} of {len(weights)}: top-3 indices (weights) per word, second-highest attended word")
        for index, (word, row) in enumerate(zip(words, rows, strict=True)):
            # Rounded, so that words of equal weight (the same word twice) stand in their order on every platform.
            top = np.argsort(-row.round(6), kind="stable")[: min(3, index + 1 if causal else len(words))]
            cells = "  ".join(f"{key:{digits}d} ({row[key]:.3f})" for key in top)
            # Invisible marks keep a right-to-left word from turning the numbers beside it round.
            mark = "\u200e" if any(bidirectional(char) in ("R", "AL") for char in word) else ""
            cell = f"{mark}{word}{' ' * (width - columns(word))}{mark}"
            print(f"{index:{digits}d}  {cell}  {cells:<{3 * digits + 28}}  {words[top[1]] if len(top) > 1 else '-'}")


def find_fonts(text: str) -> tuple[list[str], dict[int, str | None]]:
    """Return font families that together draw a text, and a table for `str.translate` of what no font can draw."""
    from matplotlib.font_manager import fontManager, get_font

    missing, families = set(text), []
    upright = [font for font in fontManager.ttflist if font.style == "normal" and "Last Resort" not in font.name]
    for font in sorted(upright, key=lambda font: (font.name != "DejaVu Sans", font.name)):
        if missing and (drawn := missing & set(map(chr, get_font(font.fname).get_charmap()))):
            families.append(font.name)
            missing -= drawn
    return families, {ord(char): None if category(char) == "Cf" else "\u25a1" for char in missing}


def draw_weights(path: str, sentences: list[tuple[list[str], Arr]]) -> None:
    """Draw a row of panels per sentence, a panel per head: how much each word (row) attends to each word (column)."""
    from matplotlib.figure import Figure

    rows, heads, longest = len(sentences), len(sentences[0][1]), max(len(words) for words, _ in sentences)
    if longest > 60 or longest * max(rows, heads) > 240:
        fail(f"--plot: nobody can read {rows} x {heads} panels of up to {longest} words: give fewer or shorter ones")
    families, undrawable = find_fonts("".join(word for words, _ in sentences for word in words))
    if squares := "".join(chr(code) for code, square in undrawable.items() if square):
        print(f"\nNo installed font has {squares}: the picture shows squares instead")
    size, top = 1.5 + longest * (0.45 if longest <= 12 else 0.25), max(weights.max() for _, weights in sentences)
    axes = Figure((heads * size, rows * size), layout="constrained").subplots(rows, heads, squeeze=False)
    for (row, head), axis in np.ndenumerate(axes):
        words, weights = sentences[row][0], sentences[row][1][head]
        labels = [f"{word} {index}".translate(undrawable) for index, word in enumerate(words)]
        image = axis.imshow(weights, cmap="Blues", vmin=0, vmax=top)
        axis.set_xticks(range(len(words)), labels, rotation=90, family=families, parse_math=False)
        axis.set_yticks(range(len(words)), labels, family=families, parse_math=False)
        axis.set(title=f"head {head + 1}", xlabel="attends to (key)", ylabel="word (query)")
        for (query, key), weight in np.ndenumerate(weights) if longest <= 12 else ():
            axis.text(key, query, f"{weight:.2f}", size=7, ha="center", va="center", c="wk"[bool(weight < top / 2)])
    image.figure.colorbar(image, ax=axes, label="attention weight", shrink=0.7)
    write_atomically(path, lambda file: image.figure.savefig(file, dpi=150))
    print(f"\nFiles:\n  {path}")


def main(argv: list[str] | None = None) -> None:
    """Attend over each sentence with random projections, print the strongest weights and draw them if asked to."""
    args = parse_arguments(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal need not know every script
    dim, sentences = args.embedding_dim, []
    w_query, w_key, w_value = np.random.default_rng(args.seed % 2**64).standard_normal((3, dim, dim)) / math.sqrt(dim)
    for text in args.text:
        words = split_words(text)
        x = build_embeddings(words, dim, args.seed)  # (words, embedding_dim)
        _, weights = self_attention(x, w_query, w_key, w_value, num_heads=args.num_heads, causal=args.causal)
        print_weights(text, words, weights, args.causal)
        sentences.append((words, weights))
    if args.plot:
        draw_weights(args.plot, sentences)
    print(f"\nNext:\n  python {sys.argv[0]} --num_heads 2 --plot attention.png")


if __name__ == "__main__":
    main()
