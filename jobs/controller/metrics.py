"""Prometheus metrics of the operator and of its jobs, read off what is seen when they are asked for."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.job_status import JobPhase, JobStatus, status_of

RECONCILE_SECONDS = Histogram("f2llm_reconcile_seconds", "Time of one look at a job.")
RECONCILE_FAILURES = Counter("f2llm_reconcile_failures_total", "Looks at a job that failed.", ["error"])

_GAUGES = {
    "f2llm_job_step": ("Optimiser steps done.", "step"),
    "f2llm_job_total_steps": ("Optimiser steps in all.", "total_steps"),
    "f2llm_job_loss": ("Loss of the last steps.", "loss"),
    "f2llm_job_examples_per_second": ("Examples a second.", "examples_per_second"),
    "f2llm_job_workers": ("Worker pods that are ready.", "ready_replicas"),
    "f2llm_job_attempts": ("Attempts so far.", "attempt"),
    "f2llm_job_restarts": ("Starts of the workers after the first.", "restarts"),
    "f2llm_job_steps_lost": ("Steps that were repeated.", "steps_lost"),
    "f2llm_job_last_checkpoint_step": ("Step of the newest checkpoint.", "last_checkpoint_step"),
}


class JobsCollector(Collector):
    """`jobs` gives the stored jobs, `queue_length` the keys that wait."""

    def __init__(self, jobs: Callable[[], list[Mapping[str, Any]]], queue_length: Callable[[], int]) -> None:
        self._jobs, self._queue_length = jobs, queue_length

    def collect(self) -> Iterable[Metric]:
        jobs = [(job["metadata"], status_of(job)) for job in self._jobs()]
        yield GaugeMetricFamily("f2llm_queue_length", "Jobs that wait to be looked at.", value=self._queue_length())
        yield _phases([status for _, status in jobs])
        for name, (words, attribute) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, words, labels=["namespace", "job"])
            for metadata, status in jobs:
                if (value := getattr(status, attribute)) is not None:
                    gauge.add_metric([metadata["namespace"], metadata["name"]], value)
            yield gauge


def _phases(statuses: Iterable[JobStatus]) -> Metric:
    counts = dict.fromkeys(JobPhase, 0)
    for status in statuses:
        counts[status.phase] += 1
    gauge = GaugeMetricFamily("f2llm_jobs", "Jobs by phase.", labels=["phase"])
    for phase, count in counts.items():
        gauge.add_metric([phase.value], count)
    return gauge
