"""A public data set's own files in a folder of the user's, instead of the hub."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from data_io.errors import DataError
from data_io.sources.public import FILE_FIELD, LINE_FIELD, Placed, PublicSource, Table
from data_io.sources.raw_file_errors import readable_errors
from data_io.sources.raw_files import RawFile, column_names, find_files, read_records

_SPLITS = ("train", "validation", "valid", "dev", "test")


def files_of(folder: str, source: PublicSource, table: Table) -> list[RawFile]:
    """The files of one table under FOLDER/<name>/.

    Where the data set has several tables, those that carry the table's role in their name or folder; where files carry
    names of splits or configurations, those of the table's. Raises DataError where none is left.
    """
    base = f"{folder.rstrip('/')}/{source.name}"
    found = _plain_text(base) if _is_plain_text(table) else find_files(base)
    roles = {other.role for other in source.tables}
    if len(roles) > 1:
        found = _with_word(found, base, table.role)
    for word, others in ((table.config, [t.config for t in source.tables]), (table.split, _SPLITS)):
        named = [file for file in found if any(o is not None and _has(file, base, o) for o in others)]
        if word is not None and named and word not in roles:
            found = [file for file in found if _has(file, base, word) or file not in named]
            found = [file for file in found if file not in named or _has(file, base, word)]
    if not found:
        wanted = f"table {table.role!r} of " if len(roles) > 1 else ""
        raise DataError(
            f"source {source.name!r}: no file of {wanted}split {table.split!r} in {base}",
            remedy=f"put the files of {source.address} there, under their own names",
        )
    return found


def local_records(folder: str, source: PublicSource, table: Table) -> Iterator[Placed]:
    """Every record of one table, with file and line or row. Raises DataError for whatever is wrong with the files."""
    for file in files_of(folder, source, table):
        stem = _stem(file)
        if file.format == "txt":
            yield from ((place, {LINE_FIELD: line, FILE_FIELD: stem}) for place, line in _lines(file))
            continue
        for place, record in read_records(file, column_names(file)):
            yield place, {**record, FILE_FIELD: stem}


def _is_plain_text(table: Table) -> bool:
    return table.files is not None and table.files.endswith(".txt")


def _plain_text(base: str) -> list[RawFile]:
    from fsspec.core import url_to_fs

    with readable_errors(base):
        fs, path = url_to_fs(base)
        names = [p for p in sorted(fs.find(path)) if p.endswith(".txt")] if fs.exists(path) else []
    if not names:
        raise DataError(f"no text file at {base}", remedy="put the data set's .txt files there, one for each class")
    return [RawFile(fs.unstrip_protocol(name).removeprefix("file://"), "txt") for name in names]


def _lines(file: RawFile) -> Iterator[tuple[str, str]]:
    import fsspec

    with readable_errors(file.address), fsspec.open(file.address, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            place = f"{file.address}, line {number}"
            try:
                yield place, line.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise DataError(f"{place}: not valid UTF-8", remedy="convert the file to UTF-8") from error


def _stem(file: RawFile) -> str:
    name = PurePosixPath(file.address).name
    for ending in (".gz", ".bz2", ".xz", ".jsonl", ".json", ".parquet", ".csv", ".tsv", ".txt"):
        name = name.removesuffix(ending)
    return name


def _with_word(files: Sequence[RawFile], base: str, word: str) -> list[RawFile]:
    return [file for file in files if _has(file, base, word)]


def _has(file: RawFile, base: str, word: str) -> bool:
    """Whether the path below the source's folder names `word`: a folder, the file, or a part of it before - or . ."""
    below = file.address.removeprefix(base)
    return any(
        part == word or part.startswith((f"{word}-", f"{word}.")) for part in (*PurePosixPath(below).parts, _stem(file))
    )
