"""The result of `f2llm data contamination`: evaluation texts in training data. Standard library only."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

THRESHOLD, SHINGLE, PERMUTATIONS = 0.8, 5, 128
LEAST_RECALL = 0.99

Role = Literal["query", "positive"]


@dataclass(frozen=True)
class NearRule:
    """The rule for near copies: the sets of shingles (runs of `shingle` characters) of two texts have a Jaccard
    similarity of at least `threshold`.

    0.8 is the threshold of Lee et al., "Deduplicating Training Data Makes Language Models Better" (arXiv 2107.06499,
    section 4). Shingles of 5 characters are for short texts in Leskovec, Rajaraman and Ullman, "Mining of Massive
    Datasets" (section 3.2.2); most queries are too short for Lee's shingles of 5 words. `permutations` is the size of a
    MinHash.
    """

    threshold: float = THRESHOLD
    shingle: int = SHINGLE
    permutations: int = PERMUTATIONS

    @property
    def bands(self) -> tuple[int, int]:
        """(bands, rows per band) of the locality-sensitive hash: the largest number of rows that still finds a pair
        with exactly the threshold with a probability of 0.99, or one.
        """
        enough = (r for r in range(1, self.permutations // 2 + 1) if self._recall(r) >= LEAST_RECALL)
        rows = max(enough, default=1)
        return self.permutations // rows, rows

    @property
    def recall(self) -> float:
        """Probability that a pair with exactly the threshold is found; it is higher for more similar pairs."""
        return self._recall(self.bands[1])

    def _recall(self, rows: int) -> float:
        return float(1 - (1 - self.threshold**rows) ** (self.permutations // rows))


@dataclass(frozen=True)
class Match:
    """A training text that is an exact or near copy of an evaluation text. The texts may be shortened."""

    role: Role
    row_group: int
    row: int
    exact: bool
    similarity: float
    text: str
    evaluation_text: str


@dataclass
class Counts:
    """Numbers of rows whose query or positive is an exact copy, or only a near copy, of an evaluation text."""

    exact_query: int = 0
    exact_positive: int = 0
    near_query: int = 0
    near_positive: int = 0
    rows: int = 0
    """Rows with at least one of these."""


@dataclass(frozen=True)
class Overlap:
    """One source compared with one evaluation. `evaluation_texts` of the evaluation's texts occur in the source."""

    source: str
    evaluation: str
    counts: Counts
    evaluation_texts: int
    samples: tuple[Match, ...] = ()


@dataclass(frozen=True)
class SourceRead:
    """A source, the number of its rows that were read, and the number of rows with a text of any evaluation."""

    name: str
    kind: str
    rows: int
    rows_read: int
    rows_met: int


@dataclass(frozen=True)
class EvaluationMet:
    """An evaluation: the number of its distinct texts, and of those found in any source, exactly or only nearly."""

    name: str
    texts: int
    exact: int
    near: int


@dataclass(frozen=True)
class ContaminationReport:
    """`overlaps` has only pairs with at least one text in common, in the order of the sources."""

    uri: str
    version: str
    rule: NearRule
    sources: tuple[SourceRead, ...]
    evaluations: tuple[EvaluationMet, ...]
    overlaps: tuple[Overlap, ...] = field(default=())

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        bands, rows = self.rule.bands
        return asdict(self) | {"rule": asdict(self.rule) | {"bands": bands, "rows": rows, "recall": self.rule.recall}}

    def samples(self) -> Iterator[tuple[Overlap, Match]]:
        for overlap in self.overlaps:
            for match in overlap.samples:
                yield overlap, match
