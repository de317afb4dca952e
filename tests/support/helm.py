"""The real Helm, and the charts of this project."""

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.control_plane import missing_programs, programs_folder

_CHARTS = Path(__file__).parents[2] / "helm"
Program = Callable[..., str]
OPERATOR_CHART, PLATFORM_CHART = _CHARTS / "f2llm-operator", _CHARTS / "f2llm-platform"


def run_program(name: str, *arguments: str, stdin: str | None = None) -> str:
    """The output of a program that was built. Fails with its error message if it exits with an error."""
    command = [str(programs_folder() / name), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def program(name: str) -> Program:
    """`run_program` if the program was built; skips the test otherwise."""
    if missing_programs((name,)):
        pytest.skip(f"{name} is not built; tests/cluster/build.sh {name} builds it")
    return partial(run_program, name)
