"""The exit codes of all commands, from the error classes themselves."""

from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

from data_io.errors import F2LLMError


class ExitCode(NamedTuple):
    """One error and its exit code. `-` stands for a value that does not apply."""

    code: int
    error: str
    meaning: str
    error_class: str
    again: str
    """The result of running the same command again."""


def exit_codes() -> list[ExitCode]:
    """Every exit code, in ascending order."""
    found = [ExitCode(0, "-", "Success.", "-", "-")]
    for kind in sorted(_error_classes(), key=lambda kind: (kind.exit_code, kind.__name__)):
        meaning = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        if kind is F2LLMError:
            meaning = "An error in f2llm itself. Run the command again with `--debug` and report the output."
        again = "can succeed" if kind.retryable else "fails again"
        found.append(ExitCode(kind.exit_code, kind.__name__, meaning, kind.error_class, again))
    return [
        *found,
        ExitCode(130, "-", "Stopped by SIGINT (Ctrl-C). A training run wrote a checkpoint first.", "-", "resumes"),
        ExitCode(141, "-", "The reader of the output has closed it, as in `f2llm schema | head`.", "-", "-"),
        ExitCode(143, "-", "Stopped by SIGTERM. A training run wrote a checkpoint first.", "-", "resumes"),
    ]


def _error_classes() -> Iterator[type[F2LLMError]]:
    for name in ("data_io.errors", "ray_app.errors", "jobs.errors"):
        for value in vars(import_module(name)).values():
            if isinstance(value, type) and issubclass(value, F2LLMError) and value.__module__ == name:
                yield value
