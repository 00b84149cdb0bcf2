"""seq2seq_lstm.py: what a user sees; model, loss and search against independent computations."""

import ast
import functools
import itertools
import json
import logging
import os
import re
import shlex
import shutil
import sys
import warnings

import keras
import numpy as np
import pytest
import sacrebleu
import tensorflow as tf
from conftest import SCRIPTS, load_script
from hypothesis import given, settings
from hypothesis import strategies as st

lstm = load_script("seq2seq_lstm")
SOURCES, TARGETS = map(list, zip(*lstm.SAMPLE_PAIRS, strict=True))
QUICK = [
    "--smoke",
    "--hidden_size",
    "32",
    "--embedding_dim",
    "16",
    "--num_train_epochs",
    "2",
    "--batch_size",
    "24",
]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


def weights(path):
    """The arrays of a saved folder, in the order of the model's variables."""
    return [variable.numpy() for variable in lstm.load_translator(path).model.weights]


def assert_same(left, right):
    assert len(left) == len(right) > 5
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(autouse=True)
def float32():
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Output folder of a short run with attention."""
    folder = tmp_path_factory.mktemp("quick")
    lstm.main([*QUICK, "--attention", "--output_dir", str(folder)])
    return folder


def random_model(attention, seed=0, sizes=(11, 13), scale=3.0):
    """A model of random weights that are large enough for its outputs to differ."""
    keras.utils.set_random_seed(seed)
    model = lstm.build_model(list(sizes), 6, 8, 0.3, attention)
    for variable in model.trainable_variables:
        variable.assign(
            variable * scale if len(variable.shape) > 1 else np.random.normal(size=variable.shape)
        )
    return model


def numpy_lstm(layer, inputs, state):
    """Hochreiter & Schmidhuber's equations; Keras' gates: input, forget, cell, output."""
    kernel, recurrent, bias = (np.asarray(weight, np.float64) for weight in layer.get_weights())
    (hidden, carry), outputs = state, []
    for x in inputs:
        i, f, g, o = np.split(x @ kernel + hidden @ recurrent + bias, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        carry = f * carry + i * np.tanh(g)
        hidden = o * np.tanh(carry)
        outputs.append(hidden)
    return np.array(outputs), (hidden, carry)


def numpy_logits(model, source, target):
    """Logits (target length, classes) of one unpadded sentence, computed without Keras."""
    encoder, decoder, projection = (
        model.get_layer(name) for name in ("encoder", "decoder", "projection")
    )

    def kinds(part, kind):
        return [layer for layer in part.layers if isinstance(layer, kind)]

    words = kinds(encoder, keras.layers.Embedding)[0].get_weights()[0][source]
    both = kinds(encoder, keras.layers.Bidirectional)
    zeros = np.zeros(4 if both else 8)
    if both:
        forward, ahead = numpy_lstm(both[0].forward_layer, words, (zeros, zeros))
        backward, back = numpy_lstm(both[0].backward_layer, words[::-1], (zeros, zeros))
        memory = np.concatenate([forward, backward[::-1]], axis=1)
        state = tuple(np.concatenate(pair) for pair in zip(ahead, back, strict=True))
    else:
        _, state = numpy_lstm(kinds(encoder, keras.layers.LSTM)[0], words[::-1], (zeros, zeros))
    words = kinds(decoder, keras.layers.Embedding)[0].get_weights()[0][target]
    output, _ = numpy_lstm(kinds(decoder, keras.layers.LSTM)[0], words, state)
    if both:
        general, combine = (layer.get_weights()[0] for layer in kinds(decoder, keras.layers.Dense))
        scores = output @ general @ memory.T / np.sqrt(output.shape[-1])
        alignment = np.exp(scores - scores.max(axis=1, keepdims=True))
        alignment /= alignment.sum(axis=1, keepdims=True)
        output = np.tanh(np.concatenate([alignment @ memory, output], axis=1) @ combine)
    kernel, bias = projection.get_weights()
    return output @ kernel + bias


def log_probabilities(logits):
    logits = np.where(
        np.arange(len(logits)) < 3, -np.inf, logits
    )  # <pad>, <unk> and <sos> are never written
    return logits - np.log(np.sum(np.exp(logits - logits.max()))) - logits.max()


def numpy_search(model, source, num_beams):
    """Beam search over one sentence with Python lists; the best by log probability per token."""
    beams = [([lstm.SOS], 0.0)]
    for _ in range(2 * len(source)):
        candidates = []
        for tokens, score in beams:
            if tokens[-1] == lstm.EOS:
                candidates.append((tokens, score))
            else:
                step = log_probabilities(numpy_logits(model, source, tokens)[-1])
                candidates += [
                    ([*tokens, token], score + step[token]) for token in range(3, len(step))
                ]
        beams = sorted(candidates, key=lambda beam: -beam[1])[:num_beams]
    return max(beams, key=lambda beam: beam[1] / (len(beam[0]) - 1))[0][1:]


def padded(rows):
    return tf.ragged.constant(rows, tf.int32).to_tensor()


ROWS = [[2, 4, 5, 6, 7, 3], [2, 9, 3], [2, 10, 8, 5, 3], [2, 6, 6, 4, 3]]


@pytest.mark.parametrize("attention", [False, True])
def test_logits_equal_numpy_whatever_the_padding(attention):
    model, target = random_model(attention), [[2, 5, 6, 12], [2, 7], [2], [2, 4, 11]]
    logits = model([padded(ROWS), padded(target)]).numpy()
    for row, source in enumerate(ROWS):
        expected = numpy_logits(model, source, target[row])
        np.testing.assert_allclose(logits[row, : len(target[row])], expected, atol=2e-4)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_search_equals_numpy_and_never_writes_unknown(attention, num_beams):
    for seed in range(5 if num_beams > 1 else 2):
        model = random_model(attention, seed)
        kernel, bias = model.get_layer("projection").get_weights()
        bias[[lstm.PAD, lstm.UNK, lstm.SOS]] = 20.0
        bias[lstm.EOS] = 3.0
        model.get_layer("projection").set_weights([kernel, bias])
        found = lstm.compile_search(model, num_beams)(padded(ROWS)).numpy()
        for row, source in zip(found.tolist(), ROWS, strict=True):
            expected = numpy_search(model, source, num_beams)
            assert row[: len(expected)][: 2 * len(source)] == expected
            assert lstm.EOS not in expected or set(row[len(expected) :]) <= {lstm.PAD}


@pytest.mark.parametrize("attention", [False, True])
def test_greedy_equals_the_compiled_search_with_one_beam(attention):
    for seed in range(4):
        model, source = random_model(attention, seed), padded(ROWS).numpy()
        kernel, bias = model.get_layer("projection").get_weights()
        bias[[lstm.PAD, lstm.UNK, lstm.SOS]] = 20.0
        bias[lstm.EOS] = float(seed)
        model.get_layer("projection").set_weights([kernel, bias])
        found = lstm.compile_search(model)(source).numpy()
        np.testing.assert_array_equal(lstm.greedy(model, source), found)
        for row, source in zip(found.tolist(), ROWS, strict=True):
            expected = numpy_search(model, source, 1)
            assert row[: len(expected)] == expected and not set(row[len(expected) :]) & {1, 2}


def test_keras_does_not_warn_of_masks():
    """The decoder gets the encoder's mask as an input; the memory must not carry another one along."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, source = random_model(True), padded(ROWS)
        lstm.greedy(model, source.numpy())
        lstm.compile_search(model)(source)


