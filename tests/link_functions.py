"""Link every function that a README's "How it works" names to its line in the script: python tests/link_functions.py

Run it after functions have moved; a test fails until then.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def linked(readme: Path) -> str:
    """Return the README's text with its links as they should be."""
    parts, script = re.split(r"(?m)^(?=#+ )", readme.read_text(encoding="utf-8")), None
    names = sorted(readme.parent.glob("*.py"))
    for number, part in enumerate(parts):
        named = [
            path for path in names if path.name in part.split("\n")[0]
        ]  # a heading that names its script
        script = named[0] if named else names[0] if len(names) == 1 else script
        if re.match(r"#+ How it works\n", part):
            nodes = ast.parse(script.read_text(encoding="utf-8")).body
            lines = {
                node.name: node.lineno
                for node in nodes
                if isinstance(node, ast.FunctionDef | ast.ClassDef)
            }

            def link(match: re.Match, lines: dict[str, int] = lines, script: Path = script) -> str:
                name = match.group(1)
                return f"[`{name}`]({script.name}#L{lines[name]})" if name in lines else f"`{name}`"

            parts[number] = re.sub(r"\[?`(\w+)`(?:\]\(\w+\.py#L\d+\))?", link, part)
    return "".join(parts)


if __name__ == "__main__":
    for path in sorted(ROOT.glob("*/README.md")):
        path.write_text(linked(path), encoding="utf-8")
