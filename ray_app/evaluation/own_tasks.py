"""A user's own sets as tasks of mteb, so that they are evaluated and stored like mteb's tasks."""

from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata

from data_io.dataset.evaluation_sets import RetrievalSet, StsSet
from data_io.errors import DataError
from data_io.evaluation.own_sets import TRAIN, LabeledSet, OwnSet, PairSet, RerankingSet, content_hash
from data_io.evaluation.task import TaskKind

_LANGUAGE = "eng-Latn"
"""mteb requires a language. No metric depends on it."""


def own_task(own: OwnSet, kind: TaskKind, *, origin: str) -> Any:
    """A task of mteb (`AbsTask`) with its data loaded. Raises DataError for data that mteb cannot evaluate."""
    task_type, main_score, base, options = _TYPES[kind]
    metadata = TaskMetadata(
        name=own.name,
        description=f"{kind} on {origin}",
        dataset={"path": origin, "revision": content_hash(own)},
        type=task_type,
        category="t2t",
        eval_splits=["test"],
        eval_langs=[_LANGUAGE],
        main_score=main_score,
    )
    task = type("OwnTask", (base,), {"metadata": metadata, **options})()
    task.dataset = _DATA[kind](own)
    task.data_loaded = True
    return task


def default_instruction(kind: TaskKind) -> str:
    """mteb's instruction for tasks of this type that have no instruction of their own."""
    return str(_TYPES[kind][2].abstask_prompt)


_TYPES: Mapping[TaskKind, tuple[str, str, Any, dict[str, Any]]] = {
    TaskKind.RETRIEVAL: ("Retrieval", "ndcg_at_10", AbsTaskRetrieval, {}),
    TaskKind.RERANKING: ("Reranking", "map_at_1000", AbsTaskRetrieval, {}),
    TaskKind.CLASSIFICATION: ("Classification", "accuracy", AbsTaskClassification, {}),
    # Use all of a user's texts. mteb embeds only a part of its large sets.
    TaskKind.CLUSTERING: (
        "Clustering", "v_measure", AbsTaskClustering, {"max_fraction_of_documents_to_embed": None},
    ),
    TaskKind.STS: ("STS", "cosine_spearman", AbsTaskSTS, {}),
    TaskKind.PAIR_CLASSIFICATION: ("PairClassification", "max_ap", AbsTaskPairClassification, {}),
}  # fmt: skip


def _retrieval(own: RetrievalSet) -> dict[str, Any]:
    grades = {query: {document: int(g) for document, g in of.items()} for query, of in own.qrels.items()}
    broken = next((g for of in own.qrels.values() for g in of.values() if g != int(g)), None)
    if broken is not None:
        raise DataError(
            f"task {own.name}: a document has the grade {broken:g}; mteb expects integers",
            remedy="use integers as grades, 1 for an answer",
        )
    return _searched(own.corpus_ids, own.corpus, own.query_ids, own.queries, grades, None)


def _reranking(own: RerankingSet) -> dict[str, Any]:
    """Candidates with the same text are the same document."""
    ids: dict[str, str] = {}
    grades: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[str]] = {}
    for number, (right, wrong) in enumerate(zip(own.positives, own.negatives, strict=True)):
        query = f"q{number}"
        grades[query] = {ids.setdefault(text, f"d{len(ids)}"): 1 for text in right}
        candidates[query] = [*grades[query], *(ids.setdefault(text, f"d{len(ids)}") for text in wrong)]
    query_ids = [f"q{number}" for number in range(len(own.queries))]
    return _searched(list(ids.values()), list(ids), query_ids, own.queries, grades, candidates)


def _searched(
    corpus_ids: list[str],
    corpus: list[str],
    query_ids: list[str],
    queries: list[str],
    grades: dict[str, dict[str, int]],
    candidates: dict[str, list[str]] | None,
) -> dict[str, Any]:
    split = {
        "corpus": Dataset.from_dict({"id": corpus_ids, "title": [""] * len(corpus), "text": corpus}),
        "queries": Dataset.from_dict({"id": query_ids, "text": queries}),
        "relevant_docs": grades,
        "top_ranked": candidates,
    }
    return {"default": {"test": split}}


def _classification(own: LabeledSet) -> Any:
    numbers = _numbers(own.labels)

    def part(wanted: str) -> Dataset:
        rows = [i for i, split in enumerate(own.splits) if (split == TRAIN) == (wanted == TRAIN)]
        return Dataset.from_dict({"text": [own.texts[i] for i in rows], "label": [numbers[i] for i in rows]})

    return DatasetDict({"train": part(TRAIN), "test": part("test")})


def _clustering(own: LabeledSet) -> Any:
    return DatasetDict({"test": Dataset.from_dict({"sentences": own.texts, "labels": _numbers(own.labels)})})


def _numbers(labels: list[str]) -> list[int]:
    """Labels as the integers that mteb's metrics expect."""
    number = {label: n for n, label in enumerate(sorted(set(labels)))}
    return [number[label] for label in labels]


def _sts(own: StsSet) -> Any:
    pairs = {"sentence1": own.text_a, "sentence2": own.text_b, "score": own.scores}
    return DatasetDict({"test": Dataset.from_dict(pairs)})


def _pairs(own: PairSet) -> Any:
    pairs = {"sentence1": own.text_a, "sentence2": own.text_b, "labels": own.labels}
    return DatasetDict({"test": Dataset.from_dict(pairs)})


_DATA: Mapping[TaskKind, Callable[[Any], Any]] = {
    TaskKind.RETRIEVAL: _retrieval,
    TaskKind.RERANKING: _reranking,
    TaskKind.CLASSIFICATION: _classification,
    TaskKind.CLUSTERING: _clustering,
    TaskKind.STS: _sts,
    TaskKind.PAIR_CLASSIFICATION: _pairs,
}
