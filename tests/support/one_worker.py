"""A few steps of a small model on the CPU without Ray, for a debugger or torchrun (docs/developers/debugging.md).

python -m pdb -m tests.support.one_worker
torchrun --nproc-per-node 2 -m tests.support.one_worker
"""

import os
import sys
import tempfile
from pathlib import Path

import torch.distributed as dist

from data_io.storage.store import open_store
from tests.support.plain_workers import train_this_rank
from tests.support.small_training import small_job_spec, write_small_dataset


def main(steps: int) -> None:
    """Train `steps` steps with the ranks of torchrun, or with one rank. The run directory is removed at the end."""
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    os.environ |= {"DS_ACCELERATOR": "cpu"} | ({} if "RANK" in os.environ else alone)
    dist.init_process_group("gloo")
    with tempfile.TemporaryDirectory() as folder:
        (shared,) = _of_rank_0(folder)
        data, run = open_store(str(Path(shared, "data"))), open_store(str(Path(shared, "run")))
        if dist.get_rank() == 0:
            write_small_dataset(data)
        dist.barrier()
        outcome = train_this_rank(small_job_spec(data.uri, "unused")["spec"], data, run, steps=steps)
        dist.barrier()
    sys.stdout.write(f"rank {dist.get_rank()}: step {outcome.step}\n")
    dist.destroy_process_group()


def _of_rank_0(value: str) -> list[str]:
    """The value of rank 0, on every rank."""
    values = [value]
    dist.broadcast_object_list(values)
    return values


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
