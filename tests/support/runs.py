"""The content of a local run directory, for tests that wait for it or compare it."""

import json
from pathlib import Path
from typing import Any

from tests.support.small_training import read_lines


def losses(run: Path) -> dict[int, float]:
    """The loss of each step that was kept."""
    return {line["step"]: line["loss"] for line in read_lines(run / "metrics.jsonl")}


def lines_so_far(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a .jsonl file that a run is writing to, since the last line can be incomplete; empty
    without a file.
    """
    whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in whole]


def finished_steps(run: Path) -> int:
    """The number of complete lines of metrics.jsonl; 0 without the file."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def saved_step(run: Path) -> int:
    """The step of the newest complete checkpoint, 0 without one."""
    names = [path.parent.name for path in (run / "checkpoints").glob("*/manifest.json")]
    return max((int(name[5:13]) for name in names), default=0)


def events(run: Path, name: str) -> list[dict[str, Any]]:
    """The run's events of that name so far, in order."""
    return [event for event in lines_so_far(run / "events.jsonl") if event["event"] == name]
