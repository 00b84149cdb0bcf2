"""t5_translator: what it translates, that nothing is cut or lost, own pairs, and its errors."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sacrebleu
import torch
from conftest import SCRIPTS, load_script
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from tokenizers import normalizers
from transformers import AutoTokenizer, EvalPrediction, T5ForConditionalGeneration, T5Tokenizer
from transformers.trainer_pt_utils import LabelSmoother

t5 = load_script("t5_translator")
PROMPT = "translate English to German: "
TEXTS = [
    "The house is wonderful.",
    "The dog is reading the newspaper in the garden behind the station, "
    "and the children are sleeping.",
    "Where is my brother?",
    "",
    "   ",
    "He is building a bridge",
    "Good night! Where is the kitchen? It is raining in Berlin. My sister works.",
    "Water.",
    'A "quoted" word\tand a tab',
    "東京 and 🎉",
]


@pytest.fixture(scope="module", autouse=True)
def threads():
    """`--smoke` computes in one thread; the tests that follow get theirs back."""
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model after a few steps: its translations are wrong, and end at all lengths."""
    path = tmp_path_factory.mktemp("t5") / "model"
    t5.main(["--smoke", "--max_steps", "15", "--output_dir", str(path)])
    return path


@pytest.fixture(scope="module")
def model(folder):
    return T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(folder):
    return T5Tokenizer.from_pretrained(folder)


def one_by_one(texts, model, tokenizer, beams=1, limit=None):
    """The independent reference: `generate` on one sentence at a time, nothing padded."""
    translations = []
    for text in texts:
        if not text.strip():
            translations.append("")
            continue
        inputs = tokenizer(PROMPT + text, return_tensors="pt")
        tokens = limit or 2 * inputs.input_ids.shape[1] + 50
        output = model.generate(**inputs, num_beams=beams, do_sample=False, max_new_tokens=tokens)[
            0
        ]
        translations.append(" ".join(tokenizer.decode(output, skip_special_tokens=True).split()))
    return translations


def run(capfd, *arguments):
    """Run in this process; return exit status, standard output and standard error."""
    capfd.readouterr()
    try:
        t5.main([str(argument) for argument in arguments])
        status = 0
    except t5.InputError as error:
        status = 2
        print("error:", error, file=sys.stderr)
    return status, *capfd.readouterr()


