"""The diffs under "Adapt it" in the READMEs: each applies, and the changed script passes its smoke run.

And the longer recipes of the READMEs, diffs and Python blocks: each is run and does what it says.
"""

import ast
import functools
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from conftest import SCRIPTS, load_script, need
from safetensors.numpy import load_file

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
    """A script after the diff that has this word in it, as a module."""
    (change,) = [change for change in changes_of(name) if word in str(change)]
    source = apply(change, SCRIPTS[name].read_text(encoding="utf-8"))
    path = tmp_path / f"adapted_{word.lower()}.py"
    path.write_text(source, encoding="utf-8")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, path.stem, module)  # where dataclasses look types up
    specification.loader.exec_module(module)
    return module


def block_of(name, word):
    """The block of Python in the folder's README that has this word in it."""
    text = (SCRIPTS[name].parent / "README.md").read_text(encoding="utf-8")
    (block,) = [
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in code
    ]
    return block


def train_and_predict(module, tmp_path, rows, *flags, max_seq_length=128):
    """Train on rows of texts and labels, predict them with the saved model; returns metrics and table."""
    length = ["--max_seq_length", str(max_seq_length), "--bf16", "false"]
    table = pd.DataFrame(rows, columns=["text", "label"])
    table.to_csv(tmp_path / "rows.csv", index=False)
    file, out = str(tmp_path / "rows.csv"), str(tmp_path / "out")
    flags = [*flags, "--output_dir", out, "--disable_tqdm", "true", *length]
    module.main(["--train_file", file, "--validation_file", file, *flags])
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    predict = ["--do_predict", "--test_file", file, "--model_name_or_path", out]
    module.main([*predict, *length, "--output_dir", str(tmp_path / "predicted")])
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
    "modernbert": (  # its third layer is the first that looks further than 128 tokens
        "ModernBert",
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
    ),
}


def save_encoder(kind, texts, folder, positions=130):
    """Save a tiny encoder without a head, and its tokenizer, whose vocabulary is of these texts."""
    family, size = ENCODERS[kind]
    tokenizer_class = (
        transformers.RobertaTokenizer if kind == "roberta" else transformers.BertTokenizer
    )
    tokenizer = tokenizer_class().train_new_from_iterator(texts, 300)
    config = getattr(transformers, f"{family}Config")
    special = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = config(max_position_embeddings=positions, **special, **size)
    model = getattr(transformers, f"{family}Model")(config)  # no head
    for part in (tokenizer, model):
        part.save_pretrained(folder)
    return ["--model_name_or_path", str(folder), "--learning_rate", "1e-2"]


@pytest.mark.parametrize("kind", ENCODERS)
def test_other_encoders(kind, tmp_path, monkeypatch):
    module = adapted("bert_finetune", "AutoConfig", tmp_path, monkeypatch)
    rows = [(f"{word} film", label) for word, label in (("good", "yes"), ("bad", "no"))] * 8
    flags = save_encoder(kind, [text for text, _ in rows], tmp_path / kind)
    flags += ["--num_train_epochs", "10", "--per_device_train_batch_size", "4"]
    metrics, table = train_and_predict(module, tmp_path, rows, *flags)
    assert metrics["eval_accuracy"] == 1
    assert list(table["label"]) == [label for _, label in rows]


def long_rows(count, seed):
    """Pairs of texts of more than 600 words that differ after the 560th alone, in what they are called."""
    words = ["the", "a", "of", "on", "under", "table", "chair", "street", "stone", "rain", "river"]
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        start = chance.choices(words, k=chance.randint(560, 640))
        for word, label in (("good", "yes"), ("bad", "no")):
            end = chance.choices([word, "house", "tree"], k=60)
            rows.append((" ".join(start + end), label))
    return rows


