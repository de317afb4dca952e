"""The operator: `python -m jobs.controller`. It exits with 1 if it loses its Lease, and Kubernetes restarts it."""

import argparse
import logging
import os
import socket
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kopf

from jobs.controller.handlers import registry_of
from jobs.controller.health import Heartbeat, serve_health
from jobs.controller.leader_election import LeaderLease
from jobs.controller.log import configure_log
from jobs.errors import KubernetesError, NotFoundInKubernetes
from jobs.kube.api import KubeApi, connect
from jobs.manifests.operator_config import OperatorConfig, load_operator_config
from ray_app.structured_log import LogFormat, error_fields, fields

LEASE = "f2llm-operator"
_COMES_WITH = {
    "EmbeddingJob": "the chart helm/f2llm-operator",
    "RayJob": "KubeRay",
    "RayCluster": "KubeRay",
}
_WAIT_SECONDS = 5.0
_LEVELS = ("debug", "info", "warning", "error")
_log = logging.getLogger("jobs.controller")


def main() -> None:
    """Wait until this replica is the leader, then run until a signal arrives."""
    parser = argparse.ArgumentParser(prog="python -m jobs.controller", description=__doc__)
    parser.add_argument("--config", type=Path, help="YAML file with the settings of the operator")
    parser.add_argument("--namespace", action="append", help="watch only this namespace; can be repeated")
    parser.add_argument(
        "--metrics-port", type=int, default=8080, help="port of /metrics and of /healthz, for probes; 0: none"
    )
    parser.add_argument(
        "--log-format", choices=[*LogFormat], default=LogFormat.TEXT, help="format of log lines: key=value or JSON"
    )
    parser.add_argument("--log-level", choices=_LEVELS, default="info", help="debug includes all lines of kopf")
    arguments = parser.parse_args()
    configure_log(arguments.log_level, LogFormat(arguments.log_format))
    config, api = load_operator_config(arguments.config), connect()
    _log.info("operator started", extra=fields(**_settings(config, arguments.namespace)))
    heartbeat = Heartbeat()
    if arguments.metrics_port:
        serve_health(arguments.metrics_port, heartbeat)
    identity = os.environ.get("POD_NAME", f"{socket.gethostname()}-{os.getpid()}")
    namespace = os.environ.get("POD_NAMESPACE", api.namespace)
    lease = LeaderLease(api, name=LEASE, namespace=namespace, identity=identity)
    lease.wait()
    lease.keep(lost=lambda: os._exit(1))  # no reconciliation may continue while another leader runs
    _wait_for_resources(api, arguments.namespace)
    kopf.run(
        registry=registry_of(api, config, arguments.namespace or (), heartbeat),
        standalone=True,
        # Otherwise kopf looks up the user name, which a pod's user id may not have.
        identity=identity,  # type: ignore[arg-type]
        clusterwide=not arguments.namespace,
        namespaces=arguments.namespace or (),
    )
    lease.release()
    _log.info("operator stopped")


def _settings(config: OperatorConfig, namespaces: list[str] | None) -> dict[str, Any]:
    """The fields of the start-up log line. Profiles appear by name only: their environment can contain secrets."""
    known = config.model_dump(mode="json", exclude={"profiles"})
    return {"version": _version(), "namespaces": namespaces or "all", **known, "profiles": sorted(config.profiles)}


def _version() -> str:
    try:
        return version("f2llm-ray")
    except PackageNotFoundError:
        return "unknown"


def _wait_for_resources(api: KubeApi, namespaces: list[str] | None) -> None:
    """Wait for the CRDs: kopf watches only those that exist when it starts, and KubeRay may come later."""
    where: dict[str, Any] = {"namespace": namespaces[0]} if namespaces else {"everywhere": True}
    for kind in ("EmbeddingJob", "RayJob", "RayCluster"):
        while True:
            try:
                api.list(kind, **where, limit=1)
                break
            except NotFoundInKubernetes:
                _log.warning("waiting for a CRD", extra=fields(kind=kind, comes_with=_COMES_WITH[kind]))
            except KubernetesError as error:
                if not error.retryable:
                    raise
                _log.warning(
                    "API server not ready", extra=fields(**error_fields(error), retry_in_seconds=_WAIT_SECONDS)
                )
            time.sleep(_WAIT_SECONDS)


if __name__ == "__main__":
    main()
