"""What is held out, and how training is kept clear of it.

A query is held out when a stable hash of its text is small: the choice follows from the texts alone, not from their
order or a generator. Texts are compared by a key that ignores case and white space, so that a copy with another line
break is the same text.
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
    """What became of a source's rows, filled while they are drawn: numbers of rows, and of replaced negatives."""

    kept: int = 0
    held_out: int = 0
    dropped: int = 0
    replaced_negatives: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that were left out before the split, by the reason."""
    repeated: int = 0
    """Of the kept rows, those that were left out of the shards for an equal query and positive."""

    def add(self, other: "SplitCounts") -> None:
        """Count what another part of the same source did as well."""
        self.kept += other.kept
        self.held_out += other.held_out
        self.dropped += other.dropped
        self.replaced_negatives += other.replaced_negatives
        self.left_out = dict(Counter(self.left_out) + Counter(other.left_out))
        self.repeated += other.repeated


class HeldOutChoice:
    """Collects the rows of the queries with the smallest hashes: about `fraction` of them, at most `max_queries`.

    Rows may come in any order and from several parts of the input: what one part chooses holds all of its rows that
    the whole chooses. Memory: the held-out rows.
    """

    def __init__(self, *, fraction: float, max_queries: int | None = None) -> None:
        self._threshold = int(fraction * _HASHES)
        self._max_queries = max_queries
        self._kept: dict[int, list[tuple[tuple[int, ...], Row]]] = {}
        self._largest: list[int] = []  # negated: heapq keeps the smallest in front

    def add(self, row: Row, *place: int) -> None:
        """`place` says where the row is in the whole input."""
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
        """What was chosen, in an order that does not depend on the order in which rows came."""
        held = tuple(
            row for order in sorted(self._kept) for _, row in sorted(self._kept[order], key=lambda found: found[0])
        )
        return HeldOut(held, frozenset(text_key(text) for row in held for text in (row.query, row.positive)))


class SubstituteTexts:
    """The texts with the smallest hashes: wrong answers that may take the place of a held-out one, whatever the order
    of the input. Memory: `SUBSTITUTES` texts.
    """

    def __init__(self) -> None:
        self._kept: dict[int, str] = {}
        self._largest: list[int] = []

    def add(self, text: str) -> None:
        order = mix(_SUBSTITUTE_SEED, text_key(text))
        if len(self._kept) == SUBSTITUTES and order > -self._largest[0]:
            return
        if order in self._kept:  # texts that differ in case and white space only: the same one in any order
            self._kept[order] = min(self._kept[order], text)
            return
        self._kept[order] = text
        heappush(self._largest, -order)
        if len(self._kept) > SUBSTITUTES:
            del self._kept[-heappop(self._largest)]

    def result(self) -> tuple[str, ...]:
        """In the order of their hashes."""
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

    A classification's positives and negatives are the words of its labels, which may recur: of it the query counts.

    A row whose query or positive is held out is left out. A held-out negative is left out too; where fewer than
    `negatives` are left, `substitutes` take their place (positives of other rows: wrong answers in retrieval, but
    elsewhere they may carry the same label), and the row is dropped where there are not enough. What becomes of a row
    depends on no other row.
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
    """Why a source has no row to train on, and what to do."""
    if counts.held_out + counts.dropped:
        return DataError(
            f"source {name!r} has no rows to train on: {counts.held_out:,} have a held-out query or document, and "
            f"{counts.dropped:,} too few negatives without one",
            remedy="lower heldout_fraction or max_heldout_queries: an answer that many queries share takes all their "
            "rows with it when one of them is held out",
        )
    return DataError(f"source {name!r} has no rows", remedy="leave it out, or look at the files it is made of")


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
