"""self_attention.py: equal to PyTorch over shapes, masks and scales; right output for any text; pictures."""

import ast
import base64
import functools
import io
import json
import logging
import os
import random
import re
import shlex
import subprocess
import sys
import threading
import tracemalloc
import unicodedata
import warnings
from contextlib import redirect_stdout
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
import torch
from conftest import SCRIPTS, load_script
from hypothesis import given, settings
from hypothesis import strategies as st

script = load_script("self_attention")
FOLDER = SCRIPTS["self_attention"].parent
reproducible = settings(derandomize=True, deadline=None, max_examples=120)


def torch_attention(query, key, value, visible) -> np.ndarray:
    """PyTorch's result as an array, zeros where a query sees nothing; visible: bool, broadcastable, or None."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in (query, key, value)]
    if visible is None:
        return torch.nn.functional.scaled_dot_product_attention(*tensors).numpy()
    visible = np.broadcast_to(visible, (*query.shape[:-1], key.shape[-2])).copy()
    output = torch.nn.functional.scaled_dot_product_attention(
        *tensors, attn_mask=torch.from_numpy(visible)
    )
    return np.where(visible.any(-1, keepdims=True), output.numpy(), 0)


def tolerance(query, key, value) -> float:
    """8 eps max(1, |score|max) |value|max."""
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
    return 8 * np.finfo(query.dtype).eps * max(1, np.abs(scores).max()) * np.abs(value).max()


def visible_of(mask, causal, queries, keys):
    """Mask and causal as one mask, or None."""
    lower = np.arange(keys) <= np.arange(queries)[:, None]
    return mask if not causal else lower if mask is None else mask & lower


@st.composite
def attention_inputs(draw, most=40):
    """query, key, value (batch, heads, n, dim), a mask or None, causal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    batch, heads, dim, width = (draw(st.integers(1, most)) for most in (3, 3, 70, 70))
    queries, keys = draw(st.integers(1, most)), draw(st.integers(1, most))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    shapes = (batch, heads, queries, dim), (batch, heads, keys, dim), (batch, heads, keys, width)
    query, key, value = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    query *= dtype(draw(st.sampled_from([1e-3, 1, 1, 10, 100, 3000])))
    value *= dtype(draw(st.sampled_from([1e-6, 1, 1, 1e6])))
    kind = draw(st.sampled_from(["none", "padding", "random", "rows"]))
    mask = None
    if kind == "padding":
        mask = np.arange(keys) < rng.integers(0, keys + 1, (batch, 1, 1, 1))
    elif kind != "none":
        mask = rng.random((batch, heads, queries, keys if kind == "random" else 1)) < draw(
            st.sampled_from([0.1, 0.6])
        )
    return query, key, value, mask, draw(st.booleans())


# The story


def test_callers_stand_before_what_they_call_and_nothing_in_the_story_is_left_over():
    text = SCRIPTS["self_attention"].read_text(encoding="utf-8")
    story = ast.parse(text.partition("\n# Speed: the same, faster -")[0]).body
    assert len(story) > 20 and "\n# Plumbing" in text.partition("\n# Speed")[2]
    called = {"main"}
    for function in (node for node in story if isinstance(node, ast.FunctionDef)):
        assert function.name in called, f"{function.name} is called by nothing above it"
        called |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}


def test_the_docstring_has_the_shapes_of_what_is_computed():
    rows = re.findall(r"(?m)^    (\S.*?) +\(([hnd, im]+)\) +\S", script.__doc__)
    size = {"n": 5, "dim": 6, "h": 2, "d": 3}
    shapes = {name: tuple(size[axis] for axis in axes.split(", ")) for name, axes in rows}
    x = script.build_embeddings(["w"] * size["n"], size["dim"])
    w_query, w_key, w_value = script.random_projections(size["dim"])
    query, value = (script.split_heads(x @ w, size["h"]) for w in (w_query, w_value))
    scores = script.scaled_scores(query, script.split_heads(x @ w_key, size["h"]))
    output, weights = script.self_attention(x, w_query, w_key, w_value, num_heads=size["h"])
    found = {"X": x, "Q, K, V": query, "S": scores, "A": weights, "A V": weights @ value}
    assert shapes == {name: array.shape for name, array in (found | {"Y": output}).items()}
    for words in ("softmax(Q K^T / sqrt(d)) V", "Why the root of d", "W_O"):
        assert words in script.__doc__


# Word vectors


def test_embeddings_have_pinned_values():
    expected = [
        [-1.6797274779096092, 0.0010717011888075332, 0.700316978940749, -1.3240210370378294],
        [1.631855402702609, 0.13567926557058463, 0.08239662571377816, 0.14499687782725043],
    ]
    assert script.build_embeddings(["cat", "猫"]).tolist() == expected
    assert script.build_embeddings(["cat"], dim=2, seed=7).tolist() == [
        [0.19980626656465159, 1.7105316856133639]
    ]


def test_a_word_has_one_vector_in_every_sentence_and_process():
    sentence = script.build_embeddings(["the", "cat", "the"], dim=8)
    assert sentence.shape == (3, 8) and sentence.dtype == np.float64
    assert (sentence[0] == sentence[2]).all() and (sentence[0] != sentence[1]).all()
    code = "import self_attention; print(self_attention.build_embeddings(['a', 'the'], dim=8)[1].tolist())"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(FOLDER)}
    other = subprocess.run(
        [sys.executable, "-B", "-c", code], env=environment, capture_output=True, text=True
    )
    assert other.stdout.strip() == str(sentence[0].tolist())
    assert (script.build_embeddings(["the"], dim=8, seed=1) != sentence[0]).all()


def test_embeddings_have_mean_0_and_variance_1():
    vectors = script.build_embeddings([f"word{i}" for i in range(2000)], dim=16)
    assert abs(vectors.mean()) < 0.02 and abs(vectors.var() - 1) < 0.02


# The mathematics


@given(st.integers(0, 99), st.sampled_from([np.float32, np.float64]), st.sampled_from([1, 1e4]))
@reproducible
def test_softmax_equals_torch(seed, dtype, scale):
    scores = (np.random.default_rng(seed).standard_normal((3, 5, 7)) * scale).astype(dtype)
    weights = script.softmax(scores)
    assert weights.dtype == dtype
    np.testing.assert_allclose(
        weights, torch.from_numpy(scores).softmax(-1).numpy(), atol=4 * np.finfo(dtype).eps
    )
    np.testing.assert_allclose(weights.sum(-1), 1, atol=8 * np.finfo(dtype).eps)


