"""The number of worker pods of a RayCluster, and which of them to delete first."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.controller.actions import Scale
from jobs.kube.observed import Observed, Pod
from jobs.spec.job import EmbeddingJob


def scale(job: EmbeddingJob, observed: Observed, *, attempt: int, waited_too_long: bool) -> Scale | None:
    """The change that a RayCluster needs; None if it needs no change.

    While a run trains, pods that do not fit can wait: the run adds them when they become ready. A run that has not
    started waits for all pods, so after a timeout the cluster is reduced to the pods that are ready. A run in a queue
    does not grow beyond the pods that Kueue admitted.
    """
    group = _group(observed.ray_cluster)
    if group is None or observed.ray_cluster is None:
        return None
    pods = observed.workers(attempt)
    now = int(group.get("replicas") or 0)
    wanted = min(job.spec.workers.replicas, int(group.get("maxReplicas") or now))
    if (admitted := observed.admitted_workers) is not None:
        wanted = min(wanted, admitted)
    if not _is_submitted(observed) and wanted > (ready := sum(pod.ready for pod in pods)):
        # A reduced cluster stays reduced until the run has started: changing numbers of pods would delay the start.
        reduced = now == ready
        least = job.spec.workers.min or wanted
        wanted = ready if (waited_too_long and ready >= least) or (reduced and now) else wanted
    if wanted == now:
        return None
    return Scale(observed.ray_cluster["metadata"]["name"], now, wanted, tuple(victims(pods, len(pods) - wanted)))


def victims(pods: Sequence[Pod], number: int) -> list[str]:
    """The pods to delete: first those that are not ready, then by name, so that the choice is deterministic."""
    by_worth = sorted(pods, key=lambda pod: (pod.ready, pod.name))
    return [pod.name for pod in by_worth[: max(0, number)]]


def _is_submitted(observed: Observed) -> bool:
    return observed.driver_report is not None or observed.deployment_status == "Running"


def _group(ray_cluster: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    groups = (ray_cluster or {}).get("spec", {}).get("workerGroupSpecs") or [None]
    return groups[0] if groups else None