TARGET_ROWS = [[2, 5, 6, 12, 3], [2, 7, 3], [2, 3], [2, 4, 11, 3]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_its_gradient_equal_numpy_and_tensorflow(smoothing):
    """Of every real token once, whatever the padding; smoothed as TensorFlow smooths."""
    model, expected = random_model(False), []
    for source, row in zip(ROWS, TARGET_ROWS, strict=True):
        for line, label in zip(numpy_logits(model, source, row[:-1]), row[1:], strict=True):
            wanted = np.eye(13)[label] * (1 - smoothing) + smoothing / 13
            rest = np.log(np.sum(np.exp(line))) - line
            expected.append((rest[label], wanted @ rest))
    source, target = padded(ROWS), padded(TARGET_ROWS)
    with tf.GradientTape(persistent=True) as tape:
        losses = lstm.cross_entropy(model, source, target, smoothing)
        ours = tf.reduce_sum(losses[1])
        logits, labels = model([source, target[:, :-1]]), target[:, 1:]
        wanted = tf.one_hot(labels, 13) * (1 - smoothing) + smoothing / 13
        theirs = tf.nn.softmax_cross_entropy_with_logits(wanted, logits)
        theirs = tf.reduce_sum(theirs[labels != lstm.PAD])
    np.testing.assert_allclose(np.transpose(losses), expected, atol=2e-4)
    for left, right in zip(
        tape.gradient(ours, model.trainable_variables),
        tape.gradient(theirs, model.trainable_variables),
        strict=True,
    ):
        np.testing.assert_allclose(
            tf.convert_to_tensor(left), tf.convert_to_tensor(right), atol=1e-4
        )


def test_a_step_reports_the_plain_loss_and_learns():
    keras.utils.set_random_seed(0)
    translator = lstm.new_translator(lstm.SAMPLE_PAIRS, embedding_dim=8, hidden_size=8, dropout=0.0)
    learner = lstm.build_learner(translator, 1e-2, 10)
    ids = [side.to_tensor() for side in lstm.encode_pairs(translator, lstm.SAMPLE_PAIRS, "x")[1]]
    plain, smoothed = (loss.numpy() for loss in lstm.cross_entropy(learner, *ids, 0.1))
    assert not np.allclose(plain, smoothed)
    losses = [lstm.train_step(learner, 0.1, *ids).numpy() for _ in range(9)]
    np.testing.assert_allclose(losses[0], plain, atol=1e-6)
    means = [loss.mean() for loss in losses]
    assert means == sorted(means, reverse=True) and means[-1] < means[0] - 0.1


def test_evaluation_means_the_plain_loss_over_all_tokens():
    """Whatever the batches: not over their means, and not smoothed."""
    keras.utils.set_random_seed(0)
    pairs = lstm.SAMPLE_PAIRS
    translator = lstm.new_translator(pairs, embedding_dim=8, hidden_size=8)
    for variable in translator.model.trainable_variables:
        variable.assign(variable * 4)
    losses = []
    for pair in pairs:
        ids = [side.to_tensor().numpy()[0] for side in lstm.encode_pairs(translator, [pair], "")[1]]
        for line, label in zip(
            numpy_logits(translator.model, ids[0], ids[1][:-1]), ids[1][1:], strict=True
        ):
            losses.append(np.log(np.sum(np.exp(line))) - line[label])
    found = lstm.evaluate(translator, pairs, batch_size=7)
    assert found["test_loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    assert found["test_perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-3)


def test_batches_hold_every_pair_once_in_a_seeded_order_with_little_padding():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 40, 3000)
    source = [
        [int(index) % 7 + 4] * (length + int(rng.integers(3)))
        for index, length in enumerate(lengths)
    ]
    target = [[2, *divmod(index, 60), *[9] * (length - 2)] for index, length in enumerate(lengths)]
    data = [tf.ragged.constant(side, tf.int32) for side in (source, target)]
    batches = [
        (s.numpy(), t.numpy()) for s, t in lstm.make_batches(data, 32, np.random.default_rng(5))
    ]
    rows = [tuple(row[1:3]) for _, batch in batches for row in batch]
    assert sorted(rows) == sorted(tuple(row[1:3]) for row in target) and rows != sorted(rows)
    for s, t in batches:
        for source_row, target_row in zip(s, t, strict=True):
            index = target_row[1] * 60 + target_row[2]
            assert source_row[source_row > 0].tolist() == source[index]
    widths = [t.shape[1] for _, t in batches]
    assert widths != sorted(widths)
    positions, real = sum(t.size for _, t in batches), sum(map(len, target))
    assert positions / real < 1.03
    plain = [t.numpy() for _, t in lstm.make_batches(data, 32, np.random.default_rng(5), window=1)]
    assert sorted(tuple(row[1:3]) for t in plain for row in t) == sorted(rows)
    assert sum(t.size for t in plain) / real > 1.3
    again = [t.numpy() for _, t in lstm.make_batches(data, 32, np.random.default_rng(5))]
    other = [t.numpy() for _, t in lstm.make_batches(data, 32, np.random.default_rng(6))]
    assert all(np.array_equal(a, b) for (_, a), b in zip(batches, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(again, other, strict=True))


ALPHABET = "abcdefghijklmnopqrstuvwxyz \"'.,!?-0123456789äöüß<>éЖ日"
WORDS = st.one_of(st.text(ALPHABET, max_size=20), st.sampled_from(lstm.SPECIAL_TOKENS))
TOKENIZER = lstm.train_tokenizer([*ALPHABET, "abc def-abc's"], 80, 200)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=3).map(" ".join), min_size=1, max_size=5))
def test_text_survives_the_round_trip(texts):
    for text, encoding in zip(texts, lstm.encode(TOKENIZER, texts), strict=True):
        assert encoding.ids[0] == lstm.SOS and encoding.ids[-1] == lstm.EOS
        assert not set(encoding.ids[1:-1]) & {lstm.PAD, lstm.UNK, lstm.SOS, lstm.EOS}
        assert TOKENIZER.decode(encoding.ids) == " ".join(text.lower().split())


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_tokenized(text):
    tokenizer = lstm.train_tokenizer(["a b c"], 20, 10)
    encoding = lstm.encode(tokenizer, [text])[0]
    pieces = [encoding, *encoding.overflowing]
    assert all(
        piece.ids[0] == lstm.SOS and piece.ids[-1] == lstm.EOS and len(piece) <= 10
        for piece in pieces
    )


