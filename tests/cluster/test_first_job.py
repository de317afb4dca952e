"""docs/cluster/first-job.md on an empty Kubernetes: its commands run as written, and print what the page shows."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from data_io.storage.store import Store
from tests.cluster.conftest import sample
from tests.support.command import Running
from tests.support.control_plane import programs_folder
from tests.support.kubectl import Kubectl
from tests.support.pages import ROOT, Block, Command, blocks, commands, differences, page_text
from tests.support.real_cluster import (
    IMAGE,
    KUBECONFIG,
    SCRIPTS,
    SYSTEM,
    RealCluster,
    install_operator,
    pod_program,
)
from tests.support.real_jobs import say
from tests.support.real_platform import CLAIM, TEAM, team_store, uninstall, volume
from tests.support.s3_server import find_server

pytestmark = pytest.mark.timeout(1800)
PAGE = "docs/cluster/first-job.md"
CLEAN_UP = "## 9. Clean up"
CRD = "customresourcedefinition/embeddingjobs.f2llm.dev"
IMAGES = (
    "docker.io/library/f2llm-operator:0.1.0",
    "docker.io/library/f2llm-ray:0.1.0",
    "ghcr.io/versity/versitygw:v1.8.0",
)
"""Names of the images of the page: here all are the image of this machine, which has no registry."""
SUBSTITUTIONS = (
    (r"^helm repo add kuberay .*", "true"),  # the chart repository of KubeRay is not reachable: the same manifests
    (r"^helm upgrade --install kuberay-operator (.|\n)*", str(SCRIPTS / "kuberay.sh")),
    (r"^(helm upgrade --install f2llm-platform (.|\n)*)", r"\1 --set storage.store.program=$STORE_PROGRAM"),
    (r"\| kubectl apply -f -$", "| grep 'image: registry.example.org/ml/f2llm-ray:0.1.0'"),
)
"""Commands of the page that cannot run here, and their replacements. In addition, the node has 2 CPUs, so the pods of
demo-cpu request less, and the volume is made by hand (`volume`).
"""
NOT_COMPARED = (r"^helm (repo add|upgrade --install kuberay-operator)", r"^kubectl set image")
LAST_LINE = (r"^f2llm submit", r"^f2llm logs")
"""Commands whose lines depend on the time. Of these only the last line is compared."""
PASSING = {
    "events", "events.events.k8s.io", "endpoints", "endpointslices.discovery.k8s.io", "pods", "replicasets.apps",
    "apiservices.apiregistration.k8s.io",
}  # fmt: skip
"""Kinds that the cluster itself creates and deletes."""


@dataclass
class Terminal:
    """A shell per command, in which variables and functions of earlier commands are set, as in one terminal."""

    folder: Path
    printed: list[tuple[Command, str]] = field(default_factory=list)

    def run(self, command: Command) -> None:
        """Raises AssertionError if the command fails."""
        state, log = self.folder / ".state", self.folder / ".log"
        state.touch()
        ran = substituted(command.command)
        script = f". {state}\n{{ {ran}\n}} >{log} 2>&1; code=$?\n{{ export -p; declare -f; }} >{state}; exit $code"
        begin = time.monotonic()
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", script],
            cwd=self.folder, env=environment(), stdin=subprocess.DEVNULL, timeout=1200, check=False,
        )  # fmt: skip
        printed = log.read_text()
        self.printed.append((command, printed))
        say(f"$ {command.command}    # {time.monotonic() - begin:.0f} s", printed)
        assert done.returncode == 0, f"{ran}: exit code {done.returncode}\n{printed}"

    @contextmanager
    def in_background(self, command: Command) -> Iterator[None]:
        """The command in another terminal, to the end of the `with` block."""
        log = self.folder / ".background"
        with Running("-c", f"exec {command.command}", program=("bash",), environment=environment(), log=log) as started:
            started.wait_until(lambda: bool(log.read_text()), timeout=60)
            self.printed.append((command, log.read_text()))
            yield


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    kept["PYTHONWARNINGS"] = "ignore"  # the kubeconfig of this cluster does not verify the certificate
    path = f"{Path(sys.executable).parent}{os.pathsep}{programs_folder()}{os.pathsep}{os.environ['PATH']}"
    server = find_server()
    assert server is not None
    return {**kept, "PATH": path, "KUBECONFIG": str(KUBECONFIG), "STORE_PROGRAM": str(pod_program(server))}


def substituted(command: str) -> str:
    for pattern, replacement in SUBSTITUTIONS:
        command = re.sub(pattern, replacement, command)
    return command


def stable(text: str) -> str:
    """The text without what differs between two runs: figures, times, widths of columns, random parts of names."""
    text = re.sub(r"\b\d{4}-\d\d-\d\dT[\d:]+", "#", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "#", text)
    text = re.sub(r"-[0-9a-z]{8,10}-[0-9a-z]{5}\b", "-#", text)
    text = re.sub(r"(?<![\w.-])(?:\d[\d,.]*(?:ms|[smhd])?)+(?=[\s/%)\]]|$)", "#", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=/)\d+", "#", text)
    return "\n".join(re.sub(r"  +", " ", line).rstrip() for line in text.splitlines())


def blocks_of_page(*, clean_up: bool) -> list[Block]:
    """The console blocks that this test runs, before or from the heading about the clean-up."""
    text = page_text(PAGE)
    border = text.index(CLEAN_UP)
    found = [block for block in blocks(text) if block.language == "console" and Path(__file__).name in block.run_by]
    return [block for block in found if (block.start > border) is clean_up]


def objects() -> set[str]:
    """Kind and name of every object that a chart could leave in the cluster, except objects in the team's namespace."""
    kubectl = Kubectl(KUBECONFIG)
    kinds = set(kubectl("api-resources", "--verbs=delete", "-o", "name").split()) - PASSING
    columns = "custom-columns=N:.metadata.namespace,K:.kind,M:.metadata.name"
    listed = kubectl("get", ",".join(sorted(kinds)), "-A", "--ignore-not-found", "--no-headers", "-o", columns)
    found = (line.split() for line in listed.splitlines())
    return {f"{kind}/{name}".lower() for namespace, kind, name in found if namespace != TEAM}


