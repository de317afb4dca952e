"""What runs inside Ray: the train function of a worker, the tasks around training, and the monitor between them and the
driver.
"""

import gc
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import ray
import ray.train
import torch

from data_io.storage import Store
from ray_app.config import JobSpec
from ray_app.status import RunStatus

Task = Literal["evaluate_before", "deliver"]

COLLECTIVE_TIMEOUT = timedelta(minutes=10)


@ray.remote(num_cpus=0)
class Monitor:
    """Carries status from rank 0 to the driver, and the driver's wish to stop back. Holds nothing that must not be
    lost.
    """

    def __init__(self) -> None:
        self._status: RunStatus | None = None
        self._message = ""
        self._stop = False

    def report(self, status: RunStatus) -> bool:
        """Take rank 0's status; answers whether a stop was asked for."""
        self._status = status
        return self._stop

    def say(self, message: str) -> None:
        """Take a line about what a task is at."""
        self._message = message

    def latest(self) -> tuple[RunStatus | None, str]:
        return self._status, self._message

    def request_stop(self) -> None:
        self._stop = True


class RayControl:
    """A loop's side of the monitor. Reports are sent and not waited for; a stop is heard with the next answer."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self._answer: Any = None
        self._stop = False

    def report(self, status: RunStatus) -> None:
        self._hear()
        if self._answer is None:
            self._answer = self._monitor.report.remote(status)

    def stop_requested(self) -> bool:
        self._hear()
        return self._stop

    def _hear(self) -> None:
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self._stop = self._stop or ray.get(self._answer)
            self._answer = None


def train_worker(config: dict[str, Any]) -> None:
    """The train function of Ray Train: one rank, from its process group to its last checkpoint."""
    from ray_app.loop import Worker, train

    context = ray.train.get_context()
    rank = context.get_world_rank()
    spec = JobSpec.model_validate(config["spec"])
    torch.set_num_threads(max(1, int(spec.workers.cpus)))
    device = ray.train.torch.get_device() if spec.workers.gpus else torch.device("cpu")
    run: Store = config["run"]
    gc.freeze()  # the million objects of torch and transformers: the collector need not walk them again and again
    with _log_file(run, f"logs/{config['started']}/worker-{rank}.log"):
        train(
            config["name"],
            spec,
            data=config["data"],
            run=run,
            worker=Worker(rank=rank, world_size=context.get_world_size(), device=device),
            control=RayControl(config["monitor"]),
            stop_after_steps=config["stop_after_steps"],
        )


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def run_task(task: Task, name: str, spec: JobSpec, data: Store, run: Store, threads: int, monitor: Any) -> None:
    """One piece of work around training, in a process of its own."""
    from ray_app import delivery

    torch.set_num_threads(threads)
    device = torch.device("cuda" if spec.workers.gpus else "cpu")

    def say(message: str) -> None:
        monitor.say.remote(message)

    if task == "evaluate_before":
        delivery.evaluate_initial(spec, data=data, run=run, device=device, say=say)
    else:
        delivery.deliver(name, spec, data=data, run=run, device=device, say=say)


@contextmanager
def _log_file(run: Store, key: str) -> Iterator[None]:
    """Keep this process's log records, and put them into the run directory when it ends, however it ends."""
    records = io.StringIO()
    handler = logging.StreamHandler(records)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    except Exception:
        logging.getLogger(__name__).exception("this worker failed")
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        run.put(key, records.getvalue().encode())
