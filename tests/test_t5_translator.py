"""t5_translator: what it translates, that nothing is cut or lost, own pairs, and its errors."""

import contextlib
import io
import json
import logging
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import sacrebleu
import torch
import transformers
from conftest import SCRIPTS, load_script
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, T5ForConditionalGeneration, T5Tokenizer
from transformers.trainer_pt_utils import LabelSmoother

t5 = load_script("t5_translator")
PROMPT, FRENCH = "translate English to German: ", "translate English to French: "
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
    assert metrics["train_bleu"] == pytest.approx(100)
    assert metrics["train_chrf"] == pytest.approx(100)
    assert "warning: scores are of training pairs: no --validation_file" in done.stderr
    assert "--model_name_or_path=outputs/t5_translator" in done.stdout
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
    line = done.stderr.splitlines()[-1]
    assert re.match(r"error: cannot download t5-small.*--smoke.*local folder", line)


@pytest.fixture
def terminal(monkeypatch):
    """Standard input that is no pipe."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))


def test_default_run_prints_tokens_and_translation(folder, model, tokenizer, capfd, terminal):
    status, out, _ = run(capfd, "--model_name_or_path", folder, "--bf16", "false")
    text = t5.SAMPLE_TEXTS[0]
    ids = tokenizer(PROMPT + text).input_ids
    tokens = " ".join(tokenizer.tokenize(PROMPT + text))
    assert status == 0 and f"Source: {text}\nTokens: {tokens} </s>\n" in out
    assert f"Ids: {ids}\nTranslation: {one_by_one([text], model, tokenizer)[0]}\n" in out
    flags = ["--model_name_or_path", folder, "--text", "Water.", "Snow.", "--target_lang", "French"]
    status, out, _ = run(capfd, *flags)
    for text in ("Water.", "Snow."):
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(FRENCH + text).input_ids)
        assert f"Tokens: {' '.join(tokens)}\n" in out
    assert out.index("Source: Water.") < out.index("Source: Snow.")


@pytest.mark.parametrize("batch_tokens", [1, 120, 10_000])
def test_greedy_equals_generate_one_by_one(model, tokenizer, batch_tokens):
    expected = one_by_one(TEXTS, model, tokenizer, limit=40)
    # They end at different steps: the batch shrinks.
    assert len({len(translation) for translation in expected}) > 4
    found = t5.translate(TEXTS, model, tokenizer, batch_tokens=batch_tokens, max_new_tokens=40)
    assert found == expected


@pytest.mark.parametrize("search", [{}, {"num_beams": 3}, {"no_repeat_ngram_size": 2}])
def test_the_fast_way_equals_the_plain_one(model, tokenizer, search, monkeypatch):
    texts = [f"{text} {'Water. ' * (i % 7)}" for i, text in enumerate(TEXTS * 4)]
    fast = t5.translate(texts, model, tokenizer, max_new_tokens=30, batch_tokens=200, **search)
    monkeypatch.setattr(t5, "greedy", None)
    plain = t5.translate(texts, model, tokenizer, max_new_tokens=30, fast=False, **search)
    assert fast == plain and len(set(plain)) > 5


@pytest.mark.parametrize(
    "asked", [{"repetition_penalty": 3.0}, {"min_length": 6}, {"do_sample": True}]
)
def test_the_fast_way_does_what_the_checkpoint_asks_for(model, tokenizer, asked, monkeypatch):
    for name, value in asked.items():
        monkeypatch.setattr(model.generation_config, name, value)
    plain = t5.translate(TEXTS, model, tokenizer, fast=False)
    assert t5.translate(TEXTS, model, tokenizer) == plain


def test_without_the_argument_there_are_no_beams_whatever_the_checkpoint_says(
    model, tokenizer, monkeypatch
):
    expected = t5.translate(TEXTS, model, tokenizer)
    monkeypatch.setattr(model.generation_config, "num_beams", 4)
    assert t5.translate(TEXTS, model, tokenizer) == expected
    assert t5.translate(TEXTS, model, tokenizer, fast=False) == expected


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


@pytest.fixture
def computed(model, monkeypatch):
    """The lengths of the rows of every batch that is computed."""
    batches, generate = [], t5.generate

    def recording(model, tokenizer, rows, *others, **options):
        batches.append(list(map(len, rows)))
        return generate(model, tokenizer, rows, *others, **options)

    monkeypatch.setattr(t5, "generate", recording)
    return batches


def test_batches_hold_so_many_tokens(model, tokenizer, computed):
    texts = [" ".join(["Water."] * (i * 7 % 30 + 1)) for i in range(30)]
    t5.translate(texts, model, tokenizer, batch_tokens=100, max_new_tokens=1)
    assert len(computed) > 3
    lengths = sorted((len(tokenizer(PROMPT + text).input_ids) for text in texts), reverse=True)
    for batch in computed:  # as many rows as fit, the longest first
        assert batch == lengths[: len(batch)]
        assert len(batch) == min(max(1, 100 // lengths[0]), len(lengths))
        lengths = lengths[len(batch) :]
    assert lengths == []


def test_batches_are_of_the_devices_size(tokenizer, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        t5, "generate", lambda *given, **options: sizes.append(options["batch_size"]) or given[2]
    )
    for device, tokens in (("cpu", None), ("cuda", None), ("cpu", 77)):
        there = SimpleNamespace(device=torch.device(device))
        t5.generate_faster(there, tokenizer, [[3, 1]], batch_tokens=tokens)
    assert sizes == [2048, 16384, 38]


def test_full_memory_names_the_flags_in_one_line(folder, run_as_main, monkeypatch, capfd):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(T5ForConditionalGeneration, "generate", full)
    flags = ["--model_name_or_path", str(folder), "--text", "Water."]
    assert run_as_main("t5_translator", *flags) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("error: CUDA out of memory.") and line.endswith(
        "to translate, --batch_tokens"
    )


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


def test_long_line_is_translated_whole_with_a_warning(model, tokenizer, capfd):
    text = " ".join(source for source, _ in t5.SAMPLE_PAIRS * 6)
    assert len(tokenizer(PROMPT + text).input_ids) > t5.MAX_TOKENS
    found = t5.translate(["Water.", text], model, tokenizer, max_new_tokens=20)
    warning = f"warning: 1 of 2 texts have more than 512 tokens: '{PROMPT}{text[:30]}"
    assert warning in capfd.readouterr().err
    assert found == one_by_one(["Water.", text], model, tokenizer, limit=20)


def test_cut_translations_are_counted(model, tokenizer, capfd):
    t5.translate(["", TEXTS[1]], model, tokenizer, max_new_tokens=2)
    expected = "warning: 1 of 2 translations are cut at --max_new_tokens\n"
    assert capfd.readouterr().err == expected
    found = one_by_one(TEXTS, model, tokenizer, limit=40)
    ended = [text for text, words in zip(TEXTS, found, strict=True) if 0 < len(words) < 50]
    t5.translate(ended, model, tokenizer, max_new_tokens=40)
    assert ended and "cut" not in capfd.readouterr().err


def test_translating_leaves_no_traces(folder, capfd, monkeypatch):
    tokenizer, model = t5.pretrained(str(folder))
    monkeypatch.setattr(model.config, "dropout_rate", 0.5)
    for training in (True, False):
        model.train(training)
        before = vars(model.generation_config) | {"threads": torch.get_num_threads()}
        dropout, grad = torch.nn.functional.dropout, torch.is_grad_enabled()
        found = t5.translate(TEXTS, model, tokenizer, max_new_tokens=5, num_beams=2)
        assert found == t5.translate(TEXTS, model, tokenizer, max_new_tokens=5, num_beams=2)
        assert model.training == training and torch.is_grad_enabled() == grad
        assert before == vars(model.generation_config) | {"threads": torch.get_num_threads()}
        assert torch.nn.functional.dropout is dropout


def surroundings(model, tokenizer, training_args):
    """What a caller's process, model, tokenizer and arguments look like."""
    umask = os.umask(0)
    os.umask(umask)
    # Without what the library itself changes.
    attributes = sorted(vars(model).keys() - {"_is_accelerate_prepared"})
    changed = ("architectures", "dtype", "use_cache")
    config = {key: value for key, value in model.config.to_dict().items() if key not in changed}
    return {
        "arguments": training_args.to_dict(),
        "model": [type(model), attributes, config, str(model)],
        "methods": model.save_pretrained.__func__,
        "tokenizer": [str(tokenizer), tokenizer.backend_tokenizer.to_str()],
        "environment": dict(os.environ),
        "filters": list(warnings.filters),
        "logging": [transformers.logging.get_verbosity(), logging.getLogger().level],
        "bars": transformers.logging.is_progress_bar_enabled(),
        "torch": [torch.get_num_threads(), torch.nn.functional.dropout, torch.is_grad_enabled()],
        "streams": [sys.stdout, sys.stderr],
        "umask": umask,
    }


