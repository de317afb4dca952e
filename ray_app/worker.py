"""What runs inside Ray: the train function of a worker, and the tasks around training."""

import gc
import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import ray
import ray.train
import torch

from data_io.errors import F2LLMError
from data_io.storage import Store
from ray_app.config import JobSpec
from ray_app.control import Wish
from ray_app.errors import TrainingError
from ray_app.lease import refuse_without_lease
from ray_app.status import RunStatus

Task = Literal["evaluate_before", "deliver"]

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
_ALIVE_SECONDS = 2.0


class Regrouping(Exception):
    """Not a failure: the workers have written a checkpoint and end, so that Ray Train starts others."""


class RayControl:
    """A loop's side of the monitor, on every rank. Reports are sent and not waited for; what is wanted is heard with
    the next answer.
    """

    def __init__(self, monitor: Any, *, rank: int) -> None:
        self._monitor = monitor
        self._rank = rank
        self._answer: Any = None
        self._wish = Wish.GO_ON

    def report(self, status: RunStatus) -> None:
        self._hear()
        if self._answer is None:
            self._answer = self._monitor.report.remote(status)

    def wish(self) -> Wish:
        """Once a step on every rank: Ray's answer about preemption is a barrier."""
        self._hear()
        if ray.train.get_preemption_info() is not None:
            self._wish = max(self._wish, Wish.REGROUP)
        return self._wish

    def _hear(self) -> None:
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self._wish = max(self._wish, ray.get(self._answer))
            self._answer = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Enter and leave as one of the workers; what ends this rank is said before Ray hears of it."""
        error: F2LLMError | None = None
        ended = threading.Event()
        if self._rank == 0:
            ended.wait(ray.get(self._monitor.enter.remote()))
            threading.Thread(target=self._say_that_it_lives, args=(ended,), daemon=True).start()
        try:
            yield
        except Regrouping:
            raise
        except Exception as raised:
            error = raised if isinstance(raised, F2LLMError) else TrainingError(f"a worker failed: {raised!r}")
            raise
        finally:
            ended.set()
            if self._rank == 0 or error is not None:
                ray.get(self._monitor.leave.remote(error))

    def _say_that_it_lives(self, ended: threading.Event) -> None:
        while not ended.wait(_ALIVE_SECONDS):
            self._monitor.is_alive.remote()


def train_worker(config: dict[str, Any]) -> None:
    """The train function of Ray Train: one rank, from its process group to its last checkpoint.

    Raises Regrouping on every rank where the run is to go on with other workers: Ray Train then starts them.
    """
    from ray_app.loop import Worker, train

    context = ray.train.get_context()
    rank = context.get_world_rank()
    spec = JobSpec.model_validate(config["spec"])
    torch.set_num_threads(max(1, int(spec.workers.cpus)))
    device = ray.train.torch.get_device() if spec.workers.gpus else torch.device("cpu")
    run: Store = config["run"]
    gc.freeze()  # the million objects of torch and transformers: the collector need not walk them again and again
    control = RayControl(config["monitor"], rank=rank)
    with _log_file(run, f"logs/{config['started']}/worker-{rank}.log"), control.at_work():
        refuse_without_lease(run, config["holder"])
        outcome = train(
            config["name"],
            spec,
            data=config["data"],
            run=run,
            worker=Worker(rank=rank, world_size=context.get_world_size(), device=device),
            control=control,
            stop_after_steps=config["stop_after_steps"],
        )
        if outcome.wish is Wish.REGROUP and not outcome.finished:
            raise Regrouping(f"regrouping after step {outcome.step}")


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
