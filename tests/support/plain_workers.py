"""The training loop in plain processes of torch.distributed, without Ray."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from data_io.storage.store import Store, open_store
from ray_app.job_spec import JobSpec
from ray_app.run_directory.status import RunStatus
from ray_app.training.control import Directive
from ray_app.training.heartbeat import Stage
from tests.support.small_training import small_job_spec

if TYPE_CHECKING:
    from ray_app.training.loop import Outcome


class NoControl:
    """A control that accepts every message, forwards none and never stops a run."""

    def at(self, step: int, stage: Stage) -> None:
        pass

    def report(self, status: RunStatus) -> None:
        pass

    def directive(self) -> Directive:
        return Directive.CONTINUE


def train_in_processes(
    data: str, run: Path, workers: int, job_spec: dict[str, Any] | None = None, *, steps: int | None = None
) -> None:
    """Train a job spec, or the small one, with `workers` ranks.

    `run` is the run directory. With `steps` None, train to the end.

    Raises the error of a rank.
    """
    spec = (job_spec or small_job_spec(data, "unused"))["spec"]
    start_processes(_rank, (workers, spec, data, str(run), steps), nprocs=workers, start_method="spawn")


def _rank(rank: int, world_size: int, spec: dict[str, Any], data: str, run: str, steps: int | None) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"}
    dist.init_process_group("gloo", init_method=f"file://{run}/group", rank=rank, world_size=world_size)
    train_this_rank(spec, open_store(data), open_store(run), steps=steps)
    dist.destroy_process_group()


def train_this_rank(spec: dict[str, Any], data: Store, run: Store, *, steps: int | None) -> "Outcome":
    """Train with this process as one rank of the process group, on the CPU, to the end or for so many steps."""
    from ray_app.training.loop import Worker, train

    return train(
        "small",
        JobSpec.model_validate(spec),
        data=data,
        run=run,
        worker=Worker(rank=dist.get_rank(), world_size=dist.get_world_size(), device=torch.device("cpu")),
        control=NoControl(),
        stop_after_steps=steps,
    )
