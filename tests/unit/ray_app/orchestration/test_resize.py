"""A run uses only as many of the possible workers as make its steps shorter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy

from ray_app.orchestration.resize import CountAvailableWorkers, useful_workers

COUNTS = st.integers(1, 200)


def passes(workers: int, micro_batches: int) -> int:
    return -(-micro_batches // workers)


@given(there=COUNTS, fewest=COUNTS, micro_batches=COUNTS)
def test_steps_are_as_fast_as_with_all_workers_and_would_be_slower_with_one_worker_less(
    there: int, fewest: int, micro_batches: int
) -> None:
    taken = useful_workers(there, fewest=fewest, micro_batches=micro_batches)

    assert min(there, fewest) <= taken <= there
    assert passes(taken, micro_batches) == passes(there, micro_batches)
    assert taken <= fewest or passes(taken - 1, micro_batches) > passes(taken, micro_batches)


@pytest.mark.parametrize(("there", "taken"), [(0, 0), (1, 1), (7, 6), (8, 8), (15, 8), (16, 16), (64, 16)])
def test_sixteen_micro_batches_are_shared_evenly(there: int, taken: int) -> None:
    assert useful_workers(there, fewest=1, micro_batches=16) == taken


@pytest.mark.parametrize(("room", "taken"), [(0, 0), (1, 1), (3, 2), (5, 4)])
def test_ray_train_uses_this_number_out_of_the_resources_of_all_nodes(
    room: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_count_possible_workers", "_get_reserved_resources", "make_decision_for_non_running_worker_group"):
        monkeypatch.setattr(ElasticScalingPolicy, name, getattr(ElasticScalingPolicy, name))  # restored at the end
    monkeypatch.setattr(CountAvailableWorkers, "_release_reservation_of_lost_driver", lambda *_: None)
    policy = ElasticScalingPolicy(ScalingConfig(num_workers=(1, 8), resources_per_worker={"CPU": 1}))

    CountAvailableWorkers("runs/small", None, micro_batches=4).after_controller_start(None)

    assert policy._count_possible_workers({f"node {n}": {"CPU": 1.0} for n in range(room)}) == taken
