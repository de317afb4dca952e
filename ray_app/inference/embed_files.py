"""Embeds a user's texts in a job that can be resumed: `f2llm embed`.

    <out>/part-00000.parquet ...   the rows of the input in their order, each with a vector
    <out>/embeddings.json          describes the vectors and how they were made; written last

Each shard of the input is a task that writes one part, and a mark under `.f2llm-work/` when the part is complete. The
rows of a shard depend on the input alone, so an interrupted job and an uninterrupted one write the same bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from time import monotonic, time

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from data_io.bounded_json import read_json, read_model
from data_io.errors import DataError, NotFoundInStore
from data_io.execution import Executor, Say, in_process
from data_io.storage.chunk_files import Mark, finished
from data_io.storage.resumable import WORK_PREFIX, end_work
from data_io.storage.store import BULK_BYTES, Store
from data_io.user_files.records import find_files, fingerprint
from data_io.user_files.text_shards import TextShard, describe_input, plan_shards, refuse_without_texts
from data_io.wording import counted
from ray_app.inference.embed_shard import (
    EmbedJob,
    Precision,
    Ranges,
    SampleTask,
    ShardTask,
    embed_shard,
    sample_vectors,
)
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import EmbeddingModel

MANIFEST = "embeddings.json"
SHARD_ROWS = 4096
_SAMPLED_SHARDS, _SAMPLED_ROWS = 16, 512
"""The sample of texts that decides the ranges of int8 and uint8."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VectorPart(_Record):
    """One object of rows."""

    key: str
    rows: int
    size: int


class Embeddings(_Record):
    """embeddings.json, which describes the vectors."""

    version: int = 1
    key: str = Field(description="Hash of everything that decides the vectors.")
    model: str
    fingerprint: str
    input: tuple[str, ...]
    column: str
    into: str
    instruction: str
    dimensions: int
    precision: Precision
    width: int = Field(description="Stored values per vector: dimensions, or an eighth of them for binary.")
    ranges: Ranges | None = Field(None, description="Minimum and maximum of each dimension, for int8 and uint8.")
    rows: int
    nulls: int = Field(description="Rows without a text, which have no vector.")
    tokens: int
    parts: tuple[VectorPart, ...]


@dataclass(frozen=True)
class EmbeddingProgress:
    """Finished rows, including those of earlier starts. The rates and the ETA are of this start."""

    rows: int
    total_rows: int
    rows_per_second: float
    tokens_per_second: float
    eta_seconds: float | None


OnEmbedding = Callable[[EmbeddingProgress], None]


@dataclass(frozen=True)
class Embedded:
    """The finished vectors, and the rates of this start (None if all vectors were there before)."""

    embeddings: Embeddings
    rows_per_second: float | None
    tokens_per_second: float | None


def embed_texts(
    model: EmbeddingModel,
    address: str,
    out: Store,
    *,
    column: str | None = None,
    keep: Sequence[str] | None = None,
    into: str = "embedding",
    instruction: str = "",
    cut: Cut | None = None,
    precision: Precision = "float32",
    shard_rows: int = SHARD_ROWS,
    starts_over: bool = False,
    executor: Executor = in_process,
    say: Say = lambda text: None,
    on_progress: OnEmbedding = lambda progress: None,
) -> Embedded:
    """Embed the texts of the files at `address` into `out`: exactly one vector per row, in the order of the input.

    `column` holds the texts (None detects it), `keep` names the columns to copy (None copies all), and `into` is the
    column of the vectors. The same call resumes an interrupted job, and keeps finished vectors. Objects of another job
    in `out` raise DataError; with `starts_over` they are removed. Raises DataError, ConfigError or ModelError for
    files, columns or texts that cannot be embedded.
    """
    cut = cut or Cut()
    files = find_files(address)
    texts = describe_input(files, text=column, keep=keep)
    decided_by = {
        "model": model.fingerprint,
        "input": [[file.address, fingerprint(file.address)] for file in files],
        "texts": asdict(texts),
        "into": into,
        "instruction": instruction,
        "cut": asdict(cut),
        "precision": precision,
        "shard_rows": shard_rows,
    }
    key = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:16]
    began = time()
    known = _read_manifest(out)
    if known is not None and known.key == key and _is_whole(out, known):
        end_work(out, began=began)
        return Embedded(known, None, None)
    if column is None:
        say(f"text column: {texts.text!r}")
    for file in files:
        refuse_without_texts(file, texts.text)
    _claim(out, key, starts_over=starts_over, say=say)
    done = {name: mark for name, mark in finished(out, "").items() if name.startswith(f"{WORK_PREFIX}/{key}/")}
    say(f"counting the rows of {counted(len(files), 'file')}")
    copies = out.child(f"{WORK_PREFIX}/{key}/lines")
    shards = [shard for file in files for shard in plan_shards(file, shard_rows, copies=copies)]
    if not shards:
        raise DataError(f"{address} has no rows", remedy="give files with rows")
    job = EmbedJob(out, copies, model, cut, texts, instruction, precision, into)
    ranges = _ranges(job, key, shards, executor, say) if precision in ("int8", "uint8") else None
    tasks = [
        ShardTask(f"{WORK_PREFIX}/{key}/part-{n:05d}", f"part-{n:05d}.parquet", job, shard, ranges)
        for n, shard in enumerate(shards)
    ]
    progress = _Progress(sum(shard.rows for shard in shards), on_progress)
    progress.skip(done.values())
    for task, mark in executor(embed_shard, [task for task in tasks if task.name not in done]):
        done[task.name] = mark
        progress.add(mark)
    found = _manifest(job, key, [file.address for file in files], tasks, done, ranges)
    out.put(MANIFEST, found.model_dump_json(indent=1).encode() + b"\n")
    end_work(out, began=began)
    return Embedded(found, *progress.rates())


