"""A user's files as tasks: the content of each kind, and the errors for unsuitable files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_io.dataset.evaluation_sets import RetrievalSet
from data_io.errors import ConfigError, DataError
from data_io.evaluation.own_sets import LabeledSet, PairSet, RerankingSet, content_hash, read_own
from data_io.evaluation.task import OwnTask, TaskKind, parse_task


def task(tmp_path: Path, kind: TaskKind, columns: Mapping[str, Sequence[object]], name: str = "mine") -> OwnTask:
    path = tmp_path / f"{name}.parquet"
    pq.write_table(pa.table({column: list(values) for column, values in columns.items()}), path)
    return OwnTask(name, kind, str(path))


def test_a_line_names_a_task_its_kind_and_its_file() -> None:
    assert parse_task("faq:pair-classification=s3://bucket/a=b.parquet") == OwnTask(
        "faq", TaskKind.PAIR_CLASSIFICATION, "s3://bucket/a=b.parquet"
    )
    assert parse_task("MTEB(eng, v2)") == "MTEB(eng, v2)"


@pytest.mark.parametrize("text", ["faq=f.parquet", "faq:answers=f.parquet", "a b:sts=f", "../x:sts=f", "faq:sts="])
def test_a_line_that_is_not_a_task_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_task(text)

    assert "NAME:KIND=PATH" in caught.value.message
    assert "pair-classification" in caught.value.message


def test_a_corpus_is_every_distinct_positive_and_negative_and_a_query_has_all_its_answers(tmp_path: Path) -> None:
    columns = {"query": ["q", "q", "r"], "positive": ["a", "b", "a"], "negative_1": ["c", "c", "b"]}

    found = read_own(task(tmp_path, TaskKind.RETRIEVAL, columns))

    assert isinstance(found, RetrievalSet)
    assert (found.corpus, found.queries) == (["a", "c", "b"], ["q", "r"])
    assert found.qrels == {"q0": {"d0": 1.0, "d2": 1.0}, "q1": {"d0": 1.0}}


def test_a_querys_candidates_are_its_own_and_an_answer_is_never_a_wrong_one(tmp_path: Path) -> None:
    columns = {"query": ["q", "r"], "positive": [["a", "b"], ["c"]], "negatives": [["b", "x"], ["y", "y"]]}

    found = read_own(task(tmp_path, TaskKind.RERANKING, columns))

    assert found == RerankingSet("mine", ["q", "r"], [["a", "b"], ["c"]], [["x"], ["y"]])


def test_a_query_without_a_wrong_candidate_cannot_be_ranked(tmp_path: Path) -> None:
    columns = {"query": ["q"], "positive": ["a"], "negatives": [["a"]]}

    with pytest.raises(DataError, match="the query 'q' has no wrong candidate"):
        read_own(task(tmp_path, TaskKind.RERANKING, columns))


def test_the_split_of_a_text_does_not_depend_on_other_texts(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(60)]
    labels = [i % 2 for i in range(60)]
    some = {"text": texts[:40], "label": labels[:40]}

    few = read_own(task(tmp_path, TaskKind.CLASSIFICATION, some, "few"))
    all_ = read_own(task(tmp_path, TaskKind.CLASSIFICATION, {"text": texts, "label": labels}, "all"))

    assert isinstance(few, LabeledSet)
    assert isinstance(all_, LabeledSet)
    assert all_.splits[:40] == few.splits
    assert 10 < few.splits.count("train") < 30
    assert few.labels[:3] == ["0", "1", "0"]


def test_a_files_own_split_is_kept(tmp_path: Path) -> None:
    columns = {"text": ["a", "b", "c"], "category": ["x", "y", "x"], "split": ["train", "train", "test"]}

    found = read_own(task(tmp_path, TaskKind.CLASSIFICATION, columns))

    assert found == LabeledSet("mine", ["a", "b", "c"], ["x", "y", "x"], ["train", "train", "test"])


def test_pairs_have_two_labels(tmp_path: Path) -> None:
    columns = {"sentence1": ["a", "b"], "sentence2": ["A", "c"], "label": [1, 0]}

    found = read_own(task(tmp_path, TaskKind.PAIR_CLASSIFICATION, columns))

    assert found == PairSet("mine", ["a", "b"], ["A", "c"], [1, 0])


def test_scored_pairs_are_read_from_json_lines_too(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": 0.5}, {"sentence1": "c", "sentence2": "d", "score": 4}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    found = read_own(OwnTask("pairs", TaskKind.STS, str(tmp_path / "pairs.jsonl")))

    assert getattr(found, "scores", None) == [0.5, 4.0]


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [
        (TaskKind.CLUSTERING, {"words": ["a"], "label": ["x"]}, "has no text column: found words, label"),
        (TaskKind.CLUSTERING, {"text": ["a", "b"], "label": ["x", "x"]}, "all 2 texts have the label 'x'"),
        (TaskKind.CLUSTERING, {"text": ["a", " "], "label": ["x", "y"]}, "row 2: a text is blank"),
        (TaskKind.CLUSTERING, {"text": ["a", "b"], "label": ["x", None]}, "row 2: the label is None"),
        (TaskKind.CLASSIFICATION, {"text": ["a"], "label": ["x"], "split": ["dev"]}, "row 1: split is 'dev'"),
        (
            TaskKind.CLASSIFICATION,
            {"text": ["a", "b"], "label": ["x", "y"], "split": ["train", "test"]},
            "label 'y' has no text to train the classifier on",
        ),
        (
            TaskKind.CLASSIFICATION,
            {"text": ["a", "b"], "label": ["x", "y"], "split": ["train", "train"]},
            "no text is left to test on",
        ),
        (TaskKind.RETRIEVAL, {"query": ["q"], "text": ["a"]}, "has no positive column"),
        (TaskKind.RETRIEVAL, {"query": ["q"], "positive": [""]}, "row 1: a text is blank"),
        (TaskKind.STS, {"sentence1": ["a"], "sentence2": ["b"]}, "has no score column"),
        (
            TaskKind.PAIR_CLASSIFICATION,
            {"sentence1": ["a"], "sentence2": ["b"], "label": [3]},
            "row 1: the label is 3; expected 1",
        ),
        (
            TaskKind.PAIR_CLASSIFICATION,
            {"sentence1": ["a"], "sentence2": ["b"], "label": [1]},
            "every pair has the label 1",
        ),
    ],
)
def test_an_unusable_file_is_named_with_its_row(
    tmp_path: Path, kind: TaskKind, columns: Mapping[str, Sequence[object]], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_own(task(tmp_path, kind, columns))

    assert "mine.parquet" in caught.value.message
    assert message in caught.value.message
    assert "SOURCES.yaml" not in (caught.value.remedy or "SOURCES.yaml")


def test_another_text_is_another_task_and_the_same_texts_elsewhere_are_the_same(tmp_path: Path) -> None:
    pairs = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1.0, 2.0]}
    (tmp_path / "elsewhere").mkdir()
    first = task(tmp_path, TaskKind.STS, pairs)
    same = task(tmp_path / "elsewhere", TaskKind.STS, pairs)
    other = task(tmp_path, TaskKind.STS, pairs | {"sentence1": ["a", "e"]}, "other")

    hashes = [content_hash(read_own(OwnTask("mine", TaskKind.STS, each.address))) for each in (first, same, other)]

    assert hashes[0] == hashes[1] != hashes[2]
