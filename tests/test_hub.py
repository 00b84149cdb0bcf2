"""The hub: the runs without flags against a small hub of our own, and what a user reads when the hub fails.

The hub of `hub_server.py` serves tiny models with the files, the names of weights and the aliases of the real one.
"""

import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import pty
import re
import shutil
import socket
import string
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import datasets.config
import huggingface_hub.constants
import huggingface_hub.file_download
import pandas as pd
import pytest
import torch
import transformers
from conftest import SCRIPTS, load_script
from hub_server import Hub
from safetensors.torch import load_file, save_file

DEFAULT_MODELS = {
    "bert_finetune": "google-bert/bert-base-uncased",
    "gpt2_finetune": "openai-community/gpt2",
    "glue_mrpc": "google-bert/bert-base-uncased",
    "t5_translator": "google-t5/t5-small",
}
ALIASES = {"glue_mrpc": "bert-base-uncased"}
ALIASES |= {name: DEFAULT_MODELS[name].split("/")[1] for name in DEFAULT_MODELS}
TRAINERS = [name for name in DEFAULT_MODELS if name != "glue_mrpc"]
SURPLUS = [
    "README.md",
    ".gitattributes",
    "pytorch_model.bin",
    "tf_model.h5",
    "flax_model.msgpack",
    "model.fp16.safetensors",
    "consolidated.safetensors",
    "onnx/config.json",
    "onnx/tokenizer.json",
    "onnx/decoder_model.onnx",
    "original/consolidated.00.safetensors",
    "coreml/fill-mask/weights/weight.bin",
]
NEEDED = r"(config|tokenizer|tokenizer_config|vocab|generation_config|special_tokens_map)\.json"
NEEDED += r"|(vocab|merges)\.txt|spiece\.model|model\.safetensors|mrpc/\w+-00000-of-00001\.parquet"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
ONE_STEP = ["--max_steps", "1", "--per_device_train_batch_size", "4", "--bf16", "false"]

every_download = pytest.mark.parametrize("name", DEFAULT_MODELS)


# The hub's content ------------------------------------------------------------------------------


def add_repository(hub_folder: Path, kind: str, repo: str) -> Path:
    """A folder of the hub with the files that nobody needs; whoever loads them fails."""
    folder = hub_folder / kind / repo
    for file in SURPLUS:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"not needed" * 100)
    return folder


def bert_tokenizer(folder: Path) -> int:
    """Write the three files of bert-base-uncased's tokenizer, for the sample of the script; returns its size."""
    sample = [text for rows in load_script("bert_finetune").SAMPLE.values() for text, _ in rows]
    words = sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(sample).lower())))
    pieces = list(string.ascii_lowercase + string.digits + string.punctuation)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *[f"##{p}" for p in pieces]]
    tokens = list(dict.fromkeys([*tokens, *words]))
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    settings = {"do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(tokens)


def save_model(model: transformers.PreTrainedModel, folder: Path, rename) -> None:
    """Save a model with the architecture and the weights' names of the hub's file."""
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    save_file(
        {rename(key): value for key, value in load_file(file).items()}, file, {"format": "pt"}
    )


def add_bert(hub_folder: Path, repo: str = "google-bert/bert-base-uncased") -> Path:
    """With the heads of pretraining, and LayerNorms that are called gamma and beta."""
    folder = add_repository(hub_folder, "models", repo)
    size = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=bert_tokenizer(folder), num_hidden_layers=2, **size)
    torch.manual_seed(0)

    def rename(key: str) -> str:
        return re.sub(r"LayerNorm\.(weight|bias)$", lambda m: f"LayerNorm.{OLD[m[1]]}", key)

    save_model(transformers.BertForPreTraining(config), folder, rename)
    settings = json.loads((folder / "config.json").read_text()) | {
        "architectures": ["BertForMaskedLM"]
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


OLD = {"weight": "gamma", "bias": "beta"}


def add_gpt2(hub_folder: Path) -> Path:
    """Without the prefix of the weights' names, and with the causal masks."""
    folder = add_repository(hub_folder, "models", "openai-community/gpt2")
    text = load_script("gpt2_finetune").SAMPLE_TEXT
    options = {"show_progress": False}
    tokenizer = transformers.GPT2Tokenizer().train_new_from_iterator([text], 400, **options)
    tokenizer.save_pretrained(folder)
    vocabulary, merges = json.loads((folder / "tokenizer.json").read_text())["model"], []
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in vocabulary["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocabulary["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    size = {
        "vocab_size": len(tokenizer),
        "n_positions": 128,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
    }
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, **end))
    save_model(model, folder, lambda key: key.removeprefix("transformer."))
    tensors = load_file(folder / "model.safetensors")
    masks = {f"h.{n}.attn.bias": torch.tril(torch.ones(1, 1, 128, 128)) for n in range(2)}
    save_file(tensors | masks, folder / "model.safetensors", {"format": "pt"})
    return folder


