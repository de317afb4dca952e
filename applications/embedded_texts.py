"""Texts of a user's files with their vectors, through `f2llm embed`'s own code, for all that is built on them.

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
from data_io.storage.store import Store
from data_io.task import instruction_of
from data_io.user_files.records import find_files
from data_io.user_files.text_shards import common_schema, describe_input
from ray_app.errors import ModelError
from ray_app.inference.embed_files import Embeddings, OnEmbedding, embed_texts
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import EmbeddingModel

_VECTOR = "f2llm_embedding"
"""The column of the vectors while they are on their way."""
_SHARD_ROWS = 1024
"""What a stop costs, what is told, and what cores share among them; the parts go when the result is there."""


@dataclass(frozen=True)
class EmbeddedRows:
    """N rows that have a text."""

    numbers_N: npt.NDArray[np.int64]
    """Their places in the input, from 1; rows without a text are counted too."""
    table: pa.Table
    """The input's columns."""
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
    """Embed the texts at `address` in the work directory of `out`. An earlier start's work there is gone on with; work on
    other texts, or in another way, is removed. Returns what the vectors are, and the rows a part at a time, all of one
    schema.

    `keep_remedy` says what to do where a column to keep is not there, `adds` are columns that the result will have
    beside the input's. Raises DataError, before anything is embedded, for files whose columns do not agree and for one
    that has such a column.
    """
    files = find_files(address)
    texts = describe_input(files, text=column, keep=keep, keep_remedy=keep_remedy)
    taken = next((name for name in (_VECTOR, *adds) if name in texts.columns), None)
    if taken is not None:
        raise DataError(
            f"{files[0].address} has a column {taken!r}, which the result would have too", remedy="rename the column"
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
        table = pq.read_table(io.BytesIO(place.get(part.key)))
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
    """What the model wants before a document: nothing, in the recipe.

    Raises ModelError for a prompt in other words than `f2llm embed` can put there.
    """
    prompt = dict(model.prompts).get("document", "")
    instruction = instruction_of(prompt)
    if instruction is None:
        raise ModelError(
            f"{model.name} puts {prompt!r} before documents, which is not `Instruct: ...`, line end, `Query: `",
            remedy="use a model whose documents carry no prompt",
        )
    return instruction
