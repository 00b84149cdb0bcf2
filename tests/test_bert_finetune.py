"""bert_finetune.py: what a user sees of it, and its batches and metrics against independent computations."""

import copy
import csv
import itertools
import json
import os
import re
import shlex
import shutil
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from conftest import SCRIPTS, load_script
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    TrainingArguments,
    pipeline,
)

bert = load_script("bert_finetune")
TINY = ["--smoke", "--num_train_epochs", "1", "--save_strategy", "no", "--disable_tqdm", "true"]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


@pytest.fixture(scope="module")
def trained(smoke):
    """Output folder of the smoke run."""
    done, output = smoke("bert_finetune")
    assert done.returncode == 0, done.stderr
    return output


def test_smoke_alone_in_an_empty_folder(smoke):
    done, output = smoke("bert_finetune")
    assert done.returncode == 0, done.stderr
    expected = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    expected |= {
        "all_results.json",
        "confusion_matrix.png",
        "training_curve.png",
        "predictions.tsv",
    }
    assert {path.name for path in output.iterdir()} == expected
    assert json.loads((output / "all_results.json").read_text())["eval_accuracy"] == 1
    assert "--do_predict --test_file" in done.stdout


def test_saved_model_classifies_every_sample_in_a_pipeline(trained):
    classify = pipeline("text-classification", model=str(trained), device="cpu")
    for name in ("train", "validation"):
        texts, labels = zip(*bert.SAMPLE[name], strict=True)
        assert len(texts) >= {"train": 40, "validation": 12}[name]
        assert [answer["label"] for answer in classify(list(texts))] == list(labels)


@pytest.mark.slow
def test_no_network_ends_in_one_line(run_alone):
    done = run_alone("bert_finetune", timeout=20)
    assert done.returncode == 2
    assert (
        done.stderr.strip().splitlines()[-1].startswith("error: cannot download bert-base-uncased")
    )
    assert "--smoke" in done.stderr and "local folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_predictions_of_a_saved_model_stand_in_file_order(trained, tmp_path):
    texts = [
        "I love it, wonderful and delicious and friendly staff.",
        "awful",
        "A dull and boring and stupid film.",
    ] * 3
    test_file = write(tmp_path / "test.csv", "text\n" + "".join(f'"{text}"\n' for text in texts))
    bert.main(
        [
            "--do_predict",
            "--test_file",
            test_file,
            "--model_name_or_path",
            str(trained),
            "--output_dir",
            str(tmp_path),
        ]
    )
    predicted = pd.read_csv(tmp_path / "predictions.tsv", sep="\t")
    assert predicted["text"].tolist() == texts
    assert predicted["label"].tolist() == ["positive", "negative", "negative"] * 3
    model, tokenizer = (
        BertForSequenceClassification.from_pretrained(trained),
        BertTokenizer.from_pretrained(trained),
    )
    for text, probability in zip(predicted["text"], predicted["probability"], strict=True):
        with torch.no_grad():
            logits = model.eval()(**tokenizer(text, return_tensors="pt")).logits
        assert probability == pytest.approx(logits.softmax(-1).max().item(), abs=0.01)
    assert not (tmp_path / "model.safetensors").exists()


TEXTS = ["good", "a very good film with a long text of many words", "bad bad film", "no"]
LABELS = [1, 0, 0, 1]


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizer().train_new_from_iterator(TEXTS, vocab_size=200, show_progress=False)


@pytest.mark.parametrize("text_pairs", [None, ["a film", "no", "good", "words of many films"]])
@pytest.mark.parametrize("labels", [None, LABELS])
def test_dataset_yields_padded_and_cut_tensors(tokenizer, text_pairs, labels):
    dataset = bert.TextClassificationDataset(TEXTS, tokenizer, text_pairs, labels, max_seq_length=8)
    options = {"padding": "max_length", "truncation": True, "max_length": 8}
    assert len(dataset) == 4
    for i, text in enumerate(TEXTS):
        expected = tokenizer(text, text_pairs and text_pairs[i], **options)
        item = dataset[i]
        for name in ("input_ids", "token_type_ids", "attention_mask"):
            assert item[name].dtype == torch.int64 and item[name].shape == (8,)
            assert item[name].tolist() == expected[name]
        assert dataset.lengths[i] == sum(expected["attention_mask"])
        if labels is None:
            assert "labels" not in item
        else:
            assert item["labels"].dtype == torch.int64 and item["labels"].shape == ()
            assert item["labels"] == labels[i]


def test_dataset_tokenizes_every_row_of_many_and_holds_small_integers(tokenizer):
    texts = [TEXTS[i % 4] for i in range(2501)]  # tokenized 1,000 at a time
    dataset = bert.TextClassificationDataset(texts, tokenizer, max_seq_length=16)
    for i in (0, 999, 1000, 2500):
        expected = tokenizer(texts[i], padding="max_length", truncation=True, max_length=16)
        assert dataset[i]["input_ids"].tolist() == expected["input_ids"]
    assert sum(row.nbytes for row in dataset.rows) == 8 * dataset.lengths.sum()  # bytes a token


def test_cut_batch_has_the_loss_and_logits_of_the_uncut_batch(tokenizer):
    dataset = bert.TextClassificationDataset(TEXTS, tokenizer, labels=LABELS)
    torch.manual_seed(0)
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(tokenizer), **size, initializer_range=0.5)
    ).eval()
    uncut = torch.utils.data.default_collate([dataset[i] for i in range(4)])
    cut = bert.cut_padding([dataset[i] for i in range(4)])
    assert cut["input_ids"].shape[1] == max(dataset.lengths) < uncut["input_ids"].shape[1] == 128
    with torch.no_grad():
        full, short = model(**uncut), model(**cut)
    torch.testing.assert_close(short.logits, full.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(short.loss, full.loss, atol=1e-5, rtol=0)


def test_sampler_groups_by_length_and_depends_on_seed_and_epoch_alone():
    lengths = torch.from_numpy(np.random.default_rng(0).integers(5, 100, 1003))
    epochs = [0]
    sampler = bert.ShuffledBatchesSampler(8, lengths, seed=1, epoch=lambda: epochs[-1])
    first = list(sampler)
    assert sorted(first) == list(range(1003))
    epochs.append(1)
    assert first != list(sampler)
    epochs.append(0)
    assert first == list(sampler)
    batches = [lengths.numpy()[first[i : i + 8]] for i in range(0, 1000, 8)]
    assert np.median([np.ptp(batch) for batch in batches]) < 10
    means = np.array([batch.mean() for batch in batches])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3  # long and short batches alternate
    assert first == list(sampler)  # once more
    for seed in (1, 2):
        other = bert.ShuffledBatchesSampler(8, lengths, seed=seed, epoch=lambda: 0)
        assert (first == list(other)) == (seed == 1)


def test_few_rows_are_grouped_as_tightly_as_many():
    lengths = torch.from_numpy(np.random.default_rng(0).integers(5, 100, 200))
    order = list(bert.ShuffledBatchesSampler(32, lengths, seed=0, epoch=lambda: 0))
    padded = sum(int(lengths[rows].max()) * len(rows) for rows in torch.tensor(order).split(32))
    assert int(lengths.sum()) / padded > 0.85


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_fast_dropout_does_what_dropout_does(p, dtype):
    x = torch.ones(1001, 333, dtype=dtype, requires_grad=True)
    torch.manual_seed(0)
    output = bert.fast_dropout(x, p)
    kept = (output != 0).double()
    assert abs(1 - kept.mean() - p) < 4 * (p * (1 - p) / x.numel()) ** 0.5
    scaled = torch.full((1,), 1 / (1 - p), dtype=dtype)
    torch.testing.assert_close(output.unique(), torch.cat([torch.zeros(1, dtype=dtype), scaled]))
    for distance in (1, 2, 3, 4, 333):  # four elements share a random number
        pairs = torch.stack([kept.flatten()[:-distance], kept.flatten()[distance:]])
        assert abs(torch.corrcoef(pairs)[0, 1]) < 4 / x.numel() ** 0.5
    output.sum().backward()
    assert torch.equal(x.grad, output)
    assert not torch.equal(bert.fast_dropout(x, p), output)
    torch.manual_seed(0)
    assert torch.equal(bert.fast_dropout(x, p), output)
    assert torch.equal(bert.fast_dropout(x, p, training=False), x)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_fast_dropout_of_nothing_and_of_all(p):
    assert torch.equal(bert.fast_dropout(torch.ones(5), p), torch.full((5,), 1 - p))


def test_attention_with_fast_dropout_is_pytorchs_on_average():
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = BertConfig(vocab_size=50, intermediate_size=16, initializer_range=0.5, **size)
    config.attention_probs_dropout_prob = 0.2
    model = BertForSequenceClassification(config).bert.encoder.layer[0].attention.self
    model.config = config
    hidden = torch.randn(1, 7, 16)
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 5:] = torch.finfo(torch.float32).min  # padding
    config._attn_implementation = "eager"
    expected = model.eval()(hidden, attention_mask=mask)[0]
    dropout = torch.nn.functional.dropout
    try:
        torch.nn.functional.dropout = bert.fast_dropout
        many = model.train()(hidden.expand(20_000, -1, -1), attention_mask=mask)[0]
    finally:
        torch.nn.functional.dropout = dropout
    torch.testing.assert_close(many.mean(0), expected[0], atol=0.05, rtol=0)
    assert many.std(0).min() > 0.01
    assert not torch.equal(many[0], many[1])


