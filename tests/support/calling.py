"""The command line inside the test process: fast, but imported modules stay loaded."""

from collections.abc import Callable

import pytest

from jobs.cli.app import call

Run = Callable[..., tuple[int, str, str]]


def caller(capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command line; returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = call(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
