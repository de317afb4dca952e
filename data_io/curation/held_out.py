"""Selects the held-out rows and keeps their texts out of training.

A query is held out if a stable hash of its text is small. The choice depends on the texts alone, not on their order or
on a random generator. Texts are compared by a key that ignores case and white space, so copies with different line
breaks count as the same text.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count

from data_io.dataset.evaluation_sets import RetrievalSet
from data_io.dataset.rows import Row
from data_io.dataset.schema import text_key
from data_io.errors import DataError
from data_io.keyed_hash import mix
from data_io.task import Kind

_HASHES = 2**64
_QUERY_SEED, _SUBSTITUTE_SEED = 0x5E1D_0071, 0x5E1D_0072
SUBSTITUTES = 1024


@dataclass(frozen=True)
class HeldOut:
    """Rows whose query is held out; `texts` holds the keys of their queries and positives."""

    rows: tuple[Row, ...]
    texts: frozenset[int]

    def holds(self, text: str) -> bool:
        """Whether training must not see this text."""
        return text_key(text) in self.texts


@dataclass
class SplitCounts:
    """Counts for one source, filled while its rows are drawn: numbers of rows, and of replaced negatives."""

    kept: int = 0
    held_out: int = 0
    dropped: int = 0
    replaced_negatives: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that were left out before the split, by reason."""
    repeated: int = 0
    """Kept rows that are not stored because an earlier row has the same query and positive."""

    def add(self, other: "SplitCounts") -> None:
        """Add the counts of another part of the same source."""
        self.kept += other.kept
        self.held_out += other.held_out
        self.dropped += other.dropped
        self.replaced_negatives += other.replaced_negatives
        self.left_out = dict(Counter(self.left_out) + Counter(other.left_out))
        self.repeated += other.repeated


class HeldOutChoice:
    """Collects the rows of the queries with the smallest hashes: about `fraction` of them, at most `max_queries`.

    Rows may be added in any order and from several parts of the input. The choice of one part contains every row of
    that part that the choice of the whole input contains. Memory: the held-out rows.
    """

    def __init__(self, *, fraction: float, max_queries: int | None = None) -> None:
        self._threshold = int(fraction * _HASHES)
        self._max_queries = max_queries
        self._kept: dict[int, list[tuple[tuple[int, ...], Row]]] = {}
        self._largest: list[int] = []  # negated: heapq keeps the smallest value first

    def add(self, row: Row, *place: int) -> None:
        """Add a row. `place` is the position of the row in the whole input."""
        order = mix(_QUERY_SEED, text_key(row.query))
        if order >= self._threshold or self._max_queries == 0:
            return
        if order not in self._kept:
            self._kept[order] = []
            heappush(self._largest, -order)
        self._kept[order].append((place, row))
        if self._max_queries is not None and len(self._kept) > self._max_queries:
            self._threshold = -heappop(self._largest)
            del self._kept[self._threshold]

    def result(self) -> HeldOut:
        """The chosen rows, in an order that does not depend on the order of the calls to `add`."""
        held = tuple(
            row for order in sorted(self._kept) for _, row in sorted(self._kept[order], key=lambda found: found[0])
        )
        return HeldOut(held, frozenset(text_key(text) for row in held for text in (row.query, row.positive)))


class SubstituteTexts:
    """The texts with the smallest hashes: replacements for held-out negatives. They do not depend on the order of the
    input. Memory: `SUBSTITUTES` texts.
    """

    def __init__(self) -> None:
        self._kept: dict[int, str] = {}
        self._largest: list[int] = []

    def add(self, text: str) -> None:
        order = mix(_SUBSTITUTE_SEED, text_key(text))
        if len(self._kept) == SUBSTITUTES and order > -self._largest[0]:
            return
        if order in self._kept:  # texts that differ only in case and white space: keep the same one in any order
            self._kept[order] = min(self._kept[order], text)
            return
        self._kept[order] = text
        heappush(self._largest, -order)
        if len(self._kept) > SUBSTITUTES:
            del self._kept[-heappop(self._largest)]

    def result(self) -> tuple[str, ...]:
        """The texts in the order of their hashes."""
        return tuple(text for _, text in sorted(self._kept.items()))


