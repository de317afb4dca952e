from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_io.curation.held_out import (
    SUBSTITUTES,
    HeldOut,
    HeldOutChoice,
    SplitCounts,
    SubstituteTexts,
    choose_held_out,
    retrieval_set,
    training_rows,
)
from data_io.dataset.schema import text_key
from data_io.dataset.writer import Row
from data_io.task import Kind

# Many rows with few distinct texts, so that rows share texts in every possible way.
texts = st.integers(0, 30).map(lambda i: f"text {i}")
rows_with_shared_texts = st.lists(
    st.builds(Row, texts, texts, st.lists(texts, min_size=2, max_size=3).map(tuple)), min_size=16, max_size=40
)
fractions = st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])


def many_rows(count: int, *, negatives: int = 0) -> list[Row]:
    return [Row(f"query {i}", f"answer {i}", tuple(f"wrong {i} {n}" for n in range(negatives))) for i in range(count)]


def kept_clean(rows: Sequence[Row], held_out: HeldOut, *, negatives: int, replace: bool) -> list[Row]:
    substitutes = [row.positive for row in rows] if replace else []
    return list(training_rows(rows, held_out, negatives=negatives, substitutes=substitutes))


@settings(max_examples=50)
@given(rows=rows_with_shared_texts, fraction=fractions, negatives=st.integers(1, 3), replace=st.booleans())
def test_training_and_held_out_rows_share_no_text(
    rows: list[Row], fraction: float, negatives: int, replace: bool
) -> None:
    held_out = choose_held_out(rows, fraction=fraction)

    train = kept_clean(rows, held_out, negatives=negatives, replace=replace)

    held_texts = {text for row in held_out.rows for text in (row.query, row.positive)}
    assert held_texts.isdisjoint(text for row in train for text in (row.query, row.positive, *row.negatives))


@settings(max_examples=50)
@given(rows=rows_with_shared_texts, fraction=fractions, replace=st.booleans())
def test_a_row_keeps_its_query_and_positive_and_enough_negatives(
    rows: list[Row], fraction: float, replace: bool
) -> None:
    held_out = choose_held_out(rows, fraction=fraction)

    train = kept_clean(rows, held_out, negatives=2, replace=replace)

    given_pairs = [(row.query, row.positive) for row in rows]
    assert all((row.query, row.positive) in given_pairs for row in train)
    assert all(len(row.negatives) >= 2 for row in train)


@settings(max_examples=50)
@given(rows=rows_with_shared_texts, fraction=fractions, limit=st.none() | st.integers(0, 10))
def test_all_rows_of_a_query_are_on_one_side(rows: list[Row], fraction: float, limit: int | None) -> None:
    held_out = choose_held_out(rows, fraction=fraction, max_queries=limit)

    held_queries = {row.query for row in held_out.rows}
    assert sorted(held_out.rows, key=repr) == sorted((row for row in rows if row.query in held_queries), key=repr)
    assert limit is None or len(held_queries) <= limit


@settings(max_examples=50)
@given(rows=rows_with_shared_texts, fraction=fractions, limit=st.none() | st.integers(0, 10), data=st.data())
def test_the_order_of_rows_does_not_matter(
    rows: list[Row], fraction: float, limit: int | None, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows))

    first, second = (choose_held_out(some, fraction=fraction, max_queries=limit) for some in (rows, shuffled))

    assert first.texts == second.texts


@settings(max_examples=50)
@given(rows=rows_with_shared_texts, more=rows_with_shared_texts)
def test_a_query_stays_on_its_side_when_rows_are_added(rows: list[Row], more: list[Row]) -> None:
    before = {row.query for row in choose_held_out(rows, fraction=0.4).rows}
    after = {row.query for row in choose_held_out(rows + more, fraction=0.4).rows}

    assert before == after & {row.query for row in rows}


def test_the_choice_never_changes() -> None:
    held_out = choose_held_out(many_rows(40), fraction=0.1)

    assert sorted(row.query for row in held_out.rows) == [
        "query 10",
        "query 23",
        "query 28",
        "query 31",
        "query 39",
        "query 4",
    ]


def test_about_the_given_fraction_is_held_out() -> None:
    held_out = choose_held_out(many_rows(4000), fraction=0.2)

    assert 700 < len(held_out.rows) < 900


def test_a_limit_keeps_the_same_queries_as_a_smaller_fraction() -> None:
    rows = many_rows(1000)

    limited = choose_held_out(rows, fraction=0.5, max_queries=20)

    larger = choose_held_out(rows, fraction=0.5, max_queries=40)
    assert len(limited.rows) == 20
    assert limited.texts < larger.texts < choose_held_out(rows, fraction=0.5).texts


