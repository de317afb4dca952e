"""Training in real pods, under KubeRay and the operator, in a namespace that admits only restricted pods."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

from data_io.storage.folder_copy import local_copy
from data_io.storage.store import open_store
from jobs.kube.status import JobPhase, JobStatus
from ray_app.run_directory.evaluation_curve import read_curve
from tests.support.command import f2llm
from tests.support.kubectl import Refused
from tests.support.real_cluster import NAMESPACE, SECRETS, RealCluster, install_operator
from tests.support.real_jobs import MINUTES, assert_as_undisturbed, delete, job, reaches, say, state, suspend
from tests.support.runs import finished_steps
from tests.support.small_training import read_lines, sentence, write_job_spec
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]


def test_scaled_from_1_to_3_to_2_suspended_and_resumed_it_has_the_losses_of_1(
    cluster: RealCluster, tmp_path: Path
) -> None:
    kubectl = cluster.kubectl
    job_spec = job(cluster, "life", workers=1, epochs=500, global_batch_size=64)  # which 3 workers can share
    kubectl.apply(job_spec)

    submitted = time.monotonic()
    reaches(cluster, "life", JobPhase.TRAINING, step=1)
    say(f"first step {time.monotonic() - submitted:.0f} s after it was submitted")
    say(kubectl("get", "ej", "life"))
    head = ("-l", "f2llm.dev/job=life,ray.io/node-type=head", "-c", "ray-head", "--tail=-1")
    # From the pod. Without a pod, `f2llm logs` reads the run directory.
    wait_for(lambda: re.search(r"^step \d+/\d+ ", kubectl("logs", *head), re.MULTILINE), "a step in the head's log")
    for workers in (3, 2):
        kubectl("scale", "ej/life", f"--replicas={workers}")
        asked = time.monotonic()
        wait_for(lambda n=workers: state(cluster, "life").workers == n, f"{workers} workers", seconds=5 * MINUTES)
        say(f"{workers} workers after {time.monotonic() - asked:.0f} s")
    reaches(cluster, "life", JobPhase.TRAINING, step=state(cluster, "life").step + 5)
    suspend(cluster, "life", suspended=True)
    suspended = reaches(cluster, "life", JobPhase.SUSPENDED)
    assert kubectl("get", "pods", "-o", "name") == ""
    assert suspended.last_checkpoint_step == suspended.step
    suspend(cluster, "life", suspended=False)
    reaches(cluster, "life", JobPhase.TRAINING, step=suspended.step + 5)
    delete(cluster, "life")

    run = cluster.bucket / "runs" / "life"
    assert finished_steps(run) >= suspended.step
    assert {line["workers"] for line in read_lines(run / "metrics.jsonl")} >= {1, 2, 3}
    assert_as_undisturbed(cluster, job_spec, tmp_path / "alone")


def test_a_job_succeeds_after_every_kind_of_loss_and_resumes_when_applied_again(
    cluster: RealCluster, tmp_path: Path
) -> None:
    kubectl, name = cluster.kubectl, "robbed"
    job_spec = job(cluster, name, epochs=100)
    kubectl.apply(job_spec)
    reaches(cluster, name, JobPhase.TRAINING, step=20)

    def pod(kind: str) -> str:
        selector = f"f2llm.dev/job={name},ray.io/node-type={kind}"
        return kubectl("get", "pods", "-l", selector, "-o", "name").splitlines()[0]

    def names_of_pods() -> str:
        return kubectl("get", "pods", "-l", f"f2llm.dev/job={name}", "-o", "name")

    def is_restarted(before: JobStatus) -> bool:
        now = state(cluster, name)
        return (now.attempt, now.restarts) > (before.attempt, before.restarts)

    force = ("--force", "--grace-period=0")
    robberies: dict[str, Callable[[], object]] = {
        "a worker pod deleted": lambda: kubectl("delete", pod("worker"), "--wait=false"),
        "a worker pod deleted by force": lambda: kubectl("delete", pod("worker"), *force),
        "the head pod deleted by force": lambda: kubectl("delete", pod("head"), *force),
        "the RayCluster deleted": lambda: kubectl("delete", "raycluster", "-l", f"f2llm.dev/job={name}"),
    }
    for what, rob in robberies.items():
        before, begun = state(cluster, name), time.monotonic()
        rob()
        wait_for(lambda before=before: is_restarted(before), f"{what}: noticed", seconds=3 * MINUTES)
        after = reaches(cluster, name, JobPhase.TRAINING, step=state(cluster, name).step + 5)
        say(f"{what}: 5 more steps {time.monotonic() - begun:.0f} s later, attempt {after.attempt}")
    before, begun = state(cluster, name), time.monotonic()
    cluster.delete_operator()
    after = reaches(cluster, name, JobPhase.TRAINING, step=before.step + 5)
    say(f"the operator deleted by force: 5 more steps in the status {time.monotonic() - begun:.0f} s later")
    assert (after.attempt, after.restarts) == (before.attempt, before.restarts)
    before, begun, pods = after, time.monotonic(), names_of_pods()
    install_operator(**{"jobs.graceSeconds": 100, "replicas": 2})
    after = reaches(cluster, name, JobPhase.TRAINING, step=before.step + 5)
    say(f"the chart upgraded: 5 more steps in the status {time.monotonic() - begun:.0f} s later")
    assert (after.attempt, after.restarts, names_of_pods()) == (before.attempt, before.restarts, pods)
    delete(cluster, name)
    left = finished_steps(cluster.bucket / "runs" / name)
    kubectl.apply(job_spec)
    reaches(cluster, name, JobPhase.TRAINING, step=left + 1)
    delete(cluster, name)

    assert_as_undisturbed(cluster, job_spec, tmp_path / "alone")


def test_it_succeeds_the_model_loads_and_another_recipe_under_its_name_is_refused(
    cluster: RealCluster, tmp_path: Path
) -> None:
    kubectl, name = cluster.kubectl, "whole"
    job_spec = job(cluster, name, epochs=2)
    job_spec["spec"].setdefault("evaluation", {})["checkpoints"] = True
    path = write_job_spec(tmp_path / "job.yaml", job_spec)
    run = cluster.bucket / "runs" / name
    shown = f2llm("submit", path, "--watch", "--namespace", NAMESPACE, "--kubeconfig", kubectl.kubeconfig, timeout=600)
    say(shown.stdout, kubectl("get", "ej", name))
    say(*(json.dumps(line) for line in read_lines(run / "events.jsonl")))
    said = f2llm("logs", name, "--namespace", NAMESPACE, "--kubeconfig", kubectl.kubeconfig).stdout
    objects = kubectl("get", "ej,rayjobs,rayclusters,pods,configmaps,events,services", "-o", "json")
    written = b"".join(each.read_bytes() for each in run.rglob("*") if each.is_file())
    job_spec["spec"]["train"]["learning_rate"] = 5e-4

    with pytest.raises(Refused, match="learning_rate"):
        kubectl.apply(job_spec)

    assert shown.returncode == 0, shown.stderr
    for text in (shown.stdout, said, objects, written.decode("latin-1")):
        assert text
        assert not [key for key in SECRETS if key in text]
    assert state(cluster, name).progress == "100%"
    for folder in ("model", "best"):
        with local_copy(open_store(f"s3://bucket/runs/{name}/{folder}", cluster.s3)) as model:
            vectors = SentenceTransformer(str(model), device="cpu").encode([sentence(1), sentence(2)])
        assert vectors.shape == (2, 64)
        assert (vectors**2).sum(axis=1) == pytest.approx([1, 1], rel=1e-3)
    curve = read_curve(open_store(f"s3://bucket/runs/{name}", cluster.s3))
    assert curve[-1].step == len(read_lines(run / "metrics.jsonl"))
    delete(cluster, name)


FAILURES: dict[str, tuple[dict[str, Any], JobPhase, str]] = {
    "no-data": ({"data": {"uri": "s3://bucket/nothing"}}, JobPhase.FAILED, "no data set at s3://bucket/nothing"),
    "no-image": ({"cluster": {"image": "localhost/none:1"}}, JobPhase.STARTING, "ErrImageNeverPull"),
    "no-node": (
        {"cluster": {"worker": {"node_selector": {"pool": "gpu"}}}},
        JobPhase.STARTING,
        "node affinity/selector",
    ),
    "no-quota": ({}, JobPhase.STARTING, "exceeded quota"),
    "no-room-for-ray": ({"cluster": {"worker": {"memory": "200Mi"}}}, JobPhase.STARTING, "object store memory"),
    "no-memory": ({"cluster": {"worker": {"memory": "500Mi"}}}, JobPhase.RETRYING, "ran out of memory"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_kubectl_and_f2llm_report_problems(cluster: RealCluster, name: str) -> None:
    change, phase, says = FAILURES[name]
    kubectl, job_spec = cluster.kubectl, job(cluster, name)
    for section, values in change.items():
        job_spec["spec"][section] = {**job_spec["spec"][section], **values}
    if name == "no-quota":
        kubectl("create", "quota", "small", "--hard=pods=1")
    try:
        kubectl.apply(job_spec)
        wait_for(
            lambda: (seen := state(cluster, name)).phase is phase and says in seen.message,
            f"{phase} with {says} in its message",
            seconds=4 * MINUTES,
        )
        screen = f2llm("describe", name, "--namespace", NAMESPACE, "--kubeconfig", kubectl.kubeconfig).stdout
        described = kubectl("describe", "ej", name)
        say(kubectl("get", "ej", name, "-o", "wide"), screen, described)
    except AssertionError:
        say(kubectl("describe", "ej,pods"))
        raise
    finally:
        delete(cluster, name)
        kubectl("delete", "quota", "small", "--ignore-not-found")

    assert says in screen
    assert says in described
