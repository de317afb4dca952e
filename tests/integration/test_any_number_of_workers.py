"""The promise of the project, on real Ray and DeepSpeed: neither the number of workers nor a kill changes a run."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_io.storage import open_store
from tests.support.command import Running, f2llm
from tests.support.small_training import read_lines, small_document, write_document, write_small_dataset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

STEPS = 40
ROWS = 60 + 21 + 33 + 17


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = open_store(str(tmp_path_factory.mktemp("data")))
    write_small_dataset(store)
    return store.uri


def _document(folder: Path, data: str) -> Path:
    document = small_document(data, str(folder / "runs"))
    document["spec"]["evaluation"] = {"enabled": False}  # a process of its own that says nothing of the losses
    return write_document(folder / "job.yaml", document)


def _losses(run: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_lines(run / "metrics.jsonl")}


def _assert_whole(run: Path) -> None:
    """Every step once, and every example exactly once an epoch."""
    assert list(_losses(run)) == list(range(1, STEPS + 1))
    epochs: dict[int, Counter[str]] = {}
    for line in read_lines(run / "examples.jsonl"):
        used = epochs.setdefault(line["epoch"], Counter())
        used.update(query for slot in line["slots"] for query in slot["queries"])
    assert len(epochs) == 8
    assert all(len(used) == ROWS and set(used.values()) == {1} for used in epochs.values())


@pytest.fixture(scope="module")
def undisturbed(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One worker, never stopped."""
    folder = tmp_path_factory.mktemp("one")
    done = f2llm("run", _document(folder, data), "--workers", "1", "--quiet")
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "small"


@pytest.mark.parametrize("workers", [2, 3])
def test_losses_do_not_depend_on_the_number_of_workers(
    workers: int, undisturbed: Path, data: str, tmp_path: Path
) -> None:
    done = f2llm("run", _document(tmp_path, data), "--workers", str(workers), "--quiet")

    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "small"
    lines = read_lines(run / "metrics.jsonl")
    assert {line["workers"] for line in lines} == {workers}
    assert _losses(run) == pytest.approx(_losses(undisturbed), rel=1e-4)
    assert {name for line in lines for name in line["sources"]} == {"answers", "echoes", "groups", "parity"}
    assert read_lines(run / "examples.jsonl") == read_lines(undisturbed / "examples.jsonl")
    _assert_whole(run)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3)])
def test_a_killed_run_goes_on_with_another_number_of_workers_as_if_nothing_had_been(
    before: int, after: int, undisturbed: Path, data: str, tmp_path: Path
) -> None:
    document = _document(tmp_path, data)
    run = tmp_path / "runs" / "small"
    kill_at = random.Random(before).randint(8, 30)  # the seed keeps a failure repeatable
    first = Running("run", document, "--workers", str(before), log=tmp_path / "first.log")
    first.wait_until(lambda: _step(run) >= kill_at)

    first.kill_all()
    done = f2llm("run", document, "--workers", str(after), "--quiet")

    assert done.returncode == 0, done.stderr
    lines: list[dict[str, Any]] = read_lines(run / "metrics.jsonl")
    resumed = next(event for event in read_lines(run / "events.jsonl") if event["event"] == "Resumed")
    assert resumed["step"] >= 7  # every_steps is 7: something was saved, and it was used
    assert {line["workers"] for line in lines if line["step"] > resumed["step"]} == {after}
    assert _losses(run) == pytest.approx(_losses(undisturbed), rel=1e-4)
    _assert_whole(run)


def test_sigterm_ends_with_a_checkpoint_and_code_143(undisturbed: Path, data: str, tmp_path: Path) -> None:
    document = _document(tmp_path, data)
    run = tmp_path / "runs" / "small"
    running = Running("run", document, "--workers", "2", log=tmp_path / "run.log")
    running.wait_until(lambda: _step(run) >= 3)

    code = running.terminate()

    assert code == 143
    assert "Traceback" not in running.output()
    saved = [event["step"] for event in read_lines(run / "events.jsonl") if event["event"] == "Checkpointed"]
    assert saved[-1] == _step(run)
    done = f2llm("run", document, "--workers", "1", "--quiet")
    assert done.returncode == 0, done.stderr
    assert _losses(run) == pytest.approx(_losses(undisturbed), rel=1e-4)
    _assert_whole(run)


def _step(run: Path) -> int:
    """The last whole line of metrics.jsonl."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
