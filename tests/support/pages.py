"""Pages of the documentation whose commands are run: what they show, what is printed now, and the pages written again.

python -m tests.support.pages [PAGE...]    # of docs/tasks/applications, else all: runs them and writes the output
"""

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.app import call

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs" / "tasks" / "applications"
START = "README"
"""Its commands come before those of every other page."""
PAGES = ("semantic-search", "question-answering", "recommendation", "classification", "clustering")
AFTER = {"recommendation": "semantic-search"}
"""Pages that go on where another has ended."""

_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"\$ (?P<command>(?:.*\\\n)*.*)\n(?P<output>(?:(?!\$ ).*\n)*)")
_FIGURE = re.compile(r"-?\d+\.\d+")


@dataclass(frozen=True)
class Command:
    """A command of a page, and what the page shows of its standard output."""

    command: str
    output: str


def commands(text: str) -> list[Command]:
    """The commands in a page's `console` blocks, in their order."""
    found = (_COMMAND.finditer(block.group()) for block in _BLOCK.finditer(text))
    return [Command(each["command"], each["output"]) for block in found for each in block]


def page_text(page: str) -> str:
    return (FOLDER / f"{page}.md").read_text(encoding="utf-8")


def prepare(folder: Path) -> None:
    """What a page's commands find in their directory: the checkout's docs."""
    (folder / "docs").symlink_to(ROOT / "docs")


def run_page(page: str, folder: Path) -> Iterator[str]:
    """The standard output of each command, run one after the other. A command that fails ends it.

    `f2llm` is called in this process, which so loads torch and the model once; all else is the shell's.
    """
    for each in commands(page_text(page)):
        run = _call if each.command.startswith("f2llm ") else _shell
        code, out, err = run(each.command, folder)
        assert code == 0, f"{page}: {each.command}\n{out}{err}"
        yield out


def _call(command: str, folder: Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        code = call(shlex.split(command)[1:])
    return code, out.getvalue(), err.getvalue()


def _shell(command: str, folder: Path) -> tuple[int, str, str]:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": search}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def differences(shown: str, found: str) -> list[str]:
    """Lines in which two outputs differ. Figures with decimals may differ by one in the last: machines add in different
    orders.
    """
    lines = list(zip_lines(shown.splitlines(), found.splitlines()))
    return [f"page: {page}\nnow:  {now}" for page, now in lines if not _same(page, now)]


def zip_lines(left: Sequence[str], right: Sequence[str]) -> Iterator[tuple[str, str]]:
    for i in range(max(len(left), len(right))):
        yield left[i] if i < len(left) else "(nothing)", right[i] if i < len(right) else "(nothing)"


def _same(page: str, now: str) -> bool:
    if _FIGURE.sub("#", page) != _FIGURE.sub("#", now):
        return False
    return all(_near(a, b) for a, b in zip(_FIGURE.findall(page), _FIGURE.findall(now), strict=True))


def _near(a: str, b: str) -> bool:
    decimals = len(a.partition(".")[2])
    return len(b.partition(".")[2]) == decimals and abs(float(a) - float(b)) < 1.5 * 10**-decimals


def write_page(page: str, folder: Path) -> None:
    """Put into a page what its commands print now."""
    text = page_text(page)
    outputs = run_page(page, folder)
    blocks = _BLOCK.sub(
        lambda block: _COMMAND.sub(lambda each: f"$ {each['command']}\n{next(outputs)}", block.group()), text
    )
    (FOLDER / f"{page}.md").write_text(blocks, encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        prepare(Path(temporary))
        for name in (START, *(sys.argv[1:] or PAGES)):
            write_page(name, Path(temporary))
