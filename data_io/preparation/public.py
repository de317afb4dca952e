"""Makes a data set of the recipe's public sources, loaded from their publishers, or of the recipe's released files."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from data_io.curation.exclusion import ExcludedTexts, read_excluded, say_excluded, without_excluded
from data_io.curation.held_out import SplitCounts
from data_io.data_spec import S3Options
from data_io.dataset.manifest import Manifest, SourceInfo
from data_io.dataset.provenance import remove_recorded_files
from data_io.dataset.rows import Row
from data_io.dataset.writer import publish
from data_io.errors import ConfigError, DataError
from data_io.execution import Say
from data_io.preparation.attempt import Attempt, Resources
from data_io.preparation.external_sort import SourceParts, WrittenSource, write_sources
from data_io.sources.catalog import LicenseRule, check_licenses, choose, public_source
from data_io.sources.released import ReleasedSource, released_sources
from data_io.sources.rows import PublicRows
from data_io.sources.source import Counts, PublicSource
from data_io.storage.store import Store
from data_io.wording import counted

_TEXT_BYTES = 1000
"""About the bytes of a text in the recipe. Determines only the number of sorting buckets."""
_REPEATED = "repeated"


@dataclass(frozen=True)
class PublicOptions:
    """Settings that, together with the sources, determine the data set."""

    max_rows: int | None = None
    """Maximum number of rows per source. None keeps all."""
    license: LicenseRule = "any"
    """The licenses to allow. A source with another license raises ConfigError."""
    exclude: Sequence[str] = ()
    """Names of texts that no row may contain, for `curation.exclusion.excluded_texts`."""
    s3: S3Options | None = None
    """S3 settings for excluded texts that are on S3."""
    seed: int = 0


def prepare_recipe(
    store: Store,
    names: Sequence[str],
    *,
    folder: str | None = None,
    revisions: Mapping[str, str] | None = None,
    options: PublicOptions | None = None,
    resources: Resources | None = None,
) -> Manifest:
    """Write the public sources with these names (`all` for every one), each with its own negatives.

    `folder` contains copies of the sources (DIR/<name>/). None loads them from the hub, at the `revisions` by source
    name. Nothing is held out. The executor may read sources in several processes at once. A call after an interruption
    resumes after the sources that were read. Raises ConfigError for an unknown name or a license that is not allowed,
    StorageError if a source is unreachable, DataError if its files differ from their description in the catalog.
    """
    options = options or PublicOptions()
    sources = choose(names)
    check_licenses(sources, options.license)
    for name in revisions or {}:
        if public_source(name) not in sources:
            raise ConfigError(
                f"a revision is given for {name!r}, which is not among the sources",
                remedy="add the source, or remove the revision",
            )
    rows = [PublicRows(each, folder, (revisions or {}).get(each.name)) for each in sources]
    inputs = [
        _Input(each.info(), each.rows, each.fingerprint(), _text_bytes(source))
        for each, source in zip(rows, sources, strict=True)
    ]
    return _prepare(store, "the recipe's sources", inputs, options, resources or Resources())


def prepare_released(
    store: Store,
    folder: str,
    *,
    options: PublicOptions | None = None,
    resources: Resources | None = None,
) -> Manifest:
    """Write the recipe's published files (`<source>.parquet`) with their instructions and their mined negatives.

    Raises ConfigError for a file whose name is not a source and for a license that is not allowed, DataError for an
    invalid file.
    """
    options = options or PublicOptions()
    sources = released_sources(folder)
    check_licenses([each.source for each in sources], options.license)
    inputs = [
        _Input(each.open()[0], _ReleasedRows(each), each.fingerprint(), _text_bytes(each.source)) for each in sources
    ]
    return _prepare(store, "the released files", inputs, options, resources or Resources())


def _text_bytes(source: PublicSource) -> int:
    return source.expected_rows * (2 + source.kind.recipe_negatives) * _TEXT_BYTES


class _Rows(Protocol):
    """Reads the rows and counts the ones that are left out. Picklable."""

    def __call__(self, counts: Counts, /) -> Iterator[Row]: ...


@dataclass(frozen=True)
class _ReleasedRows:
    source: ReleasedSource

    def __call__(self, counts: Counts, /) -> Iterator[Row]:
        return iter(self.source.open()[1])


@dataclass(frozen=True)
class _Input:
    """A source before it is read. `text_bytes` is about the size of its texts."""

    info: SourceInfo
    rows: _Rows
    fingerprint: dict[str, object]
    text_bytes: int


@dataclass(frozen=True)
class _TrainingRows:
    """A `ReadPart`: the rows of a source that contain no excluded text, at most `max_rows`."""

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
                remedy="check that these are the data set's own files in its own schema, or leave the source out",
            )


def _prepare(
    store: Store, made_of: str, inputs: Sequence[_Input], options: PublicOptions, resources: Resources
) -> Manifest:
    began = time.time()
    excluded = tuple(read_excluded(options.exclude, options.s3, resources.say))
    recipe = {
        "made_of": made_of,
        "inputs": [each.fingerprint for each in inputs],
        "max_rows": options.max_rows,
        "excluded": [each.fingerprint for each in excluded],
        "seed": options.seed,
    }
    attempt = Attempt(store, recipe, resources, began)
    if (manifest := attempt.finished_before()) is not None:
        return manifest

    sources = [
        SourceParts(
            info=each.info,
            parts=(_TrainingRows(each.info, each.rows, options.max_rows, excluded),),
            part_bytes=(each.text_bytes,),
            text_bytes=each.text_bytes,
        )
        for each in inputs
    ]
    written = write_sources(attempt.begin_work(), sources, resources, seed=options.seed)
    for source in written:
        _say_counts(source, excluded, resources.say)
    remove_recorded_files(store)
    manifest = publish(store, [each.data for each in written], ())
    return attempt.finish(manifest, {each.data.entry.name: each.counts for each in written})


def _say_counts(written: WrittenSource, excluded: Sequence[ExcludedTexts], say: Say) -> None:
    name, left_out = written.data.entry.name, dict(written.counts.left_out)
    say_excluded(name, excluded, left_out, say)
    for benchmark in excluded:
        left_out.pop(benchmark.reason, None)
    if written.counts.repeated:
        left_out[_REPEATED] = left_out.get(_REPEATED, 0) + written.counts.repeated
    say(f"{name}: {counted(written.data.entry.rows, 'row')}" + _reasons(left_out))


def _reasons(left_out: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{number:,} ({reason})" for reason, number in sorted(left_out.items()))
    return f"; left out: {reasons}" if reasons else ""
