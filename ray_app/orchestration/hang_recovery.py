"""The driver's part in a hang: kill the workers that do not answer, and record the stack traces of all workers."""

import logging
from typing import Any

import ray

from data_io.storage.store import Store
from ray_app.orchestration.hang_detector import Hang
from ray_app.run_directory.directory import append_event
from ray_app.structured_log import fields

log = logging.getLogger(__name__)


def recover_from_hang(monitor: Any, run: Store, *, logs: str) -> None:
    """If the workers hang, end them, so that Ray Train starts new ones.

    `logs` is the directory of this start's logs in the run directory.
    """
    found: tuple[Hang, list[Any]] | None = ray.get(monitor.take_hang.remote())
    if found is None:
        return
    hang, unresponsive = found
    log.warning(
        "workers hang",
        extra=fields(
            step=hang.step,
            seconds=round(hang.seconds, 1),
            limit_seconds=round(hang.limit_seconds, 1),
            ranks=hang.blocking,
            killed=len(unresponsive),
        ),
    )
    for actor in unresponsive:  # workers that answer end by themselves
        ray.kill(actor)
    folder = f"{logs}/hang-step-{hang.step}"
    no_answer = "No answer: the process is stopped, gone, or in code that blocks all other threads."
    for rank, place in hang.places.items():
        text = f"Worker {rank}: {place or 'no heartbeat'}\n\n{hang.stacks.get(rank, no_answer)}\n"
        run.put(f"{folder}/worker-{rank}.txt", text.encode())
    append_event(
        run,
        "Hang",
        step=hang.step,
        seconds=round(hang.seconds, 1),
        limit_seconds=round(hang.limit_seconds, 1),
        message=str(hang),
        workers=hang.blocking,
        stacks=[f"{folder}/worker-{rank}.txt" for rank in hang.blocking] or f"{folder}/",
    )
