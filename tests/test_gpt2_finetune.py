"""gpt2_finetune.py: what a user sees, and tokens, blocks and losses computed independently."""

import contextlib
import copy
import io
import json
import math
import os
import re
import shlex
import shutil
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from conftest import SCRIPTS, load_script
from hypothesis import given, settings
from hypothesis import strategies as st
from make_char_checkpoint import char_tokenizer, make_char_checkpoint
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

gpt2 = load_script("gpt2_finetune")
SAMPLE = "\n\n".join(gpt2.SAMPLE_PARAGRAPHS)
QUICK = ["--max_steps", "4", "--save_strategy", "no", "--max_new_tokens", "5"]
GPT4_WORDS = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


@pytest.fixture(autouse=True)
def restored_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


def byte_tokenizer(text, **special):
    tokenizer = GPT2Tokenizer(**special)
    return tokenizer.train_new_from_iterator([text], vocab_size=400, show_progress=False)


def gpt4_like_tokenizer(text):
    """Like those of GPT-4, Llama 3 and Qwen: a newline belongs to the punctuation before it."""
    tokenizer = Tokenizer(BPE())
    words = pre_tokenizers.Split(Regex(GPT4_WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [text], BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def sentencepiece_like_tokenizer(text):
    """Like that of Llama 2: a space and a first token before every text, spaces made visible."""
    tokenizer = Tokenizer(BPE(unk_token="?"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.train_from_iterator(
        [text], BpeTrainer(vocab_size=300, special_tokens=["?", "<s>"], show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS = {
    "gpt-2": byte_tokenizer,
    "gpt-4": gpt4_like_tokenizer,
    "sentencepiece": sentencepiece_like_tokenizer,
    "characters": char_tokenizer,
}


def llama_folder(folder, tokenizer):
    torch.manual_seed(0)
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    tokens = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(**size, **tokens, vocab_size=len(tokenizer), max_position_embeddings=48)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def results(folder):
    return json.loads((folder / "all_results.json").read_text())


def run(folder, *arguments):
    """Run the script in this process with output and cache in `folder`; returns the metrics."""
    gpt2.main([*arguments, "--output_dir", str(folder), "--cache_dir", str(folder / "cache")])
    return results(folder)


def same_weights(first, second):
    first, second = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )


@pytest.fixture(scope="module")
def trained(smoke):
    """Output folder of the smoke run."""
    done, output = smoke("gpt2_finetune")
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture
def text_file(tmp_path):
    return write(tmp_path / "text.txt", SAMPLE)


# What a user sees


def test_smoke_alone_in_an_empty_folder(smoke):
    done, output = smoke("gpt2_finetune")
    assert done.returncode == 0, done.stderr
    expected = {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    expected |= {"all_results.json", "generated.txt", "training_curve.png"}
    assert {path.name for path in output.iterdir()} == expected
    assert "After training: " + SAMPLE.split("\n\n")[0] + "\n" in done.stdout
    assert (
        (output / "generated.txt")
        .read_text()
        .endswith("After training: " + SAMPLE.split("\n\n")[0] + "\n")
    )
    command = shlex.split(done.stdout.splitlines()[-1])
    assert command[2:4] == ["--do_predict", "--prompt=The lighthouse keeper"]
    assert {"--temperature=0.0", "--seed=42"} <= set(command)
    assert command[-1] == "--model_name_or_path=outputs/gpt2_finetune"
    assert "Warning" not in done.stderr and "[transformers]" not in done.stderr


def test_smoke_learns_every_paragraph_and_the_validation_text(trained, capsys):
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(trained),
        AutoTokenizer.from_pretrained(trained),
    )
    for paragraph in SAMPLE.split("\n\n")[:17]:
        prompt = " ".join(paragraph.split()[:3])
        (text,) = gpt2.generate(model, tokenizer, prompt, 60, temperature=0)
        assert prompt + text == paragraph
    assert results(trained)["eval_loss"] < 3 < math.log(len(tokenizer))
    assert results(trained)["eval_perplexity"] == pytest.approx(
        math.exp(results(trained)["eval_loss"])
    )


def test_saved_model_continues_a_prompt_without_training(trained, tmp_path, capsys):
    prompt = ["--prompt", "Behind the church", "--max_new_tokens", "6", "--temperature", "0"]
    run(tmp_path, "--do_predict", "--model_name_or_path", str(trained), *prompt)
    printed = capsys.readouterr().out
    assert "Continuation: Behind the church stands a garden of herbs.\n" in printed
    assert "'--prompt=Behind the church' --max_new_tokens=6 " in printed.splitlines()[-1]
    assert printed.endswith(f" --model_name_or_path={trained}\n")
    assert {path.name for path in tmp_path.iterdir()} == {"all_results.json", "generated.txt"}


@pytest.mark.slow
def test_no_network_ends_in_one_line(run_alone):
    done = run_alone("gpt2_finetune", timeout=20)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: cannot download gpt2")
    assert "--smoke" in done.stderr and "a local folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_steps_that_the_flags_choose(text_file, tmp_path):
    make_char_checkpoint(SAMPLE, tmp_path / "char", n_layer=1)
    files = [
        "--train_file",
        text_file,
        "--model_name_or_path",
        str(tmp_path / "char"),
        "--block_size",
        "16",
    ]
    evaluate = [
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "2",
        "--load_best_model_at_end",
        "false",
    ]
    everything = run(tmp_path / "all", *files, *QUICK, *evaluate)
    assert {"train_loss", "eval_loss", "eval_perplexity"} <= everything.keys()
    assert (tmp_path / "all" / "generated.txt").read_text().count("The lighthouse keeper") == 2
    only_eval = run(tmp_path / "eval", "--do_eval", *files)
    assert "train_loss" not in only_eval and not (tmp_path / "eval" / "model.safetensors").exists()
    only_train = run(tmp_path / "train", "--do_train", *files, *QUICK)
    assert "eval_loss" not in only_train and not (tmp_path / "train" / "generated.txt").exists()
    assert same_weights(tmp_path / "all", tmp_path / "train")
    whole = run(tmp_path / "whole", *files, *QUICK, "--validation_split_percentage", "0")
    assert "eval_loss" not in whole
    separate = run(
        tmp_path / "separate",
        *files,
        *QUICK,
        "--validation_file",
        write(tmp_path / "v.txt", SAMPLE[-500:]),
    )
    assert same_weights(tmp_path / "separate", tmp_path / "whole")
    assert 0 < separate["eval_loss"] < 6


DECODERS = {
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 4},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "llama": {},
    "qwen2": {"num_key_value_heads": 2},
    "falcon": {},
    "bloom": {"n_layer": 1, "n_head": 4},
    "gemma": {"num_key_value_heads": 1, "head_dim": 8},
    "mistral": {"num_key_value_heads": 2},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
    "mamba": {"state_size": 4},
    "bert": {"is_decoder": True},
}
ENCODERS = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "electra": {"embedding_size": 32},
    "xlnet": {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64},
}


def random_model(model_type, **sizes):
    common = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 64}
    common |= {"num_attention_heads": 4, "num_hidden_layers": 1} if "n_head" not in sizes else {}
    common |= {"eos_token_id": 0}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **common | sizes))