def test_softmax_of_nothing_is_zeros():
    scores = np.array([[-np.inf, -np.inf], [-np.inf, 3.0]])
    assert script.softmax(scores).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint8, bool])
def test_integers_give_what_the_same_floats_give(dtype):
    rng = np.random.default_rng(0)
    query, key, value, scores = (rng.integers(0, 100, (3, 5, 6)) for _ in range(4))
    integers = [array.astype(dtype) for array in (query, key, value)]
    floats = [array.astype(np.float64) for array in integers]
    weights = script.softmax(scores.astype(dtype))
    expected = torch.from_numpy(scores.astype(dtype).astype(np.float64)).softmax(-1)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    expected = torch_attention(*floats, None)
    output, blockwise = script.attention(*integers)[0], script.blockwise_attention(*integers)
    np.testing.assert_allclose(output, expected, atol=1e-12)
    np.testing.assert_allclose(blockwise, expected, rtol=1e-4)
    wide = np.dtype(dtype).itemsize >= 4
    assert output.dtype == np.float64 and blockwise.dtype == (np.float64 if wide else np.float32)


def test_softmax_takes_a_list():
    np.testing.assert_allclose(script.softmax([0, 0, 0, 0]), [0.25] * 4)


def test_attention_by_hand():
    query, key = (
        np.array([[np.log(3.0)]]),
        np.array([[1.0], [0.0]]),
    )  # scores log 3 and 0: weights 3/4 and 1/4
    output, weights = script.attention(query, key, np.array([[8.0, 0.0], [0.0, 4.0]]))
    np.testing.assert_allclose(weights, [[0.75, 0.25]])
    np.testing.assert_allclose(output, [[6, 1]])


@given(attention_inputs())
@reproducible
def test_attention_and_blockwise_attention_equal_torch(inputs):
    query, key, value, mask, causal = inputs
    expected = torch_attention(
        query, key, value, visible_of(mask, causal, query.shape[-2], key.shape[-2])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output, weights = script.attention(query, key, value, mask=mask, causal=causal)
        blockwise = script.blockwise_attention(
            query, key, value, mask=mask, causal=causal, num_threads=2
        )
    assert output.dtype == weights.dtype == blockwise.dtype == query.dtype
    assert np.abs(output - expected).max() <= tolerance(query, key, value)
    assert np.abs(blockwise - expected).max() <= tolerance(query, key, value)


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)
@reproducible
def test_self_attention_equals_torch_on_its_projections(seed, heads, causal, dtype):
    rng = np.random.default_rng(seed)
    batch, words, dim, width, value_width = (
        *rng.integers(1, 9, 3),
        heads * rng.integers(1, 9),
        heads * 5,
    )
    shapes = (batch, words, dim), (dim, width), (dim, width), (dim, value_width)
    x, *projections = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    is_word = np.arange(words) < rng.integers(0, words + 1, (batch, 1))
    mask = is_word[:, None, None, :]
    output, weights = script.self_attention(
        x, *projections, num_heads=heads, mask=mask, causal=causal
    )
    split = [np.stack(np.split(x @ w, heads, axis=-1), axis=1) for w in projections]
    expected = torch_attention(*split, visible_of(mask, causal, words, words))
    expected = np.concatenate(list(expected.swapaxes(0, 1)), axis=-1)
    assert output.shape == (batch, words, value_width) and weights.shape == (
        batch,
        heads,
        words,
        words,
    )
    assert output.dtype == weights.dtype == dtype
    assert np.abs(output - expected).max() <= tolerance(*split)


@pytest.mark.parametrize("path", ["attention", "blockwise_attention"])
def test_within_1e_6_in_float32_on_standard_normal_input(path):
    query, key, value = np.random.default_rng(0).standard_normal(
        (3, 2, 4, 500, 64), dtype=np.float32
    )
    output = getattr(script, path)(query, key, value)
    output = output[0] if path == "attention" else output
    assert np.abs(output - torch_attention(query, key, value, None)).max() <= 1e-6


def test_self_attention_of_one_sentence_equals_torch_multi_head_attention():
    layer = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True, dtype=torch.float64)
    layer.out_proj.weight.data = torch.eye(12, dtype=torch.float64)
    x = np.random.default_rng(0).standard_normal((6, 12))
    tensor = torch.from_numpy(x)
    expected, expected_weights = layer(tensor, tensor, tensor, average_attn_weights=False)
    projections = (w.detach().numpy().T for w in layer.in_proj_weight.chunk(3))
    output, weights = script.self_attention(x, *projections, num_heads=3)
    np.testing.assert_allclose(output, expected.detach(), atol=1e-12)
    np.testing.assert_allclose(weights, expected_weights.detach(), atol=1e-12)


def test_biases_are_those_of_torch_multi_head_attention():
    layer = torch.nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    layer.out_proj.weight.data = torch.eye(12, dtype=torch.float64)
    biases = np.random.default_rng(1).standard_normal((3, 12))
    layer.in_proj_bias.data = torch.from_numpy(biases.ravel())
    x = np.random.default_rng(0).standard_normal((6, 12))
    expected, _ = layer(*[torch.from_numpy(x)] * 3)
    projections = (w.detach().numpy().T for w in layer.in_proj_weight.chunk(3))
    output, _ = script.self_attention(x, *projections, biases=biases, num_heads=3)
    np.testing.assert_allclose(output, expected.detach(), atol=1e-12)


