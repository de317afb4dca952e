"""A driver that reports hostile texts, on a real API server: the status is written, and the output stays clean."""

import json
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import yaml

from jobs.errors import KubernetesError
from jobs.kube.api import KubeApi
from jobs.kube.driver_report import REPORT_KEY
from jobs.kube.names import attempt_id, progress_name
from jobs.kube.status import JobPhase, status_of
from tests.support.calling import Run, caller
from tests.support.control_plane import ControlPlane
from tests.support.hostile import ESCAPES
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.operator import KubeRay, run_operator
from tests.support.waiting import wait_for

FORGED = f"\nstate       Succeeded\n{ESCAPES}"


@pytest.fixture
def job(
    kuberay_types: ControlPlane,
    api: KubeApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[tuple[Run, KubeRay, str]]:
    """The command line, the pods of a submitted job, and its name."""
    monkeypatch.setenv("KUBECONFIG", str(kuberay_types.kubeconfig))
    f2llm = caller(capsys)
    path = tmp_path / "job.yaml"
    name = f"loud-{token_hex(3)}"  # KubeRay's objects of another test stay, because nothing collects them
    value = job_spec({**ON_A_CLUSTER, "cluster": {"max_retries": 0}}, metadata={"name": name})
    path.write_text(yaml.safe_dump(value))
    with run_operator(kuberay_types.kubeconfig, tmp_path / "operator.log"):
        assert f2llm("submit", str(path))[0] == 0
        pods = KubeRay(api, name, 1)
        pods.starts()
        yield f2llm, pods, name


def report(api: KubeApi, name: str, **changes: Any) -> None:
    """Write a report as the driver's ServiceAccount may."""
    uid = wait_for(lambda: api.get("EmbeddingJob", name), "the job")["metadata"]["uid"]
    run = {"name": f"{name}{FORGED}", "phase": "Failed", "step": 1, "total_steps": 5, "message": FORGED}
    value = {"attempt": attempt_id(uid, 1), "run": run, "reported_at": "2100-01-01T00:00:00Z", **changes}
    api.patch("ConfigMap", progress_name(name), {"data": {REPORT_KEY: json.dumps(value)}})


def failed(api: KubeApi, name: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        job = api.get("EmbeddingJob", name)
        return job if job and status_of(job).phase is JobPhase.FAILED else None

    return wait_for(found, "the phase Failed")


@pytest.mark.parametrize(
    ("size", "is_read"), [(200_000, True), (900_000, False)], ids=["a long message", "a report of 0.9 MB"]
)
def test_a_hostile_failure_leads_to_a_small_status_and_clean_output(
    job: tuple[Run, KubeRay, str], api: KubeApi, size: int, is_read: bool
) -> None:
    f2llm, pods, name = job
    message = FORGED * (size // len(json.dumps(FORGED)))
    words = {"error": FORGED, "error_class": "user", "message": message, "remedy": FORGED}
    report(api, name, failure={**words, "retryable": False})

    pods.ends(succeeded=False)

    stored = failed(api, name)
    assert len(json.dumps(stored["status"])) < 30_000
    failure = status_of(stored).last_failure
    assert failure is not None
    assert failure.message.startswith("\nstate       Succeeded\n\\x1b]0;") is is_read
    for command in (["describe", name], ["list"], ["watch", name], ["status", name]):
        _, out, err = f2llm(*command)
        text = out + err
        assert text.replace("\n", "").isprintable()
        assert "state       Succeeded" not in text.splitlines()


def test_the_api_server_refuses_a_status_with_longer_texts(job: tuple[Run, KubeRay, str], api: KubeApi) -> None:
    *_, name = job

    with pytest.raises(KubernetesError, match="Too long: may not be more than 4096"):
        api.patch("EmbeddingJob", name, {"status": {"message": "x" * 4097}}, subresource="status")
