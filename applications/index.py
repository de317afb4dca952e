"""Builds an index of a user's texts (see applications.index_files for its files).

An interrupted build resumes from its work under `.f2llm-work/`.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from applications.embedded_texts import EmbeddedRows, document_instruction, embed_for
from applications.index_files import BM25, LISTING, MANIFEST, ROWS, VECTORS, IndexManifest, VectorKind, read_manifest
from applications.vectors import Vectors
from data_io.errors import DataError
from data_io.execution import Executor, Say, in_process, silent
from data_io.storage.folder_copy import upload_folder
from data_io.storage.resumable import WORK_PREFIX, end_work
from data_io.storage.store import Store
from data_io.user_files.records import find_files, fingerprint
from data_io.user_files.text_shards import describe_input
from ray_app.evaluation.bm25 import Bm25
from ray_app.inference.embed_files import OnEmbedding
from ray_app.inference.model_source import ExportedModel

_ID_COLUMNS = ("id", "_id")
_ROWS_AT_ONCE = 256
"""Rows of a row group. One row group is read to show one hit."""


@dataclass(frozen=True)
class Built:
    """The index, and whether this start built it."""

    index: IndexManifest
    is_new: bool


def build_index(
    model: ExportedModel,
    address: str,
    out: Store,
    *,
    column: str | None = None,
    id_column: str | None = None,
    dimensions: int | None = None,
    vectors: VectorKind = "flat",
    executor: Executor = in_process,
    say: Say = silent,
    on_progress: OnEmbedding = lambda progress: None,
) -> Built:
    """Embed the texts of the files at `address` and index them in `out`.

    Raises DataError for files that cannot be indexed, if two texts have the same id, and if `out` holds other files.
    """
    files = find_files(address)
    texts = describe_input(files, text=column, keep=None)
    ids = _id_column(files[0].address, texts.columns, id_column)
    instruction = document_instruction(model)
    decided_by = {
        "model": model.fingerprint,
        "input": [[file.address, fingerprint(file.address)] for file in files],
        "texts": asdict(texts),
        "ids": ids,
        "instruction": instruction,
        "dimensions": dimensions,
        "vectors": vectors,
    }
    key = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:16]
    began = time()
    if (known := _known(out, key)) is not None:
        end_work(out, began=began)
        return Built(known, is_new=False)
    made, parts = embed_for(
        model, address, out, column=column, instruction=instruction, dimensions=dimensions, executor=executor, say=say,
        on_progress=on_progress,
    )  # fmt: skip
    say("building the index")
    with TemporaryDirectory(dir=Path(out.uri) / WORK_PREFIX if out.is_local else None) as temporary:
        count = _write(Path(temporary), parts, vectors, made.dimensions, text=texts.text, ids=ids)
        upload_folder(Path(temporary), out)
    index = IndexManifest(
        key=key,
        model=model.name,
        model_uri=model.uri,
        fingerprint=model.fingerprint,
        dimensions=made.dimensions,
        cut=dimensions,
        vectors=vectors,
        texts=count,
        nulls=made.nulls,
        tokens=made.tokens,
        input=made.input,
        column=texts.text,
        id_column=ids,
    )
    out.put(MANIFEST, index.model_dump_json(indent=1).encode() + b"\n")
    end_work(out, began=began)
    return Built(index, is_new=True)


def _known(out: Store, key: str) -> IndexManifest | None:
    """The index in `out` if it has this key, None if it must still be built."""
    found = read_manifest(out)
    if found is not None and found.key == key:
        return found
    others = [info.key for info in out.list() if not info.key.startswith(f"{WORK_PREFIX}/")]
    ours = (VECTORS, ROWS, LISTING, f"{BM25}/")
    if found is not None or any(not name.startswith(ours) for name in others):
        what = "an index of another model, input or setting" if found else f"other files ({others[0]})"
        raise DataError(
            f"{out.uri} holds {what}", remedy="give an empty directory for the index, or remove these files"
        )
    return None


def _id_column(address: str, columns: tuple[str, ...], wanted: str | None) -> str | None:
    if wanted is None:
        return next((name for name in _ID_COLUMNS if name in columns), None)
    if wanted not in columns:
        raise DataError(
            f"{address} has no column {wanted!r}; it has {', '.join(columns)}", remedy="correct the name in --id"
        )
    return wanted


def _write(
    folder: Path, parts: Iterator[EmbeddedRows], kind: VectorKind, dimensions: int, *, text: str, ids: str | None
) -> int:
    """Write vectors, rows and BM25 of all parts to an empty directory. Returns the number of texts."""
    vectors, corpus, seen = Vectors.empty(kind, dimensions), list[str](), set[str]()
    writer = None
    for part in parts:
        rows = _rows(part, text, ids)
        for found in rows.column("id").to_pylist():
            if found is None or found in seen:
                raise DataError(
                    f"two texts have the id {found!r}" if found else f"a text has no id in column {ids!r}",
                    remedy="fix the ids, or name another column with --id",
                )
            seen.add(found)
        writer = writer or pq.ParquetWriter(folder / ROWS, rows.schema, compression="zstd", write_page_checksum=True)
        writer.write_table(rows, row_group_size=_ROWS_AT_ONCE)
        vectors.add(part.vectors_ND)
        corpus += rows.column("text").to_pylist()
    if writer is not None:
        writer.close()
    if not corpus:
        raise DataError("no row has a text", remedy="give files with texts")
    vectors.save(folder / VECTORS)
    Bm25.build(corpus).save(folder / BM25)
    return len(corpus)


def _rows(part: EmbeddedRows, text: str, ids: str | None) -> pa.Table:
    """The columns id, text, and `columns`: a struct of the other columns of the input."""
    found = part.numbers_N.astype(np.str_) if ids is None else part.table.column(ids).cast(pa.string())
    columns = {"id": pa.array(found) if ids is None else found, "text": part.table.column(text).cast(pa.string())}
    others = [name for name in part.table.column_names if name not in (text, ids)]
    if others:
        columns["columns"] = part.table.select(others).to_struct_array()
    return pa.table(columns)
