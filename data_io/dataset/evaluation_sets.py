"""Held-out sets to evaluate a model on: retrieval (corpus, queries, judgments) and scored pairs."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_io.dataset.manifest import EvaluationEntry, StoredFile
from data_io.errors import DataError, NotFoundInStore
from data_io.storage.store import BULK_BYTES, Store

_VALIDATE = "run `f2llm data validate` to list all problems, then prepare the data set again"
_TEXTS = pa.schema({"id": pa.string(), "text": pa.string()})
_QRELS = pa.schema({"query_id": pa.string(), "document_id": pa.string(), "score": pa.float64()})
_PAIRS = pa.schema({"text_a": pa.string(), "text_b": pa.string(), "score": pa.float64()})


@dataclass(frozen=True)
class RetrievalSet:
    """Queries, the corpus to search, and the documents that answer each query: qrels[query id][document id] = grade."""

    name: str
    instruction: str
    corpus_ids: list[str]
    corpus: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, dict[str, float]]
    license: str = field(default="", kw_only=True)
    origin: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class StsSet:
    """Pairs of texts with one similarity score per pair, on any scale."""

    name: str
    instruction: str
    text_a: list[str]
    text_b: list[str]
    scores: list[float]
    license: str = field(default="", kw_only=True)
    origin: str = field(default="", kw_only=True)


def save_evaluation(store: Store, evaluation: RetrievalSet | StsSet) -> EvaluationEntry:
    """Write a set under evaluation/<name>/. Raises DataError as `check_evaluation` does."""
    check_evaluation(evaluation)
    folder = f"evaluation/{evaluation.name}"
    common = {
        "name": evaluation.name,
        "instruction": evaluation.instruction,
        "license": evaluation.license,
        "origin": evaluation.origin,
    }
    if isinstance(evaluation, StsSet):
        pairs = pa.table([evaluation.text_a, evaluation.text_b, evaluation.scores], schema=_PAIRS)
        files = {"pairs": _put_table(store, folder, "pairs", pairs)}
        return EvaluationEntry(**common, type="sts", pairs=len(evaluation.scores), files=files)
    judged = [(q, d, score) for q, documents in evaluation.qrels.items() for d, score in documents.items()]
    tables = {
        "corpus": pa.table([evaluation.corpus_ids, evaluation.corpus], schema=_TEXTS),
        "queries": pa.table([evaluation.query_ids, evaluation.queries], schema=_TEXTS),
        "qrels": pa.table([list(column) for column in zip(*judged, strict=True)], schema=_QRELS),
    }
    return EvaluationEntry(
        **common,
        type="retrieval",
        queries=len(evaluation.queries),
        documents=len(evaluation.corpus),
        files={part: _put_table(store, folder, part, table) for part, table in tables.items()},
    )


def load_evaluation(store: Store, entry: EvaluationEntry) -> RetrievalSet | StsSet:
    """Read a set that the manifest lists. Raises DataError if a file is missing, damaged or inconsistent."""
    evaluation: RetrievalSet | StsSet
    if entry.type == "sts":
        pairs = _get_table(store, entry, "pairs", _PAIRS)
        evaluation = StsSet(
            entry.name, entry.instruction, pairs["text_a"], pairs["text_b"], pairs["score"],
            license=entry.license, origin=entry.origin,
        )  # fmt: skip
    else:
        corpus, queries = _get_table(store, entry, "corpus", _TEXTS), _get_table(store, entry, "queries", _TEXTS)
        judged = _get_table(store, entry, "qrels", _QRELS)
        qrels: dict[str, dict[str, float]] = {}
        for query_id, document_id, score in zip(*judged.values(), strict=True):
            qrels.setdefault(query_id, {})[document_id] = score
        evaluation = RetrievalSet(
            entry.name, entry.instruction, corpus["id"], corpus["text"], queries["id"], queries["text"], qrels,
            license=entry.license, origin=entry.origin,
        )  # fmt: skip
    check_evaluation(evaluation)
    return evaluation


def check_evaluation(evaluation: RetrievalSet | StsSet) -> None:
    """Raises DataError if a model cannot be evaluated on a set: it is empty, or has a blank text, a repeated id, a
    query without an answer, or a judgment of an unknown id. The message says where.
    """
    place = f"evaluation set {evaluation.name!r}"
    if isinstance(evaluation, StsSet):
        _check_texts(evaluation.text_a, f"{place}, text_a")
        _check_texts(evaluation.text_b, f"{place}, text_b")
        lengths = len(evaluation.text_a), len(evaluation.text_b), len(evaluation.scores)
        if len(set(lengths)) != 1:
            raise DataError(
                f"{place}: has {lengths[0]} first texts, {lengths[1]} second texts and {lengths[2]} scores",
                remedy="give every pair two texts and a score",
            )
        for row, score in enumerate(evaluation.scores):
            if not math.isfinite(score):
                raise DataError(f"{place}, row {row}: score is {score}", remedy="remove the row or give it a score")
        return
    for part, ids, texts in (
        ("corpus", evaluation.corpus_ids, evaluation.corpus),
        ("queries", evaluation.query_ids, evaluation.queries),
    ):
        _check_texts(texts, f"{place}, {part}")
        if len(ids) != len(texts):
            raise DataError(f"{place}, {part}: {len(ids)} ids for {len(texts)} texts", remedy="give every text an id")
        if len(set(ids)) != len(ids):
            raise DataError(f"{place}, {part}: repeated ids: {len(ids) - len(set(ids))}", remedy="make ids unique")
    queries, documents = set(evaluation.query_ids), set(evaluation.corpus_ids)
    for query_id, judged in evaluation.qrels.items():
        unknown = [d for d in judged if d not in documents]
        if query_id not in queries or unknown:
            missing = f"query {query_id!r}" if query_id not in queries else f"document {unknown[0]!r}"
            raise DataError(
                f"{place}, qrels: {missing} has a judgment but is not in the set", remedy="remove the judgment"
            )
    unjudged = next((q for q in evaluation.query_ids if not evaluation.qrels.get(q)), None)
    if unjudged is not None:
        raise DataError(f"{place}: query {unjudged!r} has no judged document", remedy="remove the query or judge it")


def _check_texts(texts: Sequence[str], place: str) -> None:
    if not texts:
        raise DataError(f"{place}: is empty", remedy="leave the set out or fill it")
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            found = "null" if text is None else "blank" if isinstance(text, str) else type(text).__name__
            raise DataError(f"{place}, row {row}: the text is {found}", remedy="remove the row or fill in the field")


def _put_table(store: Store, folder: str, part: str, table: pa.Table) -> StoredFile:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=3, write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"{folder}/{part}-{sha256[:12]}.parquet"
    store.put_immutable(key, data)
    return StoredFile(key=key, size=len(data), sha256=sha256)


def _get_table(store: Store, entry: EvaluationEntry, part: str, schema: pa.Schema) -> dict[str, list[Any]]:
    place = f"evaluation set {entry.name!r}"
    if part not in entry.files:
        raise DataError(f"{place}: the manifest lists no {part} file", remedy=_VALIDATE)
    stored = entry.files[part]
    try:
        data = store.get(stored.key, most=BULK_BYTES)
    except NotFoundInStore as error:
        raise DataError(f"{place}: {stored.key} is missing at {store.uri}", remedy=_VALIDATE) from error
    if len(data) != stored.size:
        raise DataError(f"{place}: {stored.key} has {len(data)} bytes, expected {stored.size}", remedy=_VALIDATE)
    if hashlib.sha256(data).hexdigest() != stored.sha256:
        raise DataError(f"{place}: {stored.key} is damaged: its checksum differs from the manifest's", remedy=_VALIDATE)
    try:
        table = pq.read_table(pa.BufferReader(data), schema=schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{place}: {stored.key} is not a Parquet file of {part}", remedy=_VALIDATE) from error
    return {name: table.column(name).to_pylist() for name in schema.names}