@pytest.mark.parametrize("validation", [{}, {"validation": t5.SAMPLE_PAIRS[:2]}])
def test_training_leaves_no_traces(validation, tmp_path):
    pairs = {"train": t5.SAMPLE_PAIRS[:4]} | validation
    tokenizer, model = t5.tiny(pairs["train"], PROMPT)
    options = {"max_steps": 2, "use_cpu": True, "label_smoothing_factor": 0.1}
    training_args = t5.FineTuningArguments(str(tmp_path / "out"), **options)
    before = surroundings(model, tokenizer, training_args)
    trainer = t5.build_trainer(model, tokenizer, training_args, pairs, PROMPT)
    assert surroundings(model, tokenizer, training_args) == before
    assert t5.train(trainer)["train_loss"] > 0
    t5.evaluate(pairs, partial(t5.translate, model=model, tokenizer=tokenizer))
    assert surroundings(model, tokenizer, training_args) == before
    assert (tmp_path / "out" / "model.safetensors").exists()


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
        ("Wasser\n".encode("utf-16-le"), "line 1"),
        (b"one\r\ntwo\rt\xc3\xa4\xff", "line 3"),
        (b"a\0b", "line 1"),
        ("surrogate \ud800".encode("utf-8", "surrogatepass"), "line 1"),
    ],
)
def test_what_is_no_utf8_text_ends_in_one_line(content, place, tmp_path):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(t5.InputError, match=f"{place} is not utf-8-sig text: give --enc"):
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
    assert status == 0 and out == expected and " translations are cut at --max_new_tokens\n" in err


