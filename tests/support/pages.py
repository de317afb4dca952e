"""The snippets of README and docs: run in page order, compared with the output that a page shows, written again.

    python -m tests.support.pages --table          # which snippets run, and why others do not
    python -m tests.support.pages PAGE...          # run these pages and compare
    python -m tests.support.pages --write PAGE...  # run them and write the output that was printed into the page

- `console`: lines that begin with `$ ` are commands, the lines below are what they print. A line `...` stands for any
  lines. A command may fail if the page shows its error.
- `python`: run in the same directory; the blocks of a page share their names.
- `yaml`: written to a file first if the first line is `# NAME.yaml`; job specs, studies and parts of a job spec are
  validated.
- On the line before a block, `<!-- not run: REASON -->` or `<!-- run by: tests/FILE.py -->`.
- Anywhere, `<!-- before: COMMAND -->` for a command that the page does not show, and `<!-- after: PAGE.md -->` for a
  page whose commands come first.
"""

import argparse
import io
import json
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
from typing import Any

import yaml

from jobs.cli.app import call

ROOT = Path(__file__).parent.parent.parent
REASONS = ("GPU", "cloud", "hub", "cluster", "root", "container", "browser", "minutes")
"""A reason for not running a block begins with one. `minutes`: it takes minutes; another test runs the same."""
GENERATED = ("docs/reference/command-line.md",)
"""Its blocks are usage lines, written from the command line itself."""
_IN_PROCESS = (
    "data",
    "validate",
    "plan",
    "explain",
    "index",
    "search",
    "classify",
    "cluster",
    "status",
    "schema",
    "report",
    "runs",
)
"""Commands of f2llm that are called in this process, which so loads torch once."""
_LANGUAGES = ("console", "python", "yaml", "json", "text", "mermaid", "")
_SECONDS = 600

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.DOTALL | re.MULTILINE
)
_MARK = re.compile(r"<!-- (?P<kind>not run|run by|before|after): (?P<value>.*?) -->")
_COMMAND = re.compile(r"\$ (?P<command>(?:.*\\\n)*.*)\n(?P<output>(?:(?!\$ ).*\n)*)")
_LOOKS_LIKE_A_COMMAND = re.compile(
    r"^(?:\$ |f2llm |kubectl |helm |make |pip |git |python |curl |docker |export )", re.MULTILINE
)
_FIGURE = re.compile(r"-?\d+\.\d+")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, or a hidden command (language `before`)."""

    language: str
    text: str
    line: int
    start: int
    end: int
    not_run: str = ""
    run_by: str = ""

    @property
    def runs(self) -> bool:
        """Whether a test of pages runs it."""
        return self.language in ("console", "python", "before") and not self.not_run and not self.run_by


@dataclass(frozen=True)
class Command:
    """A command of a page, and the output that the page shows."""

    command: str
    output: str


def pages() -> list[str]:
    """The pages with snippets, as paths from the repository's root."""
    found = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("helm/*/README.md"),
    ]
    names = sorted(path.relative_to(ROOT).as_posix() for path in found)
    return [name for name in names if name not in GENERATED]


def page_text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """The blocks and hidden commands of a page, in their order."""
    found = []
    fences = list(_FENCE.finditer(text))
    for fence in fences:
        before = text[: fence.start()].rstrip().rpartition("\n")[2].strip()
        mark = _MARK.fullmatch(before)
        marks = {mark["kind"]: mark["value"]} if mark else {}
        indent = len(fence["indent"])
        content = "".join(line[indent:] if line.strip() else line for line in fence["text"].splitlines(keepends=True))
        found.append(
            Block(
                fence["language"], content, text.count("\n", 0, fence.start()) + 1,
                fence.start("text"), fence.end("text"),
                not_run=marks.get("not run", ""), run_by=marks.get("run by", ""),
            )
        )  # fmt: skip
    for mark in _MARK.finditer(text):
        if mark["kind"] == "before" and not any(f.start() < mark.start() < f.end() for f in fences):
            line = text.count("\n", 0, mark.start()) + 1
            found.append(Block("before", mark["value"], line, mark.start(), mark.end()))
    return sorted(found, key=lambda block: block.start)


def comes_after(text: str) -> list[str]:
    """Names of the pages whose commands have to be run before this one's."""
    return [mark["value"] for mark in _MARK.finditer(text) if mark["kind"] == "after"]


def commands(text: str) -> list[Command]:
    """The commands of a console block."""
    return [Command(found["command"], found["output"]) for found in _COMMAND.finditer(text)]


