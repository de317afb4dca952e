"""The recipe's published Parquet files: one file per source, instruction before every query, negatives mined."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from data_io.dataset.manifest import SourceInfo
from data_io.errors import ConfigError
from data_io.sources.catalog import public_source
from data_io.sources.source import PublicSource
from data_io.user_files.columns import InputRows, open_rows
from data_io.user_files.records import find_files, fingerprint
from data_io.wording import counted


@dataclass(frozen=True)
class ReleasedSource:
    """A source's published file."""

    source: PublicSource
    address: str

    def open(self) -> tuple[SourceInfo, InputRows]:
        """The manifest's entry and the rows. Raises DataError if the file is not as published."""
        rows = open_rows(self.address)
        source = self.source
        return SourceInfo(
            name=source.name,
            kind=source.kind,
            negatives=source.kind.recipe_negatives,
            instruction=rows.instruction or "",
            license=source.license.name,
            origin=f"{source.address} (as released)",
        ), rows

    def fingerprint(self) -> dict[str, object]:
        """Values that determine the rows, for recipe.json."""
        return {"released": self.source.name, "file": self.address, "state": fingerprint(self.address)}


def released_sources(folder: str) -> tuple[ReleasedSource, ...]:
    """The published files in a directory, in the order of their names.

    Raises ConfigError for a file whose name is not a source of the recipe, DataError if there is no file.
    """
    found: list[ReleasedSource] = []
    unknown: list[str] = []
    for file in find_files(folder):
        name = PurePosixPath(file.address).name.partition(".")[0]
        try:
            found.append(ReleasedSource(public_source(name), file.address))
        except ConfigError as error:
            unknown.append(f"{PurePosixPath(file.address).name} ({error.remedy})")
    if unknown:
        raise ConfigError(
            f"{folder}: no source of the recipe has the name of {counted(len(unknown), 'file')}: {', '.join(unknown)}",
            remedy="name them <source>.parquet as published, or give them one by one: --source NAME:KIND=FILE",
        )
    names = [each.source.name for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{folder} has two files of source {twice[0]!r}", remedy="keep one file per source")
    return tuple(found)
