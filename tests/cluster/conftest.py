"""A real Kubernetes for the tests of this directory."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_io.storage.store import open_store
from jobs.kube.api import KubeApi, connect
from tests.support.control_plane import ControlPlane, missing_programs, run_control_plane
from tests.support.custom_resources import KUBERAY_TYPES, install_kuberay_types, install_our_type
from tests.support.kubectl import Kubectl
from tests.support.real_cluster import RealCluster, run_real_cluster, what_is_missing
from tests.support.small_training import write_small_dataset


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with our CRD, without nodes."""
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not built; tests/cluster/build.sh builds a Kubernetes (once, about 20 min)")
    with run_control_plane(tmp_path_factory.mktemp("control-plane")) as running:
        install_our_type(Kubectl(running.kubeconfig))
        yield running


@pytest.fixture(scope="session")
def kuberay_types(control_plane: ControlPlane) -> ControlPlane:
    """The API server, with KubeRay's CRDs too."""
    if not KUBERAY_TYPES.is_dir():
        pytest.skip("KubeRay's resources are not there; tests/cluster/build.sh kuberay-manifests fetches them")
    install_kuberay_types(Kubectl(control_plane.kubeconfig))
    return control_plane


@pytest.fixture(scope="session")
def connection(kuberay_types: ControlPlane) -> Iterator[KubeApi]:
    """One for all tests, since a thread that a test leaves running can continue to use it."""
    with closing(connect(kubeconfig=str(kuberay_types.kubeconfig))) as connected:
        yield connected


@pytest.fixture
def api(connection: KubeApi) -> Iterator[KubeApi]:
    """The API server for a test that submits jobs; they are deleted at its end."""
    yield connection
    for job in connection.list("EmbeddingJob")["items"]:
        connection.delete("EmbeddingJob", job["metadata"]["name"])


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    return Kubectl(control_plane.kubeconfig)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """A Kubernetes that runs pods, with a small data set in the bucket of its S3 server."""
    if missing := what_is_missing():
        pytest.skip(missing)
    with run_real_cluster(tmp_path_factory.mktemp("cluster")) as running:
        write_small_dataset(open_store("s3://bucket/data", running.s3), scale=4)
        yield running


def sample(name: str) -> dict[str, Any]:
    """A job spec of k8s/samples."""
    value: dict[str, Any] = yaml.safe_load((Path("k8s/samples") / f"{name}.yaml").read_text())
    return value
