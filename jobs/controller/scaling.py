"""How many worker pods a RayCluster should have, and which of them go first."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.controller.actions import Scale
from jobs.kube.observed import Observed, Pod
from jobs.spec.job import EmbeddingJob


def scale(job: EmbeddingJob, observed: Observed, *, attempt: int, waited_too_long: bool) -> Scale | None:
    """The change that a RayCluster needs, None where it is as it should be.

    Pods that do not fit wait without harm while a run trains: it takes them in when they come. A run that has not
    begun waits for all of them, though, so that after a while the cluster is cut down to those that are ready.
    """
    group = _group(observed.ray_cluster)
    if group is None or observed.ray_cluster is None:
        return None
    pods = observed.workers(attempt)
    now = int(group.get("replicas") or 0)
    wanted = min(job.spec.workers.replicas, int(group.get("maxReplicas") or now))
    if not _is_submitted(observed) and wanted > (ready := sum(pod.ready for pod in pods)):
        # Once cut down it stays so until the run has begun: pods that come and go would keep it from beginning.
        cut_before = now == ready
        least = job.spec.workers.min or wanted
        wanted = ready if (waited_too_long and ready >= least) or (cut_before and now) else wanted
    if wanted == now:
        return None
    return Scale(observed.ray_cluster["metadata"]["name"], now, wanted, tuple(victims(pods, len(pods) - wanted)))


def victims(pods: Sequence[Pod], number: int) -> list[str]:
    """The pods to go: those that are not ready first, then by name, so that the choice is the same each time."""
    by_worth = sorted(pods, key=lambda pod: (pod.ready, pod.name))
    return [pod.name for pod in by_worth[: max(0, number)]]


def _is_submitted(observed: Observed) -> bool:
    return observed.driver_report is not None or observed.deployment_status == "Running"


def _group(ray_cluster: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    groups = (ray_cluster or {}).get("spec", {}).get("workerGroupSpecs") or [None]
    return groups[0] if groups else None