def problems(page: str) -> Iterator[str]:
    """Blocks of a page that are neither run nor marked, marks that say nothing, YAML and JSON that cannot be read."""
    for block in blocks(page_text(page)):
        place = f"{page}:{block.line}"
        if block.language not in (*_LANGUAGES, "before"):
            yield f"{place}: a block of `{block.language}`; use one of {', '.join(filter(None, _LANGUAGES))}"
        if block.not_run and not block.not_run.startswith(REASONS):
            yield f"{place}: not run for {block.not_run!r}; begin with one of {', '.join(REASONS)}"
        if block.run_by and not (ROOT / block.run_by.partition("::")[0]).is_file():
            yield f"{place}: run by {block.run_by}, which is not there"
        marked = block.not_run or block.run_by
        if block.language in ("", "text") and not marked and _LOOKS_LIKE_A_COMMAND.search(block.text):
            yield f"{place}: commands in a block of text; use `console` with `$ `"
        if block.language == "console" and not commands(block.text):
            yield f"{place}: a console block without a line that begins with `$ `"
        if "TODO-OUTPUT" in block.text:
            yield f"{place}: the output is missing"
        try:
            if block.language == "yaml":
                check_yaml(block.text)
            elif block.language == "json" and "..." not in block.text:
                json.loads(block.text)
        except Exception as error:
            yield f"{place}: {type(error).__name__}: {error}"


def check_yaml(text: str) -> None:
    """Raises if the text is not YAML, or a job spec, a study or a part of a job spec that is not valid."""
    from jobs.spec.job import SPEC_FIELDS, parse_job_spec
    from jobs.spec.yaml12 import RawSpec
    from tests.support.job_specs import job_spec

    top = {name.split(".")[1] for name in SPEC_FIELDS if name.startswith("spec.")}
    for value in yaml.safe_load_all(text):
        if not isinstance(value, dict) or "..." in text:
            continue
        if value.get("kind") == "EmbeddingJob":
            parse_job_spec(RawSpec("page", value))
        elif "kind" in value:
            continue
        elif set(value) == {"spec"} and set(value["spec"]) <= top:
            parse_job_spec(RawSpec("page", job_spec(value["spec"])))
        elif set(value) <= top:
            parse_job_spec(RawSpec("page", job_spec(value)))


def run_page(page: str, folder: Path, *, done: set[str] | None = None) -> Iterator[tuple[Command, str, str]]:
    """Each command of a page with its standard output, and that with standard error, in which lines are in order.

    A command that fails without an error on the page raises AssertionError.
    """
    done = set() if done is None else done
    if page in done:
        return
    done.add(page)
    text = page_text(page)
    for name in comes_after(text):
        yield from run_page(f"{Path(page).parent.as_posix()}/{name}", folder, done=done)
    names: dict[str, Any] = {}
    for block in blocks(text):
        if block.language == "yaml" and (file := re.match(r"# ([\w.-]+\.yaml)\s", block.text)):
            (folder / file[1]).write_text(block.text, encoding="utf-8")
        if not block.runs:
            continue
        if block.language == "before":
            _run(Command(block.text, ""), folder, f"{page}:{block.line}")
        elif block.language == "python":
            with chdir(folder), redirect_stdout(io.StringIO()):
                exec(compile(block.text, f"{page}:{block.line}", "exec"), names)
        else:
            for command in commands(block.text):
                yield command, *_run(command, folder, f"{page}:{block.line}")


def _run(command: Command, folder: Path, place: str) -> tuple[str, str]:
    words = command.command.split()
    simple = not re.search(r"[|&;<>]|\$\(", command.command)
    in_process = simple and words[0] == "f2llm" and words[1] in _IN_PROCESS
    code, out, both = (_call if in_process else _shell)(command.command, folder)
    may_fail = re.search(r"^error: ", command.output, re.MULTILINE)
    assert code == 0 or may_fail, f"{place}: {command.command}: exit code {code}\n{both}"
    return out, both


class _Both(io.StringIO):
    """Keeps what is written, and passes it on to a stream that keeps two of them in order."""

    def __init__(self, both: io.StringIO) -> None:
        super().__init__()
        self._both = both

    def write(self, text: str) -> int:
        self._both.write(text)
        return super().write(text)


def _call(command: str, folder: Path) -> tuple[int, str, str]:
    both = io.StringIO()
    out, err = _Both(both), _Both(both)
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        code = call(shlex.split(command, comments=True)[1:])
    return code, out.getvalue(), both.getvalue()


