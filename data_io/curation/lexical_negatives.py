"""Hard negatives by BM25: documents that share words with the query but do not answer it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_io.dataset.schema import text_key
from data_io.errors import DataError

MAX_DOCUMENTS = 100_000
"""Every query is scored against every document. Beyond this number mining takes hours: use an embedding model."""


def mine_negatives(
    queries: Sequence[str], positives: Sequence[str], *, negatives: int, relative_margin: float = 0.05
) -> list[list[str]]:
    """For each of N queries, up to `negatives` of the N positives, highest BM25 score first.

    A document that scores above (1 - relative_margin) of the query's own positive probably answers the query too and is
    left out, as in the recipe's mining (arXiv 2510.02294, section 2). Without this limit, words that query and answer
    share would count against the answer. The query's own text, its own positive, the positives of rows with the same
    query, and copies of these are never negatives. Fewer than `negatives` come back only if there are not enough other
    documents. The result depends on the texts and their order alone. Raises DataError for more than `MAX_DOCUMENTS`
    documents, or if bm25s is not installed.
    """
    documents = list(dict.fromkeys(positives))
    if len(documents) > MAX_DOCUMENTS:
        raise DataError(
            f"lexical mining over {len(documents)} documents is too slow; the limit is {MAX_DOCUMENTS}",
            remedy="mine with an embedding model and give the negatives in the files, or split the source",
        )
    document_keys = [text_key(document) for document in documents]
    answers: dict[int, set[int]] = {}
    for query, positive in zip(queries, positives, strict=True):
        answers.setdefault(text_key(query), {text_key(query)}).add(text_key(positive))
    # Rank enough documents that `negatives` are left even if every answer of the query is among them.
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
    """Indices of at least `count` documents per query, best first; or of all documents that score at most `share` of
    the query's own positive.
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
        # Use the partition only for the lowest score that counts: which of several equal scores it picks may vary.
        last = max(0, len(allowed) - count)
        least = np.partition(scores[allowed], last)[last] if len(allowed) else 0.0
        candidates = allowed[scores[allowed] >= least]
        # Without this, documents that share nothing with the query would always come first.
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
