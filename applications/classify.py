"""Classifies a user's texts: trains a linear probe on labeled texts, and predicts labels for other texts.

<probe>/weights.safetensors   weight and bias of each label
<probe>/probe.json            labels, training settings and metrics; written last
<out>/predictions.parquet     the rows of the input, each with a label and its probability
"""

import hashlib
from dataclasses import dataclass
from time import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from applications.embedded_texts import EmbeddedRows, embed_for
from applications.probe import Floats, Measure, Probe, train_probe
from data_io.bounded_json import read_model
from data_io.errors import ConfigError, DataError, NotFoundInStore
from data_io.execution import Executor, Say, in_process, silent
from data_io.storage.resumable import end_work
from data_io.storage.store import BULK_BYTES, Store
from ray_app.inference.embed_files import OnEmbedding
from ray_app.inference.model_source import ExportedModel

MANIFEST, WEIGHTS, PREDICTIONS = "probe.json", "weights.safetensors", "predictions.parquet"
LABEL, PROBABILITY = "predicted_label", "predicted_probability"
_SHOWN = 5


class ProbeManifest(BaseModel):
    """probe.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    model: str
    model_uri: str = Field(description="Path, URI or Hub id of the model. Predictions need the same model.")
    fingerprint: str = Field(description="Hash of the model's files.")
    cut: int | None
    instruction: str
    weights: str = Field(description="SHA-256 of weights.safetensors.")
    column: str
    label_column: str
    labels: tuple[str, ...]
    unlabeled: int = Field(description="Rows without a label, or without a text.")
    inverse_regularization: float
    held_out: float
    seed: int
    measure: Measure


@dataclass(frozen=True)
class Prediction:
    """The prediction for one row."""

    text: str
    label: str
    probability: float


@dataclass(frozen=True)
class Predicted:
    """The number of rows per label, and the first few predictions."""

    rows: int
    labels: dict[str, int]
    first: tuple[Prediction, ...]


def train(
    model: ExportedModel,
    address: str,
    out: Store,
    *,
    label: str,
    column: str | None = None,
    instruction: str = "",
    dimensions: int | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    executor: Executor = in_process,
    say: Say = silent,
    on_progress: OnEmbedding = lambda progress: None,
) -> ProbeManifest:
    """Train a probe on the labeled texts at `address` and write it to `out`, replacing an older probe.

    Raises DataError for texts or labels that cannot be used for training.
    """
    began = time()
    made, parts = embed_for(
        model, address, out, column=column, keep=(label,), keep_remedy="name the column of the labels: --label NAME",
        instruction=instruction, dimensions=dimensions, executor=executor, say=say, on_progress=on_progress,
    )  # fmt: skip
    vectors, labels = list[Floats](), list[str]()
    for part in parts:
        values = [None if value is None else str(value) for value in part.table.column(label).to_pylist()]
        known = np.array([value is not None for value in values], dtype=bool)
        vectors.append(part.vectors_ND[known])
        labels += [value for value in values if value is not None]
    if not labels:
        raise DataError(f"no row has a label in column {label!r}", remedy="name another column with --label")
    say("training the probe")
    probe, measure, strength = train_probe(np.concatenate(vectors), labels, held_out=held_out, seed=seed)
    weights = save({"weight": probe.weights_LD, "bias": probe.bias_L})
    manifest = ProbeManifest(
        model=model.name,
        model_uri=model.uri,
        fingerprint=model.fingerprint,
        cut=dimensions,
        instruction=instruction,
        weights=hashlib.sha256(weights).hexdigest(),
        column=made.column,
        label_column=label,
        labels=probe.labels,
        unlabeled=made.rows - len(labels),
        inverse_regularization=strength,
        held_out=held_out,
        seed=seed,
        measure=measure,
    )
    out.put(WEIGHTS, weights)
    out.put(MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
    end_work(out, began=began)
    return manifest


def read_probe(place: Store) -> tuple[ProbeManifest, Probe]:
    """Raises ConfigError if `place` has no complete probe, DataError if the probe is damaged."""
    try:
        manifest = read_model(ProbeManifest, place.get(MANIFEST))
        weights = place.get(WEIGHTS, most=BULK_BYTES)
    except NotFoundInStore as error:
        raise ConfigError(
            f"{place.uri} has no complete probe: {MANIFEST} or {WEIGHTS} is missing",
            remedy="train it first: `f2llm classify train`",
        ) from error
    except ValueError as error:
        raise DataError(f"{place.uri}/{MANIFEST} is damaged", remedy="train the probe again") from error
    if hashlib.sha256(weights).hexdigest() != manifest.weights:
        raise DataError(
            f"{place.uri}/{WEIGHTS} is damaged: its SHA-256 differs from {MANIFEST}", remedy="train the probe again"
        )
    try:
        found = load(weights)
        probe = Probe(manifest.labels, found["weight"], found["bias"])
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{place.uri}/{WEIGHTS} is damaged", remedy="train the probe again") from error
    if probe.weights_LD.shape[:-1] != (len(probe.labels),) or probe.bias_L.shape != (len(probe.labels),):
        raise DataError(
            f"{place.uri}/{WEIGHTS} has weights for other labels than {MANIFEST}", remedy="train the probe again"
        )
    return manifest, probe


def predict(
    model: ExportedModel,
    probe: tuple[ProbeManifest, Probe],
    address: str,
    out: Store,
    *,
    column: str | None = None,
    executor: Executor = in_process,
    say: Say = silent,
    on_progress: OnEmbedding = lambda progress: None,
) -> Predicted:
    """Label the texts at `address`, and write their rows with a label and its probability to `out`.

    Rows without a text are left out. Raises DataError for files that cannot be embedded.
    """
    manifest, weights = probe
    began = time()
    made, parts = embed_for(
        model, address, out, column=column, adds=(LABEL, PROBABILITY), instruction=manifest.instruction,
        dimensions=manifest.cut, executor=executor, say=say, on_progress=on_progress,
    )  # fmt: skip
    counts = dict.fromkeys(manifest.labels, 0)
    first: list[Prediction] = []
    sink = pa.BufferOutputStream()
    writer = None
    for part in parts:
        table = _labeled(part, weights)
        for found in table.column(LABEL).to_pylist():
            counts[found] += 1
        columns = (table.column(name).slice(0, _SHOWN).to_pylist() for name in (made.column, LABEL, PROBABILITY))
        first += [Prediction(*row) for row in zip(*columns, strict=True)]
        writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True)
        writer.write_table(table)
    if writer is not None:
        writer.close()
        out.put(PREDICTIONS, sink.getvalue().to_pybytes())
    end_work(out, began=began)
    return Predicted(sum(counts.values()), counts, tuple(first[:_SHOWN]))


def _labeled(part: EmbeddedRows, probe: Probe) -> pa.Table:
    probabilities_NL = probe.probabilities(part.vectors_ND)
    best_N = probabilities_NL.argmax(axis=1)
    labels = pa.array([probe.labels[best] for best in best_N], type=pa.string())
    return part.table.append_column(LABEL, labels).append_column(PROBABILITY, pa.array(probabilities_NL.max(axis=1)))