def stop_after(windows, monkeypatch):
    """Let the next run die after so many windows; return the first lines of those it begins."""
    translate, begun = t5.translate, []

    def dying(texts, *rest, **options):
        begun.append(texts[0])
        if len(begun) > windows:
            raise KeyboardInterrupt
        return translate(texts, *rest, **options)

    monkeypatch.setattr(t5, "translate", dying)
    return begun


def test_interrupted_file_continues(english, folder, tmp_path, capfd, monkeypatch):
    path, lines = english
    monkeypatch.setattr(t5, "WINDOW_LINES", 4)
    output = tmp_path / "german.txt"
    flags = ["--model_name_or_path", folder, "--input_file", path, "--output_file", output]
    flags += ["--max_new_tokens", "9"]
    run(capfd, *flags)
    whole = output.read_bytes()
    for torn in (False, True):
        output.write_bytes(b"an earlier result\n")
        with monkeypatch.context() as patch:
            stop_after(3, patch)
            with pytest.raises(KeyboardInterrupt):
                run(capfd, *flags)
        assert output.read_bytes() == b"an earlier result\n"
        partial = tmp_path / ".german.txt.partial"
        windows = sorted(partial.iterdir())
        assert [window.read_bytes().count(b"\n") for window in windows] == [4, 4, 4]
        assert whole.startswith(b"".join(window.read_bytes() for window in windows))
        if torn:  # what a kill leaves of a window
            (partial / ".temporary").mkdir()
            windows[-1].rename(partial / ".temporary" / windows[-1].name)
        with monkeypatch.context() as patch:
            begun = stop_after(9, patch)
            assert run(capfd, *flags, "--resume_from_checkpoint", "last")[0] == 0
        # What was complete is not translated again.
        assert begun == lines[8 if torn else 12 :: 4]
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
    path, lines = english
    monkeypatch.setattr(t5, "WINDOW_LINES", 4)
    flags = ["--model_name_or_path", folder, "--input_file", path]
    flags += ["--output_file", tmp_path / "german.txt"]
    for _ in range(2):
        with monkeypatch.context() as patch:
            begun = stop_after(2, patch)
            with pytest.raises(KeyboardInterrupt):
                run(capfd, *flags)
        assert begun == lines[:12:4]


@pytest.mark.parametrize("change", ["flags", "input"])
def test_other_settings_or_input_start_afresh(
    change, english, folder, tmp_path, capfd, monkeypatch
):
    path, lines = english
    monkeypatch.setattr(t5, "WINDOW_LINES", 4)
    flags = ["--model_name_or_path", folder, "--input_file", path]
    flags += ["--output_file", tmp_path / "german.txt", "--max_new_tokens"]
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            run(capfd, *flags, "9")
    if change == "input":
        path.write_bytes(b"Water.\n" + path.read_bytes())
        lines = ["Water.", *lines]
    limit = "8" if change == "flags" else "9"
    with monkeypatch.context() as patch:
        begun = stop_after(9, patch)
        assert run(capfd, *flags, limit, "--resume_from_checkpoint", "last")[0] == 0
    assert [text.lstrip("\ufeff") for text in begun] == lines[::4]


