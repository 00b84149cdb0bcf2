"""What becomes of a run that is killed, interrupted or out of disk space: nothing lost, nothing half-written used.

SHOWCASE_KILLS says how many random moments each script is killed at (default 1).
"""

import functools
import os
import random
import re
import resource
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

KILLS = int(os.environ.get("SHOWCASE_KILLS", "1"))
RESUME = ["--resume_from_checkpoint", "last"]
T5 = ["--model_name_or_path", "model", "--max_new_tokens", "8"]
COMMANDS = {  # arguments, and what resumes
    "bert_finetune": (["--smoke", "--num_train_epochs", "6"], RESUME),
    "gpt2_finetune": (
        ["--smoke", "--max_steps", "150", "--save_steps", "15", "--cache_dir", "cache"],
        RESUME,
    ),
    "seq2seq_lstm": (["--smoke", "--attention", "--num_train_epochs", "4", "--no-bf16"], RESUME),
    "t5_translator": ([*T5, "--input_file", "in.txt", "--output_file", "out.txt"], RESUME),
    "glue_mrpc": (["--smoke", "--data_dir", "mrpc"], []),
}


# What the system, safetensors and PyTorch say when nothing more can be written.
FULL_DISK = r"cannot write|File too large|is the disk full"
TRAINING = ("bert_finetune", "gpt2_finetune", "seq2seq_lstm")


def limit_file_size(size):
    """Make every write beyond a size an error, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def start(name, folder, *arguments, **options):
    """Start a script in a folder as its user would, without any network."""
    need(name)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
    }
    command = [sys.executable, "-u", str(SCRIPTS[name]), *COMMANDS[name][0], *arguments]
    with open(folder / "stdout.txt", "w") as stdout, open(folder / "stderr.txt", "w") as stderr:
        streams = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
        return subprocess.Popen(command, cwd=folder, env=environment, **streams | options)


def finish(process, folder):
    """Wait for a process; return its exit status and what it wrote to stderr."""
    return process.wait(timeout=180), (folder / "stderr.txt").read_text()


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory):
    """Make a folder with the input that a script needs."""
    inputs = tmp_path_factory.mktemp("inputs")
    t5, rows = (
        load_script("t5_translator"),
        "1\t1\t2\tThe cat number {0} sat.\tThe cat was sitting {0} times.\n",
    )
    torch.manual_seed(0)
    for part in t5.tiny(t5.SAMPLE_PAIRS, t5.build_prompt("English", "German")):
        part.save_pretrained(inputs / "model")
    texts = [english for english, _ in t5.SAMPLE_PAIRS]
    (inputs / "in.txt").write_text(
        "".join(f"{texts[i % len(texts)]} {i % 97}\n" for i in range(12_000))
    )
    (inputs / "mrpc").mkdir()
    pairs = "".join(rows.format(i) for i in range(4000))
    (inputs / "mrpc" / "train.tsv").write_text(
        f"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n{pairs}"
    )

    def new(name):
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(inputs, folder, dirs_exist_ok=True)
        return folder

    return new


def results(name, folder):
    """What a run is for, as comparable values: arrays of weights or tensors, and translations."""
    output = folder / "outputs" / name
    if name == "t5_translator":
        return {"translations": (folder / "out.txt").read_bytes()}
    if name == "glue_mrpc":
        saved = torch.load(output / "glue_mrpc_labled_tensor.pt", weights_only=True)
        return {
            f"{split} {key}": tensor.numpy()
            for split, tensors in saved.items()
            for key, tensor in tensors.items()
        }
    if name == "seq2seq_lstm":
        translator = load_script(name).load_translator(output)
        return dict(
            enumerate(variable.numpy() for variable in translator.model.trainable_variables)
        )
    return load_file(output / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(
        first[key] == second[key]
        if isinstance(first[key], bytes)
        else np.array_equal(first[key], second[key])
        for key in first
    )


@pytest.fixture(scope="module")
def whole_run(new_folder):
    """Run a script to its end, once; return the seconds that it took, its results, and a copy of its folder."""

    @functools.cache
    def run(name):
        folder, begin = new_folder(name), time.monotonic()
        status, stderr = finish(start(name, folder), folder)
        assert status == 0, stderr
        return time.monotonic() - begin, results(name, folder), folder

    def copy(name):
        seconds, expected, folder = run(name)
        return seconds, expected, shutil.copytree(folder, new_folder(name), dirs_exist_ok=True)

    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_runs_end_like_the_uninterrupted_one(name, new_folder, whole_run):
    seconds, expected, _ = whole_run(name)
    rng = random.Random(name)
    folder, kills = new_folder(name), 0
    while kills < KILLS:
        process = start(name, folder, *(COMMANDS[name][1] if kills else []))
        try:
            process.wait(rng.uniform(0.3, 1) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        status, stderr = finish(process, folder)
        assert status in (0, -signal.SIGKILL), stderr
        if status == 0:  # done before the kill: compare, and start a new run
            assert same(results(name, folder), expected)
            folder = new_folder(name)
        else:
            kills += 1
    status, stderr = finish(start(name, folder, *COMMANDS[name][1]), folder)
    assert status == 0, stderr
    assert same(results(name, folder), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_interrupt_ends_in_one_line_that_says_how_to_go_on(name, whole_run):
    _, expected, folder = whole_run(name)
    process = start(name, folder)
    working = "stdout.txt" if name == "glue_mrpc" else "outputs/*/checkpoint-*"
    working = ".out.txt.partial" if name == "t5_translator" else working
    while (
        not any(path.is_dir() or path.stat().st_size for path in folder.glob(working))
        and process.poll() is None
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    status, stderr = finish(process, folder)
    assert status == 130, stderr
    assert stderr.splitlines()[-1].startswith("error: interrupted: the same command")
    assert "Traceback" not in stderr
    assert same(results(name, folder), expected)  # of the earlier run


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_full_disk_ends_in_one_line_and_leaves_the_earlier_result(name, whole_run):
    _, expected, folder = whole_run(name)
    written = folder / "out.txt" if name == "t5_translator" else folder / "outputs"
    largest = max(path.stat().st_size for path in (written, *written.rglob("*")) if path.is_file())
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    runs = []
    # In one nothing fits; in the other the weights do, but not the optimizer, which is larger.
    for limit in (largest // 2, largest * 3 // 2)[: 1 + (name in TRAINING)]:
        limited = functools.partial(limit_file_size, limit)
        process = start(name, folder, preexec_fn=limited, **pipes)
        runs.append((process, folder))
        folder = whole_run(name)[2]
    for process, folder in runs:  # side by side: each takes one core
        _, stderr = process.communicate(timeout=180)
        assert process.returncode == 2, stderr
        last = stderr.splitlines()[-1]
        assert last.startswith("error: ") and re.search(FULL_DISK, last), stderr
        assert "Traceback" not in stderr
        assert same(results(name, folder), expected)
