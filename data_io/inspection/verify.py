"""Reads a whole data set and reports every problem with its place."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from zlib_ng.zlib_ng import crc32

from data_io.dataset.evaluation_sets import RetrievalSet, StsSet, load_evaluation
from data_io.dataset.manifest import Manifest, RowGroups, Shard, SourceEntry, load_manifest
from data_io.dataset.parquet_footer import ColumnChunk, decode
from data_io.dataset.provenance import damaged_files
from data_io.dataset.rows import NO_NEGATIVE
from data_io.dataset.schema import HASH_COLUMNS, column_names, columns, text_hash
from data_io.errors import DataError, NotFoundInStore, ObjectChanged
from data_io.storage.errors import ObjectTooShort
from data_io.storage.store import Blob, Store
from data_io.task import Kind
from data_io.wording import counted

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Problem:
    """One problem: its place and a description."""

    place: str
    message: str

    def __str__(self) -> str:
        return self.message if self.place in self.message else f"{self.place}: {self.message}"


@dataclass(frozen=True)
class VerifyReport:
    """What was checked, and all problems. `ok` means that there are none."""

    version: str | None
    sources: int = 0
    evaluations: int = 0
    shards: int = 0
    row_groups: int = 0
    rows: int = 0
    bytes: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass
class _Work:
    """The state of one verification."""

    store: Store
    manifest: Manifest
    progress: Callable[[int, int], None]
    total_bytes: int
    shards: int = 0
    row_groups: int = 0
    rows: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    held_out: dict[str, Hashes] = field(default_factory=dict)
    """Sorted text hashes of each evaluation set."""

    def report(self, place: str, message: str) -> None:
        self.problems.append(Problem(place, message))


def verify_dataset(store: Store, *, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Check every object, byte and row of the manifest. Damage does not end the check; all of it is reported.

    `progress(done, total)` is called with bytes of shards after each row group. Raises StorageError if the store is
    unreachable.
    """
    try:
        manifest = load_manifest(store)
    except DataError as error:
        return VerifyReport(version=None, problems=(Problem(store.uri, error.message),))
    total = sum(shard.size for source in manifest.sources for shard in manifest.shards(source.name))
    work = _Work(store, manifest, progress or (lambda done, total: None), total)
    _verify_evaluations(work)
    for key in damaged_files(store):
        work.report(key, "is missing or was changed after the data set was made")
    for source in manifest.sources:
        _verify_source(work, source)
    return VerifyReport(
        version=manifest.version,
        sources=len(manifest.sources),
        evaluations=len(manifest.evaluations),
        shards=work.shards,
        row_groups=work.row_groups,
        rows=work.rows,
        bytes=work.bytes,
        problems=tuple(work.problems),
    )


def _verify_evaluations(work: _Work) -> None:
    for entry in work.manifest.evaluations:
        try:
            evaluation = load_evaluation(work.store, entry)
        except DataError as error:
            place = f"evaluation set {entry.name!r}"
            work.report(place, error.message.removeprefix(f"{place}: "))
            continue
        texts = _texts(evaluation)
        work.held_out[entry.name] = np.unique(np.fromiter((text_hash(text) for text in texts), np.uint64))


def _texts(evaluation: RetrievalSet | StsSet) -> Iterator[str]:
    if isinstance(evaluation, StsSet):
        yield from evaluation.text_a
        yield from evaluation.text_b
    else:
        yield from evaluation.queries
        yield from evaluation.corpus


def _verify_source(work: _Work, source: SourceEntry) -> None:
    place = f"source {source.name!r}"
    groups, shards = work.manifest.row_groups(source.name), work.manifest.shards(source.name)
    rows = int(groups.rows.sum(dtype=np.int64))
    if rows != source.rows:
        work.report(place, f"the manifest has {source.rows} rows, but its row groups have {rows}")
    shared = dict.fromkeys(work.held_out, 0)
    for index, shard in enumerate(shards):
        work.shards += 1
        for row_group, table in _verify_shard(work, source, shard, groups, np.flatnonzero(groups.shard == index)):
            _verify_rows(work, source, f"{place}, shard {shard.key}, row group {row_group}", table)
            # Positives of a classification are the words of labels and are not compared.
            checked = HASH_COLUMNS[:1] if source.kind is Kind.CLASSIFICATION else HASH_COLUMNS
            hashes = np.concatenate([table.column(name).to_numpy() for name in checked])
            for name, held_out in work.held_out.items():
                shared[name] += int(np.isin(hashes, held_out).sum())
    for name, count in shared.items():
        if count:
            work.report(place, f"{count} of the queries and positives are also texts of evaluation set {name!r}")


