"""A user's files as evaluation sets: reads the rows of each kind and checks them.

Columns are recognized by their usual names, as for training data (`data_io.user_files.columns`).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_io.dataset.evaluation_sets import RetrievalSet, StsSet, check_evaluation
from data_io.dataset.schema import text_key
from data_io.errors import DataError
from data_io.evaluation.task import OwnTask, TaskKind
from data_io.user_files.columns import Columns, ScoredPair, open_rows, read_scored_pairs, recognize
from data_io.user_files.records import RawFile, column_names, find_files, read_records

TEXT_NAMES = ("text", "sentence", "sentences", "query", "document", "passage", "content")
LABEL_NAMES = ("label", "labels", "category", "class", "cluster", "topic")
SPLIT_NAMES = ("split",)
TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class RerankingSet:
    """Queries, each with its own candidates: the correct and the wrong answers."""

    name: str
    queries: list[str]
    positives: list[list[str]]
    negatives: list[list[str]]


@dataclass(frozen=True)
class LabeledSet:
    """Texts and their labels. `splits` says for each text whether it trains or tests a classifier."""

    name: str
    texts: list[str]
    labels: list[str]
    splits: list[str]


@dataclass(frozen=True)
class PairSet:
    """Pairs of texts that mean the same (1) or not (0)."""

    name: str
    text_a: list[str]
    text_b: list[str]
    labels: list[int]


OwnSet = RetrievalSet | RerankingSet | LabeledSet | StsSet | PairSet


def read_own(task: OwnTask) -> OwnSet:
    """Read a task's files. Raises DataError with file and row if a model cannot be evaluated on them, StorageError if
    they cannot be read.
    """
    return _READERS[task.kind](task)


def content_hash(own: OwnSet) -> str:
    """Sixteen hex digits for the content of a set: a set with another text is another task."""
    return hashlib.sha256(json.dumps(asdict(own), sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _retrieval(task: OwnTask) -> RetrievalSet:
    """Each distinct query. The corpus is every distinct positive and negative."""
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, float]] = {}

    def document(text: str) -> str:
        return documents.setdefault(text, f"d{len(documents)}")

    for query, positive, negatives in _rows(task):
        query_id = queries.setdefault(query, f"q{len(queries)}")
        qrels.setdefault(query_id, {})[document(positive)] = 1.0
        for text in negatives:
            document(text)
    found = RetrievalSet(
        task.name, "", list(documents.values()), list(documents), list(queries.values()), list(queries), qrels
    )
    check_evaluation(found)
    return found


def _reranking(task: OwnTask) -> RerankingSet:
    answers: dict[str, dict[str, None]] = {}
    others: dict[str, dict[str, None]] = {}
    for query, positive, negatives in _rows(task):
        answers.setdefault(query, {})[positive] = None
        others.setdefault(query, {}).update(dict.fromkeys(negatives))
    for query, wrong in others.items():
        if not wrong.keys() - answers[query].keys():
            raise DataError(
                f"{task.address}: the query {query[:60]!r} has no wrong candidate, so there is nothing to rank",
                remedy="give each query negatives, in columns negative_1, negative_2, ... or a list in negatives",
            )
    return RerankingSet(
        task.name,
        queries=list(answers),
        positives=[list(texts) for texts in answers.values()],
        negatives=[[text for text in others[query] if text not in answers[query]] for query in answers],
    )


def _labeled(task: OwnTask) -> LabeledSet:
    texts, labels, splits = [], [], []
    for place, text, label, split in _labeled_rows(task):
        if split not in (None, TRAIN, TEST):
            raise DataError(f"{place}: split is {split!r}", remedy=f"expected {TRAIN} or {TEST}")
        texts.append(text)
        labels.append(label)
        # By key, so that the split of existing rows stays the same if rows are added.
        splits.append(split or (TRAIN if text_key(text) % 2 == 0 else TEST))
    if len(set(labels)) < 2:
        raise DataError(
            f"{task.address}: all {len(labels)} texts have the label {labels[0]!r}", remedy="give two or more labels"
        )
    if task.kind is TaskKind.CLASSIFICATION:
        trained = {label for label, split in zip(labels, splits, strict=True) if split == TRAIN}
        unseen = {label for label, split in zip(labels, splits, strict=True) if split == TEST} - trained
        if unseen or TEST not in splits:
            raise DataError(
                f"{task.address}: label {min(unseen)!r} has no text to train the classifier on"
                if unseen
                else f"{task.address}: no text is left to test on",
                remedy="give more texts of every label, or a column `split` with the values train and test",
            )
    return LabeledSet(task.name, texts, labels, splits)


def _sts(task: OwnTask) -> StsSet:
    pairs = _pairs(task)
    found = StsSet(task.name, "", [p.text_a for p in pairs], [p.text_b for p in pairs], [p.score for p in pairs])
    check_evaluation(found)
    return found


def _pair_classification(task: OwnTask) -> PairSet:
    pairs = _pairs(task)
    for pair in pairs:
        if pair.score not in (0, 1):
            raise DataError(
                f"{pair.place}: the label is {pair.score:g}; expected 1 for texts that mean the same and 0 for others",
                remedy="write 0 and 1, or evaluate graded pairs as sts",
            )
    labels = [int(pair.score) for pair in pairs]
    if len(set(labels)) < 2:
        raise DataError(f"{task.address}: every pair has the label {labels[0]}", remedy="give pairs with both labels")
    return PairSet(task.name, [p.text_a for p in pairs], [p.text_b for p in pairs], labels)


_READERS: Mapping[TaskKind, Callable[[OwnTask], OwnSet]] = {
    TaskKind.RETRIEVAL: _retrieval,
    TaskKind.RERANKING: _reranking,
    TaskKind.CLASSIFICATION: _labeled,
    TaskKind.CLUSTERING: _labeled,
    TaskKind.STS: _sts,
    TaskKind.PAIR_CLASSIFICATION: _pair_classification,
}


def _rows(task: OwnTask) -> Iterator[tuple[str, str, Sequence[str]]]:
    _check_columns(task, scored=False)
    for row in open_rows(task.address):
        for text in (row.query, row.positive, *row.negatives):
            _check_text(text, row.place)
        yield row.query, row.positive, row.negatives


def _pairs(task: OwnTask) -> list[ScoredPair]:
    _check_columns(task, scored=True)
    pairs = list(read_scored_pairs(task.address))
    for pair in pairs:
        _check_text(pair.text_a, pair.place)
        _check_text(pair.text_b, pair.place)
    return pairs


def _check_columns(task: OwnTask, *, scored: bool) -> None:
    """Raise DataError for unrecognized columns with a remedy for evaluation, which has no SOURCES.yaml."""
    first = find_files(task.address)[0]
    try:
        recognize(column_names(first), Columns(), first.address, scored=scored)
    except DataError as error:
        raise DataError(error.message, remedy="rename the column in the file") from error


def _labeled_rows(task: OwnTask) -> Iterator[tuple[str, str, str, str | None]]:
    """Position, text, label and split of every row. The split is None if the file has no such column."""
    for file in find_files(task.address):
        names = column_names(file)
        text, label = _column(file, names, TEXT_NAMES, "text"), _column(file, names, LABEL_NAMES, "label")
        split = next((name for name in names if name.lower() in SPLIT_NAMES), None)
        for place, record in read_records(file, [text, label, *([split] if split else [])]):
            yield (
                place,
                _check_text(record.get(text), place),
                _label(record.get(label), place),
                record.get(split) if split else None,
            )


def _column(file: RawFile, names: Sequence[str], habits: Sequence[str], role: str) -> str:
    by_lower = {name.lower(): name for name in reversed(names)}
    found = next((by_lower[habit] for habit in habits if habit in by_lower), None)
    if found is None:
        raise DataError(
            f"{file.address} has no {role} column: found {', '.join(names)}; expected one of {', '.join(habits)}",
            remedy="rename the column in the file",
        )
    return found


def _label(value: Any, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DataError(f"{place}: the label is {value!r}", remedy="give every text a label: a string or an integer")
    return str(value)


def _check_text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        found = "null" if value is None else "blank" if isinstance(value, str) else type(value).__name__
        raise DataError(f"{place}: a text is {found}", remedy="remove the row or fill in the field")
    return value
