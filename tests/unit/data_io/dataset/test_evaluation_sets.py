from dataclasses import replace

import pytest

from data_io.dataset.evaluation_sets import RetrievalSet, StsSet, load_evaluation, save_evaluation
from data_io.dataset.manifest import load_manifest
from data_io.errors import DataError
from data_io.storage.store import Store, open_store
from tests.support.datasets import example_evaluations

RETRIEVAL, STS = (evaluation for evaluation in example_evaluations())
assert isinstance(RETRIEVAL, RetrievalSet)
assert isinstance(STS, StsSet)


@pytest.mark.parametrize("evaluation", [RETRIEVAL, STS], ids=["retrieval", "sts"])
def test_a_set_is_read_as_it_was_written(evaluation: RetrievalSet | StsSet) -> None:
    store = open_store("memory://evaluation")

    entry = save_evaluation(store, evaluation)

    assert load_evaluation(store, entry) == evaluation
    assert all(
        info.key.startswith(f"evaluation/{evaluation.name}/") for info in store.list(f"evaluation/{evaluation.name}")
    )


def test_the_entry_counts_and_describes() -> None:
    retrieval, sts = (save_evaluation(open_store("memory://counts"), e) for e in (RETRIEVAL, STS))

    assert (retrieval.type, retrieval.queries, retrieval.documents, retrieval.pairs) == ("retrieval", 2, 3, 0)
    assert (sts.type, sts.queries, sts.documents, sts.pairs) == ("sts", 0, 0, 2)
    assert (retrieval.instruction, retrieval.license, sts.origin) == ("Find the answer.", "CC0-1.0", "by hand")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": [], "corpus_ids": []}, "corpus: is empty"),
        ({"queries": ["a", " "]}, "queries, row 1: the text is blank"),
        ({"corpus": ["a", None, "c"]}, "corpus, row 1: the text is null"),
        ({"query_ids": ["q1"]}, "queries: 1 ids for 2 texts"),
        ({"corpus_ids": ["d1", "d2", "d2"]}, "corpus: repeated ids: 1"),
        ({"qrels": {"q1": {"d9": 1.0}, "q2": {"d2": 1.0}}}, "document 'd9' has a judgment but is not in the set"),
        ({"qrels": {"q1": {"d1": 1.0}, "q2": {"d2": 1.0}, "q3": {"d1": 1.0}}}, "query 'q3' has a judgment"),
        ({"qrels": {"q1": {"d1": 1.0}}}, "query 'q2' has no judged document"),
    ],
)
def test_an_unusable_retrieval_set_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        save_evaluation(open_store("memory://refused-set"), replace(RETRIEVAL, **changes))  # type: ignore[arg-type]

    assert "evaluation set 'held-out'" in caught.value.message
    assert message in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_a": [], "text_b": [], "scores": []}, "text_a: is empty"),
        ({"text_b": ["a", ""]}, "text_b, row 1: the text is blank"),
        ({"scores": [1.0]}, "2 first texts, 2 second texts and 1 scores"),
        ({"scores": [1.0, float("nan")]}, "row 1: score is nan"),
    ],
)
def test_an_unusable_sts_set_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        save_evaluation(open_store("memory://refused-pairs"), replace(STS, **changes))  # type: ignore[arg-type]

    assert message in caught.value.message


@pytest.mark.parametrize("part", ["corpus", "queries", "qrels"])
def test_damage_is_detected_before_an_evaluation(dataset: Store, part: str) -> None:
    entry = load_manifest(dataset).evaluation("held-out")
    key = entry.files[part].key
    whole = dataset.get(key)

    for data, message in (
        (whole[:-5], f"{key} has {len(whole) - 5} bytes, expected {len(whole)}"),
        (whole[:50] + bytes([whole[50] ^ 1]) + whole[51:], f"{key} is damaged"),
    ):
        dataset.put(key, data)
        with pytest.raises(DataError, match=message):
            load_evaluation(dataset, entry)
    dataset.delete([key])
    with pytest.raises(DataError, match=f"{key} is missing"):
        load_evaluation(dataset, entry)