def add_t5(hub_folder: Path) -> Path:
    """With a bias that no layer has, and rows for tokens that do not exist."""
    folder, script = (
        add_repository(hub_folder, "models", "google-t5/t5-small"),
        load_script("t5_translator"),
    )
    text = " ".join(" ".join(pair) for pair in script.SAMPLE_PAIRS)
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(f"▁{word}", -1.0) for word in dict.fromkeys(text.split())]
    vocabulary += [
        (letter, -10.0) for letter in sorted({"▁", *string.printable.split()[0], *text} - {" "})
    ]
    tokenizer = transformers.T5Tokenizer(vocabulary)
    tokenizer.save_pretrained(folder)
    (folder / "spiece.model").write_bytes(b"the same in another format")
    size = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = transformers.T5Config(vocab_size=len(tokenizer) + 28, decoder_start_token_id=0, **size)
    torch.manual_seed(0)
    save_model(transformers.T5ForConditionalGeneration(config), folder, str)
    tensors = load_file(folder / "model.safetensors")
    surplus = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[surplus] = torch.zeros(32, 4)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


FAMILY = {
    "google/flan-t5-small": (transformers.T5Config, {"tie_word_embeddings": False}),
    "google/madlad400-3b-mt": (transformers.T5Config, {"tie_word_embeddings": False}),
    "google/mt5-small": (transformers.MT5Config, {"tie_word_embeddings": False}),
    "google/umt5-small": (transformers.UMT5Config, {"tie_word_embeddings": False}),
}


def add_relative_of_t5(hub_folder: Path, repo: str) -> None:
    """With a gated feed-forward layer, and MADLAD's tags as pieces of the vocabulary."""
    folder = add_repository(hub_folder, "models", repo)
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [("<2de>", 0.0)] if "madlad" in repo else []
    vocabulary += [(letter, -10.0) for letter in ["▁", *string.printable.split()[0]]]
    options = {} if "t5-" in repo and "mt5" not in repo else {"extra_ids": 0}
    tokenizer = transformers.T5Tokenizer(vocabulary, **options)
    tokenizer.save_pretrained(folder)
    config_class, more = FAMILY[repo]
    size = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    size |= {"vocab_size": len(tokenizer) + 12, "feed_forward_proj": "gated-gelu"}
    torch.manual_seed(0)
    config = config_class(decoder_start_token_id=0, **size, **more)
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)


def add_glue(hub_folder: Path) -> None:
    """The configuration mrpc, and others that nobody asked for."""
    folder = hub_folder / "datasets" / "nyu-mll" / "glue"
    pairs = load_script("glue_mrpc").SAMPLE_PAIRS
    for config in ("cola", "mrpc", "mnli"):
        (folder / config).mkdir(parents=True)
        for split, rows in pairs.items():
            table = pd.DataFrame(rows, columns=["sentence1", "sentence2", "label"])
            table["idx"] = range(len(table))
            table.to_parquet(folder / config / f"{split}-00000-of-00001.parquet", index=False)
    (folder / "README.md").write_text("# GLUE")


def add_roberta(hub_folder: Path) -> None:
    folder = add_repository(hub_folder, "models", "FacebookAI/roberta-base")
    tokenizer = transformers.RobertaTokenizer().train_new_from_iterator(
        [load_script("gpt2_finetune").SAMPLE_TEXT], 400, show_progress=False
    )
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.RobertaConfig(vocab_size=len(tokenizer), num_hidden_layers=1, **size)
    transformers.RobertaForMaskedLM(config).save_pretrained(folder)


def shard(folder: Path) -> None:
    """Split the weights into two files with an index; the whole file goes."""
    tensors, index = load_file(folder / "model.safetensors"), {}
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The hub's folder, built once."""
    folder = tmp_path_factory.mktemp("hub")
    add_gpt2(folder)
    add_t5(folder)
    add_glue(folder)
    add_roberta(folder)
    shutil.copytree(add_bert(folder), folder / "models" / "someone" / "bert-in-shards")
    shard(folder / "models" / "someone" / "bert-in-shards")
    return folder


