"""A real Ray whose processes connect with the certificates that pods get."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.manifests.tls import ENVIRONMENT
from tests.support.authority import write_authority
from tests.support.ray_nodes import RayNodes, ray_nodes

# The driver is at the head, which has no CPUs: the object comes from the other node.
DRIVER = """
import ray
ray.init(logging_level="ERROR", log_to_driver=False)
make = ray.remote(lambda: (ray.get_runtime_context().get_node_id(), bytes(2_000_000)))
node, content = ray.get(make.remote())
print(node != ray.get_runtime_context().get_node_id(), len(content))
"""


def write_files(pod: Path, ca: Path, *names: str) -> dict[str, str]:
    """What the init container writes; returns the environment variables of the pod's container."""
    pod.mkdir()
    command = [sys.executable, "-m", "ray_app.ray_runtime.certificates", str(ca), str(pod), *names]
    subprocess.run(command, check=True, capture_output=True)
    return {name: value.replace("/etc/f2llm-tls", str(pod)) for name, value in ENVIRONMENT.items()}


def own_address() -> str:
    """The address at which Ray's processes listen."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Path:
    """An intermediate one, which is all that its pods trust."""
    return write_authority(folder / "ca", parent=write_authority(folder / "root"))


@pytest.fixture(scope="module")
def nodes(folder: Path, authority: Path) -> Iterator[RayNodes]:
    with ray_nodes(**write_files(folder / "pod", authority, own_address())) as running:
        running.add()
        yield running


def head_answers(nodes: RayNodes, **changed: str) -> bool:
    """Whether the head answers within 8 s, when it is asked as KubeRay does before it starts a worker."""
    environment = {**os.environ, **nodes.environment(), **changed}
    command = [Path(sys.executable).with_name("ray"), "health-check", "--address", environment["RAY_ADDRESS"]]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=8, check=False)
    except subprocess.TimeoutExpired:  # a client that is refused tries again
        return False
    return done.returncode == 0


def greeting(nodes: RayNodes, *, tls: ssl.SSLContext | None = None) -> bytes:
    """The first bytes that the head sends to a client of HTTP/2, over TLS or in clear; empty if it hangs up."""
    host, _, port = nodes.environment()["RAY_ADDRESS"].rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=5)
    try:
        with tls.wrap_socket(plain, server_hostname=host) if tls else plain as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
            return connection.recv(9)
    except (ConnectionError, ssl.SSLError):
        return b""


def client(environment: dict[str, str], *, shows: bool) -> ssl.SSLContext:
    """A client that trusts the authority of `environment`, and shows the certificate of `environment` or none."""
    context = ssl.create_default_context(cafile=environment["RAY_TLS_CA_CERT"])
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC does
    context.set_alpn_protocols(["h2"])
    if shows:
        context.load_cert_chain(environment["RAY_TLS_SERVER_CERT"], environment["RAY_TLS_SERVER_KEY"])
    return context


def test_a_driver_with_a_certificate_gets_an_object_from_another_node(nodes: RayNodes) -> None:
    environment = {**os.environ, **nodes.environment()}

    done = subprocess.run([sys.executable, "-c", DRIVER], env=environment, capture_output=True, text=True, timeout=60)

    assert done.stdout == "True 2000000\n", done.stderr


def test_a_head_answers_only_to_certificates_of_its_authority(nodes: RayNodes, folder: Path) -> None:
    pod = nodes.environment()
    other = write_files(folder / "stranger", write_authority(folder / "other"), own_address())
    stranger = {**other, "RAY_TLS_CA_CERT": pod["RAY_TLS_CA_CERT"]}

    assert greeting(nodes, tls=client(pod, shows=True)) != b""
    assert greeting(nodes, tls=client(pod, shows=False)) == b""
    assert greeting(nodes, tls=client(stranger, shows=True)) == b""
    assert greeting(nodes) == b""


def test_ray_checks_the_name_of_a_head(nodes: RayNodes) -> None:
    port = nodes.environment()["RAY_ADDRESS"].rpartition(":")[2]

    assert head_answers(nodes, RAY_ADDRESS=f"localhost:{port}")
    assert not head_answers(nodes, RAY_ADDRESS=f"127.0.0.9:{port}")