@pytest.mark.parametrize("model_type", DECODERS)
def test_every_decoder_is_accepted_whatever_its_configuration_calls_it(model_type, tmp_path):
    random_model(model_type, **DECODERS[model_type]).save_pretrained(tmp_path)
    byte_tokenizer(SAMPLE).save_pretrained(tmp_path)
    _, model = gpt2.pretrained(str(tmp_path))
    assert model.config.model_type == model_type and not model.training


@pytest.mark.parametrize("model_type", ENCODERS)
def test_an_encoder_which_sees_the_words_to_predict_is_refused(model_type, tmp_path):
    random_model(model_type, **ENCODERS[model_type]).save_pretrained(tmp_path)
    byte_tokenizer(SAMPLE).save_pretrained(tmp_path)
    with pytest.raises(gpt2.InputError, match="is no language model: .*causal=False"):
        gpt2.pretrained(str(tmp_path))


def test_a_model_without_its_head_is_refused(tmp_path):
    BertModel(random_model("bert", is_decoder=True).config).save_pretrained(tmp_path)
    byte_tokenizer(SAMPLE).save_pretrained(tmp_path)
    with pytest.raises(gpt2.InputError, match="is no language model: complete=False"):
        gpt2.pretrained(str(tmp_path))


def test_sample_has_the_end_of_text_token_of_the_model(tmp_path, capsys):
    folder = llama_folder(tmp_path / "a model", byte_tokenizer(SAMPLE, eos_token="</s>"))
    run(tmp_path / "an output", *QUICK, "--block_size", "32", "--model_name_or_path", folder)
    (cache,) = (tmp_path / "an output" / "cache").iterdir()
    tokens, tokenizer = np.fromfile(cache, np.uint32), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokens).split("</s>") == [*gpt2.SAMPLE_PARAGRAPHS, ""]
    assert (tokens == tokenizer.eos_token_id).sum() == len(gpt2.SAMPLE_PARAGRAPHS)
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])  # paths with spaces are whole
    assert command[-1] == f"--model_name_or_path={tmp_path / 'an output'}"


def test_sample_without_an_end_of_text_token_has_blank_lines(tmp_path):
    make_char_checkpoint(SAMPLE, tmp_path / "char", n_layer=1)
    run(tmp_path, *QUICK, "--model_name_or_path", str(tmp_path / "char"))
    (cache,) = (tmp_path / "cache").iterdir()
    characters = sorted(set(SAMPLE))
    text = "".join(characters[token] for token in np.fromfile(cache, np.uint32))
    assert text == SAMPLE + "\n\n"


