"""The first pass through a user's files: checks every row and collects what the second pass needs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_io.curation.held_out import HeldOut, HeldOutChoice, SubstituteTexts
from data_io.dataset.rows import Row, check_row
from data_io.execution import ProgressLine
from data_io.preparation.attempt import Resources
from data_io.storage.resumable import Work
from data_io.user_files.columns import InputRows


@dataclass(frozen=True)
class ScanTask:
    """Reads one part of a source's input."""

    work: Work | None
    """Store for the record of the result. None: no record."""
    source: int
    name: str
    """Index and name of the source."""
    number: int
    """Index of the part in its source."""
    rows: InputRows
    part_bytes: int
    negatives: int | None
    """Hard negatives that every row must have. None: any number."""
    heldout_fraction: float
    max_heldout_queries: int
    keeps_substitutes: bool


@dataclass(frozen=True)
class Scanned:
    """A part of a source: its rows, the bytes of their texts, and the smallest number of negatives in a row.

    `held_out` has the queries and positives that may be held out; `substitutes` has positives that may replace
    negatives.
    """

    rows: int
    text_bytes: int
    fewest_negatives: int
    held_out: tuple[tuple[str, str], ...]
    substitutes: tuple[str, ...]


@dataclass(frozen=True)
class ScannedSource:
    """A source after the first pass."""

    text_bytes: int
    fewest_negatives: int
    held_out: HeldOut
    substitutes: tuple[str, ...]


def scan(tasks: Sequence[ScanTask], resources: Resources) -> list[ScannedSource]:
    """Scan all sources. Raises DataError with file and line for the first invalid row."""
    line = ProgressLine("checking", sum(task.part_bytes for task in tasks), resources.say)
    merged = [_Merged(task) for task in tasks if task.number == 0]
    for task, found in resources.executor(scan_part, tasks):
        merged[task.source].add(task.number, found)
        line.advance(found.rows, task.part_bytes)
    return [each.result() for each in merged]


def scan_part(task: ScanTask) -> Scanned:
    """Read one part, or return the record of an earlier attempt."""
    key = f"scan/{task.name}/{task.number:05d}.json"
    if task.work is not None and (done := task.work.load(key)) is not None:
        held_out = tuple((query, positive) for query, positive in done["held_out"])
        return Scanned(done["rows"], done["text_bytes"], done["fewest_negatives"], held_out, tuple(done["substitutes"]))
    found = _scan_rows(task.rows, task)
    if task.work is not None:
        task.work.save(
            key,
            {
                "rows": found.rows,
                "text_bytes": found.text_bytes,
                "fewest_negatives": found.fewest_negatives,
                "held_out": [list(pair) for pair in found.held_out],
                "substitutes": list(found.substitutes),
            },
        )
    return found


def _scan_rows(rows: Iterable[Row], task: ScanTask) -> Scanned:
    choice = HeldOutChoice(fraction=task.heldout_fraction, max_queries=task.max_heldout_queries)
    substitutes = SubstituteTexts()
    count = text_bytes = 0
    fewest: int | None = None
    for row in rows:
        text_bytes += check_row(row, len(row.negatives) if task.negatives is None else task.negatives, row.place)
        fewest = len(row.negatives) if fewest is None else min(fewest, len(row.negatives))
        choice.add(row, count)
        if task.keeps_substitutes:
            substitutes.add(row.positive)
        count += 1
    held_out = tuple((row.query, row.positive) for row in choice.result().rows)
    return Scanned(count, text_bytes, fewest or 0, held_out, substitutes.result())


class _Merged:
    """Merges the parts of one source."""

    def __init__(self, first: ScanTask) -> None:
        self._choice = HeldOutChoice(fraction=first.heldout_fraction, max_queries=first.max_heldout_queries)
        self._substitutes = SubstituteTexts()
        self._text_bytes = 0
        self._fewest: list[int] = []

    def add(self, number: int, found: Scanned) -> None:
        for n, (query, positive) in enumerate(found.held_out):
            self._choice.add(Row(query, positive), number, n)
        for text in found.substitutes:
            self._substitutes.add(text)
        self._text_bytes += found.text_bytes
        if found.rows:
            self._fewest.append(found.fewest_negatives)

    def result(self) -> ScannedSource:
        fewest = min(self._fewest, default=0)
        return ScannedSource(self._text_bytes, fewest, self._choice.result(), self._substitutes.result())
