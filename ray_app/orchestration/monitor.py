"""A small actor between the driver, Ray Train's controller and the workers. Losing its state loses no training."""

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
"""Allowed consecutive starts without a finished step. After one more the run fails: further retries would not help."""
_MOST_SECONDS_BETWEEN_STARTS = 60.0
_LOST_SECONDS = 15.0
"""Workers without a heartbeat for this long are lost."""
_ROOM_SECONDS = 3.0
"""The time in which the controller may not have checked the free resources yet."""


@dataclass(frozen=True)
class View:
    """The driver's view.

    `status`: the newest status of training. `message`: the progress of a task, None before it runs. `failure`: the
    failure of the workers if no step has finished since. `fatal`: the failure that ends the run.
    """

    status: RunStatus | None
    message: str | None
    failure: Failure | None
    fatal: Failure | None
    idle_seconds: float
    """How long no worker has been running; 0 while workers run."""
    waits_for_room: bool
    """Whether the cluster lacks resources for workers.min workers."""


@dataclass(frozen=True)
class Welcome:
    """The answer to rank 0 of a new group: how long to wait before it starts, and why there are new workers."""

    wait_seconds: float
    start: Start


@dataclass(frozen=True)
class _Member:
    """A worker of the group: its node and its Ray actor."""

    node: str
    actor: Any


class RunState:
    """The actor's state, as a plain class that can be tested without Ray."""

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
        self._last_beat: float | None = None
        self._left = clock()
        self._without_room_since: float | None = None
        self._random = random.Random(seed)
        self._hangs = HangDetector(hang_timeout_seconds, clock)
        self._members: dict[int, _Member] = {}
        self._environment = ""

    def join(self, rank: int, node: str, actor: Any, environment: str = "") -> None:
        """A worker has started. `actor`: the actor to kill if it hangs. `environment`: its runtime environment."""
        self._members[rank] = _Member(node, actor)
        self._environment = environment

    def enter(self, workers: int) -> Welcome:
        """Rank 0 of a new group of `workers` workers has started. The group is watched from now on.

        If the previous start finished a step, the new one does not wait. Otherwise it waits with exponential backoff
        and full jitter. After more than MAX_FRUITLESS starts without a step the run fails.
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
        self._last_beat = self._clock()
        self._workers = workers
        wait = self._seconds_before_start()
        self._hangs.begin(workers, after_seconds=wait)
        return Welcome(wait, start)

    def _seconds_before_start(self) -> float:
        self._give_up_if_fruitless()
        if self._fatal is not None:  # the driver has not ended the run yet
            return _MOST_SECONDS_BETWEEN_STARTS
        wait = min(_MOST_SECONDS_BETWEEN_STARTS, 2.0**self._fruitless) if self._fruitless else 0.0
        return self._random.uniform(0, wait)

    def _give_up_if_fruitless(self) -> None:
        if self._fruitless > MAX_FRUITLESS and self._fatal is None:
            self._fatal = self._failure or Failure(
                TrainingError(
                    f"{self._fruitless} consecutive starts did not finish a step",
                    remedy="see logs/ in the run directory; the same command resumes from the last checkpoint",
                )
            )

    def report(self, status: RunStatus) -> Directive:
        """Record rank 0's status and return the current directive. A new step clears the last failure."""
        self._status = status
        self._last_beat = self._clock()
        if status.step > (self._step_at_start or 0):
            self._failure = None
        return self._directive

    def beat(self, rank: int, place: Position) -> Order:
        """Record a rank's heartbeat and return an order for it."""
        if rank == 0 and self._last_beat is not None:
            self._last_beat = self._clock()
        return self._hangs.beat(rank, place)

    def show(self, rank: int, place: Position, stacks: str) -> None:
        """Record the stack traces that a rank was asked for."""
        self._hangs.show(rank, place, stacks)

    def take_hang(self) -> tuple[Hang, list[Any]] | None:
        """For the driver: a hang, returned once, and the actors of the workers that do not answer, to be killed."""
        hang = self._hangs.take()
        if hang is None:
            return None
        self._note(self._failure_of(hang))
        return hang, [self._members[rank].actor for rank in hang.unresponsive if rank in self._members]

    def leave(self, failure: Failure | None = None) -> None:
        """A rank ends, because of `failure` if given. A non-retryable failure ends the run."""
        self._last_beat, self._left = None, self._clock()
        self._hangs.end()
        if failure is not None:
            self._note(failure)

    def workers_failed(self, failures: Mapping[int, Failure]) -> None:
        """Record the failures of a group, by rank, as Ray Train reports them. Only Ray Train reports killed ranks.

        If a group fails before its rank 0 enters, for example because its code cannot be loaded, the start counts as
        one without a step.
        """
        self._hangs.end()
        for failure in failures.values():
            self._note(failure)
        if not self._entered:
            self._fruitless += 1
            self._give_up_if_fruitless()
        self._entered = False

    def notice(self) -> None:
        """A node is about to be preempted; the workers will exit by themselves."""
        self._reason = Reason.PREEMPTION

    def say(self, message: str | None) -> None:
        """Record a task's progress message; None if a task is about to start."""
        self._message = message

    def wait_for_room(self, waits: bool) -> None:
        """Record whether resources for workers.min workers are missing. Called repeatedly while they are."""
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
        """Ask running workers, if any, to write a checkpoint and exit."""
        if self.workers_at_work():
            self._directive = max(self._directive, Directive.REGROUP)
            self._reason = reason

    def worker_environment(self) -> str:
        return self._environment

    def workers_at_work(self) -> int:
        beat = self._last_beat
        return self._workers if beat is not None and self._clock() - beat < _LOST_SECONDS else 0

    def _idle_seconds(self) -> float:
        if self.workers_at_work():
            return 0.0
        return self._clock() - (self._left if self._last_beat is None else self._last_beat)

    def _failure_of(self, hang: Hang) -> Failure:
        """The failure of the rank that blocks the others, if that rank has joined."""
        error = WorkersHang(str(hang), remedy="see the stack traces listed in the event Hang in events.jsonl")
        for rank in hang.blocking:
            if rank in self._members:
                return Failure(error, rank, self._members[rank].node)
        return Failure(error)

    def _note(self, failure: Failure) -> None:
        """Keep the first failure of each rank. A root cause takes precedence over the PeerLost errors it leads to."""
        self._failures.setdefault(failure.rank, failure)
        consequences = [each for each in self._failures.values() if isinstance(each.error, PeerLost)]
        causes = [each for each in self._failures.values() if each not in consequences]
        self._failure = (causes or consequences)[0]
        if not failure.error.retryable and self._fatal is None:
            self._fatal = failure


Monitor: Any = ray.remote(num_cpus=0)(RunState)
