"""Fixtures of integration tests: torch.distributed with one rank and a data set, for loops that run inside the test
process."""

import os
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from data_io.storage.store import Store, open_store
from tests.support.small_training import write_small_dataset

# Ray runs its workers at nice 15: next to another test at nice 0 they would get a thirtieth of a CPU.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(scope="session")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One process group for the whole session: DeepSpeed keeps groups in module globals and would not know a second."""
    folder = tmp_path_factory.mktemp("group")
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "0"
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    if before is None:
        del os.environ["LOCAL_RANK"]
    else:
        os.environ["LOCAL_RANK"] = before


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("data")))
    write_small_dataset(store)
    return store
