"""One small actor between driver, Ray Train's controller and workers. It holds nothing that must not be lost."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import ray

from ray_app.errors import PeerLost, TrainingError, WorkersHang
from ray_app.orchestration.hang_detector import Hang, HangDetector, Order
from ray_app.run_directory.exit_record import Failure
from ray_app.run_directory.status import Reason, RunStatus
from ray_app.training.control import Directive, Start
from ray_app.training.heartbeat import Position

MAX_FRUITLESS = 4
"""Starts in a row that made no step, before a run is given up: what fails every time is not mended by trying again."""
_MOST_SECONDS_BETWEEN_STARTS = 60.0
_SILENT_SECONDS = 15.0
"""Workers that said nothing for so long are gone."""
_ROOM_SECONDS = 3.0
"""For so long the controller may not have looked yet at what there is."""


@dataclass(frozen=True)
class View:
    """What the driver sees: the newest status of training, what a task is at (None before it is at work), what the
    workers failed from if no step was made since, and what ends the run if anything.
    """

    status: RunStatus | None
    message: str | None
    failure: Failure | None
    fatal: Failure | None
    idle_seconds: float
    """How long no worker has been at work; 0 while some are."""
    waits_for_room: bool
    """Whether there is no room for the fewest workers."""


@dataclass(frozen=True)
class Welcome:
    """What rank 0 of a new group is told: how long to wait before it starts, and why there are new workers."""

    wait_seconds: float
    start: Start


@dataclass(frozen=True)
class _Member:
    """A worker of the group: where it is, and its actor of Ray."""

    node: str
    actor: Any


class RunState:
    """The actor's state, as a plain class so that it can be tested without Ray."""

    def __init__(
        self,
        first_start: Reason = Reason.FIRST_START,
        *,
        hang_timeout_seconds: float | None = None,
        seed: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._clock = clock
        self._status: RunStatus | None = None
        self._message: str | None = None
        self._directive = Directive.CONTINUE
        self._reason = first_start
        self._fatal: Failure | None = None
        self._failure: Failure | None = None
        self._failures: dict[int | None, Failure] = {}
        self._starts = self._fruitless = self._workers = 0
        self._step_at_start: int | None = None
        self._entered = False
        self._heard: float | None = None
        self._left = clock()
        self._without_room_since: float | None = None
        self._random = random.Random(seed)
        self._hangs = HangDetector(hang_timeout_seconds, clock)
        self._members: dict[int, _Member] = {}
        self._environment = ""

    def join(self, rank: int, node: str, actor: Any, environment: str = "") -> None:
        """A worker is there; `actor` is what can be killed of it, `environment` its runtime environment."""
        self._members[rank] = _Member(node, actor)
        self._environment = environment

    def enter(self, workers: int) -> Welcome:
        """Rank 0 of a new group of so many is there, and all are watched from now on.

        Starts that follow on steps wait for nothing. Others wait longer and longer, with full jitter, and after
        MAX_FRUITLESS of them the run is given up.
        """
        step = self._status.step if self._status else None
        self._fruitless = self._fruitless + 1 if self._starts and step == self._step_at_start else 0
        self._step_at_start = step
        self._starts += 1
        self._entered = True
        start = Start(Reason.FAILURE, self._failure) if self._failures else Start(self._reason)
        self._reason, self._failures = Reason.FAILURE, {}
        if self._directive is Directive.REGROUP:
            self._directive = Directive.CONTINUE
        self._heard = self._clock()
        self._workers = workers
        wait = self._seconds_before_start()
        self._hangs.begin(workers, after_seconds=wait)
        return Welcome(wait, start)

    def _seconds_before_start(self) -> float:
        self._give_up_if_fruitless()
        if self._fatal is not None:  # and the driver is not there to end it
            return _MOST_SECONDS_BETWEEN_STARTS
        wait = min(_MOST_SECONDS_BETWEEN_STARTS, 2.0**self._fruitless) if self._fruitless else 0.0
        return self._random.uniform(0, wait)

    def _give_up_if_fruitless(self) -> None:
        if self._fruitless > MAX_FRUITLESS and self._fatal is None:
            self._fatal = self._failure or Failure(
                TrainingError(
                    f"{self._fruitless} starts in a row did not get through a step",
                    remedy="see logs/ of the run directory; the same command goes on from the last checkpoint",
                )
            )

    def report(self, status: RunStatus) -> Directive:
        """Take rank 0's status; answers what is wanted. A step beyond all before takes the sting out of a failure."""
        self._status = status
        self._heard = self._clock()
        if status.step > (self._step_at_start or 0):
            self._failure = None
        return self._directive

    def beat(self, rank: int, place: Position) -> Order:
        """A rank is at work, though no step may have ended; answers what it is to do."""
        if rank == 0 and self._heard is not None:
            self._heard = self._clock()
        return self._hangs.hear(rank, place)

    def show(self, rank: int, place: Position, stacks: str) -> None:
        """Take a rank's stacks, which it was asked for."""
        self._hangs.show(rank, place, stacks)

    def take_hang(self) -> tuple[Hang, list[Any]] | None:
        """For the driver: a hang, once, and what is to be killed of the workers that do not answer."""
        hang = self._hangs.take()
        if hang is None:
            return None
        self._note(self._failure_of(hang))
        return hang, [self._members[rank].actor for rank in hang.silent if rank in self._members]

    def leave(self, failure: Failure | None = None) -> None:
        """A rank ends; `failure` is what ended it. One that no retry can mend ends the run."""
        self._heard, self._left = None, self._clock()
        self._hangs.end()
        if failure is not None:
            self._note(failure)

    def workers_failed(self, failures: Mapping[int, Failure]) -> None:
        """What Ray Train says of a group that failed, by rank; of a rank that was killed nobody else does.

        A group may have failed before its rank 0 entered, as where its code cannot be loaded: that start made no step.
        """
        self._hangs.end()
        for failure in failures.values():
            self._note(failure)
        if not self._entered:
            self._fruitless += 1
            self._give_up_if_fruitless()
        self._entered = False

    def notice(self) -> None:
        """A node is about to go: the workers are going to leave by themselves."""
        self._reason = Reason.PREEMPTION

    def say(self, message: str | None) -> None:
        """Take a line about what a task is at, None where one is to begin."""
        self._message = message

    def wait_for_room(self, waits: bool) -> None:
        """Whether there is no room for the fewest workers, said again and again while there is none."""
        if not waits:
            self._without_room_since = None
        elif self._without_room_since is None:
            self._without_room_since = self._clock()

    def view(self) -> View:
        without_room = self._without_room_since
        waits = without_room is not None and self._clock() - without_room > _ROOM_SECONDS
        return View(self._status, self._message, self._failure, self._fatal, self._idle_seconds(), waits)

    def request_stop(self) -> None:
        self._directive = Directive.STOP

    def request_regroup(self, reason: Reason = Reason.RESIZE) -> None:
        """Ask the workers, where there are any, to make room behind a checkpoint."""
        if self.workers_at_work():
            self._directive = max(self._directive, Directive.REGROUP)
            self._reason = reason

    def worker_environment(self) -> str:
        return self._environment

    def workers_at_work(self) -> int:
        return self._workers if self._heard is not None and self._clock() - self._heard < _SILENT_SECONDS else 0

    def _idle_seconds(self) -> float:
        if self.workers_at_work():
            return 0.0
        return self._clock() - (self._left if self._heard is None else self._heard)

    def _failure_of(self, hang: Hang) -> Failure:
        """As one of the rank that the others wait for, where there is one that ever said where it is."""
        error = WorkersHang(str(hang), remedy="see the stacks that the event Hang in events.jsonl names")
        for rank in hang.behind:
            if rank in self._members:
                return Failure(error, rank, self._members[rank].node)
        return Failure(error)

    def _note(self, failure: Failure) -> None:
        """The first word of each rank counts, and of all of them the one that the others only suffered from."""
        self._failures.setdefault(failure.rank, failure)
        suffered = [each for each in self._failures.values() if isinstance(each.error, PeerLost)]
        causes = [each for each in self._failures.values() if each not in suffered]
        self._failure = (causes or suffered)[0]
        if not failure.error.retryable and self._fatal is None:
            self._fatal = failure


Monitor: Any = ray.remote(num_cpus=0)(RunState)
