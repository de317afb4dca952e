"""Small data sets for tests."""

from collections.abc import Iterator

from data_io.dataset.evaluation_sets import RetrievalSet, StsSet
from data_io.dataset.manifest import Manifest, SourceInfo
from data_io.dataset.writer import Row, write_dataset
from data_io.storage.store import Store
from data_io.task import Kind


def example_rows(count: int, *, negatives: int, tag: str = "") -> Iterator[Row]:
    """Rows whose texts all differ."""
    for i in range(count):
        texts = [f"{tag} what {i} is not, reason {j}" for j in range(1, negatives + 1)]
        yield Row(f"{tag} what is {i}?", f"{tag} {i} is {'a number ' * (i % 7 + 1)}", texts, f"rows.jsonl:{i + 1}")


def example_evaluations() -> list[RetrievalSet | StsSet]:
    """One set of each type; their texts are in no example row."""
    return [
        RetrievalSet(
            name="held-out",
            instruction="Find the answer.",
            corpus_ids=["d1", "d2", "d3"],
            corpus=["the first answer", "the second answer", "no answer"],
            query_ids=["q1", "q2"],
            queries=["the first question", "the second question"],
            qrels={"q1": {"d1": 1.0}, "q2": {"d2": 2.0, "d3": 0.5}},
            license="CC0-1.0",
        ),
        StsSet("pairs", "", ["a cat", "a dog"], ["a kitten", "a house"], [4.5, 0.25], origin="by hand"),
    ]


def write_example(store: Store) -> Manifest:
    """Two sources of several shards and a short last row group, and two evaluation sets."""
    sources = [
        (
            SourceInfo(name="questions", kind=Kind.RETRIEVAL, negatives=5, instruction="Find the answer."),
            example_rows(150, negatives=5, tag="questions"),
        ),
        (
            SourceInfo(name="labels", kind=Kind.CLASSIFICATION, negatives=1, license="CC0-1.0"),
            example_rows(21, negatives=1, tag="labels"),
        ),
    ]
    return write_dataset(store, sources, example_evaluations(), rows_per_group=16, groups_per_shard=3)
