"""helm/f2llm-platform on a real cluster: the trial profile, with its object store on a volume of this machine."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_io.data_spec import S3Options
from data_io.storage.store import Store, open_store
from tests.support.helm import PLATFORM_CHART, run_program
from tests.support.kubectl import Kubectl
from tests.support.real_cluster import IMAGE, KUBECONFIG, PLACE, SYSTEM, pod_program
from tests.support.s3_server import find_server

TEAM = "f2llm-trial"  # as in values-trial.yaml
CLAIM = "persistentvolumeclaim/f2llm-store"


@contextmanager
def volume(folder: Path) -> Iterator[Path]:
    """A volume in the temporary directory `folder` for the claim of the object store; yields the directory on the node.
    At the end the platform and then the volume are deleted.
    """
    place = folder / "volume"
    place.mkdir()
    os.chown(place, 65532, 65532)  # runAsUser of the chart
    for each in (place, *place.parents[:3]):
        each.chmod(0o755)
    kubectl = Kubectl(KUBECONFIG, SYSTEM)
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "trial"},
            "spec": {
                "capacity": {"storage": "20Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(place)},
                "claimRef": {"namespace": SYSTEM, "name": "f2llm-store"},
            },
        }
    )
    try:
        yield place
    finally:
        uninstall("platform")
        kubectl("delete", CLAIM, "--ignore-not-found")
        kubectl("delete", "pv", "trial")


def install_platform(**values: str | int) -> None:
    """The trial profile with additional `values`. The program of the store comes from this machine, which has no
    registry.
    """
    server = find_server()
    assert server is not None
    store = {"image": IMAGE, "imagePullPolicy": "Never", "program": pod_program(server)}
    sets = [f"--set=storage.store.{name}={value}" for name, value in store.items()]
    sets += [f"--set={name}={value}" for name, value in values.items()]
    profile = f"--values={PLATFORM_CHART / 'values-trial.yaml'}"
    run_program("helm", "install", "platform", str(PLATFORM_CHART), *PLACE, profile, *sets, "--wait", "--wait-for-jobs")


def uninstall(*releases: str) -> None:
    for release in releases:
        run_program("helm", "uninstall", release, *PLACE, "--ignore-not-found", "--wait")


def team_store(monkeypatch: pytest.MonkeyPatch, prefix: str, *, team: str = TEAM) -> Store:
    """The objects below `prefix` in the team's bucket, listed from this machine with the team's own key."""
    secret = Kubectl(KUBECONFIG, team).get("secret", "f2llm-store")["data"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, base64.b64decode(secret[name]).decode())
    address = Kubectl(KUBECONFIG, SYSTEM).get("service", "f2llm-store")["spec"]["clusterIP"]
    options = S3Options(endpoint_url=f"http://{address}:9000", region="us-east-1", allow_http=True)
    return open_store(f"s3://{team}/{prefix}", options)
