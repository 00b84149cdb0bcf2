"""The rules that all scripts keep: alone, importable, documented, of one skeleton, and with the same shared lines."""

import ast
import dataclasses
import datetime
import importlib.util
import io
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch.distributed.run
from accelerate.commands.launch import launch_command_parser
from conftest import ROOT, SCRIPTS, header, lacking, load_script, need
from link_functions import linked
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from safetensors.numpy import load_file

FOLDER_READMES = sorted({path.parent / "README.md" for path in SCRIPTS.values()})
READMES = [ROOT / "README.md", *FOLDER_READMES]
SPEC = importlib.util.spec_from_file_location("benchmarks", ROOT / "tests/benchmarks/__main__.py")
benchmarks = importlib.util.module_from_spec(SPEC)
sys.modules["benchmarks"] = benchmarks
SPEC.loader.exec_module(benchmarks)
SHARED = ("train", "faster_dropout", "fast_dropout", "InputError", "parse", "prepare", "report")
SHARED += ("NO_TEXT", "encoding_of", "MODEL_FILES", "HUB_ERRORS", "fetch")
SHARED += ("check_same_model", "whole_files", "choose_metrics", "UNSPACED", "score", "read_pairs")
SHARED += ("csv_rows", "json_rows", "read_lines", "NOT_DECODED")
PACKAGE_OF_IMPORT = {"sklearn": "scikit-learn"}
# What one flag needs: not in the header, so that `uv run` fetches it for those alone who add it.
FOR_ONE_FLAG = {"self_attention": {"safetensors", "tokenizers"}}
PYTHON = {"seq2seq_lstm": ">=3.11,<3.14"}  # until TensorFlow has wheels for 3.14
SAFE_SUFFIXES = {
    ".safetensors",
    ".keras",
    ".json",
    ".txt",
    ".png",
    ".pt",
    ".tsv",
    ".model",
    ".jinja",
    ".svg",
    ".uint32",
}

every_script = pytest.mark.parametrize("name", SCRIPTS)


def tree_of(name: str) -> ast.Module:
    return ast.parse(SCRIPTS[name].read_text(encoding="utf-8"))


def imported_packages(name: str) -> set[str]:
    packages = set()
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            packages.add(node.module.split(".")[0])
    return packages - set(sys.stdlib_module_names)


def fenced_lines(text: str) -> list[str]:
    """All command lines in the fenced blocks of a README."""
    blocks = re.findall(r"```(?:bash|sh|shell)\n(.*?)```", text, re.DOTALL)
    return [
        line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()
    ]


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """Script names and arguments of all lines that start a script, however they do it."""
    found = []
    for line in fenced_lines(text):
        for script, arguments in re.findall(r" (?:[a-z]\w+_\w+/)?(\w+)\.py\b([^|&;<>]*)", line):
            if script in SCRIPTS:
                found.append((script, shlex.split(arguments, comments=True)))
    return found


README_COMMANDS = sorted(
    {(s, tuple(a)) for path in READMES for s, a in commands_of(path.read_text(encoding="utf-8"))}
)


def test_the_six_scripts_are_there():
    expected = {
        "bert_finetune",
        "gpt2_finetune",
        "glue_mrpc",
        "t5_translator",
        "seq2seq_lstm",
        "self_attention",
    }
    assert set(SCRIPTS) == expected


@every_script
def test_dependency_block_covers_exactly_the_imports(name):
    text, metadata = SCRIPTS[name].read_text(encoding="utf-8"), header(name)
    assert metadata["requires-python"] == PYTHON.get(name, ">=3.11")
    declared = {re.match(r"[\w.-]+", line).group() for line in metadata["dependencies"]}
    expected = {PACKAGE_OF_IMPORT.get(package, package) for package in imported_packages(name)}
    if "transformers" in expected and "Trainer(" in text:
        expected.add("accelerate")
    optional = FOR_ONE_FLAG.get(name, set())
    assert optional <= expected and declared == expected - optional
    readme = (SCRIPTS[name].parent / "README.md").read_text(encoding="utf-8")
    for package in optional:
        assert f"--with {package}" in load_script(name).__doc__ and f"--with {package}" in readme
    assert all(">=" in line for line in metadata["dependencies"])


