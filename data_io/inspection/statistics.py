"""Statistics of a data set for `f2llm data stats`: rows, lengths, repeated texts and licenses of every source."""

from dataclasses import asdict, dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from data_io.dataset.manifest import Manifest, SourceEntry
from data_io.dataset.provenance import read_counts
from data_io.dataset.reader import Reader
from data_io.dataset.rows import NO_NEGATIVE
from data_io.dataset.schema import HASH_COLUMNS, negative_columns
from data_io.dataset.tokenizer import TextTokenizer
from data_io.execution import Say
from data_io.storage.store import Store
from data_io.task import format_query

Lengths = npt.NDArray[np.int64]

ROW_GROUPS_PER_SOURCE = 64
HISTOGRAM_EDGES = (*(round(2 ** (i / 2)) for i in range(2, 32)), 2**62)
"""Powers of the square root of two: lengths vary widely, and one scale must fit queries and documents."""
_ROLES = ("query", "positive", "negative")


@dataclass(frozen=True)
class LengthStatistics:
    """Lengths of N texts, in characters or in tokens."""

    mean: float
    p50: float
    p90: float
    max: int

    @staticmethod
    def of(lengths: Lengths) -> "LengthStatistics":
        """`lengths` int64 [N], N > 0."""
        p50, p90 = np.percentile(lengths, (50, 90))
        return LengthStatistics(
            round(float(lengths.mean()), 1), round(float(p50), 1), round(float(p90), 1), int(lengths.max())
        )


@dataclass(frozen=True)
class SourceStatistics:
    """One source. `characters` and `tokens` are by role: query, positive, negative. Tokens include the EOS.

    - Characters of a query are without its instruction, tokens of a query are with it.
    - Tokens of negatives are counted for one negative per row.
    - `tokens` is empty without a tokenizer. Roles that a source does not have are absent.
    - `histograms` counts the texts of a role by length: in tokens with a tokenizer, in characters without. Each value
      is the number of texts below one of the data set's `histogram_edges` and not below the edge before it.
    - The fields `repeated_...` count rows, among the `rows_read`, whose query, positive or both occurred before.
    - `prepared` has the counts from the preparation of the source. It is empty if they are unknown.
    """

    name: str
    kind: str
    rows: int
    rows_read: int
    negatives: int
    unmined: bool
    instruction: str
    license: str
    origin: str
    characters: dict[str, LengthStatistics]
    tokens: dict[str, LengthStatistics]
    repeated_queries: int
    repeated_positives: int
    repeated_pairs: int
    histograms: dict[str, tuple[int, ...]] = field(default_factory=dict)
    prepared: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationStatistics:
    """One evaluation set, as described in the manifest."""

    name: str
    type: str
    queries: int
    documents: int
    pairs: int
    license: str
    origin: str


@dataclass(frozen=True)
class DatasetStatistics:
    """A whole data set. `licenses` has each license of its sources and evaluation sets once."""

    uri: str
    version: str
    rows: int
    bytes: int
    sources: tuple[SourceStatistics, ...]
    evaluations: tuple[EvaluationStatistics, ...]
    licenses: tuple[str, ...]
    histogram_edges: tuple[int, ...] = HISTOGRAM_EDGES

    def to_dict(self) -> dict[str, object]:
        """Plain lists, dicts, numbers and strings for JSON."""
        return asdict(self)


def dataset_statistics(
    store: Store,
    manifest: Manifest,
    *,
    tokenizer: TextTokenizer | None = None,
    row_groups_per_source: int | None = ROW_GROUPS_PER_SOURCE,
    progress: Say | None = None,
) -> DatasetStatistics:
    """Statistics from at most `row_groups_per_source` row groups of every source, evenly spread (None: all).

    With `tokenizer` also lengths in tokens, truncated at its `max_tokens` as in training. Raises DataError for damaged
    data.
    """
    reader, prepared = Reader(store, manifest), read_counts(store, manifest)
    sources = []
    for entry in manifest.sources:
        if progress is not None:
            progress(f"reading {entry.name}")
        measured = _source(reader, manifest, entry, tokenizer, row_groups_per_source)
        sources.append(replace(measured, prepared=dict(prepared.get(entry.name, {}))))
    licenses = {entry.license for entry in manifest.sources} | {entry.license for entry in manifest.evaluations}
    return DatasetStatistics(
        uri=store.uri,
        version=manifest.version,
        rows=sum(entry.rows for entry in manifest.sources),
        bytes=sum(shard.size for entry in manifest.sources for shard in manifest.shards(entry.name)),
        sources=tuple(sources),
        evaluations=tuple(
            EvaluationStatistics(e.name, e.type, e.queries, e.documents, e.pairs, e.license, e.origin)
            for e in manifest.evaluations
        ),
        licenses=tuple(sorted(licenses - {""})),
    )