@pytest.fixture(scope="module")
def serving(content):
    hub = Hub(content)
    yield hub
    hub.close()


@pytest.fixture
def hub(serving):
    """The hub, well and with an empty log."""
    serving.be_well()
    serving.gated.clear()
    serving.asked.clear()
    yield serving
    serving.be_well()
    serving.gated.clear()


def bodies(hub: Hub, of: str = ".") -> list[str]:
    """The files whose content was sent, or that were asked for in vain."""
    asked = [
        path.split("?")[0]
        for method, path, status in hub.asked
        if method == "GET" and status not in (302, 307)
    ]
    files = [
        re.sub(r".*?/resolve/\w+/|/storage/(models|datasets)/[^/]+/[^/]+/", "", p) for p in asked
    ]
    return [file for file in files if not file.startswith("/api/") and re.search(of, file)]


# Runs of the scripts ------------------------------------------------------------------------------


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """The environment of a user who has set nothing but where the hub is."""
    dropped = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PYTHONPATH", "HF_TOKEN", "HF_HUB_CACHE"}
    dropped |= {proxy for name in PROXIES for proxy in (name, name.lower())}
    clean = {key: value for key, value in os.environ.items() if key not in dropped}
    return clean | {"HF_ENDPOINT": url, "HF_HOME": str(home), "PYTHONIOENCODING": "utf-8"} | more