def test_only_changed_windows_are_translated_again(english, folder, tmp_path, capfd, monkeypatch):
    path, lines = english
    monkeypatch.setattr(t5, "WINDOW_LINES", 4)
    flags = ["--model_name_or_path", folder, "--input_file", path]
    flags += ["--output_file", tmp_path / "german.txt", "--max_new_tokens", "9"]
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            run(capfd, *flags)
    path.write_text("\n".join([*lines[:6], "Water.", *lines[7:]]), encoding="utf-8")
    with monkeypatch.context() as patch:
        begun = stop_after(9, patch)
        assert run(capfd, *flags, "--resume_from_checkpoint", "last")[0] == 0
    assert begun == lines[4:5] + lines[12::4]
    found = (tmp_path / "german.txt").read_bytes()
    run(capfd, *flags)
    assert (tmp_path / "german.txt").read_bytes() == found and not list(tmp_path.glob(".*"))


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
    assert state.exists() and f"--model_name_or_path={folder} " in out
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
    assert status == 2 and "1 references for 20 translations" in err


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
        (text,) = re.findall(r"^Translation: (.*)$", out, re.MULTILINE)
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
    assert len(re.findall(r"'eval_loss': '?[\d.]+", out)) == 30  # one for each of the 30 epochs
    for source, target in PAIRS:
        assert f"  {source} -> {target}\n" in out
    assert json.loads((tmp_path / "out" / "all_results.json").read_text())["eval_chrf"] > 99.9
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    flags = (
        "--source_lang",
        "German",
        "--target_lang",
        "English",
        "--model_name_or_path",
        tmp_path / "out",
    )
    assert "\nTranslation: It rains.\n" in run(capfd, *flags, "--text", "Es regnet.")[1]


def test_early_stopping_ends_after_so_many_epochs_without_a_lower_loss(tmp_path, capfd):
    flags = ("--learning_rate", "0", "--num_train_epochs", "6", "--save_strategy", "epoch")
    flags += ("--max_steps", "-1", "--bf16", "false")
    epochs = {}
    for output, patience in (("early", ("--early_stopping_patience", "2")), ("whole", ())):
        assert train(capfd, tmp_path, output, *flags, *patience)[0] == 0
        epochs[output] = json.loads((tmp_path / output / "all_results.json").read_text())["epoch"]
    assert epochs == {"early": 3, "whole": 6}
    status, _, err = run(capfd, "--smoke", "--early_stopping_patience", "2")
    assert status == 2 and "--early_stopping_patience: give a --validation_file" in err


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
    assert status == 0 and out.count(" -> ") == 20 and before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (
        T5Tokenizer.from_pretrained(output).get_vocab()
        == T5Tokenizer.from_pretrained(folder).get_vocab()
    )


PAIRS_TO_LEARN = [
    ("Water.", "Wasser."),
    ("The dog is sleeping under the table.", "Der Hund schläft unter dem Tisch."),
]


def test_batches_hold_the_pairs_padded(model, tokenizer, tmp_path):
    args = t5.FineTuningArguments(output_dir=str(tmp_path), use_cpu=True)
    trainer = t5.build_trainer(model, tokenizer, args, {"train": PAIRS_TO_LEARN}, PROMPT)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(2)])
    for row, (source, target) in enumerate(PAIRS_TO_LEARN):
        ids, labels = tokenizer(PROMPT + source).input_ids, tokenizer(target).input_ids
        assert batch["input_ids"][row, : len(ids)].tolist() == ids and batch["attention_mask"][
            row
        ].sum() == len(ids)
        assert (
            batch["labels"][row, : len(labels)].tolist() == labels
            and (batch["labels"][row, len(labels) :] == -100).all()
        )


