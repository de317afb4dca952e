"""The contents of a data set (manifest.json) and the places of its bytes (manifest.arrow): all that a start reads.

manifest.arrow is written first and manifest.json last. The JSON file holds the size and checksum of the other file, so
a pair of which only one was replaced is detected. Keys are relative, so a copy elsewhere is the same data set.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_io.errors import DataError, NotFoundInStore
from data_io.storage.store import BULK_BYTES, MOST_BYTES, Store, stays_inside
from data_io.task import Kind
from data_io.wording import shown

MANIFEST_KEY = "manifest.json"
TABLE_KEY = "manifest.arrow"
FORMAT_VERSION = 2
_PREPARE = "prepare the data set again with `f2llm data prepare`"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""Name of a source or an evaluation set; it is part of object keys."""
Count = Annotated[int, Field(ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceInfo(_Entry):
    """Description of a source before its rows are written."""

    name: Name
    kind: Kind
    negatives: Annotated[int, Field(ge=0, le=128, description="Hard negatives stored with every row.")]
    unmined: bool = Field(
        False,
        description="The rows have their own hard negatives, and rows may have different numbers of them; a missing "
        "negative is an empty text. Mining adds the missing ones. Until then training ignores the source's negatives.",
    )
    instruction: str = Field("", description="Prefix of every query when it is embedded.")
    license: str = ""
    origin: str = ""

    @property
    def usable_negatives(self) -> int:
        """Number of hard negatives that every row has."""
        return 0 if self.unmined else self.negatives


class SourceEntry(SourceInfo):
    """A source of a data set."""

    rows: Annotated[int, Field(ge=1)]


class StoredFile(_Entry):
    """One immutable object. Its key contains a part of its checksum."""

    key: str
    size: Count
    sha256: str


class EvaluationEntry(_Entry):
    """An evaluation set of a data set. `files` maps corpus, queries and qrels, or pairs, to their objects."""

    name: Name
    type: Literal["retrieval", "sts"]
    instruction: str = ""
    license: str = ""
    origin: str = ""
    queries: Count = 0
    documents: Count = 0
    pairs: Count = 0
    files: dict[str, StoredFile]


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a source. The ETag is the writer's; the objects of a copied data set have other ETags."""

    key: str
    size: int
    rows: int
    etag: str | None
    sha256: str


@dataclass(frozen=True, eq=False)
class RowGroups:
    """The R row groups of a source with C columns; the column chunks of a row group are contiguous in schema order."""

    shard: npt.NDArray[np.int32]  # [R]: index into the source's shards
    rows: npt.NDArray[np.int32]  # [R]
    offset: npt.NDArray[np.int64]  # [R]: first byte of the row group in its shard
    chunk_bytes: npt.NDArray[np.int32]  # [R, C]
    chunk_crc: npt.NDArray[np.uint32]  # [R, C]: CRC-32 of each column chunk

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class SourceData:
    """A source with its shards and row groups, as the writer returns it."""

    entry: SourceEntry
    shards: tuple[Shard, ...]
    row_groups: RowGroups


class Manifest:
    """The contents of a data set. Equal `version`s mean equal data, wherever the data sets are stored."""

    def __init__(self, sources: Sequence[SourceData], evaluations: Sequence[EvaluationEntry] = ()) -> None:
        """Raises DataError if two sources, or two evaluation sets, have the same name."""
        self.sources = tuple(source.entry for source in sources)
        self.evaluations = tuple(evaluations)
        self._data = {source.entry.name: source for source in sources}
        for what, names in (
            ("sources", [source.name for source in self.sources]),
            ("evaluation sets", [evaluation.name for evaluation in self.evaluations]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"two {what} are called {twice[0]!r}", remedy="give each its own name")
        self.version = _content_hash([self._data[entry.name] for entry in self.sources], self.evaluations)

    def source(self, name: str) -> SourceEntry:
        """The source of that name. Raises DataError with the known names if there is none."""
        return self._source(name).entry

    def shards(self, name: str) -> tuple[Shard, ...]:
        return self._source(name).shards

    def row_groups(self, name: str) -> RowGroups:
        return self._source(name).row_groups

    def evaluation(self, name: str) -> EvaluationEntry:
        """The evaluation set of that name. Raises DataError with the known names if there is none."""
        for entry in self.evaluations:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.evaluations) or "none"
        raise DataError(f"no evaluation set {name!r} in the data set; it has {known}", remedy="correct the name")

    def _source(self, name: str) -> SourceData:
        if name not in self._data:
            known = ", ".join(self._data) or "none"
            raise DataError(f"no source {name!r} in the data set; it has {known}", remedy="correct data.sources")
        return self._data[name]


class _Document(_Entry):
    """manifest.json."""

    format: Literal["f2llm-dataset"] = "f2llm-dataset"
    format_version: int = FORMAT_VERSION
    version: str
    table: StoredFile
    sources: tuple[SourceEntry, ...]
    evaluations: tuple[EvaluationEntry, ...]


class _FormatVersion(BaseModel):
    """The one field that is read first, so that a newer format is reported by its version, not by unknown fields."""

    format_version: int


def save_manifest(store: Store, manifest: Manifest) -> None:
    """Publish a data set whose objects are all written."""
    table = _to_table(manifest)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as out:
        out.write_table(table)
    data = sink.getvalue().to_pybytes()
    document = _Document(
        version=manifest.version,
        table=StoredFile(key=TABLE_KEY, size=len(data), sha256=hashlib.sha256(data).hexdigest()),
        sources=manifest.sources,
        evaluations=manifest.evaluations,
    )
    store.put(TABLE_KEY, data)
    store.put(MANIFEST_KEY, document.model_dump_json(indent=2).encode() + b"\n")


def load_manifest(store: Store) -> Manifest:
    """Read a data set's manifest with two GETs. Raises DataError if it is missing, damaged or too new."""
    place = f"{store.uri.rstrip('/')}/{MANIFEST_KEY}"
    document = _parse_document(_fetch(store, MANIFEST_KEY), place)
    data = _fetch(store, TABLE_KEY, most=BULK_BYTES)
    if len(data) != document.table.size or hashlib.sha256(data).hexdigest() != document.table.sha256:
        raise DataError(
            f"{store.uri.rstrip('/')}/{TABLE_KEY} does not belong to this {MANIFEST_KEY}: "
            f"it has {len(data)} bytes, expected {document.table.size} with sha256 {document.table.sha256[:12]}...",
            remedy=f"if the data set is being prepared right now, wait; if not, {_PREPARE}",
        )
    manifest = _manifest_of(data, document, f"{store.uri.rstrip('/')}/{TABLE_KEY}")
    _check_keys(manifest, place)
    if manifest.version != document.version:
        raise DataError(
            f"{place} was edited: its content is version {manifest.version}, but it says {document.version}",
            remedy=_PREPARE,
        )
    return manifest


def _manifest_of(table: bytes, document: "_Document", place: str) -> Manifest:
    """Raises DataError if the table has another form than `_to_table` gives it."""
    try:
        found = pa.ipc.open_file(pa.py_buffer(table)).read_all()
        found.validate(full=True)
        if found.schema != _TABLE:
            raise ValueError("it has other columns")
        return Manifest(_from_table(found, document.sources), document.evaluations)
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        cause = shown(str(error).partition("\n")[0])
        raise DataError(f"{place} cannot be read: {cause}", remedy=_PREPARE) from error


def _check_keys(manifest: Manifest, place: str) -> None:
    """Check that the keys of a data set from someone else stay inside its directory."""
    shards = (shard.key for source in manifest.sources for shard in manifest.shards(source.name))
    files = (file.key for evaluation in manifest.evaluations for file in evaluation.files.values())
    for key in chain(shards, files):
        if "" in key.split("/") or not stays_inside(key):
            raise DataError(f"{place} lists the object {key!r}, which is outside the data set", remedy=_PREPARE)


def _fetch(store: Store, key: str, *, most: int = MOST_BYTES) -> bytes:
    try:
        return store.get(key, most=most)
    except NotFoundInStore as error:
        raise DataError(
            f"no data set at {store.uri}: {key} is missing",
            remedy="correct data.uri, or make the data set with `f2llm data prepare`",
        ) from error


def _parse_document(text: bytes, place: str) -> _Document:
    try:
        found = _FormatVersion.model_validate_json(text).format_version
        if found != FORMAT_VERSION:
            raise DataError(
                f"{place} has format_version {found}, expected {FORMAT_VERSION}",
                remedy="use the version of f2llm-ray that wrote it, or prepare the data set again",
            )
        return _Document.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(f"{place} is not a valid manifest: {where}: {first['msg']}", remedy=_PREPARE) from error


def _to_table(manifest: Manifest) -> pa.Table:
    """One row per shard. Its row groups are lists: [r] with one value per row group, [r * C] with one per chunk."""
    parts = [_source_table(manifest._data[entry.name]) for entry in manifest.sources]
    return pa.concat_tables(parts) if parts else _TABLE.empty_table()


def _source_table(source: SourceData) -> pa.Table:
    groups, shards = source.row_groups, source.shards
    by_shard = np.argsort(groups.shard, kind="stable")
    ends = np.cumsum(np.bincount(groups.shard, minlength=len(shards)))

    def lists(values: npt.NDArray[Any]) -> pa.Array:
        width = values[0].size if len(values) else 1
        offsets = np.concatenate([[0], ends * width]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, pa.array(values[by_shard].ravel()))

    return pa.Table.from_arrays(
        [
            pa.array([source.entry.name] * len(shards), pa.string()),
            *(
                pa.array([getattr(shard, field) for shard in shards], _TABLE.field(field).type)
                for field in ("key", "size", "rows", "etag", "sha256")
            ),
            lists(groups.rows),
            lists(groups.offset),
            lists(groups.chunk_bytes),
            lists(groups.chunk_crc),
        ],
        schema=_TABLE,
    )


_TABLE = pa.schema(
    {
        "source": pa.string(),
        "key": pa.string(),
        "size": pa.int64(),
        "rows": pa.int64(),
        "etag": pa.string(),
        "sha256": pa.string(),
        "group_rows": pa.list_(pa.int32()),
        "group_offset": pa.list_(pa.int64()),
        "chunk_bytes": pa.list_(pa.int32()),
        "chunk_crc": pa.list_(pa.uint32()),
    }
)


def _from_table(table: pa.Table, sources: Sequence[SourceEntry]) -> list[SourceData]:
    table = table.combine_chunks()
    names = table.column("source").to_numpy()
    # The writer stores the shards of a source next to each other, so these slices copy nothing.
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]]) if len(names) else np.empty(0, dtype=np.int64)
    runs: dict[str, list[pa.Table]] = {}
    for start, end in zip(starts, np.r_[starts[1:], len(names)], strict=True):
        runs.setdefault(names[start], []).append(table.slice(start, end - start))
    return [_source_data(pa.concat_tables(runs.get(entry.name, [table.slice(0, 0)])), entry) for entry in sources]


