"""Helm as a user has it, and this project's charts."""

import subprocess
from pathlib import Path

from tests.support.control_plane import programs_folder

_CHARTS = Path(__file__).parents[2] / "helm"
OPERATOR_CHART, PLATFORM_CHART = _CHARTS / "f2llm-operator", _CHARTS / "f2llm-platform"


def run_program(name: str, *arguments: str, stdin: str | None = None) -> str:
    """What a built program printed; fails with its error where it ends with one."""
    command = [str(programs_folder() / name), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
