"""Evaluation with an encoder whose embeddings are known."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from data_io.dataset.evaluation_sets import RetrievalSet, StsSet, save_evaluation
from data_io.dataset.manifest import Manifest
from data_io.errors import DataError
from data_io.storage.store import open_store
from data_io.task import format_query
from ray_app.errors import ModelError
from ray_app.evaluation import held_out as module
from ray_app.evaluation.held_out import Floats, evaluate, evaluate_sets
from ray_app.evaluation.ranking_metrics import ndcg_at_k, recall_at_k
from ray_app.job_spec import EvaluationSpec
from ray_app.run_directory.evaluation_report import EvaluationReport, RetrievalResult, StsResult
from tests.support.datasets import example_evaluations


def embed(texts: Sequence[str], *, instruction: str = "") -> Floats:
    """Unit vectors that depend on the whole text, made of small integers so that equal scores are exactly equal."""
    rows = [
        np.frombuffer(hashlib.sha256(format_query(text, instruction).encode()).digest()[:8], dtype=np.uint8) % 4
        for text in texts
    ]
    return np.stack(rows).astype(np.float32) / np.float32(32)


def retrieval_set(queries: int = 30, documents: int = 80) -> RetrievalSet:
    corpus_ids = [f"doc-{i}" for i in range(documents)]
    query_ids = [f"query-{i}" for i in range(queries)]
    return RetrievalSet(
        name="held-out",
        instruction="Find the document.",
        corpus_ids=corpus_ids,
        corpus=[f"document about subject {i}" for i in range(documents)],
        query_ids=query_ids,
        queries=[f"what about subject {i}?" for i in range(queries)],
        qrels={query: {f"doc-{i}": 2.0, f"doc-{i + 1}": 1.0} for i, query in enumerate(query_ids)},
    )


def retrieval(report: EvaluationReport) -> RetrievalResult:
    (result,) = report.retrieval
    return result


def without_times(report: EvaluationReport) -> EvaluationReport:
    return report.model_copy(update={"sets": tuple(s.model_copy(update={"seconds": 0.0}) for s in report.sets)})


def slow_metrics(each: RetrievalSet, encode: Callable[..., Floats]) -> tuple[float, float]:
    """All scores in one matrix, then a plain sort by score and id."""
    scores = encode(each.queries, instruction=each.instruction) @ encode(each.corpus).T
    ndcg, recall = [], []
    for i, query in enumerate(each.query_ids):
        pairs = sorted(zip(scores[i].tolist(), each.corpus_ids, strict=True), reverse=True)
        ranking = [document for _, document in pairs]
        ndcg.append(ndcg_at_k(ranking, each.qrels[query]))
        recall.append(recall_at_k(ranking, each.qrels[query]))
    return float(np.mean(ndcg)), float(np.mean(recall))


@pytest.mark.parametrize(("query_block", "document_block"), [(2048, 8192), (7, 11), (1, 1)])
def test_scores_block_by_block_equal_one_big_matrix(
    monkeypatch: pytest.MonkeyPatch, query_block: int, document_block: int
) -> None:
    monkeypatch.setattr(module, "_QUERY_BLOCK", query_block)
    monkeypatch.setattr(module, "_DOCUMENT_BLOCK", document_block)
    each = retrieval_set()

    model = retrieval(evaluate_sets(embed, [each])).model

    assert (model.ndcg_at_10, model.recall_at_10) == pytest.approx(slow_metrics(each, embed), abs=1e-12)


@pytest.mark.parametrize(("query_block", "document_block"), [(2048, 8192), (7, 11)])
def test_fewer_dimensions_score_as_a_model_that_gives_only_those(
    monkeypatch: pytest.MonkeyPatch, query_block: int, document_block: int
) -> None:
    monkeypatch.setattr(module, "_QUERY_BLOCK", query_block)
    monkeypatch.setattr(module, "_DOCUMENT_BLOCK", document_block)
    each, pairs = retrieval_set(), StsSet("pairs", "", ["a", "b", "c"], ["d", "e", "f"], [1.0, 2.0, 3.0])

    def whole(texts: Sequence[str], *, instruction: str = "") -> Floats:
        seeds = [
            int.from_bytes(hashlib.sha256(format_query(text, instruction).encode()).digest()[:8]) for text in texts
        ]
        rows = np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def shorter(dims: int) -> Callable[..., Floats]:
        def encode(texts: Sequence[str], *, instruction: str = "") -> Floats:
            return np.stack([row[:dims] / np.linalg.norm(row[:dims]) for row in whole(texts, instruction=instruction)])

        return encode

    result, sts = evaluate_sets(whole, [each, pairs], dims=(3, 5)).sets

    assert isinstance(result, RetrievalResult)
    assert isinstance(sts, StsResult)
    for dims in (3, 5):
        found = result.by_dims[dims]
        assert (found.ndcg_at_10, found.recall_at_10) == pytest.approx(slow_metrics(each, shorter(dims)), abs=1e-12)
        assert evaluate_sets(shorter(dims), [pairs]).sts[0].spearman == sts.by_dims[dims]
    assert result.model == retrieval(evaluate_sets(whole, [each])).model


def test_more_dimensions_than_the_embeddings_have_are_refused() -> None:
    with pytest.raises(ModelError, match="9 dimensions are requested, but the model's embeddings have 8"):
        evaluate_sets(embed, [retrieval_set()], dims=(9,))


def test_permuting_the_corpus_changes_nothing() -> None:
    each = retrieval_set()
    order = np.random.default_rng(1).permutation(len(each.corpus))
    shuffled = RetrievalSet(
        each.name,
        each.instruction,
        [each.corpus_ids[i] for i in order],
        [each.corpus[i] for i in order],
        each.query_ids,
        each.queries,
        each.qrels,
    )

    assert without_times(evaluate_sets(embed, [shuffled])) == without_times(evaluate_sets(embed, [each]))


def test_queries_have_the_instruction_and_documents_have_none() -> None:
    seen: dict[str, set[str]] = {}

    def spy(texts: Sequence[str], *, instruction: str = "") -> Floats:
        for text in texts:
            seen.setdefault(text, set()).add(instruction)
        return embed(texts, instruction=instruction)

    each = retrieval_set()
    evaluate_sets(spy, [each])

    assert {text: {each.instruction} for text in each.queries} | {text: {""} for text in each.corpus} == seen


def test_a_perfect_encoder_scores_1() -> None:
    each = retrieval_set(queries=5, documents=10)
    single = RetrievalSet(
        each.name, "", each.corpus_ids, each.corpus, each.query_ids, each.corpus[:5],
        {query: {f"doc-{i}": 1.0} for i, query in enumerate(each.query_ids)},
    )  # fmt: skip

    def one_hot(texts: Sequence[str], *, instruction: str = "") -> Floats:
        return np.eye(len(each.corpus), dtype=np.float32)[[each.corpus.index(text) for text in texts]]

    result = retrieval(evaluate_sets(one_hot, [single]))

    assert (result.model.ndcg_at_10, result.model.recall_at_10) == (1.0, 1.0)
    assert all(example.first_relevant_rank == 1 for example in result.examples)
    assert all(example.retrieved[0].grade == 1.0 for example in result.examples)


def test_bm25_is_evaluated_with_the_model_unless_turned_off() -> None:
    each = retrieval_set()

    with_baseline = retrieval(evaluate_sets(embed, [each]))
    without = retrieval(evaluate_sets(embed, [each], with_bm25=False))

    # BM25 sees the subject's number, except if it has one digit only.
    assert with_baseline.bm25 is not None
    assert 0.3 < with_baseline.bm25.ndcg_at_10 < 1.0
    assert without.bm25 is None
    assert without.model == with_baseline.model


def test_examples_are_the_same_queries_for_any_model_and_limit() -> None:
    each = retrieval_set()

    def other(texts: Sequence[str], *, instruction: str = "") -> Floats:
        return embed([text[::-1] for text in texts], instruction=instruction)

    chosen = [
        [example.query_id for example in retrieval(report).examples]
        for report in (
            evaluate_sets(embed, [each]),
            evaluate_sets(other, [each]),
            evaluate_sets(embed, [each], max_queries=10),
        )
    ]

    assert len(chosen[0]) == module.EXAMPLES_PER_SET
    assert chosen[0] == chosen[1] == chosen[2]
    assert chosen[0] != each.query_ids[: module.EXAMPLES_PER_SET]


def test_an_example_shows_the_top_documents_with_score_and_grade() -> None:
    each = retrieval_set()

    example = retrieval(evaluate_sets(embed, [each])).examples[0]

    i = each.query_ids.index(example.query_id)
    scores = embed([each.queries[i]], instruction=each.instruction) @ embed(each.corpus).T
    ranking = sorted(zip(scores[0].tolist(), each.corpus_ids, strict=True), reverse=True)
    grades = each.qrels[example.query_id]
    assert example.query == each.queries[i]
    assert [(d.score, d.document_id) for d in example.retrieved] == ranking[:3]
    assert [d.grade for d in example.retrieved] == [grades.get(d.document_id, 0.0) for d in example.retrieved]
    assert [d.document_id for d in example.relevant] == [f"doc-{i}", f"doc-{i + 1}"]
    assert example.relevant[0].text == each.corpus[i]
    expected_rank = next(rank for rank, (_, document) in enumerate(ranking, start=1) if document in grades)
    assert example.first_relevant_rank == expected_rank


def test_the_query_limit_keeps_the_corpus_whole() -> None:
    result = retrieval(evaluate_sets(embed, [retrieval_set()], max_queries=4))

    assert (result.queries, result.documents, len(result.examples)) == (4, 80, 4)


def test_a_query_without_a_relevant_document_is_left_out() -> None:
    each = retrieval_set(queries=3)
    each.qrels["query-1"] = {"doc-0": 0.0}

    assert retrieval(evaluate_sets(embed, [each])).queries == 2


def test_a_set_without_any_relevant_document_is_refused_by_name() -> None:
    each = retrieval_set(queries=2)
    each.qrels.clear()

    with pytest.raises(DataError, match=r"'held-out': no query has a relevant document \(2 queries\)"):
        evaluate_sets(embed, [each])


def test_an_embedding_that_is_not_finite_is_named() -> None:
    def broken(texts: Sequence[str], *, instruction: str = "") -> Floats:
        embeddings = embed(texts, instruction=instruction)
        embeddings[[text == "document about subject 17" for text in texts]] = np.nan
        return embeddings

    with pytest.raises(ModelError, match=r"'held-out'.*document 'doc-17'"):
        evaluate_sets(broken, [retrieval_set()])


def test_sts_is_spearman_of_cosine_with_the_instruction_on_both_sides() -> None:
    angles = {"a": 0.0, "b": 0.3, "c": 0.9, "d": 1.4}

    def on_the_circle(texts: Sequence[str], *, instruction: str = "") -> Floats:
        assert instruction == "Compare."
        return np.array([[np.cos(angles[t]), np.sin(angles[t])] for t in texts], dtype=np.float32)

    same_order = StsSet("close", "Compare.", ["a", "a", "a"], ["b", "c", "d"], [5.0, 3.0, 0.5])
    constant = StsSet("flat", "Compare.", ["a", "a"], ["b", "c"], [1.0, 1.0])
    report = evaluate_sets(on_the_circle, [same_order, constant])

    assert [result.spearman for result in report.sts] == [pytest.approx(1.0), None]
    assert [result.pairs for result in report.sts] == [3, 2]


def test_progress_reaches_the_number_of_texts() -> None:
    calls: list[tuple[str, int, int]] = []

    evaluate_sets(
        embed,
        [retrieval_set(queries=3, documents=9), StsSet("pairs", "", ["a"], ["b"], [1.0])],
        progress=lambda name, done, total: calls.append((name, done, total)),
    )

    assert calls == [("held-out", 3, 12), ("held-out", 12, 12), ("pairs", 1, 2), ("pairs", 2, 2)]


def test_a_report_survives_json_and_evaluate_reads_a_data_sets_own_sets(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    manifest = Manifest((), [save_evaluation(store, each) for each in example_evaluations()])

    report = evaluate(embed, store, manifest, EvaluationSpec())

    assert [type(result) for result in report.sets] == [RetrievalResult, StsResult]
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report


def test_means_count_each_set_once() -> None:
    report = evaluate_sets(embed, [retrieval_set(queries=3), retrieval_set(queries=20)])

    each = [result.model.ndcg_at_10 for result in report.retrieval]
    assert report.mean_model is not None
    assert report.mean_model.ndcg_at_10 == pytest.approx(sum(each) / 2)
    assert EvaluationReport(sets=()).mean_model is None
