"""Copies of evaluation texts in training data, on real text: the paragraphs of this project's own documentation."""

import json
import re
from pathlib import Path

import pytest

from data_io.data_spec import S3Options
from data_io.dataset.manifest import SourceInfo, load_manifest
from data_io.dataset.writer import Row, write_dataset
from data_io.errors import DataError
from data_io.inspection.contamination import find_contamination, jaccard, shingles
from data_io.inspection.contamination_report import ContaminationReport, NearRule
from data_io.inspection.evaluation_texts import EvaluationTexts, read_evaluations
from data_io.keyed_hash import mix
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from jobs.cli.app import call
from tests.support.datasets import write_example


@pytest.fixture(scope="module")
def paragraphs() -> list[str]:
    """Distinct sentences and cells of 60 to 400 characters."""
    pages = sorted((Path(__file__).parents[4] / "docs").rglob("*.md"))
    parts = [" ".join(part.split()) for page in pages for part in re.split(r"\n\n|\n\||(?<=[.;]) ", page.read_text())]
    return list(dict.fromkeys(part for part in parts if 60 <= len(part) <= 400))


def with_words_changed(text: str, number: int, words: int) -> str:
    """Replace this number of words of a text, each by another, at places that depend on `number`."""
    pieces = text.split()
    for k in range(words):
        pieces[mix(number, k) % len(pieces)] = f"w{number}x{k}"
    return " ".join(pieces)


def dataset(folder: Path, rows: list[Row], kind: Kind = Kind.RETRIEVAL) -> Store:
    store = open_store(str(folder))
    write_dataset(store, [(SourceInfo(name="docs", kind=kind, negatives=0), rows)], [], rows_per_group=64)
    return store


def find(store: Store, texts: list[str], rule: NearRule | None = None) -> ContaminationReport:
    return find_contamination(store, [EvaluationTexts("exam", texts)], rule=rule)


def normal(text: str) -> str:
    return " ".join(text.casefold().split())


def test_exact_copies_equal_those_of_a_slow_comparison(paragraphs: list[str], tmp_path: Path) -> None:
    exam, others = paragraphs[::3], [p for i, p in enumerate(paragraphs) if i % 3]
    rows = [Row(text, f"the answer to number {i}", []) for i, text in enumerate(others)]
    rows += [Row(f" {text.upper()}\n", others[i], []) for i, text in enumerate(exam[:40])]
    rows += [Row(f"what says number {i}?", text.replace(" ", "  "), []) for i, text in enumerate(exam[20:70])]
    store = dataset(tmp_path / "data", rows)

    (overlap,) = find(store, exam, NearRule(threshold=1.0)).overlaps

    known = {normal(text) for text in exam}
    assert overlap.counts.exact_query == sum(normal(row.query) in known for row in rows) == 40
    assert overlap.counts.exact_positive == sum(normal(row.positive) in known for row in rows) == 50
    assert overlap.evaluation_texts == 70
    assert overlap.counts.rows == 90


def test_near_copies_are_found_with_the_recall_of_the_rule_and_nothing_else_is_reported(
    paragraphs: list[str], tmp_path: Path
) -> None:
    rule = NearRule()
    exam = paragraphs[::3]
    planted = [(text, with_words_changed(text, i, 1 + i % 3)) for i, text in enumerate(exam)]
    above = [pair for pair in planted if jaccard(*(shingles(text, rule.shingle) for text in pair)) >= rule.threshold]
    store = dataset(tmp_path / "data", [Row(f"number {i}?", copy, []) for i, (_, copy) in enumerate(planted)])

    (overlap,) = find(store, exam, rule).overlaps

    # Compare every copy with every text: all pairs above the threshold, whichever text the copy is near to.
    sets = [shingles(text, rule.shingle) for text in exam]
    near = sum(any(jaccard(shingles(copy, rule.shingle), of) >= rule.threshold for of in sets) for _, copy in planted)
    assert len(above) > 50
    assert near < len(planted)
    assert rule.recall > 0.99
    assert near * rule.recall - 3 <= overlap.counts.near_positive <= near
    assert overlap.counts.exact_positive == 0
    assert all(match.similarity >= rule.threshold for match in overlap.samples)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("permutations", [64, 128, 256])
