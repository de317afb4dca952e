"""Texts of a user's files with their vectors, through `f2llm embed`'s own code, for all that is built on them.

N rows, D dimensions.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_io.storage import Store
from data_io.task import instruction_of
from ray_app.embed_job import Embeddings
from ray_app.embedding_model import EmbeddingModel
from ray_app.errors import ModelError

VECTOR = "f2llm_embedding"
"""The column of the vectors while they are on their way."""


@dataclass(frozen=True)
class EmbeddedRows:
    """N rows that have a text."""

    numbers_N: npt.NDArray[np.int64]
    """Their places in the input, from 1; rows without a text are counted too."""
    table: pa.Table
    """The input's columns."""
    vectors_ND: npt.NDArray[np.float32]


def read_embedded(place: Store, made: Embeddings) -> Iterator[EmbeddedRows]:
    """What `embed_texts` left there, a part at a time."""
    before = 0
    for part in made.parts:
        table = pq.read_table(io.BytesIO(place.get(part.key)))
        there = pc.is_valid(table.column(made.into))
        numbers = before + 1 + np.flatnonzero(there.to_numpy())
        table = table.filter(there)
        vectors = table.column(made.into).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield EmbeddedRows(numbers, table.drop_columns([made.into]), vectors.reshape(table.num_rows, made.width))
        before += part.rows


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
