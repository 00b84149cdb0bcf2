"""The diffs under "Adapt it" in the READMEs: each applies, and the changed script passes its smoke run."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import chain
from types import SimpleNamespace

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


# GPT-2


def block_of(name, word):
    """The block of Python in the folder's README that has this word in it."""
    text = (SCRIPTS[name].parent / "README.md").read_text(encoding="utf-8")
    (block,) = [
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in code
    ]
    return block


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