def test_smoke_alone_then_translate_in_a_new_process(run_alone, tmp_path):
    done = run_alone("seq2seq_lstm", "--smoke")
    assert done.returncode == 0, done.stderr
    alone = tmp_path / "alone"
    output = alone / "outputs" / "seq2seq_lstm"
    expected = {"all_results.json", "model.keras", "vocabulary.json", "training_curve.png"}
    assert {path.name for path in output.iterdir()} == expected
    assert json.loads((output / "all_results.json").read_text())["test_bleu"] == pytest.approx(100)
    assert "fewer than 50 pairs: learnt by heart" in done.stderr
    assert (
        "sacrebleu: nrefs:1|case:lc" in done.stdout
        and "--model_name_or_path outputs/seq2seq_lstm" in done.stdout
    )
    write(alone / "in.txt", "\r\n".join([*SOURCES, "", "Ein Hund 日."]) + "\r\n")
    flags = [
        "--model_name_or_path",
        str(output),
        "--input_file",
        "in.txt",
        "--output_file",
        "out.txt",
    ]
    done = run_alone("seq2seq_lstm", *flags, "--batch_size", "5", "--no-bf16")
    assert done.returncode == 0, done.stderr
    lines = (alone / "out.txt").read_text(encoding="utf-8").split("\n")
    assert lines[: len(TARGETS)] == [target.lower() for target in TARGETS]
    assert (
        lines[len(TARGETS)] == ""
        and len(lines) == len(TARGETS) + 3
        and lines[-2]
        and done.stdout == ""
    )


def test_quick_run_leaves_everything(quick):
    expected = {
        "all_results.json",
        "model.keras",
        "vocabulary.json",
        "training_curve.png",
        "alignment.png",
    }
    assert {path.name for path in quick.iterdir()} == expected
    metrics = json.loads((quick / "all_results.json").read_text())
    assert metrics["test_perplexity"] == pytest.approx(np.exp(metrics["test_loss"]))
    for name in ("training_curve.png", "alignment.png"):
        assert (quick / name).read_bytes().startswith(b"\x89PNG")


def test_saved_file_opens_with_keras_alone_and_holds_no_optimizer(quick):
    translator, opened = lstm.load_translator(quick), keras.saving.load_model(quick / "model.keras")
    batch = [padded(ROWS), padded(ROWS)]
    np.testing.assert_array_equal(translator.model(batch), opened(batch))
    assert getattr(opened, "optimizer", None) is None


def test_translations_do_not_depend_on_the_batch_and_keep_their_places(quick):
    translator = lstm.load_translator(quick)
    texts = [*SOURCES[:9], "", "  ", " ".join(SOURCES) * 3, "Ein  \t Hund"]
    alone = [lstm.translate(translator, [text])[0] for text in texts]
    assert (
        lstm.translate(translator, texts, batch_size=4)
        == alone
        == lstm.translate(translator, texts)
    )
    assert alone[9] == alone[10] == "" and all(alone[:9])
    first = lstm.encode(translator.source_tokenizer, texts)[11]
    assert len(first.overflowing) > 2
    found = lstm.compile_search(translator.model, 1)(tf.constant([first.ids]))[0].numpy().tolist()
    assert alone[11].startswith(translator.target_tokenizer.decode(found))
    for beams in (1, 3):
        translator.search = lstm.compile_search(translator.model, beams)
        found = lstm.translate(translator, texts)
        assert all(found[:9]) and lstm.translate(translator, texts, batch_size=3) == found
        assert beams > 1 or found == alone


def test_pieces_of_a_long_text_stay_in_order(quick):
    """Whatever the batches; a search that gives back what it reads shows it."""
    translator = lstm.load_translator(quick)
    translator.target_tokenizer = translator.source_tokenizer
    translator.search = lambda source: source
    texts = [" ".join(SOURCES).lower() * 3, "ein hund", " ".join(SOURCES[::-1]).lower()]
    assert lstm.encode(translator.source_tokenizer, texts[2:])[0].overflowing
    for found, text in zip(lstm.translate(translator, texts, batch_size=2), texts, strict=True):
        assert found.replace(" ", "") == text.replace(" ", "")


