"""Finds training texts that are exact or near copies of evaluation texts.

The evaluation texts are indexed in memory; training rows are streamed. Exact copies are found by the key that
`--exclude-benchmark` uses (`schema.text_key`, which ignores case and white space). Near copies are proposed by MinHash
and locality-sensitive hashing (datasketch), and each proposed pair is then compared exactly. So every reported pair is
a near copy, and a near copy is found with the probability `NearRule.recall`.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from data_io.dataset.manifest import Manifest, SourceEntry, load_manifest
from data_io.dataset.reader import Reader
from data_io.dataset.schema import text_key
from data_io.errors import ConfigError
from data_io.execution import ProgressLine, Say, silent
from data_io.inspection.contamination_report import (
    ContaminationReport,
    Counts,
    EvaluationMet,
    Match,
    NearRule,
    Overlap,
    Role,
    SourceRead,
)
from data_io.inspection.evaluation_texts import EvaluationTexts
from data_io.storage.store import Store
from data_io.task import Kind
from data_io.wording import counted

SAMPLES = 5
_SHOWN_CHARACTERS = 400
_ROLES: tuple[Role, ...] = ("query", "positive")


def find_contamination(
    store: Store,
    evaluations: Sequence[EvaluationTexts],
    *,
    rule: NearRule | None = None,
    rows_per_source: int | None = None,
    say: Say = silent,
) -> ContaminationReport:
    """Compare query and positive of every row of every source, or of `rows_per_source` evenly spread rows.

    The positive of a classification row is the words of its label and is not compared. Raises ConfigError if datasketch
    is not installed, DataError for damaged data.
    """
    rule = rule or NearRule()
    manifest = load_manifest(store)
    texts = sum(len(each.texts) for each in evaluations)
    say(f"indexing {counted(texts, 'text')} of {counted(len(evaluations), 'evaluation')}")
    index = _Index(evaluations, rule)
    reader = Reader(store, manifest)
    sources: list[SourceRead] = []
    overlaps: list[Overlap] = []
    try:
        for entry in manifest.sources:
            scan = _Scan(index, entry)
            scan.read(reader, _groups(manifest, entry, rows_per_source), say)
            sources.append(SourceRead(entry.name, str(entry.kind), entry.rows, scan.rows_read, scan.rows_met))
            overlaps += scan.overlaps()
    finally:
        reader.close()
    return ContaminationReport(store.uri, manifest.version, rule, tuple(sources), tuple(index.met()), tuple(overlaps))


class _Index:
    """The distinct texts of the evaluations, and those that were found in training data."""

    def __init__(self, evaluations: Sequence[EvaluationTexts], rule: NearRule) -> None:
        self._rule, self._sketches = rule, _Sketches(rule)
        self.names = [each.name for each in evaluations]
        self._ids: dict[int, int] = {}
        self.texts: list[str] = []
        self.owners: list[list[int]] = []
        """For each text, the numbers of the evaluations that contain it."""
        self.exact: set[int] = set()
        self.near: set[int] = set()
        for number, each in enumerate(evaluations):
            for text in each.texts:
                if text.strip():
                    self._add(number, text)

    def _add(self, number: int, text: str) -> None:
        key = text_key(text)
        if key not in self._ids:
            self._ids[key] = len(self.texts)
            self.texts.append(text)
            self.owners.append([])
            self._sketches.add(self._ids[key], text)
        owners = self.owners[self._ids[key]]
        if number not in owners:
            owners.append(number)

    def find(self, text: str) -> tuple[bool, list[tuple[int, float]]]:
        """Whether an evaluation has exactly this text, and (text, similarity) of it, or else of all near copies."""
        exact = self._ids.get(text_key(text))
        if exact is not None:
            self.exact.add(exact)
            return True, [(exact, 1.0)]
        mine = shingles(text, self._rule.shingle)
        found = []
        for candidate in self._sketches.query(text):
            similarity = jaccard(mine, shingles(self.texts[candidate], self._rule.shingle))
            if similarity >= self._rule.threshold:
                found.append((candidate, similarity))
                self.near.add(candidate)
        return False, found

    def met(self) -> Iterator[EvaluationMet]:
        for number, name in enumerate(self.names):
            mine = {text for text, owners in enumerate(self.owners) if number in owners}
            yield EvaluationMet(name, len(mine), len(mine & self.exact), len(mine & self.near - self.exact))


class _Sketches:
    """MinHashes in a locality-sensitive hash: the only class that uses datasketch."""

    def __init__(self, rule: NearRule) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError as error:
            raise ConfigError(
                "near copies need the package datasketch, which is not installed",
                remedy="pip install 'f2llm-ray[benchmark]'",
            ) from error
        self._rule = rule
        self._empty = MinHash(num_perm=rule.permutations, hashfunc=int)
        self._lsh = MinHashLSH(threshold=rule.threshold, num_perm=rule.permutations, params=rule.bands)

    def add(self, key: int, text: str) -> None:
        self._lsh.insert(key, self._sketch(text), check_duplication=False)

    def query(self, text: str) -> list[int]:
        return sorted(self._lsh.query(self._sketch(text)))

    def _sketch(self, text: str) -> object:
        sketch = self._empty.copy()
        sketch.update_batch(_shingle_hashes(text, self._rule.shingle).tolist())
        return sketch


class _Scan:
    """One source, read row by row."""

    def __init__(self, index: _Index, entry: SourceEntry) -> None:
        self._index, self._entry = index, entry
        self.rows_read = self.rows_met = 0
        self._counts: dict[int, Counts] = {}
        self._texts: dict[int, set[int]] = {}
        self._samples: dict[int, list[Match]] = {}
        # Labels (the positives of a classification) are not compared: they may be equal to any text.
        self._roles = _ROLES[:1] if entry.kind is Kind.CLASSIFICATION else _ROLES

    def read(self, reader: Reader, groups: Sequence[int], say: Say) -> None:
        line = ProgressLine(self._entry.name, len(groups), say)
        for group in groups:
            table = reader.read(self._entry.name, group, list(self._roles))
            columns = [table.column(role).to_pylist() for role in self._roles]
            for row, texts in enumerate(zip(*columns, strict=True)):
                self._row(group, row, texts)
            self.rows_read += len(table)
            line.advance(len(table), 1)

    def _row(self, group: int, row: int, texts: Iterable[str]) -> None:
        met: dict[int, set[str]] = {}
        for role, text in zip(self._roles, texts, strict=True):
            exact, found = self._index.find(text)
            for known, similarity in found:
                match = Match(
                    role, group, row, exact, round(similarity, 4), _shown(text), _shown(self._index.texts[known])
                )
                for owner in self._index.owners[known]:
                    met.setdefault(owner, set()).add(f"{'exact' if exact else 'near'}_{role}")
                    self._texts.setdefault(owner, set()).add(known)
                    self._sample(owner, match)
        for owner, kinds in met.items():
            counts = self._counts.setdefault(owner, Counts())
            counts.rows += 1
            for kind in kinds:
                setattr(counts, kind, getattr(counts, kind) + 1)
        self.rows_met += bool(met)

    def _sample(self, owner: int, match: Match) -> None:
        """Keep a sample. Near copies need to be checked by hand; for exact copies one sample is enough."""
        kept = self._samples.setdefault(owner, [])
        if len(kept) < SAMPLES and not (match.exact and any(each.exact for each in kept)):
            kept.append(match)

    def overlaps(self) -> Iterator[Overlap]:
        for owner in sorted(self._counts):
            yield Overlap(
                self._entry.name, self._index.names[owner], self._counts[owner], len(self._texts[owner]),
                tuple(self._samples[owner]),
            )  # fmt: skip


def shingles(text: str, size: int) -> frozenset[str]:
    """The distinct runs of `size` characters, ignoring case and white space. A shorter text is one shingle."""
    text = _normal(text)
    return frozenset(text[i : i + size] for i in range(max(1, len(text) - size + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection divided by size of the union."""
    return len(a & b) / len(a | b)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _shingle_hashes(text: str, size: int) -> npt.NDArray[np.uint32]:
    """A polynomial hash of each distinct shingle, uint32."""
    codes = np.frombuffer(_normal(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if len(codes) < size:
        codes = np.concatenate([codes, np.zeros(size - len(codes), dtype=np.uint32)])
    runs = np.lib.stride_tricks.sliding_window_view(codes, size)
    powers = np.array([pow(_MULTIPLIER, size - 1 - i, 2**32) for i in range(size)], dtype=np.uint32)
    return np.unique((runs * powers).sum(axis=1, dtype=np.uint32))


_MULTIPLIER = 0x9E3779B1  # odd, with bits spread out: the golden ratio times 2**32


def _groups(manifest: Manifest, entry: SourceEntry, rows: int | None) -> list[int]:
    """Numbers of the row groups to read: all, or enough evenly spread ones for about `rows` rows."""
    groups = len(manifest.row_groups(entry.name))
    if rows is None or rows >= entry.rows:
        return list(range(groups))
    wanted = max(1, round(groups * rows / entry.rows))
    return sorted({int(group) for group in np.linspace(0, groups - 1, wanted)})


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