@pytest.mark.parametrize("words", [509, 510, 511, 600])
def test_a_long_pair_is_cut_before_its_end_token(tokenizer, words, capsys):
    text = " ".join(["Wasser"] * words)
    whole = tokenizer(text).input_ids
    [row] = t5.encode_pairs([(text, text)], tokenizer, "")
    for ids in row.values():
        assert len(ids) == min(512, len(whole)) and ids[-1] == tokenizer.eos_token_id
        assert ids[:-1] == whole[: len(ids) - 1]
    assert ("have more than 512 tokens" in capsys.readouterr().err) == (len(whole) > 512)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_librarys_over_all_tokens(model, tokenizer, tmp_path, smoothing):
    flags = ["--smoke", "--output_dir", str(tmp_path), "--label_smoothing_factor", str(smoothing)]
    _, _, training_args = t5.parse_arguments(flags)
    pairs = {"train": PAIRS_TO_LEARN}
    trainer = t5.build_trainer(model, tokenizer, training_args, pairs, PROMPT)
    batch = trainer.data_collator(trainer.train_dataset)
    batch = batch.to(model.device)  # where the trainer has put it
    tokens = (batch["labels"] != -100).sum()
    model.eval()  # no dropout
    expected = LabelSmoother(smoothing)(model(**batch), batch["labels"])
    found = trainer.compute_loss(model, dict(batch), num_items_in_batch=tokens)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    with torch.inference_mode():  # an evaluation measures what is not smoothed
        expected = model(**batch).loss
        found = trainer.compute_loss(model, dict(batch), num_items_in_batch=tokens)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("flag", ["--input_file", "--reference_file"])
def test_a_wrong_name_costs_no_training(flag, tmp_path, monkeypatch):
    monkeypatch.setattr(t5, "train", None)
    files = {"--input_file": tmp_path / "a.txt", "--reference_file": tmp_path / "b.txt"}
    for path in files.values():
        path.write_text("a\n")
    files[flag] = tmp_path / "missing.txt"
    flags = [str(word) for pair in files.items() for word in pair]
    with pytest.raises(FileNotFoundError, match="missing"):
        t5.main(["--smoke", *flags, "--output_file", str(tmp_path / "c.txt")])


def test_validation_pairs_alone_are_refused(tmp_path):
    """Or the built-in pairs would be trained on, whatever their languages are."""
    path = write_pairs(tmp_path / "v.tsv", PAIRS_TO_LEARN)
    with pytest.raises(t5.InputError, match="need --do_train and --train_file"):
        t5.main(["--do_train", "--validation_file", str(path)])


def test_scores_of_a_file_do_not_take_the_place_of_those_of_the_training(tmp_path, capfd):
    pairs = write_pairs(tmp_path / "v.tsv", PAIRS_TO_LEARN)
    output = tmp_path / "out"
    flags = ["--smoke", "--max_steps", "3", "--output_dir", output]
    flags += ["--train_file", pairs, "--validation_file", pairs]
    assert run(capfd, *flags)[0] == 0
    trained = json.loads((output / "all_results.json").read_text())
    assert {"eval_bleu", "eval_chrf"} <= set(trained) and "bleu" not in trained
    (tmp_path / "a.txt").write_text("Water.\n")
    (tmp_path / "b.txt").write_text("Wasser.\n")
    flags = ["--model_name_or_path", output, "--input_file", tmp_path / "a.txt"]
    flags += ["--reference_file", tmp_path / "b.txt", "--output_file", tmp_path / "c.txt"]
    assert run(capfd, *flags)[0] == 0
    scored = json.loads((output / "all_results.json").read_text())
    assert scored == scored | trained and "bleu" in scored


def test_an_empty_file_of_references_ends_in_one_line():
    with pytest.raises(t5.InputError, match="0 references for 0 translations"):
        t5.score([], [])


def test_bad_data_is_an_exception_for_an_importing_program(folder, tmp_path):
    (tmp_path / "ragged.tsv").write_text("a\tb\nc\td\te\n")
    with pytest.raises(t5.InputError, match="row 2: 1 of 2 rows"):
        t5.read_pairs(str(tmp_path / "ragged.tsv"))
    (tmp_path / "latin.txt").write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(t5.InputError, match="line 2 is not utf-8-sig text"):
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
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert metrics["eval_chrf"] == pytest.approx(100)
    source, target = LANGUAGES[name][0]
    out = run(capfd, "--model_name_or_path", tmp_path / "out", "--text", source)[1]
    assert f"Translation: {target}\n" in out


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


def test_saved_tokenizer_is_an_ordinary_one(folder):
    """The folder works in other programs, where `</s>` is what it is everywhere."""
    ordinary, ours = AutoTokenizer.from_pretrained(folder), t5.pretrained(str(folder))[0]
    text = "The house is wonderful."
    assert ordinary(text).input_ids == ours(text).input_ids
    assert ordinary("a </s>").input_ids[-2:] == [1, 1] != ours("a </s>").input_ids[-2:]