def test_a_padded_batch_gives_what_its_sentences_give_alone():
    rng = np.random.default_rng(0)
    x, projections = rng.standard_normal((2, 5, 4)), rng.standard_normal((3, 4, 4))
    mask = np.array([[True] * 5, [True] * 3 + [False] * 2])[:, None, None, :]
    output, weights = script.self_attention(x, *projections, num_heads=2, mask=mask)
    for sentence, length in ((0, 5), (1, 3)):
        alone, alone_weights = script.self_attention(
            x[sentence, :length], *projections, num_heads=2
        )
        np.testing.assert_allclose(output[sentence, :length], alone, atol=1e-12)
        np.testing.assert_allclose(
            weights[sentence, :, :length, :length], alone_weights, atol=1e-12
        )
    assert (weights[1, :, :, 3:] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("path", ["attention", "blockwise_attention"])
def test_huge_scores_and_rows_that_see_nothing(path, dtype):
    query = np.array([[1e4], [-1e4], [0], [1e4]], dtype)
    key, value = np.array([[1], [-1], [0]], dtype), np.array([[1, 2], [3, 4], [8, 9]], dtype)
    mask = np.array(
        [[True, True, True], [True, True, True], [False, False, False], [False, True, True]]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = getattr(script, path)(query, key, value, mask=mask)
    output = output[0] if path == "attention" else output
    assert output.tolist() == [[1, 2], [3, 4], [0, 0], [8, 9]]


def test_a_mask_of_numbers_and_shapes_that_do_not_fit_are_errors():
    x = np.ones((4, 6))
    for mask in (np.ones((4, 4)), np.ones((4, 4), int)):
        for function in (script.attention, script.blockwise_attention):
            with pytest.raises(TypeError):
                function(x, x, x, mask=mask)
    with pytest.raises(ValueError):
        script.self_attention(x, *np.ones((3, 6, 6)), num_heads=4)
    for key, value in ((x[:, :5], x), (x[:3], x), (x[None], x[None]), (x, x[None]), (x, x[:2])):
        with pytest.raises(ValueError, match="do not fit together"):
            script.blockwise_attention(x, key, value)


@pytest.mark.parametrize("queries", [0, 4])
@pytest.mark.parametrize("keys", [0, 4])
def test_without_keys_both_paths_give_zeros_and_without_queries_nothing(queries, keys):
    query, key, value = np.ones((queries, 6)), np.ones((keys, 6)), np.ones((keys, 3))
    output, weights = script.attention(query, key, value)
    blockwise = script.blockwise_attention(query, key, value)
    assert output.shape == blockwise.shape == (queries, 3) and weights.shape == (queries, keys)
    assert (output == (keys > 0)).all() and (blockwise == (keys > 0)).all()


# The blockwise path


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("queries", "keys", "dim", "width", "scale", "masked"),
    [
        (1300, 2300, 64, 64, 1, None),  # several tiles of queries and blocks of keys, ragged
        (2048, 1024, 64, 64, 1, None),  # whole tiles and blocks
        (300, 4500, 16, 8, 30, None),  # scores so large that a maximum is taken off
        (1300, 1100, 16, 8, 30, "random"),
        (2100, 257, 130, 20, 1, "padding"),
        (700, 2200, 8, 8, 1, "random"),
        (65, 130, 600, 3, 1, None),
        (5000, 1, 2, 2, 1, None),
    ],
)
def test_tiles_and_blocks_fit_together(queries, keys, dim, width, scale, masked, causal):
    rng = np.random.default_rng(0)
    shapes = (2, queries, dim), (2, keys, dim), (2, keys, width)
    query, key, value = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    query *= np.float32(scale)
    masks = {
        "padding": np.arange(keys) < 150,
        "random": rng.random((2, queries, keys)) < 0.02,
        None: None,
    }
    mask = masks[masked]
    expected = torch_attention(query, key, value, visible_of(mask, causal, queries, keys))
    output = script.blockwise_attention(query, key, value, mask=mask, causal=causal)
    assert np.abs(output - expected).max() <= tolerance(query, key, value)


def test_blockwise_result_does_not_depend_on_threads_or_memory_layout():
    x = np.random.default_rng(0).standard_normal((3, 300, 5, 16), dtype=np.float32)
    query, key, value = x.swapaxes(1, 2)  # heads split off a wider array: not contiguous
    alone = script.blockwise_attention(query, key, value, num_threads=1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(
            script.blockwise_attention(query, key, value, num_threads=threads), alone
        )
    contiguous = [np.ascontiguousarray(array) for array in (query, key, value)]
    assert np.abs(script.blockwise_attention(*contiguous) - alone).max() <= 1e-6


def test_blockwise_leaves_its_inputs_alone_and_mixes_types():
    query, key, value = np.random.default_rng(0).standard_normal((3, 7, 4))
    copies = query.copy(), key.copy(), value.copy()
    output = script.blockwise_attention(query.astype(np.float32), key, value, causal=True)
    assert output.dtype == np.float64
    assert all(
        (array == copy).all() for array, copy in zip((query, key, value), copies, strict=True)
    )
    np.testing.assert_allclose(
        output, script.attention(query, key, value, causal=True)[0], atol=1e-6
    )


@pytest.mark.parametrize("scale", [1, 100])
def test_a_first_block_that_nobody_sees_does_not_count(scale):
    query, key, value = np.random.default_rng(0).standard_normal((3, 1400, 8))
    query, mask = query * scale, np.arange(1400) >= 1300
    expected = torch_attention(query, key[mask], value[mask], None)
    np.testing.assert_allclose(
        script.blockwise_attention(query, key, value, mask=mask), expected, atol=1e-12
    )

    key[:1300] *= 1e6  # hidden, and larger than all that is seen
    np.testing.assert_allclose(
        script.blockwise_attention(query, key, value, mask=mask), expected, atol=1e-12
    )


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_scores_at_the_limit_up_to_which_no_maximum_is_taken_off(factor):
    """The bound of 40 on a score: the first query has the scores 40 and -40, the second the like with other signs."""
    query = np.array([[1, 0], [-1, 0], [0, 1]], np.float32) * np.float32(factor * 40 * 2**0.5)
    key = np.repeat(np.array([[1, 0], [-1, 0], [0, 1]], np.float32), 700, axis=0)
    value = np.random.default_rng(0).standard_normal((2100, 5), dtype=np.float32) * np.float32(1e6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = script.blockwise_attention(query, key, value)
        hidden = script.blockwise_attention(query, key, value, mask=np.arange(2100) >= 700)
    assert np.abs(output - torch_attention(query, key, value, None)).max() <= tolerance(
        query, key, value
    )
    expected = torch_attention(query, key[700:], value[700:], None)
    assert np.abs(hidden - expected).max() <= tolerance(query, key, value)


@given(
    st.integers(1, 40),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([64, 500, 2**12, 2**18]),
)
@reproducible
def test_a_small_product_is_a_product(rows, inner, width, seed):
    left, right = np.random.default_rng(seed).standard_normal((2, 70 * 200))
    left, right = (
        left[: rows * inner].reshape(rows, inner),
        right[: inner * width].reshape(width, inner).T,
    )
    many = np.repeat(left, 200, axis=0)  # more rows than one product takes
    for some in (many, left):
        output = np.full((len(some), width), np.nan)
        script.small_product(some, right, output)
        np.testing.assert_allclose(output, some @ right, atol=1e-12)


@pytest.mark.parametrize("scale", [30, 300, 3e4])
def test_scores_that_grow_in_a_later_block_do_not_overflow(scale):
    query, key, value = np.random.default_rng(0).standard_normal((3, 700, 16), dtype=np.float32)
    key[400:] *= np.float32(scale)
    output = script.blockwise_attention(query, key, value)
    assert np.abs(output - torch_attention(query, key, value, None)).max() <= tolerance(
        query, key, value
    )


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch):
    def break_down(*_):
        if threading.current_thread() is not threading.main_thread():
            raise ZeroDivisionError

    monkeypatch.setattr(script, "small_product", break_down)
    with pytest.raises(ZeroDivisionError):
        script.blockwise_attention(*np.ones((3, 4, 50, 8)), num_threads=2)


def peak_of_blockwise(tokens: int) -> float:
    arrays = np.ones((3, tokens, 64), np.float32)
    tracemalloc.start()
    script.blockwise_attention(*arrays, num_threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def test_memory_grows_with_n_not_with_its_square():
    small, large = peak_of_blockwise(2048), peak_of_blockwise(8192)
    assert large < 16  # the matrix alone would take 256 MiB
    assert large - small < 3  # the output grows by 1.5 MiB


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the peak memory as Linux tells it"
)
def test_32768_tokens_take_less_than_300_megabytes():
    code = (
        "import numpy, pathlib, re, self_attention;"
        "x = numpy.random.default_rng(0).standard_normal((3, 32768, 64), dtype=numpy.float32);"
        "self_attention.blockwise_attention(*x, causal=True);"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=environment, capture_output=True, text=True
    )
    assert 60_000 < int(done.stdout) < 300_000, done.stderr


# Words and what is printed

ROW = re.compile(r" *(\d+)  (\S+) *  +((?:\d+ \(\d\.\d{3}\) *)+) (\S+)$")


def tables_of(output: str) -> list[list[tuple[int, str, list[tuple[int, float]], str]]]:
    """Rows of each table in the output: index, word, (index, weight) pairs, second-highest word."""
    tables = []
    for line in output.splitlines():
        if line.startswith("Head "):
            tables.append([])
        elif match := ROW.match(line):
            pairs = [(int(i), float(w)) for i, w in re.findall(r"(\d+) \((\d\.\d{3})\)", match[3])]
            tables[-1].append((int(match[1]), match[2], pairs, match[4]))
    return tables


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat sat.", ["The", "cat", "sat", "."]),
        (
            'He said: "don\'t go (yet)!?"',
            ["He", "said", ":", '"', "don't", "go", "(", "yet", ")", "!", "?", '"'],
        ),
        ("  a\tb\nc\u00a0d\u200be  ", ["a", "b", "c", "d", "e"]),
        (
            "3.14 state-of-the-art C++ a@b.org $5 50%",
            ["3.14", "state-of-the-art", "C++", "a@b.org", "$5", "50%"],
        ),
        ("...", [".", ".", "."]),
        ("我爱你，世界。", ["我", "爱", "你", "，", "世", "界", "。"]),
        ("日本語のテスト", list("日本語のテスト")),
        ("한국어 문장", ["한국어", "문장"]),
        ("مرحبا، كيف حالك؟", ["مرحبا", "،", "كيف", "حالك", "؟"]),
        ("हिन्दी में वाक्य।", ["हिन्दी", "में", "वाक्य", "।"]),
        ("🇩🇪 ❤️ ok🙂", ["🇩🇪", "❤️", "ok🙂"]),
        ("cafe\u0301 caf\u00e9", ["café", "café"]),
        ("\u202eabc\u202c \x1b[31mred \ud800x", ["abc", "[", "31mred", "x"]),
        ("„So“, sagt er … «oui»?", ["„", "So", "“", ",", "sagt", "er", "…", "«", "oui", "»", "?"]),
    ],
)
def test_words(text, words):
    assert script.split_words(text) == [unicodedata.normalize("NFC", word) for word in words]