def test_scores_equal_sacrebleu_on_the_written_translations(quick, tmp_path, capsys):
    test_file = write(
        tmp_path / "test.tsv", "".join(f"{s}\t{t}\n" for s, t in lstm.SAMPLE_PAIRS[:10])
    )
    flags = ["--model_name_or_path", str(quick), "--test_file", test_file, "--no-bf16"]
    lstm.main([*flags, "--output_dir", str(tmp_path)])
    lstm.main([*flags, "--do_predict", "--output_file", str(tmp_path / "out.txt")])
    lines = (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    references = [[target.lower() for target in TARGETS[:10]]]
    assert metrics["test_bleu"] == pytest.approx(sacrebleu.corpus_bleu(lines, references).score)
    assert metrics["test_chrf"] == pytest.approx(sacrebleu.corpus_chrf(lines, references).score)
    assert "train_loss" not in metrics and not (tmp_path / "model.keras").exists()
    capsys.readouterr()
    texts = ["--text", SOURCES[0], SOURCES[1], "--do_predict", "--output_dir", str(tmp_path)]
    lstm.main([*flags, *texts])
    assert capsys.readouterr().out.splitlines() == lines[:2]


RIGHT = [target.lower() for target in TARGETS]


def with_errors(seed, share, texts=RIGHT):
    """The texts without this share of their words."""
    rng = np.random.default_rng(seed)
    return [" ".join(w for w in text.split() if rng.random() > share) or "x" for text in texts]


def test_score_and_interval_equal_a_bootstrap_by_hand():
    """Half of what lies between the 2.5th and the 97.5th percentile of samples of the sentences."""
    ours, rng = with_errors(1, 0.3), np.random.default_rng(7)
    found = lstm.score(ours, RIGHT)
    assert set(found) == {"bleu", "bleu_ci", "chrf", "chrf_ci"}
    for name, corpus_score in {
        "bleu": sacrebleu.corpus_bleu,
        "chrf": sacrebleu.corpus_chrf,
    }.items():
        assert found[name] == pytest.approx(corpus_score(ours, [RIGHT]).score)
        samples = []
        for rows in rng.integers(len(ours), size=(1000, len(ours))):
            sides = [ours[row] for row in rows], [[RIGHT[row] for row in rows]]
            samples.append(corpus_score(*sides).score)
        low, high = np.percentile(samples, [2.5, 97.5])
        assert found[f"{name}_ci"] == pytest.approx((high - low) / 2, rel=0.12)
    assert lstm.score(ours, RIGHT) == found  # seeded


def test_few_sentences_have_a_score_and_other_numbers_of_them_none():
    for count in (1, 2, 3):
        found = lstm.score(RIGHT[:count], RIGHT[:count])
        assert found["bleu"] == pytest.approx(100) and found["bleu_ci"] == 0
    assert lstm.score(["", ""], ["a b", "c"])["bleu"] == 0
    with pytest.raises(lstm.InputError, match="2 references for 1 translations"):
        lstm.score(["a"], ["a", "b"])


def test_every_epoch_shows_three_translations(tmp_path, capsys):
    """Of different sources: captions stand in such files with several translations each."""
    chosen = [*lstm.SAMPLE_PAIRS[:1] * 3, *lstm.SAMPLE_PAIRS[4:]]
    file = write(tmp_path / "pairs.tsv", "".join(f"{s}\t{t}\n" for s, t in chosen))
    flags = ["--do_train", "--validation_file", file, "--output_dir", str(tmp_path), "--no-bf16"]
    lstm.main([*QUICK, *flags])
    lines = capsys.readouterr().out.splitlines()
    ends = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    assert len(ends) == 2
    sources = [SOURCES[0], SOURCES[4], SOURCES[5]]
    shown = [[line for line in lines[max(0, end - 3) : end] if " -> " in line] for end in ends]
    assert [[line.split(" -> ")[0].strip() for line in some] for some in shown] == [sources] * 2
    saved = lstm.load_translator(tmp_path)
    best = lstm.best_epoch(saved.history)
    translations = lstm.translate(saved, sources)
    assert shown[best - 1] == [f"  {s} -> {t}" for s, t in zip(sources, translations, strict=True)]


def test_capitals_count_in_no_score(monkeypatch):
    """Translations have none."""
    pairs = [(source, target) for source, target in lstm.SAMPLE_PAIRS if target != target.lower()]
    monkeypatch.setattr(lstm, "translate", lambda *_: [target.lower() for _, target in pairs])
    translator = lstm.new_translator(pairs, embedding_dim=4, hidden_size=4)
    scores = lstm.evaluate(translator, pairs)
    assert scores["test_chrf"] == pytest.approx(100) == scores["test_bleu"]


def test_text_draws_its_own_alignment(tmp_path, monkeypatch, capsys):
    drawn, save = [], lstm.save_figure

    def keep(figure, *args):
        drawn.append(figure)
        save(figure, *args)

    monkeypatch.setattr(lstm, "save_figure", keep)
    keras.utils.set_random_seed(0)
    sizes = {"embedding_dim": 8, "hidden_size": 8}
    translator = lstm.new_translator(lstm.SAMPLE_PAIRS, **sizes, attention=True)
    for variable in translator.model.trainable_variables:
        variable.assign(variable * 4)  # so that the beams find something else
    lstm.save_translator(translator, tmp_path / "model")
    greedy = lstm.translate(translator, SOURCES)
    translator.search = lstm.compile_search(translator.model, 3)
    beams = lstm.translate(translator, SOURCES)
    different = [s for s, a, b in zip(SOURCES, greedy, beams, strict=True) if a != b]
    text = different[-1]  # not the first of all, which is drawn without --text
    out = tmp_path / "out"
    flags = ["--model_name_or_path", str(tmp_path / "model"), "--num_beams", "3", "--no-bf16"]
    lstm.main([*flags, "--output_dir", str(out), "--text", text, "Ein Hund."])
    printed = capsys.readouterr()
    translation = printed.out.splitlines()[0]
    assert len(printed.out.splitlines()) == 2
    assert f"Picture: {out / 'alignment.png'}\n" in printed.err
    assert [path.name for path in out.iterdir()] == ["alignment.png"]
    assert (out / "alignment.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    (source,) = lstm.encode(translator.source_tokenizer, [text])
    (target,) = lstm.encode(translator.target_tokenizer, [translation])
    assert [label.get_text() for label in axes.get_xticklabels()] == source.tokens
    assert [label.get_text() for label in axes.get_yticklabels()] == target.tokens[1:]
    weights = axes.images[0].get_array()
    assert weights.shape == (len(target) - 1, len(source))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-3)


def test_a_long_text_draws_the_translation_of_its_first_piece_alone(tmp_path, monkeypatch):
    """Cut inside a word, with letters that the vocabulary lacks; of each piece four tokens are written."""
    drawn = []
    monkeypatch.setattr(lstm, "save_figure", lambda figure, _: drawn.append(figure))
    keras.utils.set_random_seed(0)
    sizes = {"embedding_dim": 8, "hidden_size": 8, "attention": True, "max_seq_length": 14}
    translator = lstm.new_translator(lstm.SAMPLE_PAIRS, **sizes, vocab_size=60)
    translator.search = lambda source: source[:, 4:8]
    text = " Ein  日 " + " ".join(SOURCES)
    (source,) = lstm.encode(translator.source_tokenizer, [text])
    assert source.overflowing and "<unk>" in source.tokens
    assert not source.overflowing[0].tokens[1].startswith("▁")
    written = translator.target_tokenizer.decode(source.ids[4:8])
    assert written and written != lstm.translate(translator, [text])[0]
    lstm.draw_alignment(translator, text, str(tmp_path))
    (axes,) = drawn[0].axes
    (target,) = lstm.encode(translator.target_tokenizer, [written])
    assert [label.get_text() for label in axes.get_xticklabels()] == source.tokens
    assert [label.get_text() for label in axes.get_yticklabels()] == target.tokens[1:]


def test_a_collapsed_model_gets_a_line_of_warning(tmp_path, capsys):
    words = list(dict.fromkeys(re.findall(r"\w+", " ".join(SOURCES))))[:20]  # a token each
    translator = lstm.new_translator(lstm.SAMPLE_PAIRS, embedding_dim=8, hidden_size=8)
    kernel, bias = translator.model.get_layer("projection").get_weights()
    bias[40] = 50.0
    translator.model.get_layer("projection").set_weights([kernel, bias])  # writes one token always
    lstm.save_translator(translator, tmp_path)
    flags = ["--model_name_or_path", str(tmp_path), "--output_dir", str(tmp_path), "--do_eval"]
    warned = {}
    for sources in (words[:9] * 3, words[:1] * 50, words):
        file = write(tmp_path / "test.tsv", "".join(f"{word}\tright\n" for word in sources))
        lstm.main([*flags, "--test_file", file])
        warnings = re.findall(r"^warning: .*", capsys.readouterr().err, re.MULTILINE)
        warned[len(sources)] = warnings
    expected = ["warning: translations are alike: the model ignores what it reads"]
    assert warned == {27: [], 50: [], 20: expected}


@pytest.mark.parametrize(("translations", "warns"), [(30, False), (4, False), (3, True), (1, True)])
def test_ten_sources_to_one_translation_are_a_collapse(translations, warns, monkeypatch, capsys):
    pairs = [(f"quelle {number}", "ziel") for number in range(30)] * 2
    translator = lstm.new_translator(pairs, embedding_dim=4, hidden_size=4)
    found = [f"t {number % translations}" for number in range(60)]
    monkeypatch.setattr(lstm, "translate", lambda *_: found)
    lstm.evaluate(translator, pairs)
    assert ("ignores what it reads" in capsys.readouterr().err) == warns


def test_interrupted_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    command = [
        *QUICK,
        "--bf16",
        "--num_train_epochs",
        "3",
        "--dropout",
        "0.2",
        "--do_train",
        "--output_dir",
    ]
    evaluate, calls = lstm.evaluate, itertools.count(1)

    def rising(*args, interrupted_at=0):
        epoch = next(
            calls
        )  # the last epoch is the best: its weights need everything that a checkpoint keeps
        if epoch == interrupted_at:
            raise KeyboardInterrupt
        return evaluate(*args) | {"eval_bleu": epoch}

    monkeypatch.setattr(lstm, "evaluate", rising)
    lstm.main([*command, str(tmp_path / "whole")])
    calls = itertools.count(1)
    monkeypatch.setattr(lstm, "evaluate", functools.partial(rising, interrupted_at=3))
    with pytest.raises(KeyboardInterrupt):
        lstm.main([*command, str(tmp_path / "cut")])
    assert not (tmp_path / "cut" / "model.keras").exists()
    (tmp_path / "cut" / "checkpoint-0009").mkdir()
    (tmp_path / "cut" / "checkpoint-0009" / "model.keras").write_bytes(b"half")
    calls = itertools.count(3)
    monkeypatch.setattr(lstm, "evaluate", rising)
    lstm.main([*command, str(tmp_path / "cut"), "--resume_from_checkpoint", "last"])
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    whole, cut = (
        json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("whole", "cut")
    )
    assert whole == cut and whole["epoch"] == 3


def test_best_epoch_is_kept_and_training_stops_after_the_patience(tmp_path, monkeypatch):
    scores, seen = iter([(1.0, 3.0), (5.0, 2.0), (4.0, 2.5), (3.0, 2.1), (9.0, 1.0)]), []

    def scripted(translator, *_):
        seen.append([variable.numpy() for variable in translator.model.weights])
        return dict(zip(("eval_bleu", "eval_loss"), next(scores), strict=True))

    monkeypatch.setattr(lstm, "evaluate", scripted)
    flags = [*QUICK, "--num_train_epochs", "9", "--early_stopping_patience", "2", "--do_train"]
    lstm.main([*flags, "--output_dir", str(tmp_path)])
    assert len(seen) == 4
    assert_same(weights(tmp_path), seen[1])
    assert json.loads((tmp_path / "all_results.json").read_text())["epoch"] == 2


def test_translator_gets_the_average_of_the_learned_weights(tmp_path, monkeypatch):
    learned, calls = [], itertools.count()

    def save(translator, folder, model=None, save=lstm.save_translator):
        if "checkpoint" in str(folder):
            learned.append([variable.numpy() for variable in model.trainable_variables])
        save(translator, folder, model)

    monkeypatch.setattr(lstm, "save_translator", save)
    monkeypatch.setattr(lstm, "evaluate", lambda *_: {"eval_bleu": next(calls), "eval_loss": 1.0})
    path = write(
        tmp_path / "pairs.tsv",
        "".join(f"{source}\t{target}\n" for source, target in lstm.SAMPLE_PAIRS),
    )
    files = [
        "--train_file",
        path,
        "--validation_file",
        path,
        "--do_train",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    files += ["--batch_size", "1000"]
    # Two epochs of one batch: the average reaches back two epochs.
    lstm.main([*QUICK, *files, "--batch_size", str(len(lstm.SAMPLE_PAIRS) * 20)])
    averaged = lstm.load_translator(tmp_path / "out").model.trainable_variables
    for average, first, second in zip(averaged, *learned, strict=True):
        assert not np.array_equal(first, second)
        np.testing.assert_allclose(average, (first + second) / 2, atol=1e-6)


def test_validation_is_held_out_of_the_training_file(tmp_path):
    rows = [(f"quelle {n}", f"source {n}") for n in range(55)]
    path = write(tmp_path / "train.tsv", "".join(f"{s}\t{t}\tCC-BY\n" for s, t in rows))
    train, validation, test, texts = lstm.load_splits(
        lstm.parse_arguments(["--train_file", path, "--text", "ein Text"])
    )
    assert texts == ["ein Text"] and sorted(train + validation) == sorted(rows)
    assert len(validation) == 3 and test == validation
    assert lstm.load_splits(lstm.parse_arguments([]))[1] == lstm.SAMPLE_PAIRS


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("\ufeffeins\tone\r\nzwei\ttwo\r\n", [("eins", "one"), ("zwei", "two")]),
        ('"eins\tone "1"\n', [('"eins', 'one "1"')]),
        ("eins\tone\tCC-BY\nzwei\ttwo\t", [("eins", "one"), ("zwei", "two")]),
        ("a\u2028b\tc\x85d\n", [("a\u2028b", "c\x85d")]),
    ],
)
def test_odd_but_valid_files(text, rows, tmp_path):
    assert lstm.read_pairs(write(tmp_path / "pairs.tsv", text)) == rows


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lf_crlf_and_cr_end_a_line_and_nothing_else_does(end, tmp_path):
    lines = ["eins", "", "zwei\u2028drei", "vier\x85fünf", "sechs\x0bsieben\x0cacht"]
    for last in ("", end):
        file = write(tmp_path / "text", end.join(lines) + last)
        assert list(lstm.read_lines(file)) == lines
    file = write(tmp_path / "text", end.join(["a\tb", "c\x0cd\te\u2028f", ""]))
    assert lstm.read_pairs(file) == [("a", "b"), ("c\x0cd", "e\u2028f")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "latin-1"])