def test_letters_that_the_model_does_not_know_are_counted(folder, tmp_path, capfd):
    text = "Water.\nMilk\nno {\n\n~ \u0151 {\nWater.\n"
    (tmp_path / "in.txt").write_text(text, encoding="utf-8")
    flags = ["--model_name_or_path", folder, "--input_file", tmp_path / "in.txt"]
    for output in ([], ["--output_file", tmp_path / "out.txt"]):
        _, _, err = run(capfd, *flags, "--max_new_tokens", "200", *output)
        (warning,) = [line for line in err.splitlines() if "letters" in line]
        expected = (
            f"warning: 2 of 5 texts hold letters that get lost (mT5 has most): '{PROMPT}no {{'"
        )
        assert warning == expected
    (tmp_path / "in.txt").write_text("Water.\n")
    assert "letters" not in run(capfd, *flags)[2]


def test_letters_that_get_lost_are_counted_before_training(folder, tmp_path, capfd):
    pairs = [("Water {.", "Wasser {eins} Wasser Schnee"), ("Snow.", "~ Wasser Wasser Wasser")]
    flags = ["--model_name_or_path", folder, "--do_train", "--max_steps", "1", "--bf16", "false"]
    flags += ["--train_file", write_pairs(tmp_path / "pairs.tsv", pairs)]
    status, out, err = run(capfd, *flags, "--output_dir", tmp_path / "out")
    assert status == 0, err
    before, _, _ = err.partition("of 2 targets")
    assert "warning: 1 of 2 sources hold letters that get lost (mT5 has most):" in before
    assert (
        "warning: 2 of 2 targets hold letters that get lost (mT5 has most): 'Wasser {eins}" in err
    )


def test_bleu_is_against_the_raw_texts(model, tokenizer, capfd):
    """The tokenizer loses braces: a translation without them is not the reference."""
    references = ["Das {Haus} ist  wunderbar, sagte er."] * 2
    found = ["Das Haus ist wunderbar, sagte er."] * 2
    pairs = {"validation": [("a", reference) for reference in references], "train": []}
    scores = t5.evaluate(pairs, lambda texts: found)
    expected = sacrebleu.corpus_bleu(found, [references]).score
    assert scores["eval_bleu"] == pytest.approx(expected) and 0 < expected < 100
    assert f"  a -> {found[0]}\n" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["right.txt", "in.txt"])
def test_missing_files_are_named_before_translating(name, folder, tmp_path, capfd, monkeypatch):
    for file in {"right.txt", "in.txt"} - {name}:
        (tmp_path / file).write_text("Water.\n")
    flags = ["--model_name_or_path", folder, "--input_file", tmp_path / "in.txt"]
    flags += ["--output_file", tmp_path / "out.txt", "--reference_file", tmp_path / "right.txt"]
    monkeypatch.setattr(t5, "translate", lambda *_, **__: 1 / 0)
    with pytest.raises(FileNotFoundError, match=name):
        run(capfd, *flags)


def test_closed_standard_input(folder, capfd, monkeypatch):
    """`<&-`: Python has no `sys.stdin` then."""
    monkeypatch.setattr(sys, "stdin", None)
    status, out, _ = run(capfd, "--model_name_or_path", folder)
    assert status == 0 and f"Source: {t5.SAMPLE_TEXTS[0]}\n" in out


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
def test_bleu_counts_what_the_text_is_made_of(tokenizer, capfd):
    right = UNLIKE_ENGLISH[tokenizer]
    found = [text.replace(text[2], "x") for text in right]
    expected = sacrebleu.corpus_bleu(found, [right], tokenize=tokenizer).score
    assert t5.score(found, right)["bleu"] == pytest.approx(expected) and expected > 0
    t5.score_and_sign(found, right)
    assert f"|tok:{tokenizer}|" in capfd.readouterr().out
    t5.score_and_sign(["He sleeps."], ["She sleeps."])  # nothing is left of the texts before
    assert "|tok:13a|" in capfd.readouterr().out


