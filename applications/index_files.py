"""What an index of texts is made of.

    <index>/vectors.faiss    a vector a text
    <index>/bm25/            bm25s's own files; not there where no text has a word
    <index>/rows.parquet     id, text, and the input's other columns
    <index>/files.json       sizes and SHA-256 of the above
    <index>/index.json       what it is and how it was made; the last thing that is written

Without index.json there is no index.
"""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from data_io.errors import DataError, NotFoundInStore
from data_io.storage.folder_copy import FILES_KEY
from data_io.storage.store import Store

MANIFEST, LISTING = "index.json", FILES_KEY
VECTORS, ROWS, BM25 = "vectors.faiss", "rows.parquet", "bm25"
VectorKind = Literal["flat", "hnsw"]
"""flat compares a query with every vector; hnsw walks a graph of near neighbors (arXiv 1603.09320): faster, and not
always exact."""


class IndexManifest(BaseModel):
    """index.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    key: str = Field(description="Stands for everything that decides the index.")
    model: str
    model_uri: str = Field(description="Where the model was; queries are embedded with the same one.")
    fingerprint: str = Field(description="Stands for the model's files.")
    dimensions: int
    cut: int | None = Field(description="The first so many values of each vector; None: all of them.")
    vectors: VectorKind
    texts: int
    nulls: int = Field(description="Rows of the input without a text; the index has not got them.")
    tokens: int
    input: tuple[str, ...]
    column: str
    id_column: str | None = Field(description="None: ids are the numbers of rows, from 1.")


def read_manifest(place: Store) -> IndexManifest | None:
    """The manifest of a whole index; None where there is none. Raises DataError for one that is damaged."""
    try:
        found = IndexManifest.model_validate_json(place.get(MANIFEST))
        listed = json.loads(place.get(LISTING))["files"]
        expected = {name: entry["size"] for name, entry in listed.items()}
    except NotFoundInStore:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place.uri} is damaged: {MANIFEST} or {LISTING} cannot be read", remedy="remove it and index again"
        ) from error
    sizes = {info.key: info.size for info in place.list()}
    for name, size in expected.items():
        if sizes.get(name) != size:
            raise DataError(
                f"{place.uri} is damaged: {name} has {sizes.get(name, 'no')} bytes; expected {size}",
                remedy="remove it and index again",
            )
    return found
