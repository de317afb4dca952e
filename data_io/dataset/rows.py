"""A row, the checks of a row, and the stored order of rows: by a keyed hash of their texts, each row once.

Rows with equal query and positive count as one row, even if their negatives differ: the first in the order of the input
is kept. Equal rows have equal keys, so they end up in the same part whenever rows are divided by key.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_io.dataset.manifest import SourceInfo
from data_io.dataset.schema import HASH_COLUMNS, columns, text_columns, text_hash
from data_io.errors import DataError
from data_io.keyed_hash import mix, permutation
from data_io.wording import counted

MAX_TEXT_BYTES = 4 * 2**20
"""Longer texts are rejected: 256 of them would not fit into a string column, and no model reads that many tokens."""
KEY_COLUMN = "key"
KEY_COLUMNS = (KEY_COLUMN, *HASH_COLUMNS)

NO_NEGATIVE = ""
"""Stored for a missing negative in a row of an unmined source. No other text is blank."""

_ROW_ORDER, _NEGATIVE_ORDER = 1, 2
_BATCH_ROWS, _BATCH_BYTES = 1024, 8 * 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One example. `negatives` are hardest first; `place` is its position in the input, for messages."""

    query: str
    positive: str
    negatives: Sequence[str] = ()
    place: str = ""


class RowBuffer:
    """Collects and checks rows of one source in compact form. `bytes` is close to their size in memory."""

    def __init__(self, info: SourceInfo, *, seed: int) -> None:
        self._info = info
        self._seed = seed
        self._schema = columns(info.negatives).append(pa.field(KEY_COLUMN, pa.uint64(), nullable=False))
        self._batches: list[pa.RecordBatch] = []
        self._added = 0
        self._begin()

    @property
    def bytes(self) -> int:
        return self._sealed_bytes + self._open_bytes

    def add(self, row: Row) -> None:
        """Add one row. Surplus negatives are dropped. Raises DataError with the position of an invalid row."""
        place = row.place or f"source {self._info.name!r}, row {self._added}"
        own = min(len(row.negatives), self._info.negatives) if self._info.unmined else self._info.negatives
        self._open_bytes += check_row(row, own, place)
        negatives = [*row.negatives[:own], *[NO_NEGATIVE] * (self._info.negatives - own)]
        self._added += 1
        hashes = text_hash(row.query), text_hash(row.positive)
        # The 0 dates from a format that counted equal rows; removing it would change the order of every data set.
        key = mix(self._seed, _ROW_ORDER, *hashes, 0)
        self._keys.append((*hashes, key))
        order = permutation(mix(key, _NEGATIVE_ORDER), self._info.negatives)
        for column, text in zip(self._texts, (row.query, row.positive, *(negatives[i] for i in order)), strict=True):
            column.append(text)
        if len(self._keys) == _BATCH_ROWS or self._open_bytes >= _BATCH_BYTES:
            self._seal()

    def take(self) -> pa.Table:
        """The rows since the last call, in input order: the columns of a shard, then their keys."""
        self._seal()
        table = pa.Table.from_batches(self._batches, schema=self._schema)
        self._batches = []
        self._begin()
        return table

    def _begin(self) -> None:
        self._sealed_bytes = 0
        self._open()

    def _open(self) -> None:
        self._texts: list[list[str]] = [[] for _ in text_columns(self._info.negatives)]
        self._keys: list[tuple[int, int, int]] = []
        self._open_bytes = 0

    def _seal(self) -> None:
        if not self._keys:
            return
        keys = np.array(self._keys, dtype=np.uint64)
        query, positive, *negatives = (pa.array(texts, pa.string()) for texts in self._texts)
        query_hash, positive_hash, key = (pa.array(keys[:, i]) for i in range(3))
        arrays = [query, positive, query_hash, positive_hash, *negatives, key]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._batches.append(batch)
        self._sealed_bytes += batch.nbytes
        self._open()


def unique_order(
    key: npt.NDArray[np.uint64], query_hash: npt.NDArray[np.uint64], positive_hash: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Indices of the rows to store, in stored order: the first of each set of equal rows. All arrays are [N]."""
    order = np.lexsort((positive_hash, query_hash, key))  # stable: equal rows keep their input order
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = np.diff(query_hash[order]).astype(bool) | np.diff(positive_hash[order]).astype(bool)
    return order[is_first]


def sort_unique(table: pa.Table) -> pa.Table:
    """The rows of a RowBuffer that are stored, in stored order, without their keys."""
    order = unique_order(*(table.column(name).to_numpy() for name in KEY_COLUMNS))
    return table.drop_columns([KEY_COLUMN]).take(order)


def check_row(row: Row, negatives: int, place: str) -> int:
    """The size in bytes of the stored texts. Raises DataError with the position of a row that cannot be used."""
    if len(row.negatives) < negatives:
        raise DataError(
            f"{place}: {counted(len(row.negatives), 'hard negative')}, but the source needs {negatives}",
            remedy=f"give the row more negatives, or set `negatives` of the source to {len(row.negatives)}",
        )
    size = check_text(row.query, "query", place) + check_text(row.positive, "positive", place)
    for number, text in enumerate(row.negatives[:negatives], start=1):
        size += check_text(text, f"negative {number}", place)
        if text == row.positive:
            raise DataError(f"{place}: negative {number} equals the positive", remedy="remove that negative")
    return size


def check_text(text: object, what: str, place: str) -> int:
    """The size of a text in bytes. Raises DataError, naming it `what`, if it is not a string, blank or too long."""
    if text is None:
        raise DataError(f"{place}: {what} is null", remedy="remove the row or fill in the field")
    if not isinstance(text, str):
        raise DataError(
            f"{place}: {what} is {type(text).__name__}, expected a string", remedy="convert the field to a string"
        )
    if not text.strip():
        raise DataError(f"{place}: {what} is blank", remedy="remove the row or fill in the field")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        found = f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}"
        raise DataError(
            f"{place}: {what} is not valid Unicode: {found}",
            remedy="fix the encoding of the text",
        ) from error
    if size > MAX_TEXT_BYTES:
        raise DataError(f"{place}: {what} has {size} bytes, the limit is {MAX_TEXT_BYTES}", remedy="cut the text")
    return size
