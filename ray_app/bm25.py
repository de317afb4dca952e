"""BM25 over the same texts, so that a reader can place a model's figure. The one door to bm25s."""

import logging
from collections.abc import Iterator, Sequence

import bm25s
import numpy as np
import numpy.typing as npt

from ray_app.retrieval_metrics import top_k

# bm25s logs at DEBUG whatever the application's level is.
logging.getLogger("bm25s").setLevel(logging.WARNING)


def bm25_rankings(corpus: Sequence[str], queries: Sequence[str], *, depth: int) -> Iterator[npt.NDArray[np.int64]]:
    """For every query the positions of at most `depth` documents, best first; of equal scores the earlier one first.

    Lucene's variant with k1 = 1.5 and b = 0.75; lower-cased words of two characters and more, without Lucene's English
    stop words, no stemming. A document that shares no word with the query is not retrieved at all.
    """
    document_words, query_words = _words(corpus), _words(queries)
    if not any(document_words):
        yield from (np.empty(0, dtype=np.int64) for _ in queries)
        return
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index(document_words, show_progress=False)
    for words in query_words:
        scores_N = index.get_scores_from_ids(index.get_tokens_ids(words))
        best = top_k(scores_N, depth)
        yield best[scores_N[best] > 0]


def _words(texts: Sequence[str]) -> list[list[str]]:
    words: list[list[str]] = bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
    return words