def test_smoke_alone(run_alone, tmp_path, monkeypatch):
    done = run_alone("t5_translator", "--smoke")
    assert done.returncode == 0, done.stderr
    assert "20 of 20 translations are exactly the reference" in done.stdout
    for source, target in t5.SAMPLE_PAIRS:
        assert f"{source} -> {target}\n" in done.stdout
    output = tmp_path / "alone" / "outputs" / "t5_translator"
    names = {path.name for path in output.iterdir()}
    assert {
        "all_results.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "training_curve.png",
    } <= names
    assert not [
        name
        for name in names
        if name.endswith((".bin", ".pt", ".pkl")) or name.startswith(("checkpoint", "."))
    ]
    metrics = json.loads((output / "all_results.json").read_text())
    assert metrics["bleu"] == pytest.approx(100) and metrics["chrf"] == pytest.approx(100)
    assert "These are training pairs" in done.stdout
    assert "--model_name_or_path outputs/t5_translator" in done.stdout
    # the saved folder translates in a new process, through a pipe
    piped = subprocess.run(
        [
            sys.executable,
            "t5_translator.py",
            "--model_name_or_path",
            "outputs/t5_translator",
            "--bf16",
            "false",
        ],
        cwd=tmp_path / "alone",
        input=b"It is raining today.\r\n\nWhere is the station?",
        capture_output=True,
        timeout=120,
    )
    assert piped.stdout.decode() == "Heute regnet es.\n\nWo ist der Bahnhof?\n", piped.stderr
    # and in a program of one's own: the README's first Python block
    readme = (SCRIPTS["t5_translator"].parent / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## t5_translator.*?```python\n(.*?)```", readme, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path / "alone")
    found = {}
    exec(block, found)
    assert found["translations"] == ["Heute regnet es.", "Wo ist der Bahnhof?"]
    expected = {"bleu": 100, "bleu_ci": 0, "chrf": 100, "chrf_ci": 0}
    assert found["scores"] == pytest.approx(expected)


@pytest.mark.slow
def test_without_hub(run_alone):
    done = run_alone("t5_translator", timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(
        r"error: cannot download t5-small.*--smoke.*local folder.*\n",
        done.stderr,
    )


def test_default_run_prints_tokens_and_translation(folder, model, tokenizer, capfd, monkeypatch):
    monkeypatch.setattr(t5.stat, "S_ISCHR", lambda mode: True)  # as in a terminal
    status, out, _ = run(capfd, "--model_name_or_path", folder, "--bf16", "false")
    text = t5.SAMPLE_TEXTS[0]
    ids = tokenizer(PROMPT + text).input_ids
    assert (
        status == 0
        and f"English: {text}\nTokens: {' '.join(tokenizer.tokenize(PROMPT + text))} </s>\n" in out
    )
    assert f"Ids: {ids}\nGerman: {one_by_one([text], model, tokenizer)[0]}\n" in out
    status, out, _ = run(
        capfd,
        "--model_name_or_path",
        folder,
        "--text",
        "Water.",
        "Snow.",
        "--target_lang",
        "French",
    )
    assert (
        status == 0
        and out.count("French: ") == 2
        and out.index("English: Water.") < out.index("English: Snow.")
    )


@pytest.mark.parametrize("batch_tokens", [1, 120, 10_000])
def test_greedy_equals_generate_one_by_one(model, tokenizer, batch_tokens):
    expected = one_by_one(TEXTS, model, tokenizer, limit=40)
    assert (
        len({len(translation) for translation in expected}) > 4
    )  # they end at different steps: the batch shrinks
    assert (
        t5.translate(TEXTS, model, tokenizer, batch_tokens=batch_tokens, max_new_tokens=40)
        == expected
    )


def test_limit_follows_the_source(model, tokenizer):
    assert t5.translate(TEXTS[1:2], model, tokenizer) == one_by_one(TEXTS[1:2], model, tokenizer)


def test_greedy_computes_nothing_for_finished_sentences(model, tokenizer, monkeypatch):
    rows = []
    lm_head = model.lm_head.forward
    monkeypatch.setattr(
        model.lm_head, "forward", lambda hidden: rows.append(len(hidden)) or lm_head(hidden)
    )
    t5.translate(TEXTS, model, tokenizer, max_new_tokens=40)
    assert rows[0] == 8 and rows == sorted(rows, reverse=True) and rows[-1] < 8


def test_batches_hold_so_many_tokens(tokenizer):
    texts = [" ".join(["Water."] * (i * 7 % 30 + 1)) for i in range(30)]
    rows, _ = t5.encode(texts, tokenizer, PROMPT)
    found = t5.batches(rows, 100)
    assert sorted(sum(found, [])) == list(range(30)) and len(found) > 3
    lengths = sorted(map(len, rows), reverse=True)
    for batch in found:  # as many rows as fit, the longest first
        assert [len(rows[i]) for i in batch] == lengths[: len(batch)]
        assert len(batch) == min(max(1, 100 // lengths[0]), len(lengths))
        lengths = lengths[len(batch) :]


def test_batches_are_of_the_devices_size(model, tokenizer, monkeypatch):
    asked = []
    monkeypatch.setattr(t5, "batches", lambda rows, tokens: asked.append(tokens) or [])
    monkeypatch.setattr(t5, "encode", lambda *_: ([], []))
    t5.translate([], model, tokenizer)
    other = {"device": torch.device("cuda"), "eval": lambda: None}
    other["generation_config"] = model.generation_config
    t5.translate([], SimpleNamespace(**other), tokenizer)
    t5.translate([], model, tokenizer, batch_tokens=77)
    assert asked == [4096 if model.device.type == "cpu" else 32768, 32768, 77]


def small_memory(monkeypatch, rows, error):
    """Let every batch of more than so many rows be too large; returns the sizes of those that were computed."""
    generate, sizes = t5.generate, []

    def limited(model, tokenizer, batch, **options):
        if len(batch) > rows:
            raise error
        sizes.append(len(batch))
        return generate(model, tokenizer, batch, **options)

    monkeypatch.setattr(t5, "generate", limited)
    return sizes


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")


def test_batches_are_halved_when_memory_runs_out(model, tokenizer, monkeypatch, capfd):
    texts = [f"{text} {'Water. ' * (i % 7)}" for i, text in enumerate(TEXTS * 4)]
    expected = t5.translate(texts, model, tokenizer, max_new_tokens=20)
    sizes = small_memory(monkeypatch, 6, OUT_OF_MEMORY)
    assert t5.translate(texts, model, tokenizer, max_new_tokens=20, batch_tokens=800) == expected
    assert max(sizes) <= 6 and sum(sizes) == len(t5.encode(texts, tokenizer, PROMPT)[0])
    warnings = capfd.readouterr().err
    assert "warning: out of memory: going on with --batch_tokens 400\n" in warnings
    assert warnings.count("out of memory") == warnings.count("--batch_tokens") <= 5


def test_a_row_that_does_not_fit_and_a_bug_are_raised(model, tokenizer, monkeypatch):
    small_memory(monkeypatch, 0, OUT_OF_MEMORY)
    with pytest.raises(torch.OutOfMemoryError):
        t5.translate(TEXTS, model, tokenizer)
    sizes = small_memory(monkeypatch, 1, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        t5.translate(TEXTS, model, tokenizer)
    assert sizes == []


def test_beams_equal_generate_one_by_one(model, tokenizer):
    found = t5.translate(TEXTS, model, tokenizer, num_beams=3, max_new_tokens=30)
    assert found == one_by_one(TEXTS, model, tokenizer, beams=3, limit=30)


def test_translate_nothing(model, tokenizer):
    assert t5.translate([], model, tokenizer) == []
    assert t5.translate(["", " "], model, tokenizer) == ["", ""]


@given(st.lists(st.text(max_size=30), max_size=4))
@settings(max_examples=15, deadline=None)
def test_any_text_gives_one_line_each(model, tokenizer, texts):
    found = t5.translate(texts, model, tokenizer, max_new_tokens=3)
    assert len(found) == len(texts) and not any("\n" in translation for translation in found)


@given(
    st.lists(st.sampled_from(["▁word", "s", ".", "▁Hi!", "▁a"]), max_size=80), st.integers(1, 20)
)
def test_parts_keep_every_token(tokens, limit):
    class Names:
        convert_ids_to_tokens = staticmethod(lambda ids: ids)

    parts = t5.split_tokens(tokens, Names, limit)
    assert [token for part in parts for token in part] == tokens
    assert all(0 < len(part) <= limit for part in parts if tokens)
    start = 0
    for part in parts[:-1]:
        reach = range(start + 1, start + limit + 1)
        words = [i for i in reach if tokens[i].startswith("▁")]
        sentences = [i for i in words if tokens[i - 1][-1] in ".!?"]
        start += len(part)
        assert start == (sentences or words or reach)[-1]


def test_long_line_is_translated_in_full(model, tokenizer, capfd):
    text = " ".join(source for source, _ in t5.SAMPLE_PAIRS * 6)
    long = tokenizer(PROMPT + text).input_ids
    assert len(long) > t5.MAX_TOKENS
    rows, numbers = t5.encode(["Water.", text], tokenizer, PROMPT, 7)
    warning = capfd.readouterr().err
    assert f"line 8: {len(long)} tokens" in warning and "line 7" not in warning
    first = tokenizer(PROMPT).input_ids[:-1]
    assert numbers == [0] + [1] * (len(rows) - 1) and len(rows) > 2
    assert all(
        ids[: len(first)] == first and ids[-1] == 1 and len(ids) <= t5.MAX_TOKENS for ids in rows
    )
    parts = [ids[len(first) : -1] for ids in rows[1:]]
    assert first + sum(parts, []) + [1] == long  # nothing lost
    texts = [tokenizer.decode(part) for part in parts]
    assert all(part[-1] in ".!?" for part in texts)  # cut after a sentence
    found = t5.translate(["Water.", text, "Snow."], model, tokenizer, max_new_tokens=20)
    reference = one_by_one(["Water.", *texts, "Snow."], model, tokenizer, limit=20)
    assert found == [reference[0], " ".join(reference[1:-1]), reference[-1]]


def test_word_without_end(tokenizer):
    rows, _ = t5.encode(["n" * 5000], tokenizer, PROMPT)
    first = tokenizer(PROMPT).input_ids[:-1]
    assert tokenizer.decode(sum((ids[len(first) : -1] for ids in rows), [])) == "n" * 5000


def test_cut_translation_is_named(model, tokenizer, capfd):
    t5.translate(["", TEXTS[1]], model, tokenizer, max_new_tokens=2, first_line=5)
    assert "warning: line 6: cut at --max_new_tokens 2" in capfd.readouterr().err


def test_lines_of_a_file(tmp_path):
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfone\r\n\ntwo\xe2\x80\xa8three \n\xef\xbb\xbffour")
    assert list(t5.read_lines(str(tmp_path / "text"))) == [
        "one",
        "",
        "two\u2028three ",
        "\ufefffour",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lf_crlf_and_cr_end_a_line_and_nothing_else_does(end, tmp_path):
    lines = ["one", "", "two\u2028three", "four\x85five", "six\x0bseven\x0ceight", "nine\x1cten"]
    file = tmp_path / "text"
    for last in ("", end):
        file.write_bytes((end.join(lines) + last).encode())
        assert list(t5.read_lines(str(file))) == lines
    file.write_bytes(end.join(["a\tb", "c\u2028d\te\x0cf"]).encode())
    assert t5.read_pairs(str(file)) == [("a", "b"), ("c\u2028d", "e\x0cf")]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("Wasser\n".encode("utf-16-le"), "line 1: byte 2"),
        (b"one\r\ntwo\rt\xc3\xa4\xff", "line 3: byte 4"),
        (b"a\0b", "line 1: byte 2"),
        ("surrogate \ud800".encode("utf-8", "surrogatepass"), "line 1: byte 11"),
    ],
)
def test_what_is_no_utf8_text_ends_in_one_line(content, place, tmp_path):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(t5.InputError, match=f"{place} is not UTF-8 text"):
        list(t5.read_lines(str(tmp_path / "text")))


@pytest.fixture
def english(tmp_path):
    """A file of 23 lines: BOM, CRLF, blank lines, U+2028 in a line, no newline at the end."""
    lines = [*TEXTS, "one\u2028line", *TEXTS, "The end"]
    path = tmp_path / "english.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    return path, lines


def test_file_in_windows(english, folder, model, tokenizer, tmp_path, capfd, monkeypatch):
    path, lines = english
    monkeypatch.setattr(t5, "WINDOW_LINES", 4)
    output = tmp_path / "german.txt"
    flags = (
        "--model_name_or_path",
        folder,
        "--input_file",
        path,
        "--bf16",
        "false",
        "--max_new_tokens",
        "9",
    )
    status, out, _ = run(capfd, *flags, "--output_file", output)
    expected = "".join(f"{line}\n" for line in one_by_one(lines, model, tokenizer, limit=9))
    assert (
        status == 0
        and output.read_bytes().decode() == expected
        and len(lines) == expected.count("\n")
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["english.txt", "german.txt"]
    status, out, err = run(capfd, *flags)
    assert status == 0 and out == expected and "warning: line 9: cut at --max_new_tokens 9\n" in err


def stop_after(windows, monkeypatch):
    """Let the next run die after so many windows; return the first lines of those it begins."""
    translate, count = t5.translate, []

    def dying(*rest, first_line, **options):
        count.append(first_line)
        if len(count) > windows:
            raise KeyboardInterrupt
        return translate(*rest, first_line=first_line, **options)

    monkeypatch.setattr(t5, "translate", dying)
    return count


def test_interrupted_file_continues(english, folder, tmp_path, capfd, monkeypatch):
    path, _ = english
    monkeypatch.setattr(t5, "WINDOW_LINES", 4)
    output = tmp_path / "german.txt"
    flags = [
        "--model_name_or_path",
        folder,
        "--input_file",
        path,
        "--max_new_tokens",
        "9",
        "--output_file",
        output,
    ]
    resume = [*flags, "--resume_from_checkpoint", "last"]
    run(capfd, *flags)
    whole = output.read_bytes()
    for torn in (False, True):
        output.write_bytes(b"an earlier result\n")
        with monkeypatch.context() as patch:
            stop_after(3, patch)
            with pytest.raises(KeyboardInterrupt):
                run(capfd, *flags)
        assert output.read_bytes() == b"an earlier result\n"
        (partial,) = tmp_path.glob(".german.txt.*.partial")
        windows = sorted(partial.iterdir())
        assert [window.read_bytes().count(b"\n") for window in windows] == [4, 4, 4]
        assert whole.startswith(b"".join(window.read_bytes() for window in windows))
        if torn:  # what a kill leaves of a window
            (partial / ".temporary").mkdir()
            windows[-1].rename(partial / ".temporary" / windows[-1].name)
        with monkeypatch.context() as patch:
            lines = stop_after(9, patch)
            assert run(capfd, *resume)[0] == 0
        assert lines == (
            [9, 13, 17, 21] if torn else [13, 17, 21]
        )  # what was complete is not translated again
        assert output.read_bytes() == whole and not list(tmp_path.glob(".*"))


def test_bf16_flag(folder, capfd, monkeypatch):
    dtypes = []
    monkeypatch.setattr(
        t5, "translate", lambda texts, model, *rest, **options: dtypes.append(model.dtype) or texts
    )
    for flag in ("true", "false"):
        run(capfd, "--model_name_or_path", folder, "--text", "Water.", "--use_cpu", "--bf16", flag)
    assert dtypes == [torch.bfloat16, torch.float32]


def test_without_the_flag_a_file_starts_afresh(english, folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(t5, "WINDOW_LINES", 4)
    flags = [
        "--model_name_or_path",
        folder,
        "--input_file",
        english[0],
        "--output_file",
        tmp_path / "german.txt",
    ]
    for _ in range(2):
        with monkeypatch.context() as patch:
            lines = stop_after(2, patch)
            with pytest.raises(KeyboardInterrupt):
                run(capfd, *flags)
        assert lines == [1, 5, 9]


def test_other_settings_or_input_start_afresh(english, folder, tmp_path, capfd, monkeypatch):
    path, _ = english
    monkeypatch.setattr(t5, "WINDOW_LINES", 4)
    output, copy = tmp_path / "german.txt", tmp_path / "copy"
    shutil.copytree(folder, copy)
    flags = [
        "--model_name_or_path",
        copy,
        "--input_file",
        path,
        "--output_file",
        output,
        "--max_new_tokens",
    ]
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            run(capfd, *flags, "9")
    with monkeypatch.context() as patch:
        lines = stop_after(9, patch)
        assert run(capfd, *flags, "8", "--resume_from_checkpoint", "last")[0] == 0
    assert lines == [1, 5, 9, 13, 17, 21]
    for change in ("weights", "input"):
        if change == "weights":
            weights = T5ForConditionalGeneration.from_pretrained(folder)
            weights.shared.weight.data[5] += 1
            weights.save_pretrained(copy)
        else:
            path.write_bytes(b"Water.\n" + path.read_bytes())
        with monkeypatch.context() as patch:
            lines = stop_after(2, patch)
            with pytest.raises(KeyboardInterrupt):
                run(capfd, *flags, "9", "--resume_from_checkpoint", "last")
        assert lines == [1, 5, 9]


def test_reference_scores(folder, tmp_path, capfd):
    (tmp_path / "in.txt").write_text("\n".join(source for source, _ in t5.SAMPLE_PAIRS))
    (tmp_path / "ref.txt").write_text(
        "\n".join(target for _, target in t5.SAMPLE_PAIRS), encoding="utf-8"
    )
    results = tmp_path / "out" / "all_results.json"
    state = (
        results.parent / "checkpoint-5" / "trainer_state.json"
    )  # of a training that was interrupted
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    results.write_text('{"train_loss": 1.5}')
    flags = [
        "--model_name_or_path",
        folder,
        "--input_file",
        tmp_path / "in.txt",
        "--output_file",
        tmp_path / "a.txt",
    ]
    flags += ["--reference_file", tmp_path / "ref.txt", "--output_dir", results.parent]
    status, out, _ = run(capfd, *flags)
    assert state.exists() and f"--model_name_or_path {folder}\n" in out
    system, reference = [
        (tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("a.txt", "ref.txt")
    ]
    metrics = json.loads(results.read_text())
    assert status == 0 and metrics["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu(system, [reference]).score
    )
    assert metrics["chrf"] == pytest.approx(sacrebleu.corpus_chrf(system, [reference]).score)
    assert 0 < metrics["chrf"] < 100 and "train_loss" not in metrics  # that was another model's
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version" in out and "nc:6|nw:0" in out
    (tmp_path / "ref.txt").write_text("one line\n")
    status, _, err = run(capfd, *flags)
    assert status == 2 and "1 lines for 20 translations" in err


def test_another_system_is_compared_by_sacrebleus_test(folder, tmp_path, capfd):
    sources, references = zip(*t5.SAMPLE_PAIRS, strict=True)
    (tmp_path / "in.txt").write_text("\n".join(sources) + "\n", encoding="utf-8")
    (tmp_path / "ref.txt").write_text("\n".join(references) + "\n", encoding="utf-8")
    worse = [
        reference.replace("der", "die") if n % 3 else "Hm."
        for n, reference in enumerate(references)
    ]
    (tmp_path / "other.txt").write_text("\n".join(worse) + "\n", encoding="utf-8")
    flags = ["--model_name_or_path", folder, "--input_file", tmp_path / "in.txt", "--bf16", "false"]
    flags += ["--output_file", tmp_path / "out.txt", "--output_dir", tmp_path]
    assert run(capfd, *flags, "--baseline_file", tmp_path / "other.txt")[0] == 2
    flags += ["--reference_file", tmp_path / "ref.txt"]
    status, out, err = run(capfd, *flags, "--baseline_file", tmp_path / "other.txt")
    assert status == 0, err
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    ours = (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        systems = [("other", worse), ("ours", ours)]
        _, found = PairedTest(systems, {name: metric}, [list(references)], "ar", 1000, 1000)()
        other, result = list(found.values())[1]
        assert metrics[name] == pytest.approx(result.score)
        assert metrics[f"{name}_baseline"] == pytest.approx(other.score)
        assert metrics[f"{name}_ci"] == pytest.approx(result.ci)
        assert metrics[f"{name}_p"] == pytest.approx(result.p_value) and f"{name}_p = " in out
    assert (
        run(capfd, *flags, "--baseline_file", tmp_path / "ref.txt")[0] == 0
    )  # the same file twice
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    assert metrics["bleu_baseline"] == pytest.approx(100)
    (tmp_path / "other.txt").write_text("Hm.\n")
    status, _, err = run(capfd, *flags, "--baseline_file", tmp_path / "other.txt")
    assert status == 2 and "other.txt: 1 lines for 20 translations" in err


@pytest.mark.slow
def test_readme_commands_for_ctranslate2_translate_as_we_do(tmp_path, capfd):
    pytest.importorskip("ctranslate2")
    readme = (SCRIPTS["t5_translator"].parent / "README.md").read_text(encoding="utf-8")
    commands = re.search(r"### Faster still.*?```console\n(.*?)```", readme, re.DOTALL).group(1)
    assert run(capfd, "--smoke", "--output_dir", tmp_path / "outputs" / "t5_translator")[0] == 0
    sources, targets = zip(*t5.SAMPLE_PAIRS, strict=True)
    (tmp_path / "english.txt").write_text("\n".join(sources) + "\n", encoding="utf-8")
    path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    subprocess.run(
        ["bash", "-e"], input=commands.encode(), cwd=tmp_path, env=os.environ | path, check=True
    )
    found = (tmp_path / "german.txt").read_text(encoding="utf-8").splitlines()
    assert found == list(targets)


@pytest.mark.parametrize("num_beams", ["1", "2"])
def test_no_three_tokens_stand_twice(num_beams, tmp_path, capfd):
    """A model that repeats itself: with the flag no three tokens of a translation are equal."""
    torch.manual_seed(0)
    tokenizer, model = t5.tiny(t5.SAMPLE_PAIRS, "translate English to German: ")
    for part in (tokenizer, model):
        part.save_pretrained(tmp_path / "random")
    flags = ["--model_name_or_path", tmp_path / "random", "--text", "Where is the station?"]
    flags += ["--max_new_tokens", "40", "--num_beams", num_beams, "--bf16", "false"]

    def repeated(*more):
        out = run(capfd, *flags, *more)[1]
        (text,) = re.findall(r"^German: (.*)$", out, re.MULTILINE)
        ids = tokenizer(text).input_ids[:-1]
        triples = [tuple(ids[i : i + 3]) for i in range(len(ids) - 2)]
        return len(triples) - len(set(triples))

    assert repeated() > 5
    assert repeated("--no_repeat_ngram_size", "3") == 0


PAIRS = [
    ("Der Hund bellt.", 'The dog "barks'),
    ("Die Katze schläft.", "The cat sleeps."),
    ("Es regnet.", "It rains."),
]


def train(capfd, tmp_path, output, *flags):
    file = tmp_path / "pairs.tsv"
    file.write_bytes(b"\xef\xbb\xbf" + "".join(f"{a}\t{b}\tignored\r\n" for a, b in PAIRS).encode())
    languages = (
        "--source_lang",
        "German",
        "--target_lang",
        "English",
        "--train_file",
        file,
        "--validation_file",
        file,
    )
    return run(capfd, "--smoke", *languages, "--output_dir", tmp_path / output, *flags)


def weights(path):
    return T5ForConditionalGeneration.from_pretrained(path, dtype=torch.float32).state_dict()


def test_training_on_own_pairs(tmp_path, capfd):
    epochs = ("--max_steps", "90", "--per_device_train_batch_size", "1", "--save_strategy", "epoch")
    status, out, err = train(
        capfd,
        tmp_path,
        "out",
        *epochs,
        "--learning_rate",
        "3e-3",
        "--lr_scheduler_type",
        "constant",
    )
    assert status == 0, err
    assert len(re.findall(r"'eval_bleu': '?[\d.]+", out)) == 30  # one for each of the 30 epochs
    assert (
        "3 of 3 translations are exactly the reference" in out
        and 'Der Hund bellt. -> The dog "barks' in out
    )
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    flags = (
        "--source_lang",
        "German",
        "--target_lang",
        "English",
        "--model_name_or_path",
        tmp_path / "out",
    )
    assert "\nEnglish: It rains.\n" in run(capfd, *flags, "--text", "Es regnet.")[1]


def test_interrupted_training_ends_the_same(tmp_path, capfd, monkeypatch):
    flags = ("--per_device_train_batch_size", "2", "--save_strategy", "epoch", "--max_steps", "6")
    assert train(capfd, tmp_path, "whole", *flags)[0] == 0
    step = t5.Seq2SeqTrainer.training_step

    def dying(trainer, *rest):
        if trainer.state.global_step == 3:
            raise KeyboardInterrupt
        return step(trainer, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(t5.Seq2SeqTrainer, "training_step", dying)
        train(capfd, tmp_path, "cut", *flags)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    steps = []
    with monkeypatch.context() as patch:
        patch.setattr(
            t5.Seq2SeqTrainer,
            "training_step",
            lambda *rest: steps.append(rest[0].state.global_step) or step(*rest),
        )
        assert train(capfd, tmp_path, "cut", *flags, "--resume_from_checkpoint", "last")[0] == 0
    assert steps == [2, 3, 4, 5]  # from the checkpoint after the first epoch
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_fine_tuning_a_checkpoint(folder, tmp_path, capfd):
    before, output = weights(folder), tmp_path / "tuned"
    flags = (
        "--model_name_or_path",
        folder,
        "--do_train",
        "--output_dir",
        output,
        "--max_steps",
        "2",
        "--bf16",
        "false",
    )
    status, out, _ = run(capfd, *flags, "--learning_rate", "1e-3", "--save_strategy", "no")
    after = weights(output)
    assert status == 0 and "of 20 translations" in out and before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (
        T5Tokenizer.from_pretrained(output).get_vocab()
        == T5Tokenizer.from_pretrained(folder).get_vocab()
    )


PAIRS_TO_LEARN = [
    ("Water.", "Wasser."),
    ("The dog is sleeping under the table.", "Der Hund schläft unter dem Tisch."),
]


def test_collator_pads_what_it_tokenizes(model, tokenizer):
    batch = t5.PairCollator(tokenizer, model, prompt=PROMPT)(PAIRS_TO_LEARN)
    for row, (source, target) in enumerate(PAIRS_TO_LEARN):
        ids, labels = tokenizer(PROMPT + source).input_ids, tokenizer(target).input_ids
        assert batch["input_ids"][row, : len(ids)].tolist() == ids and batch["attention_mask"][
            row
        ].sum() == len(ids)
        assert (
            batch["labels"][row, : len(labels)].tolist() == labels
            and (batch["labels"][row, len(labels) :] == -100).all()
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_librarys_over_all_tokens(model, tokenizer, tmp_path, smoothing):
    flags = ["--smoke", "--output_dir", str(tmp_path), "--label_smoothing_factor", str(smoothing)]
    _, _, training_args = t5.parse_arguments(flags)
    pairs = {"train": PAIRS_TO_LEARN}
    trainer = t5.build_trainer(model, tokenizer, training_args, pairs, PROMPT)
    batch = trainer.data_collator(PAIRS_TO_LEARN).to(model.device)  # where the trainer has put it
    tokens = (batch["labels"] != -100).sum()
    with torch.inference_mode():
        expected = LabelSmoother(smoothing)(model(**batch), batch["labels"])
        found = trainer.compute_loss(model, dict(batch), num_items_in_batch=tokens)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_bad_data_is_an_exception_for_an_importing_program(folder, tmp_path):
    (tmp_path / "ragged.tsv").write_text("a\tb\nc\td\te\n")
    with pytest.raises(t5.InputError, match="line 2: 1 of 2 rows"):
        t5.read_pairs(str(tmp_path / "ragged.tsv"))
    (tmp_path / "latin.txt").write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(t5.InputError, match="line 2: byte 4 is not UTF-8"):
        list(t5.read_lines(str(tmp_path / "latin.txt")))
    with pytest.raises(t5.InputError, match="1 references for 2 translations"):
        t5.score(["a", "b"], ["a"])
    shutil.copytree(folder, tmp_path / "wordless")
    (tmp_path / "wordless" / "tokenizer.json").unlink()
    with pytest.raises(t5.InputError, match="wordless"):
        t5.pretrained(str(tmp_path / "wordless"))


def write_pairs(path, pairs):
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return path


LANGUAGES = {
    "control tokens": [
        ("End </s> here", "Ende </s> hier"),
        ("one <pad> two", "eins <pad> zwei"),
        ("a<unk>b", "c<unk>d"),
        ("gap <extra_id_0> filled", "Lücke <extra_id_0> gefüllt"),
        ("</s>", "</s></s>"),
        ("<s>red</s>", "<s>rot</s>"),
    ],
    "Chinese": [
        ("It is raining.", "下雨了。"),
        ("Where is he?", "他在哪里？"),
        ("I drink tea.", "我喝茶。"),
    ],
    "from Chinese": [("下雨了。", "Es regnet."), ("他在哪里？", "Wo ist er?")],
    "Korean": [("It is raining.", "비가 옵니다."), ("I drink tea.", "나는 차를 마십니다.")],
    "Thai": [("Hello.", "สวัสดีครับ"), ("Thank you.", "ขอบคุณครับ")],
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_smoke_learns_own_pairs_as_they_are(name, tmp_path, capfd):
    """Whatever the letters: it comes out as it went in, in training, translation and scoring."""
    file = write_pairs(tmp_path / "pairs.tsv", LANGUAGES[name])
    flags = ["--smoke", "--train_file", file, "--validation_file", file]
    status, out, err = run(capfd, *flags, "--output_dir", tmp_path / "out", "--max_steps", "120")
    assert status == 0 and "warning" not in err
    for source, target in LANGUAGES[name]:
        assert f"  {source} -> {target}\n" in out
    assert f"{len(LANGUAGES[name])} of {len(LANGUAGES[name])} translations are exactly" in out
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert metrics["chrf"] == pytest.approx(100)
    source, target = LANGUAGES[name][0]
    out = run(capfd, "--model_name_or_path", tmp_path / "out", "--text", source)[1]
    assert f"German: {target}\n" in out


def test_no_control_token_comes_from_a_text():
    """Here the Unigram model has whole pieces for them, as t5-small has: the best of all."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -5.0) for letter in string.ascii_letters + string.digits + "_/>"]
    pieces += [(f"<extra_id_{number}>", 0.0) for number in range(99, -1, -1)]
    tokenizer = T5Tokenizer(pieces)
    t5.keep_control_tokens_out(tokenizer)
    for text in ("a </s> b", "a</s>b", "</s>", "<pad>", "x<extra_id_7>y", "<unk> <s>"):
        ids = tokenizer(text).input_ids
        assert ids[-1] == 1 and not set(ids[:-1]) & {0, 1, *range(len(pieces) - 100, len(pieces))}
        assert tokenizer.decode(ids, skip_special_tokens=True) == text.replace("<", "")
    assert t5.unknown_letters(["a", "b </s>"], tokenizer) == {"<": 2}


def test_saved_tokenizer_is_an_ordinary_one(folder):
    """The folder works in other programs, where `</s>` is what it is everywhere."""
    ordinary, ours = AutoTokenizer.from_pretrained(folder), t5.pretrained(str(folder))[0]
    text = "The house is wonderful."
    assert ordinary(text).input_ids == ours(text).input_ids
    assert ordinary("a </s>").input_ids[-2:] == [1, 1] != ours("a </s>").input_ids[-2:]


def test_letters_that_the_model_does_not_know_get_one_warning(folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(t5, "WINDOW_LINES", 2)
    (tmp_path / "in.txt").write_text("Water.\nMilk\nno {\n\n~ \u0151 {\nWater.\n", encoding="utf-8")
    flags = ["--model_name_or_path", folder, "--input_file", tmp_path / "in.txt"]
    for output in ([], ["--output_file", tmp_path / "out.txt"]):
        _, _, err = run(capfd, *flags, "--max_new_tokens", "200", *output)
        (warning,) = [line for line in err.splitlines() if "does not know" in line]
        assert warning.startswith("warning:") and " { ~ \u0151: lost (first: line 3)" in warning
    (tmp_path / "in.txt").write_text("Water.\n")
    assert "does not know" not in run(capfd, *flags)[2]


def test_letters_of_two_characters_are_known():
    """Text from a Mac often has é as e and an accent; T5's tokenizer joins them."""
    composed = T5Tokenizer(
        [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), ("é", -1.0)]
    )
    composed.backend_tokenizer.normalizer = normalizers.NFKC()
    assert t5.unknown_letters(["e\u0301", "o\u0301"], composed) == {"\u00f3": 2}
    apart, _ = t5.tiny([("e\u0301", "e\u0301")], "")
    assert t5.unknown_letters(["e\u0301"], apart) == {}


def test_share_of_target_words_that_cannot_be_learnt(folder, tmp_path, capfd):
    pairs = [("Water {.", "Wasser {eins} Wasser Schnee"), ("Snow.", "~ Wasser Wasser Wasser")]
    flags = ["--model_name_or_path", folder, "--do_train", "--max_steps", "1", "--bf16", "false"]
    flags += ["--train_file", write_pairs(tmp_path / "pairs.tsv", pairs)]
    status, out, err = run(capfd, *flags, "--output_dir", tmp_path / "out")
    assert (
        status == 0 and "25.0% of the target words" in err and "does not know { } ~: 25.0%" in err
    )
    assert err.count("warning: the model does not know {: lost (first: pair 1)\n") == 1


def test_bleu_of_an_epoch_is_against_the_raw_texts(tokenizer):
    """The tokenizer loses braces: a translation without them is not the reference."""
    references = ["Das {Haus} ist  wunderbar, sagte er."] * 2
    ids = tokenizer("Das Haus ist wunderbar, sagte er.").input_ids
    output = EvalPrediction(predictions=np.array([ids + [-100], ids + [-100]]), label_ids=None)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    expected = sacrebleu.corpus_bleu([text] * 2, [references]).score
    found = t5.bleu_of_tokens(output, tokenizer, references)
    assert found == {"bleu": pytest.approx(expected)} and 0 < expected < 100


@pytest.mark.slow
def test_bleu_of_an_epoch_does_not_depend_on_the_processes(folder, tmp_path, capfd):
    pairs = [(f"{s} {{", f"{t} {{") for s, t in t5.SAMPLE_PAIRS[:7]]
    file = write_pairs(tmp_path / "pairs.tsv", pairs)
    flags = ["--model_name_or_path", folder, "--do_train", "--learning_rate", "1e-9", "--use_cpu"]
    flags += ["--bf16", "false", "--max_steps", "1", "--per_device_eval_batch_size", "2"]
    flags += ["--train_file", file, "--validation_file", file, "--eval_on_start"]
    t5.main([str(flag) for flag in [*flags, "--output_dir", tmp_path / "one"]])
    alone = capfd.readouterr()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += [SCRIPTS["t5_translator"], *flags, "--output_dir", tmp_path / "two"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = []
    for out, err in ((alone.out, alone.err), (done.stdout, done.stderr)):
        assert err.count("of the target words") == 1
        found.append(re.search(r"'eval_bleu': '([\d.]+)'", out).group(1))
    assert found[0] == found[1] != "0"


def test_metrics_are_written_before_anything_of_them_is_printed(tmp_path, monkeypatch):
    def broken(*texts, **options):
        if any("->" in str(text) for text in texts):
            raise BrokenPipeError

    monkeypatch.setattr(t5, "print", broken, raising=False)
    with pytest.raises(BrokenPipeError):
        t5.main(["--smoke", "--max_steps", "2", "--output_dir", str(tmp_path)])
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    assert {"train_loss", "bleu"} <= metrics.keys()


def test_references_are_counted_before_translating(folder, tmp_path, capfd, monkeypatch):
    (tmp_path / "in.txt").write_text("Water.\nSnow.\n")
    (tmp_path / "right.txt").write_text("Wasser.\n")
    flags = ["--model_name_or_path", folder, "--input_file", tmp_path / "in.txt"]
    flags += ["--output_file", tmp_path / "out.txt", "--reference_file", tmp_path / "right.txt"]
    monkeypatch.setattr(t5, "translate", None)
    status, _, err = run(capfd, *flags)
    assert status == 2 and "1 lines for 2 translations" in err
    for name in ("in.txt", "right.txt"):
        (tmp_path / name).write_text("")
    assert "0 lines for 0 translations" in run(capfd, *flags)[2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--predict_with_generate false", "bleu needs --predict_with_generate"),
        ("--train_sampling_strategy group_by_length", "invalid choice: 'group_by_length'"),
        ("--generation_max_length 1", "below 2 is no text"),
        ("--generation_num_beams 0", "--generation_num_beams 0: give a number"),
        ("--metric_for_best_model chrf", "choose from .?bleu.?, .?loss"),
        ("--input_file missing.txt", "no file missing.txt"),
    ],
)
def test_flags_are_refused_before_training(flags, message, tmp_path, monkeypatch):
    monkeypatch.setattr(t5, "train", None)
    with pytest.raises(t5.InputError, match=message):
        t5.main(["--smoke", "--output_dir", str(tmp_path), *flags.split()])


def test_without_bleu_the_loss_chooses_the_epoch(tmp_path, capfd):
    flags = ["--predict_with_generate", "false", "--metric_for_best_model", "loss"]
    status, out, _ = train(
        capfd, tmp_path, "out", *flags, "--save_strategy", "epoch", "--max_steps", "2"
    )
    assert status == 0 and "eval_loss" in out and "eval_bleu" not in out


def test_closed_standard_input(folder, tmp_path, capfd, monkeypatch):
    """`<&-`: Python has no `sys.stdin` then, and whatever is opened next gets its number."""
    monkeypatch.setattr(sys, "stdin", None)
    status, out, _ = run(capfd, "--model_name_or_path", folder)
    assert status == 0 and f"English: {t5.SAMPLE_TEXTS[0]}\n" in out
    status, _, err = run(capfd, "--model_name_or_path", folder, "--input_file", "-")
    assert status == 2 and "there is no standard input" in err


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_spiece_model_alone_names_the_package_that_reads_it(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old")
    (tmp_path / "old" / "tokenizer.json").unlink()
    (tmp_path / "old" / "spiece.model").write_bytes(b"\n\x0e\n\x05<pad>")
    with pytest.raises(t5.InputError, match=r"spiece\.model, pip install sentencepiece") as caught:
        t5.pretrained(str(tmp_path / "old"))
    assert "tiktoken" not in str(caught.value)


def test_default_learning_rate_is_the_librarys_advice():
    """huggingface.co/docs/transformers/model_doc/t5: 1e-4 and 3e-4 work well with AdamW."""
    assert 1e-4 <= t5.parse_arguments(["--do_train"])[2].learning_rate <= 3e-4


@pytest.mark.real_data
def test_multi30k(real_data, folder, model, tokenizer):
    pairs = t5.read_pairs(str(real_data / "multi30k" / "val.de-en.tsv"))
    lines = (real_data / "multi30k" / "val.de-en.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    assert ["\t".join(pair) for pair in pairs] == lines and len(pairs) == 1014
    sentences = [english for _, english in pairs[:60]]
    found = t5.translate(sentences, model, tokenizer, max_new_tokens=12, batch_tokens=1000)
    assert found == one_by_one(sentences, model, tokenizer, limit=12)


@pytest.mark.slow
def test_a_long_file_in_flat_memory(folder, tmp_path):
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]);"
        "import t5_translator as t5; t5.main(sys.argv[2:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for lines in (8192, 40_000):  # two windows, ten
        (tmp_path / "in.txt").write_text("Water is falling.\n" * lines)
        flags = [
            "--model_name_or_path",
            folder,
            "--input_file",
            tmp_path / "in.txt",
            "--output_file",
            tmp_path / "out.txt",
        ]
        command = [
            sys.executable,
            "-c",
            code,
            SCRIPTS["t5_translator"].parent,
            *flags,
            "--max_new_tokens",
            "2",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
        assert (tmp_path / "out.txt").read_text().count("\n") == lines
    assert peaks[1] < peaks[0] * 1.1


UNLIKE_ENGLISH = {
    "zh": ["我们明天去海边散步。", "他的猫睡在旧沙发上。"],
    "char": ["เราจะไปเดินเล่นที่ชายหาดพรุ่งนี้", "แมวของเขานอนบนโซฟาเก่า"],
    "13a": ["우리는 내일 바닷가로 산책하러 간다.", "그의 고양이는 낡은 소파에서 잔다."],
}


@pytest.mark.parametrize("tokenizer", UNLIKE_ENGLISH)
def test_bleu_counts_what_the_text_is_made_of(tokenizer, monkeypatch):
    right = UNLIKE_ENGLISH[tokenizer]
    found = [text.replace(text[2], "x") for text in right]
    expected = sacrebleu.corpus_bleu(found, [right], tokenize=tokenizer).score
    assert t5.score(found, right)["bleu"] == pytest.approx(expected) and expected > 0
    assert f"|tok:{tokenizer}|" in t5.signatures()[0]
    t5.score(["He sleeps."], ["She sleeps."])
    assert "|tok:13a|" in t5.signatures()[0]
    words = SimpleNamespace(batch_decode=lambda ids, skip_special_tokens: found)
    output = EvalPrediction(np.zeros((2, 1), int), None)
    assert t5.bleu_of_tokens(output, words, right)["bleu"] == pytest.approx(expected)


def test_japanese_is_counted_in_words_where_mecab_is(monkeypatch):
    asked, texts = [], ["明日は海辺を散歩します。", "猫は古いソファで寝ている。"]
    monkeypatch.setattr(t5, "BLEU", lambda lowercase, tokenize: asked.append(tokenize))
    for installed in (False, True):
        monkeypatch.setattr(t5, "find_spec", lambda name, here=installed: here)
        monkeypatch.setitem(t5.METRICS, "bleu", SimpleNamespace(lowercase=False))
        t5.choose_bleu(texts)
        monkeypatch.setitem(t5.METRICS, "bleu", SimpleNamespace(lowercase=False))
    t5.choose_bleu(["Haus", "Garten", "Regen"])
    assert asked == ["char", "ja-mecab", "char"]


def test_what_training_cuts_is_counted_before_it(tokenizer, tmp_path, capfd, monkeypatch):
    long = "rain " * 600
    rows = [("a dog", "ein Hund"), (long, "viel Regen"), (long, long), ("snow", "Schnee " * 511)]
    file = write_pairs(tmp_path / "pairs.tsv", [(s.strip(), t.strip()) for s, t in rows])
    monkeypatch.setattr(t5, "train", lambda trainer: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(capfd, "--smoke", "--train_file", file, "--output_dir", tmp_path / "out")
    expected = "2 sources and 1 targets of 4 have more than 512 tokens: training cuts them there"
    assert capfd.readouterr().err.count(expected) == 1  # 511 words and </s> are not too many


@pytest.mark.slow
def test_bleu_of_an_epoch_is_that_of_the_end(tmp_path, capfd):
    """Of a model that has not learnt when to stop, on texts beyond 128 tokens."""
    words = [f"w{n}" for n in range(40)]
    pairs = [(" ".join(words[n:] * 5), " ".join(words[::-1][n:] * 5)) for n in range(4)]
    file = write_pairs(tmp_path / "pairs.tsv", pairs)
    flags = ["--smoke", "--train_file", file, "--validation_file", file, "--bf16", "false"]
    flags += ["--max_steps", "60", "--save_strategy", "steps", "--save_steps", "30"]
    for more in ([], ["--max_new_tokens", "70"]):
        status, out, err = run(capfd, *flags, "--output_dir", tmp_path / "out", *more)
        epochs = [float(bleu) for bleu in re.findall(r"'eval_bleu': '?([\d.e-]+)", out)]
        end = json.loads((tmp_path / "out" / "all_results.json").read_text())["bleu"]
        assert status == 0 and len(epochs) == 2 and end > 0, err
        assert max(epochs) == pytest.approx(end, rel=1e-3)


@pytest.mark.parametrize("name", ["config", "generation_config"])
def test_greedy_starts_ends_and_pads_as_the_model_says(name, folder, tokenizer):
    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer([PROMPT + "Water.", PROMPT + TEXTS[6]], return_tensors="pt", padding=True)
    for start in range(3, 60):  # one from which there are several words
        model.generation_config.decoder_start_token_id = start
        whole = t5.greedy(model, **inputs, max_new_tokens=30)
        if whole[0, 2] > 2:
            break
    ends = [1, whole[0, 2].item()]
    assert ends[1] > 2  # it would go on
    ids = {"decoder_start_token_id": start, "eos_token_id": ends, "pad_token_id": 2}
    for key, value in ids.items():
        setattr(model.config, key, value)
        setattr(model.generation_config, key, value)
    if name == "config":  # a checkpoint without a generation_config.json
        model.generation_config = type(model.generation_config).from_model_config(model.config)
    expected = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=30)[:, 1:]
    found = t5.greedy(model, **inputs, max_new_tokens=30)
    assert torch.equal(found[:, : expected.shape[1]], expected)
    assert set(found[:, expected.shape[1] :].flatten().tolist()) <= {2}


def test_translations_can_be_captured(folder, tmp_path, capfd):
    """In a notebook: there standard output takes text and has no descriptor."""
    file = tmp_path / "in.txt"
    file.write_text("Water.\n\nIt is raining today.\n", encoding="utf-8")
    flags = ["--model_name_or_path", folder, "--input_file", file, "--max_new_tokens", "9"]
    expected = run(capfd, *flags)[1]
    with contextlib.redirect_stdout(io.StringIO()) as captured:
        outside = run(capfd, *flags)[1]
    assert captured.getvalue() == expected and expected.count("\n") == 3 and outside == ""


@pytest.mark.slow
def test_pipe_is_utf8_with_line_feeds(folder, tmp_path):
    """Whatever the system's encoding is, and nothing but translations."""
    program = [sys.executable, SCRIPTS["t5_translator"], "--model_name_or_path", folder]
    done = subprocess.run(
        [*program, "--max_new_tokens", "20"],
        input=b"Good night!\r\n\r\nWhere is my brother?",
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=120,
    )
    assert done.stdout.count(b"\n") == 3 and b"\r" not in done.stdout and done.stdout.decode()
    assert b"waiting for texts" not in done.stderr


@pytest.mark.slow
def test_an_open_pipe_that_sends_nothing_is_named(capfd):
    def pause(seconds, *first):
        yield from first
        time.sleep(seconds)
        yield "Water."

    assert list(t5.announced(pause(2.3, "Snow."))) == ["Snow.", "Water."]
    assert "waiting" not in capfd.readouterr().err
    assert list(t5.announced(pause(2.3))) == ["Water."]
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "standard input; --input_file names a file" in error


def test_encodings_of_every_file(folder, tmp_path, capfd):
    texts = {"in": "Wär „gut“ 5 €\n", "ref": "größer\n", "other": "große\n", "p": "Öl\tœuf €\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_bytes(text.encode("cp1252"))
    files = {"input": "in", "output": "out", "reference": "ref", "baseline": "other"}
    flags = [f"--{flag}_file={tmp_path / name}.txt" for flag, name in files.items()]
    model = ["--model_name_or_path", folder, "--output_dir", tmp_path / "out"]
    status, _, err = run(capfd, *model, *flags)
    assert status == 2 and "is not UTF-8 text: give --encoding cp1252" in err
    status, _, err = run(capfd, *model, *flags, "--encoding", "cp1252", "--max_new_tokens", "5")
    assert status == 0, err
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(t5, "translate", lambda texts, *_, **__: seen.extend(texts) or list(texts))
        run(capfd, *model, "--input_file", tmp_path / "in.txt", "--encoding", "cp1252")
    assert seen == ["Wär „gut“ 5 €"]
    pairs = {"train_file": str(tmp_path / "p.txt"), "validation_file": str(tmp_path / "p.txt")}
    found = t5.load_pairs(t5.ScriptArguments(**pairs, encoding="cp1252"))
    assert found == {"train": [("Öl", "œuf €")], "validation": [("Öl", "œuf €")]}
    (tmp_path / "p.txt").write_bytes("Öl\tœuf\r\n".encode("utf-16"))
    assert t5.read_pairs(str(tmp_path / "p.txt")) == [("Öl", "œuf")]
    status, _, err = run(capfd, *model, "--input_file", "-", "--encoding", "klingon")
    assert status == 2 and "--encoding klingon" in err
    (tmp_path / "memory.tmx").write_text("<tmx/>")
    with pytest.raises(t5.InputError, match="translation memory: export it as tab-separated"):
        t5.read_pairs(str(tmp_path / "memory.tmx"))


RAIN = [("It rains, again.", 'Es "regnet"; wieder.'), ("Two\nlines", "Zwei Zeilen")]
TABLES = {
    "commas.csv": 'en,de\n"It rains, again.","Es ""regnet""; wieder."\n"Two\nlines",Zwei Zeilen\n',
    "semi.csv": 'Englisch;Deutsch\nIt rains, again.;"Es ""regnet""; wieder."\n"Two\nlines";Zwei Zeilen',
    "tabs.csv": 'It rains, again.\t"Es ""regnet""; wieder."\t1\n"Two\nlines"\tZwei Zeilen\t2\n',
    "flat.jsonl": "".join(json.dumps({"en": s, "de": t}) + "\n" for s, t in RAIN),
    "nested.json": "".join(
        json.dumps({"id": 1, "translation": dict(sorted({"en": s, "fr": t}.items()))}) + "\n"
        for s, t in RAIN
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_pairs_from_csv_and_json_lines(name, tmp_path, capfd):
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    expected = [(s.replace("\n", " "), t) for s, t in RAIN]
    assert t5.read_pairs(str(tmp_path / name)) == expected
    error = capfd.readouterr().err
    assert ("looks like a header: left out" in error) == (name in ("commas.csv", "semi.csv"))
    assert ("separated by ';'" in error) == (name == "semi.csv")
    assert ("source and target are ['en', " in error) == name.startswith(("flat", "nested"))


def test_header_of_tsv_is_mentioned_and_stays(tmp_path, capfd):
    file = write_pairs(tmp_path / "pairs.tsv", [("Source", "Target (German)"), ("a", "b")])
    assert len(t5.read_pairs(str(file))) == 2
    assert "looks like a header: if it is one, remove it" in capfd.readouterr().err
    t5.read_pairs(str(write_pairs(file, [("the source", "die Quelle"), ("a", "b")])))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("a.tsv", "a\tb\nc\nd\t \n\te\nf\tg\th\n", "line 2, 3, 4, 5: 4 of 5 rows"),
        ("a.csv", 'a;b\n"c\nd";e\n;f\ng\n', "line 4, 5: 2 of 4 rows"),
        ("a.csv", 'a,b\n"c" d,e\nf,g\n', "line 2, 3: 2 of 3 rows"),
        ("a.jsonl", '{"a": "b", "c": "d"}\n[1]\n{"a": 1, "c": "d"}\n{', "line 2, 3, 4: 3 of 4"),
        ("a.tsv", "a\n" * 9, "line 1, 2, 3, 4, 5, …: 9 of 9 rows"),
    ],
)
def test_all_faults_of_a_table_are_in_one_message(name, text, places, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(t5.InputError, match=f"a.[a-z]+, {places}"):
        t5.read_pairs(str(tmp_path / name))


def test_next_command_works_as_printed_and_smoke_says_what_it_is(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_bytes("English;Deutsch\nOil;Öl\nWater;Wässer\n".encode("cp1252"))
    flags = ["--smoke", "--train_file", "table.csv", "--encoding", "cp1252", "--max_steps", "3"]
    flags += ["--output_dir", "my model", "--target_lang", "Swiss German", "--num_beams", "2"]
    status, out, err = run(capfd, *flags, "--no_repeat_ngram_size", "2")
    assert status == 0, err
    before, command = out.rsplit("Next:\n  ", 1)
    assert "A tiny model was tried: its quality tells nothing" in before
    _, _, *following = shlex.split(command.replace("FILE", "texts.txt"))
    Path("texts.txt").write_bytes("Öl\n".encode("cp1252"))
    status, out, err = run(capfd, *following)
    assert status == 0 and out.count("\n") == 1, err
