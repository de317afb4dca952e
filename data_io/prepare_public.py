"""Making a data set of the recipe's public sources, loaded from where they are published, or of its released files."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from data_io.config import S3Options
from data_io.errors import ConfigError, DataError
from data_io.manifest import Manifest, SourceInfo
from data_io.sources.benchmark import ExcludedTexts, excluded_texts
from data_io.sources.catalogue import LicenceRule, check_licences, choose, public_source
from data_io.sources.public import Counts
from data_io.sources.public_rows import PublicRows
from data_io.sources.recipe import record, reuse
from data_io.sources.released import ReleasedSource, released_sources
from data_io.storage import Store
from data_io.writer import Row, write_dataset

Progress = Callable[[str], None]


def prepare_recipe(
    store: Store,
    names: Sequence[str],
    *,
    folder: str | None = None,
    revisions: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    licence: LicenceRule = "any",
    exclude: Sequence[str] = (),
    s3: S3Options | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Manifest:
    """Write the public sources of these names (`all` for every one), each with the negatives that it has itself.

    `folder` holds copies of them (FOLDER/<name>/), None loads them from the hub. Raises ConfigError for an unknown name
    or a licence that `licence` refuses, StorageError where a source cannot be reached, DataError where it is not what
    is known of it. Nothing is held out; `exclude` names texts that no row may have.
    """
    sources = choose(names)
    check_licences(sources, licence)
    for name in revisions or {}:
        if public_source(name) not in sources:
            raise ConfigError(
                f"a revision is given for {name!r}, which is not among the sources", remedy="add it, or leave that out"
            )
    rows = [PublicRows(each, folder, (revisions or {}).get(each.name)) for each in sources]
    inputs = [(each.fingerprint(), each.info, each.rows) for each in rows]
    return _prepare(store, "the recipe's sources", inputs, max_rows, exclude, s3, seed, progress or _silent)


def prepare_released(
    store: Store,
    folder: str,
    *,
    max_rows: int | None = None,
    licence: LicenceRule = "any",
    exclude: Sequence[str] = (),
    s3: S3Options | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Manifest:
    """Write the recipe's published files (`<source>.parquet`) with their instructions and their mined negatives.

    Raises ConfigError for a file named after no source and for licences, DataError for what is wrong with the files.
    """
    sources = released_sources(folder)
    check_licences([each.source for each in sources], licence)
    inputs = [(each.fingerprint(), *_released(each)) for each in sources]
    return _prepare(store, "the released files", inputs, max_rows, exclude, s3, seed, progress or _silent)


class _Rows(Protocol):
    def __call__(self, counts: Counts, /) -> Iterator[Row]: ...


_Input = tuple[dict[str, object], Callable[[], SourceInfo], _Rows]
"""What the rows follow from; what the manifest says of them; the rows, counting what was left out."""


def _released(source: ReleasedSource) -> tuple[Callable[[], SourceInfo], _Rows]:
    return (lambda: source.open()[0]), (lambda _counts: iter(source.open()[1]))


def _prepare(
    store: Store,
    made_of: str,
    inputs: Sequence[_Input],
    max_rows: int | None,
    exclude: Sequence[str],
    s3: S3Options | None,
    seed: int,
    say: Progress,
) -> Manifest:
    excluded = []
    for name in exclude:
        say(f"reading the texts of {name}")
        excluded.append(excluded_texts(name, s3))
    recipe = {
        "made_of": made_of,
        "inputs": [fingerprint for fingerprint, _, _ in inputs],
        "max_rows": max_rows,
        "excluded": [[each.name, len(each.keys), sum(each.keys) % 2**64] for each in excluded],
        "seed": seed,
    }
    if (manifest := reuse(store, recipe)) is not None:
        say("the data set is already there")
        return manifest
    written = ((info := describe(), _watched(info, rows, max_rows, excluded, say)) for _, describe, rows in inputs)
    manifest = write_dataset(store, written, seed=seed)
    record(store, recipe, manifest)
    return manifest


def _watched(
    info: SourceInfo, rows: _Rows, max_rows: int | None, excluded: Sequence[ExcludedTexts], say: Progress
) -> Iterable[Row]:
    """The rows that no excluded text is in, at most `max_rows`; says afterwards what was left out."""
    counts = Counts()
    kept = 0
    dropped = Counts()
    for row in rows(counts):
        if kept == max_rows:
            break
        holds = next((each.name for each in excluded if each.holds(row, info.kind)), None)
        if holds is not None:
            dropped[holds] += 1
            continue
        kept += 1
        yield row
    for name in (each.name for each in excluded):
        say(f"{info.name}: {dropped[name]} rows dropped for texts of {name}")
    left_out = ", ".join(f"{number} that {reason}" for reason, number in sorted(counts.items()))
    say(f"{info.name}: {kept} rows" + (f"; left out: {left_out}" if left_out else ""))
    if not kept:
        raise DataError(
            f"source {info.name!r}: no row is left" + (f"; left out: {left_out}" if left_out else ""),
            remedy="see whether these are the data set's own files in its own schema, or leave the source out",
        )


def _silent(_message: str) -> None:
    pass
