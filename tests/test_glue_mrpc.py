"""Tests of glue_mrpc.py: what it reads, what it tokenizes, what it writes and how it fails."""

import csv
import json
import logging
import os
import re
import struct
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch
import transformers
from conftest import SCRIPTS, load_script
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher
from huggingface_hub.utils import are_progress_bars_disabled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizer, GPT2Tokenizer, RobertaTokenizer, XLNetTokenizer

HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
TEST_HEADER = "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
KEYS = ["input_ids", "token_type_ids", "attention_mask", "labels"]
README = SCRIPTS["glue_mrpc"].parent / "README.md"


@pytest.fixture(scope="module")
def script():
    return load_script("glue_mrpc")


@pytest.fixture(scope="module")
def vocabulary_folder(script, tmp_path_factory) -> Path:
    """A saved tokenizer, with a vocabulary of letters and of some words, as another program would leave it."""
    pieces = (
        [chr(code) for code in range(33, 127) if not chr(code).isupper()]
        + ["##" + chr(code) for code in range(97, 123)]
        + ["é", "中", "ß"]
    )
    words = [
        "the",
        "cat",
        "##alog",
        "sat",
        "on",
        "mat",
        "##s",
        "un",
        "##able",
        "able",
        "2003",
        "##03",
        "[unused1]",
    ]
    folder = tmp_path_factory.mktemp("tokenizer")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *words]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(tokens)) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(vocabulary_folder) -> BertTokenizer:
    return BertTokenizer.from_pretrained(vocabulary_folder)


