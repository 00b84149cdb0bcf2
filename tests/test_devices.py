"""Memory and devices: what runs out ends in one line, smaller batches are found, and every process has its GPU."""

import json
import sys

import numpy as np
import pytest
import torch
import transformers
from conftest import load_script

TRAINERS = ["bert_finetune", "gpt2_finetune", "t5_translator"]
SHORT = ["--smoke", "--max_steps", "4", "--save_strategy", "no", "--logging_steps", "1"]
SHORT += ["--per_device_train_batch_size", "4"]
TOO_LARGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 9.00 GiB."
)

every_trainer = pytest.mark.parametrize("name", TRAINERS)


def flags_of(name, folder):
    """Flags of a short run with a tiny model."""
    flags = [*SHORT, "--output_dir", str(folder / "out")]
    flags += ["--do_train"] if name == "t5_translator" else []
    return flags + (["--cache_dir", str(folder)] if name == "gpt2_finetune" else [])


def room_for(rows, monkeypatch):
    """Let a step of training run out of memory with more rows than that; returns the batches that fitted."""
    step, sizes = transformers.Trainer.training_step, []

    def limited(self, model, inputs, *others):
        if len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError(TOO_LARGE)
        sizes.append(len(inputs["input_ids"]))
        return step(self, model, inputs, *others)

    monkeypatch.setattr(transformers.Trainer, "training_step", limited)
    return sizes


@every_trainer
def test_out_of_memory_is_one_line_that_names_the_flag(
    name, run_as_main, tmp_path, monkeypatch, capfd
):
    room_for(0, monkeypatch)
    assert run_as_main(name, *flags_of(name, tmp_path)) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith("error: CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "give a smaller --per_device_train_batch_size" in line
    # An evaluation, too, may be what does not fit; T5 has a flag of its own for that.
    assert (name == "t5_translator") != ("--per_device_eval_batch_size" in line)
    assert not (tmp_path / "out" / "model.safetensors").exists()


@every_trainer
def test_any_other_error_of_pytorch_is_a_bug(name, run_as_main, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(transformers.Trainer, "training_step", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run_as_main(name, *flags_of(name, tmp_path))


@every_trainer
def test_auto_find_batch_size_finds_one(name, tmp_path, monkeypatch):
    sizes = room_for(3, monkeypatch)
    load_script(name).main([*flags_of(name, tmp_path), "--auto_find_batch_size"])
    assert set(sizes) <= {1, 2, 3} and len(sizes) == 4
    assert np.isfinite(json.loads((tmp_path / "out/all_results.json").read_text())["train_loss"])
    assert (tmp_path / "out" / "model.safetensors").exists()


@every_trainer
def test_auto_find_batch_size_that_finds_none_is_one_line(
    name, run_as_main, tmp_path, monkeypatch, capfd
):
    room_for(0, monkeypatch)
    flags = ["--auto_find_batch_size", "--per_device_train_batch_size", "1"]
    assert run_as_main(name, *flags_of(name, tmp_path), *flags) == 2
    assert "error: No executable batch size found" in capfd.readouterr().err


def test_memory_for_all_weights_of_a_long_sentence(run_as_main, monkeypatch, capfd):
    def full(*_, **__):
        raise np._core._exceptions._ArrayMemoryError((60000, 60000), np.dtype(float))

    monkeypatch.setattr(np, "exp", full)
    assert run_as_main("self_attention", "--text", "a b c") == 2
    assert capfd.readouterr().err == (
        "error: Unable to allocate 26.8 GiB for an array with shape (60000, 60000) and data type "
        "float64: give shorter sentences to --text\n"
    )


def test_memory_for_the_tensors_of_mrpc(run_as_main, tmp_path, monkeypatch, capfd):
    def full(*_, **__):
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        )

    monkeypatch.setattr(torch, "save", full)
    assert run_as_main("glue_mrpc", "--smoke", "--output_dir", str(tmp_path)) == 2
    assert capfd.readouterr().err.endswith("9 bytes. give a smaller --max_seq_length\n")


def test_memory_for_a_batch_of_the_lstm(run_as_main, tmp_path, monkeypatch, capfd):
    tf = load_script("seq2seq_lstm").tf

    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\n\t [[x]]")

    monkeypatch.setattr(tf.ragged, "constant", full)
    assert run_as_main("seq2seq_lstm", "--smoke", "--output_dir", str(tmp_path)) == 2
    expected = "error: out of memory: give a smaller --batch_size\n"
    assert capfd.readouterr().err.endswith(expected)


@pytest.mark.parametrize("name", ["bert_finetune", "gpt2_finetune"])
def test_a_loss_that_is_no_number_is_shown(name, tmp_path, monkeypatch):
    """The library's own default would put the mean of the earlier losses in its place."""
    step, steps = transformers.Trainer.training_step, iter(range(sys.maxsize))

    def broken(self, *others):
        return step(self, *others) * (float("nan") if next(steps) == 2 else 1)

    monkeypatch.setattr(transformers.Trainer, "training_step", broken)
    load_script(name).main(flags_of(name, tmp_path))
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert np.isnan(metrics["train_loss"])
