"""Decisions of the operator."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.controller.actions import Action, Create, DeleteRayJob, RequestStop, Scale
from jobs.controller.decision import Decision
from jobs.controller.decision import decide as decide_about
from jobs.controller.events import events
from jobs.controller.status import time_of, time_text
from jobs.kube.driver_report import DriverReport
from jobs.kube.names import attempt_id
from jobs.kube.observed import Observed, Pod
from jobs.kube.resource import job_spec_of
from jobs.kube.status import ConditionType, JobPhase, JobStatus
from jobs.manifests.job import attempt_job_spec
from jobs.manifests.operator_config import OperatorConfig, Profile, Tls
from jobs.spec.yaml12 import write_yaml
from ray_app.run_directory.status import Phase
from tests.support.kubernetes_objects import NOW, UID, failure, pods, ray_cluster, ray_job, resource, said, under_way

TRAINS = Observed(ray_job(), ray_cluster(), pods(), said())
HELD = {**ray_job("Suspended"), "spec": {"suspend": True}}
STOPPED = Observed(ray_job("Failed", jobStatus="FAILED", reason="AppFailed"), None, pods(), said(Phase.STOPPED))


def decide(
    status: JobStatus,
    observed: Observed,
    spec: dict[str, Any] | None = None,
    *,
    seconds: float = 0,
    generation: int = 1,
    config: OperatorConfig | None = None,
) -> Decision:
    moment = NOW + timedelta(seconds=seconds)
    return decide_about(resource(spec, generation=generation), status, config or OperatorConfig(), observed, now=moment)


def kinds(actions: tuple[Action, ...]) -> list[str]:
    return [each.value["kind"] for each in actions if isinstance(each, Create)]


def made(decision: Decision) -> list[str]:
    """Names of the RayJobs that a decision creates."""
    created = [each.value for each in decision.actions if isinstance(each, Create)]
    return [value["metadata"]["name"] for value in created if value["kind"] == "RayJob"]


def condition(decision: Decision, kind: ConditionType) -> tuple[str, str]:
    found = decision.status.condition(kind)
    assert found is not None
    return found.status, found.reason


def test_an_attempt_is_counted_in_the_status_that_comes_with_its_creation() -> None:
    decision = decide(JobStatus(), Observed())

    assert (decision.status.attempt, decision.status.active) == (1, True)
    assert made(decision) == ["job-1"]


def test_an_attempt_that_was_counted_but_not_created_is_created_and_not_counted_again() -> None:
    counted = decide(JobStatus(), Observed()).status

    again = decide(counted, Observed())

    assert again.status.attempt == 1
    assert made(again) == ["job-1"]


def test_a_repeated_step_decides_the_same() -> None:
    """For any observation, a decision from the decided status starts no further attempt."""
    for observed in (Observed(), TRAINS, STOPPED, Observed(pods=pods())):
        first = decide(under_way(), observed)
        second = decide(first.status, observed)

        assert second.status.attempt <= first.status.attempt + 1
        assert decide(second.status, observed).status == second.status


@pytest.mark.parametrize("suspend", [False, True])
def test_no_attempt_starts_before_all_pods_of_earlier_attempts_are_gone(suspend: bool) -> None:
    ended = under_way(active=False, phase=JobPhase.RETRYING)

    decision = decide(ended, Observed(pods=pods(attempt=1)), {"suspend": suspend})

    assert not decision.actions
    assert "pods" in decision.status.message


def test_a_job_that_trains_says_so() -> None:
    decision = decide(under_way(), TRAINS)

    assert decision.status.phase is JobPhase.TRAINING
    assert (decision.status.step, decision.status.progress) == (5, "50%")
    assert (decision.status.replicas, decision.status.ready_replicas) == (2, 2)
    assert condition(decision, ConditionType.TRAINING) == ("True", "StepsFlow")
    assert condition(decision, ConditionType.CLUSTER_READY) == ("True", "PodsReady")
    assert condition(decision, ConditionType.DEGRADED)[0] == "False"
    assert not decision.actions


def test_a_job_with_fewer_workers_than_wanted_is_degraded() -> None:
    decision = decide(under_way(), Observed(ray_job(), ray_cluster(), pods(1, 1), said()))

    assert condition(decision, ConditionType.DEGRADED) == ("True", "FewerWorkers")


def test_a_rayjob_that_succeeded_ends_the_job() -> None:
    ended = Observed(ray_job("Complete", jobStatus="SUCCEEDED"), None, (), said(Phase.SUCCEEDED, step=10))

    decision = decide(under_way(), ended)

    assert decision.status.phase is JobPhase.SUCCEEDED
    assert condition(decision, ConditionType.SUCCEEDED)[0] == "True"
    assert decide(decision.status, ended).actions == ()


def failed(retryable: bool) -> Observed:
    words = said(Phase.FAILED, failure=failure(retryable=retryable))
    return Observed(ray_job("Failed", jobStatus="FAILED", reason="AppFailed"), None, (), words)


def test_an_error_that_is_not_retryable_ends_the_job_with_its_remedy() -> None:
    decision = decide(under_way(), failed(retryable=False))

    assert decision.status.phase is JobPhase.FAILED
    assert condition(decision, ConditionType.FAILED) == ("True", "DataError")
    assert decision.status.condition(ConditionType.FAILED).message == "bad; fix it"  # type: ignore[union-attr]
    assert decision.seconds is None


def test_a_retryable_error_is_followed_by_an_attempt_after_a_wait() -> None:
    retrying = decide(under_way(), failed(retryable=True))
    assert retrying.status.phase is JobPhase.RETRYING
    assert retrying.actions == (DeleteRayJob("job-1"),)

    early = decide(retrying.status, Observed(), seconds=1)
    late = decide(retrying.status, Observed(), seconds=60)

    assert made(early) == []
    assert early.seconds is not None
    assert made(late) == ["job-2"]


def test_waits_between_fruitless_attempts_grow_up_to_the_limit_of_retries() -> None:
    status, waits = under_way(), []
    while status.phase is not JobPhase.FAILED:
        retrying = decide(status, failed(retryable=True))
        waits.append(retrying.seconds)
        status = retrying.status.model_copy(update={"active": True})

    assert waits == [10, 20, 40, 80, 160, None]


def test_an_attempt_that_wrote_a_checkpoint_starts_the_count_of_failures_again() -> None:
    words = said(Phase.FAILED, failure=failure(retryable=True), last_checkpoint_step=50)
    ended = Observed(ray_job("Failed", jobStatus="FAILED"), None, (), words)

    decision = decide(under_way(fruitless_attempts=5, checkpoint_at_start=40), ended)

    assert decision.status.phase is JobPhase.RETRYING
    assert decision.status.fruitless_attempts == 1


def test_a_failed_job_is_retried_once_its_job_spec_changes() -> None:
    over = decide(under_way(), failed(retryable=False)).status

    same, changed = decide(over, Observed()), decide(over, Observed(), generation=2)

    assert not same.actions
    assert made(changed) == ["job-2"]


def test_a_rayjob_deleted_by_hand_costs_an_attempt() -> None:
    decision = decide(under_way(), Observed())

    assert decision.status.phase is JobPhase.RETRYING
    assert decision.status.last_failure.reason == "RayJobDeleted"  # type: ignore[union-attr]


def test_suspending_asks_for_a_checkpoint_once_and_waits() -> None:
    request = attempt_id(UID, 1)

    asked = decide(under_way(), TRAINS, {"suspend": True})
    waiting = decide(
        asked.status, Observed(ray_job(), ray_cluster(), pods(), said(), request), {"suspend": True}, seconds=9
    )

    assert asked.actions == (RequestStop(request),)
    assert asked.status.phase is JobPhase.SUSPENDING
    assert waiting.actions == ()
    assert waiting.seconds == 591


def test_a_suspended_job_that_does_not_stop_in_time_loses_its_pods() -> None:
    asked = decide(under_way(), TRAINS, {"suspend": True}).status

    late = decide(asked, TRAINS, {"suspend": True}, seconds=601)

    assert late.actions == (DeleteRayJob("job-1"),)
    assert not late.status.active


@pytest.mark.parametrize("lost", [(TRAINS, 601), (Observed(HELD, None, (), said()), 5)], ids=["too slow", "preempted"])
def test_a_stop_request_does_not_affect_the_next_attempt(lost: tuple[Observed, float]) -> None:
    observed, seconds = lost
    asked = decide(under_way(), TRAINS, {"suspend": True}).status
    gone = decide(asked, observed, {"suspend": True}, seconds=seconds)

    resumed = decide(gone.status, Observed(), seconds=900, generation=2)

    assert made(resumed) == ["job-2"]
    assert resumed.status.stop_requested_time is None


def test_a_job_is_suspended_when_its_pods_are_gone_and_continues_when_resumed() -> None:
    asked = decide(under_way(), TRAINS, {"suspend": True}).status
    ended = decide(asked, STOPPED, {"suspend": True})
    leaving = decide(ended.status, Observed(pods=pods()), {"suspend": True})
    suspended = decide(leaving.status, Observed(), {"suspend": True})

    resumed = decide(suspended.status, Observed(), generation=2)

    assert ended.actions == (DeleteRayJob("job-1"),)
    assert leaving.status.phase is JobPhase.SUSPENDING
    assert suspended.status.phase is JobPhase.SUSPENDED
    assert made(resumed) == ["job-2"]
    assert resumed.status.fruitless_attempts == 0


def test_resuming_before_the_run_has_stopped_lets_it_stop_and_starts_it_again() -> None:
    asked = decide(under_way(), TRAINS, {"suspend": True}).status

    resumed = decide(asked, TRAINS, generation=2)
    ended = decide(resumed.status, STOPPED)
    again = decide(ended.status, Observed())

    assert not resumed.actions
    assert made(again) == ["job-2"]


def test_an_operator_that_died_before_it_deleted_a_closed_attempt_deletes_it_later() -> None:
    judged = under_way(active=False, phase=JobPhase.RETRYING)

    assert decide(judged, TRAINS).actions == (DeleteRayJob("job-1"),)


def test_scaling_down_deletes_pods_that_are_not_ready_first() -> None:
    observed = Observed(ray_job(), ray_cluster(4), pods(3, 1), said())

    decision = decide(under_way(), observed)

    assert decision.actions == (Scale("job-1-abcde", 4, 2, ("worker-3", "worker-0")),)


def test_scaling_up_has_no_victims() -> None:
    decision = decide(under_way(), TRAINS, {"workers": {"replicas": 5}})

    assert decision.actions == (Scale("job-1-abcde", 2, 5, ()),)


def in_a_queue(admitted: int, *, gates: list[str] | None = None) -> Observed:
    """A job that trains with 2 workers and was admitted with `admitted` workers by Kueue."""
    held = ray_job()
    held["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "default"}
    held["spec"] = {"rayClusterSpec": {"workerGroupSpecs": [{"replicas": admitted}]}}
    cluster = ray_cluster(replicas=2)
    cluster["spec"]["workerGroupSpecs"][0]["gates"] = gates or []
    return Observed(held, cluster, pods(), said())


def test_a_job_in_a_queue_does_not_grow_beyond_the_pods_that_were_admitted() -> None:
    more = {"workers": {"replicas": 5}}

    assert decide(under_way(), in_a_queue(2), more).actions == ()
    assert decide(under_way(), in_a_queue(3), more).actions == (Scale("job-1-abcde", 2, 3, ()),)
    said_why = decide(under_way(), in_a_queue(2), more).status.condition(ConditionType.DEGRADED)
    assert said_why is not None
    assert "Kueue admitted 2: suspend and resume" in said_why.message


def test_a_job_grows_whose_new_pods_kueue_holds_back() -> None:
    observed = in_a_queue(2, gates=["kueue.x-k8s.io/elastic-job"])

    decision = decide(under_way(), observed, {"workers": {"replicas": 5}})

    assert decision.actions == (Scale("job-1-abcde", 2, 5, ()),)


def test_a_start_without_room_begins_with_the_ready_pods_and_grows_once_it_trains() -> None:
    spec = {"workers": {"replicas": 4, "min": 2}}
    waits = Observed(ray_job("Initializing"), ray_cluster(4, state=""), pods(3, 1), None)

    early = decide(under_way(), waits, spec)
    late = decide(under_way(), waits, spec, seconds=700)
    cut = decide(under_way(), Observed(ray_job("Initializing"), ray_cluster(3), pods(3), None), spec, seconds=701)
    trains = decide(under_way(), Observed(ray_job(), ray_cluster(3), pods(3), said()), spec, seconds=702)

    assert not early.actions
    assert early.seconds is not None
    assert late.actions == (Scale("job-1-abcde", 4, 3, ("worker-3",)),)
    assert not cut.actions
    assert trains.actions == (Scale("job-1-abcde", 3, 4, ()),)


def test_a_start_without_min_waits_for_all_workers() -> None:
    waits = Observed(ray_job("Initializing"), ray_cluster(4, state=""), pods(3, 1), None)

    assert not decide(under_way(), waits, {"workers": {"replicas": 4}}, seconds=10_000).actions


def test_kuberay_explains_pods_that_cannot_be_created() -> None:
    cluster = ray_cluster(state="")
    refusal = {"type": "ReplicaFailure", "status": "True", "message": "pods is forbidden: exceeded quota"}
    over = {"type": "ReplicaFailure", "status": "False", "message": "once it was so"}

    def message(condition: dict[str, str]) -> str:
        status = {**cluster["status"], "conditions": [condition]}
        observed = Observed(ray_job("Initializing"), {**cluster, "status": status}, pods(0))
        return decide(under_way(), observed).status.message

    assert message(refusal) == "pods is forbidden: exceeded quota"
    assert message(over) == "waiting for the pods"


def test_a_job_that_kueue_has_not_admitted_is_queued() -> None:
    held = {**ray_job("Suspended"), "spec": {"suspend": True}}

    decision = decide(under_way(), Observed(held))

    assert decision.status.phase is JobPhase.QUEUED
    assert condition(decision, ConditionType.QUEUED) == ("True", "WaitingForQuota")


AN_HOUR = 3600.0


def begun(deployment: str, *, seconds: float, **status: Any) -> dict[str, Any]:
    """A RayJob that Kueue admitted this long after NOW, as KubeRay writes it."""
    return ray_job(deployment, startTime=time_text(NOW + timedelta(seconds=seconds)), **status)


@pytest.mark.parametrize("last_words", [Phase.TRAINING, Phase.STOPPED])
@pytest.mark.parametrize("held", [HELD, ray_job("Suspending"), ray_job("Suspended")], ids=["held", "going", "let go"])
def test_a_preempted_job_has_no_heartbeat_timeout(held: dict[str, Any], last_words: Phase) -> None:
    missed = under_way(heartbeat_missed_since=time_text(NOW))

    decision = decide(missed, Observed(held, None, (), said(last_words)), seconds=24 * AN_HOUR)

    assert (decision.status.phase, decision.status.active) == (JobPhase.QUEUED, True)
    assert decision.status.heartbeat_missed_since is None
    assert not decision.actions
    assert decision.seconds is None


def test_a_preempted_job_is_suspended_at_once() -> None:
    decision = decide(under_way(), Observed(HELD, None, (), said()), {"suspend": True}, generation=2)

    assert decision.actions == (DeleteRayJob("job-1"),)
    assert not decision.status.active


@pytest.mark.parametrize("last_words", [Phase.TRAINING, Phase.STOPPED])
def test_a_report_from_before_a_preemption_does_not_count_after_the_next_admission(last_words: Phase) -> None:
    def look(ray_job: dict[str, Any], words: DriverReport, seconds: float) -> Decision:
        waiting = pods(0, 2) if ray_job["status"]["jobDeploymentStatus"] == "Initializing" else ()
        return decide(under_way(phase=JobPhase.QUEUED), Observed(ray_job, None, waiting, words), seconds=seconds)

    old = said(last_words)
    new = said().model_copy(update={"reported_at": (NOW + timedelta(seconds=AN_HOUR)).replace(second=0)})
    let_go = look({**ray_job(""), "spec": {"suspend": False}}, old, AN_HOUR)
    starts = look(begun("Initializing", seconds=AN_HOUR), old, 2 * AN_HOUR)
    fails = look(begun("Failed", seconds=AN_HOUR, jobStatus="FAILED", reason="AppFailed"), old, 2 * AN_HOUR)
    trains = look(begun("Running", seconds=AN_HOUR), new, AN_HOUR + 30)

    for decision in (let_go, starts):
        assert (decision.status.phase, decision.status.heartbeat_missed_since) == (JobPhase.STARTING, None)
    assert fails.status.last_failure is not None
    assert trains.status.phase is JobPhase.TRAINING


def test_the_start_timeout_of_pods_begins_with_the_admission() -> None:
    spec = {"workers": {"replicas": 8, "min": 2}}
    waiting = decide(under_way(), Observed(HELD), spec, seconds=AN_HOUR)
    comes_up = Observed(begun("Initializing", seconds=AN_HOUR), ray_cluster(8, state=""), pods(2, 6))

    early = decide(waiting.status, comes_up, spec, seconds=AN_HOUR + 20)
    late = decide(waiting.status, comes_up, spec, seconds=AN_HOUR + 600)

    assert (early.actions, early.seconds) == ((), 580)
    assert [type(each) for each in late.actions] == [Scale]


@pytest.mark.parametrize(
    ("spec", "says"),
    [({"cluster": {"profiles": ["nowhere"]}}, "nowhere"), ({"train": {"micro_batch_size": 500}}, "micro_batch_size")],
)
def test_an_invalid_job_spec_is_refused_with_the_reason_and_starts_nothing(spec: dict[str, Any], says: str) -> None:
    decision = decide(JobStatus(), Observed(), spec)

    assert condition(decision, ConditionType.ACCEPTED) == ("False", "InvalidJobSpec")
    assert says in decision.status.message
    assert not decision.actions
    assert made(decide(decision.status, Observed(), generation=2)) == ["job-1"]


def test_a_job_that_names_the_secret_of_the_authority_of_ray_starts_nothing() -> None:
    config = OperatorConfig(tls=Tls(ca_secret="ray-ca"))

    decision = decide(JobStatus(), Observed(), {"cluster": {"secrets": ["ray-ca"]}}, config=config)

    assert condition(decision, ConditionType.ACCEPTED) == ("False", "NotAllowed")
    assert "found the Secret ray-ca, which is for TLS of Ray" in decision.status.message
    assert not decision.actions


def test_an_invalid_edit_does_not_end_an_attempt_in_progress() -> None:
    decision = decide(under_way(phase=JobPhase.TRAINING), TRAINS, {"cluster": {"profiles": ["nowhere"]}}, generation=2)

    assert decision.status.phase is JobPhase.TRAINING
    assert decision.status.active


POOL = {"cluster": {"profiles": ["gpu-pool"]}}
KNOWN = OperatorConfig(profiles={"gpu-pool": Profile()})
ENDED = Observed(ray_job("Complete", jobStatus="SUCCEEDED"), None, (), said(Phase.SUCCEEDED, step=10))


def test_a_job_whose_profile_the_operator_learns_later_starts_then() -> None:
    refused = decide(JobStatus(), Observed(), POOL)
    again = decide(refused.status, Observed(), POOL, seconds=300)
    learnt = decide(again.status, Observed(), POOL, config=KNOWN)

    assert refused.status.phase is JobPhase.FAILED
    assert condition(refused, ConditionType.FAILED) == ("True", "InvalidJobSpec")
    assert again.status == refused.status
    assert made(learnt) == ["job-1"]
    assert condition(learnt, ConditionType.ACCEPTED) == ("True", "Valid")


@pytest.mark.parametrize(
    ("before", "spec"),
    [
        (decide(under_way(), ENDED, POOL, config=KNOWN).status, POOL),
        (decide(under_way(), failed(retryable=False), POOL, config=KNOWN).status, POOL),
        (JobStatus(phase=JobPhase.SUSPENDED, attempt=1, observed_generation=1), {**POOL, "suspend": True}),
    ],
    ids=lambda value: value.phase.value if isinstance(value, JobStatus) else "",
)
def test_an_ended_or_suspended_job_does_not_change_when_its_profile_disappears(
    before: JobStatus, spec: dict[str, Any]
) -> None:
    forgotten = decide(before, Observed(), spec)
    learnt = decide(forgotten.status, Observed(), spec, config=KNOWN)

    for decision in (forgotten, learnt):
        assert not decision.actions
        assert (decision.status.phase, decision.status.message) == (before.phase, before.message)
    assert condition(forgotten, ConditionType.ACCEPTED) == ("False", "InvalidJobSpec")
    assert condition(learnt, ConditionType.ACCEPTED) == ("True", "Valid")


def test_a_job_that_cannot_continue_says_why_and_continues_once_it_can() -> None:
    failing = decide(under_way(), failed(retryable=True), POOL, config=KNOWN)

    refused = decide(failing.status, Observed(), POOL, seconds=60)
    learnt = decide(refused.status, Observed(), POOL, seconds=61, config=KNOWN)

    assert refused.status.phase is JobPhase.FAILED
    assert "gpu-pool" in refused.status.message
    assert made(learnt) == ["job-2"]


@pytest.mark.parametrize("bad", [POOL, {"train": {"micro_batch_size": 500}}], ids=["profile", "job spec"])
def test_an_attempt_in_progress_is_observed_and_stopped_with_an_invalid_job_spec(bad: dict[str, Any]) -> None:
    begun_with = write_yaml(attempt_job_spec(job_spec_of(resource())).to_dict())

    def under(observed: Observed, **spec: Any) -> Decision:
        return decide(under_way(), replace(observed, job_spec=begun_with), {**bad, **spec}, generation=2)

    trains, stops, ends, fails = under(TRAINS), under(TRAINS, suspend=True), under(ENDED), under(failed(retryable=True))

    assert (trains.status.phase, trains.status.step) == (JobPhase.TRAINING, 5)
    assert stops.actions == (RequestStop(attempt_id(UID, 1)),)
    assert ends.status.phase is JobPhase.SUCCEEDED
    assert fails.actions == (DeleteRayJob("job-1"),)
    for decision in (trains, stops, ends, fails):
        assert condition(decision, ConditionType.ACCEPTED) == ("False", "InvalidJobSpec")


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = decide(under_way(), TRAINS)
    later = decide(first.status, TRAINS, seconds=100)

    assert later.status == first.status


SIGHTS: list[Callable[[], Observed]] = [
    Observed,
    lambda: TRAINS,
    lambda: STOPPED,
    lambda: failed(retryable=True),
    lambda: failed(retryable=False),
    lambda: Observed(pods=pods()),
    lambda: Observed(ray_job("Initializing"), ray_cluster(2, state=""), pods(0, 2)),
    lambda: Observed(ray_job("Failed", reason="JobStatusCheckTimeoutExceeded"), None, pods()),
    lambda: Observed(ray_job("Complete", jobStatus="SUCCEEDED"), None, (), said(Phase.SUCCEEDED)),
]


@given(st.lists(st.tuples(st.sampled_from(SIGHTS), st.booleans(), st.integers(0, 2000)), max_size=25))
def test_attempts_only_increase_and_only_one_exists_at_a_time(
    history: list[tuple[Callable[[], Observed], bool, int]],
) -> None:
    status, clock = JobStatus(), 0
    for generation, (observed, suspend, seconds) in enumerate(history, start=1):
        clock += seconds
        observed = observed()
        decision = decide(status, observed, {"suspend": suspend}, seconds=clock, generation=generation)

        created = made(decision)
        assert status.attempt <= decision.status.attempt <= status.attempt + 1
        assert created in ([], [f"job-{decision.status.attempt}"])
        assert not (created and suspend)
        if decision.status.attempt > status.attempt:
            assert created
            assert not observed.pods
        assert {each.type for each in decision.status.conditions} == set(ConditionType)
        assert all(time_of(each.last_transition_time) for each in decision.status.conditions)
        assert JobStatus.model_validate(decision.status.to_dict()) == decision.status
        status = decision.status


SILENT = timedelta(seconds=OperatorConfig().driver_heartbeat_timeout_seconds)


def test_after_a_heartbeat_timeout_and_a_grace_period_the_driver_is_replaced() -> None:
    missed = decide(under_way(), TRAINS, seconds=SILENT.total_seconds())
    early = decide(missed.status, TRAINS, seconds=SILENT.total_seconds() + 59)
    late = decide(missed.status, TRAINS, seconds=SILENT.total_seconds() + 60)

    assert condition(missed, ConditionType.DEGRADED) == ("True", "DriverHeartbeatLost")
    assert (missed.actions, missed.seconds) == ((), 60)
    assert (early.status.active, early.seconds) == (True, 1)
    assert late.status.phase is JobPhase.RETRYING
    assert late.status.last_failure is not None
    assert late.status.last_failure.reason == "DriverHeartbeatLost"
    assert late.actions == (DeleteRayJob("job-1"),)


def test_a_driver_whose_heartbeat_returns_continues() -> None:
    """As after an outage of the API server that is longer than the heartbeat timeout."""
    missed = decide(under_way(), TRAINS, seconds=SILENT.total_seconds() + 5000)
    moment = NOW + SILENT + timedelta(seconds=5010)
    heard = Observed(ray_job(), ray_cluster(), pods(), said().model_copy(update={"reported_at": moment}))

    again = decide(missed.status, heard, seconds=SILENT.total_seconds() + 5070)

    assert (again.status.active, again.status.heartbeat_missed_since) == (True, None)
    assert condition(again, ConditionType.DEGRADED) == ("False", "AsWanted")


def test_the_last_report_of_a_driver_counts_if_contact_is_lost_afterwards() -> None:
    last = Observed(ray_job(), ray_cluster(), pods(), said(Phase.SUCCEEDED))

    missed = decide(under_way(), last, seconds=SILENT.total_seconds())
    ended = decide(missed.status, last, seconds=SILENT.total_seconds() + 60)

    assert ended.status.phase is JobPhase.SUCCEEDED


def test_an_attempt_whose_driver_has_not_started_waits_for_its_pods() -> None:
    waiting = Observed(ray_job("Initializing"), ray_cluster(state=""), pods(ready=0, waiting=2))

    decision = decide(under_way(), waiting, seconds=1_000_000)

    assert decision.status.active


def told(before: JobStatus, decision: Decision) -> list[str]:
    return [each.reason for each in events(before, decision.status, decision.actions)]


def test_one_event_says_why_pods_do_not_become_ready() -> None:
    stuck = Pod("worker-0", "1", is_head=False, ready=False, trouble="worker-0: Unschedulable: no node")
    observed = Observed(ray_job("Initializing"), ray_cluster(state=""), (stuck,))
    waiting = under_way(phase=JobPhase.STARTING)

    first = decide(waiting, observed)
    second = decide(first.status, observed)

    assert told(waiting, first) == ["PodsPending"]
    assert told(first.status, second) == []


def test_each_attempt_and_each_change_of_phase_has_an_event() -> None:
    counted = decide(JobStatus(), Observed())
    trains = decide(counted.status, TRAINS)

    assert told(JobStatus(), counted) == ["Starting", "AttemptStarted"]
    assert told(counted.status, trains) == ["Training"]


def test_a_new_driver_does_not_reset_the_progress_in_the_status() -> None:
    reached = decide(
        under_way(), Observed(ray_job(), ray_cluster(), pods(), said(step=7, last_checkpoint_step=6))
    ).status
    begins = Observed(ray_job(), ray_cluster(), pods(), said(Phase.PREPARING, step=0, total_steps=0, workers=0))
    resumes = Observed(ray_job(), ray_cluster(), pods(), said(step=7))

    for observed in (begins, resumes):
        after = decide(reached, observed)

        assert (after.status.step, after.status.total_steps, after.status.last_checkpoint_step) == (7, 10, 6)
        assert "FirstCheckpoint" not in told(reached, after)


def test_the_phase_does_not_change_while_the_pods_of_an_ended_run_stop() -> None:
    trains = decide(under_way(), TRAINS).status
    ends = Observed(ray_job(), ray_cluster(), pods(), said(Phase.FAILED, failure=failure(retryable=True)))

    assert decide(trains, ends).status.phase is JobPhase.TRAINING


def test_the_storage_condition_follows_the_drivers_probe_and_whether_the_store_answers() -> None:
    unknown = decide(under_way(), replace(TRAINS, driver_report=said()))
    probed = decide(unknown.status, replace(TRAINS, driver_report=said(store="ranges, If-Match")))
    late = decide(
        probed.status, replace(TRAINS, driver_report=said(store="ranges, If-Match", store_unreachable_since=NOW))
    )
    forgotten = decide(probed.status, replace(TRAINS, driver_report=said()))

    assert condition(unknown, ConditionType.STORAGE_READY) == ("Unknown", "NotProbed")
    assert condition(probed, ConditionType.STORAGE_READY) == ("True", "StoreProbed")
    assert condition(late, ConditionType.STORAGE_READY) == ("False", "NotAnswering")
    assert late.status.message == "the store has not answered since 2026-05-04T03:02:01Z"
    assert condition(forgotten, ConditionType.STORAGE_READY) == ("True", "StoreProbed")
