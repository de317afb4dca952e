"""The difference between a hang and slow work, which worker blocks the others, and how a hanging group is ended."""

import threading
from dataclasses import replace

import pytest

from data_io.storage.store import OUTAGE_SECONDS
from ray_app.orchestration.hang_detector import Hang, HangDetector, Order
from ray_app.training.heartbeat import Heartbeat, Position, Stage, describe_stacks

BEAT = 2.0


class Group:
    """Workers that report their positions over time, and the detector that receives the reports."""

    def __init__(self, workers: int, timeout_seconds: float | None = None) -> None:
        self.now = 100.0
        self.watch = HangDetector(timeout_seconds, clock=lambda: self.now)
        self.watch.begin(workers)
        self.places = {rank: Position(f"process {rank}", 0, Stage.STARTING) for rank in range(workers)}
        self.orders: dict[int, Order] = {}

    def move(self, *ranks: int, step: int, stage: Stage, in_collective: bool = False, typical: float = 1.0) -> None:
        for rank in ranks:
            self.places[rank] = Position(f"process {rank}", step, stage, in_collective, typical)

    def beat(self, seconds: float, *, unresponsive: tuple[int, ...] = (), answering: bool = True) -> None:
        """Let time pass. All responsive workers send heartbeats, and their stack traces if asked."""
        end = self.now + seconds
        while self.now < end:
            self.now += BEAT
            for rank, place in self.places.items():
                if rank not in unresponsive:
                    self.orders[rank] = self.watch.beat(rank, place)
                    if self.orders[rank] is Order.SHOW_STACKS and answering:
                        self.watch.show(rank, place, f"stack of {rank}")

    def hang(self) -> Hang:
        hang = self.watch.take()
        assert hang is not None
        return hang


@pytest.mark.parametrize(("typical", "limit"), [(0.1, 60), (1, 60), (20, 200)])
def test_a_hang_is_a_step_that_takes_ten_times_the_typical_time_and_at_least_a_minute(
    typical: float, limit: float
) -> None:
    group = Group(2)
    group.move(0, 1, step=12, stage=Stage.COMPUTING, in_collective=True, typical=typical)

    group.beat(limit)
    assert group.watch.take() is None
    group.beat(3 * BEAT)

    assert group.hang().step == 12


def test_steps_that_end_are_not_a_hang() -> None:
    group = Group(2, timeout_seconds=5)

    for step in range(2, 50):
        group.move(0, 1, step=step, stage=Stage.COMPUTING)
        group.beat(4)

    assert group.watch.take() is None


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.SAVING, Stage.ENDING])
def test_expected_slow_stages_are_not_hangs_and_the_next_stage_has_the_full_limit(stage: Stage) -> None:
    group = Group(2, timeout_seconds=20)
    group.move(0, step=7, stage=stage)
    group.move(1, step=7, stage=Stage.COMPUTING, in_collective=True)

    group.beat(3600)
    group.move(0, step=7, stage=Stage.COMPUTING)
    group.beat(18)
    assert group.watch.take() is None
    group.beat(6)

    assert group.hang().blocking == [0]


def test_an_outage_of_the_store_is_not_a_hang() -> None:
    group = Group(2)
    group.move(0, step=7, stage=Stage.WAITING_FOR_DATA)
    group.move(1, step=7, stage=Stage.COMPUTING, in_collective=True)

    group.beat(OUTAGE_SECONDS)
    assert group.watch.take() is None
    group.beat(40)

    assert group.hang().blocking == [0]


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.SAVING, Stage.COMPUTING])
def test_a_slow_stage_of_another_worker_does_not_excuse_one_that_does_not_answer(stage: Stage) -> None:
    group = Group(3)
    group.move(0, 1, 2, step=7, stage=stage)
    group.beat(10)

    group.beat(150, unresponsive=(1,))

    hang = group.hang()
    assert hang.unresponsive == hang.blocking == [1]
    assert "worker 1 does not answer" in str(hang)


def test_a_group_in_which_no_worker_answers_is_detected() -> None:
    group = Group(1)
    group.move(0, step=7, stage=Stage.COMPUTING)
    group.beat(10)

    group.beat(50, unresponsive=(0,))
    assert group.watch.take() is None
    group.beat(10, unresponsive=(0,))

    assert group.hang().unresponsive == [0]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (Position("process 1", 8, Stage.WAITING_FOR_DATA), "worker 1 is still waiting for data in step 8"),
        (Position("process 1", 7, Stage.RECORDING), "worker 1 is still recording in step 7"),
        (Position("process 1", 8, Stage.COMPUTING), "worker 1 is still computing in step 8"),
    ],
)
def test_the_worker_at_the_earliest_position_blocks_the_others(place: Position, told: str) -> None:
    group = Group(4, timeout_seconds=30)
    group.move(0, 2, 3, step=8, stage=Stage.COMPUTING, in_collective=True)
    group.places[1] = place

    group.beat(60)

    hang = group.hang()
    assert hang.blocking == [1]
    assert told in str(hang)


