"""Hard negatives by BM25: documents that share words with the query and are not its answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_io.dataset.schema import text_key
from data_io.errors import DataError

MAX_DOCUMENTS = 100_000
"""Every query is scored against every document: beyond this, mining takes hours and belongs to an embedding model."""


def mine_negatives(
    queries: Sequence[str], positives: Sequence[str], *, negatives: int, relative_margin: float = 0.05
) -> list[list[str]]:
    """For each of N queries up to `negatives` of the N positives, the highest BM25 scores first.

    A document that scores above (1 - relative_margin) of the query's own positive is taken for another answer and left
    out, as in the recipe's mining (arXiv 2510.02294, section 2); without that, words that query and answer share would
    speak against the answer. A query's own positive and query text, and copies of them, are never among its negatives;
    positives of rows with the same query neither. Fewer come back only where there are not enough other documents. The
    result depends on the texts and their order alone. Raises DataError for more than `MAX_DOCUMENTS` documents or where
    bm25s is not installed.
    """
    documents = list(dict.fromkeys(positives))
    if len(documents) > MAX_DOCUMENTS:
        raise DataError(
            f"lexical mining over {len(documents)} documents is too slow; at most {MAX_DOCUMENTS} are taken",
            remedy="mine with an embedding model and give the negatives in the files, or split the source",
        )
    document_keys = [text_key(document) for document in documents]
    answers: dict[int, set[int]] = {}
    for query, positive in zip(queries, positives, strict=True):
        answers.setdefault(text_key(query), {text_key(query)}).add(text_key(positive))
    # As many of the best as are certain to hold enough when every answer of the query is among them.
    wanted = negatives + max(map(len, answers.values()), default=0)
    mined = []
    place = {document: index for index, document in enumerate(documents)}
    own = [place[positive] for positive in positives]
    for query, ranked in zip(queries, _rank(queries, documents, own, wanted, 1 - relative_margin), strict=True):
        taken = set(answers[text_key(query)])
        found: list[str] = []
        for index in ranked:
            if document_keys[index] not in taken and len(found) < negatives:
                taken.add(document_keys[index])
                found.append(documents[index])
        mined.append(found)
    return mined


def _rank(
    queries: Sequence[str], documents: Sequence[str], own: Sequence[int], count: int, share: float
) -> list[list[int]]:
    """Indices of at least `count` documents for each query, best first, or of all that score at most `share` of its
    own.
    """
    bm25s = _bm25s()
    tokenized = bm25s.tokenize(list(documents), stopwords="en", return_ids=False, show_progress=False)
    if not any(tokenized):
        return [list(range(len(documents)))[:count] for _ in queries]
    index = bm25s.BM25()
    index.index(tokenized, show_progress=False)
    ranked = []
    tokenized_queries = bm25s.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
    for text, tokens, answer in zip(queries, tokenized_queries, own, strict=True):
        known = [token for token in tokens if token in index.vocab_dict]
        scores = index.get_scores(known) if known else np.zeros(len(documents), np.float32)
        allowed = np.flatnonzero(scores <= share * scores[answer])
        # The partition only finds the lowest score that counts: which of several equal ones it picks may vary.
        last = max(0, len(allowed) - count)
        least = np.partition(scores[allowed], last)[last] if len(allowed) else 0.0
        candidates = allowed[scores[allowed] >= least]
        # Documents that share no word at all would else always be the first ones.
        turned = (candidates - text_key(text) % len(scores)) % len(scores)
        ranked.append(candidates[np.lexsort((turned, -scores[candidates]))].tolist())
    return ranked


def _bm25s() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise DataError(
            "lexical mining needs the package bm25s, which is not installed", remedy="pip install 'f2llm-ray[eval]'"
        ) from error
    return bm25s