def test_a_model_within_faster_dropout_says_the_same_and_is_afterwards_what_it_was():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, **bert.TINY_SIZE, initializer_range=0.5)
    plain = BertForSequenceClassification(config).eval()
    model, dropout = copy.deepcopy(plain), torch.nn.functional.dropout
    before = (model.config._attn_implementation, model.config.to_dict(), str(model))
    batch = {"input_ids": torch.randint(0, 50, (3, 9)), "attention_mask": torch.ones(3, 9).long()}
    batch["attention_mask"][1, 4:] = 0
    drawn = []
    with torch.no_grad(), bert.faster_dropout(model):
        torch.testing.assert_close(model(**batch).logits, plain(**batch).logits)
        assert torch.nn.functional.dropout is bert.fast_dropout
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            drawn.append(model.train()(**batch).logits)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert (drawn[0] - plain(**batch).logits).abs().max() > 1e-3  # it does drop
    assert torch.nn.functional.dropout is dropout
    assert (model.config._attn_implementation, model.config.to_dict(), str(model.eval())) == before
    with pytest.raises(KeyboardInterrupt), bert.faster_dropout(model):
        raise KeyboardInterrupt
    assert torch.nn.functional.dropout is dropout
    assert model.config._attn_implementation == before[0]


def test_metrics_are_scikit_learns(trained, capsys):
    results = json.loads((trained / "all_results.json").read_text())
    assert results["eval_accuracy"] == results["eval_f1_macro"] == 1
    labels = np.array([0, 1, 1])
    metrics = bert.accuracy_and_f1(labels, [0, 1, 0])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["f1_macro"] == pytest.approx(f1_score(labels, [0, 1, 0], average="macro"))
    # A class that is in no row and in no prediction does not count, as in the printed table.
    assert bert.accuracy_and_f1(labels, labels)["f1_macro"] == 1


ROWS = [
    ("great film", "good"),
    ("awful film", "bad"),
    ('a "quoted, film', "good"),
    ("None of it", "bad"),
]


@pytest.mark.parametrize(
    "kind", ["csv", "tsv", "jsonl", "parquet", "headerless.tsv", "bom.csv", "crlf.tsv"]
)
def test_file_formats(kind, tmp_path):
    table = pd.DataFrame(ROWS, columns=["text", "label"])
    path = tmp_path / f"train.{kind}"
    names = None
    if kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    elif kind == "parquet":
        table.to_parquet(path)
    elif kind.endswith("csv"):
        table.to_csv(path, index=False, encoding="utf-8-sig" if "bom" in kind else "utf-8")
    else:
        names = ["text", "label"] if "headerless" in kind else None
        lines = [] if names else ["text\tlabel"]
        newline = "\r\n" if "crlf" in kind else "\n"
        write(path, newline.join(lines + ["\t".join(row) for row in ROWS]))
    args = bert.ScriptArguments(column_names=names)
    assert (
        list(bert.load_table(str(path), args, "train").itertuples(index=False, name=None)) == ROWS
    )


def test_own_file_with_pairs_string_labels_and_three_classes(tmp_path):
    rows = [
        ("one cat", "a cat", "same"),
        ("one dog", "two cats", "other"),
        ("a hat", "the sea", "None"),
    ] * 4
    pd.DataFrame(rows, columns=["first", "second", "verdict"]).to_csv(
        tmp_path / "pairs.csv", index=False
    )
    files = [
        "--train_file",
        str(tmp_path / "pairs.csv"),
        "--validation_file",
        str(tmp_path / "pairs.csv"),
    ]
    columns = [
        "--text_column",
        "first",
        "--text_pair_column",
        "second",
        "--label_column",
        "verdict",
    ]
    bert.main(
        [*TINY, *files, *columns, "--max_seq_length", "16", "--output_dir", str(tmp_path / "out")]
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "None", "1": "other", "2": "same"}
    assert "eval_accuracy" in json.loads((tmp_path / "out" / "all_results.json").read_text())


def test_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path):
    steps = [
        "--smoke",
        "--num_train_epochs",
        "3",
        "--save_strategy",
        "steps",
        "--save_steps",
        "4",
        "--output_dir",
    ]
    bert.main([*steps, str(tmp_path / "whole")])

    class Interrupted(bert.ClassificationTrainer):
        def _maybe_log_save_evaluate(self, *args, **kwargs):
            super()._maybe_log_save_evaluate(*args, **kwargs)
            if self.state.global_step == 14:
                raise KeyboardInterrupt

    whole, bert.ClassificationTrainer = bert.ClassificationTrainer, Interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            bert.main([*steps, str(tmp_path / "cut")])
    finally:
        bert.ClassificationTrainer = whole
    assert (tmp_path / "cut" / "checkpoint-12").is_dir()
    (tmp_path / "cut" / "checkpoint-99").mkdir()  # what a killed save leaves
    (tmp_path / "cut" / "checkpoint-99" / "config.json").write_text("{}")
    bert.main([*steps, str(tmp_path / "cut"), "--resume_from_checkpoint", "last"])
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_functions_raise_an_exception_that_a_program_can_catch(tokenizer, tmp_path):
    with pytest.raises(bert.InputError, match="two classes"):
        bert.class_names(pd.Series(["x", "x"]))
    with pytest.raises(bert.InputError, match="cannot load"):
        bert.pretrained(str(tmp_path))
    with pytest.raises(bert.InputError, match="no 'text' among .*--text_column"):
        bert.load_table(write(tmp_path / "a.csv", "a,b\n1,2\n"), bert.ScriptArguments(), "train")
    with pytest.raises(bert.InputError, match="max_seq_length"):
        bert.main(["--smoke", "--max_seq_length", "0"])


