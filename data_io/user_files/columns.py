"""Reads a user's pairs, triplets and lists of positives and negatives as rows, with any column names.

Known layouts: pairs (query, positive); triplets (anchor, positive, negative); numbered negatives (negative_1 ..
negative_n, as in the released F2LLM Parquet); lists (FlagEmbedding: query, pos, neg); and scored pairs, of which those
with a high score become rows in both directions. In a corpus file only the text column is recognized.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from data_io.dataset.rows import Row
from data_io.errors import DataError
from data_io.user_files.records import RawFile, Record, column_names, find_files, read_records

QUERY_NAMES = ("query", "anchor", "question", "sentence1", "text_a", "sentence_a")
POSITIVE_NAMES = ("positive", "pos", "answer", "passage", "document", "sentence2", "text_b", "sentence_b", "context")
NEGATIVE_LIST_NAMES = ("negatives", "neg", "negative", "hard_negatives", "hard_negative")
SCORE_NAMES = ("score", "similarity", "similarity_score", "label")
CORPUS_COLUMNS = ("text", "document", "passage", "content", "contents", "positive", "body")
"""Names by which the text column of a corpus file is recognized. A file with one column may use any name."""
_NUMBERED = re.compile(r"(?:hard_)?neg(?:ative)?_?(\d+)")
_PREFIX = re.compile(r"Instruct: (?P<instruction>.*?)\nQuery: ?(?P<query>.*)", re.DOTALL)


@dataclass(frozen=True)
class Columns:
    """Column names that the user gives. None: recognize the column by its usual names."""

    query: str | None = None
    positive: str | None = None
    negatives: tuple[str, ...] | None = None
    score: str | None = None
    min_score: float | None = None
    """If set, the rows are scored pairs: pairs with at least this score are used, in both directions."""


@dataclass(frozen=True)
class Layout:
    """The columns by role. A column of negatives has a string or a list. With `score` there are no negatives."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    score: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.query, self.positive, *self.negatives, *(() if self.score is None else (self.score,)))


@dataclass(frozen=True)
class InputRows:
    """The rows of a path or URI. May be iterated several times; every pass reads the files again."""

    files: tuple[RawFile, ...]
    layout: Layout
    instruction: str | None
    """The queries' prefix in the files (`Instruct: ...\\nQuery: `). None if they have no prefix."""
    min_score: float | None = None
    """Pairs with a lower score are left out; the others are rows in both directions. None if rows have no score."""

    def __iter__(self) -> Iterator[Row]:
        if self.min_score is not None:
            yield from self._scored(self.min_score)
            return
        for file in self.files:
            for place, record in read_records(file, self.layout.columns):
                yield from self._rows(place, record)

    def _scored(self, least: float) -> Iterator[Row]:
        highest, found = float("-inf"), False
        for pair in _scored_pairs(self.files, self.layout):
            highest = max(highest, pair.score)
            if pair.score >= least:
                found = True
                yield Row(pair.text_a, pair.text_b, (), pair.place)
                yield Row(pair.text_b, pair.text_a, (), pair.place)
        if not found:
            raise DataError(
                f"{self.files[0].address}: no pair has a score of {least:g} or more; the highest is {highest:g}",
                remedy="set min_score to the lowest score of pairs that mean the same, on the file's own scale",
            )

    def _rows(self, place: str, record: Record) -> Iterator[Row]:
        query = self._strip(_text(record, self.layout.query, place), place)
        negatives: list[str] = []
        for column in self.layout.negatives:
            negatives += _texts(record, column, place)
        positives = _texts(record, self.layout.positive, place)
        if not positives:
            raise DataError(
                f"{place}: {self.layout.positive!r} is an empty list", remedy="remove the row or give it a positive"
            )
        for positive in positives:
            yield Row(query, positive, tuple(negatives), place)

    def _strip(self, query: str, place: str) -> str:
        found = _PREFIX.fullmatch(query)
        instruction = found["instruction"] if found else None
        if instruction != self.instruction:
            raise DataError(
                f"{place}: the query {_prefix(instruction)}, but the first row's {_prefix(self.instruction)}",
                remedy="use one source per instruction: the manifest stores one instruction per source",
            )
        return found["query"] if found else query


@dataclass(frozen=True)
class ScoredPair:
    """Two texts and their similarity, on the data's own scale."""

    text_a: str
    text_b: str
    score: float
    place: str = field(default="", compare=False)


def open_rows(address: str, columns: Columns | None = None) -> InputRows:
    """Find the files, recognize the columns and check the first row for an instruction.

    Raises DataError that names the file for any problem, StorageError if the files cannot be read.
    """
    files = tuple(find_files(address))
    columns = columns or Columns()
    if columns.min_score is not None:
        layout = recognize(column_names(files[0]), columns, files[0].address, scored=True)
        return InputRows(files, layout, None, columns.min_score)
    layout = recognize(column_names(files[0]), columns, files[0].address)
    place, record = next(read_records(files[0], layout.columns))
    prefix = _PREFIX.fullmatch(_text(record, layout.query, place))
    return InputRows(files, layout, prefix["instruction"] if prefix else None)


