"""A real Kubernetes without nodes for tests: etcd, API server and controllers on a temporary directory and free ports.

It validates, defaults, prunes, authorizes, stores and collects garbage like any cluster, but runs no pods.
"""

import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.s3_server import free_port

_VERSIONS = Path(__file__).parents[1] / "cluster" / "versions.sh"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
START_SECONDS = 90.0
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True)
class ControlPlane:
    """A running API server; `kubeconfig` has the credentials of its administrator."""

    address: str
    kubeconfig: Path
    token: str = field(repr=False)
    folder: Path
    server: "_Program" = field(repr=False)

    def answers(self) -> list[dict[str, Any]]:
        """The requests and answers of the API server so far, from its audit log."""
        whole, _, _ = (self.folder / "audit.log").read_text().rpartition("\n")  # a line may be half-written
        return [json.loads(line) for line in whole.splitlines()]

    def kubeconfig_of(self, token: str, name: str) -> Path:
        """A kubeconfig with other credentials."""
        return _write_kubeconfig(self.folder, self.address, token, name)

    @contextmanager
    def server_away(self) -> Iterator[None]:
        """Kill the API server. It runs again after the block, with everything that it had stored."""
        self.server.kill()
        yield
        self.server.start()
        _wait_until_ready(self.address, self.server)


@cache
def programs_folder() -> Path:
    """The directory with the programs that tests/cluster/build.sh builds."""
    say = ["bash", "-c", f'. "{_VERSIONS}"; echo "$bin"']
    return Path(subprocess.run(say, capture_output=True, text=True, check=True).stdout.strip())


def missing_programs(names: tuple[str, ...] = PROGRAMS) -> list[str]:
    """Programs that have not been built."""
    return [name for name in names if not os.access(programs_folder() / name, os.X_OK)]


@contextmanager
def run_control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Start it on `folder` (empty); always stop it at the end. Raises RuntimeError with the log."""
    with ExitStack() as running:
        client, peer, port = free_port(), free_port(), free_port()
        store, token = f"http://127.0.0.1:{client}", secrets.token_urlsafe(24)
        keys = folder / "keys"
        keys.mkdir()
        _make_keys(keys)
        (keys / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        etcd = ["etcd", "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync", "--listen-client-urls", store]
        etcd += ["--advertise-client-urls", store, "--listen-peer-urls", f"http://127.0.0.1:{peer}"]
        etcd += ["--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"]
        etcd += ["--initial-cluster", f"default=http://127.0.0.1:{peer}"]
        _started(etcd, folder, running)
        server = ["kube-apiserver", f"--etcd-servers={store}", f"--secure-port={port}", "--bind-address=127.0.0.1"]
        server += [f"--cert-dir={keys}", f"--token-auth-file={keys}/tokens.csv", "--authorization-mode=RBAC"]
        server += [f"--service-account-key-file={keys}/sa.pub", f"--service-account-signing-key-file={keys}/sa.key"]
        server += ["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16"]
        # As in stricter clusters: creating an object that blocks its owner's deletion needs an additional permission.
        server += ["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"]
        # Webhooks: no node has the address of a Service, so the API server connects to its endpoints.
        server += ["--enable-aggregator-routing=true"]
        (folder / "audit.yaml").write_text(json.dumps(_AUDIT))
        server += [f"--audit-policy-file={folder}/audit.yaml", f"--audit-log-path={folder}/audit.log"]
        program = _started(server, folder, running)
        address = f"https://127.0.0.1:{port}"
        _wait_until_ready(address, program)
        kubeconfig = _write_kubeconfig(folder, address, token)
        manager = ["kube-controller-manager", f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        manager += [f"--service-account-private-key-file={keys}/sa.key", f"--root-ca-file={keys}/apiserver.crt"]
        _started([*manager, "--use-service-account-credentials=true"], folder, running)
        yield ControlPlane(address, kubeconfig, token, folder, program)


def _make_keys(folder: Path) -> None:
    for command in (f"genrsa -out {folder}/sa.key 2048", f"rsa -in {folder}/sa.key -pubout -out {folder}/sa.pub"):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)


class _Program:
    """One of PROGRAMS, which can be restarted."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command = [str(programs_folder() / command[0]), *command[1:]]
        if killer := shutil.which("setpriv"):  # so that a killed test run leaves no process running
            self._command = [killer, "--pdeathsig", "KILL", *self._command]
        self._folder, self.log = folder, folder / f"{command[0]}.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()


def _started(command: list[str], folder: Path, running: ExitStack) -> _Program:
    """A program that stops at the end of `running`."""
    program = _Program(command, folder)
    program.start()
    running.callback(program.stop)
    return program


def _wait_until_ready(address: str, server: _Program) -> None:
    context = ssl._create_unverified_context()  # the certificate is being made
    handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    opener = urllib.request.build_opener(*handlers)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with opener.open(f"{address}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"kube-apiserver does not start:\n{server.log.read_text(errors='replace')[-3000:]}")


def _write_kubeconfig(folder: Path, address: str, token: str, name: str = "kubeconfig") -> Path:
    path = folder / name
    cluster = {"server": address, "certificate-authority": str(folder / "keys" / "apiserver.crt")}  # signed by itself
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path