@given(st.text(max_size=30))
@settings(deadline=None, derandomize=True)
def test_splitting_loses_nothing_but_what_is_invisible(text):
    words = script.split_words(text)
    visible = [
        char for char in unicodedata.normalize("NFC", text) if char.isprintable() and char != " "
    ]
    assert "".join(words) == "".join(visible)
    assert all(words)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=3), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_any_text_is_shown_or_refused_in_one_line(texts, causal):
    arguments = [
        "--text",
        *(f" {text}" for text in texts),
        *["--causal"] * causal,
    ]  # the space: text is no flag
    output = io.StringIO()
    with redirect_stdout(output):
        try:
            script.main(arguments)
        except script.InputError as error:
            assert re.match("--text: sentence [123] has no words", str(error))
            assert output.getvalue() == ""
        else:
            assert output.getvalue().count("\nSentence: ") == len(texts)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "The cat sat on the mat because the mat was warm.",
        "one",
        "two words",
        "a a a a",
        "你好 مرحبا hello 🙂",
    ],
)
def test_printed_weights_are_those_of_torch(text, causal, capsys):
    script.main(
        ["--text", text, "--embedding_dim", "6", "--num_heads", "2", *["--causal"] * causal]
    )
    output = capsys.readouterr().out
    assert f"Sentence: {text}\n" in output
    words = script.split_words(text)
    x = torch.from_numpy(script.build_embeddings(words, 6))
    w_query, w_key, _ = torch.from_numpy(
        np.random.default_rng(42).standard_normal((3, 6, 6)) / 6**0.5
    )
    tables = tables_of(output)
    assert len(tables) == 2
    for head, table in enumerate(tables):
        part = slice(3 * head, 3 * head + 3)
        scores = (x @ w_query)[:, part] @ (x @ w_key)[:, part].T / 3**0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        assert [row[:2] for row in table] == list(enumerate(words))
        for (index, _, pairs, second), row in zip(table, scores.softmax(-1), strict=True):
            seen = index + 1 if causal else len(words)
            assert len(pairs) == min(3, seen)
            order = sorted(range(seen), key=lambda key: (-round(row[key].item(), 6), key))
            assert [key for key, _ in pairs] == order[:3]
            np.testing.assert_allclose(
                [weight for _, weight in pairs], row[order[:3]], atol=0.00051
            )
            assert second == (words[order[1]] if seen > 1 else "-")


