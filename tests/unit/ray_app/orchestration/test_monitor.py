"""Messages between driver, controller and workers, and when a run without progress fails."""

import pytest

from data_io.errors import ConfigError, F2LLMError, StorageError
from ray_app.errors import PeerLost, WorkerLost, WorkersHang
from ray_app.orchestration.hang_detector import Order
from ray_app.orchestration.monitor import MAX_FRUITLESS, RunState
from ray_app.run_directory.exit_record import Failure
from ray_app.run_directory.status import Reason, RunStatus
from ray_app.training.control import Directive, Start
from ray_app.training.heartbeat import Position, Stage


def failure(error: F2LLMError, rank: int = 0) -> Failure:
    return Failure(error, rank, "here")


def status(step: int) -> RunStatus:
    return RunStatus(name="small", step=step)


def test_a_stop_is_returned_by_the_next_report_and_stays() -> None:
    talk = RunState()
    talk.enter(1)

    assert talk.report(status(1)) is Directive.CONTINUE
    talk.request_stop()
    assert talk.report(status(2)) is Directive.STOP
    talk.enter(1)
    assert talk.report(status(2)) is Directive.STOP


def test_a_regroup_ends_when_the_next_workers_start_and_never_overrides_a_stop() -> None:
    talk = RunState()
    talk.enter(3)

    assert talk.workers_at_work() == 3
    talk.request_regroup()
    assert talk.report(status(1)) is Directive.REGROUP
    talk.leave()
    assert talk.workers_at_work() == 0
    talk.enter(1)
    assert talk.report(status(1)) is Directive.CONTINUE
    talk.request_stop()
    talk.request_regroup()
    assert talk.report(status(2)) is Directive.STOP


def test_without_workers_a_regroup_is_not_requested() -> None:
    talk = RunState()

    talk.request_regroup()

    assert talk.workers_at_work() == 0
    assert talk.enter(1).start == Start(Reason.FIRST_START)


def test_workers_are_idle_from_their_end_or_last_heartbeat_until_others_enter() -> None:
    now = 0.0
    talk = RunState(clock=lambda: now)

    now = 7.0
    assert talk.view().idle_seconds == 7
    talk.enter(2)
    now = 20.0
    assert talk.view().idle_seconds == 0
    talk.leave()
    now = 23.0
    assert talk.view().idle_seconds == 3
    talk.enter(2)
    assert talk.view().idle_seconds == 0
    now = 63.0  # without a report of their death
    assert talk.view().idle_seconds == 40


def test_a_wait_for_resources_is_reported_only_after_some_seconds() -> None:
    now = 0.0
    talk = RunState(clock=lambda: now)

    talk.wait_for_room(True)
    assert not talk.view().waits_for_room
    now = 5.0
    talk.wait_for_room(True)
    assert talk.view().waits_for_room
    talk.wait_for_room(False)
    assert not talk.view().waits_for_room


def test_starts_after_a_finished_step_do_not_wait_and_are_not_limited() -> None:
    talk = RunState()

    for step in range(1, 50):
        assert talk.enter(1).wait_seconds == 0
        talk.report(status(step))
        talk.leave(failure(StorageError("away")))

    assert talk.view().fatal is None


def test_starts_without_a_step_back_off_until_the_run_fails_with_its_last_error() -> None:
    talk = RunState(seed=1)
    talk.enter(1)
    talk.report(status(7))

    waits = []
    for _ in range(MAX_FRUITLESS + 2):
        assert talk.view().fatal is None
        talk.leave(failure(StorageError("the store is away")))
        waits.append(talk.enter(1).wait_seconds)

    assert waits[0] == 0  # the step before it was finished
    assert all(0 < wait <= 2.0**n for n, wait in enumerate(waits[1:-1], start=1))
    assert waits[-1] == 60  # no worker must start any more
    fatal = talk.view().fatal
    assert fatal is not None
    assert isinstance(fatal.error, StorageError)
    assert "the store is away" in fatal.error.message


