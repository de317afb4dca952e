"""Run directories as after training, but without training: written by the same functions as in a run."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from data_io.storage.store import Store
from jobs.spec.job import parse_job_spec
from jobs.spec.yaml12 import RawSpec
from ray_app.run_directory.directory import EVENTS, JOB_SPEC, METRICS, LineLog, write_status
from ray_app.run_directory.evaluation_report import EvaluationReport, RankingMetrics, RetrievalResult
from ray_app.run_directory.metrics import SourceMetrics, StepMetrics
from ray_app.run_directory.status import Phase, RunStatus
from tests.support.job_specs import job_spec


def write_run(
    run: Store,
    *,
    spec: Mapping[str, Any] | None = None,
    steps: int = 40,
    phase: Phase = Phase.SUCCEEDED,
    first_loss: float = 4.0,
    ndcg: tuple[float, float] | None = (0.05, 0.61),
    workers: int = 2,
    hours: float = 3.0,
) -> None:
    """A run of this many steps, whose workers trained for `hours`."""
    name = run.uri.rpartition("/")[2]
    job = parse_job_spec(RawSpec("job.yaml", job_spec(spec, metadata={"name": name})))
    run.put(JOB_SPEC, job.to_yaml().encode())
    lines = LineLog(run, METRICS)
    for number in range(1, steps + 1):
        lines.append(_step(number, first_loss, workers).model_dump(mode="json"))
    lines.flush()
    end = datetime.now(UTC)
    start = end - timedelta(hours=hours)
    events = LineLog(run, EVENTS)
    events.append({"time": start.isoformat(), "event": "Started", "step": 0, "workers": workers})
    if phase.is_end:
        events.append({"time": end.isoformat(), "event": "Succeeded", "step": steps})
    events.flush()
    if ndcg is not None:
        for moment, value in zip(("before", "after"), ndcg, strict=True):
            run.put(f"evaluation/{moment}.json", _evaluation(value).model_dump_json().encode())
    status = RunStatus(name=name, phase=phase, step=steps, total_steps=40, workers=workers, goodput=0.93)
    write_status(run, status)


def _step(number: int, first_loss: float, workers: int) -> StepMetrics:
    loss = first_loss * math.exp(-number / 20) + 0.4 + 0.15 * math.sin(number * 1.7)
    return StepMetrics(
        step=number,
        epoch=0,
        loss=loss,
        hard_negative_loss=loss / 2,
        in_batch_loss=loss / 2,
        learning_rate=1e-4,
        grad_norm=0.9,
        examples=64,
        tokens=4096,
        micro_batches_consumed=4 * number,
        workers=workers,
        seconds=0.5,
        data_wait_seconds=0.01,
        data_requests=3,
        data_bytes=250_000,
        data_retries=0,
        sources={"docs": SourceMetrics(examples=64, loss=loss, hard_negative_loss=loss / 2, in_batch_loss=loss / 2)},
    )


def _evaluation(ndcg: float) -> EvaluationReport:
    metrics = RankingMetrics(ndcg_at_10=ndcg, recall_at_10=ndcg)
    result = RetrievalResult(
        name="held-out", instruction="", queries=7, documents=99, model=metrics, bm25=None, examples=(), seconds=1.0
    )
    return EvaluationReport(sets=(result,))
