"""The operator: `python -m jobs.controller`. Ends with 1 where it lost its lease; Kubernetes starts it again."""

import argparse
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

import kopf
from prometheus_client import start_http_server

from jobs.controller.handlers import registry_of
from jobs.controller.leader_election import LeaderLease
from jobs.errors import KubernetesError, NotFoundInKubernetes
from jobs.kube.api import KubeApi, connect
from jobs.manifests.operator_config import load_operator_config

LEASE = "f2llm-operator"
_COMES_WITH = {
    "EmbeddingJob": "the custom resource (helm/f2llm-operator)",
    "RayJob": "KubeRay",
    "RayCluster": "KubeRay",
}
_WAIT_SECONDS = 5.0
_log = logging.getLogger(__name__)


def main() -> None:
    """Wait for the lease, then watch until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m jobs.controller", description=__doc__)
    parser.add_argument("--config", type=Path, help="the operator's settings (jobs.manifests.operator_config), YAML")
    parser.add_argument("--namespace", action="append", help="look after this namespace only; may be repeated")
    parser.add_argument("--metrics-port", type=int, default=8080, help="0 serves no metrics")
    parser.add_argument(
        "--liveness", default=None, metavar="URL", help="where probes ask, as http://0.0.0.0:8081/healthz"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)  # it would say that every event was handled
    config, api = load_operator_config(arguments.config), connect()
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


def _wait_for_resources(api: KubeApi, namespaces: list[str] | None) -> None:
    """kopf watches what there is when it starts, and KubeRay may be installed later."""
    where: dict[str, Any] = {"namespace": namespaces[0]} if namespaces else {"everywhere": True}
    for kind in ("EmbeddingJob", "RayJob", "RayCluster"):
        while True:
            try:
                api.list(kind, **where)
                break
            except NotFoundInKubernetes:
                _log.warning("the cluster knows no %ss; waiting until %s is installed", kind, _COMES_WITH[kind])
            except KubernetesError as error:
                if not error.retryable:
                    raise
                _log.warning("%s; trying again", error.message)
            time.sleep(_WAIT_SECONDS)


if __name__ == "__main__":
    main()