def read_scored_pairs(address: str, columns: Columns | None = None) -> Iterator[ScoredPair]:
    """Pairs of texts, each with a score. Raises DataError that names the file and line or row."""
    files = find_files(address)
    layout = recognize(column_names(files[0]), columns or Columns(), files[0].address, scored=True)
    yield from _scored_pairs(files, layout)


def _scored_pairs(files: Sequence[RawFile], layout: Layout) -> Iterator[ScoredPair]:
    assert layout.score is not None
    for file in files:
        for place, record in read_records(file, layout.columns):
            text_a, text_b = (_text(record, name, place) for name in (layout.query, layout.positive))
            yield ScoredPair(text_a, text_b, _number(record, layout.score, place), place)


def recognize(found: Sequence[str], columns: Columns, address: str, *, scored: bool = False) -> Layout:
    """Assign roles to the columns `found`. Raises DataError that lists the columns."""
    layout = Layout(
        query=_choose(found, columns.query, QUERY_NAMES, "query", address),
        positive=_choose(found, columns.positive, POSITIVE_NAMES, "positive", address),
        negatives=() if scored else _negatives(found, columns.negatives, address),
        score=_choose(found, columns.score, SCORE_NAMES, "score", address) if scored else None,
    )
    twice = {name for name in layout.columns if layout.columns.count(name) > 1}
    if twice:
        raise DataError(f"{address}: column {min(twice)!r} is used twice", remedy="name a different column for each")
    return layout


def text_column(file: RawFile, remedy: str = "rename the column, or leave only that column in the file") -> str:
    """The text column of a corpus file. Raises DataError if none is recognized.

    `remedy` says how the caller's user selects the column.
    """
    names = column_names(file)
    by_lower = {name.lower(): name for name in reversed(names)}
    for habit in CORPUS_COLUMNS:
        if habit in by_lower:
            return by_lower[habit]
    if len(names) == 1:
        return names[0]
    raise DataError(
        f"{file.address} has no text column: found {', '.join(names)}; expected one of {', '.join(CORPUS_COLUMNS)}",
        remedy=remedy,
    )


def _choose(found: Sequence[str], named: str | None, habits: Sequence[str], role: str, address: str) -> str:
    if named is not None:
        return _existing(found, named, address)
    by_lower = {name.lower(): name for name in reversed(found)}
    for habit in habits:
        if habit in by_lower:
            return by_lower[habit]
    raise DataError(
        f"{address} has no {role} column: found {', '.join(found) or 'none'}; expected one of {', '.join(habits)}",
        remedy=f"name the column in SOURCES.yaml (columns: {{{role}: NAME}}), or rename it",
    )


def _existing(found: Sequence[str], name: str, address: str) -> str:
    if name not in found:
        raise DataError(
            f"{address} has no column {name!r}; it has {', '.join(found)}", remedy="correct the column's name"
        )
    return name


def _negatives(found: Sequence[str], named: tuple[str, ...] | None, address: str) -> tuple[str, ...]:
    if named is not None:
        return tuple(_existing(found, name, address) for name in named)
    numbered = [(int(match[1]), name) for name in found if (match := _NUMBERED.fullmatch(name.lower()))]
    if numbered:
        return tuple(name for _, name in sorted(numbered))
    by_lower = {name.lower(): name for name in found}
    return tuple(by_lower[habit] for habit in NEGATIVE_LIST_NAMES if habit in by_lower)[:1]


def _value(record: Record, column: str, place: str) -> object:
    if column not in record:
        raise DataError(
            f"{place}: no {column!r}; the row has {', '.join(record) or 'no fields'}", remedy="add it or remove the row"
        )
    return record[column]


def _text(record: Record, column: str, place: str) -> str:
    value = _value(record, column, place)
    if not isinstance(value, str):
        raise _wrong(value, column, "a string", place)
    return value


def _texts(record: Record, column: str, place: str) -> list[str]:
    value = _value(record, column, place)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise _wrong(value, column, "a string or a list of strings", place)
    for item in value:
        if not isinstance(item, str):
            raise _wrong(item, column, "a list of strings", place)
    return value


def _number(record: Record, column: str, place: str) -> float:
    value = _value(record, column, place)
    try:
        if (
            isinstance(value, (int, float, str))
            and not isinstance(value, bool)
            and abs(number := float(value)) < float("inf")
        ):
            return number
    except ValueError:
        pass
    raise _wrong(value, column, "a finite number", place)


def _wrong(value: object, column: str, expected: str, place: str) -> DataError:
    found = "null" if value is None else f"{value!r:.40}" if isinstance(value, (str, float)) else type(value).__name__
    remedy = "remove the row or fill in the field"
    return DataError(f"{place}: {column!r} is {found}, expected {expected}", remedy=remedy)


def _prefix(instruction: str | None) -> str:
    return "has no instruction" if instruction is None else f"has the instruction {instruction!r:.120}"
