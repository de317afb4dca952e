"""The files of an index of texts.

    <index>/vectors.faiss    one vector per text
    <index>/bm25/            files of bm25s; missing if the texts have no words
    <index>/rows.parquet     id, text, and the other columns of the input
    <index>/files.json       sizes and SHA-256 of the files above
    <index>/index.json       describes the index and how it was made; written last

A directory without index.json is not an index.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from data_io.bounded_json import read_model
from data_io.errors import DataError, NotFoundInStore
from data_io.storage.folder_copy import FILES_KEY, uploaded_files
from data_io.storage.store import Store

MANIFEST, LISTING = "index.json", FILES_KEY
VECTORS, ROWS, BM25 = "vectors.faiss", "rows.parquet", "bm25"
VectorKind = Literal["flat", "hnsw"]
"""flat compares a query with every vector. hnsw searches a graph of near neighbors (arXiv 1603.09320), which is faster
and not always exact.
"""


class IndexManifest(BaseModel):
    """index.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    key: str = Field(description="Hash of everything that decides the index.")
    model: str
    model_uri: str = Field(description="Path, URI or Hub id of the model. Queries need the same model.")
    fingerprint: str = Field(description="Hash of the model's files.")
    dimensions: int
    cut: int | None = Field(description="Number of first values kept of each vector. None keeps all.")
    vectors: VectorKind
    texts: int
    nulls: int = Field(description="Rows of the input without a text. They are not in the index.")
    tokens: int
    input: tuple[str, ...]
    column: str
    id_column: str | None = Field(description="Column of the ids. None: ids are row numbers, from 1.")


def read_manifest(place: Store) -> IndexManifest | None:
    """The manifest of a complete index. None if no complete index exists. Raises DataError if the index is damaged."""
    try:
        found = read_model(IndexManifest, place.get(MANIFEST))
    except NotFoundInStore:
        return None
    except ValueError as error:
        raise DataError(
            f"{place.uri} is damaged: {MANIFEST} cannot be read", remedy="remove it and index again"
        ) from error
    sizes = {info.key: info.size for info in place.list()}
    for name, entry in (uploaded_files(place) or {}).items():
        if sizes.get(name) != entry.size:
            raise DataError(
                f"{place.uri} is damaged: {name} has {sizes.get(name, 'no')} bytes; expected {entry.size}",
                remedy="remove it and index again",
            )
    return found
