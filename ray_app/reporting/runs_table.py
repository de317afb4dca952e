"""A table of runs: finds the runs below a directory or bucket prefix, and computes the figures of each."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from data_io.errors import F2LLMError
from data_io.storage.store import Store
from ray_app.reporting.run_record import RunRecord, read_run
from ray_app.reporting.worker_history import groups_of, workers_over_time
from ray_app.run_directory.directory import JOB_SPEC, STATUS

_AT_ONCE = 16
"""Runs that are read in parallel."""
_DEEPEST = 4
"""Maximum of directories between the start and a run."""


@dataclass(frozen=True)
class RunFigures:
    """The figures of a run. Unknown values are None.

    `name` is its path below the searched directory. `loss` is the mean of the last twentieth of its steps.
    `worker_hours` is the total time that workers were running, and `cost` is the cost of its GPUs. `stale_seconds` is
    the time since the last heartbeat of its driver. It is None while heartbeats arrive, and for a run that has ended.
    """

    name: str
    uri: str
    phase: str | None
    step: int
    total_steps: int
    loss: float | None
    ndcg_at_10_before: float | None
    ndcg_at_10_after: float | None
    examples_per_second: float | None
    goodput: float | None
    worker_hours: float | None
    gpu_hours: float | None
    cost: float | None
    updated: datetime | None
    stale_seconds: float | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "updated": self.updated and self.updated.isoformat(), "notes": list(self.notes)}


def read_runs(place: Store) -> list[tuple[str, RunRecord]]:
    """Name and record of every run at `place` or below it, by name. The record of an unreadable run has a note.

    Raises StorageError if `place` itself cannot be listed.
    """
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        names = _find(place, pool)
        return list(zip(names, pool.map(lambda name: _read(place.child(name)), names), strict=True))


def figures_of(name: str, record: RunRecord, *, gpu_price: float | None, now: datetime) -> RunFigures:
    """`gpu_price` is the price per GPU hour."""
    status, steps = record.status, record.steps
    stale = status.stale_seconds(heartbeat=record.heartbeat, now=now) if status else None
    notes = record.notes if status or record.notes else ("status.json is missing: the run has not started.",)
    tail = [each.loss for each in steps[-max(1, len(steps) // 20) :] if each.loss is not None]
    seconds = math.fsum(each.seconds for each in steps)
    measured = sum(each.examples for each in steps) / seconds if seconds > 0 else None
    hours, gpus = _worker_hours(record), _gpus_a_worker(record)
    gpu_hours = hours * gpus if hours is not None and gpus else None
    before, after = (
        None if report is None or report.mean_model is None else report.mean_model.ndcg_at_10
        for report in (record.before, record.after)
    )
    return RunFigures(
        name=name,
        uri=record.uri,
        phase=status.phase.value if status else None,
        step=steps[-1].step if steps else status.step if status else 0,
        total_steps=status.total_steps if status else 0,
        loss=math.fsum(tail) / len(tail) if tail else None,
        ndcg_at_10_before=before,
        ndcg_at_10_after=after,
        examples_per_second=measured,
        goodput=status.goodput if status else None,
        worker_hours=hours,
        gpu_hours=gpu_hours,
        cost=gpu_hours * gpu_price if gpu_hours is not None and gpu_price is not None else None,
        updated=status.updated if status else None,
        stale_seconds=stale,
        notes=notes if status is None or stale is None else (*notes, f"{status.heartbeat_message(stale)}."),
    )


def _find(place: Store, pool: ThreadPoolExecutor) -> list[str]:
    """Paths of run directories below `place`, level by level. Directories inside a run are not searched."""
    found: list[str] = []
    level = [""]
    for _ in range(_DEEPEST + 1):
        deeper: list[str] = []
        for folder, inside in zip(level, pool.map(place.list_level, level), strict=True):
            if {key.rpartition("/")[2] for key in inside.keys} & {JOB_SPEC, STATUS}:
                found.append(folder)
            else:
                deeper += [each for each in inside.folders if not each.rpartition("/")[2].startswith(".")]
        level = deeper
    return sorted(found)


def _read(run: Store) -> RunRecord:
    try:
        return read_run(run)
    except F2LLMError as error:
        return RunRecord(uri=run.uri, notes=(error.message,))


def _worker_hours(record: RunRecord) -> float | None:
    """Computed from the events, or from the steps if the run has no events."""
    groups = groups_of(record.events)
    if groups:
        until = record.status.updated if record.status else groups[-1].started
        points = workers_over_time(groups, until)
        return math.fsum((end - start) * workers for (start, workers), (end, _) in pairwise(points)) / 60
    if record.steps:
        return math.fsum(each.seconds * each.workers for each in record.steps) / 3600
    return None


def _gpus_a_worker(record: RunRecord) -> float:
    workers = record.spec.get("workers")
    gpus = workers.get("gpus", 0) if isinstance(workers, dict) else 0
    return gpus if isinstance(gpus, int | float) else 0
