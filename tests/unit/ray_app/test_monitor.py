"""Who tells whom what between driver, controller and workers, and when a run that makes no steps is given up."""

import pytest

from data_io.errors import ConfigError, StorageError
from ray_app.control import Wish
from ray_app.monitor import MAX_FRUITLESS, Conversation
from ray_app.status import RunStatus


def status(step: int) -> RunStatus:
    return RunStatus(name="small", step=step)


def test_a_stop_is_heard_with_the_next_report_and_stays() -> None:
    talk = Conversation()
    talk.enter()

    assert talk.report(status(1)) is Wish.GO_ON
    talk.request_stop()
    assert talk.report(status(2)) is Wish.STOP
    talk.enter()
    assert talk.report(status(2)) is Wish.STOP


def test_a_regroup_is_over_when_the_next_workers_are_there_and_never_outdoes_a_stop() -> None:
    talk = Conversation()
    talk.enter()

    assert talk.request_regroup()
    assert talk.report(status(1)) is Wish.REGROUP
    talk.leave()
    assert not talk.workers_are_there()
    talk.enter()
    assert talk.report(status(1)) is Wish.GO_ON
    talk.request_stop()
    talk.request_regroup()
    assert talk.report(status(2)) is Wish.STOP


def test_without_workers_there_is_nobody_to_wait_for() -> None:
    assert not Conversation().request_regroup()


def test_starts_that_follow_on_steps_wait_for_nothing_and_are_never_too_many() -> None:
    talk = Conversation()

    for step in range(1, 50):
        assert talk.enter() == 0
        talk.report(status(step))
        talk.leave(StorageError("away"))

    assert talk.view().fatal is None


def test_starts_without_a_step_wait_longer_and_longer_until_the_run_is_given_up_with_its_last_error() -> None:
    talk = Conversation(seed=1)
    talk.enter()
    talk.report(status(7))

    waits = []
    for _ in range(MAX_FRUITLESS + 2):
        assert talk.view().fatal is None
        talk.leave(StorageError("the store is away"))
        waits.append(talk.enter())

    assert waits[0] == 0  # the step before it was made
    assert all(0 < wait <= 2.0**n for n, wait in enumerate(waits[1:-1], start=1))
    assert waits[-1] == 60  # nobody is to start any more
    fatal = talk.view().fatal
    assert isinstance(fatal, StorageError)
    assert "the store is away" in fatal.message


@pytest.mark.parametrize("error", [ConfigError("wrong"), StorageError("away")])
def test_only_what_no_retry_can_mend_ends_the_run_at_once(error: ConfigError | StorageError) -> None:
    talk = Conversation()
    talk.enter()

    talk.leave(error)

    assert talk.view().fatal is (None if error.retryable else error)
