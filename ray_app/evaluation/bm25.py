"""BM25: the baseline of an evaluation, and the keyword search of an index."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt

from data_io.bounded_json import read_json
from data_io.errors import DataError
from data_io.storage.store import BULK_BYTES
from data_io.wording import shown
from ray_app.evaluation.ranking_metrics import top_k

# bm25s logs at DEBUG, whatever level the application sets.
logging.getLogger("bm25s").setLevel(logging.WARNING)


_SETTINGS = {
    "method": "lucene", "idf_method": "lucene", "k1": 1.5, "b": 0.75, "dtype": "float32", "int_dtype": "int32",
    "backend": "numpy",
}  # fmt: skip
"""Settings of bm25s. Those in the files of an index are not used."""


class Bm25:
    """An index of N documents.

    Lucene's variant with k1 = 1.5 and b = 0.75. Words are lower-cased and have at least two characters. Lucene's
    English stop words are removed. Words are not stemmed.
    """

    def __init__(self, index: Any) -> None:
        """`index` is None if the documents have no words."""
        self._index = index

    @classmethod
    def build(cls, corpus: Sequence[str]) -> "Bm25":
        words = _words(corpus)
        if not any(words):
            return cls(None)
        index = bm25s.BM25(**_SETTINGS)
        index.index(words, show_progress=False)
        return cls(index)

    @classmethod
    def load(cls, folder: Path, *, documents: int) -> "Bm25":
        """Open the index that `save` wrote. Scores are read from its files on demand, without pickles, and with numpy,
        which checks positions. Raises DataError if the files are not an index of so many documents.
        """
        if not folder.is_dir():
            return cls(None)
        try:
            for name in ("params.index.json", "vocab.index.json"):  # bm25s reads these as a whole
                if (size := (folder / name).stat().st_size) > BULK_BYTES:
                    raise ValueError(f"{name} has {size:,} bytes, expected at most {BULK_BYTES:,}")
            params = read_json((folder / "params.index.json").read_bytes())
            if params["num_docs"] != documents:
                raise ValueError(f"it has {params['num_docs']} documents, expected {documents}")
            index = bm25s.BM25.load(folder, mmap=True, allow_pickle=False, show_progress=False, **_SETTINGS)
            _check(index, documents)
        except Exception as error:  # bm25s raises many classes for damaged files
            raise DataError(
                f"{folder} is not an index of words: {shown(str(error))[:200]}", remedy="index the texts again"
            ) from error
        return cls(index)

    def save(self, folder: Path) -> None:
        """Write the index to a new directory. Writes nothing if the documents have no words."""
        if self._index is not None:
            self._index.save(folder, show_progress=False)

    def rank(
        self, queries: Sequence[str], *, depth: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """For every query, the positions of at most `depth` documents, best first, and their scores.

        Of equal scores the earlier document comes first. Documents without a common word are not retrieved.
        """
        for words in _words(queries):
            if self._index is None:
                yield np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
                continue
            scores_N = self._index.get_scores_from_ids(self._index.get_tokens_ids(words))
            best = top_k(scores_N, depth)
            best = best[scores_N[best] > 0]
            yield best, scores_N[best]


def _check(index: Any, documents: int) -> None:
    """Raises ValueError unless the arrays are a sparse matrix of the words and documents."""
    data, indices, indptr = (index.scores[name] for name in ("data", "indices", "indptr"))
    for array, kind in ((data, "f"), (indices, "i"), (indptr, "i")):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind != kind:
            raise ValueError("an array has another form")
    bounds = indptr[0] == 0 and indptr[-1] == len(indices) == len(data) and (np.diff(indptr) >= 0).all()
    if not bounds or (len(indices) and (indices.min() < 0 or indices.max() >= documents)):
        raise ValueError("positions are out of bounds")
    words = index.vocab_dict.values()  # bm25s adds the empty word, with the next number
    if not all(isinstance(word, int) and 0 <= word < len(indptr) for word in words):
        raise ValueError("a word is out of bounds")


def bm25_rankings(corpus: Sequence[str], queries: Sequence[str], *, depth: int) -> Iterator[npt.NDArray[np.int64]]:
    """As `Bm25.rank`, for a corpus that is used once. Returns positions only."""
    return (positions for positions, _ in Bm25.build(corpus).rank(queries, depth=depth))


def _words(texts: Sequence[str]) -> list[list[str]]:
    words: list[list[str]] = bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
    return words
