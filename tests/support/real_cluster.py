"""A whole Kubernetes on this machine for tests: nodes, pods, KubeRay, the operator and an S3 server that pods reach."""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_io.data_spec import S3Options
from tests.support.control_plane import missing_programs
from tests.support.helm import OPERATOR_CHART, run_program
from tests.support.kubectl import Kubectl
from tests.support.s3_server import find_server

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "cluster"
KUBECONFIG = Path("/run/f2llm-lab/kubeconfig")
NAMESPACE, SYSTEM = "team", "f2llm-system"
IMAGE = "localhost/f2llm-ray:test"
PLACE = (f"--kubeconfig={KUBECONFIG}", f"--namespace={SYSTEM}")
"""Names of the Helm releases."""
_BRIDGE = "10.244.0.1"  # the address of this machine for pods
_S3_PORT = 7070
_API_SERVER_PORT = 16443  # tests/cluster/up.sh
_LOCK = Path("/run/f2llm-lab.lock")
_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns")
_SYS_ADMIN, _NET_ADMIN = 21, 12  # linux/capability.h
_SYSTEM_PYTHON = "/usr/bin/python{}.{}".format(*sys.version_info)  # as tests/cluster/pod_python.sh asks for
SECRETS = ("testkey8d41", "testsecret1234")
"""The keys of the object store, which only a Secret may contain."""
_KEYS = dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), SECRETS, strict=True)) | {"AWS_REGION": "us-east-1"}


@dataclass(frozen=True)
class RealCluster:
    """`kubectl` has the permissions of the administrator, in a namespace that admits only restricted pods."""

    kubectl: Kubectl
    s3: S3Options
    bucket: Path

    def delete_operator(self) -> None:
        """Kill the pod at once, without SIGTERM, as if its node had failed."""
        labels = "app.kubernetes.io/name=f2llm-operator"
        Kubectl(KUBECONFIG, SYSTEM)("delete", "pods", "-l", labels, "--force", "--grace-period=0")


def what_is_missing() -> str:
    """Why such a cluster cannot run here, in one line; empty if it can."""
    if os.geteuid() != 0:
        return "a cluster with nodes needs root"
    if not {_SYS_ADMIN, _NET_ADMIN} <= _capabilities() or not os.access("/sys/fs/cgroup", os.W_OK):
        return "a cluster with nodes needs mounts, networks and cgroups of its own, which this machine does not allow"
    if closed := [each for each in (ROOT, *ROOT.parents) if not each.stat().st_mode & stat.S_IXOTH]:
        return f"pods that are not root cannot read this checkout, for {closed[-1]} is closed to them"
    needed = ("containerd", "runc", "ip", "nft", "conntrack", "setpriv", "kubectl")
    tools = [name for name in needed if not shutil.which(name)]
    tools += missing_programs((*_PROGRAMS, "kuberay-manifests", "kuberay-operator", "helm", "pause"))
    if not Path(_SYSTEM_PYTHON).exists():
        tools.append(_SYSTEM_PYTHON)
    if find_server() is None:
        tools.append("versitygw")
    return f"missing: {', '.join(tools)} (apt-get, tests/cluster/build.sh)" if tools else ""


def _capabilities() -> set[int]:
    """The capabilities of this process, by the kernel's numbers."""
    status = Path("/proc/self/status").read_text()
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    return {bit for bit in range(mask.bit_length()) if mask >> bit & 1}


@contextmanager
def run_real_cluster(folder: Path) -> Iterator[RealCluster]:
    """Start everything; always stop it at the end. Raises AssertionError if a part does not start."""
    pods_path = _script("pod_python.sh").strip().splitlines()[-1]
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with _only_one():
        try:
            _script("up.sh", LAB_POD_PATH=f"{pods_path}:{system}")
            _script("kuberay.sh")
            install_operator()
            with _s3_server(folder) as bucket:
                yield RealCluster(_namespace(), _s3_options(), bucket)
        finally:
            _script("down.sh")


@contextmanager
def _only_one() -> Iterator[None]:
    """Only one run at a time uses the cluster's directory, ports and network. up.sh removes the remains of a killed
    run.
    """
    with _LOCK.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError(f"another run of these tests has the cluster ({_LOCK}): wait for its end") from None
        yield


def _script(name: str, **environment: str) -> str:
    done = subprocess.run(
        [SCRIPTS / name], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{name}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def install_operator(**values: str | int) -> None:
    """`helm upgrade --install` of the chart with the image of this machine and additional `values`."""
    needed = {"image": IMAGE, "imagePullPolicy": "Never", "replicas": 1, "resources.requests.cpu": "10m"}
    needed["networkPolicy.apiServerPorts[0]"] = _API_SERVER_PORT
    jobs = {"jobs.image": IMAGE, "jobs.imagePullPolicy": "Never", "jobs.retrySeconds": 2}
    sets = [f"--set={name}={value}" for name, value in {**needed, **jobs, **values}.items()]
    chart = ("f2llm", str(OPERATOR_CHART), "--create-namespace")
    run_program("helm", "upgrade", "--install", *chart, *PLACE, *sets, "--wait")


def pod_program(program: Path) -> Path:
    """A copy of the program in a directory from which non-root pods can run it, unlike a home directory."""
    folder = ROOT / "build" / "pod-programs"
    folder.mkdir(parents=True, exist_ok=True)
    copied = folder / program.name
    copied.unlink(missing_ok=True)
    return Path(shutil.copy2(program, copied))


def _namespace() -> Kubectl:
    kubectl = Kubectl(KUBECONFIG, NAMESPACE)
    kubectl("create", "namespace", NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("create", "secret", "generic", "s3", *(f"--from-literal={name}={value}" for name, value in _KEYS.items()))
    return kubectl


def _s3_options() -> S3Options:
    return S3Options(endpoint_url=f"http://{_BRIDGE}:{_S3_PORT}", region="us-east-1", allow_http=True)


@contextmanager
def _s3_server(folder: Path) -> Iterator[Path]:
    """An S3 server that pods can reach; yields the directory of its only bucket, named `bucket`."""
    bucket = folder / "objects" / "bucket"
    bucket.mkdir(parents=True)
    (folder / "attributes").mkdir()
    command = ["setpriv", "--pdeathsig", "KILL"]  # so that no server of a killed run answers requests of the next run
    command += [str(find_server()), "--port", f"{_BRIDGE}:{_S3_PORT}", "--quiet", "posix"]
    command += ["--sidecar", str(folder / "attributes"), str(bucket.parent)]
    keys = {"ROOT_ACCESS_KEY": _KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": _KEYS["AWS_SECRET_ACCESS_KEY"]}
    before = {name: os.environ.get(name) for name in _KEYS}
    os.environ.update(_KEYS)
    process = subprocess.Popen(command, env={**os.environ, **keys}, stdout=subprocess.DEVNULL)
    try:
        yield bucket
    finally:
        process.kill()
        process.wait(timeout=10)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