def _shell(command: str, folder: Path) -> tuple[int, str, str]:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    out, both = folder / ".out", folder / ".both"
    with out.open("wb") as stdout, both.open("wb") as merged:
        # Standard output goes to both files by way of tee, standard error to the second one.
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {{ {command}\n}} | tee /dev/fd/{stdout.fileno()}"],
            cwd=folder, env={**os.environ, "PATH": search, "COLUMNS": "100"},
            stdin=subprocess.DEVNULL, stdout=merged, stderr=merged,
            timeout=_SECONDS, check=False, pass_fds=(stdout.fileno(),),
        )  # fmt: skip
    return done.returncode, out.read_text(encoding="utf-8"), both.read_text(encoding="utf-8")


def differences(shown: str, out: str, both: str) -> list[str]:
    """Lines of the page that were not printed. With a line `...` the others have to be printed in their order; without
    one the page shows all of standard output, or all that was printed. Figures with decimals may differ by one in the
    last: machines add in different orders.
    """
    lines = [line.rstrip() for line in shown.rstrip("\n").splitlines()]
    if any(line.strip() == "..." for line in lines):
        return _missing([line for line in lines if line.strip() not in ("...", "")], both.splitlines())
    found = [_different(lines, [line.rstrip() for line in text.rstrip("\n").splitlines()]) for text in (out, both)]
    return min(found, key=len)


def _missing(lines: Sequence[str], printed: Sequence[str]) -> list[str]:
    left = iter(printed)
    return [
        f"page: {line}\nnow:  (not printed)" for line in lines if not any(_same(line, now.rstrip()) for now in left)
    ]


def _different(shown: Sequence[str], now: Sequence[str]) -> list[str]:
    pairs = [
        (shown[i] if i < len(shown) else "(nothing)", now[i] if i < len(now) else "(nothing)")
        for i in range(max(len(shown), len(now)))
    ]
    return [f"page: {page}\nnow:  {printed}" for page, printed in pairs if not _same(page, printed)]


def _same(page: str, now: str) -> bool:
    if _FIGURE.sub("#", page) != _FIGURE.sub("#", now):
        return False
    return all(_near(a, b) for a, b in zip(_FIGURE.findall(page), _FIGURE.findall(now), strict=True))


def _near(a: str, b: str) -> bool:
    decimals = len(a.partition(".")[2])
    return len(b.partition(".")[2]) == decimals and abs(float(a) - float(b)) < 1.5 * 10**-decimals


def write_page(page: str, folder: Path, *, done: set[str]) -> None:
    """Put the output that is printed now into a page, except where it shows only a part (`...`)."""
    text = page_text(page)
    printed = {command.command: (out, both) for command, out, both in run_page(page, folder, done=done)}

    def written(found: re.Match[str]) -> str:
        if found["command"] not in printed or re.search(r"^\s*\.\.\.$", found["output"], re.MULTILINE):
            return found[0]
        out, both = printed[found["command"]]
        return f"$ {found['command']}\n{out or both}"

    for block in reversed(blocks(text)):
        if block.language == "console" and block.runs and text[block.start :].startswith(block.text):
            text = text[: block.start] + _COMMAND.sub(written, block.text) + text[block.end :]
    (ROOT / page).write_text(text, encoding="utf-8")


def prepare(folder: Path) -> None:
    """A fresh directory in which a page's commands find the clone's docs and samples."""
    for name in ("docs", "k8s", "helm"):
        (folder / name).symlink_to(ROOT / name)


def table() -> str:
    """A line per page: how many snippets it has, how many run here or in another test, and why others do not."""
    rows = [f"{'page':52} {'snippets':>8} {'run':>4} {'checked':>8} {'elsewhere':>9}  not run"]
    for page in pages():
        found = [block for block in blocks(page_text(page)) if block.language in ("console", "python", "yaml", "json")]
        reasons = sorted({block.not_run.split()[0].rstrip(":,") for block in found if block.not_run})
        counts = {word: sum(block.not_run.startswith(word) for block in found) for word in reasons}
        checked = sum(block.language in ("yaml", "json") and not block.not_run and not block.run_by for block in found)
        if found:
            rows.append(
                f"{page:52} {len(found):8} {sum(block.runs for block in found):4} {checked:8} "
                f"{sum(bool(block.run_by) for block in found):9}  "
                + ", ".join(f"{word} {n}" for word, n in counts.items())
            )
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table() + "\n")
        return 0
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    wrong = 0
    for page in arguments.pages or [name for name in pages() if any(block.runs for block in blocks(page_text(name)))]:
        with tempfile.TemporaryDirectory() as temporary:
            prepare(Path(temporary))
            if arguments.write:
                write_page(page, Path(temporary), done=set())
                continue
            for command, out, both in run_page(page, Path(temporary)):
                for line in differences(command.output, out, both):
                    wrong += 1
                    sys.stdout.write(f"{page}: $ {command.command}\n{line}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