def test_a_pair_at_the_threshold_is_found_with_probability_0_99(threshold: float, permutations: int) -> None:
    rule = NearRule(threshold=threshold, permutations=permutations)
    bands, rows = rule.bands

    assert bands * rows <= permutations
    assert rule.recall == pytest.approx(1 - (1 - threshold**rows) ** bands)
    assert rule.recall >= 0.99


def test_a_classifications_positive_is_a_label_and_is_not_compared(tmp_path: Path) -> None:
    rows = [Row(f"how was number {i}?", "very good indeed", ["very bad indeed"]) for i in range(20)]
    store = open_store(str(tmp_path))
    source = SourceInfo(name="labels", kind=Kind.CLASSIFICATION, negatives=1)
    write_dataset(store, [(source, rows)], [], rows_per_group=16)

    report = find(store, ["very good indeed", "how was number 3?"])

    (overlap,) = report.overlaps
    assert overlap.counts.exact_query == 1
    assert overlap.counts.exact_positive == overlap.counts.near_positive == 0


def test_a_sample_is_spread_over_a_source_and_reported(paragraphs: list[str], tmp_path: Path) -> None:
    store = dataset(tmp_path, [Row(text, f"the answer {i}", []) for i, text in enumerate(paragraphs)])

    report = find_contamination(store, [EvaluationTexts("exam", paragraphs)], rows_per_source=128)

    assert report.sources[0].rows == len(paragraphs)
    assert 64 <= report.sources[0].rows_read <= 192
    assert report.sources[0].rows_met == report.sources[0].rows_read


def test_evaluations_are_the_data_sets_own_a_users_file_or_a_task_and_of_a_corpus_only_answers_count(
    tmp_path: Path,
) -> None:
    store = open_store(str(tmp_path / "data"))
    manifest = write_example(store)
    (tmp_path / "texts.txt").write_text("one text\nanother text\n")
    (tmp_path / "faq.jsonl").write_text(json.dumps({"query": "who?", "positive": "me", "negative_1": "not me"}) + "\n")

    found = read_evaluations(
        store,
        manifest,
        ["held-out", f"faq:retrieval={tmp_path}/faq.jsonl"],
        [str(tmp_path / "texts.txt")],
        s3=S3Options(),
        say=lambda text: None,
    )

    held_out, pairs, faq, texts = found
    assert list(held_out.texts) == [
        "the first question", "the second question", "the first answer", "the second answer", "no answer",
    ]  # fmt: skip
    assert [each.name for each in found] == ["held-out", "pairs", "faq", str(tmp_path / "texts.txt")]
    assert list(pairs.texts) == ["a cat", "a dog", "a kitten", "a house"]
    assert list(faq.texts) == ["who?", "me"]
    assert [text.strip() for text in texts.texts] == ["one text", "another text"]


def test_an_evaluation_without_texts_is_refused_by_its_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    write_example(store)
    (tmp_path / "blank.txt").write_text("\n \n")

    with pytest.raises(DataError, match=r"blank\.txt has no text to look for"):
        read_evaluations(
            store, load_manifest(store), [], [str(tmp_path / "blank.txt")], s3=S3Options(), say=lambda text: None
        )


def test_the_command_reports_copies_and_their_places_as_text_and_json(
    paragraphs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    near = with_words_changed(paragraphs[0] + " " + paragraphs[1], 1, 1)
    rows = [Row("a question", near, []), Row("another question", paragraphs[2], []), Row("a third", "no copy", [])]
    store = dataset(tmp_path / "data", rows)
    (tmp_path / "exam.txt").write_text(f"{paragraphs[0]} {paragraphs[1]}\n{paragraphs[2]}\n")

    code = call(["data", "contamination", store.uri, "--texts", f"{tmp_path}/exam.txt"])
    said = capsys.readouterr().out
    call(["data", "contamination", store.uri, "--texts", f"{tmp_path}/exam.txt", "--json"])
    answer = json.loads(capsys.readouterr().out)

    assert code == 0
    assert "2 of 3 rows read contain an exact or near copy of an evaluation text (66.67%)" in said
    assert f"  training:   {near[:100]}" in said
    assert answer["overlaps"][0]["counts"] == {
        "exact_query": 0, "exact_positive": 1, "near_query": 0, "near_positive": 1, "rows": 2,
    }  # fmt: skip
    assert answer["evaluations"] == [{"name": f"{tmp_path}/exam.txt", "texts": 2, "exact": 1, "near": 1}]
    assert answer["rule"]["recall"] > 0.99