@every_script
def test_no_import_from_this_repository_and_nothing_unsafe(name):
    text = SCRIPTS[name].read_text(encoding="utf-8")
    assert not imported_packages(name) & (
        set(SCRIPTS) | {path.name for path in ROOT.iterdir() if path.is_dir()}
    )
    for forbidden in (
        "pickle",
        "trust_remote_code=True",
        "os.system",
        "shell=True",
        "except Exception",
        "TODO",
    ):
        assert forbidden not in text.replace("a pickle, no part", ""), forbidden


def test_every_copy_says_its_licence_and_its_version():
    holder = re.search(r"Copyright \(c\) (.*)", (ROOT / "LICENSE").read_text())[1]
    found = set()
    for path in SCRIPTS.values():
        text = path.read_text(encoding="utf-8")
        licence = (
            r"# ///\n(# SPDX-License-Identifier: MIT)\n# Copyright (.*)\. Version (.*)\n\"\"\""
        )
        found.add(re.search(licence, text).groups())
    ((_, authors, version),) = found  # the same in all
    assert authors == holder and datetime.date.fromisoformat(version) >= datetime.date(2026, 11, 27)


def test_the_pin_of_tensorflow_and_the_lstms_header_name_the_same_pythons():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (pin,) = [Requirement(line.split(" #")[0]) for line in lines if line.startswith("tensorflow")]
    for python in ("3.11", "3.12", "3.13", "3.14", "3.15"):
        installed = pin.marker is None or pin.marker.evaluate({"python_version": python})
        assert installed == SpecifierSet(PYTHON["seq2seq_lstm"]).contains(python), python


def test_import_has_no_side_effects(tmp_path):
    """In one process, one script after the other: nothing printed, nothing written, no command line read."""
    names = [name for name in SCRIPTS if lacking(name) is None]
    code = ["import os, sys", "sys.argv += ['--nonsense']"]
    for name in names:
        code.append(f"sys.path.insert(0, {str(SCRIPTS[name].parent)!r})")
        code.append(f"import {name}")
        code.append(f"assert os.listdir() == [], {name!r}")
    command = [sys.executable, "-B", "-c", "\n".join(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(names) > 1


@every_script
def test_help_shows_the_commands_line_by_line_and_what_the_flags_are_for(name, capsys):
    script = load_script(name)
    with pytest.raises(SystemExit):
        script.parse_arguments(["--help"])
    text = capsys.readouterr().out
    commands = [line for line in script.__doc__.splitlines() if line.startswith("python ")]
    assert commands and all(f"\n{line}\n" in text for line in commands)
    if name in ("bert_finetune", "gpt2_finetune", "t5_translator"):
        assert "--help all" in text and "--learning_rate" not in text
        with pytest.raises(SystemExit):
            script.parse_arguments(["--help", "all"])
        text = capsys.readouterr().out
        assert "--learning_rate" in text
    assert "42" in text and "--seed" in text  # a default


def marker_line(name: str) -> int:
    """The line that separates the story from the plumbing; it says of what the plumbing knows nothing."""
    lines = SCRIPTS[name].read_text(encoding="utf-8").splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.startswith("# Plumbing")]
    assert re.match(r"# Plumbing: nothing below is about \w+", lines[number - 1])
    return number


@every_script
def test_the_story_comes_first(name):
    """`main` before all other functions, in the first quarter; above the marker nobody reads the command line or exits."""
    functions = [node for node in tree_of(name).body if isinstance(node, ast.FunctionDef)]
    total = len(SCRIPTS[name].read_text(encoding="utf-8").splitlines())
    marker = marker_line(name)
    assert functions[0].name == "main" and functions[0].lineno < total / 4
    assert functions[0].end_lineno - functions[0].lineno < 25, "every line of main is a named step"
    assert sum(node.lineno < marker for node in functions) > 5
    for node in ast.walk(tree_of(name)):
        if getattr(node, "lineno", marker) < marker:
            found = getattr(node, "attr", getattr(node, "id", None))
            assert found not in ("argv", "exit", "SystemExit") or getattr(node, "id", "") == "argv"
            assert found not in ("ArgumentParser", "parse_args", "HfArgumentParser"), node.lineno


@every_script
def test_speed_stands_between_the_story_and_the_plumbing(name):
    lines = SCRIPTS[name].read_text(encoding="utf-8").splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.startswith("# Speed")]
    assert lines[number - 1].startswith("# Speed: the same, faster -----")
    assert number < marker_line(name)


