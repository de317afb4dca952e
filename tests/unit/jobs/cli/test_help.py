"""Help texts and messages can be understood without a clone of the repository, in a terminal of 80 columns."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.calling import Run

_ROOT = Path(__file__).parents[4]
_PAGE = re.compile(r"(?<![\w/.])docs/[\w./-]+")


def shown_strings(path: Path) -> list[str]:
    """Every string of a module that a user can see: all but docstrings. Docstrings of commands are help texts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(id(node.value))
    if "cli" in path.parts:
        commands = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
        docstrings -= {id(node.body[0].value) for node in commands if isinstance(node.body[0], ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def test_no_message_or_help_text_names_a_page_that_a_wheel_does_not_have() -> None:
    found = [
        f"{path.relative_to(_ROOT)}: {name.group(0)}"
        for package in ("data_io", "ray_app", "jobs", "applications")
        for path in sorted((_ROOT / package).rglob("*.py"))
        for text in shown_strings(path)
        for name in _PAGE.finditer(text)
    ]

    assert found == []


@pytest.mark.parametrize("group", [(), ("data",), ("data", "prepare"), ("classify",)])
def test_no_description_of_a_command_is_cut_off_in_a_list(
    f2llm: Run, monkeypatch: pytest.MonkeyPatch, group: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    code, out, _ = f2llm(*group, "--help")

    assert code == 0
    assert [line for line in out.splitlines()[1:] if line.endswith("...")] == []