def test_an_encoder_reads_what_stands_after_512_tokens(tmp_path, monkeypatch):
    module = adapted("bert_finetune", "AutoConfig", tmp_path, monkeypatch)
    rows, seen = long_rows(8, seed=0), []
    flags = save_encoder("modernbert", [text for text, _ in rows], tmp_path / "long", 1024)
    forward = transformers.ModernBertForSequenceClassification.forward

    @functools.wraps(forward)
    def watched(self, *args, **inputs):
        seen.append((set(inputs), inputs["input_ids"].shape[1]))
        return forward(self, *args, **inputs)

    monkeypatch.setattr(transformers.ModernBertForSequenceClassification, "forward", watched)
    flags += ["--num_train_epochs", "10", "--per_device_train_batch_size", "4"]
    metrics, table = train_and_predict(module, tmp_path, rows, *flags, max_seq_length=1024)
    assert metrics["eval_accuracy"] == 1
    assert list(table["label"]) == [label for _, label in rows]
    # Its forward has no token types: the trainer leaves them out of the batches.
    assert all(names == {"input_ids", "attention_mask"} for names, _ in seen)
    assert min(length for _, length in seen) > 512


@pytest.fixture
def sentiments(tmp_path):
    """A trained tiny BERT in `outputs/bert_finetune` of the test's folder."""
    folder = tmp_path / "outputs" / "bert_finetune"
    load_script("bert_finetune").main(["--smoke", "--output_dir", str(folder)])
    return folder


def test_windows_find_what_stands_after_512_tokens(tmp_path, monkeypatch):
    """Right where the script, which cuts, can only guess; and the mean is that of a plain loop."""
    bert = load_script("bert_finetune")
    train, new = long_rows(8, seed=0), long_rows(4, seed=1)
    for name, rows in (("long.csv", train), ("new.csv", new)):
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / name, index=False)
    torch.manual_seed(0)
    tokenizer, model = bert.tiny([text for text, _ in train], ["no", "yes"])
    model.bert.save_pretrained(tmp_path / "tiny")  # without a head
    tokenizer.save_pretrained(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    settings = (
        "num_train_epochs=20, learning_rate=3e-3, per_device_train_batch_size=8, use_cpu=True"
    )
    block = block_of("bert_finetune", "def windows").replace("num_train_epochs=3", settings)
    found = {}
    exec(block.replace("bert-base-uncased", "tiny"), found)
    expected = [label for _, label in new]
    assert found["probabilities"].idxmax(axis=1).tolist() == expected

    model, means = found["model"].eval(), []
    for text, _ in new:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        chances = []
        for start in range(0, len(ids), 254 - 64):
            window = [tokenizer.cls_token_id, *ids[start : start + 254], tokenizer.sep_token_id]
            with torch.no_grad():
                chances.append(model(torch.tensor([window])).logits[0].softmax(-1))
            if start + 254 >= len(ids):
                break
        means.append(torch.stack(chances).mean(dim=0))
    np.testing.assert_allclose(found["probabilities"], torch.stack(means), atol=1e-5)

    flags = "--train_file long.csv --validation_file new.csv --model_name_or_path tiny"
    flags += " --max_seq_length 512 --learning_rate 3e-3 --num_train_epochs 2 --baseline false"
    bert.main([*flags.split(), "--bf16", "false", "--output_dir", "cut"])
    metrics = json.loads((tmp_path / "cut" / "all_results.json").read_text())
    assert metrics["eval_accuracy"] == 0.5


def test_onnx_gives_the_probabilities_of_the_script(tmp_path, monkeypatch):
    """Of short, long and cut texts, alone and as pairs, in one batch and one by one."""
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"the recipe needs {package}")
    bert = load_script("bert_finetune")
    monkeypatch.chdir(tmp_path)
    # Large random weights: every token, position and mask counts. A trained tiny model is too sure.
    torch.manual_seed(0)
    texts = [text for text, _ in bert.SAMPLE["train"]]
    tokenizer, model = bert.tiny(texts, ["negative", "positive"])
    model.config.initializer_range = 0.1
    model = transformers.BertForSequenceClassification(model.config)
    for part in (tokenizer, model):
        part.save_pretrained("outputs/bert_finetune")
    found = {}
    exec(block_of("bert_finetune", "onnxruntime"), found)
    texts = [
        "I love it.",
        "An awful meal, cold and [SEP] slow, in a dirty room.",
        "A charming hotel. " * 20,
        # 96 tokens, and more after them than are read.
        "A dull plot and a noisy hotel. " * 12 + "A superb and charming concert. " * 20,
    ]
    table = pd.DataFrame({"text": texts, "text_pair": texts[1:] + texts[:1]})
    table.to_csv("texts.csv", index=False)
    predict = ["--do_predict", "--test_file", "texts.csv", "--bf16", "false"]
    predict += ["--model_name_or_path", "outputs/bert_finetune", "--output_dir"]
    bert.main([*predict, "alone"])
    bert.main([*predict, "pairs", "--text_pair_column", "text_pair"])
    pairs = table["text_pair"].tolist()
    for folder, columns in (("alone", (texts,)), ("pairs", (texts, pairs))):
        expected = pd.read_csv(f"{folder}/predictions.tsv", sep="\t")[["negative", "positive"]]
        batches = [columns, *([[text] for text in row] for row in zip(*columns, strict=True))]
        chances = []
        for batch in batches:
            inputs = found["tokenizer"](*batch, return_tensors="np", **found["options"])
            (logits,) = found["session"].run(["logits"], dict(inputs))
            chances.append(found["softmax"](logits, axis=-1))
        np.testing.assert_allclose(chances[0], expected, atol=2e-6)
        assert chances[0].std(axis=0).min() > 0.01, "all alike: this shows nothing"
        np.testing.assert_allclose(np.concatenate(chances[1:]), expected, atol=2e-6)


