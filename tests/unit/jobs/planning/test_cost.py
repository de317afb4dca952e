"""Hours and cost of a plan: against sums done by hand; and invalid price tables."""

from pathlib import Path

import pytest
import yaml

from data_io.task import Kind
from jobs.errors import ConfigError
from jobs.planning.architecture import KNOWN_MODELS
from jobs.planning.cost import GpuPrice, costs, load_prices, operations
from jobs.planning.estimate import DataSize, Plan, SourceSize, estimate_job
from jobs.spec.job import parse_job_spec
from jobs.spec.yaml12 import RawSpec
from tests.support.job_specs import job_spec

SMALL = KNOWN_MODELS["Qwen/Qwen3-0.6B"]
H100 = GpuPrice(price=2.0, teraflops=1000, gigabytes=80)


def plan(workers: int = 4) -> Plan:
    source = SourceSize("all", Kind.RETRIEVAL, rows=1_000_000, negatives=7, query_tokens=20, document_tokens=100)
    spec = parse_job_spec(RawSpec("job.yaml", job_spec({"workers": {"replicas": workers, "gpus": 1}}))).worker_spec
    return estimate_job(spec, DataSize((source,)), SMALL)


def test_a_token_costs_six_operations_per_weight_and_eight_with_recomputation() -> None:
    tokens = 1_000_000 * (20 + 8 * 100)
    weights = 440_467_456  # of Qwen3-0.6B without its 151,936 x 1024 embeddings

    assert SMALL.parameters - 151_936 * 1024 == weights
    assert operations(plan(), SMALL, epochs=2, recompute=False) == 6 * weights * tokens * 2
    assert operations(plan(), SMALL, epochs=1, recompute=True) == 8 * weights * tokens


def test_hours_shrink_with_workers_and_the_cost_does_not() -> None:
    total = 3600 * 0.5 * 1000e12 * 8  # eight hours of one GPU at half its peak

    (four,) = costs(plan(workers=4), total, {"H100": H100}, mfu=0.5)
    (eight,) = costs(plan(workers=8), total, {"H100": H100}, mfu=0.5)

    assert (four.gpus, four.hours, four.gpu_hours, four.cost) == (4, 2, 8, 16)
    assert (eight.gpus, eight.hours, eight.gpu_hours, eight.cost) == (8, 1, 8, 16)


def test_gpus_with_too_little_memory_come_last() -> None:
    table = {"tiny": GpuPrice(price=0.1, teraflops=1000, gigabytes=1), "dear": H100.model_copy(update={"price": 9})}

    found = costs(plan(), 1e18, {**table, "H100": H100}, mfu=0.5)

    assert [(each.gpu, each.fits) for each in found] == [("H100", True), ("dear", True), ("tiny", False)]


def test_a_price_is_sufficient_for_a_known_gpu(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("H100: 2.5\nmine: {price: 1, teraflops: 50, gigabytes: 24}\nL4: {price: 0.7, gigabytes: 22}\n")

    found = load_prices(str(path))

    assert found["H100"] == GpuPrice(price=2.5, teraflops=989, gigabytes=80)
    assert found["mine"].teraflops == 50
    assert (found["L4"].teraflops, found["L4"].gigabytes) == (121, 22)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"H10": 2.5}, "H10.teraflops: Field required"),
        ({"H100": -1}, "H100.price"),
        ({"H100": "cheap"}, "H100.price"),
        ({"mine": {"price": 1, "teraflops": 5}}, "mine.gigabytes"),
        ({"H100": {"price": 1, "speed": 3}}, "H100.speed"),
        ([1], "prices of GPUs"),
        (None, "prices of GPUs"),
    ],
)
def test_an_invalid_entry_is_named(tmp_path: Path, table: object, says: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump(table))

    with pytest.raises(ConfigError, match=says):
        load_prices(str(path))
