"""Reads a run directory for the report. A missing or damaged file only leaves a gap and a note."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from data_io.bounded_json import read_json, read_model
from data_io.bounded_yaml import bounded_yaml
from data_io.dataset.manifest import Manifest
from data_io.storage.store import Store
from data_io.wording import counted
from ray_app.export.model_card import CardSource
from ray_app.run_directory.directory import BEFORE, EVENTS, JOB_SPEC, LINES_BYTES, METRICS, STATUS, read_text
from ray_app.run_directory.driver_lease import last_heartbeat
from ray_app.run_directory.evaluation_curve import MeasuredCheckpoint, read_curve
from ray_app.run_directory.evaluation_report import EvaluationReport
from ray_app.run_directory.metrics import StepMetrics
from ray_app.run_directory.status import RunStatus
from ray_app.run_directory.task_report import RESULTS, SUMMARY, TaskReport

AFTER = "evaluation/after.json"
DATA = "data.json"

T = TypeVar("T")


class EvaluationFacts(BaseModel):
    """An evaluation set as the manifest describes it."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    name: str
    type: Literal["retrieval", "sts"]
    instruction: str = ""
    license: str = ""
    origin: str = ""


class DataFacts(BaseModel):
    """`data.json`: the sources and evaluation sets of a run. The data set's manifest.json has these fields and more."""

    model_config = ConfigDict(frozen=True)

    version: str
    sources: tuple[CardSource, ...]
    evaluations: tuple[EvaluationFacts, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """The content of a run directory.

    `steps` are in order, without repeated steps. `heartbeat` is the time when the driver last renewed its lease.
    `notes` names unreadable files and recomputed steps.
    """

    uri: str
    job_spec: str = ""
    job: dict[str, Any] = field(default_factory=dict)
    status: RunStatus | None = None
    heartbeat: datetime | None = None
    steps: tuple[StepMetrics, ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    before: EvaluationReport | None = None
    after: EvaluationReport | None = None
    measured: tuple[MeasuredCheckpoint, ...] = ()
    tasks: TaskReport | None = None
    data: DataFacts | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run's name: from the job spec if possible, then from the status, then from the directory."""
        metadata = self.job.get("metadata")
        if isinstance(metadata, dict) and metadata.get("name"):
            return str(metadata["name"])
        return self.status.name if self.status else self.uri.rstrip("/").rpartition("/")[2]

    @property
    def spec(self) -> dict[str, Any]:
        spec = self.job.get("spec")
        return spec if isinstance(spec, dict) else {}


def save_data_facts(run: Store, manifest: Manifest) -> None:
    """Write `data.json`, so that the run directory itself records the sources of the run and their licenses."""
    facts = DataFacts(
        version=manifest.version,
        sources=tuple(CardSource.model_validate(source) for source in manifest.sources),
        evaluations=tuple(EvaluationFacts.model_validate(entry) for entry in manifest.evaluations),
    )
    run.put(DATA, facts.model_dump_json(indent=1).encode())


def read_run(run: Store) -> RunRecord:
    """Everything that the report shows. Raises only StorageError, if the store cannot be reached."""
    notes: list[str] = []

    def parsed(key: str, parse: Callable[[str], T]) -> T | None:
        text = read_text(run, key)
        if not text:
            return None
        try:
            return parse(text)
        except (ValidationError, ValueError, yaml.YAMLError):
            notes.append(f"{key} is damaged and was left out.")
            return None

    job = parsed(JOB_SPEC, bounded_yaml)
    steps = _steps(run, notes)
    return RunRecord(
        uri=run.uri,
        job_spec=read_text(run, JOB_SPEC),
        job=job if isinstance(job, dict) else {},
        status=parsed(STATUS, partial(read_model, RunStatus)),
        heartbeat=last_heartbeat(run),
        steps=steps,
        events=tuple(_json_lines(run, EVENTS, notes)),
        before=parsed(BEFORE, partial(read_model, EvaluationReport)),
        after=parsed(AFTER, partial(read_model, EvaluationReport)),
        measured=read_curve(run),
        tasks=parsed(f"{RESULTS}/{SUMMARY}", partial(read_model, TaskReport)),
        data=parsed(DATA, partial(read_model, DataFacts)),
        notes=tuple(notes),
    )


def _steps(run: Store, notes: list[str]) -> tuple[StepMetrics, ...]:
    by_step: dict[int, StepMetrics] = {}
    repeated = damaged = 0
    for line in _json_lines(run, METRICS, notes):
        try:
            metrics = StepMetrics.model_validate(line)
        except ValidationError:
            damaged += 1
            continue
        repeated += metrics.step in by_step
        by_step[metrics.step] = metrics
    if damaged:
        notes.append(f"{counted(damaged, 'line')} of {METRICS} with missing or wrong fields left out.")
    if repeated:
        notes.append(
            f"{counted(repeated, 'step')} recomputed after a restart. The report shows the last result of each step."
        )
    return tuple(by_step[step] for step in sorted(by_step))


def _json_lines(run: Store, key: str, notes: list[str]) -> list[dict[str, Any]]:
    lines, damaged = [], 0
    for text in read_text(run, key, most=LINES_BYTES).splitlines():
        try:
            line = read_json(text)
        except ValueError:
            damaged += 1
            continue
        if isinstance(line, dict):
            lines.append(line)
        else:
            damaged += 1
    if damaged:
        notes.append(f"{counted(damaged, 'line')} of {key} without a complete JSON object left out.")
    return lines
