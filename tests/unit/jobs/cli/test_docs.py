"""Commands that pages, samples and messages show are commands, with arguments and options that they take."""

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs.cli.app import app

_ROOT = Path(__file__).parents[4]
_PAGES = ("README.md", "docs/**/*.md", "helm/**/*.md")
_OTHERS = (
    "Makefile", "docs/studies/*.yaml", "k8s/**/*.yaml", "helm/**/*.yaml", "helm/**/*.txt",
    *(f"{package}/**/*.py" for package in ("applications", "bench", "data_io", "jobs", "ray_app", "tools")),
)  # fmt: skip
_USAGE = "docs/reference/command-line.md"
"""Its blocks are usage lines, as in `f2llm list [OPTIONS]`; it is generated from the command line itself."""

_BLOCK = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PROMPT = r"(?:^|[|;&] |# (?:or: )?)(?:\$ )?(?:[A-Z_0-9]+=\S+ )*"
_COMMAND = re.compile(rf"{_PROMPT}f2llm ((?:.*\\\n)*.*)", re.MULTILINE)
_COMMENT = re.compile(r"^# +f2llm (.*)", re.MULTILINE)
_MENTION = re.compile(r"`f2llm\s([^`]{1,200})`|[Ee]xample: f2llm ([^\n\"]+)|\"f2llm ([^\n\"]+)\"")
_NEXT_COMMENT_LINE = re.compile(r"\n *# *")
_END_OF_A_COMMAND = ("|", "\\|", ">", "&&", ";")
_PLACEHOLDERS = ("...", "COMMAND")


def commands_of(page: str) -> Iterator[list[str]]:
    """Arguments of every `f2llm` in a page's blocks of code, without comments and what they are piped into."""
    for block in _BLOCK.findall(page):
        for line in _COMMAND.findall(block):
            yield _words(line.replace("\\\n", " "))


def mentions_of(text: str) -> Iterator[list[str]]:
    """Arguments of every `f2llm` in the prose of a page, and in comments and messages of a program."""
    for line in _COMMENT.findall(text):
        yield _words(line)
    for found in _MENTION.findall(text):
        yield _words(_NEXT_COMMENT_LINE.sub(" ", "".join(found)))


def parse(arguments: Sequence[str]) -> None:
    """What typer does before it calls a command. Raises its usage errors."""
    command, rest = _resolve(arguments)
    command.make_context("f2llm", list(rest))


def check_names(arguments: Sequence[str]) -> None:
    """Raises ValueError for an unknown command or option. Arguments may be left out, as prose does."""
    command, rest = _resolve(arguments)
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}
    given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word, re.IGNORECASE)}
    if unknown := given - known:
        raise ValueError(f"f2llm {' '.join(arguments)}: no such option: {', '.join(sorted(unknown))}")


def _resolve(arguments: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """The command that the first words name, and the words after them."""
    command = _root()
    for i, word in enumerate(arguments):
        if not hasattr(command, "commands") or word.startswith("-") or word in _PLACEHOLDERS:
            return command, arguments[i:]
        if word not in command.commands:
            raise ValueError(f"f2llm {' '.join(arguments)}: no such command: {word}")
        command = command.commands[word]
    return command, []


@cache
def _root() -> Any:
    return typer.main.get_command(app)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quotation mark of the program around it
        words = line.split()
    return list(takewhile(lambda word: word not in _END_OF_A_COMMAND, words))


def _files(patterns: Sequence[str]) -> list[str]:
    return sorted(path.relative_to(_ROOT).as_posix() for pattern in patterns for path in _ROOT.glob(pattern))


@pytest.mark.parametrize("name", [name for name in _files(_PAGES) if name != _USAGE])
def test_the_commands_of_a_page_parse(name: str) -> None:
    for arguments in commands_of((_ROOT / name).read_text(encoding="utf-8")):
        parse(arguments)


@pytest.mark.parametrize("name", _files(_PAGES))
def test_the_prose_of_a_page_names_commands_and_options_that_there_are(name: str) -> None:
    for arguments in mentions_of((_ROOT / name).read_text(encoding="utf-8")):
        check_names(arguments)


def test_comments_and_messages_name_commands_and_options_that_there_are() -> None:
    for name in _files(_OTHERS):
        for arguments in mentions_of((_ROOT / name).read_text(encoding="utf-8")):
            check_names(arguments)


def test_commands_are_found_in_blocks_of_code() -> None:
    page = (
        "```console\n$ f2llm list --json | jq .  # all\ntext\n```\nf2llm no\n```\nf2llm embed \\\n  a b c\n```\n"
        "```\nRAY_ADDRESS=auto f2llm run a.yaml && f2llm status b\nkubectl scale ej/a # or: f2llm scale a 4\n```\n"
    )

    assert list(commands_of(page)) == [
        ["list", "--json"], ["embed", "a", "b", "c"], ["run", "a.yaml"], ["scale", "a", "4"],
    ]  # fmt: skip


def test_commands_are_found_in_prose_comments_and_messages() -> None:
    text = (
        "Use `f2llm data\nstats`.\n# see `f2llm data\n# mine a`\n#   f2llm demo\n"
        '"for example: f2llm run x"\n"f2llm plan x"\n'
    )

    assert list(mentions_of(text)) == [
        ["demo"], ["data", "stats"], ["data", "mine", "a"], ["run", "x"], ["plan", "x"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("embed model in out --no-such", "No such option: --no-such"),
        ("embed model in", "Missing parameter: out"),
        ("data prepare my-data --recipe squad", "no such command: my-data"),
        ("data prepare recipe my-data", "Missing parameter: names"),
        ("validat job.yaml", "no such command: validat"),
        ("run job.yaml --workers two", "should be a valid integer"),
    ],
)
def test_a_command_that_cannot_work_does_not_parse(line: str, says: str) -> None:
    with pytest.raises(Exception, match=re.escape(says)):
        parse(line.split())


@pytest.mark.parametrize("line", ["data prepare --recipe", "run --no-such", "data prepares", "submit -x"])
def test_a_mention_of_what_is_not_there_is_found(line: str) -> None:
    with pytest.raises(ValueError, match="no such"):
        check_names(line.split())