@every_script
def test_user_errors_are_exceptions_above_the_boundary(name):
    tree = tree_of(name)
    boundary = next(node for node in tree.body if isinstance(node, ast.If))
    assert tree.body[-1] is boundary and ast.unparse(boundary.test) == "__name__ == '__main__'"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and node.lineno < boundary.lineno:
            assert getattr(node, "attr", getattr(node, "id", "")) not in ("exit", "SystemExit"), (
                node.lineno
            )
    script = load_script(name)
    assert issubclass(script.InputError, Exception)
    with pytest.raises(script.InputError, match="--nonsense"):
        script.main(["--nonsense"])


@every_script
def test_public_functions_have_docstrings(name):
    for node in tree_of(name).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@every_script
def test_docstring_shows_three_commands_that_parse(name):
    commands = re.findall(
        rf"^python {name}\.py(.*)$", ast.get_docstring(tree_of(name)), re.MULTILINE
    )
    assert len(commands) >= 3 and any("--smoke" in command for command in commands)
    for command in commands:
        load_script(name).parse_arguments(
            shlex.split(command.partition("|")[0].partition(">")[0], comments=True)
        )


def test_shared_functions_are_textually_identical():
    texts = defaultdict(dict)
    for name in SCRIPTS:
        source = SCRIPTS[name].read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            targets = [
                target.id for target in getattr(node, "targets", []) if hasattr(target, "id")
            ]
            for found in {getattr(node, "name", None), *targets} & set(SHARED):
                texts[found][name] = ast.get_source_segment(source, node)
    assert set(texts) == set(SHARED)
    for function, versions in texts.items():
        assert len(versions) > 1 and len(set(versions.values())) == 1, (function, list(versions))


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_resolve(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
        target = "".join(target)
        # The second leads to the pages of the repository itself, wherever it lies.
        if target.startswith(("http", "../../actions/")):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
            ]
            slugs += [
                f"{slug}-{slugs[:index].count(slug)}" for index, slug in enumerate(slugs)
            ]  # the second, third …
            assert anchor in slugs, target
        assert linked.suffix != ".png" or linked.stat().st_size < 150_000, target