def test_texts_are_written_before_they_are_printed(tmp_path, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(ValueError, match="closed file"):
        gpt2.write_texts("Every", [[" Friday"]], str(tmp_path))
    assert (tmp_path / "generated.txt").read_text() == "Continuation: Every Friday\n"


def test_predicting_beside_an_interrupted_run_keeps_its_checkpoints(trained, tmp_path):
    checkpoint = tmp_path / "checkpoint-3" / "trainer_state.json"
    checkpoint.parent.mkdir()
    checkpoint.write_text("{}")
    run(tmp_path, "--do_predict", "--model_name_or_path", str(trained))
    assert checkpoint.exists()


def test_readme_in_your_own_code(trained, tmp_path, monkeypatch, capsys):
    readme = SCRIPTS["gpt2_finetune"].with_name("README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPTS["gpt2_finetune"].parent))
    shutil.copytree(trained, tmp_path / "outputs" / "gpt2_finetune")
    write(tmp_path / "book.txt", SAMPLE * 3)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    tokens = names["tokenizer"](SAMPLE * 3)["input_ids"]
    assert names["tokens"].tolist() == [*tokens, names["tokenizer"].eos_token_id]
    assert names["datasets"]["train"][1].tolist() == tokens[64:128]
    continuation = capsys.readouterr().out.rstrip("\n").splitlines()[-1]
    assert len(continuation.split()) > 5 and "Our baker" + continuation in SAMPLE
    assert names["trainer"].state.global_step > 0


# Functions raise exceptions, which an importing program can catch


def test_bad_data_raises_an_exception_that_names_it(trained, tmp_path):
    tokenizer, model = gpt2.pretrained(str(trained))
    cache = str(tmp_path / "cache")
    for name, content, message in (
        ("nul", b"a\0b", "nul .*NUL bytes are no text"),
        ("latin", b"caf\xe9", "latin with --encoding utf-8-sig: .*byte 0xe9"),
        ("long", b"a" * 1_500_000 + b"\xff", "long with --encoding utf-8-sig: .*byte 0xff"),
        (
            "marked",
            b"\xef\xbb\xbf" + b"a" * 10_000 + b"\xff",
            "marked with --encoding utf-8-sig: .*byte 0xff",
        ),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(gpt2.InputError, match=message):
            gpt2.load_tokens([str(tmp_path / name)], tokenizer, cache)
    with pytest.raises(gpt2.InputError, match="No such file.*missing"):
        gpt2.load_tokens([str(tmp_path / "missing")], tokenizer, cache)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(gpt2.InputError, match="--prompt of 0 tokens: give 1 to 63"):
        gpt2.generate(model, tokenizer, "", 5)
    with pytest.raises(gpt2.InputError, match="--stride -3"):
        gpt2.main(
            ["--smoke", "--stride", "-3", "--cache_dir", cache, "--output_dir", str(tmp_path)]
        )


# Reading and tokenizing


ODD_TEXT = (
    "\n\n  Two  words,\tone tab.\n\n\nDon't stop: 3.14 12345 and 1 2 3!!!\n  indented line \n"
    "Größe naïve Ελλάδα Москва हिन्दी 東京 שלום 👍🏽 it's... end\n\n"
)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_ids_of_the_pieces_are_those_of_the_whole_text(kind, tmp_path, monkeypatch):
    text = "".join(f"{ODD_TEXT}{SAMPLE[i * 97 : i * 97 + 300]} " for i in range(30)).lstrip()
    tokenizer = TOKENIZERS[kind](text)
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    path, pattern = write(tmp_path / "text.txt", text), gpt2.PIECE.pattern
    for size in (4096, 700, 151):
        monkeypatch.setattr(
            gpt2, "PIECE", re.compile(pattern.replace("4096", str(size)), re.DOTALL)
        )
        pieces = list(gpt2.read_pieces(path, "utf-8"))
        assert (
            "".join(pieces) == text
            and max(map(len, pieces)) <= size
            and len(pieces) > len(text) / size - 1
        )
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        tokens = gpt2.load_tokens([path], tokenizer, str(tmp_path / "cache"))
        end = tokenizer(tokenizer.eos_token or "\n\n", add_special_tokens=False)["input_ids"]
        assert tokens.tolist() == expected + end
        assert tokenizer.decode(tokens[:40]) == tokenizer.decode(expected[:40])


def test_long_text_of_many_parts_and_odd_encodings(tmp_path):
    text = "".join(f"Zeile {i}: größer – 東京 👍🏽\r\n" for i in range(40000))
    assert len(text.encode()) > 3 * 2**19
    path = write(tmp_path / "text.txt", text, "utf-8-sig")
    pieces = list(gpt2.read_pieces(path, "utf-8-sig"))
    assert "".join(pieces) == text.replace("\r\n", "\n")
    assert max(map(len, pieces)) <= 4096
    one_word = write(tmp_path / "word.txt", "ä" * 1_000_001)
    pieces = list(gpt2.read_pieces(one_word, "utf-8-sig"))
    assert "".join(pieces) == "ä" * 1_000_001 and max(map(len, pieces)) <= 4096


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1))
def test_any_text_survives_the_cache(text):
    tokenizer = test_any_text_survives_the_cache.tokenizer
    folder = test_any_text_survives_the_cache.folder
    (folder / "any.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        expected = io.TextIOWrapper(
            io.BytesIO((folder / "any.txt").read_bytes()), encoding="utf-8-sig"
        ).read()
        tokens = gpt2.load_tokens([str(folder / "any.txt")], tokenizer, str(folder))
    except (UnicodeDecodeError, gpt2.InputError):  # lone surrogates; NUL
        return
    assert tokenizer.decode(tokens.tolist()) == expected + tokenizer.eos_token


@pytest.fixture(autouse=True, scope="module")
def _for_any_text(tmp_path_factory):
    test_any_text_survives_the_cache.tokenizer = byte_tokenizer(SAMPLE)
    test_any_text_survives_the_cache.folder = tmp_path_factory.mktemp("any")


def test_cache_is_made_once_and_keyed_by_text_and_tokenizer(text_file, tmp_path, monkeypatch):
    tokenizer, cache = byte_tokenizer(SAMPLE), tmp_path / "cache"
    tokens = gpt2.load_tokens([text_file], tokenizer, str(cache))
    (file,) = cache.iterdir()
    assert isinstance(tokens, np.memmap) and tokens.dtype == np.uint32
    expected = [*tokenizer(SAMPLE)["input_ids"], tokenizer.eos_token_id]
    assert file.read_bytes() == np.array(expected, "<u4").tobytes()
    copy = write(tmp_path / "copy.txt", SAMPLE)
    gpt2.load_tokens([copy], byte_tokenizer(SAMPLE), str(cache))
    assert len(list(cache.iterdir())) == 1
    gpt2.load_tokens([write(tmp_path / "copy.txt", SAMPLE + ".")], tokenizer, str(cache))
    gpt2.load_tokens([text_file], byte_tokenizer("abc" * 99), str(cache))
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setattr(gpt2, "tokenize", lambda *_: pytest.fail("tokenized again"))
    assert gpt2.load_tokens([text_file], tokenizer, str(cache)).tolist() == tokens.tolist()


def test_ids_of_large_vocabularies_are_whole(tmp_path):
    vocabulary = {f"w{i}": i for i in range(70_000)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    path = write(tmp_path / "text.txt", "w69999 w1 w65536")
    tokens = gpt2.load_tokens([path], tokenizer, str(tmp_path))
    assert tokens.dtype == np.uint32 and tokens.tolist() == [69999, 1, 65536]


CHAPTERS = {i: f"Chapter {i}. Zoë paid {i}0 € – “enough” for the ferry.\n" * 9 for i in (1, 2, 10)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_folder_of_chapters_is_a_text_of_documents(encoding, tmp_path):
    """That of one text with the end-of-text token after chapters, 2 before 10."""
    folder = tmp_path / "chapters"
    folder.mkdir()
    paths = [write(folder / f"part {i}.TXT", text, encoding) for i, text in CHAPTERS.items()]
    (folder / "cover.jpg").write_bytes(b"\xff\xd8")
    whole = write(tmp_path / "whole.txt", "<|endoftext|>".join(CHAPTERS.values()))
    files = ["--encoding", encoding] if encoding == "cp1252" else []
    tokens = {}
    for name, chosen in (("whole", [whole]), ("folder", [str(folder)]), ("files", paths)):
        out = tmp_path / name
        flags = ["--smoke", "--max_steps", "2", "--block_size", "16", "--prompt", "Zoë"]
        flags += ["--train_file", *chosen]
        run(out, *flags, *(files if name != "whole" else []))
        (cache,) = (out / "cache").iterdir()
        ids, tokenizer = np.fromfile(cache, np.uint32), AutoTokenizer.from_pretrained(out)
        tokens[name] = tokenizer.decode(ids), (ids == tokenizer.eos_token_id).sum()
    assert tokens["whole"] == tokens["folder"] == tokens["files"]


def test_one_file_in_another_encoding_is_read_in_training_and_validation(tmp_path):
    text = "".join(CHAPTERS.values())
    flags = ["--smoke", "--max_steps", "2", "--block_size", "16", "--prompt", "Zoë"]
    metrics = {}
    for encoding in ("utf-8", "cp1252"):
        files = ["--train_file", write(tmp_path / f"{encoding}.txt", text, encoding)]
        files += ["--validation_file", write(tmp_path / f"v-{encoding}.txt", text[:900], encoding)]
        out = tmp_path / encoding
        metrics[encoding] = run(out, *flags, *files, "--encoding", encoding)["eval_loss"]
    assert metrics["utf-8"] == metrics["cp1252"]


def test_a_table_in_another_encoding(tmp_path):
    rows = list(CHAPTERS.values())
    pd.DataFrame({"body": rows}).to_csv(tmp_path / "a.csv", index=False, encoding="cp1252")
    lines = "".join(json.dumps({"body": row}, ensure_ascii=False) + "\n" for row in rows)
    write(tmp_path / "a.jsonl", lines, "utf-16")
    for name in ("a.csv", "a.jsonl"):
        assert list(gpt2.read_column(str(tmp_path / name), "body", "cp1252")) == rows
    with pytest.raises(gpt2.InputError, match="a.csv with --encoding utf-8-sig: .*decode byte"):
        list(gpt2.read_texts([str(tmp_path / "a.csv")], column="body"))


@pytest.mark.parametrize(
    "texts",
    [["1999-12-31", "2001-01-01"], ["10:30:00"], ["3.10", "true", "line\u2028separator"]],
)
def test_texts_in_json_that_look_like_something_else_stay_texts(texts, tmp_path):
    rows = [{"when": text, "other": {"a": i} if i % 2 else None} for i, text in enumerate(texts)]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path = write(tmp_path / "a.jsonl", lines)
    assert list(gpt2.read_column(path, "when", "utf-8-sig")) == texts
    for content in ('{"when": 5}', "5", "[1, 2]", "null", json.dumps(rows), '[\n{"when": "a"}\n]'):
        with pytest.raises(gpt2.InputError, match="c.json"):
            list(gpt2.read_texts([write(tmp_path / "c.json", content)], column="when"))


def test_a_column_of_bytes_is_text(tmp_path):
    texts = ["Zoë sells 3 €", "a\nline", "漁師"]
    path = str(tmp_path / "bytes.parquet")
    pd.DataFrame({"body": [text.encode() for text in texts]}).to_parquet(path)
    assert list(gpt2.read_column(path, "body", "utf-8-sig")) == texts


def load_datasets(tokenizer, *flags):
    """The blocks of a run with these flags, of a model that reads 64 tokens."""
    args, _, training_args = gpt2.parse_arguments([*flags])
    return gpt2.load_datasets(args, training_args, tokenizer, 64)


@pytest.mark.parametrize("stride", [1, 7, 16, 17, 40])
def test_what_no_block_holds_is_counted(stride, text_file, tmp_path, capsys):
    """At the end, and between blocks that a stride of more than their size sets apart."""
    flags = ["--train_file", text_file, "--stride", str(stride), "--block_size", "16"]
    tokenizer = byte_tokenizer(SAMPLE)
    datasets = load_datasets(tokenizer, *flags, "--cache_dir", str(tmp_path))
    printed = capsys.readouterr().out.splitlines()
    for blocks, line in zip(datasets.values(), printed, strict=True):
        held = {start + number for start in blocks.starts for number in range(16)}
        left = len(blocks.tokens) - len(held)
        assert line.endswith(f"{len(blocks):,} blocks of 16; left out: {left}")
    assert len(datasets["train"]) > 1


def test_an_evaluation_says_that_its_text_is_the_built_in_one(text_file, tmp_path, capsys):
    tokenizer = byte_tokenizer(SAMPLE)
    flags = ["--do_eval", "--cache_dir", str(tmp_path)]
    load_datasets(tokenizer, *flags)
    load_datasets(tokenizer, *flags, "--train_file", text_file)
    load_datasets(tokenizer, *flags, "--validation_file", text_file)
    first, *others = capsys.readouterr().out.splitlines()
    assert re.match(r"\d+ tokens of the built-in text for validation in \d+ blocks of 64; ", first)
    assert len(others) == 2 and all(re.match(r"[\d,]+ tokens for validation", o) for o in others)


@pytest.mark.parametrize("size", [65, 2048])
def test_a_block_is_no_longer_than_what_the_model_reads_and_the_screen_says_so(
    size, text_file, tmp_path, capsys
):
    flags = ["--train_file", text_file, "--block_size", str(size), "--cache_dir", str(tmp_path)]
    datasets = load_datasets(byte_tokenizer(SAMPLE), *flags)
    assert {dataset.block_size for dataset in datasets.values()} == {64}
    assert capsys.readouterr().out.count(" blocks of 64;") == 2


@pytest.mark.parametrize(
    "flags",
    [
        ["--block_size", "24"],
        ["--prompt=-- Zoë's\nferry", "--seed", "5", "--top_k", "7", "--max_new_tokens", "9"],
        ["--temperature", "0.6", "--num_return_sequences", "2", "--block_size", "33"],
        ["--train_file", "part 1.txt", "part 2.txt", "--block_size", "16", "--prompt", "Zoë"],
    ],
)
def test_the_next_command_works_as_it_is_printed(flags, tmp_path, monkeypatch, capsys):
    """And writes what the run wrote after its training: the same lots are drawn."""
    monkeypatch.chdir(tmp_path)
    for i in (1, 2):
        write(tmp_path / f"part {i}.txt", CHAPTERS[i] * 5)
    monkeypatch.setattr(sys, "argv", ["gpt2_finetune.py"])
    out, cache = ["--output_dir", "an output"], ["--cache_dir", "cache"]
    gpt2.main(["--smoke", "--max_steps", "3", *flags, *out, *cache])
    printed = capsys.readouterr().out
    assert "tiny model" in printed.partition("Next:")[0]
    written = (tmp_path / "an output" / "generated.txt").read_bytes().decode()
    python, script, *command = shlex.split(printed.partition("Next:\n")[2])
    assert (python, script) == ("python", "gpt2_finetune.py")
    gpt2.main(command)
    again = (tmp_path / "an output" / "generated.txt").read_bytes().decode()
    last = written[written.index("After training") :]
    assert again == last.replace("After training", "Continuation")


def test_interrupted_tokenizing_leaves_no_cache(tmp_path, monkeypatch):
    path = write(tmp_path / "text.txt", "a few words and more words " * 100_000)
    tokenize, calls = gpt2.tokenize, []

    def interrupted(*args):
        for ids in tokenize(*args):
            calls.append(ids)
            if len(calls) == 10:
                assert any(path.is_file() for path in (tmp_path / "cache").rglob("*"))
                raise KeyboardInterrupt
            yield ids

    monkeypatch.setattr(gpt2, "tokenize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpt2.load_tokens([path], byte_tokenizer(SAMPLE), str(tmp_path / "cache"))
    assert len(calls) == 10 and list((tmp_path / "cache").iterdir()) == []


# Blocks


def test_blocks_are_slices_of_one_stream_without_padding(text_file, tmp_path):
    tokenizer = byte_tokenizer(SAMPLE)
    expected = [*tokenizer(SAMPLE)["input_ids"], tokenizer.eos_token_id]
    tokens = gpt2.load_tokens([text_file], tokenizer, str(tmp_path))
    dataset = gpt2.TextDataset(tokens, 16)
    assert len(dataset) == len(expected) // 16 and len(expected) % 16
    for i, block in enumerate(dataset):
        assert block.dtype == torch.int64
        assert block.tolist() == expected[16 * i : 16 * i + 16]
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    cut = len(expected) * 90 // 100
    train = gpt2.TextDataset(tokens[:cut], 16, stride=5)
    assert len(train) == len(range(0, cut - 15, 5))
    assert train[len(train) - 1].tolist()[-1] == expected[cut - 1 - (cut - 16) % 5]
    assert train[3].tolist() == expected[15:31]
    validation = gpt2.TextDataset(tokens[cut:], 16)
    assert validation[0].tolist() == expected[cut : cut + 16]
    assert len(validation) == (len(expected) - cut) // 16
    assert len(gpt2.TextDataset(tokens[:15], 16)) == len(gpt2.TextDataset(tokens[:3], 16, 2)) == 0


def test_training_and_validation_blocks_never_overlap(text_file, tmp_path):
    tokenizer = byte_tokenizer(SAMPLE)
    expected = [*tokenizer(SAMPLE)["input_ids"], tokenizer.eos_token_id]
    flags = ["--train_file", text_file, "--cache_dir", str(tmp_path)]
    flags += ["--stride", "7", "--block_size", "16", "--validation_split_percentage", "20"]
    datasets = load_datasets(tokenizer, *flags)
    cut = len(expected) * 80 // 100
    assert datasets["train"].tokens.tolist() == expected[:cut]
    assert datasets["validation"].tokens.tolist() == expected[cut:]
    assert datasets["train"].starts.step == 7 and datasets["validation"].starts.step == 16
    datasets = load_datasets(tokenizer, *flags, "--validation_file", text_file)
    assert all(dataset.tokens.tolist() == expected for dataset in datasets.values())


def test_only_an_end_of_text_token_separates_documents(tmp_path):
    tokenizer = byte_tokenizer(SAMPLE)
    path = write(tmp_path / "text.txt", "One document.<|endoftext|>Another\n\nwith a blank line.")
    ids = gpt2.load_tokens([path], tokenizer, str(tmp_path)).tolist()
    parts = [
        tokenizer(part)["input_ids"] for part in ("One document.", "Another\n\nwith a blank line.")
    ]
    end = tokenizer.eos_token_id
    assert ids == [*parts[0], end, *parts[1], end]


def test_control_tokens_of_the_tokenizer_in_a_text_are_tokens(tmp_path):
    tokenizer = byte_tokenizer(SAMPLE, pad_token="<|pad|>", bos_token="<s>")
    path = write(tmp_path / "text.txt", "<s>One<|pad|> two</s>")
    ids = gpt2.load_tokens([path], tokenizer, str(tmp_path)).tolist()
    one, two = (tokenizer(text)["input_ids"] for text in ("One", " two</s>"))
    bos, pad, eos = tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id
    assert ids == [bos, *one, pad, *two, eos] and len(two) > 2


@pytest.mark.parametrize("pad", [None, "<|endoftext|>"])
def test_end_of_text_is_learned_even_where_it_is_the_pad_token(pad, text_file, tmp_path):
    tokenizer = byte_tokenizer(SAMPLE, pad_token=pad)
    folder = llama_folder(tmp_path / "llama", tokenizer)
    training_args = gpt2.parse_arguments(["--output_dir", str(tmp_path)])[-1]
    tokenizer, model = gpt2.pretrained(folder)
    assert tokenizer.pad_token == pad
    trainer = gpt2.build_trainer(model, tokenizer, training_args, {})
    block = torch.tensor([5, tokenizer.eos_token_id, 6, 7])
    batch = trainer.data_collator([block, block.flip(0)])
    assert (
        batch["labels"].tolist()
        == batch["input_ids"].tolist()
        == [block.tolist(), block.flip(0).tolist()]
    )
    assert trainer.processing_class.pad_token == pad


@pytest.mark.parametrize("pad", [None, "<|endoftext|>"])
def test_llama_folder_trains_and_its_loss_is_the_mean_over_all_predicted_tokens(pad, tmp_path):
    text = SAMPLE.replace("\n\n", "<|endoftext|>")
    path = write(tmp_path / "text.txt", text)
    folder = llama_folder(tmp_path / "llama", byte_tokenizer(SAMPLE, pad_token=pad))
    files = [
        "--model_name_or_path",
        folder,
        "--train_file",
        path,
        "--bf16",
        "false",
        "--learning_rate",
        "1e-2",
    ]
    metrics = run(
        tmp_path / "out", *files, "--max_steps", "30", "--per_device_eval_batch_size", "3"
    )
    model, tokenizer = (
        LlamaForCausalLM.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(folder),
    )
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    ids = ids[len(ids) * 90 // 100 :]
    blocks = torch.tensor(ids[: len(ids) // 48 * 48]).view(-1, 48)
    with torch.no_grad():
        logits = model(blocks).logits[:, :-1].reshape(-1, len(tokenizer))
    expected = torch.nn.functional.cross_entropy(logits, blocks[:, 1:].reshape(-1)).item()
    assert metrics["eval_loss"] == pytest.approx(expected, abs=1e-4)
    assert expected < math.log(len(tokenizer)) - 0.5
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (
        saved.pad_token == pad
        and saved("The end.")["input_ids"] == tokenizer("The end.")["input_ids"]
    )


def loss_by_hand(folder, text, block_size):
    """The mean loss of a saved model on the last tenth of a text, in nats per token."""
    tokenizer, model = gpt2.pretrained(str(folder))
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    ids = ids[len(ids) * 90 // 100 :]
    blocks = torch.tensor(ids[: len(ids) // block_size * block_size]).view(-1, block_size)
    with torch.no_grad():
        logits = model(blocks).logits[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, blocks[:, 1:].flatten()).item()


def test_smoothed_labels_change_the_training_and_not_what_the_metrics_mean(tmp_path):
    text = "".join(f"{i} sheep and {i % 7} goats cross the bridge. " for i in range(300))
    flags = ["--smoke", "--train_file", write(tmp_path / "sheep.txt", text), "--max_steps", "60"]
    metrics = {}
    for factor in ("0", "0.3"):
        out = tmp_path / factor
        metrics[factor] = run(out, *flags, "--label_smoothing_factor", factor)
        expected = loss_by_hand(out, text, 64)
        assert metrics[factor]["eval_loss"] == pytest.approx(expected, rel=1e-4)
        assert metrics[factor]["eval_perplexity"] == pytest.approx(math.exp(expected), rel=1e-3)
    assert metrics["0.3"]["train_loss"] > metrics["0"]["train_loss"] + 0.5


@pytest.mark.parametrize("factor", ["0", "0.3"])
def test_one_batch_and_accumulated_ones_make_the_same_step(factor, text_file, tmp_path):
    flags = ["--smoke", "--train_file", text_file, "--do_train", "--max_steps", "2"]
    flags += ["--train_sampling_strategy", "sequential", "--label_smoothing_factor", factor]
    flags += ["--logging_steps", "1", "--cache_dir", str(tmp_path)]
    losses = []
    for batch, steps in (("4", "1"), ("1", "4")):
        sizes = ["--per_device_train_batch_size", batch, "--gradient_accumulation_steps", steps]
        losses.append(run(tmp_path / batch, *flags, *sizes)["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def tiny_trainer(tmp_path, *flags, **size):
    """A trainer of a tiny GPT-2 and 100 blocks of 16 tokens."""
    tokenizer, model = gpt2.untrained(gpt2.SAMPLE_PARAGRAPHS, **size)
    flags = ["--max_steps", "3", "--bf16", "false", *flags, "--output_dir", str(tmp_path)]
    *_, training_args = gpt2.parse_arguments([*flags, "--save_strategy", "no"])
    blocks = gpt2.TextDataset(np.arange(1600) % 61, 16)
    return gpt2.build_trainer(model, tokenizer, training_args, {"train": blocks})


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_loss_of_a_step_is_the_mean_over_the_tokens_to_predict(name, tmp_path):
    """Divided by all labels it would be 15/16 of that."""
    torch.manual_seed(0)
    model = random_model(name, **DECODERS[name])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    *_, training_args = gpt2.parse_arguments(["--output_dir", str(tmp_path), "--bf16", "false"])
    blocks = gpt2.TextDataset(np.arange(1600) % 61, 16)
    data = {"train": blocks, "validation": blocks}
    trainer = gpt2.build_trainer(model, byte_tokenizer(SAMPLE), training_args, data)
    batch = {"input_ids": torch.stack([blocks[0], blocks[1]])}
    logits = model.eval()(**batch).logits[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, batch["input_ids"][:, 1:].flatten())
    batch["labels"] = batch["input_ids"]
    for number in (2, 1):
        halves = [{key: rows[i::number] for key, rows in batch.items()} for i in range(number)]
        _, items = trainer.get_batch_samples(iter(halves), number, training_args.device)
        trainer.current_gradient_accumulation_steps = number
        losses = [trainer.training_step(model, half, items) for half in halves]
        assert sum(losses).item() == pytest.approx(expected.item(), rel=1e-5)
    loss, _, _ = trainer.prediction_step(model, batch, prediction_loss_only=True)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_dropout_within_is_the_fast_one_and_afterwards_nothing_is_left_of_it(tmp_path):
    """The same loss and gradients as PyTorch's where nothing is dropped; else other lots."""
    size = {"n_positions": 16, "vocab_size": 61, "initializer_range": 0.3}
    ids = torch.randint(0, 61, (2, 16))
    for p in (0.0, 0.3):
        drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), p)
        model = GPT2LMHeadModel(GPT2Config(**size | drops, n_embd=64, n_layer=2, n_head=4)).train()
        before = traces(model)
        found = {}
        for name in ("plain", "fast"):
            with gpt2.faster_dropout(model) if name == "fast" else contextlib.nullcontext():
                assert (torch.nn.functional.dropout is gpt2.fast_dropout) == (
                    name == "fast" and p > 0
                )
                model.zero_grad()
                loss = model(input_ids=ids, labels=ids).loss
                loss.backward()
                found[name] = [loss, *(weights.grad.clone() for weights in model.parameters())]
        assert traces(model) == before
        if p == 0:
            torch.testing.assert_close(found["fast"], found["plain"], rtol=1e-4, atol=1e-6)
        else:
            assert found["fast"][0] != found["plain"][0]


def test_fast_dropout_drops_the_share_and_keeps_the_mean():
    torch.manual_seed(0)
    for p in (0.1, 0.5, 0.9):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.ones(1000, 1001, dtype=dtype, requires_grad=True)
            y = gpt2.fast_dropout(x, p)
            kept = y != 0
            assert kept.double().mean() == pytest.approx(1 - p, abs=3e-3) and y.dtype == dtype
            torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - p)))
            y.sum().backward()
            assert torch.equal(x.grad, y.detach())
    assert torch.equal(gpt2.fast_dropout(x, 0.5, training=False), x)
    assert torch.equal(gpt2.fast_dropout(x, 0.0), x) and not gpt2.fast_dropout(x, 1.0).any()


def test_attention_with_fast_dropout_sees_no_later_token():
    size = {"n_positions": 16, "vocab_size": 61, **gpt2.TINY_SIZE, "attn_pdrop": 0.3}
    model = GPT2LMHeadModel(GPT2Config(**size)).train()
    ids = torch.randint(1, 61, (1, 16))
    logits = []
    with gpt2.faster_dropout(model):
        for last in (0, 1):
            torch.manual_seed(0)
            ids[0, -1] = last
            logits.append(model(input_ids=ids).logits[0, :-1])
        assert torch.equal(*logits)
        assert not torch.equal(logits[0], model(input_ids=ids).logits[0, :-1])


# No traces: what a caller had before is what he has afterwards


def traces(model):
    """What a process and a model look like, but for weights and for what every `Trainer` changes."""
    torch_functions = [torch.nn.functional.dropout, torch.nn.functional.gelu]
    process = [os.environ.copy(), list(warnings.filters), torch.get_num_threads(), sys.stdout]
    logging = [transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()]
    umask = os.umask(0)
    os.umask(umask)
    modules = [(name, type(module)) for name, module in model.named_modules()]
    own = vars(model).keys() - {"forward", "_original_forward", "_is_accelerate_prepared"}
    config = model.config.to_dict()
    config = {key: config[key] for key in config.keys() - {"use_cache", "dtype", "architectures"}}
    model_is = [type(model), modules, own, model.training, model.loss_type, config]
    model_is += [model.config._attn_implementation, model.loss_function]
    return [torch_functions, process, logging, umask, model_is]


@pytest.mark.parametrize("end", ["whole", "interrupted"])
def test_a_training_leaves_no_traces(end, tmp_path, monkeypatch):
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1)
    tokenizer, model = gpt2.untrained(gpt2.SAMPLE_PARAGRAPHS, **drops)
    training_args = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, eval_strategy="steps", disable_tqdm=True, use_cpu=True
    )
    arguments = copy.deepcopy(training_args.to_dict())
    words = [tokenizer("The old boat")["input_ids"], tokenizer.pad_token, len(tokenizer)]
    before, state = traces(model), torch.get_rng_state()
    blocks = gpt2.TextDataset(np.arange(1600) % 61, 16)
    if end == "interrupted":
        stop = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
        monkeypatch.setattr(transformers.Trainer, "training_step", stop)
    gpt2.generate(model, tokenizer, "Our baker", 3)
    assert torch.equal(state, torch.get_rng_state()) and traces(model) == before
    trainer = gpt2.build_trainer(model, tokenizer, training_args, {"train": blocks})
    assert traces(model) == before
    with (
        pytest.raises(KeyboardInterrupt) if end == "interrupted" else contextlib.nullcontext(),
        gpt2.faster_dropout(model),
    ):
        gpt2.train(trainer)
    model.train(before[-1][3])  # the trainer's own, as every training's
    assert traces(model) == before
    assert training_args.to_dict() == arguments
    assert words == [tokenizer("The old boat")["input_ids"], tokenizer.pad_token, len(tokenizer)]
    output = model(torch.tensor([[1, 2, 3]]), output_attentions=True)
    assert "save_pretrained" not in vars(model) and output.logits.shape[:2] == (1, 3)


@pytest.mark.parametrize("training", [True, False])
def test_writing_leaves_the_model_in_its_mode(training):
    tokenizer, model = gpt2.untrained(gpt2.SAMPLE_PARAGRAPHS)
    model.train(training)
    gpt2.generate(model, tokenizer, "Our baker", 3)
    assert model.training == training


def test_early_stopping_ends_after_so_many_validations_without_a_lower_loss(tmp_path):
    flags = ["--smoke", "--max_steps", "20", "--save_steps", "2", "--learning_rate", "0"]
    patience = ["--early_stopping_patience", "2"]
    early, whole = run(tmp_path / "early", *flags, *patience), run(tmp_path / "whole", *flags)
    assert early["epoch"] == pytest.approx(whole["epoch"] * 6 / 20)
    with pytest.raises(gpt2.InputError, match="early_stopping_patience"):
        run(tmp_path / "none", *flags, "--validation_split_percentage", "0", *patience)


# Order and resuming


@pytest.mark.parametrize("seeds", [["--seed", "3"], ["--data_seed", "3"]])
def test_order_depends_on_seed_and_epoch_alone(seeds, tmp_path):
    orders = []
    for disturbance in (0, 1):
        trainer = tiny_trainer(tmp_path, *seeds)
        torch.manual_seed(disturbance)
        loader = trainer.get_train_dataloader()
        epochs = []
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            epochs.append(torch.cat([batch["input_ids"] for batch in loader]).tolist())
        orders.append(epochs)
        blocks = [block.tolist() for block in trainer.train_dataset]
        assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1]) == sorted(blocks)
    if "--data_seed" in seeds:
        assert orders[0] == orders[1]


def test_resumed_run_ends_where_the_uninterrupted_one_does(text_file, tmp_path, monkeypatch):
    make_char_checkpoint(SAMPLE, tmp_path / "char", n_layer=1, n_embd=32)
    run_of = [
        "--model_name_or_path",
        str(tmp_path / "char"),
        "--train_file",
        text_file,
        "--stride",
        "40",
    ]
    run_of += ["--num_train_epochs", "3", "--save_steps", "4", "--logging_steps", "1"]
    run_of += ["--data_seed", "7"]
    metrics = run(tmp_path / "whole", *run_of)
    assert metrics["epoch"] == 3

    class Interrupted(gpt2.BlockTrainer):
        def _maybe_log_save_evaluate(self, *args, **kwargs):
            super()._maybe_log_save_evaluate(*args, **kwargs)
            if self.state.epoch > 1.5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gpt2, "BlockTrainer", Interrupted)
        run(tmp_path / "cut", *run_of)
    (checkpoint,) = (tmp_path / "cut").glob("checkpoint-*")
    assert 1 < json.loads((checkpoint / "trainer_state.json").read_text())["epoch"] < 2
    (tmp_path / "cut" / "checkpoint-99").mkdir()  # what a killed save leaves
    resumed = run(tmp_path / "cut", *run_of, "--resume_from_checkpoint", "last")
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert resumed["eval_loss"] == metrics["eval_loss"]


# Real text


@pytest.mark.real_data
def test_tiny_shakespeare_from_random_weights_learns(real_data, tmp_path):
    text = real_data / "tinyshakespeare" / "input.txt"
    make_char_checkpoint(text.read_text(encoding="utf-8"), tmp_path / "char", n_layer=2)
    steps = [
        "--max_steps",
        "150",
        "--per_device_train_batch_size",
        "16",
        "--per_device_eval_batch_size",
        "128",
    ]
    flags = [
        "--train_file",
        str(text),
        "--learning_rate",
        "4e-3",
        "--save_strategy",
        "no",
        "--bf16",
        "false",
        *steps,
    ]
    metrics = run(tmp_path / "out", "--model_name_or_path", str(tmp_path / "char"), *flags)
    assert metrics["eval_loss"] < 2.6
    (cache,) = (tmp_path / "out" / "cache").iterdir()
    characters = text.read_text(encoding="utf-8")
    tokens = np.memmap(cache, np.uint32, mode="r")
    end = "".join(sorted(set(characters))[token] for token in tokens[-500:])
    assert end == (characters + "\n\n")[-500:]


# What a practitioner asks next --------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a tiny model of random weights."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("saved")
    for part in gpt2.untrained(gpt2.SAMPLE_PARAGRAPHS):
        part.save_pretrained(folder)
    return folder


def continuations(folder, tmp_path, *flags):
    """The texts that the saved model writes with these flags."""
    command = ["--do_predict", "--prompt", "Our baker", "--model_name_or_path", str(folder)]
    gpt2.main([*command, *flags, "--bf16", "false", "--output_dir", str(tmp_path)])
    text = (tmp_path / "generated.txt").read_text(encoding="utf-8")
    return [part.rstrip("\n") for part in text.split("Continuation: Our baker")[1:]]


def test_sampled_texts_are_those_of_the_seed(saved, tmp_path):
    flags = ["--temperature", "0.9", "--num_return_sequences", "3"]
    first = continuations(saved, tmp_path, *flags)
    assert len(set(first)) == 3
    assert first == continuations(saved, tmp_path, *flags)
    assert first != continuations(saved, tmp_path, *flags, "--seed", "7")
    assert continuations(saved, tmp_path) != continuations(saved, tmp_path, "--seed", "7")
    (likeliest,) = continuations(saved, tmp_path, "--temperature", "0")
    for narrow in (["--top_k", "1"], ["--top_p", "1e-6"], ["--temperature", "1e-4"]):
        assert continuations(saved, tmp_path, *narrow) == [likeliest], narrow


def test_every_token_may_be_drawn_unless_top_k_says_otherwise(saved, tmp_path):
    """The library's own default would draw among the 50 likeliest."""
    tokenizer, model = gpt2.pretrained(str(saved))
    ids = tokenizer("Our baker", return_tensors="pt").input_ids
    with torch.no_grad():
        ranks = model.eval()(ids).logits[0, -1].argsort(descending=True).argsort()

    def first_tokens(**sampling):
        torch.manual_seed(0)
        options = {"max_new_tokens": 1, "do_sample": True, "num_return_sequences": 400}
        output = model.generate(ids, **options, **sampling, pad_token_id=0)
        return ranks[output[:, -1]]

    options = {"seed": 0, "num_return_sequences": 400, "top_p": 1.0}
    texts = gpt2.generate(model, tokenizer, "Our baker", 1, **options)
    assert texts == tokenizer.batch_decode(
        ranks.argsort()[first_tokens(top_k=0)][:, None], skip_special_tokens=True
    )
    assert first_tokens(top_k=0).max() > 50 > first_tokens(top_k=50).max()


def test_drawing_lots_changes_nothing_that_comes_after_it(saved):
    tokenizer, model = gpt2.pretrained(str(saved))
    state = torch.get_rng_state()
    first = gpt2.generate(model, tokenizer, "Our baker")
    assert torch.equal(state, torch.get_rng_state())
    assert first == gpt2.generate(model, tokenizer, "Our baker")
    assert first != gpt2.generate(model, tokenizer, "Our baker", seed=1)


def test_a_text_of_several_lines_is_one_line_on_the_screen(tmp_path, capsys):
    text = " to the sea\n\n\n    and\tback\r\n"
    gpt2.write_texts("Down\nthe road", [[text, text]], str(tmp_path))
    assert capsys.readouterr().out == "Continuation: Down the road to the sea and back\n\n" * 2
    assert (tmp_path / "generated.txt").read_bytes().decode().count(f"Down\nthe road{text}") == 2


def test_a_continuation_keeps_its_first_space(tmp_path):
    """SentencePiece's tokenizers leave it out of what they decode by itself."""
    text = "Nia carries the basket , and Tom does n't mind . " * 60
    for kind in ("gpt-2", "sentencepiece"):
        tokenizer = TOKENIZERS[kind](text)
        tokenizer.clean_up_tokenization_spaces = True  # as that of Llama 3 has it
        folder = llama_folder(tmp_path / kind, tokenizer)
        tokenizer, model = gpt2.pretrained(folder)
        ids = tokenizer("Nia carries the basket , and", add_special_tokens=False)["input_ids"]
        length = len(tokenizer("Nia carries", add_special_tokens=False)["input_ids"])
        reply = torch.tensor([ids])
        model.generate = lambda *_, reply=reply, **options: reply
        found = gpt2.generate(model, tokenizer, "Nia carries", 20)
        assert found == [" the basket , and"] and length < len(ids), kind


def test_copies_are_counted_by_characters_where_no_spaces_part_the_words():
    """Chinese, Japanese, Thai, and what is one long word."""
    for text, passage in (
        ("海边的小镇每天早上都很安静，面包师五点开门。", "每天早上都很安静"),
        ("港のパン屋は毎朝五時に店を開けます。", "は毎朝五時に店"),
        ("ชาวประมงออกจากท่าเรือก่อนพระอาทิตย์ขึ้นทุกวัน", "ออกจากท่าเรือก่อน"),
        ("GATTACACCGTAGGCTAATCGGATTACCA" * 2, "ACCGTAGGCTAATCGGATTACC"),
    ):
        assert passage in text
        found = gpt2.longest_copy([f"ẞ{passage}ẞ" * 2], [text])
        assert found == (passage, len(passage))


def test_a_passage_may_end_where_a_document_ends(tmp_path):
    """The end-of-text token is no part of a word."""
    tokenizer = byte_tokenizer(SAMPLE)
    paths = [write(tmp_path / f"{i}.txt", text) for i, text in enumerate(gpt2.SAMPLE_PARAGRAPHS)]
    blocks = gpt2.TextDataset(gpt2.load_tokens(paths, tokenizer, str(tmp_path / "cache")), 16)
    passage = " ".join(gpt2.SAMPLE_PARAGRAPHS[3].split()[-5:])
    metrics = {"train_loss": 1.0, "train_samples_per_second": 2.0}
    found = gpt2.measure(metrics, [[f"and {passage} And"]], {"train": blocks}, tokenizer)
    assert found["train_tokens_per_second"] == 32
    assert found["copied_words"] == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--temperature -1", "temperature.* strictly positive"),
        ("--top_p 1.5", "--top_p 1.5: give a number from 0 to 1"),
        ("--temperature 1 --top_k -1", "top_k.* strictly positive"),
        ("--max_new_tokens 0", "max_new_tokens.* greater than 0"),
        ("--num_return_sequences 2", "num_return_sequences"),
        ("--stride -3", "no block of --block_size 64, --stride -3"),
        ("--block_size 0", "no block of --block_size 0"),
        ("--block_size 1", "605 tokens of the built-in text for train: no block of --block_size 1"),
        ("--validation_split_percentage 100", "0 tokens of the built-in text for train"),
        ("--validation_split_percentage 101", "0 tokens of the built-in text for train"),
        (
            "--validation_split_percentage -1 --do_eval",
            "0 tokens of the built-in text for validation",
        ),
        (
            "--train_file a.jsonl --text_column body",
            r"a.jsonl .*row 1: no text 'body' in \['text'\]",
        ),
        ("--train_file a.txt --text_column text", "cannot read a.txt"),
        ("--train_file b.jsonl --text_column text", "b.jsonl .*row 2: no text 'text'"),
        ("--train_file c.jsonl --text_column text", "cannot read c.jsonl"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "a b"}\n')
    (tmp_path / "a.txt").write_text("a b")
    (tmp_path / "b.jsonl").write_text('{"text": "a b"}\n{"text": null}\n')
    (tmp_path / "c.jsonl").write_text('{"text": "a b"}\nno json\n')
    flags = ["--smoke", "--output_dir", "out", "--cache_dir", "cache", *flags.split()]
    with pytest.raises(gpt2.InputError, match=message):
        gpt2.main([*flags, "--max_steps", "1"])


DOCUMENTS = [
    *gpt2.SAMPLE_PARAGRAPHS,
    'with "quotes", commas\nand two lines',
    "NA",
    " ",
    "ende, ünde 🙂",
]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_of_a_table_are_documents(kind, tmp_path):
    """Each is read as it is, and the end-of-text token comes after it."""
    table = pd.DataFrame({"number": range(len(DOCUMENTS)), "body": DOCUMENTS})
    file = tmp_path / f"table.{kind}"
    if kind == "csv":
        table.to_csv(file, index=False)
    elif kind == "jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_parquet(file)
    texts = list(gpt2.read_texts([str(file)], "<|endoftext|>", column="body"))
    assert texts == [text + "<|endoftext|>" for text in DOCUMENTS]
    flags = ["--smoke", "--max_steps", "2", "--text_column", "body", "--train_file", str(file)]
    gpt2.main(
        [*flags, "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "out")]
    )


@pytest.mark.parametrize("vocab_size", [257, 400, 1000])
def test_bits_per_byte_can_be_compared_between_tokenizers(vocab_size, tmp_path):
    """Of equal probabilities it is the logarithm of the vocabulary's size for each token of the text's bytes."""
    tokenizer, _ = gpt2.untrained(gpt2.SAMPLE_PARAGRAPHS, vocab_size=vocab_size)
    text = "Grüße aus dem Süden 🙂, and the clock. " * 50
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    tokens = gpt2.load_tokens([str(tmp_path / "text.txt")], tokenizer, str(tmp_path))
    blocks = gpt2.TextDataset(tokens, len(tokens))
    expected = len(tokens) * np.log2(len(tokenizer)) / len(text.encode())
    loss = {"eval_loss": float(np.log(len(tokenizer)))}
    found = gpt2.measure(loss, [], {"validation": blocks}, tokenizer)
    assert found["eval_bits_per_byte"] == pytest.approx(expected)
    assert found["eval_perplexity"] == pytest.approx(len(tokenizer))


def test_bits_per_byte_of_a_run_are_those_of_the_model(saved, tmp_path):
    """Computed again from the probability of every token of the blocks, one by one."""
    text = " ".join(gpt2.SAMPLE_PARAGRAPHS)
    file = tmp_path / "text.txt"
    file.write_text(text, encoding="utf-8")
    flags = ["--do_eval", "--validation_file", str(file), "--model_name_or_path", str(saved)]
    flags += ["--block_size", "32", "--bf16", "false", "--cache_dir", str(tmp_path)]
    gpt2.main([*flags, "--output_dir", str(tmp_path / "out")])
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    tokenizer, model = gpt2.pretrained(str(saved))
    ids = torch.tensor([*tokenizer(text).input_ids, tokenizer.eos_token_id])
    blocks = ids[: len(ids) // 32 * 32].view(-1, 32)
    with torch.no_grad():
        log2 = model.eval()(blocks).logits.log_softmax(-1) / np.log(2)
    bits = [-log2[b, i, blocks[b, i + 1]].item() for b in range(len(blocks)) for i in range(31)]
    size = len(tokenizer.decode(blocks.flatten(), skip_special_tokens=True).encode())
    expected = np.mean(bits) * blocks.numel() / size
    assert metrics["eval_bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def copy_by_brute_force(texts, whole):
    """The longest run of words of one of the texts that stands in the whole text, by trying all."""
    whole, best = f" {' '.join(whole.split())} ", []
    for words in (text.split() for text in texts):
        for start in range(len(words)):
            for end in range(start + len(best) + 1, len(words) + 1):
                if f" {' '.join(words[start:end])} " in whole:
                    best = words[start:end]
    return best


@settings(deadline=None, max_examples=200)
@given(
    st.text("ab \n", max_size=70),
    st.lists(st.text("ab ", max_size=15), min_size=1, max_size=3),
)
def test_longest_copy_is_that_of_trying_all(source, texts):
    found, words = gpt2.longest_copy(texts, source)
    found = found.split()
    assert words == len(found) == len(copy_by_brute_force(texts, source))
    assert f" {' '.join(found)} " in f" {' '.join(source.split())} " or not found


def test_a_planted_passage_is_found_and_its_size_reported(saved, tmp_path, capsys):
    (text,) = continuations(saved, tmp_path)
    words = text.split()
    assert len(words) > 8
    planted = " ".join(words[2:8])
    file = tmp_path / "train.txt"
    file.write_text(
        f"One two {' '.join(['three'] * 200)}\n{planted} four five " + "six " * 300,
        encoding="utf-8",
    )
    flags = ["--do_train", "--do_predict", "--train_file", str(file), "--prompt", "Our baker"]
    flags += ["--validation_split_percentage", "0", "--max_steps", "1", "--learning_rate", "1e-9"]
    flags += ["--model_name_or_path", str(saved), "--cache_dir", str(tmp_path), "--bf16", "false"]
    gpt2.main([*flags, "--output_dir", str(tmp_path / "out")])
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert metrics["copied_words"] == 6
    assert f"6 words: {planted}\n" in capsys.readouterr().out


def test_a_model_of_random_weights_of_any_size():
    size = {"n_positions": 32, "n_embd": 48, "n_layer": 3, "n_head": 3}
    tokenizer, model = gpt2.untrained(gpt2.SAMPLE_PARAGRAPHS, vocab_size=257, **size)
    assert len(tokenizer) == model.config.vocab_size == 257
    assert (model.config.n_positions, model.config.n_embd, model.config.n_layer) == (32, 48, 3)
    text = "Grüße 🙂"
    assert len(tokenizer(text).input_ids) == len(text.encode())


def test_readme_makes_a_model_of_random_weights(tmp_path, monkeypatch):
    """Its second Python block: the folder is what the recipe of "Results" trains, and every byte is a token."""
    readme = SCRIPTS["gpt2_finetune"].with_name("README.md").read_text(encoding="utf-8")
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
        if "untrained" in block
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPTS["gpt2_finetune"].parent))
    write(tmp_path / "input.txt", SAMPLE)
    exec(compile(code, "README.md", "exec"), {})
    tokenizer, model = gpt2.pretrained("scratch")
    assert len(tokenizer("ROMEO: ü").input_ids) == 9
    assert (model.config.n_layer, model.config.n_embd, gpt2.context_size(model)) == (4, 128, 64)
