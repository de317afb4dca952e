"""The facts about a pod that the operator uses."""

from typing import Any

import pytest

from jobs.kube.observed import Observed, Pod, pod_of


def observed(*, ready: bool = False, scheduled: dict[str, Any] | None = None, **container: Any) -> Pod:
    conditions = [
        {"type": "Ready", "status": str(ready)},
        {"type": "PodScheduled", "status": "True", **(scheduled or {})},
    ]
    status = {"conditions": conditions, "containerStatuses": [{"name": "ray-worker", **container}]}
    return pod_of({"metadata": {"name": "p", "labels": {}}, "status": status})


def crash(message: str) -> dict[str, Any]:
    return {"terminated": {"reason": "Error", "exitCode": 1, "message": message}}


KILLED = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
NEEDS_MORE = "p: OOMKilled: it needs more memory than spec.cluster allows"


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        (observed(state={"waiting": {"reason": "ErrImagePull", "message": "no such"}}), "p: ErrImagePull: no such"),
        (observed(state={"waiting": {"reason": "ContainerCreating"}}), ""),
        (observed(scheduled={"status": "False", "message": "0/3 nodes"}), "p: Unschedulable: 0/3 nodes"),
        (observed(state=KILLED), NEEDS_MORE),
        (observed(state={"running": {}}, lastState=KILLED), NEEDS_MORE),
        (observed(ready=True, state={"running": {}}, lastState=KILLED), ""),
        (observed(state={"terminated": {"exitCode": 0, "message": "done"}}), ""),
        (
            observed(
                state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=crash("Traceback\nValueError: bad\n\n")
            ),
            "p: its container exited with code 1: ValueError: bad",
        ),
        (observed(state=crash("")), "p: its container exited with code 1"),
    ],
)  # fmt: skip
def test_a_pod_that_does_not_become_ready_says_why(pod: Pod, says: str) -> None:
    assert pod.trouble == says


def test_an_out_of_memory_error_is_remembered_as_long_as_the_pod_exists() -> None:
    assert observed(ready=True, state={"running": {}}, lastState=KILLED).out_of_memory
    assert not observed(ready=True, state={"running": {}}).out_of_memory


def test_a_pod_that_evaluates_checkpoints_is_not_a_worker() -> None:
    def pod(name: str, kind: str, group: str) -> Pod:
        labels = {"ray.io/node-type": kind, "ray.io/group": group, "f2llm.dev/attempt": "1"}
        return pod_of({"metadata": {"name": name, "labels": labels}})

    pods = (pod("a", "head", "headgroup"), pod("b", "worker", "workers"), pod("c", "worker", "evaluation"))

    assert [each.name for each in Observed(pods=pods).workers(1)] == ["b"]