def run_on_screen(name: str, *arguments: str, cwd: Path, env: dict) -> tuple[int, str]:
    """`python SCRIPT.py` in a terminal of 100 columns; returns its exit status and all that it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    command, written = [sys.executable, str(SCRIPTS[name]), *arguments], []
    options = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "close_fds": True}
    process = subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True, **options)
    os.close(theirs)
    with contextlib.suppress(OSError):  # the other end is closed
        while block := os.read(ours, 65536):
            written.append(block)
    os.close(ours)
    return process.wait(timeout=60), b"".join(written).decode("utf-8", "replace")


@pytest.fixture(scope="module")
def first_runs(serving, tmp_path_factory):
    """Each of the four scripts without any flag, on a screen, with an empty cache."""
    runs = {}
    for name in DEFAULT_MODELS:
        serving.be_well()
        serving.asked.clear()
        cwd, home = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp(f"{name}_home")
        status, screen = run_on_screen(name, cwd=cwd, env=environment(serving.url, home))
        asked = list(serving.asked)
        log = SimpleNamespace(asked=asked)
        runs[name] = SimpleNamespace(status=status, screen=screen, cwd=cwd, home=home, log=log)
    return runs


@pytest.fixture
def as_user(monkeypatch, tmp_path, run_as_main, capfd, hub):
    """Run a script in this process as a user of this hub; returns exit status, standard output and error.

    What huggingface_hub read from the environment at its import is set here: where the hub is, the cache, offline.
    """
    monkeypatch.chdir(tmp_path)
    # An attempt with Xet that failed is remembered by the process, which here goes on.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    for proxy in PROXIES:
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.lower(), raising=False)

    def run(name: str, *arguments: str, home: Path = tmp_path / "home", offline=False, url=hub.url):
        values = {"ENDPOINT": url, "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": offline}
        values |= {"HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}"}
        for key, value in values.items():
            monkeypatch.setattr(huggingface_hub.constants, key, value)
        huggingface_hub.close_session()  # a new one reads the proxies
        capfd.readouterr()
        status = run_as_main(name, *arguments)
        return (status, *capfd.readouterr())

    yield run
    huggingface_hub.close_session()


def quick(name: str, folder: Path) -> list[str]:
    """Flags that make a run short."""
    flags = {"glue_mrpc": [], "t5_translator": ["--text", "a dog"]}
    flags |= {"gpt2_finetune": [*ONE_STEP, "--cache_dir", str(folder), "--block_size", "16"]}
    return flags.get(name, ONE_STEP)


def one_line(status: int, output: str, errors: str) -> str:
    """Assert that a run ended as bad input does, and return its line."""
    lines = [line for line in errors.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert status == 2 and len(lines) == 1, errors
    assert "Traceback" not in errors and errors.rstrip().endswith(lines[0]), errors
    assert not re.search(r"(eval|train)_\w+ +=", output)
    left = [path for path in Path("outputs").rglob("*") if path.is_file()]
    assert left == [], left
    return lines[0]


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# a. Without flags: download, cached, offline


@pytest.mark.slow
@every_download
def test_first_run_without_flags(name, first_runs):
    run = first_runs[name]
    assert run.status == 0, run.screen
    results = {
        "bert_finetune": "eval_accuracy",
        "gpt2_finetune": "eval_loss",
        "glue_mrpc": "longest",
    }
    if name in results:
        (file,) = run.cwd.glob("outputs/*/all_results.json")
        assert results[name] in file.read_text()
    assert "Traceback" not in run.screen and "error:" not in run.screen


@pytest.mark.slow
@every_download
def test_only_what_is_needed_is_fetched(name, first_runs):
    files = bodies(first_runs[name].log)
    files = [file for file in files if not file.endswith("agent-harnesses")]
    surplus = [file for file in files if not re.fullmatch(NEEDED, file)]
    assert surplus == []
    weights = [file for file in files if file.endswith(".safetensors")]
    assert weights == ([] if name == "glue_mrpc" else ["model.safetensors"])
    assert len(files) == len(set(files)), "a file was sent twice"
    if name == "glue_mrpc":
        assert sum(file.startswith("mrpc/") for file in files) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_nothing_on_the_screen_that_a_newcomer_must_wonder_about(name, first_runs):
    screen = re.sub(r"warning: (all rows|BERT is not) .*", "", first_runs[name].screen)  # it is so
    strange = r"(?i)warning|gamma|LayerNorm|LOAD REPORT|UNEXPECTED|MISSING|unauthenticated|relative_attention"
    assert not re.search(strange, screen), screen


@pytest.mark.slow
@every_download
def test_second_run_takes_the_cached_files(name, first_runs, as_user, hub, tmp_path):
    home = shutil.copytree(first_runs[name].home, tmp_path / "home", symlinks=True)
    status, _, errors = as_user(name, *quick(name, tmp_path), home=home)
    assert status == 0, errors
    assert hub.asked != [] and bodies(hub) == []


OUT_OF_REACH = ["HF_HUB_OFFLINE", "refused", "503", "429", "401", "socks", "proxy"]
OUT_OF_REACH += ["certificate", "portal", "endpoint"]
PROXY_OF = {
    "socks": "socks5://127.0.0.1:9",
    "proxy": "http://127.0.0.1:9",
}


def make_unreachable(hub: Hub, fault: str, monkeypatch, name: str = "") -> dict:
    """Let the hub fail; returns what `as_user` must know."""
    if fault == "password" and name == "bert_finetune":
        pytest.skip("a proxy's address that is none keeps its traceback")
    if fault == "socks" and socks_package():
        pytest.skip("the package for SOCKS is here")
    if fault in PROXY_OF:
        monkeypatch.setenv("ALL_PROXY", PROXY_OF[fault])
    elif fault == "401":
        hub.status, message = 401, "Invalid credentials in Authorization header"
        hub.headers = {"X_Error_Message": message}
    elif fault in ("503", "429"):
        hub.status = int(fault)
    elif fault == "portal":  # a page to log in, in place of all others
        hub.status, hub.page = 200, b"<html>Welcome to the airport</html>"
    # The library tries again after 1, 2, 4 … seconds.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    urls = {"HF_HUB_OFFLINE": closed_port(), "refused": closed_port(), "endpoint": "hub.invalid"}
    urls |= {"certificate": hub.url.replace("http:", "https:")}
    return {"offline": fault == "HF_HUB_OFFLINE", "url": urls.get(fault, hub.url)}


@pytest.mark.slow
@every_download
def test_offline_run_takes_the_cached_files(name, first_runs, as_user, hub, tmp_path, monkeypatch):
    home = shutil.copytree(first_runs[name].home, tmp_path / "home", symlinks=True)
    options = make_unreachable(hub, "HF_HUB_OFFLINE", monkeypatch)
    status, _, errors = as_user(name, *quick(name, tmp_path), home=home, **options)
    assert status == 0, errors
    assert hub.asked == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fault"),
    [*(("bert_finetune", fault) for fault in OUT_OF_REACH[1:]), ("glue_mrpc", "503")],
)
def test_cached_files_do_without_the_hub(
    name, fault, first_runs, as_user, hub, tmp_path, monkeypatch
):
    home = shutil.copytree(first_runs[name].home, tmp_path / "home", symlinks=True)
    options = make_unreachable(hub, fault, monkeypatch, name)
    status, _, errors = as_user(name, *quick(name, tmp_path), home=home, **options)
    assert status == 0, errors


@pytest.mark.slow
def test_offline_run_in_a_process_of_its_own(first_runs, tmp_path):
    """As above, with the variable itself; a screen that shows neither bars nor complaints."""
    env = environment(closed_port(), first_runs["glue_mrpc"].home, HF_HUB_OFFLINE="1")
    status, screen = run_on_screen("glue_mrpc", cwd=tmp_path, env=env)
    assert status == 0, screen
    assert not DOWNLOAD_BAR.search(screen), screen


def test_weights_in_shards(as_user, hub, tmp_path):
    flags = [*ONE_STEP, "--model_name_or_path", "someone/bert-in-shards"]
    status, _, errors = as_user("bert_finetune", *flags)
    assert status == 0, errors
    weights = [file for file in bodies(hub) if file.endswith(".safetensors")]
    assert sorted(weights) == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


def test_a_table_on_the_hub_is_a_training_text(as_user, hub, tmp_path, monkeypatch):
    """GPT-2: of the data set that file alone is read."""
    file = "mrpc/train-00000-of-00001.parquet"
    flags = ["--smoke", "--max_steps", "1", "--block_size", "8", "--cache_dir", str(tmp_path)]
    flags += ["--prompt", "a", "--text_column", "sentence1", "--train_file"]
    file = f"hf://datasets/nyu-mll/glue/{file}"
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    status, output, errors = as_user("gpt2_finetune", *flags, file)
    assert status == 0, errors
    assert "tokens for train" in output
    shutil.rmtree("outputs")
    one_line(*as_user("gpt2_finetune", *flags, file, offline=True))
    line = one_line(*as_user("gpt2_finetune", *flags, "hf://datasets/nyu-mll/glue/none.parquet"))
    assert "none.parquet" in line


# b. Another model


WRONG = [
    ("bert_finetune", "FacebookAI/roberta-base", "roberta"),
    ("bert_finetune", "google-t5/t5-small", "t5"),
    ("bert_finetune", "openai-community/gpt2", "gpt2"),
    ("gpt2_finetune", "google-t5/t5-small", "t5"),
]


@pytest.mark.parametrize(("name", "model", "kind"), WRONG)
def test_another_type_of_model_is_refused(name, model, kind, as_user, hub):
    flags = ["--text", "a"] if name == "t5_translator" else []
    line = one_line(*as_user(name, *flags, "--model_name_or_path", model))
    assert model in line and re.search(rf"\b{kind}\b", line.replace(model, ""), re.IGNORECASE)


@pytest.mark.parametrize("model", ["google-bert/bert-base-uncased", "FacebookAI/roberta-base"])
def test_another_type_of_model_is_named_for_t5(model, as_user, hub):
    line = one_line(*as_user("t5_translator", "--text", "a", "--model_name_or_path", model))
    kind = "roberta" if "roberta" in model else "bert"
    assert f"cannot load {model}: it is a {kind} model, not a T5" in line


@pytest.mark.parametrize("model", ["FacebookAI/roberta-base", "google-t5/t5-small"])
def test_another_tokenizer_for_mrpc(model, as_user, hub):
    """Refused in one line, or it works: nothing in between, and no weights."""
    done = as_user("glue_mrpc", "--model_name_or_path", model)
    if done[0]:
        assert model in one_line(*done)
    else:
        tensors = torch.load("outputs/glue_mrpc/glue_mrpc_labled_tensor.pt", weights_only=True)
        assert len(tensors["train"]["input_ids"].unique()) > 20, "the words are unknown"
    assert bodies(hub, "safetensors|bin|cola|mnli") == []


# c. What a user reads


@pytest.mark.parametrize("name", TRAINERS)
def test_unknown_name(name, as_user, hub):
    wrong = ALIASES[name].replace("s", "", 1) if name != "gpt2_finetune" else "gtp2"
    flags = ["--text", "a"] if name == "t5_translator" else []
    line = one_line(*as_user(name, *flags, "--model_name_or_path", wrong))
    assert wrong in line and re.search(r"(?i)no such|not found|does not exist|unknown", line)


@pytest.mark.parametrize("wrong", ["outputs/bert_finetun", "outputs\\bert_finetune", "a/b/c"])
def test_mistyped_folder(wrong, as_user, hub):
    line = one_line(*as_user("bert_finetune", "--model_name_or_path", wrong))
    assert f"cannot download {wrong}: " in line and "a local folder" in line


def test_a_file_is_no_model(as_user, hub, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    line = one_line(*as_user("bert_finetune", "--model_name_or_path", "model.safetensors"))
    assert re.search(r"model\.safetensors.*folder", line)


@pytest.mark.parametrize("name", TRAINERS)
def test_gated_model(name, as_user, hub):
    hub.gated = set(DEFAULT_MODELS.values())
    line = one_line(*as_user(name, *(["--text", "a"] if name == "t5_translator" else [])))
    assert re.search(r"gated|restricted", line) and re.search(r"log ?in", line)
    assert ALIASES[name] in line
    assert bodies(hub, "safetensors") == []


EXPLAINED = {
    "HF_HUB_OFFLINE": r"HF_HUB_OFFLINE.*--smoke",
    "refused": r"([Cc]onnect|refused|reach).*--smoke",
    "503": r"503.*(again|later|--smoke)",
    "429": r"(?i)(429|rate|too many).*(wait|later|log ?in)",
    "401": r"401.*log ?in",
    "socks": r"(?i)socks.*pip install \S*socks",
    "proxy": r"(?i)(proxy|connect|refused).*--smoke",
    "certificate": r"SSL.*--smoke",
    "portal": r"--smoke",
    "endpoint": r"(hub\.invalid|http://).*--smoke",
}


# All scripts have the same lines for it: one fault tells whether the last one calls them rightly.
RUNS = [(name, fault) for name in TRAINERS for fault in OUT_OF_REACH] + [("glue_mrpc", "refused")]


@pytest.mark.parametrize(("name", "fault"), RUNS)
def test_hub_out_of_reach(name, fault, as_user, hub, monkeypatch):
    options = make_unreachable(hub, fault, monkeypatch, name)
    line = one_line(
        *as_user(name, *(["--text", "a"] if name == "t5_translator" else []), **options)
    )
    what = ALIASES[name] if name != "glue_mrpc" else "nyu-mll/glue|bert-base-uncased"
    assert re.search(what, line) and re.search(EXPLAINED[fault], line), line
    assert len(line) < 400 and "Request ID" not in line and "Errno None" not in line


def socks_package() -> bool:
    return importlib.util.find_spec("socksio") is not None


@pytest.mark.parametrize("at", ["config", "safetensors"])
def test_hub_that_breaks_down_in_the_middle(at, as_user, hub, monkeypatch):
    """The page of the model comes, but not its files."""
    hub.status, hub.match = 503, rf"resolve.*{at}|storage.*{at}"
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    line = one_line(*as_user("bert_finetune"))
    assert "bert-base-uncased" in line and "--smoke" in line


CUT_FILES = {
    "bert_finetune": "storage.*safetensors",
    "gpt2_finetune": "tokenizer.json",
    "glue_mrpc": "validation.*parquet",
    "t5_translator": "storage.*safetensors",
}
BROKEN_OFF = r"(?i)connection|peer closed|cut|incomplete|broke|interrupted|received"


@every_download
def test_connection_is_cut_in_the_middle_of_a_file(name, as_user, hub, monkeypatch):
    """Half a file is no file: neither this run nor the next one takes it."""
    flags = ["--text", "a dog"] if name == "t5_translator" else []
    hub.cut, hub.match = 1000, CUT_FILES[name]
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    line = one_line(*as_user(name, *flags))
    what = "nyu-mll/glue" if name == "glue_mrpc" else ALIASES[name]
    assert what in line and re.search(BROKEN_OFF, line), line
    assert re.search(r"again|--smoke", line), line
    offline = one_line(*as_user(name, *flags, offline=True))
    assert what in offline and re.search(r"HF_HUB_OFFLINE|cache", offline), offline


def test_connection_is_cut_once(as_user, hub, monkeypatch):
    """The library goes on by itself; what arrives is whole."""
    hub.cut, hub.match, hub.cuts = 1000, "storage.*safetensors", 1
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    status, _, errors = as_user("bert_finetune", *ONE_STEP)
    assert status == 0, errors


def test_next_run_after_a_cut_connection(as_user, hub, monkeypatch, tmp_path):
    hub.cut, hub.match = 1000, "storage.*safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda seconds: None)
        one_line(*as_user("bert_finetune"))
    hub.be_well()
    hub.asked.clear()
    status, _, errors = as_user("bert_finetune", *ONE_STEP)
    assert status == 0, errors
    assert "model.safetensors" in bodies(hub) and "config.json" not in bodies(hub)


def test_full_disk(as_user, hub, monkeypatch):
    def no_room(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", no_room)
    line = one_line(*as_user("bert_finetune"))
    assert "bert-base-uncased" in line and re.search(r"(?i)no space|disk", line)


def test_cache_that_cannot_be_written(as_user, hub, tmp_path):
    (tmp_path / "home").write_text("a file where the cache should be")
    line = one_line(*as_user("bert_finetune"))
    assert re.search(r"bert-base-uncased.*home", line)


# d. The progress bar


DOWNLOAD_BAR = re.compile(
    r"[\w/-]+\.(json|txt|model|safetensors|parquet)\S*\s*:.*?%\||Fetching \d+ files"
)
DOWNLOAD_BAR = re.compile(
    DOWNLOAD_BAR.pattern + "|Download(ing|ed)? (bytes|complete)|[Rr]econstruct"
)


@pytest.mark.slow
@every_download
def test_a_download_shows_a_bar_with_the_name_of_the_file(name, first_runs):
    screen = first_runs[name].screen
    bar = r"(Fetching \d+ files|Downloading bytes|model\.safetensors)\S*:[^\n]*?\|"
    assert re.search(bar, screen), screen


def rows_of(screen: str) -> list[str]:
    """The rows of the terminal at the end: what a carriage return and a cursor that goes up have left."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\r|\n|\x1b\[\d*[A-Za-z]|[^\r\n\x1b]+", screen):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif part.startswith("\x1b"):
            row = max(0, row - int(part[2:-1] or 1)) if part.endswith("A") else row
        else:
            old = rows[row].ljust(column)
            rows[row] = old[:column] + part + old[column + len(part) :]
            column += len(part)
    return rows


