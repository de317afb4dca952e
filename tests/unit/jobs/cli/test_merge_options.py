"""`f2llm merge` called in ways that mean nothing: a message each, with what to do, before anything is read."""

from pathlib import Path

import pytest

from jobs.cli.app import call


@pytest.mark.parametrize(
    ("arguments", "says", "mend"),
    [
        (["a", "b", "--checkpoints", "4,8"], "--checkpoints is of one run", "give one run"),
        (["a", "a"], "a model is given twice", "--weights"),
        (["a", "b", "--greedy", "--weights", "1,2"], "--greedy and --weights are both given", "leave one"),
        (["a", "--checkpoints", "4,x"], "--checkpoints '4,x': expected steps", "--checkpoints 400,450,500"),
        (["a", "b", "--weights", "1,-2"], "--weights '1,-2': expected numbers above 0", "--weights"),
        (["a"], "a is no run directory", "give a run, or several exported models"),
        (["a", "b", "--evaluate"], "a is no run, whose document names the data set", "--data URI"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str],
    says: str,
    mend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    code = call(["merge", *arguments, "--out", "out"])

    printed = capsys.readouterr().err
    assert code == 2
    assert says in printed
    assert mend in printed
    assert not (tmp_path / "out").exists()
