"""The operator: `python -m jobs.controller`. Ends with 1 where it lost its lease; Kubernetes starts it again."""

import argparse
import logging
import os
import socket
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kopf
from prometheus_client import start_http_server

from jobs.controller.handlers import registry_of
from jobs.controller.leader_election import LeaderLease
from jobs.controller.log import configure_log
from jobs.errors import KubernetesError, NotFoundInKubernetes
from jobs.kube.api import KubeApi, connect
from jobs.manifests.operator_config import OperatorConfig, load_operator_config
from ray_app.structured_log import LogFormat, error_fields, fields

LEASE = "f2llm-operator"
_COMES_WITH = {
    "EmbeddingJob": "the custom resource (helm/f2llm-operator)",
    "RayJob": "KubeRay",
    "RayCluster": "KubeRay",
}
_WAIT_SECONDS = 5.0
_LEVELS = ("debug", "info", "warning", "error")
_log = logging.getLogger("jobs.controller")


def main() -> None:
    """Wait for the lease, then watch until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m jobs.controller", description=__doc__)
    parser.add_argument("--config", type=Path, help="the operator's settings (jobs.manifests.operator_config), YAML")
    parser.add_argument("--namespace", action="append", help="look after this namespace only; may be repeated")
    parser.add_argument("--metrics-port", type=int, default=8080, help="0 serves no metrics")
    parser.add_argument(
        "--liveness", default=None, metavar="URL", help="where probes ask, as http://0.0.0.0:8081/healthz"
    )
    parser.add_argument(
        "--log-format", choices=[*LogFormat], default=LogFormat.TEXT, help="lines of key=value, or JSON"
    )
    parser.add_argument("--log-level", choices=_LEVELS, default="info", help="debug has the lines of kopf too")
    arguments = parser.parse_args()
    configure_log(arguments.log_level, LogFormat(arguments.log_format))
    config, api = load_operator_config(arguments.config), connect()
    _log.info("operator started", extra=fields(**_settings(config, arguments.namespace)))
    if arguments.metrics_port:
        start_http_server(arguments.metrics_port)
    identity = os.environ.get("POD_NAME", f"{socket.gethostname()}-{os.getpid()}")
    namespace = os.environ.get("POD_NAMESPACE", api.namespace)
    lease = LeaderLease(api, name=LEASE, namespace=namespace, identity=identity)
    lease.wait()
    lease.keep(lost=lambda: os._exit(1))  # no half-done step may go on beside the next leader's
    _wait_for_resources(api, arguments.namespace)
    kopf.run(
        registry=registry_of(api, config, arguments.namespace or ()),
        standalone=True,
        # Else kopf looks for the user's name, and a pod's user may have none.
        identity=identity,  # type: ignore[arg-type]
        clusterwide=not arguments.namespace,
        namespaces=arguments.namespace or (),
        liveness_endpoint=arguments.liveness,
    )
    lease.release()
    _log.info("operator stopped")


def _settings(config: OperatorConfig, namespaces: list[str] | None) -> dict[str, Any]:
    """What the start-up line says. Of profiles only the names: their environment may hold secrets."""
    known = config.model_dump(mode="json", exclude={"profiles"})
    return {"version": _version(), "namespaces": namespaces or "all", **known, "profiles": sorted(config.profiles)}


def _version() -> str:
    try:
        return version("f2llm-ray")
    except PackageNotFoundError:
        return "unknown"


def _wait_for_resources(api: KubeApi, namespaces: list[str] | None) -> None:
    """kopf watches what there is when it starts, and KubeRay may be installed later."""
    where: dict[str, Any] = {"namespace": namespaces[0]} if namespaces else {"everywhere": True}
    for kind in ("EmbeddingJob", "RayJob", "RayCluster"):
        while True:
            try:
                api.list(kind, **where)
                break
            except NotFoundInKubernetes:
                _log.warning("waiting for a custom resource", extra=fields(kind=kind, comes_with=_COMES_WITH[kind]))
            except KubernetesError as error:
                if not error.retryable:
                    raise
                _log.warning(
                    "API server not ready", extra=fields(**error_fields(error), retry_in_seconds=_WAIT_SECONDS)
                )
            time.sleep(_WAIT_SECONDS)


if __name__ == "__main__":
    main()
