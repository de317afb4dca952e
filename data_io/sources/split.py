"""What is held out, and how training is kept clear of it.

A query is held out when a stable hash of its text is small: the choice follows from the texts alone, not from their
order or a generator. Texts are compared by a key that ignores case and white space, so that a copy with another line
break is the same text.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

import xxhash

from data_io.evaluation_sets import RetrievalSet
from data_io.keyed_hash import mix
from data_io.writer import Row

_HASHES = 2**64
_QUERY_SEED = 0x5E1D_0071
_SPARES = 1024


def text_key(text: str) -> int:
    """64-bit key of a text; equal for texts that differ in case and white space only."""
    return xxhash.xxh3_64_intdigest(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass"))


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
    """What `training_rows` did, filled while its rows are drawn."""

    kept: int = 0
    held_out: int = 0
    dropped: int = 0
    replaced_negatives: int = 0


def choose_held_out(rows: Iterable[Row], *, fraction: float, max_queries: int | None = None) -> HeldOut:
    """Hold out the queries with the smallest hashes: about `fraction` of them, at most `max_queries`.

    All rows of a held-out query are held out. Memory: the held-out rows.
    """
    threshold = int(fraction * _HASHES)
    kept: dict[int, list[Row]] = {}
    largest: list[int] = []  # negated: heapq keeps the smallest in front
    for row in rows:
        order = mix(_QUERY_SEED, text_key(row.query))
        if order >= threshold or max_queries == 0:
            continue
        if order not in kept:
            kept[order] = []
            heappush(largest, -order)
        kept[order].append(row)
        if max_queries is not None and len(kept) > max_queries:
            threshold = -heappop(largest)
            del kept[threshold]
    held = tuple(row for order in sorted(kept) for row in kept[order])
    return HeldOut(held, frozenset(text_key(text) for row in held for text in (row.query, row.positive)))


def training_rows(
    rows: Iterable[Row],
    held_out: HeldOut,
    *,
    negatives: int,
    replace_negatives: bool,
    counts: SplitCounts | None = None,
) -> Iterator[Row]:
    """The rows that training may see: none of their texts is a held-out query or a held-out document.

    A row whose query or positive is held out is left out. A held-out negative is left out too; where fewer than
    `negatives` are left, positives of earlier rows take their place if `replace_negatives` is set (they are wrong
    answers in retrieval, but may carry the same label elsewhere), and the row is dropped if not.
    """
    counts = counts if counts is not None else SplitCounts()
    spares: list[tuple[int, str]] = []
    for row in rows:
        query, positive = text_key(row.query), text_key(row.positive)
        if query in held_out.texts or positive in held_out.texts:
            counts.held_out += 1
            continue
        clean = [text for text in row.negatives if text_key(text) not in held_out.texts]
        if len(clean) < negatives <= len(row.negatives):
            missing = negatives - len(clean)
            used = {query, positive, *map(text_key, clean)}
            found = _draw(spares, used, missing, mix(query, positive)) if replace_negatives else []
            if len(found) < missing:
                counts.dropped += 1
                continue
            counts.replaced_negatives += missing
            clean += found
        if len(spares) < _SPARES:
            spares.append((positive, row.positive))
        else:
            spares[mix(positive, counts.kept) % _SPARES] = (positive, row.positive)
        counts.kept += 1
        yield row if clean == list(row.negatives) else replace(row, negatives=tuple(clean))


def retrieval_set(
    name: str,
    held_out: HeldOut,
    *,
    instruction: str,
    licence: str = "",
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
        licence=licence, origin=origin,
    )  # fmt: skip


def _draw(spares: Sequence[tuple[int, str]], used: set[int], count: int, key: int) -> list[str]:
    found: list[str] = []
    for i in range(len(spares)):
        if len(found) == count:
            break
        spare_key, text = spares[(key + i) % len(spares)]
        if spare_key not in used:
            used.add(spare_key)
            found.append(text)
    return found
