"""Records in the schema of each real data set, and the rows that its family makes from them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io.dataset.schema import text_key
from data_io.errors import DataError
from data_io.sources.catalog import public_source
from data_io.sources.clustering import Clusters
from data_io.sources.clustering_draws import cluster_examples
from data_io.sources.rows import PublicRows
from data_io.sources.source import Counts, Example

Record = dict[str, Any]
Triple = tuple[str, str, tuple[str, ...]]


def write(folder: Path, name: str, records: Sequence[Record], file: str = "train.jsonl") -> None:
    path = folder / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(records)), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))


def triples(folder: Path, name: str, counts: Counts | None = None) -> list[Triple]:
    rows = PublicRows(public_source(name), str(folder)).rows(Counts() if counts is None else counts)
    return [(row.query, row.positive, tuple(row.negatives)) for row in rows]


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        (
            "amazon_counterfactual",
            {"text": "I wish it were blue", "label": 1, "label_text": "counterfactual"},
            ("counterfactual", "not-counterfactual"),
        ),
        (
            "amazon_polarity",
            {"text": "Bad\n\nvery bad", "label": 0, "label_text": "negative"},
            ("negative", "positive"),
        ),
        ("imdb", {"text": "A fine film", "label": 1, "label_text": "positive"}, ("positive", "negative")),
        ("toxic_conversations", {"text": "You fool", "label": 1, "label_text": "toxic"}, ("toxic", "not toxic")),
        ("cola", {"sentence": "Him goes home.", "label": 0, "idx": 7}, ("unacceptable", "acceptable")),
    ],
)
@pytest.mark.parametrize("file", ["train.jsonl", "data/train-00000-of-00001.parquet"])
def test_a_binary_label_is_the_positive_and_the_other_one_the_negative(
    tmp_path: Path, name: str, record: Record, expected: tuple[str, str], file: str
) -> None:
    write(tmp_path, name, [record], file)

    rows = triples(tmp_path, name)

    assert rows == [(record.get("text", record.get("sentence")), expected[0], (expected[1],))]


def test_a_text_without_a_known_label_a_blank_one_and_a_copy_are_left_out_and_counted(tmp_path: Path) -> None:
    texts = [("good", 1), ("lost", None), ("hidden", -1), ("  ", 1), ("GOOD ", 1), ("bad", 0)]
    write(tmp_path, "imdb", [{"text": text, "label": label, "label_text": ""} for text, label in texts])
    counts = Counts()

    rows = triples(tmp_path, "imdb", counts)

    assert [row[0] for row in rows] == ["good", "bad"]
    assert counts == {"unknown label": 2, "blank text": 1, "repeated": 1}


NLI = [("A man sleeps.", "He rests.", 0), ("A man sleeps.", "He runs.", 2), ("A man sleeps.", "He dreams.", 1)]


@pytest.mark.parametrize(
    ("name", "more", "file"),
    [
        ("snli", {}, "plain_text/train-00000-of-00001.parquet"),
        ("mnli", {"promptID": 31193, "pairID": "31193n", "genre": "government"}, "data/train-00000-of-00001.parquet"),
        ("anli", {"uid": "0fd0", "reason": ""}, "plain_text/train_r1-00000-of-00001.parquet"),
    ],
)
def test_a_premise_is_the_query_an_entailed_hypothesis_the_positive_the_others_negatives(
    tmp_path: Path, name: str, more: Record, file: str
) -> None:
    other = [("A dog barks.", "It is silent.", 2), ("A cat purrs.", "It purrs.", -1), ("A bird.", "It sings.", 1)]
    records = [{"premise": p, "hypothesis": h, "label": label, **more} for p, h, label in [NLI[0], *other, *NLI[1:]]]
    write(tmp_path, name, records, file)
    counts = Counts()

    rows = triples(tmp_path, name, counts)

    assert rows == [("A man sleeps.", "He rests.", ("He runs.", "He dreams."))]
    assert counts == {"no entailed hypothesis": 2, "unknown label": 1}


def test_of_several_entailed_hypotheses_one_is_the_positive_and_none_a_negative(tmp_path: Path) -> None:
    hypotheses = [("He rests.", 0), ("He is asleep.", 0), ("He is asleep.", 2), ("", 1)]
    write(tmp_path, "snli", [{"premise": "A man sleeps.", "hypothesis": h, "label": label} for h, label in hypotheses])

    assert triples(tmp_path, "snli") == [("A man sleeps.", "He rests.", ())]


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        (
            "arguana",
            {"_id": "d1", "title": "Zoos", "text": "Zoos save species.", "query": "are zoos bad"},
            ("are zoos bad", "Zoos\nZoos save species."),
        ),
        (
            "paq",
            {"query": "who wrote it", "answer": "A passage of Wikipedia."},
            ("who wrote it", "A passage of Wikipedia."),
        ),
        (
            "squad",
            {"id": "5", "title": "T", "context": "It is tall.", "question": "Is it?", "answers": {"text": ["tall"]}},
            ("Is it?", "It is tall."),
        ),
        (
            "natural_questions",
            {"query": "when did it end", "answer": "It ended in 1945."},
            ("when did it end", "It ended in 1945."),
        ),
        (
            "stackexchange",
            {"title_body": "How? Like this or that?", "upvoted_answer": "Like this."},
            ("How? Like this or that?", "Like this."),
        ),
        (
            "eli5",
            {
                "q_id": "5l",
                "title": "Why?",
                "selftext": "",
                "document": "",
                "subreddit": "explainlikeimfive",
                "answers": {"a_id": ["a", "b"], "text": ["Because.", "So."], "score": [2, 9]},
            },
            ("Why?", "So."),
        ),
        (
            "bioasq",
            {"_id": "1", "title": "Genes", "text": "They act.", "query": "what do genes do"},
            ("what do genes do", "Genes\nThey act."),
        ),
        (
            "pubmedqa",
            {
                "pubid": 1,
                "question": "Does it?",
                "context": {"contexts": ["We tried.", "We saw."], "labels": ["A", "B"], "meshes": []},
                "long_answer": "It does.",
                "final_decision": "yes",
            },
            ("Does it?", "We tried.\nWe saw."),
        ),
        (
            "amazon_qa",
            {"questionText": "Does it fit?", "answers": [{"answerText": "Yes.", "helpful": [0, 0]}], "asin": "B0"},
            ("Does it fit?", "Yes."),
        ),
        ("xsum", {"document": "A long text.", "summary": "Short.", "id": "3"}, ("Short.", "A long text.")),
        ("cnn_dm", {"article": "A long text.", "highlights": "Short.", "id": "3"}, ("Short.", "A long text.")),
        ("sentence_compression", {"text": "A long text.", "simplified": "Short."}, ("Short.", "A long text.")),
        ("s2orc_title_abstract", {"title": "On it", "abstract": "We show it."}, ("On it", "We show it.")),
        ("s2orc_title_citation", {"title": "On it", "citation": "On that"}, ("On it", "On that")),
        ("s2orc_abstract_citation", {"abstract": "We show.", "citation": "They show."}, ("We show.", "They show.")),
        ("stackexchangedupquestions_s2s", {"title1": "How to", "title2": "How do I"}, ("How to", "How do I")),
        ("stackexchangedupquestions_p2p", {"post1": "How\nthis", "post2": "How\nthat"}, ("How\nthis", "How\nthat")),
    ],
)
def test_a_record_of_a_question_a_summary_or_a_title_is_a_pair(
    tmp_path: Path, name: str, record: Record, expected: tuple[str, str]
) -> None:
    blank = {field: ("" if isinstance(value, str) else value) for field, value in record.items()}
    write(tmp_path, name, [record, blank])

    assert triples(tmp_path, name) == [(*expected, ())]


@pytest.mark.parametrize("name", ["triviaqa", "specter", "coliee"])
def test_a_triplet_keeps_its_negative(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, [{"anchor": "a", "positive": "p", "negative": "n"}])

    assert triples(tmp_path, name) == [("a", "p", ("n",))]


def test_duplicate_questions_are_pairs_in_both_directions_and_others_are_none(tmp_path: Path) -> None:
    questions = [("How?", "In what way?", 1), ("Who?", "When?", 0)]
    write(tmp_path, "qqp", [{"question1": a, "question2": b, "label": n, "idx": 0} for a, b, n in questions])

    assert triples(tmp_path, "qqp") == [("How?", "In what way?", ()), ("In what way?", "How?", ())]


def test_each_duplicate_of_a_question_is_a_row_and_the_others_are_its_negatives(tmp_path: Path) -> None:
    record = {"query": "q", "positive": ["p1", "p2"], "negative": ["n1", "p1", "", "n2"]}
    write(tmp_path, "stackoverflowdupquestions", [record, {"query": "x", "positive": [], "negative": ["n"]}])

    rows = triples(tmp_path, "stackoverflowdupquestions")

    # A text that is both a correct and a wrong answer is not a negative of itself.
    assert rows == [("q", "p1", ("n1", "n2")), ("q", "p2", ("n1", "p1", "n2"))]


def test_passages_that_were_judged_not_to_answer_are_negatives(tmp_path: Path) -> None:
    passages = [{"docid": f"{n}#0", "title": f"T{n}", "text": f"text {n}"} for n in range(3)]
    record = {"query_id": "1", "query": "q", "positive_passages": passages[:1], "negative_passages": passages[1:]}
    write(tmp_path, "miracl", [record, {**record, "query": "unanswered", "positive_passages": []}])

    assert triples(tmp_path, "miracl") == [("q", "T0\ntext 0", ("T1\ntext 1", "T2\ntext 2"))]


@pytest.mark.parametrize("name", ["sts12", "sts22", "stsbenchmark"])
def test_pairs_of_a_score_of_4_and_above_are_rows_in_both_directions(tmp_path: Path, name: str) -> None:
    scored = [("a", "b", 4.0), ("c", "d", 3.999), ("e", "f", None), ("g", "g", 5.0)]
    write(tmp_path, name, [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in scored])
    counts = Counts()

    assert triples(tmp_path, name, counts) == [("a", "b", ()), ("b", "a", ())]
    assert counts == {"score below 4": 2, "positive equals the query": 2}


@pytest.mark.parametrize("name", ["msmarco", "hotpotqa", "fever", "fiqa", "scifact"])
def test_judgments_join_queries_and_corpus(tmp_path: Path, name: str) -> None:
    write_judged(tmp_path, name)

    rows = triples(tmp_path, name)

    assert rows == [("what?", "A\nthis", ()), ("what?", "that", ()), ("who?", "A\nthis", ())]


def test_of_a_query_with_many_graded_documents_the_best_one_is_kept(tmp_path: Path) -> None:
    write_judged(tmp_path, "nfcorpus")

    assert triples(tmp_path, "nfcorpus") == [("what?", "that", ()), ("who?", "A\nthis", ())]


def test_judgments_are_those_of_the_training_split(tmp_path: Path) -> None:
    write_judged(tmp_path, "scifact")
    write(tmp_path, "scifact", [{"query-id": "q2", "corpus-id": "d2", "score": 1}], "qrels/test.jsonl")

    assert ("who?", "that", ()) not in triples(tmp_path, "scifact")


def test_a_judged_set_with_a_configuration_for_each_table_is_joined_too(tmp_path: Path) -> None:
    write_judged(
        tmp_path, "mrtidy", ("english-corpus/train.jsonl", "english-queries/train.jsonl"), "english-qrels/train.jsonl"
    )

    assert len(triples(tmp_path, "mrtidy")) == 3


def write_judged(
    folder: Path,
    name: str,
    texts: tuple[str, str] = ("corpus.jsonl", "queries.jsonl"),
    qrels: str = "qrels/train.jsonl",
) -> None:
    corpus = [("d1", "A", "this"), ("d2", "", "that"), ("d3", "", "unread")]
    write(folder, name, [{"_id": i, "title": title, "text": text} for i, title, text in corpus], texts[0])
    write(folder, name, [{"_id": i, "text": text} for i, text in [("q1", "what?"), ("q2", "who?")]], texts[1])
    judged = [("q1", "d1", 1), ("q1", "d2", 2), ("q2", "d1", 1), ("q2", "d2", 0), ("q2", "gone", 1)]
    judged = judged if name != "nfcorpus" else judged[:4]
    write(folder, name, [{"query-id": q, "corpus-id": d, "score": s} for q, d, s in judged], qrels)


def paper(number: int, **category: str) -> Record:
    return {"title": f"T{number}", "abstract": f"a {number}", **category}


CLUSTERED = [
    ("banking77", {}, "label"),
    ("amazon_reviews", {"id": "en_1"}, "label"),
    ("emotion", {}, "label"),
    ("mtop_intent", {"id": 1}, "label"),
    ("massive_scenario", {"id": "1"}, "label"),
    ("tweet_sentiment_extraction", {"id": "cb"}, "label"),
    ("twentynewsgroups", {}, "label"),
]


@pytest.mark.parametrize(("name", "more", "label"), CLUSTERED)
def test_a_positive_is_of_the_same_class_and_24_negatives_are_of_others(
    tmp_path: Path, name: str, more: Record, label: str
) -> None:
    records = [
        {"text": f"text {n} of {c}", label: c, "label_text": str(c), **more} for c in range(4) for n in range(20)
    ]
    write(tmp_path, name, records)

    rows = triples(tmp_path, name)

    assert len(rows) == 80
    for query, positive, negatives in rows:
        mine = query.split()[-1]
        assert positive.split()[-1] == mine
        assert positive != query
        assert len(set(negatives)) == 24
        assert mine not in {negative.split()[-1] for negative in negatives}


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("arxiv_clustering_p2p", lambda n: paper(n, categories="hep-ph cs.AI" if n % 2 else "cs.AI"), "T0\na 0"),
        ("arxiv_clustering_s2s", lambda n: paper(n, categories="hep-ph" if n % 2 else "cs.AI hep-ph"), "T0"),
        ("biorxiv_clustering_p2p", lambda n: paper(n, category=f"c{n % 2}"), "T0\na 0"),
        ("biorxiv_clustering_s2s", lambda n: paper(n, category=f"c{n % 2}"), "T0"),
        ("medrxiv_clustering_p2p", lambda n: paper(n, category=f"c{n % 2}"), "T0\na 0"),
        ("medrxiv_clustering_s2s", lambda n: paper(n, category=f"c{n % 2}"), "T0"),
        ("reddit_clustering_p2p", lambda n: {"title": f"T{n}", "body": f"b {n}", "subreddit": f"s{n % 2}"}, "T0\nb 0"),
    ],
)  # fmt: skip
def test_papers_and_posts_are_clustered_by_their_category(tmp_path: Path, name: str, make: Any, expected: str) -> None:
    write(tmp_path, name, [make(n) for n in range(60)])

    rows = triples(tmp_path, name)

    def parity(text: str) -> int:
        return int(text.partition("\n")[0][1:]) % 2

    assert len(rows) == 60
    assert rows[0][0] == expected
    for query, positive, negatives in rows:
        assert parity(query) == parity(positive)
        assert {parity(negative) for negative in negatives} == {1 - parity(query)}


@pytest.mark.parametrize("name", ["reddit_clustering_s2s", "stackexchange_clustering_s2s"])
def test_a_line_of_a_text_file_is_a_text_of_the_class_that_the_file_is_named_after(tmp_path: Path, name: str) -> None:
    for topic in ("Python", "Art"):
        path = tmp_path / name / "data" / "train" / f"{topic}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{topic} question {n}\n" for n in range(30)) + "\n", encoding="utf-8-sig")

    rows = triples(tmp_path, name)

    assert len(rows) == 60
    assert all(row[0].split()[0] == row[1].split()[0] != row[2][0].split()[0] for row in rows)


def test_a_file_of_json_lines_may_be_a_class_too(tmp_path: Path) -> None:
    for site in ("math", "cooking"):
        records = [{"texts": [f"{site} title {n}", f"body {n}"], "tags": [], "meta": {}} for n in range(30)]
        write(tmp_path, "stackexchange_clustering_p2p", records, f"{site}.stackexchange.com.jsonl")

    rows = triples(tmp_path, "stackexchange_clustering_p2p")

    assert len(rows) == 60
    assert rows[0][0] == "cooking title 0\nbody 0"
    assert all(row[0].split()[0] == row[1].split()[0] != row[2][0].split()[0] for row in rows)


def test_a_text_alone_in_its_class_and_one_without_enough_others_are_left_out(tmp_path: Path) -> None:
    few = [{"text": f"few {n}", "label": 0} for n in range(5)]
    many = [{"text": f"many {n}", "label": 1} for n in range(40)]
    unlabeled = [{"text": "unlabeled", "label": None}, {"text": "", "label": 1}]
    write(tmp_path, "banking77", [*few, *many, {"text": "alone", "label": 2}, *unlabeled])
    counts = Counts()

    rows = triples(tmp_path, "banking77", counts)

    assert {row[0].split()[0] for row in rows} == {"few"}
    assert counts == {
        "only text of its class": 1,
        "too few texts of other classes": 40,
        "unknown label": 1,
        "blank text": 1,
    }


def clustered(texts: Sequence[tuple[str, int]], **options: int) -> set[Example]:
    records = [("", {"text": text, "label": label}) for text, label in texts]
    shape = Clusters(("text",), "label", negatives=3)
    return set(cluster_examples(shape, {"rows": records}, Counts(), **options))


@given(st.permutations([(f"text {n}", n % 3) for n in range(30)] + [("Text 3", 0), ("text 4", 2)]))
def test_draws_do_not_depend_on_the_order_of_the_records(shuffled: list[tuple[str, int]]) -> None:
    in_order = sorted(shuffled)

    assert clustered(shuffled) == clustered(in_order)
    assert clustered(shuffled, largest_sample=9) == clustered(in_order, largest_sample=9)


def test_draws_follow_from_the_seed_and_no_more_texts_are_held_than_allowed() -> None:
    texts = [(f"text {n}", n % 3) for n in range(300)]

    drawn = clustered(texts, largest_sample=12)

    assert clustered(texts) == clustered(texts)
    assert clustered(texts) != clustered(texts, seed=1)
    assert len(drawn) == 300
    used = {text_key(text) for example in drawn for text in (example.positive, *example.negatives)}
    assert len(used) <= 12


def test_a_record_in_another_schema_is_refused_with_its_place_and_fields(tmp_path: Path) -> None:
    write(tmp_path, "squad", [{"query": "q", "passage": "p"}])

    with pytest.raises(DataError) as caught:
        triples(tmp_path, "squad")

    assert "train.jsonl, line 1: no field 'question'; the record has query, passage" in caught.value.message
    assert "--revision" in str(caught.value.remedy)


def test_texts_that_cannot_be_stored_are_left_out_and_counted(tmp_path: Path) -> None:
    records = [{"query": "long", "answer": "x" * (4 * 2**20 + 1)}, {"query": "odd \ud800", "answer": "a"}]
    write(tmp_path, "paq", [*records, {"query": "q", "answer": "a"}])
    counts = Counts()

    assert triples(tmp_path, "paq", counts) == [("q", "a", ())]
    assert counts == {"text too long to store, or not Unicode": 2}
