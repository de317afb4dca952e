"""The training loop in plain processes of torch.distributed, without Ray."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from data_io.storage import open_store
from ray_app.config import JobSpec
from ray_app.control import Wish
from ray_app.status import RunStatus
from tests.support.small_training import small_document


class Unheard:
    """A control that nobody listens to and that never stops a run."""

    def report(self, status: RunStatus) -> None:
        pass

    def wish(self) -> Wish:
        return Wish.GO_ON


def train_in_processes(data: str, run: Path, workers: int) -> None:
    """Train the small document to its end with so many ranks; `run` is the run directory. Raises what a rank raises."""
    start_processes(_rank, (workers, data, str(run)), nprocs=workers, start_method="spawn")


def _rank(rank: int, world_size: int, data: str, run: str) -> None:
    from ray_app.loop import Worker, train

    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"}
    dist.init_process_group("gloo", init_method=f"file://{run}/group", rank=rank, world_size=world_size)
    train(
        "small",
        JobSpec.model_validate(small_document(data, "unused")["spec"]),
        data=open_store(data),
        run=open_store(run),
        worker=Worker(rank=rank, world_size=world_size, device=torch.device("cpu")),
        control=Unheard(),
    )
    dist.destroy_process_group()