def test_if_all_are_at_the_same_position_none_blocks_the_others() -> None:
    group = Group(3, timeout_seconds=30)
    group.move(0, 1, 2, step=8, stage=Stage.UPDATING, in_collective=True)

    group.beat(60)

    hang = group.hang()
    assert hang.blocking == []
    assert "all workers are at the same position, updating in step 8" in str(hang)


def test_no_worker_ends_before_all_stack_traces_are_sent_and_collected() -> None:
    group = Group(3, timeout_seconds=30)
    group.move(0, 1, 2, step=8, stage=Stage.COMPUTING)
    group.beat(30 + 2 * BEAT, answering=False)
    assert group.watch.take() is None

    orders = [group.watch.beat(rank, group.places[rank]) for rank in (0, 1, 2)]
    for rank in (0, 1):
        group.watch.show(rank, group.places[rank], "stack")
    assert group.watch.beat(0, group.places[0]) is Order.SHOW_STACKS
    group.watch.show(2, group.places[2], "stack")

    assert orders == [Order.SHOW_STACKS] * 3
    assert group.watch.beat(0, group.places[0]) is Order.SHOW_STACKS
    assert group.hang().stacks == {0: "stack", 1: "stack", 2: "stack"}
    assert [group.watch.beat(rank, group.places[rank]) for rank in (0, 1, 2)] == [Order.END] * 3


def test_a_hang_is_reported_once_and_does_not_affect_the_next_workers() -> None:
    group = Group(2, timeout_seconds=30)
    group.move(0, 1, step=8, stage=Stage.COMPUTING)
    group.beat(60)
    assert group.watch.take() is not None
    group.beat(BEAT)
    assert group.orders == {0: Order.END, 1: Order.END}
    assert group.watch.take() is None

    early = replace(group.places[1], process="the next worker 1")  # its heartbeat can arrive before the group has begun
    assert group.watch.beat(1, early) is Order.CONTINUE
    group.watch.begin(2)

    assert group.watch.take() is None
    assert group.watch.beat(1, early) is Order.CONTINUE


def test_workers_that_have_ended_are_not_missed() -> None:
    group = Group(2, timeout_seconds=30)
    group.move(0, 1, step=8, stage=Stage.COMPUTING)
    group.beat(10)

    group.watch.end()
    group.now += 1000

    assert group.watch.take() is None


def test_a_group_that_ends_while_its_stack_traces_are_requested_did_not_hang() -> None:
    group = Group(2, timeout_seconds=30)
    group.move(0, 1, step=8, stage=Stage.COMPUTING)
    group.beat(30 + 2 * BEAT, answering=False)
    assert group.orders[1] is Order.SHOW_STACKS

    group.watch.end()
    group.now += 1000

    assert group.watch.take() is None
    assert group.watch.beat(0, group.places[0]) is Order.CONTINUE


def test_a_start_lasts_until_its_first_step_has_ended_and_that_step_is_not_typical() -> None:
    now = 0.0
    heartbeat = Heartbeat(clock=lambda: now)

    assert heartbeat.position().stage is Stage.STARTING
    for step, seconds in ((5, 100.0), (6, 1.0), (7, 3.0), (8, 2.0)):
        heartbeat.at(step, Stage.COMPUTING)
        assert heartbeat.position().stage is (Stage.STARTING if step == 5 else Stage.COMPUTING)
        now += seconds
    heartbeat.at(9, Stage.WAITING_FOR_DATA)

    assert heartbeat.position().typical_seconds == 2.0
    assert str(heartbeat.position()) == "waiting for data in step 9"


def test_stacks_name_every_thread_and_show_where_it_is() -> None:
    ready, done = threading.Event(), threading.Event()

    def wait_here() -> None:
        ready.set()
        done.wait()

    thread = threading.Thread(target=wait_here, name="the-loop")
    thread.start()
    ready.wait()
    assert thread.ident is not None
    text = describe_stacks(first=thread.ident)
    done.set()
    thread.join()

    assert text.startswith("Thread the-loop:")
    assert "in wait_here" in text
    assert "test_stacks_name_every_thread" not in text  # the calling thread