def test_what_is_no_utf8_text_ends_in_one_line(encoding, tmp_path):
    file = write(tmp_path / "text", "schön\tbeautiful\n", encoding)
    with pytest.raises(lstm.InputError, match="line 1 is not utf-8.* text: give --encoding"):
        lstm.read_pairs(file)


def test_a_tokenizer_never_learns_a_line_end():
    """A translation is one line: what the model might write must not hold the end of one."""
    spaces = "\n\r\x0b\x0c\x1c\x85\u2028\u2029"
    vocabulary = lstm.train_tokenizer([f"a{space}b" for space in spaces], 100, 10).get_vocab()
    assert not set("".join(vocabulary)) & set(spaces)


def test_no_source_is_in_training_and_validation(tmp_path):
    """Captions stand in such files with several translations each, and not always side by side."""
    rows = [
        (f"Quelle {n % 60}" if n < 90 else f"quelle  {n % 60}", f"ziel {n}") for n in range(180)
    ]
    path = write(tmp_path / "train.tsv", "".join(f"{s}\t{t}\n" for s, t in rows))
    for flags in ([], ["--smoke"]):
        args = lstm.parse_arguments(["--train_file", path, *flags])
        train, validation, *_ = lstm.load_splits(args)
        sides = [{" ".join(s.lower().split()) for s, _ in side} for side in (train, validation)]
        assert not sides[0] & sides[1] and len(sides[1]) == 3
        assert sorted(train + validation) == sorted(rows) and len(validation) == 9
        sources = [source for source, _ in validation]
        assert lstm.load_splits(args) == (train, validation, validation, sources)
    unlike = [(f"quelle {n}", "ziel") for n in range(100)]  # every twentieth pair
    assert lstm.hold_out(unlike) == ([p for p in unlike if p not in unlike[::20]], unlike[::20])