def test_japanese_is_counted_in_words_where_mecab_is(monkeypatch):
    asked, texts = [], ["明日は海辺を散歩します。", "猫は古いソファで寝ている。"]
    monkeypatch.setattr(t5, "BLEU", lambda lowercase, tokenize: asked.append(tokenize))
    for installed in (False, True):
        monkeypatch.setattr(t5, "find_spec", lambda name, here=installed: here)
        t5.choose_metrics(texts)
    t5.choose_metrics(["Haus", "Garten", "Regen"])
    assert asked == ["char", "ja-mecab", "char"]


def test_what_training_cuts_is_counted_before_it(tokenizer, tmp_path, capfd, monkeypatch):
    long = "rain " * 600
    rows = [("a dog", "ein Hund"), (long, "viel Regen"), (long, long), ("snow", "Schnee " * 511)]
    file = write_pairs(tmp_path / "pairs.tsv", [(s.strip(), t.strip()) for s, t in rows])
    monkeypatch.setattr(t5, "train", lambda trainer: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(capfd, "--smoke", "--train_file", file, "--output_dir", tmp_path / "out")
    error = capfd.readouterr().err
    assert error.count("warning: 2 of 4 sources have more than 512 tokens:") == 1
    assert error.count("1 of 4 targets have more than 512") == 1  # 511 words and </s> are not


@pytest.mark.parametrize("name", ["config", "generation_config"])
def test_greedy_starts_ends_and_pads_as_the_model_says(name, folder, tokenizer):
    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer([PROMPT + "Water.", PROMPT + TEXTS[6]], return_tensors="pt", padding=True)
    search = {"do_sample": False, "num_beams": 1, "max_new_tokens": 30, "use_cache": True}
    for start in range(3, 60):  # one from which there are several words
        model.generation_config.decoder_start_token_id = start
        whole = model.generate(**inputs, **search)
        if whole[0, 3] > 2:
            break
    ends = [1, whole[0, 3].item()]
    assert ends[1] > 2  # it would go on
    ids = {"decoder_start_token_id": start, "eos_token_id": ends, "pad_token_id": 2}
    for key, value in ids.items():
        setattr(model.config, key, value)
        setattr(model.generation_config, key, value)
    if name == "config":  # a checkpoint without a generation_config.json
        model.generation_config = type(model.generation_config).from_model_config(model.config)
    expected = model.generate(**inputs, **search)
    found = model.generate(**inputs, **search, custom_generate=t5.greedy)
    assert torch.equal(found[:, 1 : expected.shape[1]], expected[:, 1:])
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
    assert b"Translating standard input\n" in done.stderr


@pytest.mark.slow
def test_an_open_pipe_that_sends_nothing_is_named(folder):
    program = [sys.executable, SCRIPTS["t5_translator"], "--model_name_or_path", folder]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*map(str, program)], **pipes) as process:
        lines = [process.stderr.readline(), process.stderr.readline()]  # nothing was sent yet
        assert lines[1] == b"Translating standard input\n" and process.poll() is None
        assert process.communicate(b"Water.\n", timeout=60)[0].count(b"\n") == 1