def test_lora_saves_a_plain_checkpoint_of_its_best_epoch_and_resumes(
    sentiments, tmp_path, monkeypatch
):
    pytest.importorskip("peft", reason="the recipe needs peft")
    bert = load_script("bert_finetune")
    module = adapted("bert_finetune", "LoraConfig", tmp_path, monkeypatch)
    # Other names for the classes: a new head on a BERT that knows the words.
    rows = [(text, f"is {label}") for text, label in bert.SAMPLE["train"]]
    trainers, build = [], module.build_trainer

    class Spoil(transformers.TrainerCallback):
        """The last epoch is not the best."""

        def on_epoch_begin(self, args, state, control, model, **_):
            if state.epoch >= 5:
                for parameter in filter(lambda one: one.requires_grad, model.parameters()):
                    parameter.data.neg_()

    class Stop(transformers.TrainerCallback):
        def on_epoch_begin(self, args, state, control, **_):
            if state.epoch >= 3:
                raise KeyboardInterrupt

    def watched(*args, more=()):
        trainers.append(build(*args))
        for callback in (Spoil, *more):
            trainers[-1].add_callback(callback)
        return trainers[-1]

    monkeypatch.setattr(module, "build_trainer", watched)
    flags = ["--model_name_or_path", str(sentiments), "--learning_rate", "3e-2"]
    flags += ["--num_train_epochs", "6", "--metric_for_best_model", "loss", "--seed", "1"]
    metrics, table = train_and_predict(module, tmp_path, rows, *flags)
    assert metrics["eval_accuracy"] == 1
    losses = [log["eval_loss"] for log in trainers[0].state.log_history if "eval_loss" in log]
    assert metrics["eval_loss"] == pytest.approx(min(losses), rel=1e-3)
    assert min(losses) < losses[-1] / 2

    # The unchanged script reads what is saved, and says the same.
    flags_of_file = ["--test_file", str(tmp_path / "rows.csv"), "--bf16", "false"]
    saved = ["--model_name_or_path", str(tmp_path / "out"), "--output_dir", str(tmp_path / "plain")]
    bert.main(["--do_predict", *flags_of_file, *saved])
    plain = pd.read_csv(tmp_path / "plain" / "predictions.tsv", sep="\t", dtype=str)
    pd.testing.assert_frame_equal(plain, table)
    before = load_file(sentiments / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert set(before) == set(after)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    learnt = ("query.weight", "value.weight", "pooler.dense", "classifier")
    assert changed == {name for name in before if any(part in name for part in learnt)}

    # Stopped after three epochs and resumed, it ends where it would have.
    file, out = str(tmp_path / "rows.csv"), str(tmp_path / "resumed")
    flags += ["--train_file", file, "--validation_file", file, "--output_dir", out]
    flags += ["--disable_tqdm", "true", "--bf16", "false"]
    stopping = functools.partial(watched, more=[Stop])
    monkeypatch.setattr(module, "build_trainer", stopping)
    with pytest.raises(KeyboardInterrupt):
        module.main(flags)
    monkeypatch.setattr(module, "build_trainer", watched)
    module.main([*flags, "--resume_from_checkpoint", "last"])
    resumed = load_file(tmp_path / "resumed" / "model.safetensors")
    for name, tensor in after.items():
        np.testing.assert_array_equal(resumed[name], tensor, err_msg=name)


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


# GPT-2


def write_on(module, folder, *flags):
    """Run GPT-2's script, as it is or changed, on the built-in text; returns its metrics."""
    flags = [*flags, "--output_dir", str(folder), "--disable_tqdm", "true", "--bf16", "false"]
    module.main([*flags, "--cache_dir", str(folder / "cache")])
    return json.loads((folder / "all_results.json").read_text())


def test_lora_saves_a_plain_checkpoint(tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft", reason="needs peft")
    gpt2 = load_script("gpt2_finetune")
    plain, changed = tmp_path / "plain", tmp_path / "lora"
    write_on(gpt2, plain, "--smoke", "--max_steps", "40")
    module = adapted("gpt2_finetune", "get_peft_model", tmp_path, monkeypatch)
    stay = SimpleNamespace(copymode=shutil.copymode, rmtree=lambda path: None)
    monkeypatch.setattr(module, "shutil", stay)  # checkpoints stay
    options = ["--model_name_or_path", str(plain), "--max_steps", "20", "--learning_rate", "1e-2"]
    capsys.readouterr()
    metrics = write_on(module, changed, *options)
    counts = re.search(
        r"trainable params: ([\d,]+) .* all params: ([\d,]+)", capsys.readouterr().out
    )
    few, all_of_them = (int(count.replace(",", "")) for count in counts.groups())
    assert few < all_of_them / 3  # of so narrow a model
    # The unchanged script reads it, and finds the same loss, which is another than before.
    found = write_on(gpt2, tmp_path / "again", "--do_eval", "--model_name_or_path", str(changed))
    before = write_on(gpt2, tmp_path / "before", "--do_eval", "--model_name_or_path", str(plain))
    assert found["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)
    assert found["eval_loss"] < before["eval_loss"] - 0.01
    # An interrupted run goes on.
    assert len(list(changed.glob("checkpoint-*"))) == 1
    (newest,) = changed.glob("checkpoint-*")
    resumed = write_on(module, changed, *options, "--resume_from_checkpoint", str(newest))
    assert resumed["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)


def test_lora_of_t5_saves_a_plain_checkpoint(tmp_path, monkeypatch, capsys):
    """Its translations of what it has learnt are those of the unchanged script with that checkpoint."""
    pytest.importorskip("peft", reason="needs peft")
    t5 = load_script("t5_translator")
    module = adapted("t5_translator", "get_peft_model", tmp_path, monkeypatch)
    plain, changed = str(tmp_path / "plain"), str(tmp_path / "lora")
    flags = ["--bf16", "false", "--save_strategy", "no", "--disable_tqdm", "true"]
    t5.main(["--smoke", *flags, "--max_steps", "20", "--output_dir", plain])
    flags += ["--do_train", "--max_steps", "40", "--learning_rate", "3e-2"]
    capsys.readouterr()
    module.main([*flags, "--model_name_or_path", plain, "--output_dir", changed])
    screen = capsys.readouterr().out
    assert "trainable params: " in screen
    pairs = re.findall(r"^  (.*) -> (.*)$", screen, re.MULTILINE)[:20]
    tokenizer, model = t5.pretrained(changed)
    sources = [source for source, _ in pairs]
    assert t5.translate(sources, model, tokenizer) == [target for _, target in pairs]
    assert t5.translate(sources, t5.pretrained(plain)[1], tokenizer) != [t for _, t in pairs]


def test_answers_alone_are_learnt(tmp_path, monkeypatch):
    """Labels and loss, compared with a plain loop over the rows; blocks of prompts alone are left out."""
    module = adapted("gpt2_finetune", "ASKED", tmp_path, monkeypatch)
    rows = [(f"What is {n} plus one?", f" It is {n + 1}.") for n in range(40)]
    rows.insert(20, ("a prompt without an end " * 30, " yes"))
    file = tmp_path / "rows.csv"
    pd.DataFrame(rows, columns=["prompt", "answer"]).to_csv(file, index=False)
    tokenizer, model = module.untrained(chain.from_iterable(rows), vocab_size=257)
    tokens = module.load_tokens([str(file)], tokenizer, str(tmp_path), "utf-8-sig", "answer")
    expected, labels = [], []
    for prompt, answer in rows:
        asked, said = tokenizer([prompt, answer + tokenizer.eos_token])["input_ids"]
        expected += asked + said
        labels += [-100] * len(asked) + said
    assert list(tokens % module.ASKED) == expected
    blocks = module.TextDataset(tokens, 32)
    whole = len(expected) // 32
    kept = [n for n in range(whole) if any(x != -100 for x in labels[32 * n + 1 : 32 * n + 32])]
    assert 0 < len(blocks) == len(kept) < whole
    for item, number in zip(blocks, kept, strict=True):
        part = slice(32 * number, 32 * number + 32)
        assert item["input_ids"].tolist() == expected[part]
        assert item["labels"].tolist() == labels[part]
    args = module.FineTuningArguments(str(tmp_path), use_cpu=True, per_device_eval_batch_size=1)
    trainer = module.build_trainer(model, tokenizer, args, {"validation": blocks})
    losses = []
    for item in blocks:
        logits = model.eval()(item["input_ids"][None]).logits[0, :-1]
        log_p = logits.log_softmax(-1)
        wanted = [(row, label) for row, label in enumerate(item["labels"][1:]) if label != -100]
        losses.append(-sum(log_p[row, label].item() for row, label in wanted) / len(wanted))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    flags = ["--smoke", "--train_file", str(file), "--text_column", "answer", "--max_steps", "20"]
    flags += ["--block_size", "32"]
    assert "eval_bits_per_byte" not in write_on(module, tmp_path / "out", *flags)


CHAT_TEMPLATE = """{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def test_conversations_become_prompts_and_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = transformers.GPT2Tokenizer(eos_token="<|im_end|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained("chatty")
    roles = ["system", "user", "assistant", "user", "assistant"]
    chat = [{"role": role, "content": f"sentence {number}"} for number, role in enumerate(roles)]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    code = block_of("gpt2_finetune", "apply_chat_template")
    exec(re.sub(r'from_pretrained\(".*?"\)', 'from_pretrained("chatty")', code), {})
    rows = [json.loads(line) for line in (tmp_path / "turns.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["sentence 2", "sentence 4"]
    assert rows[0]["prompt"].endswith("<|im_start|>assistant\n")
    joined = "".join(row["prompt"] + row["answer"] + tokenizer.eos_token for row in rows)
    assert joined + "\n" == tokenizer.apply_chat_template(chat, tokenize=False)