def width_of(text: str) -> int:
    """Terminal columns of the test's own words."""
    return sum({"你": 2, "好": 2, "🙂": 2, "\u0301": 0}.get(char, 1) for char in text)


def test_columns_are_aligned_in_any_script(capsys):
    script.main(["--text", "你好 مرحبا hello 🙂 x\u0301y antidisestablishmentarianism " + "a " * 8])
    lines = [line for line in capsys.readouterr().out.splitlines() if "(0." in line]
    assert len(lines) == 15
    starts = [
        [width_of(line[: match.start()]) for match in re.finditer(r"\(0", line)] for line in lines
    ]
    assert all(row == starts[0] for row in starts) and len(starts[0]) == 3
    assert len({width_of(line[: line.rindex(" ")]) for line in lines}) == 1


def test_several_sentences_share_the_vectors_of_their_words(capsys):
    script.main(["--text", "the cat", "a dog saw the cat", "the cat"])
    output = capsys.readouterr().out
    tables = tables_of(output)
    assert [len(table) for table in tables] == [2, 5, 2] and tables[0] == tables[2]
    assert output.count("Sentence: ") == 3


def test_same_seed_same_output_and_smoke_is_the_default(capsys):
    outputs = []
    for arguments in ([], ["--smoke"], ["--seed", "42"], ["--seed", "1"], ["--seed", "-1"]):
        script.main(arguments)
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(set(outputs)) == 3
    assert (
        f"Sentence: {script.SAMPLE_TEXT}\n" in outputs[0] and "--plot attention.html" in outputs[0]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", ""], "sentence 1 has no words"),
        (["--text", "fine", " \u200b\n"], "sentence 2 has no words"),
        (["--text"], "expected at least one argument"),
        (["--embedding_dim", "0"], "--embedding_dim 0"),
        (["--embedding_dim", "-4"], "--embedding_dim -4"),
        (["--embedding_dim", "four"], "invalid int value: 'four'"),
        (["--embedding_dim", "4097"], "4097 is no multiple up to 4096 of --num_heads 1"),
        (["--embedding_dim", "9" * 30, "--num_heads", "9"], "up to 4096 of --num_heads 9"),
        (["--text", "a " * 30_000], "nobody can read 900,000,000 weights: give shorter sentences"),
        (["--text", "a " * 3600, "b " * 3600], "nobody can read 25,920,000 weights"),
        (["--text", "a " * 3600, "--num_heads", "2"], "nobody can read 25,920,000 weights"),
        (["--num_heads", "0"], "--num_heads 0"),
        (["--num_heads", "3"], "--embedding_dim 4 is no multiple up to 4096 of --num_heads 3"),
        (["--num_heads", "8"], "--num_heads 8"),
        (["--seed", "x"], "invalid int value: 'x'"),
        (["--plot", "picture.xyz"], "--plot picture.xyz"),
        (["--plot", ""], "does not end in .png"),
        (["--plot", "folder"], "--plot folder"),
        (["--embed", "8"], "unrecognized arguments: --embed 8"),
        (["--layer", "2"], "--layer 2: there is one layer without --model_name_or_path"),
        (["--layer", "0"], "--layer 0: there is one layer"),
        (["--layer", "last"], "invalid int value: 'last'"),
        (["stray"], "unrecognized arguments: stray"),
        (["--text", "word " * 201, "--plot", "x.png"], "nobody can read 1 x 1 panels of 201 words"),
        (
            ["--text", "word " * 26, "--num_heads", "8", "--embedding_dim", "8", "--plot", "x.png"],
            "1 x 8 panels",
        ),
    ],
)
def test_bad_usage_is_an_input_error(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(script.InputError) as error:
        script.main(arguments)
    assert words in str(error.value) and capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_bad_usage_ends_in_one_line(run_as_main, capsys):
    assert run_as_main("self_attention", "--num_heads", "3") == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith(
        "error: --embedding_dim 4 is no multiple up to 4096 of --num_heads"
    )


# Pictures


@pytest.fixture
def drawn(monkeypatch):
    """Figures that a run saves."""
    from matplotlib.figure import Figure

    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))[1]
    )
    return figures


def test_picture_has_a_labelled_panel_per_sentence_and_head(tmp_path, drawn, capsys):
    path = tmp_path / "new" / "heads.png"
    script.main(
        ["--text", "$x_1$ equals $y$", "so it does", "--num_heads", "2", "--plot", str(path)]
    )
    assert path.read_bytes().startswith(b"\x89PNG") and list(path.parent.iterdir()) == [path]
    assert f"Files:\n  {path}\n" in capsys.readouterr().out
    panels = [axes for axes in drawn[0].axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["head 1", "head 2"] * 2
    assert [label.get_text() for label in panels[0].get_xticklabels()] == [
        "$x_1$ 0",
        "equals 1",
        "$y$ 2",
    ]
    assert [label.get_text() for label in panels[2].get_yticklabels()] == ["so 0", "it 1", "does 2"]
    assert not panels[0].get_xticklabels()[0].get_parse_math()
    weights = panels[1].images[0].get_array()
    assert weights.shape == (3, 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in panels)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".pdf", ".svg"])
def test_picture_formats(suffix, tmp_path):
    script.main(["--plot", str(tmp_path / f"a{suffix}")])
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    assert (tmp_path / f"a{suffix}").read_bytes().startswith(starts[suffix.lower()])


def test_picture_of_a_long_sentence(tmp_path, drawn):
    script.main(["--text", "word " * 60, "--plot", str(tmp_path / "a.png")])
    width, height = drawn[0].get_size_inches()
    assert 10 < width < 40 and 10 < height < 40


def test_picture_of_characters_without_a_font_is_drawn_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["DejaVu Sans"])
    with pytest.warns(UserWarning, match="Glyph 29483 .* missing from font"):
        script.main(["--text", "a 猫 مرحبا", "--plot", str(tmp_path / "a.png")])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(self, file, **_):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(
        script.InputError, match=f"cannot write {tmp_path}: .*No space left on device"
    ):
        script.main(["--plot", str(path)])
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_picture_in_the_place_of_a_folder_or_below_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(script.InputError, match=f"cannot write {path.parent}: .*{path.parent}"):
            script.main(["--plot", str(path)])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.png"]