def _verify_shard(
    work: _Work, source: SourceEntry, shard: Shard, groups: RowGroups, mine: npt.NDArray[np.intp]
) -> Iterator[tuple[int, pa.Table]]:
    """The row groups of a shard that can be decoded. Reads each byte of the shard once, one row group at a time."""
    place = f"source {source.name!r}, shard {shard.key}"
    found = work.store.head(shard.key)
    if found is None:
        work.report(place, "is missing")
        return
    digest, at, damaged = hashlib.sha256(), 0, False
    names = column_names(source.negatives)
    wrong: dict[int, list[str]] = {}
    # The magic bytes before the first row group and the footer after the last are covered by the shard's checksum.
    ends = [
        *(int(groups.offset[g] + groups.chunk_bytes[g].sum(dtype=np.int64)) for g in mine),
        min(found.size, shard.size),
    ]
    for g, end in zip([*mine.tolist(), None], ends, strict=True):
        data = None if end > found.size else _read(work, shard, place, at, end - at, found.etag)
        if data is None:
            break
        digest.update(data)
        if g is not None:
            chunks = _chunks(names, groups, g, data[int(groups.offset[g]) - at :])
            wrong[g] = [chunk.name for chunk, crc in chunks if crc32(chunk.data) != crc]
            table = None
            if not wrong[g]:
                table = _decode(work, source, f"{place}, row group {g}", groups, g, [chunk for chunk, _ in chunks])
            damaged |= table is None
            work.row_groups += 1
            if table is not None:
                yield g, table
        at = end
        work.progress(work.bytes, work.total_bytes)
    else:
        if found.size == shard.size and not damaged and digest.hexdigest() != shard.sha256:
            work.report(
                place,
                "its checksum differs from the manifest's, but all column chunks are correct: "
                "the footer or the header is damaged",
            )
    _report_shard(work, place, found.size, shard, wrong, columns_of_group=len(names))


def _report_shard(
    work: _Work, place: str, size: int, shard: Shard, wrong: dict[int, list[str]], *, columns_of_group: int
) -> None:
    """Report the damage of a shard. `wrong` has the damaged columns of each row group. One cause gives one problem."""
    length = f"is {size} bytes long, expected {shard.size}"
    if wrong and all(len(names) == columns_of_group for names in wrong.values()):
        what = "no column chunk has the manifest's checksum: it is another file"
        work.report(place, what if size == shard.size else f"{length}; {what}")
        return
    if size != shard.size:
        work.report(place, length)
    for g, names in wrong.items():
        if names:
            listed = (
                f"checksum of column {names[0]} differs"
                if len(names) == 1
                else f"checksums of columns {', '.join(names)} differ"
            )
            work.report(f"{place}, row group {g}", f"the {listed} from the manifest")


def _chunks(names: Sequence[str], groups: RowGroups, g: int, data: memoryview) -> list[tuple[ColumnChunk, int]]:
    """The column chunks of a row group, each with its checksum in the manifest."""
    chunks, at = [], 0
    for name, size, crc in zip(names, groups.chunk_bytes[g].tolist(), groups.chunk_crc[g].tolist(), strict=True):
        chunks.append((ColumnChunk(name, name not in HASH_COLUMNS, data[at : at + size]), crc))
        at += size
    return chunks


def _read(work: _Work, shard: Shard, place: str, start: int, length: int, etag: str | None) -> memoryview | None:
    if length <= 0:
        return memoryview(b"")
    try:
        blob: Blob = work.store.get_range(shard.key, start, length, if_match=etag)
    except NotFoundInStore:
        work.report(place, "was removed during the check")
    except ObjectChanged:
        work.report(place, "was overwritten during the check")
    except ObjectTooShort:
        work.report(place, f"ends before byte {start + length}; the rest of it was not checked")
    else:
        work.bytes += length
        return blob.data
    return None


def _decode(
    work: _Work, source: SourceEntry, place: str, groups: RowGroups, g: int, chunks: Sequence[ColumnChunk]
) -> pa.Table | None:
    try:
        table = decode(chunks, int(groups.rows[g]))
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        work.report(place, f"cannot be decoded: {error}")
        return None
    if table.num_rows != groups.rows[g] or table.schema != columns(source.negatives):
        work.report(
            place,
            f"has {table.num_rows} rows with {table.schema.names}, "
            f"expected {groups.rows[g]} with {[chunk.name for chunk in chunks]}",
        )
        return None
    return table


def _verify_rows(work: _Work, source: SourceEntry, place: str, table: pa.Table) -> None:
    """Report blank texts, wrong hashes, and negatives that equal the positive."""
    work.rows += table.num_rows
    for name in table.schema.names:
        if name in HASH_COLUMNS:
            continue
        is_blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(table.column(name))), 0)
        if source.unmined and name.startswith("negative_"):
            is_blank = pc.and_not(is_blank, pc.equal(table.column(name), NO_NEGATIVE))
        blank = np.flatnonzero(is_blank)
        if len(blank):
            work.report(f"{place}, row {blank[0]}", f"{name} is blank{_and_more(blank)}")
        if name.startswith("negative_"):
            same = np.flatnonzero(pc.equal(table.column(name), table.column("positive")))
            if len(same):
                work.report(f"{place}, row {same[0]}", f"{name} equals the positive{_and_more(same)}")
    for text, stored in zip(("query", "positive"), HASH_COLUMNS, strict=True):
        right = np.array([text_hash(value) for value in table.column(text).to_pylist()], dtype=np.uint64)
        wrong = np.flatnonzero(right != table.column(stored).to_numpy())
        if len(wrong):
            work.report(f"{place}, row {wrong[0]}", f"{stored} is not the hash of the {text}{_and_more(wrong)}")


def _and_more(rows: npt.NDArray[np.intp]) -> str:
    return f", and in {counted(len(rows) - 1, 'more row')}" if len(rows) > 1 else ""
