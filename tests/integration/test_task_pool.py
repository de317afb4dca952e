"""Independent tasks on real Ray."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from data_io.errors import DataError
from ray_app.ray_runtime.cluster import cluster
from ray_app.ray_runtime.task_pool import run_tasks

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    with cluster(cpus=2):
        yield


def square(number: int) -> int:
    return number * number


def refuse_three(number: int) -> int:
    if number == 3:
        raise DataError("three is not valid", remedy="leave it out")
    return number


def die_once(marker: str) -> str:
    path = Path(marker)
    if not path.exists():
        path.touch()
        os._exit(1)
    return "done"


def test_every_task_is_returned_once_with_its_result() -> None:
    assert sorted(run_tasks(square, range(20), workers=2)) == [(n, n * n) for n in range(20)]


def test_our_own_error_is_raised_unchanged_and_cancels_the_other_tasks() -> None:
    without_end = count()

    with pytest.raises(DataError, match="three is not valid") as caught:
        list(run_tasks(refuse_three, without_end, workers=2))

    assert caught.value.remedy == "leave it out"


def test_a_task_whose_process_dies_runs_again(tmp_path: Path) -> None:
    assert list(run_tasks(die_once, [str(tmp_path / "marker")], workers=1)) == [(str(tmp_path / "marker"), "done")]