@pytest.mark.parametrize("path", FOLDER_READMES, ids=lambda path: path.parent.name)
def test_links_to_functions_stand_at_their_lines(path):
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r"\.py#L\d+", text)) > 5
    assert text == linked(path), "functions have moved: python tests/link_functions.py"


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_figure_in_a_table_names_its_command(path):
    """A measured table stands under a heading, or an introduction in bold, that has the command which made it."""
    text = re.sub(r"```diff\n.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for section in re.split(r"(?m)^#+ |^(?=\*\*[A-Z]\w+\.\*\* )", text):
        rows = re.findall(r"(?m)^\|.*\d.*\|$", re.sub(r"`[^`]*`|\]\([^)]*\)", "", section))
        if not rows or section.startswith(
            ("When it goes wrong", "Options that matter", "Your own data", "How it works")
            + ("What people ask next", "T5's family")
        ):
            continue
        commands = re.findall(
            r"python (?:-m )?(tests[./]benchmarks\S*|\w+/\w+\.py)", section.replace("`", " ")
        )
        assert commands, f"no command for {rows[0]}"
        for command in commands:
            file = ROOT / command.replace("tests.benchmarks", "tests/benchmarks/__main__.py")
            assert file.exists(), command


def test_benchmark_commands_in_readmes_have_flags_that_exist():
    found = set()
    for path in READMES:
        found |= set(
            re.findall(
                r"python (tests/benchmarks/\w+\.py)([^`|\n]*)", path.read_text(encoding="utf-8")
            )
        )
    assert len(found) > 6
    for file, arguments in found:
        known = (ROOT / file).read_text(encoding="utf-8")
        known += (
            SCRIPTS[path.stem].read_text(encoding="utf-8")
            if (path := Path(file)).stem in SCRIPTS
            else ""
        )
        for flag in re.findall(r"--(\w+)", arguments):
            assert re.search(rf"\b{flag}\b", known), (file, flag)


@pytest.mark.slow
def test_one_command_measures_and_writes_table_and_figures(tmp_path, monkeypatch, capsys):
    row = dataclasses.replace(
        next(row for row in benchmarks.ROWS if "self_attention" in row.command),
        command="python tests/benchmarks/self_attention.py --tokens 256 --rounds 5",
    )
    monkeypatch.setattr(benchmarks, "ROWS", [row])
    monkeypatch.setattr(
        sys, "argv", ["", "--only", "self_attention", "--output_dir", str(tmp_path)]
    )
    benchmarks.main()
    results = json.loads((tmp_path / "results.json").read_text())
    figures = results["figures"][row.command]
    assert results["machine"]["cores"] == os.cpu_count() and figures["NumPy"] > 0
    table = (tmp_path / "results.md").read_text()
    assert table in capsys.readouterr().out
    gains = re.search(r"\*\*: ([\d.]+) ×, ([\d.]+) ×", table).groups()
    for gain, other in zip(gains, ("formula", "PyTorch"), strict=True):
        assert float(gain) == pytest.approx(figures[other] / figures["NumPy"], rel=0.01, abs=0.005)


# Enough to run every line of theirs.
SMALL = {
    "bert_finetune": "--rounds 1 --rows 64",
    "gpt2_finetune": "--rounds 1 --steps 2 --block_size 32 --batch_size 1",
    "glue_mrpc": "--rounds 1",
    "t5_translator": "--rounds 1 --sentences 8",
    "seq2seq_lstm": "--rounds 1 --batches 2",
    "self_attention": "--rounds 2 --tokens 256",
}


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.real_model
@pytest.mark.parametrize("command", dict.fromkeys(row.command for row in benchmarks.ROWS))
def test_every_row_of_the_benchmarks_can_be_measured(command, real_data, real_model):
    script = Path(command.split()[1]).stem
    need(script)
    figures = benchmarks.measure(f"{command} {SMALL[script]}")
    for row in benchmarks.ROWS:
        if row.command == command:
            assert {row.usual[1], row.best[1], row.ours} <= set(figures)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("section", ["bert", "t5", "gpt2"])
def test_the_benchmark_for_a_gpu_runs_without_one(section, real_data):
    command = [sys.executable, "tests/benchmarks/gpu.py", "--tiny", "--only", section]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_benchmarks_show_every_rival_and_the_ratio_to_it():
    row = benchmarks.Row("sort", "s", "python x.py", ("slow", "a"), ("good", "b"), "c")
    assert row.line({"a": 6, "b": 1.5, "c": 3}) == (
        "| sort, s | 6: slow | 1.5: good | **3**: 2.00 ×, 0.50 × | `python x.py` |"
    )
    row = dataclasses.replace(row, unit="rows/s")
    assert "**3**: 0.50 ×, 2.00 × |" in row.line({"a": 6, "b": 1.5, "c": 3})
    assert "| not measured | **3**: 0.50 × |" in row.line({"a": 6, "c": 3})


def test_root_readme_shows_the_results_of_the_benchmarks():
    results, readme = (
        ROOT / "tests" / "benchmarks" / "results.json",
        (ROOT / "README.md").read_text(encoding="utf-8"),
    )
    tables = (results.with_suffix(".md")).read_text(encoding="utf-8").splitlines()
    rows = [line for line in tables if "python tests/benchmarks/" in line]
    assert len(rows) == 8 and all(line in readme for line in rows)
    measured = json.loads(results.read_text(encoding="utf-8"))
    assert measured["machine"]["date"] in readme
    for name, seconds in measured["smoke"].items():
        shown = f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
        assert re.search(rf"(?m)^\|.*{name}\.py --smoke` \| {re.escape(shown)} \|", readme), (
            name,
            shown,
        )


@pytest.mark.parametrize(
    ("name", "arguments"), [c for c in README_COMMANDS if "--smoke" not in c[1]]
)
def test_readme_commands_parse(name, arguments):
    load_script(name).parse_arguments(list(arguments))


def test_the_rest_of_the_fenced_lines_is_right_too():
    parsers = {
        "torchrun": torch.distributed.run.get_args_parser(),
        "accelerate": launch_command_parser(),
    }
    for path in READMES:
        for line in fenced_lines(path.read_text(encoding="utf-8")):
            words = shlex.split(line, comments=True)
            if words[0] in parsers:
                parsers[words[0]].parse_args(words[2 if words[0] == "accelerate" else 1 :])
            elif words[:2] == ["python", "-c"]:
                ast.parse(words[2])
            elif words[:2] == ["pip", "install"] or words[0] in ("python3", "."):
                assert all(
                    (ROOT / word).exists() for word in words if word.endswith((".txt", ".py"))
                )
            elif words[0] == "python" and words[1].startswith("tests/"):
                assert (ROOT / words[1]).exists()
            else:
                assert commands_of(f"```bash\n{line}\n```"), (
                    f"{path}: neither run nor parsed: {line}"
                )


# `--smoke` alone is run by a test of each script's file.
SMOKE_COMMANDS = [c for c in README_COMMANDS if "--smoke" in c[1] and len(c[1]) > 1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), SMOKE_COMMANDS)
def test_readme_smoke_commands_run(name, arguments, run_alone):
    done = run_alone(name, *arguments, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr


SHORT_RUNS = {
    "bert_finetune": ["--smoke", "--num_train_epochs", "3"],
    "gpt2_finetune": ["--smoke", "--max_steps", "60", "--cache_dir", "cache"],
    "glue_mrpc": ["--smoke"],
    "seq2seq_lstm": ["--smoke", "--attention", "--num_train_epochs", "2"],
    "t5_translator": ["--smoke", "--max_steps", "30"],
    "self_attention": ["--plot", "attention.svg"],
}


def values(path):
    """What a file holds, without times and dates."""
    if path.suffix == ".safetensors":
        return {name: tensor.tobytes() for name, tensor in load_file(path).items()}
    if path.suffix == ".keras":
        import h5py  # comes with Keras

        with (
            zipfile.ZipFile(path) as archive,
            h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
        ):
            items = []
            file.visititems(lambda name, item: items.append((name, item)))
            return {
                name: np.array(item).tobytes()
                for name, item in items
                if isinstance(item, h5py.Dataset)
            }
    if path.suffix == ".json":
        return re.sub(r'"\w*(runtime|per_second)": [^,\n]+', "", path.read_text(encoding="utf-8"))
    return path.read_bytes() if path.suffix in (".pt", ".tsv", ".txt") else None


@pytest.mark.slow
@every_script
def test_same_command_leaves_the_same_safe_files(name, tmp_path):
    need(name)
    processes, runs = [], []
    for number in ("1", "2"):  # side by side: a tiny model takes one core
        folder = tmp_path / number
        folder.mkdir()
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": number}
        command = [sys.executable, str(SCRIPTS[name]), *SHORT_RUNS[name]]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
        processes.append((folder, process))
    for folder, process in processes:
        stdout, stderr = process.communicate(timeout=180)
        assert process.returncode == 0, stderr
        output = stdout if name == "self_attention" else ""  # the others print times
        _, program, *following = shlex.split(stdout.rsplit("Next:\n", 1)[1])
        if name != "glue_mrpc":  # its next command is Python code, which its own test runs
            assert program == str(SCRIPTS[name])
            load_script(name).parse_arguments(following)
        for path in filter(Path.is_file, folder.rglob("*")):
            assert path.suffix in SAFE_SUFFIXES and path.name != "training_args.bin", path
            assert path.suffix == ".safetensors" or path.read_bytes()[:1] != b"\x80", (
                f"{path} is a pickle"
            )
        files = {
            path.relative_to(folder): values(path) for path in folder.rglob("*") if path.is_file()
        }
        runs.append((output, files))
    assert runs[0] == runs[1]
    assert any(runs[0][1].values()) or name == "self_attention"


RUSSIAN, GERMAN = "Кошка спит на крыше", "Die Katze schläft auf dem Dach"
FOREIGN = {  # a file, what it holds, and flags
    "bert_finetune": ("a.csv", f"text,label\n{RUSSIAN},да\nx {GERMAN},нет\n", "--validation_file"),
    "gpt2_finetune": ("a.txt", f"{RUSSIAN}. " * 300, "--prompt Кошка --train_file"),
    "t5_translator": ("a.tsv", f"{GERMAN}\t{RUSSIAN}\n" * 20, "--do_train --validation_file"),
    "seq2seq_lstm": (
        "a.tsv",
        f"{RUSSIAN}\t{GERMAN}\nx\ty\n" * 20,
        "--validation_file",
    ),
    "glue_mrpc": (
        "train.tsv",
        f"Quality\t#1 String\t#2 String\n1\t{RUSSIAN}\t{RUSSIAN}!\n",
        "--data_dir",
    ),
    "self_attention": ("a", "", f"--text {RUSSIAN.replace(' ', '_')} --plot"),
}


@every_script
def test_a_screen_that_lacks_letters_does_not_end_a_run(
    name, run_as_main, tmp_path, monkeypatch, capsys
):
    """As on a Windows console: what cannot be shown is replaced, and every result is written."""
    file, text, flags = FOREIGN[name]
    (tmp_path / file).write_text(text, encoding="utf-8")
    paths = {"--data_dir": tmp_path, "--plot": tmp_path / "a.png"}
    words = flags.split()
    words.append(str(paths.get(words[-1], tmp_path / file)))
    if "--validation_file" in words:
        words += ["--train_file", str(tmp_path / file)]
    screen = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    monkeypatch.chdir(tmp_path)
    steps = (
        ["--max_steps", "20"] if name in ("bert_finetune", "gpt2_finetune", "t5_translator") else []
    )
    steps += ["--num_train_epochs", "1"] if name == "seq2seq_lstm" else []
    assert run_as_main(name, "--smoke", *words, *steps) == 0
    screen.flush()
    shown = screen.buffer.getvalue().decode("cp1252")
    assert "????" in shown and "Next:" in shown
    results = tmp_path / (
        "a.png" if name == "self_attention" else f"outputs/{name}/all_results.json"
    )
    assert results.exists()


def test_a_reader_who_leaves_early_is_said_in_one_line(tmp_path):
    command = [sys.executable, str(SCRIPTS["self_attention"]), "--text", *["a b c d e f"] * 2000]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, **pipes)
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(60) == 2
    assert error.startswith("error: ") and error.count("\n") == 1, error


