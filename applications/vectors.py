"""The vectors of an index, compared by inner product. The only module that imports faiss.

N vectors, Q queries, D dimensions.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from applications.index_files import VectorKind
from data_io.errors import DataError
from data_io.wording import shown

_FACTORY: dict[VectorKind, str] = {"flat": "Flat", "hnsw": "HNSW32,Flat"}
_MARK: dict[VectorKind, bytes] = {"flat": b"IxFI", "hnsw": b"IHNf"}
"""The first bytes of a file of this kind."""
_LEAST_WALKED = 128
"""Candidates that a graph search keeps. With more candidates it finds more of the nearest vectors."""


class Vectors:
    """N vectors at positions 0 to N - 1, in the order they were added."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def empty(cls, kind: VectorKind, dimensions: int) -> "Vectors":
        return cls(faiss.index_factory(dimensions, _FACTORY[kind], faiss.METRIC_INNER_PRODUCT))

    @classmethod
    def load(cls, path: Path, kind: VectorKind, *, count: int, dimensions: int) -> "Vectors":
        """Open the file that `save` wrote. The file stays on disk and is read on demand.

        Raises DataError unless it is an index of this kind and size. faiss has readers for many other kinds, which are
        never called. From version 1.15 on, it checks all numbers of these two kinds before it uses them as positions.
        """
        try:
            with path.open("rb") as file:
                mark = file.read(len(_MARK[kind]))
            if mark != _MARK[kind]:
                raise RuntimeError(f"it is not an index of kind {kind}")
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            if (index.ntotal, index.d) != (count, dimensions):
                raise RuntimeError(f"{index.ntotal} vectors of {index.d} dimensions, expected {count} of {dimensions}")
        except (OSError, RuntimeError) as error:  # faiss raises RuntimeError; its message ends with the cause
            raise DataError(
                f"{path} cannot be read: {shown(str(error).rpartition('Error: ')[2])}", remedy="index the texts again"
            ) from error
        return cls(index)

    def save(self, path: Path) -> None:
        faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors_ND: npt.NDArray[np.float32]) -> None:
        self._index.add(np.ascontiguousarray(vectors_ND))

    def at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors float32 [len(positions), D] at these positions."""
        found: npt.NDArray[np.float32] = self._index.reconstruct_batch(positions)
        return found

    def nearest(
        self, queries_QD: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Positions int64 and scores float32 [Q, min(k, N)], best first."""
        options = {}
        if isinstance(self._index, faiss.IndexHNSW):
            walked = max(_LEAST_WALKED, 2 * k)
            options["params"] = faiss.SearchParametersHNSW(efSearch=walked)  # type: ignore[attr-defined]
        scores_QK, positions_QK = self._index.search(np.ascontiguousarray(queries_QD), min(k, len(self)), **options)
        return positions_QK, scores_QK
