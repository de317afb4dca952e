"""One reconciliation: observe, decide, write. Writes follow the order of the decision, and each may run twice."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from jobs.controller.actions import Action, Create, DeleteRayJob, EmitEvent, RequestStop, Scale
from jobs.controller.decision import Decision, decide
from jobs.controller.events import events
from jobs.controller.log import decision_line
from jobs.errors import NotFoundInKubernetes, StaleObject
from jobs.kube.api import KubeApi, micro_time
from jobs.kube.driver_report import STOP_KEY
from jobs.kube.names import progress_name
from jobs.kube.observed import Observed
from jobs.kube.resource import is_owned, key_of
from jobs.kube.status import JobStatus, status_of
from jobs.manifests.operator_config import OperatorConfig
from jobs.spec.job import API_VERSION
from ray_app.structured_log import fields

_log = logging.getLogger(__name__)

Observe = Callable[[Mapping[str, Any], JobStatus], Observed]


def reconcile(
    api: KubeApi, config: OperatorConfig, resource: Mapping[str, Any], observe: Observe, *, now: datetime
) -> float | None:
    """Decide the next step of a job, and execute it. Returns the seconds until the next reconciliation, or None.

    Raises StaleObject if `resource` is outdated; then nothing was written.
    """
    before = status_of(resource)
    observed = observe(resource, before)
    decision = decide(resource, before, config, observed, now=now)
    if conflict := _name_conflict(api, resource, decision.actions):
        decision = decide(resource, before, config, replace(observed, name_conflict=conflict), now=now)
    if decision.status != before:
        # Optimistic locking: this write fails for a decision from an outdated job, before any action.
        api.replace_status({**resource, "status": decision.status.to_dict()})
    if (line := decision_line(key_of(resource), before, decision)) is not None:
        _log.log(line.level, line.message, extra=fields(**line.fields))
    for action in decision.actions:
        _do(api, resource, action)
    for event in events(before, decision.status, decision.actions):
        _emit(api, resource, event, decision)
    return decision.seconds


def _name_conflict(api: KubeApi, resource: Mapping[str, Any], actions: Iterable[Action]) -> str:
    """The first object of the actions that exists already and does not belong to this job; empty if there is none.

    An object of an earlier job with this name is being deleted, and `_create` waits for that.
    """
    for action in actions:
        if isinstance(action, Create):
            kind, metadata = action.value["kind"], action.value["metadata"]
            there = api.get(kind, metadata["name"], namespace=metadata["namespace"])
            if there is not None and not _belongs_to(there, name=resource["metadata"]["name"]):
                return (
                    f"the job needs the {kind} {metadata['name']}, but an object of that name exists and does not "
                    "belong to the job; give the job another metadata.name, or remove the object"
                )
    return ""


def _belongs_to(value: Mapping[str, Any], *, name: str) -> bool:
    """Whether a job of this name owns the object."""
    owners = value.get("metadata", {}).get("ownerReferences", [])
    return any(owner["kind"] == "EmbeddingJob" and owner["name"] == name for owner in owners)


def _do(api: KubeApi, resource: Mapping[str, Any], action: Action) -> None:
    namespace, name = key_of(resource)
    match action:
        case Create(value):
            _create(api, value)
        case DeleteRayJob(ray_job):
            api.delete("RayJob", ray_job, namespace=namespace)
        case RequestStop(attempt):
            body = {"data": {STOP_KEY: attempt}}
            api.patch("ConfigMap", progress_name(name), body, namespace=namespace)
        case Scale():
            _scale(api, namespace, action)


def _create(api: KubeApi, value: Mapping[str, Any]) -> None:
    """Create the object if it is missing. An existing object is never changed, so that a job can take over nothing.

    Raises StaleObject if the existing object belongs to an earlier job of this name; it is being deleted.
    """
    metadata = value["metadata"]
    (owner,) = metadata["ownerReferences"]
    try:
        api.create(value)
    except StaleObject:
        there = api.get(value["kind"], metadata["name"], namespace=metadata["namespace"])
        if there is None or not is_owned(there, owner["uid"]):
            raise


def _scale(api: KubeApi, namespace: str, action: Scale) -> None:
    group = "/spec/workerGroupSpecs/0"
    patch: list[dict[str, Any]] = [
        # Ray's autoscaler can write the same field.
        {"op": "test", "path": f"{group}/replicas", "value": action.before},
        {"op": "replace", "path": f"{group}/replicas", "value": action.after},
        {"op": "add", "path": f"{group}/scaleStrategy", "value": {"workersToDelete": list(action.victims)}},
    ]
    api.patch("RayCluster", action.cluster, patch, namespace=namespace, how="json")


def _emit(api: KubeApi, resource: Mapping[str, Any], emit: EmitEvent, decision: Decision) -> None:
    """Create an Event. Its name is a hash of its content, so that repeated reconciliations create it once."""
    namespace, name = key_of(resource)
    uid, attempt = resource["metadata"]["uid"], decision.status.attempt
    identity = f"{uid} {attempt} {decision.status.observed_generation} {emit.reason} {emit.message}"
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}", "namespace": namespace},
        "eventTime": micro_time(),
        "type": emit.type,
        "reason": emit.reason,
        "note": emit.message[:1024],
        "action": "Reconcile",
        "reportingController": "f2llm.dev/operator",
        "reportingInstance": "f2llm-operator",
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": "EmbeddingJob",
            "name": name,
            "namespace": namespace,
            "uid": uid,
        },
    }
    try:
        api.create(event)
    except (StaleObject, NotFoundInKubernetes):
        return  # it exists already, or the namespace is being deleted
