"""bert_finetune.py: what a user sees of it, and its batches and metrics against independent computations."""

import json
import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SCRIPTS, load_script
from safetensors.torch import load_file, save_file
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
def trained(tmp_path_factory):
    """Output folder of a smoke run in this process."""
    folder = tmp_path_factory.mktemp("trained")
    bert.main(["--smoke", "--output_dir", str(folder)])
    return folder


def test_smoke_alone_in_an_empty_folder(run_alone, tmp_path):
    done = run_alone("bert_finetune", "--smoke")
    assert done.returncode == 0, done.stderr
    output = tmp_path / "alone" / "outputs" / "bert_finetune"
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
    arrays = [*dataset.input_ids, *dataset.token_type_ids]
    assert sum(array.nbytes for array in arrays) == 5 * dataset.lengths.sum()  # bytes a token


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
    lengths = np.random.default_rng(0).integers(5, 100, 1003)
    sampler = bert.ShuffledBatchesSampler(8, lengths.tolist(), seed=1)
    sampler.set_epoch(0)
    first = list(sampler)
    assert sorted(first) == list(range(1003))
    sampler.set_epoch(1)
    assert first != list(sampler)
    sampler.set_epoch(0)
    assert first == list(sampler)
    batches = [lengths[first[i : i + 8]] for i in range(0, 1000, 8)]
    assert np.median([np.ptp(batch) for batch in batches]) < 10
    means = np.array([batch.mean() for batch in batches])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3  # long and short batches alternate
    assert first == list(sampler)  # once more
    other = bert.ShuffledBatchesSampler(8, lengths.tolist(), seed=2)
    assert first != list(other)
    assert first == list(bert.ShuffledBatchesSampler(8, lengths.tolist(), seed=1))


def test_metrics_are_scikit_learns(trained, capsys):
    results = json.loads((trained / "all_results.json").read_text())
    assert results["eval_accuracy"] == results["eval_f1_macro"] == 1
    logits, labels = np.array([[2.0, 1], [0, 1], [3, 1]]), np.array([0, 1, 1])
    metrics = bert.accuracy_and_f1(type("P", (), {"predictions": logits, "label_ids": labels}))
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["f1_macro"] == pytest.approx(f1_score(labels, [0, 1, 0], average="macro"))
    # A class that is in no row counts, as in the printed table.
    output = type("P", (), {"predictions": np.eye(3)[[0, 1, 1]], "label_ids": np.array([0, 1, 1])})
    assert bert.accuracy_and_f1(output)["f1_macro"] == pytest.approx(2 / 3)


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

    class Interrupted(bert.LengthGroupedTrainer):
        def _maybe_log_save_evaluate(self, *args, **kwargs):
            super()._maybe_log_save_evaluate(*args, **kwargs)
            if self.state.global_step == 14:
                raise KeyboardInterrupt

    whole, bert.LengthGroupedTrainer = bert.LengthGroupedTrainer, Interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            bert.main([*steps, str(tmp_path / "cut")])
    finally:
        bert.LengthGroupedTrainer = whole
    assert (tmp_path / "cut" / "checkpoint-12").is_dir()
    for number, state in (("98", '{"epoch": 2.1,'), ("99", "")):  # what a killed save leaves
        (tmp_path / "cut" / f"checkpoint-{number}").mkdir()
        (tmp_path / "cut" / f"checkpoint-{number}" / "trainer_state.json").write_text(state)
    bert.main([*steps, str(tmp_path / "cut"), "--resume_from_checkpoint", "last"])
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_functions_raise_an_exception_that_a_program_can_catch(tokenizer, tmp_path):
    with pytest.raises(bert.InputError, match="two classes"):
        bert.class_names(pd.DataFrame({"text": ["a", "b"], "label": ["x", "x"]}))
    with pytest.raises(bert.InputError, match="cannot load"):
        bert.pretrained(str(tmp_path))
    with pytest.raises(bert.InputError, match="no column 'text'"):
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
    assert found["model"].config.id2label[int(found["probabilities"][0].argmax())] == "positive"
    assert found["model"].config.id2label[int(found["probabilities"][1].argmax())] == "negative"


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


def test_trainer_of_plain_training_arguments_keeps_the_best_epoch(tokenizer, tmp_path):
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(tokenizer), intermediate_size=32, **size)
    )
    rows = bert.TextClassificationDataset(TEXTS, tokenizer, labels=LABELS, max_seq_length=16)
    options = {"save_strategy": "epoch", "report_to": "none", "use_cpu": True}
    training_args = TrainingArguments(str(tmp_path), num_train_epochs=2, **options)
    trainer = bert.build_trainer(
        model, tokenizer, training_args, {"train": rows, "validation": rows}
    )
    trainer.train()
    best = max(
        entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_loss" in entry
    )
    assert trainer.state.best_metric == best
    assert trainer.evaluate()["eval_accuracy"] == best


def test_a_damaged_checkpoint_is_refused_and_a_new_head_is_not(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "model")
    tensors = load_file(trained / "model.safetensors")
    key = next(key for key in tensors if "query.weight" in key)
    others = {name: tensor for name, tensor in tensors.items() if name != key}
    save_file(others, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(bert.InputError, match="not a whole BERT: 1 weights"):
        bert.pretrained(str(tmp_path / "model"))
    _, model = bert.pretrained(str(trained), ["a", "b", "c"])
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"} and model.classifier.out_features == 3


@pytest.mark.parametrize("flag", [["--smoke"], ["--smoke", "true"], ["--smoke=True"]])
def test_smoke_brings_its_recipe_however_it_is_written(flag):
    assert bert.parse_arguments(flag)[1].num_train_epochs == 12
    assert bert.parse_arguments(["--smoke", "false"])[1].num_train_epochs == 3


def test_class_names_follow_the_numbers_whatever_their_order(tokenizer, tmp_path, capsys):
    """A checkpoint may list `id2label` in any order: the table and the lines name the right class."""
    names = {1: "good", 0: "bad"}
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), intermediate_size=32, id2label=names, **size)
    config.label2id = {"good": 1, "bad": 0}
    model = BertForSequenceClassification(config)
    with torch.no_grad():  # always the class 1
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 5.0]))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["id2label"] = {"1": "good", "0": "bad"}  # saving has sorted them
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    rows = write(tmp_path / "rows.csv", "text,label\ngood film,good\nno film,bad\n")
    flags = [
        "--do_eval",
        "--validation_file",
        rows,
        "--model_name_or_path",
        str(tmp_path / "model"),
    ]
    bert.main([*flags, "--output_dir", str(tmp_path / "out")])
    assert "  good 0.993  good film" in capsys.readouterr().out


@pytest.mark.real_data
@pytest.mark.real_model
@pytest.mark.slow
def test_sst2_from_minilm_learns(real_data, real_model, tmp_path):
    files = [
        "--train_file",
        f"{real_data}/sst2/train.tsv",
        "--validation_file",
        f"{real_data}/sst2/validation.tsv",
    ]
    one_epoch = ["--column_names", "text", "label", "--num_train_epochs", "1"]
    bert.main(
        [*files, *one_epoch, "--model_name_or_path", str(real_model), "--output_dir", str(tmp_path)]
    )
    assert json.loads((tmp_path / "all_results.json").read_text())["eval_accuracy"] >= 0.85