def test_panels_too_small_to_read_are_an_input_error_of_the_function(tmp_path):
    with pytest.raises(script.InputError, match="1 x 1 panels of 201 words"):
        script.draw_weights([(["word"] * 201, np.ones((1, 1, 201, 201)))], tmp_path / "a.png")
    with pytest.raises(script.InputError, match="51 x 1 panels of 4 words"):
        script.draw_weights([(["word"] * 4, np.ones((1, 1, 4, 4)))] * 51, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_only_the_picture_is_missing(monkeypatch, capsys, tmp_path, run_as_main):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.chdir(tmp_path)
    assert run_as_main("self_attention", "--plot", "a.png") == 2
    output = capsys.readouterr()
    assert tables_of(output.out) and re.fullmatch("error: .*matplotlib.*\n", output.err)
    assert run_as_main("self_attention", "--plot", "a.html") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


@pytest.mark.parametrize("texts", [["one"], ["one two", "a b"], ["word " * 60]])
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_picture_says_that_the_pattern_means_nothing(texts, suffix, tmp_path, drawn):
    path = tmp_path / f"a{suffix}"
    script.main(["--text", *texts, "--plot", str(path)])
    (figure,) = drawn
    figure.set_dpi(150)
    figure.draw_without_rendering()
    (sentence,) = [text for text in figure.texts if text.get_text() == script.RANDOM]
    assert sentence.get_size() >= 7 and sentence.get_visible()
    box, whole = sentence.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
    for axes in figure.axes:
        assert not box.overlaps(axes.get_tightbbox())
    if suffix == ".svg":  # which has letters as outlines, and a comment that tells them
        lines = re.findall("<!-- (.*?) -->", path.read_text(encoding="utf-8"))
        assert script.RANDOM in " ".join(lines)


# The page, as far as no browser is needed: test_attention_page.py uses it in one


class Tags(HTMLParser):
    """Tags with their attributes, and the text in <script>."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.code = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, tuple(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.code += data


def page_of(path: Path, *arguments: str) -> Tags:
    script.main(["--plot", str(path), *arguments])
    return Tags(path.read_text(encoding="utf-8"))


def sentences_on(page: Tags) -> list[tuple[list[str], np.ndarray]]:
    """Of each sentence its words and its weights (layers, heads, words, words)."""
    sizes = re.search(r"^const \[layers, heads, first\] = (.*)$", page.code, re.MULTILINE)[1]
    layers, heads, _ = json.loads(sizes)
    data = json.loads(re.search("^const sentences = (.*)$", page.code, re.MULTILINE)[1])
    sentences = []
    for words, text in data:
        numbers = np.frombuffer(base64.b64decode(text, validate=True), "<u2") / 65535
        sentences.append((words, numbers.reshape(layers, heads, len(words), len(words))))
    return sentences


@pytest.mark.parametrize("causal", [False, True])
def test_page_holds_the_words_and_the_weights_of_torch(tmp_path, causal):
    texts = ["The cat sat on the mat.", "مرحبا بالعالم", "SENTENCES"]
    flags = ["--embedding_dim", "6", "--num_heads", "2", *["--causal"] * causal]
    path = tmp_path / "new" / "page.HTML"
    sentences = sentences_on(page_of(path, "--text", *texts, *flags))
    assert [words for words, _ in sentences] == [*map(script.split_words, texts)]
    w_query, w_key, _ = np.random.default_rng(42).standard_normal((3, 6, 6)) / 6**0.5
    for words, layers in sentences:
        x = script.build_embeddings(words, 6)
        (heads,) = layers
        for head, weights in enumerate(heads):
            part = slice(3 * head, 3 * head + 3)
            visible = np.tri(len(x), dtype=bool) if causal else None
            expected = torch_attention(
                x @ w_query[:, part], x @ w_key[:, part], np.eye(len(x)), visible
            )
            np.testing.assert_allclose(weights, expected, rtol=0, atol=0.51 / 65535)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("word", ["<script>", "</script><img/src=x>", "<!--<script>", "&lt;", "\\"])
def test_words_on_the_page_stay_text(tmp_path, word):
    page = page_of(tmp_path / "a.html", "--text", f"a {word} b")
    assert page.tags == page_of(tmp_path / "b.html", "--text", "a word b").tags
    assert sentences_on(page)[0][0] == ["a", *script.split_words(word), "b"]
    assert re.search("<(?!=)", page.code.partition("const sentences = ")[2]) is None


def test_page_needs_nothing_else_and_is_small(tmp_path):
    path = tmp_path / "a.html"
    page = page_of(path, "--text", "word " * 30, "--num_heads", "4")
    attributes = [name for _, attributes in page.tags for name, _ in attributes]
    assert not {"src", "href", "action", "data"} & set(attributes)
    assert "import" not in page.code and "http" not in page.code
    assert path.stat().st_size < 15_000


def test_a_page_of_twelve_layers_and_heads_of_60_words_stays_below_2_megabytes(tmp_path):
    scores = np.random.default_rng(0).standard_normal((12, 12, 62, 62))
    words = ["[CLS]", *["word"] * 60, "[SEP]"]
    script.write_page([(words, script.softmax(scores))], tmp_path / "a.html")
    assert (tmp_path / "a.html").stat().st_size < 2_000_000


RANDOM = "Vectors and matrices are random: the pattern means nothing until a model learns them."
assert RANDOM == script.RANDOM


@pytest.mark.parametrize("flags", [[], ["--steps", "--causal"], ["--text", "Wer liest das?", "a"]])
def test_the_screen_says_once_that_the_pattern_means_nothing(flags, capsys):
    script.main(flags)
    assert capsys.readouterr().out.count(f"\n\n{RANDOM}\n\nNext:\n") == 1
    assert README.index(RANDOM.replace("random", "random here")) < README.index("## Run it")


def test_the_page_says_that_the_pattern_means_nothing(tmp_path):
    script.main(["--text", "Wer liest das?", "--plot", str(tmp_path / "a.html")])
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.partition("<script>")[0].count(f"<p>{RANDOM}\n") == 1


# The steps

MATRIX = re.compile(r"\n\n(\S[^\n]*) \((\d+), (\d+)\)\n")


def steps_of(output: str) -> list[dict]:
    """Each printed matrix: title, shape, numbers, words at its rows and above its columns."""
    matrices = []
    _, *parts = MATRIX.split(output.partition("\nFiles:")[0].partition("\nNext:")[0])
    for title, rows, width, text in zip(*(parts[i::4] for i in range(4)), strict=True):
        lines = text.split("\n\n")[0].splitlines()
        above = lines.pop(0).split() if len(lines) > int(rows) else []
        cells = [line.split() for line in lines]
        numbers = np.array([row[-int(width) :] for row in cells], float)
        assert numbers.shape == (int(rows), int(width)), title
        labels = [row[: -int(width)] for row in cells]
        matrices.append({"title": title, "numbers": numbers, "rows": labels, "above": above})
    return matrices


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_printed_steps_are_those_of_torch(heads, causal, capsys):
    words = ["Time", "flies", "你", "internationalization"]
    flags = ["--embedding_dim", "6", "--num_heads", str(heads), *["--causal"] * causal]
    script.main(["--steps", "--text", " ".join(words), *flags])
    first, *steps = steps_of(capsys.readouterr().out)
    x = torch.from_numpy(script.build_embeddings(words, 6))
    np.testing.assert_allclose(first["numbers"], x, atol=0.00051)
    assert first["rows"] == [[word] for word in words] and first["title"].startswith("X")
    projections = np.random.default_rng(42).standard_normal((3, 6, 6)) / 6**0.5
    assert len(steps) == heads * 9
    for head in range(heads):
        part = slice(head * 6 // heads, (head + 1) * 6 // heads)
        matrices = [torch.from_numpy(w[:, part]) for w in projections]
        query, key, value = (x @ matrix for matrix in matrices)
        scores = query @ key.T / (6 // heads) ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        weights = scores.softmax(-1)
        expected = [matrices[0], query, matrices[1], key, matrices[2], value]
        expected += [scores, weights, weights @ value]
        names = [
            "W_Q",
            "Q =",
            "W_K",
            "K =",
            "W_V",
            "V =",
            f"sqrt({6 // heads})",
            "weights",
            "output",
        ]
        for step, numbers, name in zip(
            steps[9 * head : 9 * head + 9], expected, names, strict=True
        ):
            assert name in step["title"]
            np.testing.assert_allclose(step["numbers"], numbers, atol=0.00051)
            assert step["rows"] == [[]] * 6 if "W_" in name else [[word] for word in words]
            assert step["above"] == (words if name in ("weights", names[6]) else [])


def test_columns_of_steps_stand_below_their_words(capsys):
    script.main(["--steps", "--text", "Time 你 internationalization flies"])
    lines = capsys.readouterr().out.partition("weights (4, 4)\n")[2].splitlines()[:5]
    ends = [
        [width_of(line[: match.end()]) for match in re.finditer(pattern, line)]
        for line, pattern in zip(lines, [r"\S+", *[r"\d\.\d{3}"] * 4], strict=True)
    ]
    assert all(row == ends[0] for row in ends) and len(ends[0]) == 4


def test_steps_come_for_every_sentence_and_have_no_negative_zero(capsys):
    script.main(["--steps", "--text", "the cat", "a dog saw " * 8, "--embedding_dim", "8"])
    shapes = [step["numbers"].shape for step in steps_of(capsys.readouterr().out)]
    assert len(shapes) == 20 and shapes[0] == (2, 8) and shapes[10] == (24, 8)
    script.print_matrix("M", np.array([[-0.0001, -0.001]]), ["a"])
    assert capsys.readouterr().out == "\nM (1, 2)\na   0.000  -0.001\n"


@pytest.mark.parametrize(("rows", "width"), [(16, 16), (17, 16), (3, 17), (384, 32)])
def test_of_large_matrices_the_first_16_rows_and_columns_are_printed(rows, width, capsys):
    matrix = np.arange(rows * width).reshape(rows, width) / 1000
    script.print_matrix("M", matrix, [""] * rows)
    _, title, *lines = capsys.readouterr().out.splitlines()
    assert title == f"M ({rows}, {width})"
    if rows > 16:
        assert lines.pop() == "  …"
    cells = [line.split() for line in lines]
    if width > 16:
        assert {row.pop() for row in cells} == {"…"}
    np.testing.assert_allclose(np.array(cells, float), matrix[:16, :16])
    # Words are all shown.
    script.print_matrix("M", matrix, ["a"] * rows, *["b"] * width)
    assert "…" not in capsys.readouterr().out


# No traces


def state() -> dict:
    """What a caller's process looks like, as far as numerical and drawing code tends to change it."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "NumPy's errors": (np.geterr(), np.geterrcall(), np.get_printoptions()),
        "random numbers": (random.getstate(), repr(np.random.get_state())),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "process": (umask, os.getcwd(), sys.stdout, sys.stderr, threading.enumerate()),
        "logging": (logging.root.level, logging.root.handlers, logging.root.manager.disable),
        "matplotlib": (dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)),
    }


