"""Evaluation during training: an actor of its own measures each new checkpoint, and training neither waits nor fails.

On one machine it shares the cores, at the lowest priority; in a cluster it is placed where Ray has the resource
`f2llm_evaluation`, so that no worker gives room for it and none can take its place.
"""

import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import Any

from ray_app.ray_runtime.environment import EMBEDDED  # isort: skip - before Ray, which reads it

import ray

from data_io.storage.store import Store
from ray_app.job_spec import EVALUATION_RESOURCE, JobSpec
from ray_app.ray_runtime.failures import classify_error
from ray_app.run_directory.directory import append_event
from ray_app.run_directory.evaluation_curve import MeasuredCheckpoint, read_curve, scores_of
from ray_app.structured_log import fields

_PLACE_SECONDS = 60.0
"""How long a run whose training is done waits for an actor that never got a place."""
_LOWEST_PRIORITY = 19

log = logging.getLogger(__name__)


@ray.remote(max_restarts=-1, num_cpus=0)
class EvaluatorActor:
    """Measures checkpoints of one run, in a process of its own that stays: importing takes longer than measuring."""

    def __init__(self, job: str, spec: JobSpec, data: Store, run: Store, threads: int) -> None:
        import torch

        if EMBEDDED or not spec.workers.gpus:
            os.nice(_LOWEST_PRIORITY)
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if spec.workers.gpus else "cpu")
        self._job, self._spec, self._data, self._run = job, spec, data, run
        self._tried: set[Any] = set()

    def measure_newest(self) -> tuple[MeasuredCheckpoint, ...]:
        """Measure the newest checkpoint, if it is not; returns the whole curve. One that cannot be measured is tried
        once.
        """
        from ray_app.orchestration.checkpoint_evaluation import measure_checkpoint, newest_unmeasured

        name = newest_unmeasured(self._run)
        if name is not None and name not in self._tried:
            self._tried.add(name)
            measure_checkpoint(self._job, self._spec, name, data=self._data, run=self._run, device=self._device)
        return read_curve(self._run)


class CheckpointEvaluator:
    """The driver's side: requests a measurement when there is a new checkpoint and none is under way; never waits."""

    def __init__(self, job: str, spec: JobSpec, data: Store, run: Store) -> None:
        threads = max(1, int(spec.workers.cpus))
        place = {} if EMBEDDED else {"resources": {EVALUATION_RESOURCE: 1.0}}
        self._actor = EvaluatorActor.options(num_gpus=spec.workers.gpus, **place).remote(job, spec, data, run, threads)  # type: ignore[attr-defined]
        self._alive = self._actor.__ray_ready__.remote()
        self._run = run
        self._pending: Any = None
        self._requested_step: int | None = None
        self._problems: list[str] = []
        self.curve = read_curve(run)

    def poll(self, checkpoint_step: int | None) -> bool:
        """Collect what was measured and request the checkpoint of that step; whether `curve` has changed."""
        changed = self._collect() if self._pending is not None else False
        if self._pending is None and checkpoint_step is not None and checkpoint_step != self._requested_step:
            self._requested_step = checkpoint_step
            self._request()
        return changed

    @property
    def scores(self) -> dict[str, Any]:
        """Fields of RunStatus, what earlier starts of the run have measured included."""
        return scores_of(self.curve)

    def finish(self, wait: Callable[[], bool]) -> None:
        """Measure the last checkpoint too, calling `wait` again and again meanwhile until it says False. What was not
        measured becomes an event of the run, whose workers no longer write any.
        """
        began = monotonic()
        while not ray.wait([self._alive], timeout=0)[0]:
            if monotonic() - began > _PLACE_SECONDS:
                self._note(f"Ray has no place for it: give a node the resource {EVALUATION_RESOURCE}")
                break
            if not wait():
                return
        else:
            if not self._wait_for_pending(wait):
                return
            self._request()
            if not self._wait_for_pending(wait):
                return
        for why in self._problems:
            append_event(self._run, "CheckpointNotMeasured", message=why)

    def end(self) -> None:
        """Give up what is under way."""
        ray.kill(self._actor)

    def _request(self) -> None:
        self._pending = self._actor.measure_newest.remote()

    def _wait_for_pending(self, wait: Callable[[], bool]) -> bool:
        """Wait for what is under way; False where `wait` says that there is no time."""
        while self._pending is not None:
            self._collect()
            if self._pending is not None and not wait():
                return False
        return True

    def _collect(self) -> bool:
        """Take the answer, if it is there; whether `curve` has changed."""
        if not ray.wait([self._pending], timeout=0)[0]:
            return False
        pending, self._pending, before = self._pending, None, self.curve
        try:
            self.curve = ray.get(pending)
            if len(self.curve) > len(before):
                newest = self.curve[-1]
                log.info("checkpoint measured", extra=fields(step=newest.step, score=round(newest.score, 4)))
        except ray.exceptions.RayError as error:
            self._note(str(classify_error(error)))
        return self.curve != before

    def _note(self, why: str) -> None:
        log.warning("checkpoint not measured", extra=fields(step=self._requested_step, error=why))
        self._problems.append(why)
