"""What the trainer scripts load, keep and deliver: weights under every name that the hub has, and the best of them."""

import json
import stat
from pathlib import Path

import pytest
import torch
import transformers
from conftest import load_script
from safetensors.torch import load_file, save_file
from transformers import BertForPreTraining

RECIPE = ["--learning_rate", "5e-3", "--warmup_steps", "0", "--bf16", "false"]
RECIPE += ["--num_train_epochs", "4", "--per_device_train_batch_size", "4"]
ROWS = [("a warm bright day", "good"), ("a cold grey night", "bad")] * 6
ROWS += [("a warm night", "good"), ("a bright night", "good"), ("a grey day", "bad")]
TEXT = "the old boat left the harbour and the crew sang of the sea. " * 60
PAIRS = [("a dog", "ein Hund"), ("a cat", "eine Katze"), ("a red house", "ein rotes Haus")] * 4


def write_inputs(name, folder):
    """Files to train on, and to validate on such that more training makes it worse; returns their flags."""
    if name == "bert_finetune":
        swapped = {"good": "bad", "bad": "good"}
        train = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
        validation = "text,label\n" + "".join(f"{text},{swapped[label]}\n" for text, label in ROWS)
        suffix = "csv"
    elif name == "gpt2_finetune":
        train, validation, suffix = TEXT, " ".join(reversed(TEXT.split())), "txt"
    else:
        train = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
        validation = "".join(f"{target}\t{source}\n" for source, target in PAIRS)
        suffix = "tsv"
    (folder / f"train.{suffix}").write_text(train)
    (folder / f"validation.{suffix}").write_text(validation)
    flags = ["--train_file", str(folder / f"train.{suffix}")]
    flags += ["--validation_file", str(folder / f"validation.{suffix}")]
    flags += ["--cache_dir", str(folder)] if name == "gpt2_finetune" else []
    flags += (
        ["--block_size", "16", "--stride", "16", "--prompt", "the"]
        if name == "gpt2_finetune"
        else []
    )
    flags += ["--do_train"] if name == "t5_translator" else []
    return flags


def old_names(name, folder):
    """Rename the weights of a saved model as the hub's well-known checkpoints have them."""
    file = folder / "model.safetensors"
    if (
        name == "bert_finetune"
    ):  # bert-base-uncased: the heads of pretraining, LayerNorm.gamma and .beta
        config = transformers.BertConfig.from_pretrained(folder)
        config.architectures = None
        BertForPreTraining(config).save_pretrained(folder)
        tensors = load_file(file)
        for new, old in (
            ("LayerNorm.weight", "LayerNorm.gamma"),
            ("LayerNorm.bias", "LayerNorm.beta"),
        ):
            tensors = {key.replace(new, old): tensor for key, tensor in tensors.items()}
    elif name == "gpt2_finetune":  # gpt2: no prefix, and the causal masks are stored
        tensors = {
            key.removeprefix("transformer."): value for key, value in load_file(file).items()
        }
        tensors["h.0.attn.bias"] = torch.tril(torch.ones(1, 1, 64, 64))
    else:  # t5-small: a surplus bias
        tensors = load_file(file)
        surplus = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        tensors[surplus] = torch.zeros(32, 4)
    save_file(tensors, file, {"format": "pt"})