def test_readme_block_classifies_with_the_functions_alone(trained, tmp_path, monkeypatch):
    """The README's first Python block, in a folder that holds what a smoke run has left."""
    readme = (SCRIPTS["bert_finetune"].parent / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    shutil.copytree(trained, tmp_path / "outputs" / "bert_finetune")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(block, found)
    assert found["probabilities"].shape == (2, 2)
    assert found["predicted"].tolist() == ["positive", "negative"]
    assert found["probabilities"].idxmax(axis=1).tolist() == ["positive", "negative"]


def test_one_row_is_enough_to_evaluate_and_the_next_command_fits_the_model(
    trained, tmp_path, capsys
):
    rows = write(tmp_path / "rows.csv", "sentence,label\nI love it.,positive\n")
    flags = ["--validation_file", rows, "--text_column", "sentence", "--max_seq_length", "32"]
    flags += [
        "--do_eval",
        "--model_name_or_path",
        str(trained),
        "--output_dir",
        str(tmp_path / "a b"),
    ]
    bert.main(flags)
    following = shlex.split(capsys.readouterr().out.rsplit("Next:\n", 1)[1])[2:]
    args, _ = bert.parse_arguments(following)
    assert args.model_name_or_path == str(trained)
    assert (args.text_column, args.max_seq_length) == ("sentence", 32)


def tiny_model(tokenizer, **settings):
    """An untrained BERT of a few thousand weights."""
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), intermediate_size=32, **size, **settings)
    return BertForSequenceClassification(config)


def test_trainer_of_plain_training_arguments_does_what_they_say(tokenizer, tmp_path):
    rows = bert.TextClassificationDataset(TEXTS, tokenizer, labels=LABELS, max_seq_length=16)
    options = {"save_strategy": "epoch", "report_to": "none", "use_cpu": True}
    options |= {"eval_strategy": "epoch", "load_best_model_at_end": True}
    training_args = TrainingArguments(str(tmp_path), num_train_epochs=2, **options)
    trainer = bert.build_trainer(
        tiny_model(tokenizer), tokenizer, training_args, {"train": rows, "validation": rows}
    )
    bert.train(trainer)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.state.best_metric == min(losses)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses))


@pytest.fixture
def checkpoint(tokenizer, tmp_path):
    """Save a model and its tokenizer; its configuration is then what the test makes of it."""

    def save(classes=2, **settings):
        torch.manual_seed(0)
        folder = tmp_path / "checkpoint"
        tiny_model(tokenizer, num_labels=classes).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    return save


@pytest.mark.parametrize("order", list(itertools.permutations("012")))
def test_names_of_classes_follow_their_numbers_everywhere(order, checkpoint, tmp_path, capsys):
    """Whatever stands first in the file, and whatever the file says in the other direction."""
    names = {"0": "bad", "1": "fair", "2": "good"}
    id2label = {number: names[number] for number in order}
    folder = checkpoint(3, id2label=id2label, label2id={"bad": 2, "fair": 0, "good": 1})
    rows = write(tmp_path / "rows.csv", "text,label\n" + "".join(f"{t},good\n" for t in TEXTS))
    out = ["--output_dir", str(tmp_path / "out"), "--model_name_or_path", folder]
    bert.main(["--validation_file", rows, "--test_file", rows, "--do_eval", "--do_predict", *out])
    tokenizer, model = bert.pretrained(folder)
    logits = model(**tokenizer(TEXTS, return_tensors="pt", padding=True)).logits
    expected = [names[str(int(number))] for number in logits.argmax(-1)]
    table = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    assert table["label"].tolist() == expected
    output = capsys.readouterr().out
    shown = re.findall(r"^  (\w+) 0\.\d+  ", output, re.MULTILINE)
    assert shown == expected
    support = dict(re.findall(r"^ +(bad|fair|good) .* (\d+)$", output, re.MULTILINE))
    occurring = dict.fromkeys(expected, "0") | {"good": str(len(TEXTS))}
    assert support == occurring
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert metrics["eval_accuracy"] == pytest.approx(expected.count("good") / len(TEXTS))