def test_every_script_has_smoke_commands_in_its_readme_and_in_the_root():
    for name, path in SCRIPTS.items():
        for readme in (ROOT / "README.md", path.parent / "README.md"):
            commands = commands_of(readme.read_text(encoding="utf-8"))
            assert any(
                script == name and "--smoke" in arguments for script, arguments in commands
            ), (name, readme)


def test_nothing_of_one_machine_in_the_texts():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    for path in tracked:
        if path.endswith((".md", ".py", ".toml", ".txt", ".yml", "run")):
            assert not re.search(
                r"(?<![\w.~])/(work|root|home|opt|farm)/", (ROOT / path).read_text(encoding="utf-8")
            )


@pytest.mark.parametrize("name", ["bert_finetune", "gpt2_finetune", "t5_translator"])
def test_asking_for_evaluations_without_rows_for_them_trains_without(name, tmp_path):
    script, file = load_script(name), tmp_path / "train.tsv"
    flags = ["--smoke", "--train_file", str(file), "--max_steps", "2"]
    flags += ["--eval_strategy", "epoch", "--save_strategy", "epoch"]
    if name == "bert_finetune":
        file.write_text("text\tlabel\ngood\t1\nbad\t0\n")
    else:
        file.write_text(
            "".join("\t".join(pair) + "\n" for pair in load_script("t5_translator").SAMPLE_PAIRS)
        )
    if name == "gpt2_finetune":
        flags += ["--validation_split_percentage", "0", "--cache_dir", str(tmp_path)]
    script.main([*flags, "--output_dir", str(tmp_path / "out")])
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert "train_loss" in metrics and "eval_loss" not in metrics


