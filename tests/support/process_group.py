"""The process group that torch requires, with only this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist


@contextmanager
def group_of_one(folder: Path) -> Iterator[None]:
    """A process group of one until the block ends; its file is in `folder`."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
