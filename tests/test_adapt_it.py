"""The diffs under "Adapt it" in the READMEs: each applies, and the changed script passes its smoke run."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import transformers
from conftest import SCRIPTS, load_script, need

pytestmark = pytest.mark.slow


def changes_of(name):
    """The diffs of the script's part of its folder's README: of each its hunks, as old and new text."""
    text = (SCRIPTS[name].parent / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^(?=## \w+\.py:)", text, flags=re.MULTILINE)
    text = next((part for part in parts if part.startswith(f"## {name}.py:")), text)
    for block in re.findall(r"```diff\n(.*?)```", text, re.DOTALL):
        hunks = [hunk.splitlines(keepends=True) for hunk in block.split("@@\n")]
        yield [
            tuple(
                "".join(line[1:] or "\n" for line in hunk if line[0] in marks)
                for marks in (" -\n", " +\n")
            )
            for hunk in hunks
        ]


def apply(change, source):
    for old, new in change:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    ast.parse(source)
    return source


@pytest.mark.parametrize("name", SCRIPTS)
def test_diffs_apply_and_the_changed_script_runs(name, tmp_path):
    need(name)
    source, changes = SCRIPTS[name].read_text(encoding="utf-8"), list(changes_of(name))
    assert len(changes) >= 2
    together = source
    for change in changes:
        apply(change, source)
        if len(change) == 1:  # the longer ones have tests of their own
            together = apply(change, together)
    (tmp_path / f"{name}.py").write_text(together, encoding="utf-8")
    command = [sys.executable, f"{name}.py", "--smoke"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def adapted(name, word, tmp_path, monkeypatch):
    """The script after the diff that has this word in it, as a module."""
    (change,) = [change for change in changes_of(name) if word in str(change)]
    source = apply(change, SCRIPTS[name].read_text(encoding="utf-8"))
    path = tmp_path / f"adapted_{word.lower()}.py"
    path.write_text(source, encoding="utf-8")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, path.stem, module)  # where dataclasses look types up
    specification.loader.exec_module(module)
    return module


def train_and_predict(module, tmp_path, rows, *flags):
    """Train on rows of texts and labels, predict them with the saved model; returns metrics and table."""
    table = pd.DataFrame(rows, columns=["text", "label"])
    table.to_csv(tmp_path / "rows.csv", index=False)
    file, out = str(tmp_path / "rows.csv"), str(tmp_path / "out")
    flags = [*flags, "--output_dir", out, "--disable_tqdm", "true", "--bf16", "false"]
    module.main(["--train_file", file, "--validation_file", file, *flags])
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    predict = ["--do_predict", "--test_file", file, "--model_name_or_path", out]
    module.main([*predict, "--bf16", "false", "--output_dir", str(tmp_path / "predicted")])
    return metrics, pd.read_csv(tmp_path / "predicted" / "predictions.tsv", sep="\t", dtype=str)


def test_regression(tmp_path, monkeypatch):
    """A measure from -1 to 2.5 that the words decide; a model that knows nothing has r = 0."""
    module = adapted("bert_finetune", "measure", tmp_path, monkeypatch)
    words = {"awful": -1.0, "poor": 0.25, "fair": 1.0, "great": 2.5}
    rows = [(f"{word} film number {n}", value) for n in range(8) for word, value in words.items()]
    flags = ["--smoke", "--metric_for_best_model", "loss", "--baseline", "false"]
    flags += ["--num_train_epochs", "30"]
    metrics, table = train_and_predict(module, tmp_path, rows, *flags)
    assert metrics["eval_r"] > 0.9
    found, expected = table["measure"].astype(float), [value for _, value in rows]
    assert np.corrcoef(found, expected)[0, 1] == pytest.approx(metrics["eval_r"], abs=1e-4)
    assert np.abs(found - expected).mean() < 0.5


def test_several_labels(tmp_path, monkeypatch):
    module = adapted("bert_finetune", "multi_label", tmp_path, monkeypatch)
    kinds = [
        ("fire and rain", "hot|wet"),
        ("fire", "hot"),
        ("rain", "wet"),
        ("ice and rain", "cold|wet"),
    ]
    rows = [(f"{text} number {n}", label) for n in range(8) for text, label in kinds]
    metrics, table = train_and_predict(
        module, tmp_path, rows, "--smoke", "--baseline", "false", "--num_train_epochs", "30"
    )
    assert metrics["eval_accuracy"] > 0.9
    assert (table["label"] == [label for _, label in rows]).mean() == metrics["eval_accuracy"]
    assert list(table)[-3:] == ["cold", "hot", "wet"]


ENCODERS = {
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "roberta": ("Roberta", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}),
    "deberta-v2": (
        "DebertaV2",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    ),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_other_encoders(kind, tmp_path, monkeypatch):
    module = adapted("bert_finetune", "AutoConfig", tmp_path, monkeypatch)
    family, size = ENCODERS[kind]
    rows = [(f"{word} film", label) for word, label in (("good", "yes"), ("bad", "no"))] * 8
    tokenizer_class = (
        transformers.RobertaTokenizer if kind == "roberta" else transformers.BertTokenizer
    )
    tokenizer = tokenizer_class().train_new_from_iterator([text for text, _ in rows], 300)
    config = getattr(transformers, f"{family}Config")
    size |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = config(max_position_embeddings=130, **size)
    model = getattr(transformers, f"{family}Model")(config)  # no head
    for part in (tokenizer, model):
        part.save_pretrained(tmp_path / kind)
    flags = [
        "--model_name_or_path",
        str(tmp_path / kind),
        "--learning_rate",
        "1e-2",
        "--num_train_epochs",
        "10",
    ]
    metrics, table = train_and_predict(
        module, tmp_path, rows, *flags, "--per_device_train_batch_size", "4"
    )
    assert metrics["eval_accuracy"] == 1
    assert list(table["label"]) == [label for _, label in rows]


CAPITALS = [("Reise", "Journey"), ("reise", "journey"), ("MUT", "COURAGE"), ("mut", "Mood")]


def test_capital_letters(tmp_path, monkeypatch, capsys):
    """The LSTM tells them apart and counts them; a saved model needs no adapted script later."""
    need("seq2seq_lstm")
    module = adapted("seq2seq_lstm", "lowercase=True", tmp_path, monkeypatch)
    file, out = tmp_path / "pairs.tsv", str(tmp_path / "out")
    file.write_text("".join(f"{source}\t{target}\n" for source, target in CAPITALS))
    flags = ["--hidden_size", "48", "--embedding_dim", "24", "--batch_size", "4", "--no-bf16"]
    module.main(["--smoke", "--train_file", str(file), "--output_dir", out, *flags])
    printed = capsys.readouterr().out
    assert "sacrebleu: nrefs:1|case:mixed" in printed and "case:lc" not in printed
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert metrics["test_chrf"] == pytest.approx(100)
    sources = [source for source, _ in CAPITALS]
    load_script("seq2seq_lstm").main(["--model_name_or_path", out, "--text", *sources])
    assert capsys.readouterr().out.splitlines() == [target for _, target in CAPITALS]
