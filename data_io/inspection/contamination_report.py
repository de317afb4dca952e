"""What `f2llm data contamination` found: evaluation texts in training data. Standard library only."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

THRESHOLD, SHINGLE, PERMUTATIONS = 0.8, 5, 128
LEAST_RECALL = 0.99

Role = Literal["query", "positive"]


@dataclass(frozen=True)
class NearRule:
    """When two texts are near copies: the sets of their shingles, runs of `shingle` characters, have a Jaccard
    similarity of at least `threshold`.

    0.8 is that of Lee et al., "Deduplicating Training Data Makes Language Models Better" (arXiv 2107.06499, section 4);
    5 characters are for short texts in Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets" (section 3.2.2):
    most queries have fewer words than Lee's shingles of 5 words need. `permutations` is the size of a MinHash.
    """

    threshold: float = THRESHOLD
    shingle: int = SHINGLE
    permutations: int = PERMUTATIONS

    @property
    def bands(self) -> tuple[int, int]:
        """(bands, rows a band) of the locality-sensitive hash: as many rows as still find a pair of just the threshold
        with a probability of 0.99, or one.
        """
        enough = (r for r in range(1, self.permutations // 2 + 1) if self._recall(r) >= LEAST_RECALL)
        rows = max(enough, default=1)
        return self.permutations // rows, rows

    @property
    def recall(self) -> float:
        """Probability that a pair of just the threshold is found; more similar ones are found more surely."""
        return self._recall(self.bands[1])

    def _recall(self, rows: int) -> float:
        return float(1 - (1 - self.threshold**rows) ** (self.permutations // rows))


@dataclass(frozen=True)
class Match:
    """A text of training that is one of an evaluation, or nearly. Texts may be cut short."""

    role: Role
    row_group: int
    row: int
    exact: bool
    similarity: float
    text: str
    evaluation_text: str


@dataclass
class Counts:
    """Rows whose query or positive is a text of an evaluation, or a near copy of one that is no exact one."""

    exact_query: int = 0
    exact_positive: int = 0
    near_query: int = 0
    near_positive: int = 0
    rows: int = 0
    """Rows that have any of these."""


@dataclass(frozen=True)
class Overlap:
    """One source beside one evaluation. `evaluation_texts` of the evaluation's texts were met in the source."""

    source: str
    evaluation: str
    counts: Counts
    evaluation_texts: int
    samples: tuple[Match, ...] = ()


@dataclass(frozen=True)
class SourceRead:
    """A source, how many of its rows were read, and in how many a text of any evaluation was met."""

    name: str
    kind: str
    rows: int
    rows_read: int
    rows_met: int


@dataclass(frozen=True)
class EvaluationMet:
    """An evaluation: its distinct texts, and those met in any source, exactly or only nearly."""

    name: str
    texts: int
    exact: int
    near: int


@dataclass(frozen=True)
class ContaminationReport:
    """`overlaps` are those where something was met, in the order of the sources."""

    uri: str
    version: str
    rule: NearRule
    sources: tuple[SourceRead, ...]
    evaluations: tuple[EvaluationMet, ...]
    overlaps: tuple[Overlap, ...] = field(default=())

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        bands, rows = self.rule.bands
        return asdict(self) | {"rule": asdict(self.rule) | {"bands": bands, "rows": rows, "recall": self.rule.recall}}

    def samples(self) -> Iterator[tuple[Overlap, Match]]:
        for overlap in self.overlaps:
            for match in overlap.samples:
                yield overlap, match