def test_few_pairs_are_learnt_by_heart_and_that_is_said(tmp_path, capsys):
    rows = [(f"quelle {n}", f"source {n}") for n in range(49)]
    path = write(tmp_path / "train.tsv", "".join(f"{s}\t{t}\n" for s, t in rows))
    args = lstm.parse_arguments(["--train_file", path])
    train, validation, test, _ = lstm.load_splits(args)
    assert train == rows * 20 and validation == test == rows
    assert "fewer than 50 pairs: learnt by heart, they validate, too" in capsys.readouterr().err


def test_pairs_that_are_scored_without_a_test_file_are_named(tmp_path, capsys):
    """In a training, and for a saved model; without any pairs of the user's they are the script's own."""
    train = write_pairs(tmp_path / "train.tsv", [(f"quelle {n}", f"source {n}") for n in range(60)])
    validation = write_pairs(tmp_path / "validation.tsv", lstm.SAMPLE_PAIRS)
    saved = ["--model_name_or_path", str(tmp_path), "--do_eval"]
    line = "no --test_file: scored are the validation pairs ({})\n"
    for flags, pairs in (
        (["--smoke"], "built-in"),
        (["--train_file", train], train),
        (["--train_file", train, "--validation_file", validation], validation),
        (saved, "built-in"),
        ([*saved, "--validation_file", validation], validation),
    ):
        _, scored, test, _ = lstm.load_splits(lstm.parse_arguments(flags))
        printed = capsys.readouterr()
        assert printed.out == line.format(pairs) and test == scored
        assert ("they validate, too" in printed.err) == (flags == ["--smoke"])
    lstm.load_splits(lstm.parse_arguments([*saved, "--test_file", validation]))
    assert capsys.readouterr().out == ""


def test_a_translation_alone_says_nothing_of_learning_and_scoring(tmp_path, capsys):
    flags = ["--model_name_or_path", str(tmp_path), "--text", "Ein Hund."]
    assert lstm.load_splits(lstm.parse_arguments(flags))[3] == ["Ein Hund."]
    assert capsys.readouterr() == ("", "")


OWN_PAIRS = [
    ("It is raining.", "下雨了。"),
    ("Where is he?", "他在哪里？"),
    ("나는 차를 마십니다.", "ich trinke tee."),
    ("一本书", "ein buch"),
    ("End <eos> here", "ende <eos> hier"),
    ("one <pad> two", "<sos> eins <pad> zwei"),
    ("a<unk>b", "c<unk>d"),
]


@pytest.mark.slow
def test_smoke_learns_own_pairs_as_they_are(tmp_path, capsys):
    """Whatever the letters: it comes out as it went in; and the next command can be pasted."""
    path = write(tmp_path / "pairs.tsv", "".join(f"{s}\t{t}\n" for s, t in OWN_PAIRS))
    flags = ["--smoke", "--train_file", path, "--output_dir", str(tmp_path / "two words")]
    lstm.main(flags)
    out = capsys.readouterr().out
    for source, target in OWN_PAIRS:
        assert f"  {source} -> {target}\n" in out
    results = json.loads((tmp_path / "two words" / "all_results.json").read_text())
    assert results["test_chrf"] == pytest.approx(100)
    _, _, *following = shlex.split(out.rsplit("Next:\n", 1)[1])
    lstm.main(following)
    assert capsys.readouterr().out == "下雨了。\n"