@pytest.mark.parametrize("copy", ["A  Text\nwith lines ", "a text with lines", "\ta TEXT with\u00a0lines"])
def test_a_copy_with_other_case_and_white_space_is_the_same_text(copy: str) -> None:
    held_out = HeldOut((), frozenset([text_key("a text with lines")]))

    train = kept_clean(
        [Row(copy, "p"), Row("q", copy), Row("q", "p", ("n", copy))], held_out, negatives=1, replace=False
    )

    assert train == [Row("q", "p", ("n",))]


def test_rows_left_out_are_counted() -> None:
    held_out = HeldOut((), frozenset([text_key("secret")]))
    rows = [
        Row("secret", "p"),
        Row("q", "secret"),
        Row("q1", "p1", ("n", "secret")),
        Row("q2", "p2", ("n", "m", "secret")),
        Row("q3", "p3", ("n", "m")),
    ]
    counts = SplitCounts()

    train = list(training_rows(rows, held_out, negatives=2, counts=counts))

    assert [row.query for row in train] == ["q2", "q3"]
    assert counts == SplitCounts(kept=2, held_out=2, dropped=1, replaced_negatives=0)


def test_the_words_of_a_label_may_be_held_out_texts_of_another_source() -> None:
    held_out = HeldOut((), frozenset(map(text_key, ["yes", "is it?"])))
    rows = [Row("good", "yes", ("no",)), Row("bad", "no", ("yes",)), Row("is it?", "no", ("yes",))]

    train = list(training_rows(rows, held_out, negatives=1, kind=Kind.CLASSIFICATION))

    assert train == rows[:2]


def test_a_held_out_negative_is_replaced_by_the_answer_to_another_question() -> None:
    held_out = HeldOut((), frozenset([text_key("secret")]))
    rows = [*many_rows(50, negatives=2), Row("q", "p", ("n", "secret"), "rows.jsonl, line 51")]
    counts = SplitCounts()

    substitutes = ["secret", *(row.positive for row in rows[:50])]
    *_, last = training_rows(rows, held_out, negatives=2, substitutes=substitutes, counts=counts)

    assert (last.query, last.positive, last.place) == ("q", "p", "rows.jsonl, line 51")
    assert last.negatives[0] == "n"
    assert last.negatives[1] in {row.positive for row in rows[:50]}
    assert counts == SplitCounts(kept=51, replaced_negatives=1)


@given(rows=rows_with_shared_texts, fraction=fractions, limit=st.integers(0, 5) | st.none(), parts=st.integers(1, 5))
def test_parts_of_the_input_choose_the_same_rows_as_the_whole(
    rows: list[Row], fraction: float, limit: int | None, parts: int
) -> None:
    together = HeldOutChoice(fraction=fraction, max_queries=limit)

    for part in reversed(range(parts)):
        mine = choose_held_out(rows[part::parts], fraction=fraction, max_queries=limit)
        for row in mine.rows:
            together.add(row, rows.index(row))

    whole = choose_held_out(rows, fraction=fraction, max_queries=limit)
    assert together.result().texts == whole.texts
    assert sorted(map(repr, together.result().rows)) == sorted(map(repr, whole.rows))


def test_substitute_texts_do_not_depend_on_order_and_are_limited() -> None:
    texts = [f"text {i % 3000}" for i in range(4000)]
    one, other = SubstituteTexts(), SubstituteTexts()

    for text in texts:
        one.add(text)
    for text in reversed(texts):
        other.add(text)

    assert one.result() == other.result()
    assert len(set(one.result())) == SUBSTITUTES


def test_a_retrieval_set_has_some_queries_and_all_held_out_documents() -> None:
    rows = [Row("q", "a"), Row("q", "b"), Row("r", "b"), Row("s", "c")]
    held_out = choose_held_out(rows, fraction=1.0)

    some = retrieval_set("held-out", held_out, instruction="Find it.", max_queries=2)
    whole = retrieval_set("held-out", held_out, instruction="Find it.")

    documents = dict(zip(whole.corpus_ids, whole.corpus, strict=True))
    answers = {
        query: {documents[d] for d in whole.qrels[query_id]}
        for query_id, query in zip(whole.query_ids, whole.queries, strict=True)
    }
    assert answers == {"q": {"a", "b"}, "r": {"b"}, "s": {"c"}}
    assert len(some.queries) == len(some.qrels) == 2
    assert sorted(some.corpus) == sorted(whole.corpus) == ["a", "b", "c"]
