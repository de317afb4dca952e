"""Embeds one shard of texts: a task of `f2llm embed`. N rows, D dimensions."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data_io.errors import ConfigError
from data_io.storage.chunk_files import Mark, PartRef, write_mark
from data_io.storage.store import Store
from data_io.user_files.text_shards import TextInput, TextShard, read_shard
from ray_app.errors import ModelError
from ray_app.inference.encoder import Cut, Encoder
from ray_app.inference.model_source import EmbeddingModel, open_encoder

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
"""The precisions of sentence-transformers' quantization. The binary ones hold eight dimensions per byte."""
Ranges = tuple[tuple[float, ...], tuple[float, ...]]
"""Minimum and maximum of each dimension: the range that int8 and uint8 quantize."""


@dataclass(frozen=True)
class EmbedJob:
    """The values that all shards share."""

    out: Store
    copies: Store
    """Holds the lines of compressed input files until the job ends."""
    model: EmbeddingModel
    cut: Cut
    texts: TextInput
    instruction: str
    precision: Precision
    into: str
    """The column of the vectors."""


@dataclass(frozen=True)
class SampleTask:
    """Up to `rows` texts of a shard, whose vectors give the ranges of int8 and uint8."""

    job: EmbedJob
    shard: TextShard
    rows: int


@dataclass(frozen=True)
class ShardTask:
    """A shard, and the key of the object for its rows. `name` is the name of the task, for its mark."""

    name: str
    key: str
    job: EmbedJob
    shard: TextShard
    ranges: Ranges | None


def sample_vectors(task: SampleTask) -> npt.NDArray[np.float32]:
    """Vectors float32 [at most `rows`, D] of the first texts of a shard, before any quantization."""
    table = read_shard(task.shard, task.job.texts, copies=task.job.copies)
    texts = [text for text in table.column(task.job.texts.text).to_pylist() if text is not None][: task.rows]
    return _encoder(task.job).encode(texts, instruction=task.job.instruction)


def embed_shard(task: ShardTask) -> Mark:
    """Write the rows of a shard with their vectors. A row without a text gets null instead of a vector.

    Raises DataError or ModelError that names the file and the row.
    """
    job = task.job
    table = read_shard(task.shard, job.texts, copies=job.copies)
    if job.into in table.column_names:
        raise ConfigError(
            f"the rows already have a column {job.into!r}",
            remedy="name another column with --into, or leave this one out of --keep",
        )
    texts = table.column(job.texts.text).to_pylist()
    there = np.array([text is not None for text in texts], dtype=bool)
    encoder = _encoder(job)
    tokens = encoder.tokenize([text for text in texts if text is not None], instruction=job.instruction)
    vectors = encoder.embed(tokens)
    _check_finite(vectors, task.shard, there)
    stored = _quantize(vectors, job.precision, task.ranges)
    table = table.append_column(job.into, _column(stored, there))
    sink = pa.BufferOutputStream()
    # Dictionaries and compression do not make vectors smaller.
    others = {name: "zstd" for name in table.column_names if name != job.into}
    pq.write_table(
        table, sink, compression=others | {f"{job.into}.list.element": "none"}, use_dictionary=list(others),
        write_page_checksum=True,
    )  # fmt: skip
    data = sink.getvalue().to_pybytes()
    job.out.put(task.key, data)
    counts = {
        "rows": len(texts),
        "nulls": int((~there).sum()),
        "tokens": len(tokens.ids),
        "dimensions": encoder.dimensions,
        "width": stored.shape[1],
    }
    part = PartRef(key=task.key, size=len(data), chunks=())
    return write_mark(job.out, task.name, Mark(parts=(part,), counts=counts))


def _encoder(job: EmbedJob) -> Encoder:
    if not torch.cuda.is_available():
        # Each worker has one CPU. With one thread, sums do not depend on the number of CPUs.
        torch.set_num_threads(1)
    return open_encoder(job.model, job.cut)


def _quantize(
    vectors_ND: npt.NDArray[np.float32], precision: Precision, ranges: Ranges | None
) -> npt.NDArray[np.generic]:
    if precision == "float32":
        return vectors_ND
    # This import takes longer than loading the model.
    from sentence_transformers.util.quantization import quantize_embeddings

    between = None if ranges is None else np.array(ranges, dtype=np.float32)
    quantized: npt.NDArray[np.generic] = quantize_embeddings(vectors_ND, precision=precision, ranges=between)
    return quantized


def _column(stored: npt.NDArray[np.generic], there: npt.NDArray[np.bool_]) -> pa.Array:
    """Vectors as a list of fixed size per row."""
    width = stored.shape[1]
    whole = np.zeros((len(there), width), dtype=stored.dtype)
    whole[there] = stored
    mask = None if there.all() else pa.array(~there)
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1)), width, mask=mask)


def _check_finite(vectors_ND: npt.NDArray[np.float32], shard: TextShard, there: npt.NDArray[np.bool_]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors_ND).all(axis=1))
    if bad.size:
        row = shard.first_row + int(np.flatnonzero(there)[bad[0]]) + 1
        raise ModelError(
            f"{shard.file.address}, row {row}: the embedding has values that are not finite ({bad.size} of "
            f"{len(there)} rows)",
            remedy="the weights are damaged or the training diverged: embed with an earlier checkpoint",
        )
