"""Prometheus metrics of a served model. Each replica counts its own; /metrics of any replica shows those of all."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKENS = (64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServeMetrics:
    """The metrics of one replica."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "f2llm_serve_requests", "Requests for embeddings, by HTTP status of the response.", ["status"],
            registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge("f2llm_serve_requests_in_flight", "Requests in progress.", registry=registry)
        self.seconds = Histogram(
            "f2llm_serve_request_seconds", "Time from the arrival of a request to its response.", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.queue_seconds = Histogram(
            "f2llm_serve_queue_seconds", "Time that the first text of a request spent in the queue.", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.batch_seconds = Histogram(
            "f2llm_serve_batch_seconds", "Time to embed a batch.", buckets=_SECONDS, registry=registry
        )
        self.batch_tokens = Histogram(
            "f2llm_serve_batch_tokens", "Tokens of a batch.", buckets=_TOKENS, registry=registry
        )
        self.texts = Counter("f2llm_serve_texts", "Texts that were embedded.", registry=registry)
        self.queued_tokens = Gauge("f2llm_serve_queued_tokens", "Tokens in the queue.", registry=registry)

    def collect(self, replica: str) -> list[Metric]:
        """The current values, with the label `replica`. The result can be pickled."""
        found = list(self._registry.collect())
        for metric in found:
            metric.samples = [
                Sample(s.name, {**s.labels, "replica": replica}, s.value)
                for s in metric.samples
                if not s.name.endswith("_created")
            ]
        return found


class _Collected(Collector):
    def __init__(self, replicas: Iterable[Sequence[Metric]]) -> None:
        self._families: dict[str, Metric] = {}
        for metric in (metric for replica in replicas for metric in replica):
            family = self._families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            family.samples += metric.samples

    def collect(self) -> Iterable[Metric]:
        return self._families.values()


def exposition(replicas: Iterable[Sequence[Metric]]) -> bytes:
    """The text that Prometheus reads, from the results of `collect` of all replicas."""
    registry = CollectorRegistry()
    registry.register(_Collected(replicas))
    return generate_latest(registry)
