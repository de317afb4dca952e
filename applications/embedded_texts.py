"""Embeds the texts of a user's files for the applications, with the code of `f2llm embed`.

N rows, D dimensions.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_io.errors import DataError
from data_io.execution import Executor, Say
from data_io.storage.resumable import WORK_PREFIX
from data_io.storage.store import BULK_BYTES, Store
from data_io.task import instruction_of
from data_io.user_files.records import find_files
from data_io.user_files.text_shards import common_schema, describe_input
from ray_app.errors import ModelError
from ray_app.inference.embed_files import Embeddings, OnEmbedding, embed_texts
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import EmbeddingModel

_VECTOR = "f2llm_embedding"
"""The temporary column of the vectors."""
_SHARD_ROWS = 1024
"""Rows of a shard: the unit of lost work after a stop, of progress, and of parallel work. The parts are temporary."""


@dataclass(frozen=True)
class EmbeddedRows:
    """N rows that have a text."""

    numbers_N: npt.NDArray[np.int64]
    """Their row numbers in the input, from 1. Rows without a text are counted too."""
    table: pa.Table
    """The columns of the input."""
    vectors_ND: npt.NDArray[np.float32]


def embed_for(
    model: EmbeddingModel,
    address: str,
    out: Store,
    *,
    column: str | None,
    keep: Sequence[str] | None = None,
    keep_remedy: str = "",
    adds: Sequence[str] = (),
    instruction: str,
    dimensions: int | None,
    executor: Executor,
    say: Say,
    on_progress: OnEmbedding,
) -> tuple[Embeddings, Iterator[EmbeddedRows]]:
    """Embed the texts at `address` in the work directory of `out`. Returns a description of the vectors, and the rows
    part by part, all with the same schema.

    The work of an earlier start resumes; work with other texts or settings is removed. `keep_remedy` is the remedy if a
    column of `keep` is missing. `adds` are columns that the result will have in addition to the input's. Raises
    DataError, before any text is embedded, if the files' columns do not match, or if the input has a column of `adds`.
    """
    files = find_files(address)
    texts = describe_input(files, text=column, keep=keep, keep_remedy=keep_remedy)
    taken = next((name for name in (_VECTOR, *adds) if name in texts.columns), None)
    if taken is not None:
        raise DataError(
            f"{files[0].address} already has a column {taken!r}, which the result would add", remedy="rename the column"
        )
    schema = common_schema(files, texts.columns)
    place = out.child(WORK_PREFIX).child("embeddings")
    made = embed_texts(
        model, address, place, column=column, keep=keep, into=_VECTOR, instruction=instruction, cut=Cut(dimensions),
        shard_rows=_SHARD_ROWS, starts_over=True, executor=executor, say=say, on_progress=on_progress,
    ).embeddings  # fmt: skip
    return made, _read(place, made, schema)


def _read(place: Store, made: Embeddings, schema: pa.Schema) -> Iterator[EmbeddedRows]:
    before = 0
    for part in made.parts:
        table = pq.read_table(io.BytesIO(place.get(part.key, most=BULK_BYTES)))
        there = pc.is_valid(table.column(made.into))
        numbers = before + 1 + np.flatnonzero(there.to_numpy())
        table = table.filter(there)
        vectors = table.column(made.into).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        columns = {field.name: _cast(table.column(field.name), field) for field in schema}
        rows = pa.table(columns, metadata=table.schema.metadata)
        yield EmbeddedRows(numbers, rows, vectors.reshape(table.num_rows, made.width))
        before += part.rows


def _cast(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return values.cast(field.type)
    except pa.ArrowException as error:
        raise DataError(
            f"column {field.name!r} is {values.type} in one file and cannot be {field.type}, as in another: {error}",
            remedy="write the column with one type in all files, or leave it out",
        ) from error


def document_instruction(model: EmbeddingModel) -> str:
    """The model's instruction for documents. In the recipe documents have none.

    Raises ModelError for a document prompt that is not an instruction in the format of the recipe.
    """
    prompt = dict(model.prompts).get("document", "")
    instruction = instruction_of(prompt)
    if instruction is None:
        raise ModelError(
            f"{model.name} has the document prompt {prompt!r}; expected `Instruct: ...`, line end, `Query: `",
            remedy="use a model without a prompt for documents",
        )
    return instruction