def test_names_that_are_numbers_are_sorted_as_numbers(tmp_path):
    labels = [str(number) for number in range(11, -1, -1)]
    assert bert.class_names(pd.Series(labels)) == labels[::-1]
    assert bert.class_names(pd.Series(["10", "-1", "2", "2.5"])) == ["-1", "2", "2.5", "10"]
    assert bert.class_names(pd.Series(["10", "x", "2"])) == ["10", "2", "x"]


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_checkpoints_for_other_problems_are_trained_on_classes(problem, checkpoint, tmp_path):
    folder = checkpoint(2, problem_type=problem)
    rows = write(tmp_path / "rows.csv", "text,label\ngood film,1\nbad film,0\n")
    flags = ["--model_name_or_path", folder, "--output_dir", str(tmp_path / "out")]
    with pytest.raises(bert.InputError, match="single labels"):
        bert.main([*flags, "--do_predict", "--test_file", rows])
    bert.main([*flags, "--train_file", rows, "--validation_file", rows, "--max_steps", "2"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["problem_type"] == "single_label_classification"


@pytest.mark.parametrize(
    ("labels", "scored"),
    [(["-1", "-1", "-1"], 0), (["", " ", ""], 0), (["negative", "", "-1"], 1), ([None] * 3, 0)],
)
def test_test_rows_without_labels_are_predicted(labels, scored, trained, tmp_path):
    """Those that have one are scored."""
    rows = str(tmp_path / "new.parquet")
    texts = ["I hate the rude staff.", "I love it.", "A dull plot."]
    pd.DataFrame({"text": texts, "label": labels}).to_parquet(rows)
    flags = ["--do_predict", "--test_file", rows, "--model_name_or_path", str(trained)]
    bert.main([*flags, "--output_dir", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    assert table["label"].tolist() == ["negative", "positive", "negative"]
    given = [label for label in labels if label and label.strip()]
    assert ("true_label" in table) == bool(given)
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert metrics.get("test_accuracy") == (1.0 if scored else None)
    assert metrics.get("test_f1_macro") == (1 if scored else None)


def test_a_class_of_the_name_minus_one_is_a_class(tmp_path):
    rows = write(tmp_path / "rows.csv", "text,label\ngood,1\nbad,-1\n")
    flags = ["--smoke", "--train_file", rows, "--test_file", rows, "--max_steps", "30"]
    bert.main([*flags, "--output_dir", str(tmp_path / "out")])
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert metrics["test_accuracy"] == 1


READERS = {
    "carriage returns.csv": b"text,label\rgood film,1\rbad film,0\r",
    "carriage returns.tsv": b"text\tlabel\rgood film\t1\rbad film\t0\r",
    "carriage returns.jsonl": b'{"text": "good film", "label": 1}\r{"text": "bad film", "label": 0}\r',
    "bom.jsonl": b'\xef\xbb\xbf{"text": "good film", "label": 1}\n\n{"text": "bad film", "label": 0}\n',
    "bom.csv": b"\xef\xbb\xbftext,label\r\ngood film,1\r\nbad film,0\r\n",
    "spaces.csv": b"text,label\ngood film, 1\nbad film,0 \ngood film,1\n",
}


@pytest.mark.parametrize("name", READERS)
def test_files_of_other_systems_are_read(name, tmp_path):
    (tmp_path / name).write_bytes(READERS[name])
    table = bert.load_table(str(tmp_path / name), bert.ScriptArguments(), "train")
    assert table["text"].tolist()[:2] == ["good film", "bad film"]
    assert table["label"].tolist() == ["1", "0", "1"][: len(table)]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_other_separators_do_not_end_a_row(separator, tmp_path):
    text = f"good{separator}film"
    (tmp_path / "a.csv").write_text(f"text,label\n{text},1\nbad,0\n", encoding="utf-8")
    (tmp_path / "a.tsv").write_text(f"text\tlabel\n{text}\t1\nbad\t0\n", encoding="utf-8")
    if separator > "\x7f":  # JSON has no control characters in its strings
        line = json.dumps({"text": text, "label": 1}, ensure_ascii=False)
        (tmp_path / "a.jsonl").write_text(
            f'{line}\n{{"text": "bad", "label": 0}}\n', encoding="utf-8"
        )
    for file in tmp_path.glob("a.*"):
        table = bert.load_table(str(file), bert.ScriptArguments(), "train")
        assert table["text"].tolist() == [text, "bad"]


def test_parquet_of_a_table_with_an_index_and_numbers_beside_gaps(tmp_path):
    columns = {"text": ["a", "b", "c"], "label": [1.0, 0.0, None]}
    table = pd.DataFrame(columns, index=["x", "y", "z"])
    table.to_parquet(tmp_path / "rows.parquet")
    found = bert.load_table(str(tmp_path / "rows.parquet"), bert.ScriptArguments(), "test")
    assert found["label"].tolist() == ["1", "0", ""]
    table.head(2).rename_axis("text_number").to_parquet(tmp_path / "named.parquet")
    found = bert.load_table(str(tmp_path / "named.parquet"), bert.ScriptArguments(), "train")
    assert found["text"].tolist() == ["a", "b"]


def test_a_tab_in_a_label_does_not_break_the_predictions(tmp_path):
    columns = {"text": ["good film", "bad film"], "label": ["very\tgood", "bad"]}
    pd.DataFrame(columns).to_parquet(tmp_path / "rows.parquet")
    rows = str(tmp_path / "rows.parquet")
    flags = ["--smoke", "--train_file", rows, "--test_file", rows, "--max_steps", "30"]
    bert.main([*flags, "--output_dir", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    assert table["label"].tolist() == ["very good", "bad"]


def test_control_tokens_in_a_text_are_text(tokenizer):
    texts = ["good [SEP] film", "[CLS] [PAD] [MASK] [UNK]"]
    rows = bert.TextClassificationDataset(texts, tokenizer, max_seq_length=40)
    for row in rows:
        ids = row["input_ids"][row["attention_mask"] == 1].tolist()
        assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
        inside = set(ids[1:-1])
        assert inside.isdisjoint(
            {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
        )


@pytest.mark.parametrize(
    "texts",
    [
        ["这部电影很好看", "那家餐馆很糟糕"],
        ["이 영화는 정말 좋았다", "그 식당은 매우 나빴다"],
        ["Der Film war schön und rührend", "Das Essen war kühl und zäh"],
    ],
)
def test_smoke_learns_the_letters_of_every_language(texts, tmp_path):
    rows = "text,label\n" + "".join(f"{text},{text[-2:]}\n" for text in texts)
    file = write(tmp_path / "rows.csv", rows)
    flags = ["--smoke", "--train_file", file, "--test_file", file, "--max_steps", "40"]
    bert.main([*flags, "--output_dir", str(tmp_path / "out")])
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert metrics["test_accuracy"] == 1
    saved = BertTokenizer.from_pretrained(tmp_path / "out")
    assert all(saved.unk_token_id not in saved(text)["input_ids"] for text in texts)


def confusion_matrix(labels, predicted, names, folder, monkeypatch):
    """The picture of `evaluate`, for such predictions."""
    figures = []
    probabilities = pd.DataFrame(0.5, index=range(len(labels)), columns=names)
    numbers = torch.tensor([names.index(label) for label in labels])
    monkeypatch.setattr(bert, "predict", lambda *_: (predicted, probabilities, {}))
    monkeypatch.setattr(bert.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    trainer = SimpleNamespace(args=SimpleNamespace(output_dir=folder))
    bert.evaluate(trainer, SimpleNamespace(labels=numbers), ["a text"])
    return figures[0]


@pytest.mark.parametrize("count", [60, 10_000])
def test_many_classes(count, tmp_path, capsys, monkeypatch):
    """A picture of the 30 most frequent in rows or predictions, and the table on the screen."""
    generator = np.random.default_rng(0)
    names = [f"class {number}" for number in range(count)]
    labels = np.array(generator.choice(names, 2 * count))
    predicted = labels.copy()
    predicted[::2] = "class 3"
    labels[1::2] = "class 7"
    with monkeypatch.context() as patch:
        figure = confusion_matrix(labels, predicted, names, tmp_path, patch)
    shown = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert len(shown) == 30 and {"class 3", "class 7"} <= set(shown)
    assert figure.get_suptitle() == f"The 30 most frequent classes of {count}"
    assert shown == sorted(shown, key=lambda name: int(name.split()[1]))
    if count == 60:
        rows = "text,label\n" + "".join(f"a{number},{name}\n" for number, name in enumerate(names))
        file = write(tmp_path / "rows.csv", rows)
        flags = ["--smoke", "--train_file", file, "--validation_file", file, "--max_steps", "1"]
        bert.main([*flags, "--output_dir", str(tmp_path / "out")])
        assert "class 59" in capsys.readouterr().out


@pytest.mark.parametrize("stated", [None, False])
def test_a_vocabulary_with_capitals_keeps_them(stated, tmp_path):
    """Older folders hold vocab.txt alone, which the library would read in small letters."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Der", "der", "Hund", "hund"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = BertConfig(vocab_size=len(words), intermediate_size=8, **size)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    if stated is not None:
        settings = {"do_lower_case": stated}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer, _ = bert.pretrained(str(tmp_path))
    assert tokenizer.tokenize("Der Hund") == ["Der", "Hund"]


def test_a_vocabulary_of_small_letters_makes_letters_small(real_model):
    tokenizer, _ = bert.pretrained(str(real_model), ["a", "b"])
    assert tokenizer.tokenize("The Dog") == ["the", "dog"]


def test_names_that_look_like_mathematics_or_that_the_font_lacks_are_drawn(tmp_path, capfd):
    rows = 'text,label\ngood one,"under $10"\nbad one,"$10_to_$20"\nold one,好评\n'
    file = write(tmp_path / "rows.csv", rows)
    flags = ["--smoke", "--train_file", file, "--validation_file", file, "--max_steps", "1"]
    bert.main([*flags, "--output_dir", str(tmp_path / "out")])
    assert (tmp_path / "out" / "confusion_matrix.png").exists()
    assert "Glyph" not in capfd.readouterr().err


def test_labels_are_the_same_numbers_in_every_file(tmp_path):
    labels = {"train": [1.5, 2.0], "validation": [2.0, 2.0]}
    for split, numbers in labels.items():
        pd.DataFrame({"text": ["a", "b"], "label": numbers}).to_parquet(tmp_path / split)
        table = bert.load_table(str(tmp_path / split), bert.ScriptArguments(), split)
        assert table["label"].tolist() == [f"{number:g}" for number in numbers]


# What a practitioner asks next --------------------------------------------------------------------

WORDS = np.array([f"w{number}" for number in range(200)])


def random_rows(count, seed, signal=0.9):
    """Rows of random words whose first word gives the label in so many of ten cases."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 200, (count, 6))
    labels = np.where(rng.random(count) < signal, words[:, 0] % 2, rng.integers(0, 2, count))
    texts = [" ".join(row) for row in WORDS[words]]
    return pd.DataFrame({"text": texts, "label": labels})


def run_on(tmp_path, *flags, **tables):
    """Train the tiny model on tables of rows; returns the metrics."""
    for split, table in tables.items():
        table.to_csv(tmp_path / f"{split}.csv", index=False)
        flags += (f"--{split}_file", str(tmp_path / f"{split}.csv"))
    bert.main([*TINY, *flags, "--output_dir", str(tmp_path / "out")])
    return json.loads((tmp_path / "out" / "all_results.json").read_text())


def wilson(share, rows):
    """Wilson's interval by his formula, with the 0.975 quantile of the normal distribution."""
    z = 1.959963984540054
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * (share * (1 - share) / rows + z**2 / (4 * rows**2)) ** 0.5
    return middle - half, middle + half


@pytest.mark.parametrize("pairs", [False, True])
def test_baseline_is_trained_on_the_same_rows(pairs, tmp_path, capsys):
    train, validation = random_rows(1500, 1), random_rows(150, 2)
    flags = []
    if pairs:  # the word that decides stands in the second text
        for table in (train, validation):
            table["second"], table["text"] = table["text"], "the same in every row"
        flags = ["--text_pair_column", "second"]
    metrics = run_on(tmp_path, *flags, train=train, validation=validation)
    column = "second" if pairs else "text"
    words = np.array([row.split() for row in train[column]])
    counts, other = (
        np.array([[row.split().count(word) for word in WORDS] for row in table[column]])
        for table in (train, validation)
    )
    idf = np.log((1 + len(words)) / (1 + (counts > 0).sum(0))) + 1
    features, others = (rows * idf for rows in (counts, other))
    if pairs:  # the five words of the first text have the least weight, 1, in every row
        features, others = (
            np.concatenate([rows, np.ones((len(rows), 4)), np.full((len(rows), 1), 1)], 1)
            for rows in (features, others)
        )
    features, others = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (features, others)
    )
    model = LogisticRegression(max_iter=1000).fit(features, train["label"])
    predicted = model.predict(others)
    accuracy = (predicted == validation["label"]).mean()
    assert 0.6 < accuracy < 1
    assert metrics["baseline_accuracy"] == pytest.approx(accuracy)
    f1_macro = f1_score(validation["label"], predicted, average="macro")
    assert metrics["baseline_f1_macro"] == pytest.approx(f1_macro)
    out = capsys.readouterr().out
    for name, share in (("TF-IDF", accuracy), ("BERT", metrics["eval_accuracy"])):
        low, high = wilson(share, 150)
        assert f"  {name} {share:.3f} ({low:.3f} to {high:.3f})\n" in out


def test_baseline_is_left_out_where_it_is_not_wanted_or_too_large(tmp_path, capsys):
    rows = random_rows(40, 3)
    metrics = run_on(tmp_path, "--baseline", "false", train=rows, validation=rows)
    assert not any(name.startswith("baseline") for name in metrics)
    many = pd.DataFrame({"text": ["a b"] * 301, "label": range(301)})
    metrics = run_on(tmp_path, train=many, validation=many[:9])
    assert not any(name.startswith("baseline") for name in metrics)
    assert "TF-IDF" not in capsys.readouterr().out


@pytest.mark.parametrize("pairs", [False, True])
def test_leaks_are_counted_and_kept(pairs, tokenizer, capsys):
    """Ten rows of the validation stand in training, too; equal first texts alone are no leak."""
    rng = np.random.default_rng(0)
    texts = [" ".join(row) for row in WORDS[rng.integers(0, 200, (2500, 12))]]
    train = pd.DataFrame({"text": texts[:2000], "label": ["a", "b"] * 1000})
    validation = pd.DataFrame({"text": texts[2000:], "label": "a"})
    test = pd.DataFrame({"text": texts[2000:2003]})
    rows = rng.choice(np.arange(5, 500), 10, replace=False)
    validation.loc[rows, "text"] = train.loc[rng.choice(2000, 10), "text"].to_numpy()
    if pairs:
        train["text_pair"] = validation["text_pair"] = test["text_pair"] = "the same"
        validation.loc[1, "text"], validation.loc[1, "text_pair"] = train.loc[7, "text"], "another"
    tables = {"train": train, "validation": validation, "test": test}
    names = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    tables = {split: table.astype("string") for split, table in tables.items()}
    datasets = bert.build_datasets(tables, tokenizer, BertConfig(**names), 128)
    leaks = [line for line in capsys.readouterr().out.splitlines() if "stand" in line]
    assert leaks == ["validation: 10 of 500 rows also stand in training"]
    assert len(datasets["validation"]) == 500


def test_leaks_without_training_rows_are_no_question(trained, tmp_path, capsys):
    table = pd.DataFrame(bert.SAMPLE["train"], columns=["text", "label"])
    file = write(tmp_path / "all.csv", table.to_csv(index=False))
    flags = ["--do_eval", "--validation_file", file, "--model_name_or_path", str(trained)]
    bert.main([*flags, "--output_dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert "also stand" not in out and "TF-IDF" not in out


def test_rows_that_are_cut_are_counted(tmp_path, capsys):
    rows = pd.DataFrame({"text": ["a b c d"] * 20 + ["b"] * 20, "label": ["x", "y"] * 20})
    rows.loc[[3, 8, 11], "text"] = "a b c d a b c d"  # ten tokens
    test = pd.DataFrame({"text": ["a b c d a b"]})  # exactly eight
    run_on(tmp_path, "--max_seq_length", "8", train=rows, validation=rows[:9], test=test)
    out = capsys.readouterr().out
    assert "train: 40 rows, 3 of them cut to 8 tokens\n" in out
    assert "validation: 9 rows, 2 of them cut to 8 tokens\n" in out
    assert "test: 1 rows, 0 of them cut to 8 tokens\n" in out


def test_probability_of_every_class_is_in_the_predictions(tmp_path):
    rows = pd.DataFrame(
        {"text": ["a b", "c d", "e f"] * 4, "label": ["no", "per\thaps", "yes"] * 4}
    )
    run_on(tmp_path, train=rows, test=rows)
    table = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    names = ["text", "true_label", "label", "probability", "no", "per haps", "yes"]
    assert list(table) == names
    assert table["true_label"].tolist() == ["no", "per haps", "yes"] * 4
    classify = pipeline(
        "text-classification", model=str(tmp_path / "out"), device="cpu", top_k=None
    )
    for row, answers in zip(table.to_dict("records"), classify(list(rows["text"])), strict=True):
        for answer in answers:
            name = answer["label"].replace("\t", " ")
            assert row[name] == pytest.approx(answer["score"], abs=2e-6)


def test_early_stopping_ends_after_so_many_epochs_without_a_better_one(tmp_path):
    rows = pd.DataFrame({"text": ["a b", "c d"] * 4, "label": ["x", "y"] * 4})
    flags = ["--smoke", "--learning_rate", "1e-9", "--output_dir", str(tmp_path / "out")]
    for split in ("train", "validation"):
        rows.to_csv(tmp_path / f"{split}.csv", index=False)
        flags += [f"--{split}_file", str(tmp_path / f"{split}.csv")]
    flags += ["--metric_for_best_model", "accuracy"]
    bert.main([*flags, "--early_stopping_patience", "2"])
    assert json.loads((tmp_path / "out" / "all_results.json").read_text())["epoch"] == 3
    bert.main(flags)
    assert json.loads((tmp_path / "out" / "all_results.json").read_text())["epoch"] == 12
    for wrong in (flags[:7], [*flags, "--save_strategy", "no"]):
        with pytest.raises(bert.InputError, match="early_stopping_patience"):
            bert.main([*wrong, "--early_stopping_patience", "2"])


def test_balanced_weights_hold_in_batches_without_the_rare_class(tokenizer, tmp_path):
    """Over all batches of few rows, the gradients of both classes' scores are of one size."""
    labels = [0] * 60 + [1] * 4
    texts = [f"{TEXTS[0]} {number}" for number in range(64)]
    rows = bert.TextClassificationDataset(texts, tokenizer, labels=labels, max_seq_length=16)
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    model = tiny_model(tokenizer).train()
    trainer = bert.build_trainer(model, tokenizer, args, {"train": rows}, "balanced")
    pull = [0.0, 0.0]
    for start in range(0, 64, 8):
        wanted = torch.tensor(labels[start : start + 8])
        logits = torch.zeros(8, 2, requires_grad=True)
        stand_in = lambda logits=logits, **_: {"logits": logits}  # noqa: E731
        stand_in.training = True
        trainer.compute_loss(stand_in, {"labels": wanted}).backward()
        for label in (0, 1):
            pull[label] += logits.grad[wanted == label].abs().sum().item()
    assert pull[0] == pytest.approx(pull[1], rel=1e-5)


def test_a_model_of_one_score_is_no_classifier(tokenizer, tmp_path):
    model = tiny_model(tokenizer)
    config = transformers.BertConfig(**model.config.to_dict() | {"num_labels": 1})
    one = BertForSequenceClassification(config)
    assert one.config.num_labels == 1
    for part in (one, tokenizer):
        part.save_pretrained(tmp_path)
    with pytest.raises(bert.InputError, match="no trained classification head"):
        bert.pretrained(str(tmp_path))


# Few rows


@pytest.mark.parametrize(
    ("rows", "epochs", "batch"),
    [(100, 20, 8), (300, 20, 8), (1000, 6, 16), (1999, 3, 16), (6920, 3, 32), (10**6, 3, 32)],
)
def test_few_rows_get_many_steps_unless_the_flags_say_otherwise(rows, epochs, batch, capsys):
    _, args = bert.parse_arguments([])
    bert.choose_schedule(args, rows)
    assert (args.num_train_epochs, args.per_device_train_batch_size) == (epochs, batch)
    found = capsys.readouterr().out
    assert f"{epochs} epochs of {rows:,} rows in batches of {batch}" in found
    assert ("few rows need many steps" in found) == (rows < 1999)
    flags = ["--num_train_epochs", "2.5", "--per_device_train_batch_size", "7"]
    _, args = bert.parse_arguments(flags)
    bert.choose_schedule(args, rows)
    assert (args.num_train_epochs, args.per_device_train_batch_size) == (2.5, 7)
    assert capsys.readouterr().out == ""


def test_rows_are_held_out_by_class_and_text(capsys):
    """Of each class its share, of one row none; all rows of a text on one side."""
    rows = [(f"text {i}", "many") for i in range(50)] + [(f"other {i}", "few") for i in range(10)]
    rows += [("single", "one")] + [("text 3", "many")] * 5
    table = pd.DataFrame(rows, columns=["text", "label"])
    train, held_out = bert.hold_out(table, 0.2, seed=1)
    assert not set(train["text"]) & set(held_out["text"])
    assert sorted([*train["text"], *held_out["text"]]) == sorted(table["text"])
    counts = held_out.drop_duplicates()["label"].value_counts()
    assert counts.to_dict() == {"many": 10, "few": 2}
    assert "single" in set(train["text"])
    again = bert.hold_out(table, 0.2, seed=1)[1]
    assert held_out.equals(again) and not held_out.equals(bert.hold_out(table, 0.2, seed=2)[1])
    pairs = table.assign(text_pair=[str(i % 2) for i in range(len(table))])
    train, held_out = bert.hold_out(pairs, 0.5, seed=1)
    sides = [set(map(tuple, side[["text", "text_pair"]].to_numpy())) for side in (train, held_out)]
    assert not sides[0] & sides[1] and len(held_out) > 20


def test_a_file_alone_is_measured_on_a_part_of_it(tmp_path, capsys):
    rows = [(f"good film {i}", "yes") for i in range(20)] + [
        (f"bad film {i}", "no") for i in range(20)
    ]
    metrics = run_on(tmp_path, train=pd.DataFrame(rows, columns=["text", "label"]))
    assert "8 of 40 training rows are kept to validate with" in capsys.readouterr().out
    assert {"eval_accuracy", "baseline_accuracy"} <= metrics.keys()
    flags = ["--smoke", "--train_file", str(tmp_path / "train.csv"), "--do_train"]
    bert.main([*flags, "--output_dir", str(tmp_path / "whole"), "--num_train_epochs", "1"])
    assert "kept to validate" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "loss"])
def test_of_equal_epochs_the_one_of_the_lower_loss_is_kept(name, tokenizer, tmp_path, monkeypatch):
    """Accuracy is the same in all epochs, the loss lowest in the second."""
    losses = iter([0.9, 0.2, 0.5])
    evaluate = transformers.Trainer.evaluation_loop

    def fixed(self, *others, **options):
        output = evaluate(self, *others, **options)
        output.metrics.update(eval_loss=next(losses), eval_accuracy=0.5, eval_f1_macro=0.5)
        return output

    monkeypatch.setattr(transformers.Trainer, "evaluation_loop", fixed)
    flags = ["--metric_for_best_model", name, "--num_train_epochs", "3", "--use_cpu"]
    _, args = bert.parse_arguments([*flags, "--output_dir", str(tmp_path)])
    dataset = bert.TextClassificationDataset(TEXTS, tokenizer, labels=LABELS)
    datasets = {"train": dataset, "validation": dataset}
    trainer = bert.build_trainer(tiny_model(tokenizer), tokenizer, args, datasets)
    trainer.train()
    first_two = trainer.state.max_steps // 3 * 2
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{first_two}")
    assert args.metric_for_best_model == name


def test_weights_and_smoothing_are_for_training_alone(tokenizer, tmp_path):
    flags = ["--label_smoothing_factor", "0.3", "--use_cpu", "--bf16", "false"]
    _, args = bert.parse_arguments([*flags, "--output_dir", str(tmp_path)])
    dataset = bert.TextClassificationDataset(TEXTS[:3], tokenizer, labels=LABELS[:3])
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.classifier.weight.mul_(100)
    datasets = {"train": dataset, "validation": dataset}
    trainer = bert.build_trainer(model, tokenizer, args, datasets, class_weights="balanced")
    batch = bert.cut_padding([dataset[i] for i in range(len(dataset))])
    logits, labels = model.eval()(**batch).logits, torch.tensor(LABELS[:3])
    plain = torch.nn.functional.cross_entropy(logits, labels)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.item(), abs=1e-5)
    counts = np.bincount(LABELS[:3])
    balanced = torch.tensor(3 / (len(counts) * counts), dtype=torch.float32)
    model.train()
    for module in model.modules():
        if hasattr(module, "p"):
            module.p = 0.0  # no dropout
    model.set_attn_implementation("eager")
    model.config.attention_probs_dropout_prob = 0.0
    expected = torch.nn.functional.cross_entropy(
        model(**batch).logits, labels, balanced, label_smoothing=0.3
    )
    assert trainer.compute_loss(model, batch).item() == pytest.approx(expected.item(), rel=0.05)
    assert abs(expected - plain) > 1e-2


def test_a_model_that_has_learnt_nothing_says_so(tokenizer, tmp_path, capsys):
    """All rows one class, and not better than counting words: a line each, with what to try."""
    table = pd.DataFrame({"text": TEXTS, "label": [str(label) for label in LABELS]})
    model = tiny_model(tokenizer, id2label={0: "0", 1: "1"})
    with torch.no_grad():
        model.classifier.bias[1] = 99
    _, args = bert.parse_arguments(["--output_dir", str(tmp_path)])
    dataset = bert.TextClassificationDataset(TEXTS, tokenizer, labels=LABELS)
    trainer = bert.build_trainer(model, tokenizer, args, {"validation": dataset})
    accuracy = bert.evaluate(trainer, dataset, TEXTS)["eval_accuracy"]
    advice = "try --num_train_epochs 20 --learning_rate 1e-4"
    assert f"warning: all rows are called '1': {advice}" in capsys.readouterr().out
    bert.compare_with_baseline({"train": table, "validation": table}, accuracy)
    assert f"BERT is not better than counting words: {advice}" in capsys.readouterr().out
    bert.compare_with_baseline({"train": table, "validation": table}, 1.1)
    assert "warning" not in capsys.readouterr().out


def test_another_set_of_classes_is_said(checkpoint, tmp_path, capsys):
    rows = write(tmp_path / "rows.csv", "text,label\ngood film,yes\nbad film,no\n")
    flags = ["--train_file", rows, "--max_steps", "1", "--output_dir", str(tmp_path / "out")]
    bert.main([*flags, "--model_name_or_path", checkpoint(3)])
    assert "A new classification head: the 3 classes of" in capsys.readouterr().out
    bert.main([*flags, "--model_name_or_path", str(tmp_path / "out")])
    assert "classification head" not in capsys.readouterr().out


# Tables as people have them

SHEET = 'Nr;Text;Art\r\n7;Größe „M“ für 5 €;gut\r\n8;"Zeile 1\r\nZeile ""2""";schlecht\r\n'
CELLS = [("Größe „M“ für 5 €", "gut"), ('Zeile 1\nZeile "2"', "schlecht")]


@pytest.mark.parametrize(
    ("encoding", "flag"),
    [("cp1252", "cp1252"), ("utf-16", None), ("utf-8-sig", None), ("utf-8", None)],
)
def test_a_sheet_as_excel_saves_it(encoding, flag, tmp_path, capsys):
    path = write(tmp_path / "a.csv", SHEET, encoding)
    args = bert.ScriptArguments(text_column="Text", label_column="Art")
    args.encoding = flag or args.encoding
    table = bert.load_table(path, args, "train")
    assert list(map(tuple, table[["text", "label"]].to_numpy())) == CELLS
    assert table["Nr"].tolist() == ["7", "8"] and table.index.tolist() == [2, 3]
    assert "separated by semicolons" in capsys.readouterr().out


def test_a_tsv_that_excel_wrote_and_one_with_plain_quotes(tmp_path):
    quoted = 'text\tlabel\r\n"a ""b"" c"\t1\r\n"d\te ""f"""\t0\r\n'
    table = bert.load_table(write(tmp_path / "a.tsv", quoted), bert.ScriptArguments(), "train")
    assert table["text"].tolist() == ['a "b" c', 'd\te "f"']
    plain = 'text\tlabel\n"a" b "c"\t1\n"d\t0\n'
    table = bert.load_table(write(tmp_path / "b.tsv", plain), bert.ScriptArguments(), "train")
    assert table["text"].tolist() == ['"a" b "c"', '"d']


def test_excel_needs_a_name_for_every_column(tmp_path):
    """With fewer names pandas would take the first columns for an index, in silence."""
    pytest.importorskip("openpyxl")
    file = tmp_path / "mails.xlsx"
    rows = pd.DataFrame({"number": ["17", "18"], "mail": ["good", "bad"], "kind": ["1", "0"]})
    rows.to_excel(file, index=False, header=False)
    table = bert.read_table(str(file), ["number", "text", "label"])
    assert table.to_numpy().tolist() == rows.to_numpy().tolist()
    with pytest.raises(bert.InputError, match=r"mails\.xlsx.*3 elements, new values have 2"):
        bert.read_table(str(file), ["text", "label"])


def test_an_excel_file(tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    table = pd.DataFrame({"text": ["None", "ü"], "label": ["1", "0"]})
    path = str(tmp_path / "a.xlsx")
    table.to_excel(path, index=False)
    found = bert.load_table(path, bert.ScriptArguments(), "train")
    assert found.to_numpy().tolist() == table.to_numpy().tolist()
    table.to_excel(tmp_path / "b.xlsx", index=False, header=False)
    named = bert.ScriptArguments(column_names=["text", "label"])
    assert bert.load_table(str(tmp_path / "b.xlsx"), named, "train")["text"].tolist() == [
        "None",
        "ü",
    ]
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ImportError, match="openpyxl"):
        bert.load_table(path, bert.ScriptArguments(), "train")


def test_json_lines_keep_numbers_and_keys_as_they_are(tmp_path):
    rows = [{"0": "a", "1": 0.3}, {"0": "2024-05-01", "1": 0.7}, {"0": "c", "1": 7}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    args = bert.ScriptArguments(text_column="0", label_column="1")
    table = bert.load_table(path, args, "train")
    assert table["text"].tolist() == ["a", "2024-05-01", "c"]
    assert table["label"].tolist() == ["0.3", "0.7", "7"]


def test_bytes_of_parquet_are_text(tmp_path):
    pd.DataFrame({"text": ["ä".encode(), b"b"], "label": [1, 0]}).to_parquet(tmp_path / "a.parquet")
    table = bert.load_table(str(tmp_path / "a.parquet"), bert.ScriptArguments(), "train")
    assert table["text"].tolist() == ["ä", "b"]


def test_blank_rows_are_left_out_where_that_is_asked_for(tmp_path, capsys):
    path = write(tmp_path / "a.csv", "text,label\na,1\n ,0\nb,\nc,0\n")
    table = bert.load_table(path, bert.ScriptArguments(skip_blank_rows=True), "train")
    assert table["text"].tolist() == ["a", "c"]
    assert (
        "the text is blank in 1 rows: [3], the label is blank in 1 rows: [4]: left out"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("new.csv", "text\nI love it.\n\nI hate it.\n\n"),
        ("new.tsv", "text\nI love it.\n\nI hate it.\n"),
    ],
)
def test_blank_lines_are_rows_so_that_predictions_stay_beside_theirs(
    name, content, trained, tmp_path
):
    flags = ["--do_predict", "--model_name_or_path", str(trained), "--output_dir", str(tmp_path)]
    bert.main([*flags, "--test_file", write(tmp_path / name, content)])
    table = pd.read_csv(
        tmp_path / "predictions.tsv", sep="\t", keep_default_na=False, skip_blank_lines=False
    )
    assert table["text"].tolist() == ["I love it.", "", "I hate it."]
    assert table["label"].tolist() == ["positive", "", "negative"]


def test_rows_without_a_prediction_are_not_scored(trained, tmp_path):
    rows = "text,label\nI love it.,positive\n,positive\n,negative\n"
    flags = ["--do_predict", "--model_name_or_path", str(trained), "--output_dir", str(tmp_path)]
    bert.main([*flags, "--test_file", write(tmp_path / "new.csv", rows)])
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    table = pd.read_csv(tmp_path / "predictions.tsv", sep="\t")
    assert metrics["test_accuracy"] == 1
    assert table["true_label"].tolist() == ["positive", "positive", "negative"]


def test_labels_that_the_model_does_not_know_stay_in_the_predictions(trained, tmp_path):
    rows = "text,label\nI love it.,Positive\n"
    flags = ["--do_predict", "--model_name_or_path", str(trained), "--output_dir", str(tmp_path)]
    bert.main([*flags, "--test_file", write(tmp_path / "new.csv", rows)])
    table = pd.read_csv(tmp_path / "predictions.tsv", sep="\t")
    assert table["true_label"].tolist() == ["Positive"] and table["label"].tolist() == ["positive"]


def test_the_baseline_has_the_classes_weights_too(capsys):
    rows = [("good film", "a")] * 9 + [("good book", "b")]
    tables = {"train": pd.DataFrame(rows, columns=["text", "label"])}
    tables["validation"] = tables["train"]
    plain = bert.compare_with_baseline(tables, 1.0)
    assert plain["baseline_accuracy"] == 0.9
    assert bert.compare_with_baseline(tables, 1.0, "balanced")["baseline_accuracy"] == 1


def test_predictions_keep_the_other_columns_and_blank_texts_have_none(trained, tmp_path, capsys):
    rows = "customer;text;note\n0017;I love it.;x\n18; ;y\n19;I hate it.;\n"
    flags = ["--do_predict", "--model_name_or_path", str(trained), "--output_dir", str(tmp_path)]
    bert.main([*flags, "--test_file", write(tmp_path / "new.csv", rows)])
    options = {"sep": "\t", "dtype": str, "keep_default_na": False}
    table = pd.read_csv(tmp_path / "predictions.tsv", **options)
    assert table["customer"].tolist() == ["0017", "18", "19"]
    assert list(table)[:4] == ["customer", "text", "note", "label"]
    assert table["label"].tolist() == ["positive", "", "negative"]
    assert table.loc[1, ["probability", "positive", "negative"]].tolist() == ["", "", ""]
    assert "1 rows have no text: no prediction; 0 are scored" in capsys.readouterr().out


def test_the_tokenizer_is_the_one_that_the_folder_names(tmp_path):
    """BERT's weights with XLM-R's tokenizer, as multilingual MiniLMs on the hub have them."""
    words = ["une", "belle", "soirée", "ein", "schöner", "Abend"]
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(f"▁{word}", -1.0) for word in words] + [("<mask>", 0.0)]
    named = transformers.XLMRobertaTokenizer(vocab=vocabulary)
    named.save_pretrained(tmp_path)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = BertConfig(vocab_size=len(named), intermediate_size=8, **size)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer, _ = bert.pretrained(str(tmp_path), ["0", "1"])
    dataset = bert.TextClassificationDataset(["une belle soirée"], tokenizer)
    assert tokenizer.convert_ids_to_tokens(dataset.rows[0][0]) == [
        "<s>",
        "▁une",
        "▁belle",
        "▁soirée",
        "</s>",
    ]
    assert dataset.unknown == 0


def test_words_that_the_tokenizer_does_not_know_are_counted(tokenizer, capsys):
    tables = {"test": pd.DataFrame({"text": ["☃ ☃ ☃ film", "film"]})}
    bert.build_datasets(tables, tokenizer, BertConfig(), 128)
    assert "warning: test: this model does not know 33% of the tokens" in capsys.readouterr().out


# What the screen says


def test_metrics_of_another_model_are_not_merged(trained, tmp_path):
    rows = write(tmp_path / "rows.csv", "text,label\nI love it.,positive\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "all_results.json").write_text('{"train_loss": 7.0}')
    flags = ["--do_eval", "--validation_file", rows, "--model_name_or_path", str(trained)]
    bert.main([*flags, "--output_dir", str(tmp_path / "out")])
    assert "train_loss" not in json.loads((tmp_path / "out" / "all_results.json").read_text())


def test_the_next_command_works_as_printed(tmp_path, monkeypatch, capsys):
    """With a model's own folder, another encoding and other names; FILE is the user's."""
    monkeypatch.chdir(tmp_path)
    rows = "Der Text;Art\n" + "schöner Film;gut\nübler Film;schlecht\n" * 4
    write(tmp_path / "a.csv", rows, "cp1252")
    write(tmp_path / "FILE.csv", "Der Text\nschöner Film\n", "cp1252")
    flags = ["--text_column", "Der Text", "--label_column", "Art", "--encoding", "cp1252"]
    bert.main(["--smoke", "--train_file", "a.csv", *flags, "--output_dir", "my model"])
    screen, following = capsys.readouterr().out.rsplit("Next:\n", 1)
    command = shlex.split(following.replace("FILE", "FILE.csv"))
    assert "A tiny model was tried" in screen
    bert.main(command[2:])
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "FILE.csv", "my model"}
    results = json.loads((tmp_path / "my model" / "all_results.json").read_text())
    assert {"train_loss", "test_runtime"} <= results.keys()
    table = pd.read_csv(tmp_path / "my model" / "predictions.tsv", sep="\t")
    assert table["label"].tolist() == ["gut"]


@pytest.mark.parametrize("names", [["bad", "good"], ["Technische Frage", "Lieferung", "Lob"]])
def test_names_on_the_picture_do_not_overlap(names, tmp_path, monkeypatch):
    labels = np.array(names)
    figure = confusion_matrix(labels, labels, names, tmp_path, monkeypatch)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(not one.overlaps(other) for one, other in itertools.pairwise(boxes))


def test_own_rows_with_the_tiny_model_say_so(tmp_path, capsys):
    table = pd.DataFrame([("a", "x"), ("b", "y")], columns=["text", "label"])
    run_on(tmp_path, train=table)
    assert "A tiny model was tried: its quality tells nothing" in capsys.readouterr().out
    bert.main([*TINY, "--output_dir", str(tmp_path / "sample")])
    assert "tiny model was tried" not in capsys.readouterr().out


# No traces


def state_of_the_process():
    """What a caller may have set, and would miss."""
    return (
        torch.nn.functional.dropout,
        torch.get_num_threads(),
        transformers.logging.get_verbosity(),
        transformers.utils.logging.is_progress_bar_enabled(),
        list(warnings.filters),
        dict(os.environ),
        sys.stdout,
        csv.field_size_limit(),
        os.umask(os.umask(0o22)),
    )


def test_a_training_leaves_no_traces(tokenizer, tmp_path):
    """Of process, arguments, tokenizer and model; but for the weights, which it is for."""
    model, before = tiny_model(tokenizer), state_of_the_process()
    os.umask(before[-1])
    rows = bert.TextClassificationDataset(TEXTS, tokenizer, labels=LABELS, max_seq_length=16)
    options = {"report_to": "none", "use_cpu": True, "metric_for_best_model": "accuracy"}
    options |= {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    args = TrainingArguments(str(tmp_path), num_train_epochs=1, **options)
    arguments, words = args.to_dict(), copy.deepcopy(tokenizer.init_kwargs)
    structure, config = str(model), model.config.to_dict()
    attributes, attention = set(vars(model)), model.config._attn_implementation
    datasets = {"train": rows, "validation": rows}
    trainer = bert.build_trainer(model, tokenizer, args, datasets, class_weights="balanced")
    with bert.faster_dropout(model):
        bert.train(trainer)
    bert.evaluate(trainer, rows, TEXTS)
    bert.predict(trainer, rows)
    assert args.to_dict() == arguments and tokenizer.init_kwargs == words
    assert (str(model), model.config._attn_implementation) == (structure, attention)
    found = model.config.to_dict()
    ignored = ("architectures", "dtype", "transformers_version", "use_cache")  # of the library
    assert {k: v for k, v in found.items() if k not in ignored} == {
        k: v for k, v in config.items() if k not in ignored
    }
    new = set(vars(model)) - attributes
    assert all(name.startswith("_") or name in ("hf_device_map",) for name in new), new
    assert "save_pretrained" not in vars(model) and type(model) is BertForSequenceClassification
    inputs = tokenizer(TEXTS[:1], return_tensors="pt")
    assert model(**inputs, output_attentions=True).logits.shape == (1, 2)
    after = state_of_the_process()
    os.umask(after[-1])
    assert after == before


def test_predictions_of_arguments_that_group_by_length_stand_in_file_order(tokenizer, tmp_path):
    """With them the library would evaluate the rows in another order."""
    options = {"report_to": "none", "use_cpu": True, "train_sampling_strategy": "group_by_length"}
    args = TrainingArguments(str(tmp_path), per_device_eval_batch_size=1, **options)
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.classifier.weight.mul_(100)
    texts = [" ".join(TEXTS[: i % 4 + 1]) for i in range(12)]
    rows = bert.TextClassificationDataset(texts, tokenizer)
    trainer = bert.build_trainer(model, tokenizer, args, {"train": rows})
    _, probabilities, _ = bert.predict(trainer, rows)
    logits = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose(probabilities, logits.softmax(-1).detach(), atol=1e-5)
    assert args.train_sampling_strategy == "group_by_length"


def test_a_text_may_be_long_when_the_program_reads_it(tmp_path):
    rows = [("good " * 60_000, "1"), ("bad", "0")]
    run_on(tmp_path, train=pd.DataFrame(rows, columns=["text", "label"]))
    assert (tmp_path / "out" / "model.safetensors").exists()
