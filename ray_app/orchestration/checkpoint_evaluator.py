"""Evaluation during training: a separate actor evaluates each new checkpoint. Training neither waits for it nor fails.

On one machine the actor shares the CPUs, at the lowest priority. On a cluster it runs on a node with the Ray resource
`f2llm_evaluation`, so that it does not compete with the workers for resources.
"""

import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import Any

from ray_app.ray_runtime.environment import EMBEDDED  # isort: skip - must be imported before Ray

import ray

from data_io.storage.store import Store
from ray_app.job_spec import EVALUATION_RESOURCE, JobSpec
from ray_app.ray_runtime.failures import classify_error
from ray_app.run_directory.directory import append_event
from ray_app.run_directory.evaluation_curve import MeasuredCheckpoint, read_curve, scores_of
from ray_app.structured_log import fields

_PLACE_SECONDS = 60.0
"""After training: how long the run waits for an actor that Ray has not placed yet."""
_LOWEST_PRIORITY = 19

log = logging.getLogger(__name__)


@ray.remote(max_restarts=-1, num_cpus=0)
class EvaluatorActor:
    """Evaluates checkpoints of one run. Its process stays alive, because importing takes longer than evaluating."""

    def __init__(self, job: str, spec: JobSpec, data: Store, run: Store, threads: int) -> None:
        import torch

        if EMBEDDED or not spec.workers.gpus:
            os.nice(_LOWEST_PRIORITY)
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if spec.workers.gpus else "cpu")
        self._job, self._spec, self._data, self._run = job, spec, data, run
        self._tried: set[Any] = set()

    def measure_newest(self) -> tuple[MeasuredCheckpoint, ...]:
        """Evaluate the newest checkpoint if that is not done yet. Returns the whole curve.

        A checkpoint whose evaluation fails is not tried again.
        """
        from ray_app.orchestration.checkpoint_evaluation import measure_checkpoint, newest_unmeasured

        name = newest_unmeasured(self._run)
        if name is not None and name not in self._tried:
            self._tried.add(name)
            measure_checkpoint(self._job, self._spec, name, data=self._data, run=self._run, device=self._device)
        return read_curve(self._run)


class CheckpointEvaluator:
    """The driver's side: requests an evaluation if there is a new checkpoint and no evaluation is running."""

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
        """Collect results and request the evaluation of that step's checkpoint. Returns whether `curve` has changed.

        Never waits.
        """
        changed = self._collect() if self._pending is not None else False
        if self._pending is None and checkpoint_step is not None and checkpoint_step != self._requested_step:
            self._requested_step = checkpoint_step
            self._request()
        return changed

    @property
    def scores(self) -> dict[str, Any]:
        """Fields of RunStatus, including the results of earlier starts of the run."""
        return scores_of(self.curve)

    def finish(self, wait: Callable[[], bool]) -> None:
        """Evaluate the last checkpoint too. Calls `wait` repeatedly, and gives up if it returns False.

        Each failed evaluation becomes an event of the run. The workers no longer write events at this time.
        """
        began = monotonic()
        while not ray.wait([self._alive], timeout=0)[0]:
            if monotonic() - began > _PLACE_SECONDS:
                self._note(f"Ray found no node to evaluate it on: add the resource {EVALUATION_RESOURCE} to a node")
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
        """Cancel the running evaluation."""
        ray.kill(self._actor)

    def _request(self) -> None:
        self._pending = self._actor.measure_newest.remote()

    def _wait_for_pending(self, wait: Callable[[], bool]) -> bool:
        """Wait for the running evaluation. False if `wait` returned False."""
        while self._pending is not None:
            self._collect()
            if self._pending is not None and not wait():
                return False
        return True

    def _collect(self) -> bool:
        """Collect the result if it is ready. Returns whether `curve` has changed."""
        if not ray.wait([self._pending], timeout=0)[0]:
            return False
        pending, self._pending, before = self._pending, None, self.curve
        try:
            self.curve = ray.get(pending)
            if len(self.curve) > len(before):
                newest = self.curve[-1]
                log.info("checkpoint evaluated", extra=fields(step=newest.step, score=round(newest.score, 4)))
        except ray.exceptions.RayError as error:
            self._note(str(classify_error(error)))
        return self.curve != before

    def _note(self, why: str) -> None:
        log.warning("checkpoint not evaluated", extra=fields(step=self._requested_step, error=why))
        self._problems.append(why)