def _source_data(table: pa.Table, entry: SourceEntry) -> SourceData:
    plain = [table.column(name).to_pylist() for name in ("key", "size", "rows", "etag", "sha256")]
    groups_of_shard = pc.list_value_length(table.column("group_rows")).to_numpy()
    total = int(groups_of_shard.sum())
    if total == 0:
        raise DataError(
            f"{TABLE_KEY} has no shard of source {entry.name!r}, which {MANIFEST_KEY} names", remedy=_PREPARE
        )
    return SourceData(
        entry=entry,
        shards=tuple(Shard(*shard) for shard in zip(*plain, strict=True)),
        row_groups=RowGroups(
            shard=np.repeat(np.arange(table.num_rows, dtype=np.int32), groups_of_shard),
            rows=_flat(table, "group_rows"),
            offset=_flat(table, "group_offset"),
            chunk_bytes=_flat(table, "chunk_bytes").reshape(total, -1),
            chunk_crc=_flat(table, "chunk_crc").reshape(total, -1),
        ),
    )


def _flat(table: pa.Table, column: str) -> Any:
    return table.column(column).combine_chunks().flatten().to_numpy()


def _content_hash(sources: Sequence[SourceData], evaluations: Sequence[EvaluationEntry]) -> str:
    """Hash of all descriptions and checksums. ETags and the path of the data set are not part of it."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.entry.model_dump_json().encode())
        for shard in source.shards:
            digest.update(f"{shard.key} {shard.size} {shard.rows} {shard.sha256}\n".encode())
        groups = source.row_groups
        for array in (groups.shard, groups.rows, groups.offset, groups.chunk_bytes, groups.chunk_crc):
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    for evaluation in evaluations:
        digest.update(evaluation.model_dump_json().encode())
    return digest.hexdigest()[:32]
