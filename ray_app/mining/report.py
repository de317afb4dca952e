"""The report of mining for each source: mining/report.json of the mined data set."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from data_io.storage.chunk_files import Mark
from ray_app.mining.selection import HISTOGRAM_EDGES, MiningRule

REPORT_KEY = "mining/report.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MinedNegative(_Part):
    text: str
    score: float


class Sample(_Part):
    """A sample row: its shortened texts, and the hardest of its mined negatives."""

    query: str
    positive: str
    positive_score: float
    negatives: tuple[MinedNegative, ...]


class SourceReport(_Part):
    """Counts and scores of one source. Histograms count cosines in the report's bins."""

    name: str
    rows: int
    queries: int
    documents: int
    kept_rows: int
    dropped_rows: int
    dropped_queries: int
    """Queries that have lost all their rows."""
    own_negatives: int
    mined_negatives: int
    candidates: int
    above_max_score: int
    above_max_ratio: int
    """Candidates below `max_score` that were refused because of `max_ratio`."""
    histograms: dict[str, tuple[int, ...]]
    """positive: scores of each query's lowest positive; nearest: of its first candidate; negative: of all selected
    negatives.
    """
    samples: tuple[Sample, ...]

    @property
    def dropped_share(self) -> float:
        return self.dropped_rows / self.rows


class MiningReport(_Part):
    version: str
    input_version: str
    model: str
    model_fingerprint: str
    rule: MiningRule
    histogram_edges: tuple[float, ...]
    sources: tuple[SourceReport, ...]


def source_report(name: str, *, documents: int, marks: Sequence[Mark], samples: int) -> SourceReport:
    """The sum of the counts of all shares of queries, with their first samples."""
    counts: dict[str, int] = {}
    histograms: dict[str, list[int]] = {}
    for mark in marks:
        for what, count in mark.counts.items():
            counts[what] = counts.get(what, 0) + count
        for what, bins in mark.histograms.items():
            known = histograms.setdefault(what, [0] * (len(HISTOGRAM_EDGES) - 1))
            histograms[what] = [a + b for a, b in zip(known, bins, strict=True)]
    shown = [sample for mark in marks for sample in mark.samples][:samples]
    return SourceReport.model_validate(
        {"name": name, "documents": documents, "histograms": histograms, "samples": shown, **counts}
    )


def quantile(bins: Sequence[int], share: float) -> float:
    """The score below which `share` of a histogram lies, interpolated in its bin. 0 for an empty histogram."""
    total, seen = sum(bins), 0.0
    for low, high, count in zip(HISTOGRAM_EDGES, HISTOGRAM_EDGES[1:], bins, strict=False):
        if count and seen + count >= share * total:
            return float(low + (high - low) * (share * total - seen) / count)
        seen += count
    return 0.0