@pytest.mark.slow
@every_download
def test_no_bar_is_drawn_over_results(name, first_runs):
    """Each line of the results stands alone in its row, and no bar comes after the first one."""
    screen = first_runs[name].screen
    rows = rows_of(screen)
    marks = {"glue_mrpc": r"^A single sentence: ", "t5_translator": r"^\S.*$"}
    first = [row for row in rows if re.search(marks.get(name, r"^ +\w+ = \S+ *$"), row)]
    assert first, rows
    if name in ("bert_finetune", "gpt2_finetune"):
        results = [row for row in rows if re.search(r"\w+ = -?[\d.e+-]+", row)]
        assert all(re.fullmatch(r" +\w+ = \S+ *", row) for row in results), results
        after = screen[screen.index(first[0].strip()) :]
        assert "%|" not in after and "\x1b[A" not in after
    assert not any("%|" in row and DOWNLOAD_BAR.search(row) and " = " in row for row in rows)


def test_a_file_gets_no_bars(as_user, hub):
    """Where nobody looks on, as in a log file, there is no line per step of a download."""
    status, _, errors = as_user("t5_translator", "--text", "a dog")
    assert status == 0 and errors.count("model.safetensors") <= 2, errors


# e. The Xet storage


XET_FAULTS = [
    "Task error: File reconstruction error: CAS Client Error: Request middleware error: error sending request for url (u)",
    "Task error: File reconstruction error: CAS Client Error: Format error: I/O error: error decoding response body",
    "Data processing error: I/O error: No space left on device (os error 28)",
]


