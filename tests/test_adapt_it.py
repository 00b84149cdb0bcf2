"""The diffs under "Adapt it" in the READMEs: each applies, and the changed script passes its smoke run."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import SCRIPTS


def changes_of(name):
    """Old and new text of every diff in the script's part of its folder's README."""
    text = (SCRIPTS[name].parent / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^(?=## \w+\.py:)", text, flags=re.MULTILINE)
    text = next((part for part in parts if part.startswith(f"## {name}.py:")), text)
    for block in re.findall(r"```diff\n(.*?)```", text, re.DOTALL):
        lines = block.splitlines(keepends=True)
        old, new = (
            "".join(line[1:] or "\n" for line in lines if line[0] in marks)
            for marks in (" -\n", " +\n")
        )
        yield old, new


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_diffs_apply_and_the_changed_script_runs(name, tmp_path):
    source, changes = SCRIPTS[name].read_text(encoding="utf-8"), list(changes_of(name))
    assert len(changes) >= 2
    together = source
    for old, new in changes:
        assert source.count(old) == 1, old
        ast.parse(source.replace(old, new))
        assert together.count(old) == 1, old
        together = together.replace(old, new)
    (tmp_path / f"{name}.py").write_text(together, encoding="utf-8")
    command = [sys.executable, f"{name}.py", "--smoke"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
