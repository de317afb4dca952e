"""helm/f2llm-platform on a real cluster: the trial profile, its store on a volume here, and what is in it."""

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

TEAM = "f2llm-trial"  # as values-trial.yaml has it
CLAIM = "persistentvolumeclaim/f2llm-store"


@contextmanager
def volume(folder: Path) -> Iterator[Path]:
    """A volume in `folder`, which pytest made, that waits for the claim of the store; gives the directory on the node.

    It goes at the end, and before it the platform.
    """
    place = folder / "volume"
    place.mkdir()
    os.chown(place, 1000, 1000)
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
    """The trial profile with further `values`; the store's program is this machine's, which has no registry."""
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
    """What lies below `prefix` of the team's bucket, by the team's own key, as a client of this machine reaches it."""
    secret = Kubectl(KUBECONFIG, team).get("secret", "f2llm-store")["data"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, base64.b64decode(secret[name]).decode())
    address = Kubectl(KUBECONFIG, SYSTEM).get("service", "f2llm-store")["spec"]["clusterIP"]
    options = S3Options(endpoint_url=f"http://{address}:9000", region="us-east-1", allow_http=True)
    return open_store(f"s3://{team}/{prefix}", options)
