"""Scored pairs: two texts that people rated as similar are each other's positive."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_io.sources.source import Counts, Example, Instruction, License, PublicSource, Table, Tables, field, text
from data_io.task import Kind


@dataclass(frozen=True)
class ScoredPairs:
    """Fields of a record. Pairs with at least `min_score` are used (arXiv 2510.02294, section 2: 4 and above)."""

    text_a: str = "sentence1"
    text_b: str = "sentence2"
    score: str = "score"
    min_score: float = 4.0


def scored_examples(shape: ScoredPairs, tables: Tables, counts: Counts) -> Iterator[Example]:
    """Two examples per pair, one in each direction."""
    for place, record in tables["rows"]:
        score = field(record, shape.score, place)
        if score is None or float(score) < shape.min_score:
            counts[f"score below {shape.min_score:g}"] += 1
            continue
        text_a, text_b = text(record, (shape.text_a,), place), text(record, (shape.text_b,), place)
        yield Example(text_a, text_b, (), place)
        yield Example(text_b, text_a, (), place)


def _source(
    name: str, hub_id: str, license: License, rows: int, revision: str, config: str | None = None
) -> PublicSource:
    return PublicSource(
        name, "similarity", Kind.RETRIEVAL, hub_id, hub_id, ScoredPairs(),
        Instruction("Retrieve semantically similar text", "e5"), license, rows, (Table(config=config),),
        revision=revision,
    )  # fmt: skip


_NOT_STATED = License("not stated", None, "the card states none", checked=True)

RECORDS = (
    _source("sts12", "mteb/sts12-sts", _NOT_STATED, 1858, "a0d554a64d88156834ff5ae9920b964011b16384"),
    _source("sts22", "mteb/sts22-crosslingual-sts", _NOT_STATED, 389, "de9d86b3b84231dc21f76c7b7af1f28e2f57f6e3", "en"),
    _source("stsbenchmark", "mteb/stsbenchmark-sts", _NOT_STATED, 3297, "b0fddb56ed78048fa8b90373c8a3cfc37b684831"),
)