@pytest.fixture(scope="module")
def empty(cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """The cluster without the charts and the CRD, but with a volume and the images; yields its objects. At the end the
    operator is installed again.
    """
    kubectl = Kubectl(KUBECONFIG)
    for name in IMAGES:
        ctr = ("ctr", "-a", str(KUBECONFIG.parent / "containerd.sock"), "-n", "k8s.io", "images", "tag", "--force")
        subprocess.run([*ctr, IMAGE, name], check=True, capture_output=True)
    kubectl("delete", CRD)
    uninstall("f2llm")
    kubectl("delete", "namespace", SYSTEM)
    with volume(tmp_path_factory.mktemp("store")):
        yield objects()
        uninstall("f2llm-platform", "f2llm-operator")
    kubectl("delete", "--ignore-not-found", CRD, f"namespace/{TEAM}")
    install_operator()


@pytest.fixture(scope="module")
def terminal(empty: set[str], tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """The terminal of a reader who has run the page up to the clean-up."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("docs", "helm"):
        (folder / name).symlink_to(ROOT / name)
    subprocess.run(["cp", "-r", ROOT / "k8s", folder], check=True)
    small = sample("demo-cpu")
    small["spec"]["workers"]["cpus"], small["spec"]["cluster"]["head"] = 0.5, {"cpus": 0.1}
    (folder / "k8s/samples/demo-cpu.yaml").write_text(yaml.safe_dump(small))
    reader = Terminal(folder)
    run(reader, blocks_of_page(clean_up=False))
    return reader


def run(reader: Terminal, found: list[Block]) -> None:
    """All commands of the blocks. A port stays open during the blocks after it."""
    assert found
    for number, block in enumerate(found):
        for command in commands(block.text):
            if command.command.startswith("kubectl port-forward"):
                with reader.in_background(command):
                    run(reader, found[number + 1 :])
                return
            reader.run(command)


def wrong_lines(printed: list[tuple[Command, str]]) -> Iterator[str]:
    for command, now in printed:
        shown = command.output
        if not shown or any(re.search(pattern, command.command) for pattern in NOT_COMPARED):
            continue
        if any(re.search(pattern, command.command) for pattern in LAST_LINE):
            shown, now = (text.rstrip().rpartition("\n")[2] for text in (shown, now))
        for line in differences(stable(shown), stable(now), stable(now)):
            yield f"$ {command.command}\n{line}"


def test_the_commands_of_the_page_train_a_model_and_print_what_it_shows(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = list(wrong_lines(terminal.printed))

    assert not wrong, "\n".join(wrong)
    assert (terminal.folder / "model" / "model.safetensors").is_file()
    assert model(monkeypatch).get("model.safetensors")


def test_models_and_jobs_and_nothing_else_stay_after_an_uninstall_of_both_charts(
    terminal: Terminal, empty: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Kubectl(KUBECONFIG, TEAM)
    uninstall("f2llm-platform", "f2llm-operator")
    left = objects() - empty
    of_charts = team("get", "secrets,networkpolicies,resourcequotas,roles", "-l", "app.kubernetes.io/managed-by=Helm")
    for block in blocks_of_page(clean_up=False):
        for command in commands(block.text):
            if command.command.startswith("helm upgrade --install f2llm-"):
                terminal.run(command)

    left -= {"serviceaccount/default", "configmap/kube-root-ca.crt"}  # every namespace has these
    assert left == {f"namespace/{TEAM}", f"namespace/{SYSTEM}", CLAIM, CRD}
    assert of_charts == ""
    assert team("get", "ej", "-o", "name").split() == ["embeddingjob.f2llm.dev/demo-cpu"]
    assert model(monkeypatch).get("model.safetensors")


def test_the_clean_up_of_the_page_leaves_only_the_operator(terminal: Terminal, empty: set[str]) -> None:
    run(terminal, blocks_of_page(clean_up=True))
    left = objects() - empty

    assert CLAIM not in left
    assert f"namespace/{TEAM}" not in left
    assert not [name for name in left if "store" in name or "trial" in name or "demo" in name]
    assert f"namespace/{SYSTEM}" in left
    assert CRD in left


def model(monkeypatch: pytest.MonkeyPatch) -> Store:
    return team_store(monkeypatch, "runs/demo-cpu/model")
