"""What the tests of the command line share."""

from pathlib import Path

import pytest

from tests.support.calling import Run, caller


@pytest.fixture
def f2llm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Calls the command line in an empty current directory; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    return caller(capsys)
