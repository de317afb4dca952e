"""The real Kueue with an API server without nodes: it judges RayJobs, and no pods follow."""

import base64
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.control_plane import ControlPlane, programs_folder
from tests.support.kubectl import Kubectl, Refused
from tests.support.s3_server import free_port
from tests.support.waiting import wait_for

_MANIFESTS = programs_folder().parent / "kueue"
_SYSTEM, _SERVICE, _SECRET = "kueue-system", "kueue-webhook-service", "kueue-webhook-server-cert"
_OVERLAY = """\
resources: [kueue/default]
patches:
- target: {kind: Deployment, name: kueue-controller-manager}
  patch: |
    - {op: replace, path: /spec/replicas, value: 0}
- target: {kind: APIService}
  patch: |
    $patch: delete
    apiVersion: apiregistration.k8s.io/v1
    kind: APIService
    metadata: {name: any}
"""


@contextmanager
def run_kueue(running: ControlPlane, folder: Path) -> Iterator[None]:
    """Kueue with its integration for RayJobs, until the end of the block. `folder` gets its manifests and keys."""
    kubectl, port = Kubectl(running.kubeconfig, _SYSTEM), free_port()
    shutil.copytree(_MANIFESTS, folder / "kueue")
    (folder / "kustomization.yaml").write_text(_OVERLAY)
    kubectl("create", "namespace", _SYSTEM)
    kubectl("apply", "--server-side", "--namespace=", "-f", "-", stdin=kubectl("kustomize", str(folder)))
    kubectl.apply(_endpoint(port))
    keys = folder / "keys"
    keys.mkdir()
    with (folder / "kueue.log").open("wb") as log:
        process = subprocess.Popen(
            [programs_folder() / "kueue", f"--config={_config(folder, port)}"],
            env={**os.environ, "KUBECONFIG": str(running.kubeconfig)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_for(lambda: _keys(kubectl, keys), "Kueue makes its certificate", seconds=60)
        wait_for(lambda: _answers(kubectl), "Kueue's webhooks answer", seconds=90)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _config(folder: Path, port: int) -> Path:
    value = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": _SYSTEM,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{free_port()}"},
        "metrics": {"bindAddress": "0"},
        "leaderElection": {"leaderElect": False},
        "webhook": {"port": port, "certDir": str(folder / "keys")},
        "internalCertManagement": {"enable": True, "webhookServiceName": _SERVICE, "webhookSecretName": _SECRET},
        "integrations": {"frameworks": ["ray.io/rayjob"]},
        "featureGates": {"VisibilityOnDemand": False},
    }
    path = folder / "kueue.json"
    path.write_text(json.dumps(value))
    return path


def _endpoint(port: int) -> dict[str, Any]:
    """Kueue's process as the pod of its Service."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.connect(("192.0.2.1", 9))  # sends nothing; the address of this machine
        address = connection.getsockname()[0]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kueue-here", "labels": {"kubernetes.io/service-name": _SERVICE}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
    }


def _keys(kubectl: Kubectl, folder: Path) -> bool:
    """Write Kueue's keys into the directory into which a kubelet would mount them. False if they are not made yet."""
    data = kubectl.get("secret", _SECRET).get("data") or {}
    for name, value in data.items():
        (folder / name).write_bytes(base64.b64decode(value))
    return "tls.crt" in data


def _answers(kubectl: Kubectl) -> bool:
    flavor = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "any"}}
    try:
        kubectl.apply(flavor, "--dry-run=server")
    except Refused:
        return False
    return True