def choose_held_out(rows: Iterable[Row], *, fraction: float, max_queries: int | None = None) -> HeldOut:
    """Hold out the queries with the smallest hashes: about `fraction` of them, at most `max_queries`.

    All rows of a held-out query are held out. Memory: the held-out rows.
    """
    choice = HeldOutChoice(fraction=fraction, max_queries=max_queries)
    for row, place in zip(rows, count(), strict=False):
        choice.add(row, place)
    return choice.result()


def training_rows(
    rows: Iterable[Row],
    held_out: HeldOut,
    *,
    negatives: int,
    kind: Kind = Kind.RETRIEVAL,
    substitutes: Sequence[str] = (),
    counts: SplitCounts | None = None,
) -> Iterator[Row]:
    """The rows that training may see: none of their texts is a held-out query or a held-out document.

    For a classification only the query is compared, because positives and negatives are the words of labels.

    A row is left out if its query or positive is held out. A held-out negative is removed. If fewer than `negatives`
    are left, `substitutes` fill the row; if there are not enough substitutes, the row is dropped. Substitutes are
    positives of other rows: wrong answers in retrieval, but in other kinds they may have the same label. Whether a row
    is kept does not depend on other rows.
    """
    counts = counts if counts is not None else SplitCounts()
    clean_substitutes = [(key, text) for text in substitutes if (key := text_key(text)) not in held_out.texts]
    for row in rows:
        query, positive = text_key(row.query), text_key(row.positive)
        if query in held_out.texts or (kind is not Kind.CLASSIFICATION and positive in held_out.texts):
            counts.held_out += 1
            continue
        if kind is Kind.CLASSIFICATION:
            counts.kept += 1
            yield row
            continue
        clean = [text for text in row.negatives if text_key(text) not in held_out.texts]
        if len(clean) < negatives <= len(row.negatives):
            missing = negatives - len(clean)
            used = {query, positive, *map(text_key, clean)}
            found = _draw(clean_substitutes, used, missing, mix(query, positive))
            if len(found) < missing:
                counts.dropped += 1
                continue
            counts.replaced_negatives += missing
            clean += found
        counts.kept += 1
        yield row if clean == list(row.negatives) else replace(row, negatives=tuple(clean))


def no_rows(name: str, counts: SplitCounts) -> DataError:
    """The error for a source that has no training rows."""
    if counts.held_out + counts.dropped:
        return DataError(
            f"source {name!r} has no rows to train on: {counts.held_out:,} have a held-out query or document, and "
            f"{counts.dropped:,} have too few negatives that are not held out",
            remedy="lower heldout_fraction or max_heldout_queries: if one of the queries that share an answer is held "
            "out, all rows with that answer are held out",
        )
    return DataError(f"source {name!r} has no rows", remedy="leave it out, or check its files")


def retrieval_set(
    name: str,
    held_out: HeldOut,
    *,
    instruction: str,
    license: str = "",
    origin: str = "",
    max_queries: int | None = None,
) -> RetrievalSet:
    """Held-out queries over all held-out documents; `max_queries` limits the queries, never the documents."""
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, float]] = {}
    for row in held_out.rows:
        document = documents.setdefault(row.positive, f"d{len(documents)}")
        if row.query not in queries and max_queries is not None and len(queries) >= max_queries:
            continue
        query = queries.setdefault(row.query, f"q{len(queries)}")
        qrels.setdefault(query, {})[document] = 1.0
    return RetrievalSet(
        name, instruction, list(documents.values()), list(documents), list(queries.values()), list(queries), qrels,
        license=license, origin=origin,
    )  # fmt: skip


def _draw(substitutes: Sequence[tuple[int, str]], used: set[int], count: int, key: int) -> list[str]:
    found: list[str] = []
    for i in range(len(substitutes)):
        if len(found) == count:
            break
        substitute_key, text = substitutes[(key + i) % len(substitutes)]
        if substitute_key not in used:
            used.add(substitute_key)
            found.append(text)
    return found