def test_a_callers_process_is_as_before(tmp_path):
    matplotlib.figure.Figure()  # its own first use may change something
    before = state()
    words = ["Time", "flies", "you"]
    x, projections = script.build_embeddings(words), script.random_projections(4)
    copies = x.copy(), projections.copy()
    output, weights = script.self_attention(x, *projections, num_heads=2, causal=True)
    script.blockwise_attention(x, x, x, mask=np.zeros((3, 3), bool))
    script.blockwise_attention(x * 1e9, x * 1e9, x, causal=True, num_threads=3)
    script.print_weights("Time flies you", words, weights)
    script.print_steps(words, x, projections, num_heads=2, causal=True)
    script.draw_weights([(words, weights[None])], tmp_path / "a.svg")
    script.write_page([(words, weights[None])], tmp_path / "a.html")
    script.main(["--steps", "--plot", str(tmp_path / "a.png"), "--num_heads", "2"])
    with pytest.raises(script.InputError):
        script.main(["--num_heads", "3"])
    assert state() == before
    assert (x == copies[0]).all() and (projections == copies[1]).all()


# The script as a program


def test_smoke_run_alone_needs_numpy_only_and_writes_nothing(run_alone, tmp_path):
    (tmp_path / "blocked").mkdir()
    for name in ("matplotlib", "safetensors", "tokenizers", "torch"):
        (tmp_path / "blocked" / f"{name}.py").write_text("raise SystemExit('imported')")
    done = run_alone("self_attention", "--smoke", PYTHONPATH=str(tmp_path / "blocked"))
    assert done.returncode == 0 and done.stderr == ""
    rows = tables_of(done.stdout)[0]
    assert [word for _, word, _, _ in rows] == script.split_words(script.SAMPLE_TEXT)
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["self_attention.py"]