def test_a_later_evaluation_keeps_the_metrics_of_the_training(tmp_path):
    out, main = str(tmp_path / "out"), load_script("seq2seq_lstm").main
    main(["--smoke", "--num_train_epochs", "1", "--output_dir", out])
    main(["--do_eval", "--model_name_or_path", out, "--output_dir", out])
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert {"train_loss", "test_bleu"} <= set(metrics)


FAULTS = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import torch, bert_finetune
if sys.argv[2] == "keep":
    bert_finetune.prepare(bert_finetune.parse_arguments(["--smoke"])[1], "")
faults = []
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(100 * 2**20, dtype=torch.uint8)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults)[4])  # the median: a small allocation in between may make the heap grow once
"""


@every_script
def test_training_in_torch_keeps_freed_memory(name):
    assert ("mallopt" in SCRIPTS[name].read_text(encoding="utf-8")) == (
        name in ("bert_finetune", "gpt2_finetune", "t5_translator")
    )


@pytest.mark.slow
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly"
)
def test_freed_memory_is_kept_for_the_next_tensor():
    faults = {}
    for way in ("keep", "usual"):
        command = [sys.executable, "-c", FAULTS, str(SCRIPTS["bert_finetune"].parent), way]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        faults[way] = int(done.stdout)
    assert faults["keep"] < 100 < faults["usual"]