def save_glue(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.tsv").write_bytes(text.encode())
    return folder


def run(script, folder: Path, *arguments: str) -> dict:
    script.main([*arguments, "--output_dir", str(folder)])
    return torch.load(folder / "glue_mrpc_labled_tensor.pt", weights_only=True)


def error_of(script, *arguments: str) -> str:
    """The message with which the script ends; the boundary at its end makes one line of it."""
    with pytest.raises((script.InputError, OSError)) as end:
        script.main(list(arguments))
    return " ".join(str(end.value).split())


# WordPiece in plain Python, from its description in Wu et al. 2016 (section 4.1) and Devlin et al. 2018: clean the
# text, split it at spaces and punctuation, then take the longest piece of the vocabulary again and again.


def is_punctuation(character: str) -> bool:
    ascii_mark = (
        character.isascii()
        and character.isprintable()
        and not character.isalnum()
        and character != " "
    )
    return ascii_mark or unicodedata.category(character).startswith("P")


def basic_words(text: str) -> list[str]:
    kept = []
    for character in text:
        if character in "\0�" or (
            unicodedata.category(character)[0] == "C" and character not in "\t\n\r"
        ):
            continue
        chinese = 0x4E00 <= ord(character) <= 0x9FFF or 0x3400 <= ord(character) <= 0x4DBF
        kept.append(f" {character} " if chinese else character)
    words = []
    for word in "".join(kept).split():
        word = "".join(
            c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn"
        )
        start = True
        for character in word:
            if is_punctuation(character) or start:
                words.append("")
            words[-1] += character
            start = is_punctuation(character)
    return words


def word_pieces(word: str, vocabulary: dict[str, int]) -> list[int]:
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                break
        else:
            return [vocabulary["[UNK]"]]
        pieces.append(vocabulary[piece])
        start = end
    return pieces


def reference_pair(
    first: str, second: str, vocabulary: dict[str, int]
) -> tuple[list[int], list[int]]:
    one, other = (
        [i for word in basic_words(text) for i in word_pieces(word, vocabulary)]
        for text in (first, second)
    )
    cls, sep = vocabulary["[CLS]"], vocabulary["[SEP]"]
    return [cls, *one, sep, *other, sep], [0] * (len(one) + 2) + [1] * (len(other) + 1)


def reference_vocabulary(folder: Path) -> dict[str, int]:
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return {token: number for number, token in enumerate(lines) if token}


def letters(text: str) -> str:
    """The text without case, spaces and marks: what tokens put side by side must spell."""
    return re.sub(r"\W", "", text.lower())


def check_rows(
    tensors: dict, pairs: list[tuple[str, str]], labels: list[int], vocabulary: dict[str, int]
) -> None:
    """Every row of a saved split is its pair by the reference WordPiece, then padding."""
    assert list(tensors) == KEYS
    assert all(tensor.dtype == torch.int64 for tensor in tensors.values())
    assert tensors["labels"].tolist() == labels
    rows = [reference_pair(first, second, vocabulary) for first, second in pairs]
    longest = max(len(ids) for ids, _ in rows)
    assert {tuple(tensors[key].shape) for key in KEYS[:3]} == {(len(pairs), longest)}
    ids, types, mask = (tensors[key].tolist() for key in KEYS[:3])
    for number, (expected, expected_types) in enumerate(rows):
        padding = [0] * (longest - len(expected))
        assert ids[number] == expected + padding, pairs[number]
        assert types[number] == expected_types + padding
        assert mask[number] == [1] * len(expected) + padding


def original_pairs(path: Path) -> tuple[list[tuple[str, str]], list[int]]:
    rows = [line.split("\t") for line in path.read_bytes().decode().split("\n")[1:] if line]
    return [(row[3], row[4]) for row in rows], [int(row[0]) for row in rows]


@pytest.mark.real_data
@pytest.mark.real_model
def test_ids_of_all_real_pairs_are_those_of_an_independent_wordpiece(
    script, real_data, real_model, tmp_path, capsys
):
    data, vocabulary = real_data / "mrpc", reference_vocabulary(real_model)
    saved = run(script, tmp_path, "--data_dir", str(data), "--model_name_or_path", str(real_model))
    assert list(saved) == ["train", "test"]
    for split, rows in (("train", 4076), ("test", 1725)):
        pairs, labels = original_pairs(data / f"msr_paraphrase_{split}.txt")
        assert len(pairs) == rows
        check_rows(saved[split], pairs, labels, vocabulary)
    assert "train: 128 batches, the first: {'input_ids': (32, 79)," in capsys.readouterr().out
    results = json.loads((tmp_path / "all_results.json").read_text())
    assert (
        results["train"]["padding_fixed_length"]
        > 0.5
        > results["train"]["padding_longest_of_batch"]
    )


def test_smoke_alone_in_an_empty_folder_without_network(run_alone, tmp_path, script):
    process = run_alone("glue_mrpc", "--smoke")
    assert (process.returncode, process.stderr) == (0, "")
    folder = tmp_path / "alone" / "outputs" / "glue_mrpc"
    assert {path.name for path in folder.iterdir()} == {
        "all_results.json",
        "glue_mrpc_labled_tensor.pt",
        "lengths.png",
    }
    saved = torch.load(folder / "glue_mrpc_labled_tensor.pt", weights_only=True)
    assert {split: tensors["labels"].tolist() for split, tensors in saved.items()} == {
        split: [label for _, _, label in rows] for split, rows in script.SAMPLE_PAIRS.items()
    }
    assert saved["test"]["labels"].tolist() == [-1] * 4
    command = process.stdout.rsplit("Next:\n", 1)[1].strip().replace("python", sys.executable, 1)
    again = subprocess.run(
        command, shell=True, cwd=tmp_path / "alone", capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 0, again.stderr
    assert "'input_ids': tensor(" in again.stdout


def test_smoke_prints_tokens_that_spell_the_sentences(script, tmp_path, capsys):
    run(script, tmp_path, "--smoke")
    output = capsys.readouterr().out
    lines = r"(.*)\n  tokens: +(.*)\n  input_ids: +(.*)\n  token_type_ids: +(.*)\n"
    sentence, single, ids, _ = re.search("A single sentence: " + lines, output).groups()
    both, tokens, _, types = re.search("A pair: " + lines, output).groups()
    first, second = both.split(" | ")
    shown = [row[:2] for rows in script.SAMPLE_PAIRS.values() for row in rows]
    assert (first, second) in shown and sentence == first
    assert letters(single) == letters("CLS" + first + "SEP")
    assert letters(tokens) == letters("CLS" + first + "SEP" + second + "SEP")
    segment = tokens.split().index("[SEP]") + 1
    assert types.split() == ["0"] * segment + ["1"] * (len(tokens.split()) - segment)
    assert len(ids.split()) == segment


def test_smoke_sample_is_tokenized_without_unknown_words(script, tmp_path):
    splits = script.load_splits(smoke=True)
    tokenizer = script.tiny_tokenizer(concatenate_datasets([*splits.values()]))
    saved = run(script, tmp_path, "--smoke")
    for split, rows in script.SAMPLE_PAIRS.items():
        for ids, (first, second, _) in zip(saved[split]["input_ids"], rows, strict=True):
            assert tokenizer.unk_token_id not in ids
            text = tokenizer.decode(ids, skip_special_tokens=True)
            assert letters(text) == letters(first + second)


ODD = [
    'The cat sat "on the mat',
    "Café\u2028 中文 cat.",
    "שלום the cat 😀",
    "a\x85b\x1cc",
    "None",
    "[SEP] the [MASK] cat",
]


def test_glue_files_with_odd_but_valid_text(script, vocabulary_folder, tmp_path):
    rows = [
        (number % 2, one, other)
        for number, (one, other) in enumerate(zip(ODD, reversed(ODD), strict=True))
    ]
    lines = [f"{label}\t1\t2\t{one}\t{other}" for label, one, other in rows]
    data = save_glue(
        tmp_path / "glue",
        train="\ufeff" + HEADER + "\n".join(lines) + "\n",
        dev=HEADER + "\r\n".join(lines[:3]),
        test=TEST_HEADER.replace("\n", "\r\n") + "0\t1\t2\tThe cat\tsat on the mat.\r\n\r\n",
    )
    saved = run(
        script, tmp_path, "--data_dir", str(data), "--model_name_or_path", str(vocabulary_folder)
    )
    assert list(saved) == ["train", "validation", "test"]
    assert saved["train"]["labels"].tolist() == [0, 1, 0, 1, 0, 1]
    assert saved["validation"]["labels"].tolist() == [0, 1, 0]
    assert torch.equal(saved["validation"]["labels"], saved["train"]["labels"][:3])
    vocabulary = reference_vocabulary(vocabulary_folder)
    check_rows(saved["test"], [("The cat", "sat on the mat.")], [-1], vocabulary)
    for number, (_, one, other) in enumerate(rows):
        ids, types = reference_pair(one, other, vocabulary)
        assert saved["train"]["input_ids"][number].tolist()[: len(ids)] == ids
        assert saved["train"]["token_type_ids"][number].tolist()[: len(ids)] == types


def read_back(script, path: Path) -> list[tuple]:
    """The pairs that are read, as they stand in the data set."""
    splits = script.load_splits(str(path))
    return [tuple(row[name] for name in script.COLUMNS) for row in splits["train"]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_at_a_newline_or_a_return_and_nowhere_else(script, tmp_path, end):
    inside = "one\u2028two\x0bthree\x0cfour\x85five\u2029six\x1cseven\x1eeight"
    pairs = [(inside, "the cat"), ("the mat", inside), ("three", "four")]
    lines = [HEADER.strip(), *(f"1\t1\t2\t{one}\t{other}" for one, other in pairs)]
    for text in (end.join(lines), "\ufeff" + end.join(lines) + 2 * end):
        save_glue(tmp_path / "glue", train=text)
        assert read_back(script, tmp_path / "glue") == [(*pair, 1) for pair in pairs]
    save_glue(tmp_path / "glue", train=end.join([*lines, "1\t1\t2\tthe cat"]))
    assert "train.tsv, lines [5]: not 5 columns as in the header" in error_of(
        script, "--smoke", "--data_dir", str(tmp_path / "glue")
    )


def test_control_tokens_in_a_sentence_are_text(script, vocabulary_folder, tmp_path, capsys):
    sentence = "the [SEP] cat [CLS] sat [PAD] on [UNK] the [MASK]"
    data = save_glue(tmp_path / "glue", train=HEADER + f"1\t1\t2\t{sentence}\t[SEP]\n")
    arguments = ("--data_dir", str(data), "--model_name_or_path", str(vocabulary_folder))
    saved = run(script, tmp_path, *arguments)["train"]
    check_rows(saved, [(sentence, "[SEP]")], [1], reference_vocabulary(vocabulary_folder))
    single, pair = re.findall(r"  tokens: +(.*)\n", capsys.readouterr().out)
    assert single.split().count("[SEP]") == 1 and pair.split().count("[SEP]") == 2
    assert "[PAD]" not in pair and "[UNK]" not in pair


def test_original_files_have_a_byte_order_mark_and_quotes_without_meaning(
    script, vocabulary_folder, tmp_path
):
    pairs = [('"the cat', "sat on the mat"), ("the mat", 'the "cat" sat')]
    text = "\ufeff" + HEADER + "".join(f"1\t7\t8\t{one}\t{other}\n" for one, other in pairs)
    (tmp_path / "msr_paraphrase_train.txt").write_text(text, encoding="utf-8")
    saved = run(
        script,
        tmp_path,
        "--data_dir",
        str(tmp_path),
        "--model_name_or_path",
        str(vocabulary_folder),
    )
    assert list(saved) == ["train"]
    check_rows(saved["train"], pairs, [1, 1], reference_vocabulary(vocabulary_folder))
    save_glue(tmp_path, dev=HEADER + "0\t1\t2\tthe cat\tthe mat\n")
    saved = run(
        script,
        tmp_path,
        "--data_dir",
        str(tmp_path),
        "--model_name_or_path",
        str(vocabulary_folder),
    )
    assert list(saved) == ["validation"]  # GLUE's files come first where both lie side by side


QUOTED = [
    ('"No," he said, "not now."', "He said no, and left."),
    ("Rain, wind and snow", '"Snow"'),
    ("the cat", "a mat"),
]


def save_as_excel(path: Path, pairs: list[tuple[str, str]], marks: str, encoding: str) -> None:
    """Fields in which one of these marks stands are put in quotes, and their quotes doubled."""
    rows = [HEADER.strip().split("\t"), *(["1", "7", "8", *pair] for pair in pairs)]
    for row in rows:
        for number, field in enumerate(row):
            if any(mark in field for mark in marks):
                row[number] = '"' + field.replace('"', '""') + '"'
    text = "".join("\t".join(row) + "\r\n" for row in rows)
    path.write_bytes(text.encode(encoding))


@pytest.mark.parametrize(
    ("pairs", "marks", "encoding"),
    [
        (QUOTED, '",\t\n', "utf-16"),  # Excel's Unicode text
        (QUOTED[2:] + [("Rain, wind", "Wind, rain")], '",\t\n', "utf-8-sig"),
        (QUOTED, '"\t\n', "utf-8"),  # as pandas and LibreOffice save
    ],
)
def test_a_table_that_excel_has_saved_with_quotes(script, tmp_path, capsys, pairs, marks, encoding):
    save_as_excel(tmp_path / "train.tsv", pairs, marks, encoding)
    assert read_back(script, tmp_path) == [(*pair, 1) for pair in pairs]
    note = f"{tmp_path}/train.tsv: read without the quotes that Excel has added\n"
    assert capsys.readouterr().out == note


def test_one_quote_that_excel_would_not_write_makes_all_of_them_plain(script, tmp_path, capsys):
    pairs = [('"the ""cat"""', "a mat"), ('the "cat" sat', '"a mat"'), ('"', '""')]
    rows = "".join(f"1\t7\t8\t{one}\t{other}\n" for one, other in pairs)
    save_glue(tmp_path, train=HEADER + rows)
    assert read_back(script, tmp_path) == [(*pair, 1) for pair in pairs]
    assert capsys.readouterr().out == ""


def test_a_line_that_excel_has_broken_is_named(script, tmp_path):
    save_as_excel(tmp_path / "train.tsv", [("the\ncat", "a mat"), ("a", "b")], '",\t\n', "utf-8")
    with pytest.raises(script.InputError, match=r"lines \[2, 3\]: not 5 columns"):
        script.load_splits(str(tmp_path))


def test_parquet_files_of_the_hub(script, vocabulary_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder = tmp_path / "hub"
    folder.mkdir()
    parts = {
        "train-00000-of-00002": ([("the cat", "sat")], [1]),
        "train-00001-of-00002": ([("the mat", "on the mat"), ("un", "unable")], [0, 1]),
        "validation-00000-of-00001": ([("the cat", "the mats")], [0]),
        "test-00000-of-00001": ([("the mat", "able")], [-1]),
    }
    for name, (pairs, labels) in parts.items():
        first, second = zip(*pairs, strict=True)
        columns = {
            "idx": [9] * len(pairs),
            "label": labels,
            "sentence2": second,
            "sentence1": first,
        }
        Dataset.from_dict(columns).to_parquet(folder / f"{name}.parquet")
    data = ("--data_dir", str(tmp_path / "hub"), "--model_name_or_path", str(vocabulary_folder))
    saved = run(script, tmp_path / "out", *data)
    vocabulary = reference_vocabulary(vocabulary_folder)
    assert list(saved) == ["train", "validation", "test"]
    check_rows(
        saved["train"],
        [("the cat", "sat"), ("the mat", "on the mat"), ("un", "unable")],
        [1, 0, 1],
        vocabulary,
    )
    check_rows(saved["test"], [("the mat", "able")], [-1], vocabulary)


def test_a_column_of_labels_that_pandas_has_left_empty(script, tmp_path):
    labels = pd.array([None, None], dtype="Int64")
    table = pd.DataFrame({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": labels})
    table.to_parquet(tmp_path / "test.parquet")
    assert list(script.load_splits(str(tmp_path))["test"]["label"]) == [-1, -1]


def test_labels_of_parquet_files(script, tmp_path):
    """A column with gaps comes as numbers with a point; in a test file a gap means not labelled."""
    two = {"sentence1": ["a", "b"], "sentence2": ["c", "d"]}
    for labels, expected in (
        ([1.0, 0.0], [1, 0]),
        (["1", "0"], [1, 0]),
    ):
        Dataset.from_dict({**two, "label": labels}).to_parquet(tmp_path / "train.parquet")
        assert [label for _, _, label in read_back(script, tmp_path)] == expected
    for labels in ([1.0, None], [1.0, float("nan")], ["1", " "], [None, None]):
        (tmp_path / "train.parquet").unlink(missing_ok=True)
        Dataset.from_dict({**two, "label": labels}).to_parquet(tmp_path / "test.parquet")
        found = script.load_splits(str(tmp_path))["test"]["label"]
        assert list(found) == ([-1, -1] if labels[0] is None else [1, -1])
        Dataset.from_dict({**two, "label": labels}).to_parquet(tmp_path / "train.parquet")
        with pytest.raises(
            script.InputError,
            match=r"rows \[(2|1, 2)\]: [12] of 2 lack .* or 1 or 0 as label; the first: ",
        ):
            script.load_splits(str(tmp_path))
    Dataset.from_dict({**two, "label": [1, 0], "sentence1": [7, 8]}).to_parquet(
        tmp_path / "train.parquet"
    )
    with pytest.raises(
        script.InputError, match=r"rows \[1, 2\]: 2 of 2 lack a sentence.*: 7 \| c \| 1"
    ):
        script.load_splits(str(tmp_path))


def test_blank_labels_of_a_test_file_in_text(script, tmp_path):
    save_glue(tmp_path, test=HEADER + "\t1\t2\ta\tb\n1\t1\t2\ta\tb\n-1\t1\t2\ta\tb\n")
    assert list(script.load_splits(str(tmp_path))["test"]["label"]) == [-1, 1, -1]


def save_tokenizer(folder: Path, tokenizer_class: type, texts: list[str], **options) -> str:
    """Save a tokenizer of this class, trained on texts, in a folder like that of its model."""
    model_type = tokenizer_class.__name__.removesuffix("Tokenizer").lower()
    tokenizer = tokenizer_class(**options)
    tokenizer = tokenizer.train_new_from_iterator(texts * 5, 400, show_progress=False)
    tokenizer.save_pretrained(folder)
    config = {"model_type": model_type, "vocab_size": len(tokenizer)}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


PAIRS = [("The cat sat.", "A cat sat on the mat."), ("The mat", "The cats"), ("Un", "Unable")]


@pytest.mark.parametrize("tokenizer_class", [RobertaTokenizer, XLNetTokenizer])
def test_tokenizers_of_other_models_work_in_their_own_way(script, tmp_path, tokenizer_class):
    lines = "".join(f"1\t1\t2\t{one}\t{other}\n" for one, other in PAIRS)
    data = save_glue(tmp_path / "glue", train=HEADER + lines)
    texts = [text for pair in PAIRS for text in pair]
    folder = save_tokenizer(tmp_path / "model", tokenizer_class, texts)
    options = ("--data_dir", str(data), "--model_name_or_path", folder, "--batch_size", "1")
    saved = run(script, tmp_path / "out", *options)["train"]
    tokenizer = tokenizer_class.from_pretrained(folder)
    expected = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
    assert list(saved) == [*expected, "labels"]
    for key, tensor in expected.items():
        assert torch.equal(saved[key], tensor)
    assert tokenizer.unk_token_id not in saved["input_ids"]
    first = tokenizer.decode(saved["input_ids"][0])
    marks = {"RobertaTokenizer": "<s>A</s></s>B</s>", "XLNetTokenizer": "A<sep> B<sep><cls>"}
    pattern = marks[tokenizer_class.__name__].replace("A", PAIRS[0][0]).replace("B", PAIRS[0][1])
    assert pattern in first
    # XLNet pads on the left, with its own token; all but the longest row have some
    side = 0 if tokenizer.padding_side == "left" else -1
    assert saved["input_ids"][1][side] == tokenizer.pad_token_id != 0 or side == -1
    assert saved["attention_mask"][1][side] == 0


def test_tokenizers_that_cannot_pad_or_bring_code_are_refused(script, tmp_path):
    data = save_glue(tmp_path / "glue", train=TRAIN)
    arguments = ("--data_dir", str(data), "--output_dir", str(tmp_path / "out"))
    folder = save_tokenizer(tmp_path / "model", GPT2Tokenizer, ["the cat sat"])
    message = error_of(script, *arguments, "--model_name_or_path", folder)
    assert "its tokenizer cannot pad" in message and folder in message
    settings = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "model" / "tokenizer.json").unlink()
    (tmp_path / "model" / "own.py").write_text("raise SystemExit('code was run')")
    message = error_of(script, *arguments, "--model_name_or_path", folder)
    assert f"cannot load the tokenizer of {folder}" in message
    assert not (tmp_path / "out").exists()


CASED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "the", "Cat", "cat", "##s", "M", "m"]


@pytest.mark.parametrize(
    "settings",
    [None, {"model_max_length": 512}, {"do_lower_case": False}, {"do_lower_case": True}],
)
def test_a_cased_vocabulary_keeps_capitals(script, tmp_path, settings):
    (tmp_path / "vocab.txt").write_text("\n".join(CASED) + "\n")
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = script.pretrained_tokenizer(str(tmp_path))
    assert tokenizer.tokenize("The CATS Cats") == ["The", "[UNK]", "Cat", "##s"]


def test_a_few_capitals_do_not_make_a_vocabulary_cased(script, tmp_path):
    words = [f"w{number}" for number in range(500)]
    (tmp_path / "vocab.txt").write_text(
        "\n".join([*CASED[:5], "the", "COVID", "Who", *words]) + "\n"
    )
    tokenizer = script.pretrained_tokenizer(str(tmp_path))
    assert tokenizer.tokenize("The W7") == ["the", "w7"]


def test_a_cased_tokenizer_json_without_the_setting_keeps_capitals(script, tmp_path):
    vocabulary = {token: number for number, token in enumerate(CASED)}
    BertTokenizer(vocab=vocabulary, do_lower_case=False).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["do_lower_case"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert script.pretrained_tokenizer(str(tmp_path)).tokenize("The Cats") == ["The", "Cat", "##s"]


MANY_LETTERS = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 1500))
LANGUAGES = {
    "Chinese": ("这座桥在三月开放。", MANY_LETTERS),
    "Korean": ("다리가 삼월에 열렸다.", "그 다리는 더 비쌀 것이다."),
    "German": ("Die Brücke wurde im März eröffnet – für 5 €.", "Größe, Maß und Übermut ẞ"),
    "Hindi": ("पुल मार्च में खुला।", "यह महँगा होगा।"),
    "emoji": ("the cat 😀👍🏽", "𝔐𝔞𝔱 ½ ﬁ İ"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_smoke_knows_every_letter_of_every_row_and_split(script, tmp_path, language):
    first, second = LANGUAGES[language]
    plain = [("the cat", "a mat", 1)] * 1200
    rows = {"train": [*plain, (first, "a", 1)], "dev": [(second, first, 0)]}
    texts = {}
    for split, pairs in rows.items():
        lines = (f"{label}\t1\t2\t{one}\t{other}\n" for one, other, label in pairs)
        texts[split] = HEADER + "".join(lines)
    data = save_glue(tmp_path / "glue", **texts)
    flags = ("--smoke", "--data_dir", str(data), "--max_seq_length", "2000")
    saved = run(script, tmp_path / "out", *flags)
    unknown = BertTokenizer().unk_token_id
    assert not any((tensors["input_ids"] == unknown).any() for tensors in saved.values())


TRAIN = HEADER + "1\t1\t2\tThe cat sat\tThe cat sat on the mat\n0\t3\t4\tThe mat\tThe cat\n"


def test_batches_are_padded_one_by_one_then_joined(script, tokenizer, tmp_path, capsys):
    sentences = ["the cat sat on the mat " * repeat for repeat in (1, 5, 2, 3, 1)]
    lines = "".join(f"1\t1\t2\t{sentence}\tcat\n" for sentence in sentences)
    data = save_glue(tmp_path / "glue", train=HEADER + lines)
    arguments = [
        "--data_dir",
        str(data),
        "--model_name_or_path",
        tokenizer.name_or_path,
        "--batch_size",
        "2",
    ]
    saved = run(script, tmp_path, *arguments)["train"]
    lengths = [6 * repeat + 4 for repeat in (1, 5, 2, 3, 1)]
    output = capsys.readouterr().out
    shapes = dict.fromkeys(KEYS[:3], (2, 34)) | {"labels": (2,)}
    assert f"train: 3 batches, the first: {shapes}\n" in output
    split = script.tokenize_pairs(script.load_splits(str(data))["train"], tokenizer)
    batches = script.collate(split, tokenizer, batch_size=2)
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(2, 34), (2, 22), (1, 10)]
    assert saved["attention_mask"].sum(1).tolist() == lengths
    assert saved["input_ids"].shape == (5, 34)
    results = json.loads((tmp_path / "all_results.json").read_text())["train"]
    tokens = sum(lengths)
    assert (results["pairs"], results["tokens"], results["longest"]) == (5, tokens, 34)
    assert results["mean_length"] == round(tokens / 5, 2)
    assert results["padding_fixed_length"] == pytest.approx(1 - tokens / (5 * 128), abs=1e-4)
    assert results["padding_longest_of_split"] == pytest.approx(1 - tokens / (5 * 34), abs=1e-4)
    assert results["padding_longest_of_batch"] == pytest.approx(
        1 - tokens / (2 * 34 + 2 * 22 + 10), abs=1e-4
    )
    assert results["padding_grouped_by_length"] == pytest.approx(
        1 - tokens / (2 * 10 + 2 * 22 + 34), abs=1e-4
    )


@pytest.mark.parametrize("side", ["right", "left"])
def test_joined_batches_are_one_batch_of_all_pairs(script, vocabulary_folder, side):
    """The fast way of "Speed" against the plain one."""
    tokenizer = BertTokenizer.from_pretrained(vocabulary_folder, padding_side=side)
    pairs = [("cat " * length, "mat", length % 2) for length in (3, 9, 1, 4, 1, 7, 2)]
    split = script.tokenize_pairs(script.as_dataset(pairs), tokenizer)
    batches = script.collate(split, tokenizer, batch_size=3)
    before = [{key: tensor.clone() for key, tensor in batch.items()} for batch in batches]
    joined = script.join(batches, tokenizer)
    (expected,) = script.collate(split, tokenizer, batch_size=len(split))
    assert list(joined) == list(expected) == KEYS
    assert all(torch.equal(joined[key], expected[key]) for key in KEYS)
    for batch, copy in zip(batches, before, strict=True):
        assert all(torch.equal(batch[key], copy[key]) for key in KEYS)


def state_of_the_process() -> dict:
    umask = os.umask(0)
    os.umask(umask)
    return {
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "messages": (transformers.logging.get_verbosity(), datasets.logging.get_verbosity()),
        "levels": {
            name: logging.getLogger(name).level for name in (None, "transformers", "datasets")
        },
        "bars": (datasets.is_progress_bar_enabled(), are_progress_bars_disabled()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "csv": csv.field_size_limit(),
        "streams": (sys.stdout, sys.stderr),
        "umask": umask,
        "folder": os.getcwd(),
    }


def test_functions_leave_no_traces_in_a_callers_process(script, vocabulary_folder, tmp_path):
    datasets.enable_progress_bars()
    save_as_excel(tmp_path / "train.tsv", QUOTED, '",', "utf-16")
    own = BertTokenizer.from_pretrained(vocabulary_folder)
    about = repr(own), dict(own.init_kwargs), own.get_vocab()
    before = state_of_the_process()
    splits = script.load_splits(str(tmp_path))
    script.tiny_tokenizer(splits["train"])
    script.pretrained_tokenizer(str(vocabulary_folder))
    script.show_tokens(own, splits["train"][0])
    tokenized = script.tokenize_pairs(splits["train"], own, 6, 2)
    script.show_cut_and_unknown("train", tokenized, own, 6)
    tensors = {"train": script.join(script.collate(tokenized, own, 2), own)}
    figures = {"train": script.measure(tensors["train"], 2, 6)}
    picture = script.draw_lengths(tensors, figures)
    script.save(tensors, figures, picture, str(tmp_path / "out"))
    script.summarize(figures, str(tmp_path / "out"))
    assert state_of_the_process() == before
    assert (repr(own), dict(own.init_kwargs), own.get_vocab()) == about
    assert splits["train"].column_names == script.COLUMNS


WORDS = [
    "the",
    "cat",
    "cats",
    "catalog",
    "unable",
    "The",
    "2003",
    "200303",
    ".",
    ",",
    "'s",
    "-",
    '"',
    "[SEP]",
    "[unused1]",
    " ",
    "中",
    "é",
]


def tokenized(script, tokenizer, first, second, max_seq_length):
    """The columns that `tokenize_pairs` makes of pairs."""
    pairs = Dataset.from_dict({"sentence1": first, "sentence2": second, "label": [0] * len(first)})
    columns = script.tokenize_pairs(pairs, tokenizer, max_seq_length).to_dict()
    assert columns.pop("label") == [0] * len(first)
    return columns


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pairs=st.lists(
        st.tuples(
            *[
                st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), max_size=12).map(
                    " ".join
                )
            ]
            * 2
        )
        | st.tuples(st.text(), st.text()),
        min_size=1,
        max_size=4,
    ),
    max_seq_length=st.integers(5, 40),
)
def test_any_text_is_tokenized_as_the_tokenizer_would(script, tokenizer, pairs, max_seq_length):
    first, second = (list(side) for side in zip(*pairs, strict=True))
    options = {"truncation": True, "max_length": max_seq_length, "split_special_tokens": True}
    expected = tokenizer(first, second, **options)
    assert tokenized(script, tokenizer, first, second, max_seq_length) == dict(expected)


def test_tokenizing_writes_nothing(script, tokenizer, tmp_path, monkeypatch):
    """`Dataset.map` caches what it makes of files; here everything stays in memory."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    splits = script.load_splits(str(save_glue(tmp_path / "glue", train=TRAIN)))
    assert script.tokenize_pairs(splits["train"], tokenizer).cache_files == []
    assert not (tmp_path / "hf").exists()


def test_an_interrupt_while_tokenizing_is_not_lost(script, tokenizer, monkeypatch):
    """The library pickles what it maps with, and takes an interrupt meanwhile for a failure."""
    pickled = []
    monkeypatch.setattr(Hasher, "hash", lambda *value: pickled.append(value[-1]) or "0")
    assert len(script.tokenize_pairs(script.as_dataset([("the cat", "a mat", 1)]), tokenizer)) == 1
    assert not any(callable(value) for value in pickled)


def test_picture_is_a_small_png(script, tmp_path):
    run(script, tmp_path, "--smoke")
    for picture in (tmp_path / "lengths.png", README.parent / "lengths.png"):
        data = picture.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert width >= 800 and height >= 300
        assert 5_000 < len(data) < 100_000


def test_both_halves_of_the_picture_say_which_split_is_which(script, tmp_path):
    tensors = run(script, tmp_path, "--smoke")
    figures = json.loads((tmp_path / "all_results.json").read_text())
    for axes in script.draw_lengths(tensors, figures).axes:
        names = [text.get_text() for text in axes.get_legend().get_texts()]
        assert names == ["train", "validation", "test"]


def test_readme_blocks_prepare_pairs_and_train_from_the_saved_file(
    script, tmp_path, monkeypatch, capsys
):
    own, training = re.findall(
        r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    script.main(["--smoke"])
    found = {}
    exec(compile(own, str(README), "exec"), found)
    (batch,) = found["batches"]
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["input_ids"].shape[0] == len(batch["labels"]) == len(found["pairs"])
    spelled = found["tokenizer"].decode(batch["input_ids"][0], skip_special_tokens=True)
    assert letters(spelled) == letters("".join(found["pairs"][0][:2]))
    capsys.readouterr()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small only wait for a second thread
    exec(compile(training, str(README), "exec"), {})
    torch.set_num_threads(threads)
    losses = [float(number) for number in re.findall(r"\d+\.\d+", capsys.readouterr().out)]
    assert len(losses) > 1
    assert losses[-1] < 0.5 * losses[0]


def test_failing_run_leaves_the_earlier_result(script, tmp_path, monkeypatch):
    run(script, tmp_path / "out", "--smoke")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full_disk(tensors, path):
        path.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script.torch, "save", full_disk)
    message = error_of(
        script, "--smoke", "--max_seq_length", "20", "--output_dir", str(tmp_path / "out")
    )
    assert message.startswith(f"cannot write {tmp_path / 'out'}: ") and "No space left" in message
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


ROW = "1\t1\t2\tThe cat\tThe mat\n"
FAULT = "lack a sentence, or 1 or 0 as label; the first: "
BAD_TRAINING_FILES = {
    "empty": (b"", "train.tsv, line 1: no column '#1 String' in ''"),
    "header only": (HEADER.encode(), "train.tsv, lines 2: no rows"),
    "no header": (ROW.encode() * 3, "train.tsv, line 1: no column '#1 String' in '1\\t1\\t2\\tThe"),
    "no labels": ((TEST_HEADER + ROW).encode(), "train.tsv, line 1: no column 'Quality'"),
    "commas": (
        (HEADER + ROW).replace("\t", ",").encode(),
        "train.tsv, line 1: no column '#1 String' in 'Quality,#1 ID,",
    ),
    "too few columns": (
        (HEADER + ROW + "1\t1\t2\tThe cat\n").encode(),
        "train.tsv, lines [3]: not 5 columns as in the header",
    ),
    "too many columns": (
        (HEADER + ROW.strip() + "\tmore\n").encode(),
        "train.tsv, lines [2]: not 5 columns as in the header",
    ),
    "blank line inside": (
        (HEADER + ROW + "\n" + ROW).encode(),
        "train.tsv, lines [3]: not 5 columns as in the header",
    ),
    "label 2": (
        (HEADER + ROW + ROW.replace("1", "2", 1)).encode(),
        f"train.tsv, lines [3]: 1 of 2 {FAULT}The cat | The mat | 2",
    ),
    "label missing": (
        (HEADER + ROW.replace("1", "", 1)).encode(),
        f"train.tsv, lines [2]: 1 of 1 {FAULT}The cat | The mat |",
    ),
    "blank sentence": (
        (HEADER + ROW + ROW.replace("The cat", " ")).encode(),
        f"train.tsv, lines [3]: 1 of 2 {FAULT}| The mat | 1",
    ),
    "Latin-1": (
        (HEADER + ROW).encode() + "1\t1\t2\tcafé\tx\n".encode("latin-1"),
        "train.tsv: 'utf-8' codec can't decode byte 0xe9 in position 71: invalid continuation byte: "
        "give --encoding cp1252, or another",
    ),
    "UTF-16 without its mark": (
        (HEADER + ROW).encode("utf-16-le"),
        r"train.tsv, line 1: no column '#1 String' in 'Q\x00u\x00a",
    ),
    "half a character of UTF-16": (
        (HEADER + ROW).encode("utf-16") + b"\0",
        "train.tsv: 'utf-16",
    ),
    "Excel": (b"PK\3\4\0\0\0", "train.tsv is no plain text: export it as text, or a table as CSV"),
}


@pytest.mark.parametrize("case", BAD_TRAINING_FILES)
def test_bad_file_ends_in_one_line_with_file_and_line(script, tmp_path, case):
    content, expected = BAD_TRAINING_FILES[case]
    (tmp_path / "train.tsv").write_bytes(content)
    message = error_of(
        script, "--smoke", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")
    )
    assert str(tmp_path / expected) in message
    assert not (tmp_path / "out").exists()


def test_bad_folders_end_in_one_line(script, tmp_path):
    missing = error_of(script, "--smoke", "--data_dir", str(tmp_path / "missing"))
    assert f"--data_dir {tmp_path / 'missing'}: no file of MRPC there" in missing
    (tmp_path / "other.txt").write_text("x")
    unknown = error_of(script, "--smoke", "--data_dir", str(tmp_path))
    assert "no file of MRPC there, such as train.tsv" in unknown
    assert "no file of MRPC there" in error_of(
        script, "--smoke", "--data_dir", str(tmp_path / "other.txt")
    )
    (tmp_path / "train.tsv").mkdir()
    assert "Is a directory" in error_of(script, "--smoke", "--data_dir", str(tmp_path))


def test_bad_parquet_ends_in_one_line(script, tmp_path):
    file = tmp_path / "train-0.parquet"
    arguments = ("--smoke", "--data_dir", str(tmp_path))
    file.write_bytes(b"no parquet at all")
    assert str(file) in error_of(script, *arguments)
    good = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}
    for change, expected in (
        ({"label": [0, 7]}, f"rows [2]: 1 of 2 {FAULT}b | d | 7"),
        ({"label": ["x", "y"]}, f"rows [1, 2]: 2 of 2 {FAULT}a | c | x"),
        ({"sentence2": ["c", None]}, f"rows [2]: 1 of 2 {FAULT}b | <NA> | 1"),
    ):
        Dataset.from_dict({**good, **change}).to_parquet(file)
        message = error_of(script, *arguments)
        assert f"{file}, {expected}" in message
    Dataset.from_dict({"sentence1": ["a"], "label": [0]}).to_parquet(file)
    assert "sentence2" in error_of(script, *arguments)


def test_blank_and_unfit_tokenizers_are_refused(script, vocabulary_folder, tmp_path):
    data = save_glue(tmp_path / "glue", train=TRAIN)
    arguments = (
        "--data_dir",
        str(data),
        "--output_dir",
        str(tmp_path / "out"),
        "--model_name_or_path",
    )
    folder = tmp_path / "model"
    folder.mkdir()
    assert "5 tokens for a model of 5: is a file missing?" in error_of(
        script, *arguments, str(folder)
    )
    vocabulary = (vocabulary_folder / "vocab.txt").read_bytes()
    size = len(reference_vocabulary(vocabulary_folder))
    for name, content, expected in (
        (
            "vocab.txt",
            vocabulary[:100],
            f"{vocabulary[:100].count(10) + 1} tokens for a model of {size}",
        ),
        (
            "vocab.txt",
            vocabulary + b"more\n",
            f"{size + 1} tokens for a model of {size}",
        ),
        (
            "vocab.txt",
            vocabulary.replace(b"[UNK]", b"<unk>"),
            f"{size + 1} tokens for a model of {size}",
        ),
        ("tokenizer.json", b'{"version"', "cannot load the tokenizer"),
        ("config.json", b"{", "cannot load the tokenizer"),
    ):
        (folder / "config.json").write_text(json.dumps({"vocab_size": size}))
        (folder / "vocab.txt").write_bytes(vocabulary)
        (folder / name).write_bytes(content)
        assert expected in error_of(script, *arguments, str(folder))
        (folder / name).unlink()
    assert not (tmp_path / "out").exists()
    (folder / "vocab.txt").write_bytes(vocabulary)
    run(script, tmp_path / "out", *arguments[:2], "--model_name_or_path", str(folder))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--max_seq_length", "4"], "--max_seq_length is at least 5 and --batch_size 1"),
        (["--batch_size", "0"], "--max_seq_length is at least 5 and --batch_size 1"),
        (["--batch_size", "-1"], "--max_seq_length is at least 5 and --batch_size 1"),
        (["--max_seq_length", "-1"], "--max_seq_length is at least 5 and --batch_size 1"),
        (["--seed", "x"], "--seed"),
        (["--batch_size", "x"], "--batch_size"),
        (["--bach_size", "3"], "--bach_size"),
        (["--model_name_or_path", "no/such/name at all"], "cannot download"),
    ],
)
def test_bad_usage_ends_in_one_line(script, tmp_path, arguments, expected):
    data = save_glue(tmp_path / "glue", train=TRAIN)
    assert expected in error_of(script, "--data_dir", str(data), *arguments)


@pytest.mark.slow
def test_without_network_the_default_run_ends_in_one_line(run_alone, tmp_path):
    process = run_alone("glue_mrpc", timeout=30)
    assert process.returncode == 2
    assert re.fullmatch(
        r"error: cannot download nyu-mll/glue.*--smoke.*local folder.*\n", process.stderr
    )
    assert process.stdout == ""
    assert not (tmp_path / "alone" / "outputs").exists()


def test_plain_values_that_are_no_pairs_raise_an_exception(script):
    for pairs, message in (
        ([("a", " ", 1)], r"rows \[1\]: 1 of 1 lack a sentence.*: a \|   \| 1"),
        ([("a", "b", 1), ("a", "b", 3)], r"rows \[2\]: 1 of 2 .* as label.*: a \| b \| 3"),
        ([], "rows 1: no rows"),
    ):
        with pytest.raises(script.InputError, match=message):
            script.as_dataset(pairs)


def test_several_processes_tokenize_to_the_same_tensors(script, tmp_path):
    one = run(script, tmp_path / "one", "--smoke")
    two = run(script, tmp_path / "two", "--smoke", "--preprocessing_num_workers", "2")
    assert one.keys() == two.keys()
    for split, tensors in one.items():
        assert all(torch.equal(tensors[key], two[split][key]) for key in KEYS)


def test_bar_of_always_saying_yes_is_scikit_learns(script, tmp_path, capsys):
    """Of GLUE's files the test's labels are not known."""
    labels = [1, 1, 0, 1, 0, 1, 1]
    rows = [
        (str(label), f"The cat {n} sat.", f"A cat {n} was sitting.")
        for n, label in enumerate(labels)
    ]
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    lines = "".join(f"{label}\t1\t2\t{one}\t{two}\n" for label, one, two in rows)
    (tmp_path / "train.tsv").write_text(header + lines)
    unlabelled = "".join(f"{n}\t1\t2\t{one}\t{two}\n" for n, (_, one, two) in enumerate(rows))
    (tmp_path / "test.tsv").write_text(header.replace("Quality", "index") + unlabelled)
    out = tmp_path / "out"
    script.main(["--smoke", "--data_dir", str(tmp_path), "--output_dir", str(out)])
    results = json.loads((out / "all_results.json").read_text())
    yes = [1] * len(labels)
    accuracy, f1 = accuracy_score(labels, yes), f1_score(labels, yes)
    assert results["train"]["always_yes_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert results["train"]["always_yes_f1"] == pytest.approx(f1, abs=1e-4)
    assert "always_yes_accuracy" not in results["test"]
    assert re.search(r"^always_yes_f1 +0.8333 +-$", capsys.readouterr().out, re.MULTILINE)


PRICES = [("Ein Kaffee kostet 3 €.", "„Kaffee“ – für 3 €"), ("Größe: groß", "Das Maß ist voll.")]


@pytest.mark.parametrize(
    ("encoding", "flag"),
    [
        ("utf-16", None),
        ("cp1252", "cp1252"),
        ("utf-8-sig", "utf-8"),
        ("utf-8", None),
        ("utf-16-le", "utf-16-le"),
    ],
)
def test_encodings_of_text_files(script, tmp_path, encoding, flag):
    lines = "".join(f"0\t1\t2\t{one}\t{other}\r\n" for one, other in PRICES)
    (tmp_path / "train.tsv").write_bytes((HEADER + lines).encode(encoding))
    options = {"encoding": flag} if flag else {}
    rows = script.load_splits(str(tmp_path), **options)["train"]
    assert [(row["sentence1"], row["sentence2"]) for row in rows] == PRICES


def test_the_flag_for_the_encoding_reaches_the_file(script, tmp_path, capsys):
    row = "1\t1\t2\tDer Kuchen ist süß.\tSüß ist der Kuchen.\n"
    (tmp_path / "train.tsv").write_bytes((HEADER + row).encode("cp1252"))
    flags = ("--smoke", "--data_dir", str(tmp_path))
    assert "give --encoding cp1252, or another" in error_of(script, *flags)
    run(script, tmp_path / "out", *flags, "--encoding", "cp1252")
    assert "Der Kuchen ist süß." in capsys.readouterr().out


def test_parquet_files_come_by_their_numbers_and_texts_may_be_bytes(script, tmp_path):
    """Written without zeros in front, as text 11 sorts before 2."""
    folder = tmp_path / "set [1] of *"
    folder.mkdir()
    for number in (0, 1, 2, 9, 11, 100):
        columns = {
            "sentence1": [f"Straße {number} ist lang.".encode(), f"Haus {number}".encode()],
            "sentence2": [f"Rue n° {number}".encode(), "日本".encode()],
            "label": [1, 0],
        }
        Dataset.from_dict(columns).to_parquet(folder / f"train-{number}.parquet")
    rows = read_back(script, folder)
    assert [row[0] for row in rows[::2]] == [
        f"Straße {number} ist lang." for number in (0, 1, 2, 9, 11, 100)
    ]
    assert rows[1] == ("Haus 0", "日本", 0)
    Dataset.from_dict({**columns, "label": [b"0", b"1"]}).to_parquet(folder / "test.parquet")
    assert list(script.load_splits(str(folder))["test"]["label"]) == [0, 1]
    broken = {**columns, "sentence1": ["Straße".encode("cp1252"), b"a"]}
    Dataset.from_dict(broken).to_parquet(folder / "train-1.parquet")
    with pytest.raises(script.InputError, match=r"train-1\.parquet: .*codec can't decode byte"):
        script.load_splits(str(folder))


def test_all_faults_of_a_table_come_in_one_message(script, tmp_path):
    good = "1\t1\t2\tThe cat\tThe mat"
    lines = [good, "0\t1\t2\t \tThe mat", "maybe\t1\t2\ta\tb", good, "0\t1\t2\ta\t"]
    lines += ["1\t1\t2\t\t", "0\t1\t2\t\u3000\tb"]
    save_glue(tmp_path / "glue", train=HEADER + "\n".join(lines) + "\n")
    with pytest.raises(script.InputError) as end:
        script.load_splits(str(tmp_path / "glue"))
    message = f"{tmp_path}/glue/train.tsv, lines [3, 4, 6, 7, 8]: 5 of 7 {FAULT}"
    assert str(end.value) == message + "  | The mat | 0"
    save_glue(tmp_path / "glue", train=HEADER + "\n".join([good, "1\ta", good, "", good]))
    with pytest.raises(script.InputError) as end:
        script.load_splits(str(tmp_path / "glue"))
    message = f"{tmp_path}/glue/train.tsv, lines [3, 5]: not 5 columns as in the header"
    assert str(end.value) == message
    many = [("a", "b", f"{number} words that are no label" * 99) for number in range(2000)]
    with pytest.raises(script.InputError) as end:
        script.as_dataset(many)
    assert len(str(end.value)) < 400 and "2000 of 2000" in str(end.value)


WORDS_OF_TWO = ["une soirée calme", "ein ruhiger Abend", "una noche tranquila", "a quiet evening"]


def save_unigram(folder: Path, tokenizer_class: str | None, model_type: str | None) -> str:
    """A folder with a Unigram tokenizer, and the class and the model that its settings name."""
    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    options = {"special_tokens": special, "unk_token": "<unk>", "show_progress": False}
    trainer = trainers.UnigramTrainer(vocab_size=90, **options)
    pieces.train_from_iterator(WORDS_OF_TWO * 4, trainer)
    folder.mkdir()
    pieces.save(str(folder / "tokenizer.json"))
    names = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>"}
    settings = {f"{name}_token": token for name, token in names.items()} | {"pad_token": "<pad>"}
    settings |= {"tokenizer_class": tokenizer_class} if tokenizer_class else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if model_type:
        config = {"model_type": model_type, "vocab_size": pieces.get_vocab_size()}
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra", "roberta", None])
def test_the_tokenizer_is_the_one_that_the_folder_names(script, tmp_path, model_type):
    """Multilingual checkpoints are BERT's or another model with XLM-R's tokenizer."""
    folder = save_unigram(tmp_path / "right", "XLMRobertaTokenizer", model_type)
    tokenizer = script.pretrained_tokenizer(folder)
    ids = tokenizer(WORDS_OF_TWO)["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == WORDS_OF_TWO[0]


def test_words_that_the_tokenizer_does_not_know_are_counted(
    script, vocabulary_folder, tmp_path, capsys
):
    """A vocabulary of another language, which its class takes without a word."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "今", "日", "映", "画", "cat", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    data = save_glue(
        tmp_path / "glue",
        train=HEADER + "1\t1\t2\tA cat sat here.\tHere sat a cat.\n",
        dev=HEADER + "1\t1\t2\t今日\t映画 cat\n",
        test=HEADER + f"1\t1\t2\t{'cat ' * 19}\tdog\n",
    )
    flags = ("--data_dir", str(data), "--model_name_or_path", str(tmp_path))
    run(script, tmp_path / "out", *flags)
    printed = capsys.readouterr().out
    expected = "train: 6 of 13 tokens (46.2%) are unknown\n"
    assert printed.count("are unknown") == 2 and expected in printed
    assert "test: 1 of 23 tokens (4.3%) are unknown\n" in printed
    assert printed.index(expected) < printed.index("train: 1 batches")
    run(script, tmp_path / "out", "--smoke", "--data_dir", str(data))
    assert "are unknown" not in capsys.readouterr().out


def test_pairs_that_may_be_cut_are_counted_before_they_are_padded(script, tmp_path, capsys):
    """[CLS] a [SEP] b [SEP]: pairs of 10, 11 and 12 tokens, of which 10 fit."""
    rows = "".join(f"1\t1\t2\t{'cat ' * length}\tcat\n" for length in (6, 7, 8, 1))
    data = save_glue(tmp_path / "glue", train=HEADER + rows, dev=HEADER + "1\t1\t2\tcat\tcat\n")
    flags = ("--smoke", "--data_dir", str(data))
    saved = run(script, tmp_path / "out", *flags, "--max_seq_length", "10")
    assert saved["train"]["attention_mask"].sum(1).tolist() == [10, 10, 10, 5]
    printed = capsys.readouterr().out
    expected = "train: 3 of 4 pairs fill --max_seq_length: longer ones are cut\n"
    assert printed.count("are cut") == 1 and expected in printed
    assert printed.index(expected) < printed.index("train: 1 batches")
    run(script, tmp_path / "out", *flags, "--max_seq_length", "13")
    assert "are cut" not in capsys.readouterr().out


def test_labels_that_are_known_are_counted(script, tmp_path, capsys):
    """A -1 is taken in a training file, too: the table shows how many there are."""
    rows = "".join(f"{label}\t1\t2\tcat\tmat\n" for label in (1, -1, 0, -1, -1))
    test = "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tcat\tmat\n"
    data = save_glue(tmp_path / "glue", train=HEADER + rows, test=test)
    run(script, tmp_path / "out", "--smoke", "--data_dir", str(data))
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    counts = {split: (found["pairs"], found["labelled"]) for split, found in results.items()}
    assert counts == {"train": (5, 2), "test": (1, 0)}
    assert re.search(r"^labelled +2 +0$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ['it\'s "mine" $HOME `x`', "-dash; echo * back\\slash\\n {0} %s Übung 中 …"]
)
def test_next_works_as_printed_whatever_the_folder_is_called(script, tmp_path, name, capsys):
    folder = tmp_path / name
    saved = run(script, folder, "--smoke")
    command = capsys.readouterr().out.rpartition("Next:\n")[2]
    binaries = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env=os.environ | {"PATH": binaries},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(saved["train"])


def test_smoke_says_that_its_vocabulary_is_a_tiny_one(script, vocabulary_folder, tmp_path, capsys):
    data = ("--data_dir", str(save_glue(tmp_path / "glue", train=TRAIN)))
    note = "The vocabulary is a tiny one of these pairs: with a real one all figures differ\nNext:"
    run(script, tmp_path / "out", "--smoke", *data)
    assert note in capsys.readouterr().out
    run(script, tmp_path / "out", *data, "--model_name_or_path", str(vocabulary_folder))
    assert "tiny" not in capsys.readouterr().out