def test_metrics_are_written_before_translations_are_printed(tmp_path, monkeypatch):

    def broken(*texts, **options):
        if options.get("end") == "":
            raise BrokenPipeError

    monkeypatch.setattr(lstm, "print", broken, raising=False)
    flags = ["--num_train_epochs", "1", "--output_dir", str(tmp_path)]
    with pytest.raises(BrokenPipeError):
        lstm.main([*QUICK, *flags, "--text", "Ein Hund."])
    results = json.loads((tmp_path / "all_results.json").read_text())
    assert {"train_loss", "test_bleu"} <= results.keys()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--max_seq_length 0", "--max_seq_length 0: counts are above 0"),
        ("--num_beams 0", "--num_beams 0: counts are above 0"),
        ("--dropout 1", "--dropout 1.0: counts are above 0, rates from 0"),
        ("--learning_rate nan", "--learning_rate nan: counts"),
        ("--encoding klingon", "--encoding: unknown encoding: klingon"),
        ("--input_file missing.txt", "missing.txt"),
    ],
)
def test_flags_are_refused_before_training(flags, message, tmp_path, monkeypatch):
    monkeypatch.setattr(lstm, "fit", None)
    with pytest.raises((lstm.InputError, OSError), match=message):
        lstm.main(["--smoke", "--output_dir", str(tmp_path), *flags.split()])


def test_an_empty_input_has_an_empty_output(quick, tmp_path, capsys):
    flags = ["--model_name_or_path", str(quick), "--input_file", write(tmp_path / "empty", "")]
    lstm.main([*flags, "--output_file", str(tmp_path / "out.txt")])
    lstm.main(flags)
    assert (tmp_path / "out.txt").read_bytes() == b"" and capsys.readouterr().out == ""


def test_functions_raise_input_errors(quick, tmp_path):
    translator = lstm.load_translator(quick)
    with pytest.raises(lstm.InputError, match="1 of 1 own pairs are longer than --max_seq"):
        lstm.encode_pairs(translator, [("a " * 200, "b")], "own")
    with pytest.raises(lstm.InputError, match="row 2: 1 of 2 rows"):
        lstm.read_pairs(write(tmp_path / "pairs.tsv", "eins\tone\nzwei\n"))
    with pytest.raises(lstm.InputError, match="is not a complete folder"):
        lstm.load_translator(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(lstm.InputError, match="cannot write"):
        lstm.save_translator(translator, tmp_path / "file")


def test_first_python_block_of_the_readme(tmp_path, monkeypatch, capsys):
    readme = (SCRIPTS["seq2seq_lstm"].parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## seq2seq_lstm.py")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(SCRIPTS["seq2seq_lstm"].parent)
    keras.utils.set_random_seed(0)
    names = {}
    exec(code, names)
    assert names["translations"] == ["a cat", "two dogs"]
    assert capsys.readouterr().out.splitlines()[-1] == "['a cat', 'two dogs']"
    assert {path.name for path in (tmp_path / "my_translator").iterdir()} > {"model.keras"}


def process_state():
    """What a caller's process has, that a function might change."""
    policy = keras.config.dtype_policy().name, keras.config.floatx(), keras.config.backend()
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    levels = [logging.getLogger(name).level for name in ("", "tensorflow", "sacrebleu", "absl")]
    randomness = np.random.get_state()[1].tolist()
    strategy = tf.distribute.has_strategy(), tf.config.functions_run_eagerly()
    streams = sys.stdout, sys.stderr, sys.stdin, sys.excepthook
    filters = list(warnings.filters)
    return dict(os.environ), policy, threads, levels, randomness, strategy, streams, filters


def test_functions_leave_no_traces(tmp_path):
    """In the process, or in what they are given: but for training, which changes a translator."""
    sizes = {"embedding_dim": 8, "hidden_size": 8, "attention": True}
    before, pairs = process_state(), list(lstm.SAMPLE_PAIRS)
    translator = lstm.new_translator(pairs, **sizes)
    tokenizers = translator.source_tokenizer, translator.target_tokenizer
    saved = [(one.to_str(), one.encode_special_tokens) for one in tokenizers]
    lstm.fit(translator, pairs, pairs, str(tmp_path), num_train_epochs=1)
    weights = [variable.numpy() for variable in translator.model.weights]
    lstm.evaluate(translator, pairs)
    lstm.translate(translator, SOURCES)
    lstm.draw_alignment(translator, SOURCES[0], str(tmp_path))
    lstm.compile_search(translator.model, 2)(padded(ROWS))
    loaded = lstm.load_translator(tmp_path)
    lstm.read_pairs(write_pairs(tmp_path / "pairs.tsv", pairs))
    assert pairs == lstm.SAMPLE_PAIRS and translator.search is None
    assert_same(weights, [variable.numpy() for variable in translator.model.weights])
    assert getattr(translator.model, "optimizer", None) is None and not translator.model.compiled
    assert saved == [(one.to_str(), one.encode_special_tokens) for one in tokenizers]
    tokenizers = loaded.source_tokenizer, loaded.target_tokenizer
    assert saved == [(one.to_str(), one.encode_special_tokens) for one in tokenizers]
    after = process_state()
    for left, right in zip(before, after, strict=True):
        assert left == right


def test_needs_neither_torch_nor_transformers():
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(SCRIPTS["seq2seq_lstm"].read_text(encoding="utf-8")))
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [getattr(node, "module", "")]
        )
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert "tensorflow" in imported and not imported & {"torch", "transformers", "pickle"}


