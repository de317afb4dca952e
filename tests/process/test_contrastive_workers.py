"""The contrastive step in several processes: its gradients do not depend on the number of workers."""

import multiprocessing
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from tests.support.contrastive_steps import MIXED, assert_equal_gradients, run_step

CASES: tuple[tuple[int, Collection[int], dict[str, Any]], ...] = (
    (2, (), {}),
    (6, (), {}),
    (6, (0, 3), {}),
    (3, (3,), {"matryoshka_dims": (2, 8), "teacher_dims": 12}),
    (2, (), {"slots": MIXED}),
    (3, (), {"slots": MIXED}),
)
"""Workers, skipped slots, and fields of the step."""


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the result of every rank in every case.

    One set of processes runs all cases, one after another. They are forked from a server that has imported torch and
    the step once.
    """
    folder = tmp_path_factory.mktemp("shares")
    multiprocessing.set_forkserver_preload(["tests.support.contrastive_steps"])
    workers = max(workers for workers, _, _ in CASES)
    start_processes(_run_cases, (str(folder),), nprocs=workers, start_method="forkserver")
    return folder


def _run_cases(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    for number, (workers, skipped, fields) in enumerate(CASES):
        if rank < workers:
            group = f"file://{folder}/group-{number}"
            dist.init_process_group("gloo", init_method=group, rank=rank, world_size=workers)
            loss, gradients = run_step("step", rank, workers, skipped, **fields)
            torch.save({"loss": loss, "gradients": gradients}, f"{folder}/{number}-{rank}.pt")
            dist.destroy_process_group()


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_step_pool_gives_the_same_gradients_for_any_number_of_workers(number: int, shares: Path) -> None:
    workers, skipped, fields = CASES[number]

    loss, gradients = run_step("step", skipped=skipped, **fields)

    of_ranks: list[dict[str, Any]] = [torch.load(shares / f"{number}-{rank}.pt") for rank in range(workers)]
    assert sum(share["loss"] for share in of_ranks) == pytest.approx(loss, rel=1e-12)
    for share in of_ranks:
        assert_equal_gradients(share["gradients"], gradients, 1e-10)
