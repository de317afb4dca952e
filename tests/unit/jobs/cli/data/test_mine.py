"""`f2llm data mine`: what cannot work is said before anything is started."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_io.storage.store import open_store
from jobs.cli.app import call
from jobs.cli.data.mine import Lines
from ray_app.mining.stage_runner import MiningProgress
from tests.support.datasets import write_example

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Mines data/ (a retrieval source `questions`, a classification source `labels`) and gives exit code and error."""
    monkeypatch.chdir(tmp_path)
    write_example(open_store("data"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")

    def run(*arguments: str, out: str = "out") -> tuple[int, str]:
        code = call(
            ["data", "mine", "data", out, *([] if "--model" in arguments else ["--model", "model"]), *arguments]
        )
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--source", "nowhere"], 3, "no source 'nowhere' in the data set; it has questions, labels"),
        (["--source", "labels"], 3, "source 'labels' has the task type classification"),
        (["--top-k", "20"], 3, "top_k=20 minus skip=5 leaves 15 candidates"),
        (["--max-ratio", "1.5"], 3, "--max-ratio 1.5: "),
        (["--corpus", "questions"], 2, "--corpus 'questions' is not NAME=FILE"),
        (["--corpus", "labels=x.txt"], 3, "a corpus is given for 'labels', which is not one of the mined sources"),
        (["--corpus", "questions=nowhere.jsonl"], 4, "no data file at nowhere.jsonl"),
        (["--model", "./nowhere"], 8, "the model ./nowhere does not exist"),
        (["--model", "data"], 8, "data is not a model directory: it has neither modules.json nor config.json"),
        (["--model", "someone/some-model"], 8, "someone/some-model is not a directory here, and HF_HUB_OFFLINE is set"),
        (["--gpus", "99"], 10, "99 GPUs are requested, but this machine has"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_change(
    mine: Run, arguments: list[str], code: int, message: str
) -> None:
    found, error = mine(*arguments)

    assert message in error
    assert "hint:" in error
    assert found == code


def test_a_data_set_is_not_mined_onto_itself(mine: Run) -> None:
    code, error = mine(out="data")

    assert code == 3
    assert "is the data set that is mined" in error


def test_another_data_set_is_not_written_over(mine: Run, tmp_path: Path) -> None:
    write_example(open_store("out"))
    before = json.loads((tmp_path / "out" / "manifest.json").read_text())

    code, error = mine()

    assert code == 4
    assert "holds another data set" in error
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == before


def test_progress_says_both_ends_of_a_stage_and_when_it_will_end() -> None:
    said: list[str] = []
    lines = Lines(said.append)

    for done, eta in ((0, None), (1, 130.0), (2, 60.0), (3, 0.0)):
        lines(MiningProgress("embed", "faq", done, 3, eta))

    assert said[0] == "faq: embed 0/3"
    assert said[-1] == "faq: embed 3/3"