@pytest.mark.real_data
def test_second_epoch_on_real_pairs_is_better_than_the_first(real_data, tmp_path, capsys):
    files = {name: str(real_data / "multi30k" / f"{name}.de-en.tsv") for name in ("train", "val")}
    flags = [
        "--train_file",
        files["train"],
        "--validation_file",
        files["val"],
        "--max_train_samples",
        "2000",
    ]
    sizes = [
        "--embedding_dim",
        "64",
        "--hidden_size",
        "64",
        "--vocab_size",
        "1000",
        "--batch_size",
        "32",
    ]
    flags += [*sizes, "--num_train_epochs", "2", "--dropout", "0.1", "--learning_rate", "5e-3"]
    lstm.main([*flags, "--do_train", "--output_dir", str(tmp_path)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    losses = [float(line.split("eval_loss ")[1].split(",")[0]) for line in lines]
    assert len(losses) == 2 and losses[1] < losses[0] < np.log(1000)


def test_a_saved_model_translates_in_large_batches():
    """Batches of 8 are for learning the built-in pairs."""
    assert lstm.parse_arguments(["--smoke"]).batch_size == 8
    assert lstm.parse_arguments(["--model_name_or_path", "x", "--text", "a"]).batch_size == 64


CHINESE = [
    (f"{who} {what} {thing}.", f"{wer}{was}{ding}。")
    for who, wer in {"she": "她", "he": "他", "my aunt": "我的姑姑"}.items()
    for what, was in {"buys": "买了", "draws": "画了", "loses": "丢了"}.items()
    for thing, ding in {"a kite": "一只风筝", "a lamp": "一盏台灯"}.items()
]


def write_pairs(path, pairs):
    return write(path, "".join(f"{source}\t{target}\n" for source, target in pairs))


@pytest.mark.slow
def test_chinese_has_a_bleu_that_chooses_the_epoch(tmp_path, capsys):
    file = write_pairs(tmp_path / "pairs.tsv", CHINESE)
    flags = ["--smoke", "--num_train_epochs", "6", "--train_file", file, "--no-bf16"]
    lstm.main([*flags, "--output_dir", str(tmp_path / "out")])
    out = capsys.readouterr().out
    epochs = [float(bleu) for bleu in re.findall(r"eval_bleu ([\d.e-]+)", out)]
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert metrics["test_bleu"] == pytest.approx(max(epochs), rel=1e-3) and max(epochs) > 50
    assert metrics["test_chrf"] > 50 and "|tok:zh|" in out
    translator = lstm.load_translator(tmp_path / "out")
    found = lstm.translate(translator, [source for source, _ in CHINESE])
    right = [target for _, target in CHINESE]
    expected = sacrebleu.corpus_bleu(found, [right], tokenize="zh").score
    assert metrics["test_bleu"] == pytest.approx(expected)
    assert lstm.evaluate(translator, lstm.SAMPLE_PAIRS)["test_bleu"] >= 0
    assert "|tok:13a|" in capsys.readouterr().out  # back to words


LONG = [(f"{'immer wieder ' * 9}{n}", f"{'again and ' * 9}{n}") for n in range(5)]


def test_pairs_left_out_are_counted_and_count_in_no_metric(tmp_path, capsys):
    mixed = [pair for both in zip(lstm.SAMPLE_PAIRS, LONG, strict=False) for pair in both]
    files = {"train": [*lstm.SAMPLE_PAIRS, *LONG], "validation": mixed, "test": mixed[:4]}
    paths = {f"{name}_file": write_pairs(tmp_path / name, rows) for name, rows in files.items()}
    flags = [part for name, path in paths.items() for part in (f"--{name}", path)]
    flags += ["--max_seq_length", "15", "--output_dir", str(tmp_path / "out"), "--no-bf16"]
    lstm.main([*QUICK, *flags])
    lines = [line for line in capsys.readouterr().err.splitlines() if "--max_seq_length" in line]
    rest = "pairs are longer than --max_seq_length: left out, of all metrics, too"
    counts = ["100 of 580 training", "5 of 10 validation", "2 of 4 test"]
    assert lines == [f"warning: {count} {rest}" for count in counts]
    translator = lstm.load_translator(tmp_path / "out")
    found = lstm.evaluate(translator, mixed[:4])
    assert found == lstm.evaluate(translator, lstm.SAMPLE_PAIRS[:2])


@pytest.mark.parametrize("name", ["training", "validation"])
def test_only_long_pairs_end_before_the_training(name, tmp_path, monkeypatch):
    files = dict.fromkeys(("training", "validation"), lstm.SAMPLE_PAIRS) | {name: LONG}
    flags = ["--max_seq_length", "15", "--output_dir", str(tmp_path / "out")]
    for kind, flag in (("training", "--train_file"), ("validation", "--validation_file")):
        flags += [flag, write_pairs(tmp_path / f"{kind}.tsv", files[kind])]
    monkeypatch.setattr(lstm, "build_learner", None)
    with pytest.raises(lstm.InputError, match=f" {name} pairs are longer"):
        lstm.main(flags)


def test_metrics_stay_with_their_model(quick, tmp_path, capsys):
    """Beside it they join those of its training; in another folder they stand alone."""
    shutil.copytree(quick, tmp_path / "model")
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "all_results.json", '{"test_bleu": 99, "train_loss": 7}')
    file = write_pairs(tmp_path / "test.tsv", lstm.SAMPLE_PAIRS[:3])
    flags = ["--model_name_or_path", str(tmp_path / "model"), "--do_eval", "--test_file", file]
    lstm.main(flags)
    inside = json.loads((tmp_path / "model" / "all_results.json").read_text())
    lstm.main([*flags, "--output_dir", str(tmp_path / "other")])
    alone = json.loads((tmp_path / "other" / "all_results.json").read_text())
    assert "train_loss" in inside and "train_loss" not in alone
    assert alone["test_bleu"] == inside["test_bleu"] != 99


def test_files_in_other_forms_and_encodings(tmp_path, capsys):
    (tmp_path / "a.csv").write_bytes("de;fr\nÖl, gut;œuf\n„Ja“;oui\n".encode("cp1252"))
    write(tmp_path / "b.jsonl", '{"translation": {"de": "Öl, gut", "fr": "œuf"}}\n', "utf-16")
    flags = ["--train_file", str(tmp_path / "a.csv"), "--encoding", "cp1252"]
    flags += ["--validation_file", str(tmp_path / "b.jsonl")]
    train, validation, *_ = lstm.load_splits(lstm.parse_arguments(flags))
    assert train == [("Öl, gut", "œuf"), ("„Ja“", "oui")] * 20 and validation == train[:1]
    error = capsys.readouterr().err
    assert "the first row, ['de', 'fr'], is taken for a header" in error
    assert "b.jsonl: 1 pairs, the first: ('Öl, gut', 'œuf')" in error
    flags += ["--input_file", write(tmp_path / "texts.txt", "œuf\n", "cp1252")]
    assert lstm.load_splits(lstm.parse_arguments(flags))[3] == ["œuf"]


def test_next_command_works_after_odd_flags(tmp_path, capsys, monkeypatch):
    """A source that begins with a dash, a line break in a field, a folder with a space."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pairs.csv", 'a,b\n-Hallo,-hello\n"zwei\nZeilen",two lines\n')
    flags = ["--smoke", "--train_file", "pairs.csv", "--output_dir", "my model", "--num_beams", "2"]
    lstm.main([*flags, "--num_train_epochs", "1", "--max_seq_length", "9", "--hidden_size", "8"])
    _, command = capsys.readouterr().out.rsplit("Next:\n", 1)
    for source in ("a", "-Hallo"):
        _, _, *following = shlex.split(command.replace("--text=a", f"--text={source}"))
        lstm.main(following)
        assert capsys.readouterr().out.count("\n") == 1
