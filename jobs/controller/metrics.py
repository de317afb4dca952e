"""Prometheus metrics of the operator and of its jobs, computed from the cache at each scrape.

Metrics of a job have the labels `namespace` and `job`; scrapes must keep them (`honor_labels`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.controller.job_metrics import JOB_GAUGES, ObservedJob, Workers, workers_of
from jobs.errors import ConfigError
from jobs.kube.resource import job_spec_of
from jobs.kube.status import JobPhase, JobStatus, status_of
from ray_app.run_directory.status import RunStatus

Resource = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """The description of a metric. `name` is the name in a query, for a histogram without its suffix."""

    name: str
    type: str
    labels: tuple[str, ...]
    description: str


_JOBS = Family("f2llm_jobs", "gauge", ("phase",), "Number of jobs by phase.")
_QUEUE_LENGTH = Family("f2llm_queue_length", "gauge", (), "Number of jobs that wait for a reconciliation.")
_SECONDS = Family("f2llm_reconcile_seconds", "histogram", (), "Duration of one reconciliation of a job.")
_FAILURES = Family("f2llm_reconcile_failures_total", "counter", ("error",), "Number of failed reconciliations.")
_OF_JOBS = [
    Family(name, "gauge", ("namespace", "job", *each.labels), each.description) for name, each in JOB_GAUGES.items()
]
FAMILIES: tuple[Family, ...] = (*_OF_JOBS, _JOBS, _QUEUE_LENGTH, _SECONDS, _FAILURES)

RECONCILE_SECONDS = Histogram(_SECONDS.name, _SECONDS.description)
RECONCILE_FAILURES = Counter(_FAILURES.name, _FAILURES.description, _FAILURES.labels)


class JobsCollector(Collector):
    """`jobs` returns the stored jobs, `run_of` a driver's last report, `queue_length` the number of waiting keys."""

    def __init__(
        self,
        jobs: Callable[[], list[Resource]],
        run_of: Callable[[Resource], RunStatus | None],
        queue_length: Callable[[], int],
    ) -> None:
        self._jobs, self._run_of, self._queue_length = jobs, run_of, queue_length
        self._workers: dict[tuple[str, int], Workers | None] = {}

    def collect(self) -> Iterable[Metric]:
        resources = self._jobs()
        self._read_job_specs(resources)
        observed = [(each["metadata"], self._observed(each)) for each in resources]
        yield GaugeMetricFamily(_QUEUE_LENGTH.name, _QUEUE_LENGTH.description, value=self._queue_length())
        yield _phases(job.status for _, job in observed)
        for gauge, known in zip(JOB_GAUGES.values(), _OF_JOBS, strict=True):
            family = GaugeMetricFamily(known.name, known.description, labels=known.labels)
            for metadata, job in observed:
                for labels, value in gauge.samples(job):
                    if value is not None:
                        more = [labels[each] for each in gauge.labels]
                        family.add_metric([metadata["namespace"], metadata["name"], *more], value)
            yield family

    def _observed(self, resource: Resource) -> ObservedJob:
        return ObservedJob(status_of(resource), self._workers[_version(resource)], self._run_of(resource))

    def _read_job_specs(self, resources: Iterable[Resource]) -> None:
        """Parse each version of a job spec once: a thousand of them at every scrape would be too slow."""
        known = self._workers
        self._workers = {
            _version(each): known[_version(each)] if _version(each) in known else _workers(each) for each in resources
        }


def _version(resource: Resource) -> tuple[str, int]:
    return resource["metadata"]["uid"], resource["metadata"]["generation"]


def _workers(resource: Resource) -> Workers | None:
    try:
        return workers_of(job_spec_of(resource))
    except ConfigError:
        return None


def _phases(statuses: Iterable[JobStatus]) -> Metric:
    counts = dict.fromkeys(JobPhase, 0)
    for status in statuses:
        counts[status.phase] += 1
    gauge = GaugeMetricFamily(_JOBS.name, _JOBS.description, labels=_JOBS.labels)
    for phase, count in counts.items():
        gauge.add_metric([phase.value], count)
    return gauge