def shards(name, folder):
    """Split the weights into two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def build_checkpoint(name, folder):
    """Save a tiny model of the script with a tokenizer of its inputs, and no classes."""
    script = load_script(name)
    torch.manual_seed(1)
    if name == "bert_finetune":
        texts, labels = zip(*ROWS, strict=True)
        parts = script.tiny(texts, sorted(set(labels)))
    elif name == "gpt2_finetune":
        parts = script.untrained([TEXT])
    else:
        parts = script.tiny(
            PAIRS + [(b, a) for a, b in PAIRS], script.build_prompt("English", "German")
        )
    for part in parts:
        part.save_pretrained(folder)


@pytest.fixture
def keep(monkeypatch, tmp_path):
    """Copies of every checkpoint, by its step, of every trainer that is made; and an end after some step."""
    kept, stop_after = {}, []
    initialize = transformers.Trainer.__init__

    class Keep(transformers.TrainerCallback):
        def on_save(self, args, state, control, **others):
            file = Path(args.output_dir, f"checkpoint-{state.global_step}", "model.safetensors")
            kept[state.global_step] = load_file(file)
            if stop_after and len(kept) >= stop_after[0]:
                raise KeyboardInterrupt

    def with_callback(self, *args, **options):
        initialize(self, *args, **options)
        self.add_callback(Keep())
        kept["trainer"] = self

    monkeypatch.setattr(transformers.Trainer, "__init__", with_callback)
    return kept, stop_after


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def losses(kept):
    """The validation losses that the trainer logged, by step, after training had begun."""
    log = kept["trainer"].state.log_history
    return {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}


@pytest.mark.parametrize("change", [old_names, shards])
@pytest.mark.parametrize("name", ["bert_finetune", "gpt2_finetune", "t5_translator"])
def test_the_best_checkpoint_is_delivered_whole(name, change, tmp_path, keep):
    kept, _ = keep
    build_checkpoint(name, tmp_path / "source")
    change(name, tmp_path / "source")
    flags = [*write_inputs(name, tmp_path), *RECIPE, "--metric_for_best_model", "loss"]
    flags += ["--model_name_or_path", str(tmp_path / "source"), "--save_strategy", "epoch"]
    load_script(name).main([*flags, "--output_dir", str(tmp_path / "out")])
    by_step = losses(kept)
    best = min((step for step in by_step if step in kept), key=by_step.get)
    assert best != max(by_step)  # else this test could not tell
    assert equal(load_file(tmp_path / "out" / "model.safetensors"), kept[best])


@pytest.mark.parametrize("name", ["bert_finetune", "gpt2_finetune", "t5_translator"])
def test_a_resumed_run_ends_with_the_weights_of_the_whole_one(name, tmp_path, keep):
    kept, stop_after = keep
    build_checkpoint(name, tmp_path / "source")
    old_names(name, tmp_path / "source")
    flags = [*write_inputs(name, tmp_path), *RECIPE, "--load_best_model_at_end", "false"]
    flags += ["--save_strategy", "epoch"]
    flags += ["--model_name_or_path", str(tmp_path / "source"), "--output_dir"]
    script = load_script(name)
    script.main([*flags, str(tmp_path / "whole")])
    kept.clear()
    stop_after.append(3)  # the trainer, and two checkpoints
    with pytest.raises(KeyboardInterrupt):
        script.main([*flags, str(tmp_path / "cut")])
    stop_after.clear()
    script.main([*flags, str(tmp_path / "cut"), "--resume_from_checkpoint", "last"])
    whole, cut = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "cut"))
    assert equal(whole, cut)


WAYS = {
    "by epochs": ["--eval_strategy", "epoch"],
    "by steps": ["--eval_strategy", "steps", "--save_strategy", "steps", "--save_steps", "2"],
    "when saved": ["--save_strategy", "steps", "--save_steps", "3"],
    "the best only": ["--save_strategy", "best"],
    "said once more": ["--load_best_model_at_end"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["bert_finetune", "gpt2_finetune", "t5_translator"])
def test_the_best_is_kept_however_the_flags_say_it(name, way, tmp_path, keep):
    kept, _ = keep
    flags = [*write_inputs(name, tmp_path), "--smoke", *RECIPE]
    flags += ["--max_steps", "60" if name == "gpt2_finetune" else "12"]
    flags += ["--metric_for_best_model", "loss", "--save_strategy", "epoch"]
    load_script(name).main([*flags, *WAYS[way], "--output_dir", str(tmp_path / "out")])
    by_step = {step: loss for step, loss in losses(kept).items() if step}
    best = min(by_step, key=by_step.get)
    assert best != max(by_step)  # else this test could not tell
    assert equal(load_file(tmp_path / "out" / "model.safetensors"), kept[best])


@pytest.fixture
def interrupted(tmp_path, keep):
    """A run of BERT that was interrupted: its flags, and what its training file may be replaced with."""
    _, stop_after = keep
    stop_after.append(2)
    flags = [*write_inputs("bert_finetune", tmp_path), "--smoke", *RECIPE]
    flags += ["--output_dir", str(tmp_path / "out"), "--resume_from_checkpoint", "last"]
    with pytest.raises(KeyboardInterrupt):
        load_script("bert_finetune").main(flags)
    stop_after.clear()
    return flags


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("good", "great", "id2label .*good.*, not .*great"),
        ("a warm night,good", "a warm night,fair", "id2label .*, not .*fair"),
        ("bright", "very bright and sunny", r"vocab_size \d+, not \d+"),
    ],
)
def test_resuming_with_other_data_is_refused(interrupted, old, new, message, tmp_path):
    bert = load_script("bert_finetune")
    for split in ("train", "validation"):
        file = tmp_path / f"{split}.csv"
        file.write_text(file.read_text().replace(old, new))
    checkpoints = sorted((tmp_path / "out").glob("checkpoint-*/*"))
    with pytest.raises(bert.InputError, match=message):
        bert.main(interrupted)
    assert sorted((tmp_path / "out").glob("checkpoint-*/*")) == checkpoints != []


def test_weights_are_as_readable_as_the_other_files(tmp_path):
    flags = [*write_inputs("bert_finetune", tmp_path), "--smoke", "--max_steps", "1"]
    load_script("bert_finetune").main([*flags, "--output_dir", str(tmp_path / "out")])
    (tmp_path / "plain").touch()
    expected = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "out").iterdir()}
    assert modes == {expected}


def test_data_seed_alone_changes_the_order(tmp_path, keep):
    kept, _ = keep
    bert = load_script("bert_finetune")
    flags = [*write_inputs("bert_finetune", tmp_path), "--smoke", "--max_steps", "1"]
    orders = []
    for seed in ("1", "2", "2"):
        out = ["--output_dir", str(tmp_path / seed), "--data_seed", seed]
        bert.main([*flags, *out])
        orders.append(list(kept["trainer"]._get_train_sampler()))
    assert orders[0] != orders[1] == orders[2]


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("bert_finetune", ["--do_eval"]),
        ("gpt2_finetune", ["--do_predict"]),
        ("t5_translator", ["--text", "a"]),
    ],
)
def test_results_of_somebody_elses_model_stay_out_of_ones_own_folder(name, flags, tmp_path):
    script = load_script(name)
    folders = {"owner/theirs": "outputs/theirs", str(tmp_path): str(tmp_path)}
    for model, expected in folders.items():
        training_args = script.parse_arguments(flags)[-1]
        script.prepare(training_args, model)
        assert training_args.output_dir == expected
    training_args = script.parse_arguments([*flags, "--output_dir", "own"])[-1]
    script.prepare(training_args, "owner/theirs")
    assert training_args.output_dir == "own"


@pytest.mark.parametrize("name", ["bert_finetune", "gpt2_finetune", "t5_translator"])
def test_a_training_without_a_checkpoint_to_go_on_from_says_so(name, tmp_path, capsys):
    flags = ["--smoke", "--max_steps", "1", "--save_strategy", "no", "--output_dir", str(tmp_path)]
    flags += ["--cache_dir", str(tmp_path / "cache")] if name == "gpt2_finetune" else []
    load_script(name).main([*flags, "--resume_from_checkpoint", "last"])
    assert f"No checkpoint in {tmp_path}: starting anew" in capsys.readouterr().err
