"""The demo's retrieval texts, as the same rows for every method."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_io.dataset.manifest import load_manifest
from data_io.dataset.reader import Reader
from data_io.dataset.schema import negative_columns
from data_io.errors import DataError
from data_io.preparation.documentation import prepare_documentation
from data_io.storage.store import Store, open_store
from data_io.task import Kind

NEGATIVES = 7


@dataclass(frozen=True)
class Row:
    """One example: its texts are the query with the source's instruction, the positive, and 7 hard negatives."""

    query: str
    positive: str
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class DemoTexts:
    """Rows in stored order, which is shuffled, and the tokenizer that was trained on them."""

    rows: tuple[Row, ...]
    instruction: str
    tokenizer_json: str
    tokenizer_config: str

    def micro_batches(self, size: int) -> Iterator[tuple[Row, ...]]:
        """Consecutive full micro-batches. After the last row they start again."""
        first = 0
        while True:
            if first + size > len(self.rows):
                first = 0
            yield self.rows[first : first + size]
            first += size


def load_demo_texts(uri: str, *, rows: int) -> DemoTexts:
    """The first rows of the demo's retrieval source. The data set is prepared if it does not exist."""
    store = open_store(uri)
    try:
        manifest = load_manifest(store)
    except DataError:
        manifest = prepare_documentation(store, progress=print)
    source = next(entry for entry in manifest.sources if entry.kind is Kind.RETRIEVAL)
    return DemoTexts(
        rows=tuple(_read(Reader(store, manifest), source.name, len(manifest.row_groups(source.name)), rows)),
        instruction=source.instruction,
        tokenizer_json=_text(store, "tokenizer/tokenizer.json"),
        tokenizer_config=_text(store, "tokenizer/tokenizer_config.json"),
    )


def _read(reader: Reader, source: str, row_groups: int, rows: int) -> Iterator[Row]:
    columns = ["query", "positive", *negative_columns(NEGATIVES)]
    for row_group in range(row_groups):
        if rows <= 0:
            return
        read = reader.read(source, row_group, columns)
        for query, positive, *negatives in zip(*(read.column(name).to_pylist() for name in columns), strict=True):
            yield Row(query, positive, tuple(negatives))
        rows -= read.num_rows


def _text(store: Store, key: str) -> str:
    return store.get(key).decode()
