"""One small actor between driver, Ray Train's controller and workers. It holds nothing that must not be lost."""

import random
from dataclasses import dataclass
from time import monotonic
from typing import Any

import ray

from data_io.errors import F2LLMError
from ray_app.control import Wish
from ray_app.errors import TrainingError
from ray_app.status import RunStatus

MAX_FRUITLESS = 4
"""Starts in a row that made no step, before a run is given up: what fails every time is not mended by trying again."""
_MOST_SECONDS_BETWEEN_STARTS = 60.0
_SILENT_SECONDS = 15.0
"""Workers that said nothing for so long are gone."""


@dataclass(frozen=True)
class View:
    """What the driver sees: the newest status of training, what a task is at, and what ends the run if anything."""

    status: RunStatus | None
    message: str
    fatal: F2LLMError | None


class Conversation:
    """The actor's state, as a plain class so that it can be tested without Ray."""

    def __init__(self, seed: int | None = None) -> None:
        self._status: RunStatus | None = None
        self._message = ""
        self._wish = Wish.GO_ON
        self._fatal: F2LLMError | None = None
        self._last_error: F2LLMError | None = None
        self._starts = self._fruitless = 0
        self._step_at_start: int | None = None
        self._heard: float | None = None
        self._random = random.Random(seed)

    def enter(self) -> float:
        """Rank 0 of a new group is there; answers how many seconds it should wait before it starts.

        Starts that follow on steps wait for nothing. Others wait longer and longer, with full jitter, and after
        MAX_FRUITLESS of them the run is given up.
        """
        step = self._status.step if self._status else None
        self._fruitless = self._fruitless + 1 if self._starts and step == self._step_at_start else 0
        self._step_at_start = step
        self._starts += 1
        if self._wish is Wish.REGROUP:
            self._wish = Wish.GO_ON
        self._heard = monotonic()
        if self._fruitless > MAX_FRUITLESS and self._fatal is None:
            self._fatal = self._last_error or TrainingError(
                f"{self._fruitless} starts in a row did not get through a step",
                remedy="see logs/ of the run directory; the same command goes on from the last checkpoint",
            )
        if self._fatal is not None:  # and the driver is not there to end it
            return _MOST_SECONDS_BETWEEN_STARTS
        if not self._fruitless:
            return 0.0
        return self._random.uniform(0, min(_MOST_SECONDS_BETWEEN_STARTS, 2.0**self._fruitless))

    def report(self, status: RunStatus) -> Wish:
        """Take rank 0's status; answers what is wanted."""
        self._status = status
        self._heard = monotonic()
        return self._wish

    def is_alive(self) -> None:
        """Rank 0 is at work, though no step has ended."""
        self._heard = monotonic()

    def leave(self, error: F2LLMError | None = None) -> None:
        """A rank ends; `error` is what ended it. One that no retry can mend ends the run."""
        self._heard = None
        if error is not None:
            self._last_error = error
            if not error.retryable and self._fatal is None:
                self._fatal = error

    def say(self, message: str) -> None:
        """Take a line about what a task is at."""
        self._message = message

    def view(self) -> View:
        return View(self._status, self._message, self._fatal)

    def request_stop(self) -> None:
        self._wish = Wish.STOP

    def request_regroup(self) -> bool:
        """Ask the workers to make room behind a checkpoint; answers whether there are any."""
        if self.workers_are_there():
            self._wish = max(self._wish, Wish.REGROUP)
            return True
        return False

    def workers_are_there(self) -> bool:
        return self._heard is not None and monotonic() - self._heard < _SILENT_SECONDS


Monitor: Any = ray.remote(num_cpus=0)(Conversation)
