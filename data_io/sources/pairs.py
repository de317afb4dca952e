"""Families of one table whose records have a query and its answer: questions, summaries, titles, duplicates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_io.sources.source import Counts, Example, Fields, Placed, Tables, field, text, texts


@dataclass(frozen=True)
class Pairs:
    """Fields of a record: the query, its positive, and its own negatives if any (a string, or a list of strings).

    With `alternatives`, `positive` may be a list, and each item makes an example. With `only`, a record counts only if
    that field has that value.
    """

    query: Fields
    positive: Fields
    negatives: str | None = None
    alternatives: bool = False
    only: tuple[str, str] | None = None
    both_directions: bool = False

    @property
    def some_negatives(self) -> bool:
        return self.negatives is not None


@dataclass(frozen=True)
class Passages:
    """A query with lists of passages, each of a title and a text (MIRACL)."""

    query: Fields
    positives: str
    negatives: str
    passage: Fields
    some_negatives = True


@dataclass(frozen=True)
class Answers:
    """A question with several answers, of which the best is the positive.

    The answers are a list of records, or one record of lists, as Hugging Face stores a list of records.
    """

    query: Fields
    answers: str
    text: str
    score: str | None = None


def pair_examples(shape: Pairs, tables: Tables, counts: Counts) -> Iterator[Example]:
    """One example per record, or one per alternative positive."""
    for place, record in tables["rows"]:
        if shape.only is not None and str(field(record, shape.only[0], place)) != shape.only[1]:
            counts["excluded by its type"] += 1
            continue
        query = text(record, shape.query, place)
        if shape.alternatives:
            positives = [item for path in shape.positive for item in texts(record, path, place)]
        else:
            positives = [text(record, shape.positive, place)]
        negatives = () if shape.negatives is None else tuple(texts(record, shape.negatives, place))
        if not positives:
            counts["no positive"] += 1
        for positive in positives:
            yield Example(query, positive, negatives, place)
            if shape.both_directions:
                yield Example(positive, query, negatives, place)


def passage_examples(shape: Passages, tables: Tables, counts: Counts) -> Iterator[Example]:
    """One example per passage that answers the query. Passages that were judged irrelevant are its negatives."""
    for place, record in tables["rows"]:
        query = text(record, shape.query, place)
        positives, negatives = (
            [text(passage, shape.passage, place) for passage in field(record, path, place) or ()]
            for path in (shape.positives, shape.negatives)
        )
        if not positives:
            counts["no positive"] += 1
        for positive in positives:
            yield Example(query, positive, tuple(t for t in negatives if t), place)


def answer_examples(shape: Answers, tables: Tables, counts: Counts) -> Iterator[Example]:
    """The question and its best answer: the first one with the highest score; without scores the first answer."""
    for place, record in tables["rows"]:
        best = _best(shape, (place, record))
        if best is None:
            counts["no positive"] += 1
        else:
            yield Example(text(record, shape.query, place), best, (), place)


def _best(shape: Answers, placed: Placed) -> str | None:
    place, record = placed
    answers = field(record, shape.answers, place) or ()
    listed: list[Mapping[str, Any]] = (
        [dict(zip(answers, values, strict=True)) for values in zip(*answers.values(), strict=True)]
        if isinstance(answers, Mapping)
        else list(answers)
    )
    readable = [answer for answer in listed if text(answer, (shape.text,), place)]
    if not readable:
        return None
    score = shape.score
    best = readable[0] if score is None else max(readable, key=lambda answer: float(field(answer, score, place) or 0))
    return text(best, (shape.text,), place)
