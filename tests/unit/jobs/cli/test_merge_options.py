"""`f2llm merge` with invalid options: an error with a hint, before anything is read."""

from pathlib import Path

import pytest

from jobs.cli.app import call


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["a", "b", "--checkpoints", "4,8"], "--checkpoints needs exactly one run", "pass one run"),
        (["a", "a"], "a model is listed twice", "--weights"),
        (["a", "b", "--greedy", "--weights", "1,2"], "--greedy and --weights exclude each other", "remove one"),
        (["a", "--checkpoints", "4,x"], "--checkpoints '4,x': expected steps", "--checkpoints 400,450,500"),
        (["a", "b", "--weights", "1,-2"], "--weights '1,-2': expected numbers above 0", "--weights"),
        (
            ["a"],
            "a is not a run directory, so it has no checkpoints",
            "pass a run directory, or several exported models",
        ),
        (["a", "b", "--evaluate"], "a is not a run directory, so the data set to evaluate on is unknown", "--data URI"),
    ],
)
def test_invalid_options_are_refused(
    arguments: list[str],
    says: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    code = call(["merge", *arguments, "--out", "out"])

    printed = capsys.readouterr().err
    assert code == 2
    assert says in printed
    assert hint in printed
    assert not (tmp_path / "out").exists()
