"""The operator's metrics for Prometheus."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client.core import REGISTRY, CollectorRegistry

from jobs.controller.job_metrics import JOB_GAUGES
from jobs.controller.metrics import FAMILIES, JobsCollector
from jobs.kube.status import JobFailure, JobPhase, JobStatus
from ray_app.run_directory.status import RunStatus
from tests.support.kubernetes_objects import resource, under_way

LABELS = {"namespace": "team", "job": "job"}
RUN = RunStatus(
    name="job",
    goodput=0.9,
    source_losses={"squad": 0.5, "nli": 0.25},
    store_retries=3,
    restarts_by_reason={"Failure": 2},
    model_flops_per_second=1e12,
    last_checkpoint_time=datetime(2026, 5, 4, 3, tzinfo=UTC),
)


def collected(
    status: JobStatus | None = None, *, run: RunStatus | None = None, spec: dict[str, Any] | None = None
) -> CollectorRegistry:
    stored = resource(spec) | {"status": (status or under_way()).to_dict()}
    registry = CollectorRegistry()
    registry.register(JobsCollector(lambda: [stored], lambda job: run, lambda: 7))
    return registry


def value(registry: CollectorRegistry, name: str, labels: Mapping[str, str] = LABELS) -> float | None:
    return registry.get_sample_value(name, dict(labels))


def test_the_job_spec_says_how_many_gpus_are_wanted_and_the_pods_how_many_there_are() -> None:
    spec = {"workers": {"replicas": 4, "min": 2, "gpus": 1}}

    found = collected(under_way(ready_replicas=3), spec=spec)

    assert value(found, "f2llm_job_gpus_wanted") == 4
    assert value(found, "f2llm_job_gpus") == 3
    assert value(found, "f2llm_job_workers_wanted") == 4
    assert value(found, "f2llm_job_workers_min") == 2


def test_reported_values_have_their_own_labels() -> None:
    found = collected(run=RUN)

    assert value(found, "f2llm_job_goodput") == 0.9
    assert value(found, "f2llm_job_source_loss", LABELS | {"source": "nli"}) == 0.25
    assert value(found, "f2llm_job_restarts_by_reason", LABELS | {"reason": "Failure"}) == 2
    assert value(found, "f2llm_job_last_checkpoint_timestamp_seconds") == 1777863600


def test_unknown_values_are_left_out() -> None:
    found = collected()

    assert value(found, "f2llm_job_goodput") is None
    assert value(found, "f2llm_job_loss") is None
    assert value(found, "f2llm_job_last_failure_timestamp_seconds") is None


def test_a_failure_has_its_class_and_its_time() -> None:
    failure = JobFailure(attempt=1, error_class="storage", reason="StorageError", time="2026-05-04T03:00:00Z")

    found = collected(under_way(phase=JobPhase.RETRYING, last_failure=failure))

    labels = LABELS | {"error_class": "storage", "reason": "StorageError"}
    assert value(found, "f2llm_job_last_failure_timestamp_seconds", labels) == 1777863600
    assert value(found, "f2llm_job_phase", LABELS | {"phase": "Retrying"}) == 1


def test_an_invalid_job_spec_does_not_hide_other_metrics() -> None:
    found = collected(under_way(step=5), spec={"workers": {"replicas": 2, "min": 3}})

    assert value(found, "f2llm_job_workers_wanted") is None
    assert value(found, "f2llm_job_step") == 5


class CountedReads(dict[str, Any]):
    """A stored job that counts how often its job spec is read."""

    reads = 0

    def __getitem__(self, key: str) -> Any:
        self.reads += key == "spec"
        return super().__getitem__(key)


def test_each_version_of_a_job_spec_is_read_once() -> None:
    stored = CountedReads(resource())
    collector = JobsCollector(lambda: [stored], lambda job: None, lambda: 0)

    for generation in (1, 1, 2, 2):
        stored["metadata"]["generation"] = generation
        list(collector.collect())

    assert stored.reads == 2


def test_exactly_the_described_metrics_are_served() -> None:
    for each in collected(run=RUN), REGISTRY:
        served = {metric.name for metric in each.collect() if metric.name.startswith("f2llm_")}

        assert served <= {family.name.removesuffix("_total") for family in FAMILIES}
    assert {family.name for family in FAMILIES} > set(JOB_GAUGES)
    assert [family.name for family in FAMILIES if not family.description.endswith(".")] == []
