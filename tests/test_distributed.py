"""The scripts in two processes on the CPU, over gloo: the same curves, metrics and bytes as in one process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import SCRIPTS, load_script, need
from safetensors.numpy import load_file

pytestmark = pytest.mark.distributed
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def launch(name, folder, launcher, *arguments, quiet=False):
    """Start a script in a folder, in two processes or, with a launcher of `[sys.executable]`, in one.

    `quiet` throws its output away, for a test that does not read it while the script writes.
    """
    need(name)
    pipes = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    pipes |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} if quiet else {}
    command = [*launcher, str(SCRIPTS[name]), *arguments]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, start_new_session=True, **pipes)


def run(name, folder, launcher, *arguments):
    """Run a script to its end; return what it printed."""
    process = launch(name, folder, launcher, *arguments)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def losses(out):
    return [float(value) for value in re.findall(r"'(?:eval_)?loss': '([\d.]+)'", out)]


@pytest.fixture(scope="module")
def without_dropout(tmp_path_factory):
    """A folder with a tiny BERT that has no dropout, and the sample as files."""
    import pandas as pd

    bert, folder = load_script("bert_finetune"), tmp_path_factory.mktemp("inputs")
    for name, rows in bert.SAMPLE.items():
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / f"{name}.csv", index=False)
    torch.manual_seed(0)
    texts = [text for text, _ in bert.SAMPLE["train"]]
    tokenizer, model = bert.tiny(texts, ["negative", "positive"])
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def batches(total, processes):
    return ["--per_device_train_batch_size", str(total // processes)]


@pytest.mark.parametrize(
    ("name", "total", "arguments"),
    [
        (
            "bert_finetune",
            8,
            ["--bf16", "false", "--num_train_epochs", "3", "--model_name_or_path", "{0}/model"],
        ),
        ("gpt2_finetune", 8, ["--smoke", "--max_steps", "60", "--cache_dir", "cache"]),
        ("t5_translator", 10, ["--smoke", "--max_steps", "40"]),
    ],
)
def test_two_processes_learn_like_one(name, total, arguments, without_dropout, tmp_path):
    arguments = [argument.format(without_dropout) for argument in arguments]
    if name == "bert_finetune":
        files = [
            "train",
            without_dropout / "train.csv",
            "validation",
            without_dropout / "validation.csv",
        ]
        arguments += ["--train_file", str(files[1]), "--validation_file", str(files[3])]
    outs = {}
    for processes, launcher in ((1, [sys.executable]), (2, TORCHRUN)):
        (tmp_path / str(processes)).mkdir()
        outs[processes] = run(
            name, tmp_path / str(processes), launcher, *arguments, *batches(total, processes)
        )
    accumulated = [
        "--gradient_accumulation_steps",
        "2",
        *batches(total, 2),
        "--output_dir",
        "accumulated",
    ]
    out = run(name, tmp_path, [sys.executable], *arguments, *accumulated)
    np.testing.assert_allclose(losses(out), losses(outs[1]), atol=1e-3)
    assert len(losses(outs[1])) >= 10
    np.testing.assert_allclose(losses(outs[2]), losses(outs[1]), atol=1e-3)
    assert (
        outs[2].count("Next:") == 1 and outs[2].count("train_loss = ") == 1
    )  # one process reports
    one, two = (
        json.loads((tmp_path / n / "outputs" / name / "all_results.json").read_text()) for n in "12"
    )
    assert one.keys() == two.keys()
    for key in one:
        if not re.search("runtime|second|flos", key):
            assert two[key] == pytest.approx(one[key], abs=1e-3), key
    one, two = (load_file(tmp_path / n / "outputs" / name / "model.safetensors") for n in "12")
    assert all(np.abs(one[key] - two[key]).max() < 0.02 for key in one)
    files = [{path.name for path in (tmp_path / n / "outputs" / name).iterdir()} for n in "12"]
    assert files[0] == files[1]


def test_metrics_count_every_row_once(without_dropout, tmp_path):
    """23 rows of unequal length do not divide by two processes and batches of 4."""
    lines = (without_dropout / "train.csv").read_text().splitlines()[:24]
    (tmp_path / "odd.csv").write_text("\n".join(lines))
    evaluate = [
        "--do_eval",
        "--do_predict",
        "--validation_file",
        "odd.csv",
        "--test_file",
        "odd.csv",
    ]
    evaluate += [
        "--per_device_eval_batch_size",
        "4",
        "--model_name_or_path",
        f"{without_dropout}/model",
    ]
    found = []
    for processes, launcher in ((1, [sys.executable]), (2, ACCELERATE)):
        run(
            "bert_finetune",
            tmp_path,
            launcher,
            *evaluate,
            "--bf16",
            "false",
            "--output_dir",
            f"out{processes}",
        )
        results = json.loads((tmp_path / f"out{processes}" / "all_results.json").read_text())
        rows = (tmp_path / f"out{processes}" / "predictions.tsv").read_text()
        found.append(
            (
                {
                    key: round(results[key], 5)
                    for key in ("eval_accuracy", "eval_f1_macro", "eval_loss")
                },
                rows,
            )
        )
    assert found[0] == found[1]
    assert len(found[0][1].splitlines()) == 24


# A training whose checkpoints stay.
KEEPS_CHECKPOINTS = """
import bert_finetune
bert_finetune.report = lambda *_: None
bert_finetune.main()
"""


def test_several_processes_resume_in_the_middle_of_an_epoch_with_its_order(tmp_path):
    """The second of three epochs, which have twelve steps each."""
    need("bert_finetune")
    (tmp_path / "train.py").write_text(KEEPS_CHECKPOINTS)
    command = [*TORCHRUN, "train.py", "--smoke", "--num_train_epochs", "3", "--bf16", "false"]
    command += ["--save_strategy", "steps", "--save_steps", "18", "--save_total_limit", "9"]
    command += ["--load_best_model_at_end", "false", *batches(4, 2)]
    environment = ENVIRONMENT | {"PYTHONPATH": str(SCRIPTS["bert_finetune"].parent)}
    options = {"cwd": tmp_path, "env": environment, "check": True, "capture_output": True}
    subprocess.run(command, **options)
    output = tmp_path / "outputs" / "bert_finetune"
    whole = load_file(output / "model.safetensors")
    shutil.rmtree(output / "checkpoint-36")
    (output / "model.safetensors").unlink()
    subprocess.run([*command, "--resume_from_checkpoint", "last"], **options)
    for name, tensor in load_file(output / "model.safetensors").items():
        np.testing.assert_allclose(tensor, whole[name], atol=1e-6, err_msg=name)


def test_training_resumes_with_another_number_of_processes(tmp_path):
    steps = ["--smoke", "--max_steps", "60", "--save_steps", "20", "--cache_dir", "cache"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    run("gpt2_finetune", whole, [sys.executable], *steps, *batches(8, 1))
    process = launch("gpt2_finetune", cut, TORCHRUN, *steps, *batches(8, 2))
    while (
        not list(cut.glob("outputs/*/checkpoint-*/trainer_state.json")) and process.poll() is None
    ):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    time.sleep(1)  # until its children are gone
    run(
        "gpt2_finetune",
        cut,
        [sys.executable],
        *steps,
        *batches(8, 1),
        "--resume_from_checkpoint",
        "last",
    )
    results = [
        json.loads((folder / "outputs/gpt2_finetune/all_results.json").read_text())["eval_loss"]
        for folder in (whole, cut)
    ]
    assert results[0] == pytest.approx(results[1], abs=1e-3)


@pytest.fixture(scope="module")
def file_to_translate(tmp_path_factory):
    """A folder with a tiny T5 and a file of two and a half windows, and the flags that translate it."""
    t5, folder = load_script("t5_translator"), tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    for part in t5.tiny(t5.SAMPLE_PAIRS, t5.build_prompt("English", "German")):
        part.save_pretrained(folder / "model")
    texts = [english for english, _ in t5.SAMPLE_PAIRS]
    lines = [
        f"{texts[i % len(texts)]} {i % 97}" * (i % 50 > 0) for i in range(t5.WINDOW_LINES * 5 // 2)
    ]
    (folder / "in.txt").write_text("\n".join(lines) + "\n")
    flags = [
        "--model_name_or_path",
        "model",
        "--max_new_tokens",
        "8",
        "--bf16",
        "false",
        "--input_file",
        "in.txt",
    ]
    run("t5_translator", folder, [sys.executable], *flags, "--output_file", "one.txt")
    return folder, flags


def test_two_processes_translate_a_file_to_the_same_bytes(file_to_translate):
    folder, flags = file_to_translate
    run("t5_translator", folder, ACCELERATE, *flags, "--output_file", "two.txt")
    assert (folder / "two.txt").read_bytes() == (folder / "one.txt").read_bytes()
    assert not list(folder.glob(".*partial"))


def test_a_dead_process_ends_the_translation_and_a_resumed_run_finishes_it(file_to_translate):
    folder, flags = file_to_translate
    process = launch(
        "t5_translator", folder, TORCHRUN, *flags, "--output_file", "three.txt", quiet=True
    )
    while not list(folder.glob(".three.txt.*partial/0*.txt")) and process.poll() is None:
        time.sleep(0.01)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert process.wait(timeout=120) != 0 and not (folder / "three.txt").exists()
    run(
        "t5_translator",
        folder,
        TORCHRUN,
        *flags,
        "--output_file",
        "three.txt",
        "--resume_from_checkpoint",
        "last",
    )
    assert (folder / "three.txt").read_bytes() == (folder / "one.txt").read_bytes()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("t5_translator", ["--input_file", "-"], "several processes share a file, not a pipe"),
        (
            "bert_finetune",
            ["--smoke", "--train_file", "missing.csv"],
            "No such file or directory: 'missing.csv'",
        ),
    ],
)
def test_errors_stay_one_line_in_every_process(name, arguments, message, tmp_path):
    process = launch(name, tmp_path, TORCHRUN, *arguments)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert err.count(message) in (1, 2)  # once a process, if torchrun did not end the second before
    assert not re.search(rf'File ".*{name}\.py"', err)