class _Progress:
    """Counts the rows and tokens of this start, and reports them."""

    def __init__(self, total: int, on_progress: OnEmbedding) -> None:
        self._total, self._on_progress = total, on_progress
        self._earlier = self._rows = self._tokens = 0
        self._began = monotonic()

    def skip(self, marks: Iterable[Mark]) -> None:
        """Count the rows of an earlier start."""
        self._earlier = sum(mark.counts["rows"] for mark in marks)

    def add(self, mark: Mark) -> None:
        self._rows += mark.counts["rows"]
        self._tokens += mark.counts["tokens"]
        rows, tokens = self.rates()
        left = self._total - self._earlier - self._rows
        assert rows is not None
        assert tokens is not None
        eta = left / rows if left and rows else None
        self._on_progress(EmbeddingProgress(self._earlier + self._rows, self._total, rows, tokens, eta))

    def rates(self) -> tuple[float | None, float | None]:
        seconds = max(monotonic() - self._began, 1e-9)
        return (self._rows / seconds, self._tokens / seconds) if self._rows else (None, None)


def _ranges(job: EmbedJob, key: str, shards: Sequence[TextShard], executor: Executor, say: Say) -> Ranges:
    """Minimum and maximum per dimension in a sample of the whole input. Every start of a job uses the same values."""
    kept = f"{WORK_PREFIX}/{key}/ranges.json"
    try:
        low, high = read_json(job.out.get(kept))
        return tuple(low), tuple(high)
    except NotFoundInStore:
        say("embedding a sample, to find the range of the values")
    chosen = [shards[i] for i in sorted({i * len(shards) // _SAMPLED_SHARDS for i in range(_SAMPLED_SHARDS)})]
    vectors = [found for _, found in executor(sample_vectors, [SampleTask(job, s, _SAMPLED_ROWS) for s in chosen])]
    sample = np.concatenate(vectors)
    if not len(sample):
        raise DataError("no row of the sample has a text", remedy="embed with --precision float32, or fix the input")
    ranges = tuple(sample.min(axis=0).tolist()), tuple(sample.max(axis=0).tolist())
    job.out.put(kept, json.dumps(ranges).encode())
    return ranges


def _manifest(
    job: EmbedJob,
    key: str,
    addresses: Sequence[str],
    tasks: Sequence[ShardTask],
    done: dict[str, Mark],
    ranges: Ranges | None,
) -> Embeddings:
    marks = [done[task.name] for task in tasks]
    return Embeddings(
        key=key,
        model=job.model.name,
        fingerprint=job.model.fingerprint,
        input=tuple(addresses),
        column=job.texts.text,
        into=job.into,
        instruction=job.instruction,
        dimensions=marks[0].counts["dimensions"],
        precision=job.precision,
        width=marks[0].counts["width"],
        ranges=ranges,
        rows=sum(mark.counts["rows"] for mark in marks),
        nulls=sum(mark.counts["nulls"] for mark in marks),
        tokens=sum(mark.counts["tokens"] for mark in marks),
        parts=tuple(
            VectorPart(key=task.key, rows=mark.counts["rows"], size=mark.parts[0].size)
            for task, mark in zip(tasks, marks, strict=True)
        ),
    )


def _read_manifest(out: Store) -> Embeddings | None:
    try:
        return read_model(Embeddings, out.get(MANIFEST, most=BULK_BYTES))
    except NotFoundInStore:
        return None
    except ValueError as error:
        raise DataError(
            f"{out.uri}/{MANIFEST} does not describe embeddings", remedy="give an empty directory for the vectors"
        ) from error


def _is_whole(out: Store, found: Embeddings) -> bool:
    sizes = {info.key: info.size for info in out.list()}
    return all(sizes.get(part.key) == part.size for part in found.parts)


def _claim(out: Store, key: str, *, starts_over: bool, say: Say) -> None:
    """Reserve an empty directory for this job before its first part, or accept one that this job reserved before."""
    claim = f"{WORK_PREFIX}/{key}/begun"
    listed = [info.key for info in out.list()]
    if listed and claim not in listed:
        if not starts_over:
            raise DataError(
                f"{out.uri} holds other files, or vectors of another model, input or setting ({listed[0]})",
                remedy="give an empty directory for the vectors, or remove these files",
            )
        say("an earlier start had another model, input or setting: starting over")
        out.delete(listed)
    out.put(claim, b"")