def test_encodings_of_every_file(folder, tmp_path, capfd):
    texts = {"in": "Wär „gut“ 5 €\n", "ref": "größer\n", "p": "Öl\tœuf €\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_bytes(text.encode("cp1252"))
    files = {"input": "in", "output": "out", "reference": "ref"}
    flags = [f"--{flag}_file={tmp_path / name}.txt" for flag, name in files.items()]
    model = ["--model_name_or_path", folder, "--output_dir", tmp_path / "out"]
    status, _, err = run(capfd, *model, *flags)
    assert status == 2 and "is not utf-8-sig text: give --encoding cp1252" in err
    status, _, err = run(capfd, *model, *flags, "--encoding", "cp1252", "--max_new_tokens", "5")
    assert status == 0, err
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(t5, "translate", lambda texts, *_, **__: seen.extend(texts) or list(texts))
        run(capfd, *model, "--input_file", tmp_path / "in.txt", "--encoding", "cp1252")
    assert seen == ["Wär „gut“ 5 €"]
    path = str(tmp_path / "p.txt")
    args = t5.ScriptArguments(train_file=path, validation_file=path, encoding="cp1252")
    found = t5.load_pairs(args)
    assert found == {"train": [("Öl", "œuf €")], "validation": [("Öl", "œuf €")]}
    (tmp_path / "p.txt").write_bytes("Öl\tœuf\r\n".encode("utf-16"))
    assert t5.read_pairs(str(tmp_path / "p.txt")) == [("Öl", "œuf")]
    status, _, err = run(capfd, *model, "--input_file", "-", "--encoding", "klingon")
    assert status == 2 and "unknown encoding: klingon" in err
    (tmp_path / "memory.tmx").write_text('<?xml version="1.0"?><tmx/>')
    with pytest.raises(t5.InputError, match="memory.tmx is no plain text: export it as text"):
        t5.read_pairs(str(tmp_path / "memory.tmx"))


RAIN = [("It rains, again.", 'Es "regnet"; wieder.'), ("Two\nlines", "Zwei Zeilen")]
TABLES = {
    "commas.csv": 'en,de\n"It rains, again.","Es ""regnet""; wieder."\n"Two\nlines",Zwei Zeilen\n',
    "semi.csv": 'Englisch;Deutsch\nIt rains, again.;"Es ""regnet""; wieder."\n"Two\nlines";Zwei Zeilen',
    "tabs.csv": 'en\tde\tlicence\nIt rains, again.\t"Es ""regnet""; wieder."\t1\n"Two\nlines"\tZwei Zeilen\t2\n',
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
    assert ("'] is taken for a header" in error.replace(",", "")) == name.endswith(".csv")
    assert f"{name}: 2 pairs, the first: {expected[0]}\n" in error


def test_header_of_tsv_stays_and_is_seen(tmp_path, capfd):
    file = write_pairs(tmp_path / "pairs.tsv", [("Source", "Target (German)"), ("a", "b")])
    assert len(t5.read_pairs(str(file))) == 2
    assert "2 pairs, the first: ('Source', 'Target (German)')\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n"c" d,e\nf,g\n', "row 2: ',' expected after"),
        ('a;b\nc;d\ne;"f\n', "row 3: unexpected end"),
        ("a;b\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_what_csv_lacks_is_named(text, message, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(t5.InputError, match=f"a.csv[,:] {message}"):
        t5.read_pairs(str(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("a.tsv", "a\tb\nc\nd\t \n\te\nf\tg\th\n", "row 2, 3, 4, 5: 4 of 5 rows"),
        ("a.csv", 'a;b\n"c\nd";e\n;f\ng\n', "row 3, 4: 2 of 4 rows"),
        ("a.jsonl", '{"a": "b", "c": "d"}\n[1]\n{"a": 1, "c": "d"}\n{', "row 2, 3, 4: 3 of 4"),
        ("a.tsv", "a\n" * 9, "row 1, 2, 3, 4, 5: 9 of 9 rows"),
    ],
)
def test_all_faults_of_a_table_are_in_one_message(name, text, places, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(t5.InputError, match=f"a.[a-z]+, {places}"):
        t5.read_pairs(str(tmp_path / name))


def test_an_empty_file_of_references_is_no_score(folder, tmp_path, capfd):
    (tmp_path / "right.txt").write_text("")
    flags = ("--model_name_or_path", folder, "--text", "Water.", "--max_new_tokens", "3")
    flags += ("--output_file", tmp_path / "o.txt", "--reference_file", tmp_path / "right.txt")
    status, _, err = run(capfd, *flags)
    assert status == 2 and "0 references for 1 translations" in err


def test_a_model_without_a_prompt_goes_on_without_one():
    flags = ["--do_train", "--source_prefix", "", "--no_repeat_ngram_size", "0"]
    args, options, _ = t5.parse_arguments(flags)
    found = shlex.split(t5.next_command(args, options))
    assert "--source_prefix=" in found and "--no_repeat_ngram_size=0" not in found


def test_an_output_file_without_texts_is_refused_before_a_training(capfd, tmp_path):
    flags = ("--smoke", "--output_dir", tmp_path / "out", "--output_file", tmp_path / "o.txt")
    status, _, err = run(capfd, *flags)
    assert status == 2 and "--output_file needs --text or --input_file" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("false", [["--smoke", "false"], ["--smoke=False"]])
def test_a_smoke_that_is_switched_off_is_none(false):
    args, _, training_args = t5.parse_arguments([*false, "--text", "a"])
    assert not args.smoke and not training_args.do_train and training_args.max_steps < 0
    args, _, training_args = t5.parse_arguments(["--smoke=true", "--text", "a"])
    assert args.smoke and training_args.do_train and not training_args.bf16


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
    assert {"--target_lang=Swiss German", "--num_beams=2"} < set(following)
    Path("texts.txt").write_bytes("Öl\n".encode("cp1252"))
    status, out, err = run(capfd, *following)
    assert status == 0 and out.count("\n") == 1, err
