"""Commands that the documentation shows are commands, with arguments and options that they take."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs.cli.app import app

_ROOT = Path(__file__).parents[4]
_PAGES = sorted(path.relative_to(_ROOT).as_posix() for path in (_ROOT / "README.md", *_ROOT.glob("docs/*.md")))
_BLOCK = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^(?:\$ )?f2llm ((?:.*\\\n)*.*)", re.MULTILINE)
_END_OF_A_COMMAND = ("|", ">", "&&", ";")


def commands_of(page: str) -> Iterator[list[str]]:
    """Arguments of every `f2llm` in a page's blocks of code, without comments and what they are piped into."""
    for block in _BLOCK.findall(page):
        for line in _COMMAND.findall(block):
            words = shlex.split(line.replace("\\\n", " "), comments=True)
            yield list(takewhile(lambda word: word not in _END_OF_A_COMMAND, words))


def parse(arguments: list[str]) -> None:
    """What typer does before it calls a command. Raises its usage errors."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context("f2llm", list(arguments))


@pytest.mark.parametrize("name", _PAGES)
def test_the_commands_of_a_page_parse(name: str) -> None:
    for arguments in commands_of((_ROOT / name).read_text(encoding="utf-8")):
        parse(arguments)


def test_commands_are_found_behind_a_prompt_without_one_and_over_several_lines() -> None:
    page = "```console\n$ f2llm list --json | jq .  # all\ntext\n```\nf2llm no\n```\nf2llm embed \\\n  a b c\n```\n"

    assert list(commands_of(page)) == [["list", "--json"], ["embed", "a", "b", "c"]]


def test_an_option_that_a_command_has_not_does_not_parse() -> None:
    with pytest.raises(Exception, match="No such option: --no-such"):
        parse(["embed", "model", "in", "out", "--no-such"])
