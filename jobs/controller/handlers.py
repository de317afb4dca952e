"""kopf only as a watch engine: its indices hold the existing objects, and its events add keys to the queue.

No kopf handler that sets annotations or finalizers on a job is used, so that a job can always be deleted.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import kopf
from prometheus_client import REGISTRY

from jobs.controller.cache import Cache, Key, slim_config_map, slim_job, slim_ray_cluster, slim_ray_job
from jobs.controller.health import Heartbeat
from jobs.controller.metrics import RECONCILE_FAILURES, RECONCILE_SECONDS, JobsCollector
from jobs.controller.reconcile import reconcile
from jobs.controller.work_queue import WorkQueue
from jobs.errors import F2LLMError, StaleObject
from jobs.kube.api import PAGE, KubeApi
from jobs.kube.driver_report import driver_report_in
from jobs.kube.names import JOB_LABEL, attempt_id, progress_name
from jobs.kube.observed import Observed, pod_of
from jobs.kube.resource import is_owned, key_of, uid_of
from jobs.kube.status import JobStatus
from jobs.manifests.operator_config import OperatorConfig
from ray_app.structured_log import error_fields, fields

_log = logging.getLogger(__name__)
_WORKERS = 4
_RESYNC_SECONDS = 300.0
_OURS = {JOB_LABEL: kopf.PRESENT}
_CHILDREN = {
    "RayJob": ("ray.io", "v1", "rayjobs"),
    "RayCluster": ("ray.io", "v1", "rayclusters"),
    "ConfigMap": ("", "v1", "configmaps"),
    "Pod": ("", "v1", "pods"),
}
"""Kinds of objects that belong to jobs. Only those with the label of a job are listed and watched."""


def registry_of(
    api: KubeApi, config: OperatorConfig, namespaces: Sequence[str], heartbeat: Heartbeat
) -> kopf.OperatorRegistry:
    """All handlers of the operator for these namespaces; an empty list means all namespaces."""
    registry = kopf.OperatorRegistry()
    _index(registry)
    _Operator(api, config, namespaces, heartbeat).register(registry)
    return registry


def _index(registry: kopf.OperatorRegistry) -> None:
    @kopf.index("f2llm.dev", "v1alpha1", "embeddingjobs", id="jobs", registry=registry)
    def jobs(*, body: kopf.Body, **_: Any) -> dict[Key, Any]:
        return {key_of(body): (uid_of(body), slim_job(body))}

    @kopf.index("ray.io", "v1", "rayjobs", id="ray_jobs", registry=registry, labels=_OURS)
    def ray_jobs(*, body: kopf.Body, **_: Any) -> dict[Key, Any]:
        return {key_of(body): (uid_of(body), slim_ray_job(body))}

    @kopf.index("ray.io", "v1", "rayclusters", id="ray_clusters", registry=registry, labels=_OURS)
    def ray_clusters(*, body: kopf.Body, **_: Any) -> dict[Key, Any]:
        return {key_of(body): (uid_of(body), slim_ray_cluster(body))}

    @kopf.index("", "v1", "configmaps", id="config_maps", registry=registry, labels=_OURS)
    def config_maps(*, body: kopf.Body, **_: Any) -> dict[Key, Any]:
        return {key_of(body): (uid_of(body), slim_config_map(body))}

    @kopf.index("", "v1", "pods", id="pods", registry=registry, labels=_OURS)
    def pods(*, body: kopf.Body, labels: Mapping[str, str], **_: Any) -> dict[Key, Any]:
        return {(key_of(body)[0], labels[JOB_LABEL]): (uid_of(body), pod_of(body))}


class _Operator:
    """The queue and its worker tasks."""

    def __init__(self, api: KubeApi, config: OperatorConfig, namespaces: Sequence[str], heartbeat: Heartbeat) -> None:
        self._api, self._config, self._namespaces = api, config, namespaces
        self._heartbeat = heartbeat
        self._queue: WorkQueue[Key]
        self._cache: Cache
        self._tasks: list[asyncio.Task[None]] = []

    def register(self, registry: kopf.OperatorRegistry) -> None:
        kopf.on.login(registry=registry)(self._log_in)
        kopf.on.startup(registry=registry)(self._start)
        kopf.on.cleanup(registry=registry)(self._end)
        kopf.on.event("f2llm.dev", "v1alpha1", "embeddingjobs", registry=registry)(self._on_job)
        for group, version, plural in _CHILDREN.values():
            kopf.on.event(group, version, plural, registry=registry, labels=_OURS)(self._on_child)

    def _log_in(self, **_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(**asdict(self._api.access()))

    async def _start(self, settings: kopf.OperatorSettings, indices: Any = None, **indexed: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True  # it would need permission to list all resources and namespaces
        settings.watching.server_timeout, settings.watching.client_timeout = 300, 360
        settings.networking.request_timeout = 30
        # Without these, kopf lists all ConfigMaps and pods of the cluster, each list in one answer.
        settings.watching.chunk_size = PAGE
        for resource in _CHILDREN.values():
            settings.watching.label_selectors[resource] = JOB_LABEL
        names = ("jobs", "ray_jobs", "ray_clusters", "config_maps", "pods")
        self._cache = Cache(**{name: indexed[name] for name in names})
        self._queue = WorkQueue()
        REGISTRY.register(JobsCollector(self._cache.jobs, self._cache.run_of, lambda: len(self._queue)))
        self._tasks = [asyncio.create_task(self._work()) for _ in range(_WORKERS)]
        self._tasks.append(asyncio.create_task(self._drop_vanished()))
        self._tasks.append(asyncio.create_task(self._heartbeat.keep()))

    async def _end(self, **_: Any) -> None:
        self._heartbeat.stop()
        for task in self._tasks:
            task.cancel()

    async def _on_job(self, *, body: kopf.Body, **_: Any) -> None:
        self._queue.add(key_of(body))

    async def _on_child(self, *, body: kopf.Body, labels: Mapping[str, str], **_: Any) -> None:
        self._queue.add((key_of(body)[0], labels[JOB_LABEL]))

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            resource = self._cache.job(key)
            if resource is None or "deletionTimestamp" in resource["metadata"]:
                self._queue.done(key)  # Kubernetes deletes the objects that it owned
                continue
            try:
                with RECONCILE_SECONDS.time():
                    again = await asyncio.to_thread(
                        reconcile, self._api, self._config, resource, self._observe, now=datetime.now(UTC)
                    )
            except Exception as error:  # every error is logged here, and the key is retried later
                RECONCILE_FAILURES.labels(type(error).__name__).inc()
                seconds = self._queue.failed(key)
                _log.log(
                    # A concurrent change of the job is normal: nothing was written, and a retry follows.
                    logging.DEBUG if isinstance(error, StaleObject) else logging.ERROR,
                    "reconciliation failed",
                    exc_info=None if isinstance(error, F2LLMError) else error,
                    extra=fields(
                        job="/".join(key),
                        attempt=(resource.get("status") or {}).get("attempt", 0),
                        **error_fields(error),
                        retry_in_seconds=round(seconds, 1),
                    ),
                )
            else:
                self._queue.done(key)
                self._queue.add_after(key, _RESYNC_SECONDS if again is None else again)

    async def _drop_vanished(self) -> None:
        """Forget objects that were deleted while a watch was broken. kopf lists again, but drops no missing ones."""
        while True:
            await asyncio.sleep(_RESYNC_SECONDS)
            observed = self._cache.uids()  # before the list: newer objects are not in the list
            try:
                existing = await asyncio.to_thread(self._existing)
            except F2LLMError as error:
                again = fields(**error_fields(error), retry_in_seconds=_RESYNC_SECONDS)
                _log.warning("resync failed", extra=again)
                continue
            if self._cache.forget(observed - existing):
                _log.info("objects deleted while a watch was broken", extra=fields(objects=len(observed - existing)))
                for job in self._cache.jobs():
                    self._queue.add(key_of(job))

    def _existing(self) -> set[str]:
        places = self._namespaces or (None,)
        return {
            uid
            for kind, selector in (("EmbeddingJob", ""), *((kind, JOB_LABEL) for kind in _CHILDREN))
            for namespace in places
            for uid in self._api.uids(kind, namespace=namespace, selector=selector)
        }

    def _observe(self, resource: Mapping[str, Any], status: JobStatus) -> Observed:
        observed = self._cache.of(resource, status)
        if not (status.active and observed.has_ended):
            return observed
        # An attempt is closed only once, and the watch may not have delivered the driver's last report yet.
        namespace, name = key_of(resource)
        config_map = self._api.get("ConfigMap", progress_name(name), namespace=namespace)
        if config_map is None or not is_owned(config_map, uid_of(resource)):
            return observed
        attempt = attempt_id(uid_of(resource), status.attempt)
        return replace(observed, driver_report=driver_report_in(config_map, attempt=attempt))
