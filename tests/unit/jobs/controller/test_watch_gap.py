"""A watch that was broken for longer than the API server keeps its history, with the real kopf."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import kopf
import pytest
from aiohttp import web
from kubernetes import client
from prometheus_client import CollectorRegistry

from jobs.controller import handlers
from jobs.controller.health import Heartbeat
from jobs.kube.api import PAGE, KubeApi
from jobs.kube.names import JOB_LABEL
from jobs.manifests.operator_config import OperatorConfig
from tests.support.kubernetes_objects import resource

_KINDS = {
    "embeddingjobs": ("f2llm.dev/v1alpha1", "EmbeddingJob"),
    "rayjobs": ("ray.io/v1", "RayJob"),
    "rayclusters": ("ray.io/v1", "RayCluster"),
    "configmaps": ("v1", "ConfigMap"),
    "pods": ("v1", "Pod"),
    # kopf waits until these types exist; it does not list their objects.
    "events": ("v1", "Event"),
    "namespaces": ("v1", "Namespace"),
    "customresourcedefinitions": ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
}
_TOO_OLD = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


class Server:
    """The part of an API server that kopf and the operator use: lists, watches, and writes of a status."""

    def __init__(self) -> None:
        self.stored: dict[str, list[dict[str, Any]]] = {plural: [] for plural in _KINDS}
        self._watches: dict[str, list[asyncio.Queue[Any]]] = defaultdict(list)
        self.queries: list[tuple[str, Mapping[str, str]]] = []
        """(plural, query) of every list and watch."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        *_, last = parts = request.path.strip("/").split("/")
        if request.method != "GET":
            value = await request.json()
            if last == "status":
                (there,) = self.stored["embeddingjobs"]
                there |= value
                there["metadata"]["resourceVersion"] = str(int(there["metadata"]["resourceVersion"]) + 1)
                self.tell("embeddingjobs", {"type": "MODIFIED", "object": there})
            return web.json_response(value)
        if last in self.stored:
            self.queries.append((last, dict(request.query)))
            return await (self._watch(request, last) if "watch" in request.query else self._list(last))
        if parts == ["apis"]:
            versions = [version.split("/") for version, _ in _KINDS.values() if "/" in version]
            return web.json_response({"groups": [_group(*each) for each in versions]})
        resources = [
            {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["list", "watch"]}
            for plural, (version, kind) in _KINDS.items()
            if request.path in (f"/api/{version}", f"/apis/{version}")
        ]
        return web.json_response({"versions": ["v1"], "resources": resources})

    def tell(self, plural: str, event: dict[str, Any]) -> None:
        for each in self._watches[plural]:
            each.put_nowait(event)

    async def _list(self, plural: str) -> web.Response:
        version, kind = _KINDS[plural]
        metadata = {"resourceVersion": "100"}
        items = self.stored[plural]
        return web.json_response({"apiVersion": version, "kind": f"{kind}List", "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self._watches[plural].append(events := asyncio.Queue[Any]())
        while True:
            event = await events.get()
            await response.write(json.dumps(event).encode() + b"\n")
            if event is _TOO_OLD:
                self._watches[plural].remove(events)
                return response


def _group(name: str, version: str) -> dict[str, Any]:
    preferred = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [preferred], "preferredVersion": preferred}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.05)


async def _a_pod_goes_unseen(server: Server) -> list[str]:
    """The job's phases: while its last pod exists, and after the pod was deleted during a gap of the watch."""
    job = resource({"suspend": True})
    job["metadata"] |= {"resourceVersion": "1", "creationTimestamp": "2026-05-04T03:00:00Z"}
    job["status"] = {"phase": "Suspending", "attempt": 1, "observedGeneration": 1}
    labels = {"f2llm.dev/job": "job", "f2llm.dev/attempt": "1", "ray.io/node-type": "head"}
    pod = {"name": "job-1-head", "namespace": "team", "uid": "pod", "resourceVersion": "1", "labels": labels}
    server.stored["embeddingjobs"] = [job]
    server.stored["pods"] = [{"apiVersion": "v1", "kind": "Pod", "metadata": pod, "status": {}}]
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    with closing(KubeApi(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{port}")), "default")) as api:
        stop = asyncio.Event()
        registry = handlers.registry_of(api, OperatorConfig(), (), Heartbeat())
        operator = asyncio.create_task(
            kopf.operator(registry=registry, standalone=True, clusterwide=True, identity="one", stop_flag=stop)  # type: ignore[arg-type]
        )
        await until(lambda: "1 left" in job["status"].get("message", ""))
        phases = [job["status"]["phase"]]
        server.stored["pods"] = []
        await until(lambda: bool(server._watches["pods"]))
        server.tell("pods", _TOO_OLD)
        await until(lambda: job["status"]["phase"] != phases[0])
        stop.set()
        await operator
    await runner.cleanup()
    return [*phases, job["status"]["phase"]]


def test_the_operator_does_not_wait_for_a_pod_deleted_during_a_gap_of_the_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handlers, "_RESYNC_SECONDS", 1.0)
    monkeypatch.setattr(handlers, "REGISTRY", CollectorRegistry())

    server = Server()

    phases = asyncio.run(_a_pod_goes_unseen(server))

    assert phases == ["Suspending", "Suspended"]
    for plural, query in server.queries:
        if plural in ("rayjobs", "rayclusters", "configmaps", "pods"):
            assert query["labelSelector"] == JOB_LABEL
        if "watch" not in query:
            assert int(query["limit"]) <= PAGE
