"""Several runs in one directory, in every kind of store."""

from datetime import UTC, datetime

from data_io.storage.store import Level, Store
from ray_app.reporting.runs_table import figures_of, read_runs
from tests.support.written_runs import write_run


def test_a_level_has_only_the_direct_children_of_a_directory(store: Store) -> None:
    for key in ("a/b/deep", "a/here", "ab/there", "top"):
        store.put(key, b"x")

    assert store.list_level() == Level(("a", "ab"), ("top",))
    assert store.list_level("a") == Level(("a/b",), ("a/here",))
    assert store.list_level("nowhere") == Level((), ())


def test_runs_have_the_same_values_in_every_store(store: Store) -> None:
    write_run(store.child("team/first"), spec={"workers": {"replicas": 2, "gpus": 1}}, hours=2.0)
    write_run(store.child("second"))
    store.put("second/status.json", b"{")
    for number in range(30):
        store.put(f"second/checkpoints/step-{number}/rank-0.bin", b"x")

    now = datetime.now(UTC)
    second, first = (figures_of(name, record, gpu_price=3.0, now=now) for name, record in read_runs(store))

    assert (first.name, first.phase, first.step, first.ndcg_at_10_after) == ("team/first", "Succeeded", 40, 0.61)
    assert first.cost is not None
    assert round(first.cost, 6) == 12.0
    assert second.notes == ("status.json is damaged and was left out.",)