@dataclass
class _Measured:
    """Values collected row group by row group: lengths by role, and the hashes of queries and positives."""

    characters: dict[str, list[Lengths]] = field(default_factory=lambda: {role: [] for role in _ROLES})
    tokens: dict[str, list[Lengths]] = field(default_factory=lambda: {role: [] for role in _ROLES})
    hashes: list[npt.NDArray[np.uint64]] = field(default_factory=list)


def _source(
    reader: Reader, manifest: Manifest, entry: SourceEntry, tokenizer: TextTokenizer | None, limit: int | None
) -> SourceStatistics:
    groups = len(manifest.row_groups(entry.name))
    chosen = range(groups) if limit is None else np.unique(np.linspace(0, groups - 1, min(groups, limit)).astype(int))
    measured = _Measured()
    for group in chosen:
        _measure(reader, entry, int(group), tokenizer, measured)
    hashes = np.concatenate(measured.hashes)
    return SourceStatistics(
        name=entry.name,
        kind=str(entry.kind),
        rows=entry.rows,
        rows_read=len(hashes),
        negatives=entry.negatives,
        unmined=entry.unmined,
        instruction=entry.instruction,
        license=entry.license,
        origin=entry.origin,
        characters=_summaries(measured.characters),
        tokens=_summaries(measured.tokens),
        repeated_queries=len(hashes) - len(np.unique(hashes[:, 0])),
        repeated_positives=len(hashes) - len(np.unique(hashes[:, 1])),
        repeated_pairs=len(hashes) - len(np.unique(hashes, axis=0)),
        histograms=_histograms(measured.characters if tokenizer is None else measured.tokens),
    )


def _measure(
    reader: Reader, entry: SourceEntry, group: int, tokenizer: TextTokenizer | None, measured: _Measured
) -> None:
    negatives = negative_columns(entry.negatives)
    table = reader.read(entry.name, group, ["query", "positive", *negatives, *HASH_COLUMNS])
    for role, columns in zip(_ROLES, (["query"], ["positive"], negatives), strict=True):
        # In an unmined source the missing negatives of a row are empty texts.
        there = [table.column(name).filter(pc.not_equal(table.column(name), NO_NEGATIVE)) for name in columns]
        for texts in there:
            measured.characters[role].append(pc.utf8_length(texts).to_numpy().astype(np.int64))
        if tokenizer is not None and columns:
            # Tokenizing negatives takes most of the time. They are shuffled, so the first one represents the row.
            texts = there[0].to_pylist()
            if role == "query":
                texts = [format_query(text, entry.instruction) for text in texts]
            measured.tokens[role].append(tokenizer.encode(texts).lengths.astype(np.int64))
    measured.hashes.append(np.column_stack([table.column(name).to_numpy() for name in HASH_COLUMNS]))


def _summaries(lengths: dict[str, list[Lengths]]) -> dict[str, LengthStatistics]:
    return {role: LengthStatistics.of(found) for role, found in _together(lengths).items()}


def _histograms(lengths: dict[str, list[Lengths]]) -> dict[str, tuple[int, ...]]:
    edges = np.array((0, *HISTOGRAM_EDGES))
    return {role: tuple(np.histogram(found, bins=edges)[0].tolist()) for role, found in _together(lengths).items()}


def _together(lengths: dict[str, list[Lengths]]) -> dict[str, Lengths]:
    """Lengths by role, without roles that have no texts."""
    joined = {role: np.concatenate(parts) for role, parts in lengths.items() if parts}
    return {role: found for role, found in joined.items() if len(found)}