@pytest.mark.parametrize("error", [ConfigError("wrong"), StorageError("away")])
def test_only_a_failure_that_is_not_retryable_ends_the_run_at_once(error: ConfigError | StorageError) -> None:
    talk = RunState()
    talk.enter(1)

    ended = failure(error)
    talk.leave(ended)

    assert talk.view().fatal is (None if error.retryable else ended)


def test_a_failure_is_cleared_by_the_first_new_step() -> None:
    talk = RunState()
    talk.enter(1)
    talk.report(status(7))
    talk.leave(failure(StorageError("away")))
    talk.enter(1)

    talk.report(status(5))  # a recomputed step
    assert talk.view().failure is not None
    talk.report(status(8))
    assert talk.view().failure is None


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_cause_is_the_failure_of_the_worker_that_the_others_lost(order: tuple[int, int]) -> None:
    errors = {0: PeerLost("the connection broke"), 1: WorkerLost("the process died")}
    talk = RunState()
    talk.enter(1)

    for rank in order:
        talk.workers_failed({rank: failure(errors[rank], rank)})

    found = talk.view().failure
    assert found is not None
    assert (found.rank, found.error) == (1, errors[1])


def test_a_workers_own_error_takes_precedence_over_rays_report_of_it() -> None:
    said = Failure(StorageError("away"), rank=1, log=("the last line",))
    talk = RunState()
    talk.enter(1)

    talk.leave(said)
    talk.workers_failed({1: failure(StorageError("away"), 1)})

    assert talk.view().failure is said


def test_new_workers_get_the_reason_for_their_start() -> None:
    talk = RunState(Reason.DRIVER_LOST)
    assert talk.enter(1).start == Start(Reason.DRIVER_LOST)
    talk.request_regroup()
    talk.leave()
    assert talk.enter(1).start == Start(Reason.RESIZE)
    talk.request_regroup(Reason.PREEMPTION)
    talk.leave()
    assert talk.enter(1).start == Start(Reason.PREEMPTION)
    talk.notice()
    talk.leave()
    assert talk.enter(1).start == Start(Reason.PREEMPTION)
    talk.request_regroup()
    ended = failure(WorkerLost("the process died"), 1)
    talk.workers_failed({1: ended})
    assert talk.enter(1).start == Start(Reason.FAILURE, ended)


def test_a_hang_is_the_reason_for_the_next_workers_whatever_other_errors_follow_it() -> None:
    now = 0.0
    talk = RunState(hang_timeout_seconds=30, clock=lambda: now)
    places = [Position(f"process {rank}", 8, Stage.COMPUTING) for rank in (0, 1)]
    talk.enter(2)
    for rank in (0, 1):
        talk.join(rank, f"node {rank}", f"actor {rank}")
        talk.beat(rank, places[rank])

    now = 40.0  # worker 1 sends no more heartbeats
    orders = [talk.beat(0, places[0]) for _ in range(2)]
    talk.show(0, places[0], "stack")
    taken = talk.take_hang()
    talk.leave(failure(PeerLost("the connection broke"), 0))
    talk.workers_failed({rank: failure(WorkerLost("the process died"), rank) for rank in (0, 1)})
    start = talk.enter(2).start

    assert orders == [Order.CONTINUE, Order.SHOW_STACKS]
    assert taken is not None
    hang, to_kill = taken
    assert to_kill == ["actor 1"]
    assert start.reason is Reason.FAILURE
    assert start.failure is not None
    assert (start.failure.rank, start.failure.node) == (1, "node 1")
    assert isinstance(start.failure.error, WorkersHang)
    assert start.failure.error.message == str(hang)
    assert start.failure.error.retryable


def test_workers_that_fail_before_they_enter_are_not_restarted_without_limit() -> None:
    talk = RunState()
    broken = failure(WorkerLost("its code cannot be loaded"), 0)

    for _ in range(MAX_FRUITLESS):
        talk.workers_failed({0: broken})
        assert talk.view().fatal is None
    talk.workers_failed({0: broken})

    assert talk.view().fatal is broken
