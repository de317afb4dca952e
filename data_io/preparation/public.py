"""Making a data set of the recipe's public sources, loaded from where they are published, or of its released files."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from data_io.config import S3Options
from data_io.curation.exclusion import ExcludedTexts, read_excluded, say_excluded, without_excluded
from data_io.curation.held_out import SplitCounts
from data_io.dataset.manifest import Manifest, SourceInfo
from data_io.dataset.provenance import record, remove_recorded_files, reuse
from data_io.dataset.rows import Row
from data_io.dataset.shards import ShardSize
from data_io.dataset.spill import MEMORY_BYTES
from data_io.dataset.writer import publish
from data_io.errors import ConfigError, DataError
from data_io.execution import Executor, Say, in_process, silent
from data_io.preparation.external_sort import SourcePieces, write_sources
from data_io.sources.catalogue import LicenseRule, check_licenses, choose, public_source
from data_io.sources.released import ReleasedSource, released_sources
from data_io.sources.rows import PublicRows
from data_io.sources.source import Counts, PublicSource
from data_io.storage.resumable import begin_work, end_work
from data_io.storage.store import Store

_TEXT_BYTES = 1000
"""About what a text of the recipe takes; it only decides into how many buckets a source is sorted."""
_REPEATED = "occurred before"


def prepare_recipe(
    store: Store,
    names: Sequence[str],
    *,
    folder: str | None = None,
    revisions: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    license: LicenseRule = "any",
    exclude: Sequence[str] = (),
    s3: S3Options | None = None,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    executor: Executor = in_process,
    progress: Say | None = None,
) -> Manifest:
    """Write the public sources of these names (`all` for every one), each with the negatives that it has itself.

    `folder` holds copies of them (FOLDER/<name>/), None loads them from the hub. Raises ConfigError for an unknown name
    or a license that `license` refuses, StorageError where a source cannot be reached, DataError where it is not what
    is known of it. Nothing is held out; `exclude` names texts that no row may have. `executor` may do sources at once
    in several processes; a call that was killed goes on after the sources that were read when it is made again.
    """
    sources = choose(names)
    check_licenses(sources, license)
    for name in revisions or {}:
        if public_source(name) not in sources:
            raise ConfigError(
                f"a revision is given for {name!r}, which is not among the sources", remedy="add it, or leave that out"
            )
    rows = [PublicRows(each, folder, (revisions or {}).get(each.name)) for each in sources]
    inputs = [
        _Input(each.info(), each.rows, each.fingerprint(), _text_bytes(source))
        for each, source in zip(rows, sources, strict=True)
    ]
    say = progress or silent
    return _prepare(store, "the recipe's sources", inputs, max_rows, exclude, s3, seed, memory_bytes, executor, say)


def prepare_released(
    store: Store,
    folder: str,
    *,
    max_rows: int | None = None,
    license: LicenseRule = "any",
    exclude: Sequence[str] = (),
    s3: S3Options | None = None,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    executor: Executor = in_process,
    progress: Say | None = None,
) -> Manifest:
    """Write the recipe's published files (`<source>.parquet`) with their instructions and their mined negatives.

    Raises ConfigError for a file named after no source and for licenses, DataError for what is wrong with the files.
    """
    sources = released_sources(folder)
    check_licenses([each.source for each in sources], license)
    inputs = [
        _Input(each.open()[0], _ReleasedRows(each), each.fingerprint(), _text_bytes(each.source)) for each in sources
    ]
    say = progress or silent
    return _prepare(store, "the released files", inputs, max_rows, exclude, s3, seed, memory_bytes, executor, say)


def _text_bytes(source: PublicSource) -> int:
    return source.expected_rows * (2 + source.kind.recipe_negatives) * _TEXT_BYTES


class _Rows(Protocol):
    """Reads the rows, counting what is left out. Pickles."""

    def __call__(self, counts: Counts, /) -> Iterator[Row]: ...


@dataclass(frozen=True)
class _ReleasedRows:
    source: ReleasedSource

    def __call__(self, counts: Counts, /) -> Iterator[Row]:
        return iter(self.source.open()[1])


@dataclass(frozen=True)
class _Input:
    """A source before it is read: what its rows follow from, and about how many bytes of texts there are."""

    info: SourceInfo
    rows: _Rows
    fingerprint: dict[str, object]
    text_bytes: int


@dataclass(frozen=True)
class _Piece:
    """A `external_sort.Piece`: the rows of a source that no excluded text is in, at most `max_rows`."""

    info: SourceInfo
    rows: _Rows
    max_rows: int | None
    excluded: tuple[ExcludedTexts, ...]

    def __call__(self, counts: SplitCounts) -> Iterator[Row]:
        left_out = Counts()
        for row in without_excluded(self.rows(left_out), self.info.kind, self.excluded, counts):
            if counts.kept == self.max_rows:
                break
            counts.kept += 1
            yield row
        counts.left_out = dict(left_out) | counts.left_out
        if not counts.kept:
            raise DataError(
                f"source {self.info.name!r}: no row is left" + _reasons(counts.left_out),
                remedy="see whether these are the data set's own files in its own schema, or leave the source out",
            )


def _prepare(
    store: Store,
    made_of: str,
    inputs: Sequence[_Input],
    max_rows: int | None,
    exclude: Sequence[str],
    s3: S3Options | None,
    seed: int,
    memory_bytes: int,
    executor: Executor,
    say: Say,
) -> Manifest:
    began = time.time()
    excluded = read_excluded(exclude, s3, say)
    recipe = {
        "made_of": made_of,
        "inputs": [each.fingerprint for each in inputs],
        "max_rows": max_rows,
        "excluded": [each.fingerprint for each in excluded],
        "seed": seed,
    }
    if (manifest := reuse(store, recipe, say=say)) is not None:
        end_work(store, began=began)
        return manifest
    sources = [
        SourcePieces(
            info=each.info,
            pieces=(_Piece(each.info, each.rows, max_rows, tuple(excluded)),),
            sizes=(each.text_bytes,),
            text_bytes=each.text_bytes,
        )
        for each in inputs
    ]
    work = begin_work(store, recipe, memory_bytes, say=say)
    written = write_sources(
        work, sources, executor=executor, size=ShardSize(), memory_bytes=memory_bytes, seed=seed, say=say
    )
    for each in written:
        name, left_out = each.data.entry.name, dict(each.counts.left_out)
        say_excluded(name, excluded, left_out, say)
        for benchmark in excluded:
            left_out.pop(benchmark.reason, None)
        if each.repeated:
            left_out[_REPEATED] = left_out.get(_REPEATED, 0) + each.repeated
        say(f"{name}: {each.data.entry.rows} rows" + _reasons(left_out))
    remove_recorded_files(store)
    manifest = publish(store, [each.data for each in written], ())
    counts = {each.data.entry.name: asdict(each.counts) | {"repeated": each.repeated} for each in written}
    record(store, recipe, manifest, counts=counts)
    end_work(store, began=began)
    return manifest


def _reasons(left_out: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{number} that {reason}" for reason, number in sorted(left_out.items()))
    return f"; left out: {reasons}" if reasons else ""