@pytest.fixture
def xet_that_breaks(monkeypatch, hub):
    """The attempts to fetch a file through hf_xet, which raises what a test appends."""
    hub.xet, calls = True, []

    def xet_get(**options):
        calls.append(options["displayed_filename"])
        raise RuntimeError(XET_FAULTS[len(calls) % 3])

    monkeypatch.setattr(huggingface_hub.file_download, "xet_get", xet_get)
    return calls


@pytest.mark.parametrize("name", DEFAULT_MODELS)
def test_without_the_xet_storage_a_line_names_the_way_around_it(name, as_user, xet_that_breaks):
    line = one_line(*as_user(name, *(["--text", "a"] if name == "t5_translator" else [])))
    wanted = "nyu-mll/glue" if name == "glue_mrpc" else ALIASES[name]
    assert wanted in line and "HF_HUB_DISABLE_XET=1" in line
    assert any(fault.partition("\n")[0] in line for fault in XET_FAULTS)


def test_bugs_are_no_xet_failures(as_user, hub, monkeypatch):
    """A RuntimeError of another kind, after the download, is still a traceback."""
    script_error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    def broken(*arguments, **options):
        raise script_error

    monkeypatch.setattr(transformers.Trainer, "train", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        as_user("bert_finetune")


@pytest.mark.slow
def test_xet_storage_out_of_reach_costs_seconds(hub, tmp_path):
    """The real hf_xet: left to itself it tries for 200 seconds, in silence."""
    hub.xet = True
    command = [sys.executable, str(SCRIPTS["t5_translator"]), "--text", "a dog"]
    options = {"cwd": tmp_path, "env": environment(hub.url, tmp_path / "home"), "text": True}
    done = subprocess.run(command, **options, capture_output=True, timeout=120)
    assert done.returncode == 2 and "HF_HUB_DISABLE_XET=1" in done.stderr, done.stderr


# f. Sending a model, and reading a data set where it lies


def test_a_push_without_a_network_ends_before_the_training(as_user, hub, monkeypatch):
    options = make_unreachable(hub, "refused", monkeypatch)
    line = one_line(*as_user("bert_finetune", "--smoke", "--push_to_hub", **options))
    assert re.search(r"(?i)connect|refused|not known", line), line


def test_a_push_uploads_pictures_and_no_pickle(as_user, hub, monkeypatch, tmp_path):
    """Once, at the end, and what lies in the folder then."""
    sent = []

    def create(name, **options):
        return SimpleNamespace(repo_id=f"someone/{name}")

    def upload(repo_id, folder_path, **patterns):
        there = [path for path in Path(folder_path).rglob("*") if path.is_file()]
        names = [path.relative_to(folder_path).as_posix() for path in there]
        sent.append((repo_id, set(huggingface_hub.utils.filter_repo_objects(names, **patterns))))

    monkeypatch.setattr(huggingface_hub, "create_repo", create)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    private = Path("outputs/bert_finetune/other")
    private.mkdir(parents=True)
    for folder in (private, private.parent):
        (folder / "generated.txt").write_text("a prompt")
    (private / "config.json").write_text("{}")
    status, output, errors = as_user(
        "bert_finetune", "--smoke", "--push_to_hub", "--max_steps", "1"
    )
    assert status == 0, errors
    ((name, files),) = sent
    assert "generated.txt" not in files and not any("/" in file for file in files)
    assert name == "someone/bert_finetune" and f"Uploaded to {name}" in output
    assert {"model.safetensors", "training_curve.png", "confusion_matrix.png"} <= files
    assert "tokenizer.json" in files and "all_results.json" in files
    # Neither pickles nor the texts of the rows that were predicted.
    assert not any(file.endswith((".bin", ".pt", ".tsv")) for file in files)
    assert Path("outputs/bert_finetune/predictions.tsv").exists()


def test_parquet_on_the_hub_is_read_and_without_a_network_ends_in_one_line(
    as_user, hub, monkeypatch
):
    file = "hf://datasets/nyu-mll/glue/mrpc/train-00000-of-00001.parquet"
    flags = ["--smoke", "--train_file", file, "--text_column", "sentence1", "--max_steps", "1"]
    asked = []

    def read(path, **options):
        asked.append(path)
        return pd.DataFrame({"sentence1": ["a dog", "a cat"], "label": [0, 1]})

    with monkeypatch.context() as patch:
        patch.setattr(pd, "read_parquet", read)
        assert as_user("bert_finetune", *flags)[0] == 0
    assert asked == [file]
    shutil.rmtree("outputs")
    options = make_unreachable(hub, "refused", monkeypatch)
    line = one_line(*as_user("bert_finetune", *flags, **options))
    assert re.search(r"(?i)connect|refused|glue", line), line


@pytest.mark.slow
@pytest.mark.parametrize("repo", FAMILY)
def test_relatives_of_t5(repo, as_user, hub, tmp_path):
    """Each translates, learns and translates again; a tag before the text is a token, and `</s>` in it is text."""
    add_relative_of_t5(hub.folder, repo)
    prefix = ["--source_prefix", "<2de> "] if "madlad" in repo else []
    flags = ["--bf16", "false", "--max_new_tokens", "5", *prefix]
    name = ["--model_name_or_path", repo]
    status, output, errors = as_user("t5_translator", *name, *flags, "--text", "a </s> dog")
    assert status == 0, errors
    tokens = re.search("Tokens: (.*)", output)[1].split()
    assert ("<2de>" in tokens) == bool(prefix) and tokens.count("</s>") == 1
    assert tokens[-1] == "</s>"
    training = ["--do_train", *ONE_STEP, "--save_strategy", "no", "--output_dir", "learnt"]
    status, _, errors = as_user("t5_translator", *name, *training, *prefix)
    assert status == 0 and (tmp_path / "learnt" / "model.safetensors").exists(), errors
    saved = ["--model_name_or_path", "learnt", *flags, "--text", "a dog"]
    status, output, errors = as_user("t5_translator", *saved)
    assert status == 0 and "Translation: " in output, errors
    if prefix:
        _, output, _ = as_user("t5_translator", *saved, "--source_prefix", "")
        assert "<2de>" not in output