@pytest.mark.parametrize("flags", [[], ["--steps"], ["--text", *["a b c d e f"] * 2000]])
def test_a_reader_who_has_left_is_said_in_one_line(flags):
    command = [sys.executable, "-B", SCRIPTS["self_attention"], *flags]
    buffered = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=buffered, **pipes)
    process.stdout.close()
    assert re.fullmatch("error: .*[Pp]ipe.*\n", process.stderr.read())
    assert process.wait(60) == 2


def test_output_survives_a_terminal_that_knows_ascii_only(run_alone):
    done = run_alone(
        "self_attention", "--text", "你好 cat", PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )
    assert done.returncode == 0, done.stderr
    words = [word for _, word, _, _ in tables_of(done.stdout)[0]]
    assert words == ["?", "?", "cat"]


def test_readme_quotes_the_script():
    table = (
        (FOLDER / "README.md")
        .read_text(encoding="utf-8")
        .partition("| | mathematics |")[2]
        .partition("\n\n")[0]
    )
    quoted = re.findall(r"\| `([^`]+)` \|", table)
    assert len(quoted) == 6
    assert all(line in SCRIPTS["self_attention"].read_text(encoding="utf-8") for line in quoted)


def test_readme_shows_what_the_script_prints(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["self_attention/self_attention.py"])
    script.main(["--smoke"])
    assert f"```text\n{capsys.readouterr().out.strip()}\n```" in (FOLDER / "README.md").read_text(
        encoding="utf-8"
    )


README = (FOLDER / "README.md").read_text(encoding="utf-8")


def python_block(after: str) -> str:
    """The README's first Python block after some text."""
    return re.search(r"```python\n(.*?)```", README.partition(after)[2], re.DOTALL)[1]


def run_python(code: str, folder: Path) -> str:
    """What the code prints, run beside nothing but the script's folder on the path."""
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


def test_readme_in_your_own_code(tmp_path):
    code = "from self_attention import attention\n" + python_block("## In your own code")
    code += """
assert output.shape == (5, 4) and weights.shape == (2, 5, 5) and (weights.sum(-1) > 0.999).all()
assert long_output.shape == (8, 4000, 64)
assert abs(long_output - attention(query, key, value, causal=True)[0]).max() < 1e-6
"""
    run_python(code, tmp_path)


def test_readme_equals_torch_multi_head_attention(tmp_path):
    code = python_block("## In your own code") + python_block("`torch.nn.MultiheadAttention`")
    code += """
assert weights.shape == expected_weights.shape and output.shape == expected.shape
assert abs(output).max() > 0.1 and layer.num_heads == 2
"""
    differences = run_python(code, tmp_path).split()[-2:]
    assert all(float(difference) < 1e-14 for difference in differences)


def test_readme_shows_the_steps_and_follows_a_row_by_hand(tmp_path, capsys):
    section = README.partition("## Follow a row by hand")[2].partition("\n## ")[0]
    arguments = re.search(r"self_attention\.py (.*)", section)[1]
    script.main(shlex.split(arguments))
    printed = capsys.readouterr().out
    shown = re.search(r"```text\n(X.*?)```", section, re.DOTALL)[1]
    assert shown.strip() in printed
    code = python_block("## Follow a row by hand")
    literals = re.findall(r"-?\d+\.\d{3}", code)
    assert len(literals) == 18 and all(literal in shown for literal in literals)
    by_hand = run_python(code, tmp_path)
    _, _, query, _, _, _, _, scores, weights, output = steps_of(printed)
    steps = query, scores, weights, output
    for line, step in zip(by_hand.splitlines(), steps, strict=True):
        row = [float(number) for number in line.split()[1:]]
        np.testing.assert_allclose(row, step["numbers"][0], atol=0.0021)
    assert re.search(r"```text\n(q .*?)```", section, re.DOTALL)[1] == by_hand


def test_readme_makes_many_attentions_of_one_function_each_equal_to_torch():
    section = README.partition("## Many attentions from one function")[2].partition("\n## ")[0]
    names = {"attention", "split_heads"}
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code) == 7 and all(len(block.splitlines()) <= 6 for block in code)
    found = {}
    for block in code:
        exec(block, found)
    assert all(found[name] is getattr(sys.modules["self_attention"], name) for name in names)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    query, key, value = (torch.from_numpy(found[name])[None] for name in ("query", "key", "value"))
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12)

    few = [torch.from_numpy(found[name])[None] for name in ("few_keys", "few_values")]
    close(found["grouped"], sdpa(query, *few, enable_gqa=True)[0])

    causal = sdpa(query, key, value, is_causal=True)[0]
    close(np.concatenate(found["rows"], axis=1), causal)

    band = torch.ones(10, 10).tril().triu(-3).bool()
    assert band.sum(1).tolist() == [1, 2, 3] + [4] * 7
    close(found["windowed"], sdpa(query, key, value, attn_mask=band)[0])

    # Pairs of numbers as complex ones, turned by a product.
    frequency = 10_000.0 ** -(torch.arange(8, dtype=torch.float64) / 8)
    angles = torch.outer(torch.arange(10, dtype=torch.float64), frequency)
    turn = torch.polar(torch.ones_like(angles), angles)
    turned = []
    for x in (query, key):
        complex_x = torch.complex(x[..., :8], x[..., 8:]) * turn
        turned.append(torch.cat([complex_x.real, complex_x.imag], -1))
    close(found["rotary"], sdpa(*turned, value)[0])

    layer = torch.nn.MultiheadAttention(32, 4, bias=False, batch_first=True, dtype=torch.float64)
    matrices = [found[name].T for name in ("w_query", "w_key", "w_value")]
    layer.in_proj_weight.data = torch.from_numpy(np.concatenate(matrices))
    layer.out_proj.weight.data = torch.eye(32, dtype=torch.float64)
    source = torch.from_numpy(found["source"])
    crossed, _ = layer(torch.from_numpy(found["target"]), source, source)
    close(found["crossed"], crossed.detach())

    leaves = [x[0].clone().requires_grad_() for x in (query, key, value)]
    output = sdpa(*leaves, is_causal=True)
    gradients = torch.autograd.grad(output, leaves, torch.from_numpy(found["grad_output"]))
    for name, gradient in zip(("query", "key", "value"), gradients, strict=True):
        close(found[f"grad_{name}"], gradient)
        assert abs(gradient).max() > 0.1
