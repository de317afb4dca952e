"""The BM25 baseline, compared with the formula computed word by word."""

import math

import numpy as np
import pytest

from ray_app.evaluation.bm25 import bm25_rankings


def positions(corpus: list[str], queries: list[str], depth: int = 10) -> list[list[int]]:
    return [row.tolist() for row in bm25_rankings(corpus, queries, depth=depth)]


def slow_scores(corpus: list[list[str]], query: list[str]) -> list[float]:
    """Lucene's BM25 with k1 = 1.5, b = 0.75, from its definition."""
    mean_length = sum(map(len, corpus)) / len(corpus)
    scores = []
    for words in corpus:
        score = 0.0
        for word in query:
            holders = sum(word in other for other in corpus)
            rarity = math.log(1 + (len(corpus) - holders + 0.5) / (holders + 0.5))
            count = words.count(word)
            score += rarity * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(words) / mean_length))
        scores.append(score)
    return scores


def test_rankings_follow_the_formula() -> None:
    chance = np.random.default_rng(5)
    vocabulary = [f"word{i}" for i in range(30)]
    corpus = [list(chance.choice(vocabulary, size=chance.integers(3, 40))) for _ in range(60)]
    queries = [list(chance.choice(vocabulary, size=3, replace=False)) for _ in range(20)]

    found = positions([" ".join(words) for words in corpus], [" ".join(words) for words in queries], depth=60)

    for query, ranking in zip(queries, found, strict=True):
        scores = slow_scores(corpus, query)
        assert set(ranking) == {i for i, score in enumerate(scores) if score > 0}
        assert [scores[i] for i in ranking] == pytest.approx(
            sorted((s for s in scores if s > 0), reverse=True), abs=1e-5
        )


def test_case_and_stop_words_do_not_count() -> None:
    corpus = ["the of and", "Path segments are JOINED", "a directory"]

    assert positions(corpus, ["the path is joined", "the of and"]) == [[1], []]


def test_a_document_without_a_common_word_is_not_retrieved() -> None:
    assert positions(["one cat", "two dogs"], ["cat", "zebra", ""]) == [[0], [], []]


def test_equal_scores_keep_the_order_of_the_corpus() -> None:
    assert positions(["same words"] * 5, ["same"], depth=3) == [[0, 1, 2]]


def test_a_corpus_without_words_retrieves_nothing() -> None:
    assert positions(["the", "?!"], ["anything", "the"]) == [[], []]
