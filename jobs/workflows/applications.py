"""Search, classify and cluster texts with a trained model. Needs the extra `applications`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from applications import classify, cluster
from applications.classify import Predicted, ProbeManifest, read_probe
from applications.cluster import Clusters
from applications.grouping import GroupMethod
from applications.index import Built, build_index
from applications.index_files import IndexManifest, VectorKind
from applications.search import Hit, Method, open_index
from data_io.data_spec import S3Options
from data_io.execution import Executor, Say, in_process
from data_io.storage.store import open_store
from jobs.errors import ConfigError
from jobs.workflows.models import instruction_of, query_prefix
from jobs.workflows.processes import task_executor
from ray_app.inference.embed_files import OnEmbedding
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import ExportedModel, find_model, open_encoder


def index(
    address: str,
    out: str,
    s3: S3Options,
    *,
    model: str,
    column: str | None,
    id_column: str | None,
    dimensions: int | None,
    vectors: VectorKind,
    batch_tokens: int,
    workers: int | None,
    gpus: int,
    say: Say,
    on_progress: OnEmbedding,
) -> Built:
    """Index the texts of files in `out`."""
    found = find_model(model, s3, batch_tokens=batch_tokens)
    return build_index(
        found, address, open_store(out, s3), column=column, id_column=id_column, dimensions=dimensions,
        vectors=vectors, executor=_executor(workers, gpus), say=say, on_progress=on_progress,
    )  # fmt: skip


def search(
    place: str,
    s3: S3Options,
    queries: Sequence[str],
    *,
    method: Method,
    k: int,
    model: str | None,
    prompt: str | None,
    instruction: str | None,
) -> list[list[Hit]]:
    """The best k texts of an index for each query. The model is loaded only if vectors are compared."""
    with open_index(open_store(place, s3)) as opened:

        def encode(texts: Sequence[str]) -> Any:
            found = _model_of(place, opened.manifest, model, s3)
            prefix = query_prefix(found, prompt, instruction)
            encoder = open_encoder(found, Cut(opened.manifest.cut))
            return encoder.encode([prefix + text for text in texts])

        return list(opened.search(queries, encode, method=method, k=k))


def like(place: str, s3: S3Options, ids: Sequence[str], *, k: int) -> list[Hit]:
    """The k texts of an index that are nearest to the texts with these ids."""
    with open_index(open_store(place, s3)) as opened:
        return opened.like(ids, k=k)


def train_classifier(
    address: str,
    out: str,
    s3: S3Options,
    *,
    model: str,
    label: str,
    column: str | None,
    prompt: str | None,
    instruction: str | None,
    dimensions: int | None,
    held_out: float,
    seed: int,
    batch_tokens: int,
    workers: int | None,
    gpus: int,
    say: Say,
    on_progress: OnEmbedding,
) -> ProbeManifest:
    """Train a linear probe on labeled texts into `out`; `prompt` or `instruction` goes before each text."""
    found = find_model(model, s3, batch_tokens=batch_tokens)
    return classify.train(
        found, address, open_store(out, s3), label=label, column=column,
        instruction=instruction_of(found, prompt, instruction), dimensions=dimensions, held_out=held_out, seed=seed,
        executor=_executor(workers, gpus), say=say, on_progress=on_progress,
    )  # fmt: skip


def predict_labels(
    probe: str,
    address: str,
    out: str,
    s3: S3Options,
    *,
    model: str | None,
    column: str | None,
    batch_tokens: int,
    workers: int | None,
    gpus: int,
    say: Say,
    on_progress: OnEmbedding,
) -> Predicted:
    """Label the texts of files with a probe."""
    manifest, weights = read_probe(open_store(probe, s3))
    found = _model_of(probe, manifest, model, s3, batch_tokens=batch_tokens)
    return classify.predict(
        found, (manifest, weights), address, open_store(out, s3), column=column, executor=_executor(workers, gpus),
        say=say, on_progress=on_progress,
    )  # fmt: skip


def cluster_texts(
    address: str,
    out: str,
    s3: S3Options,
    *,
    model: str,
    column: str | None,
    method: GroupMethod,
    clusters: int | None,
    smallest: int,
    prompt: str | None,
    instruction: str | None,
    dimensions: int | None,
    seed: int,
    batch_tokens: int,
    workers: int | None,
    gpus: int,
    say: Say,
    on_progress: OnEmbedding,
) -> Clusters:
    """Group the texts of files into `out`, with a map; `prompt` or `instruction` goes before each text."""
    found = find_model(model, s3, batch_tokens=batch_tokens)
    return cluster.cluster_texts(
        found, address, open_store(out, s3), column=column, instruction=instruction_of(found, prompt, instruction),
        dimensions=dimensions, method=method, clusters=clusters, smallest=smallest, seed=seed,
        executor=_executor(workers, gpus), say=say, on_progress=on_progress,
    )  # fmt: skip


def _executor(workers: int | None, gpus: int) -> Executor:
    """As `task_executor`, but a single task runs in this process, which is faster than starting Ray."""

    def run(work: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        todo = list(tasks)
        with task_executor(workers, gpus=gpus) if gpus or len(todo) > 1 else nullcontext(in_process) as chosen:
            yield from chosen(work, todo)

    return run


def _model_of(
    place: str, manifest: IndexManifest | ProbeManifest, model: str | None, s3: S3Options, *, batch_tokens: int = 16384
) -> ExportedModel:
    """The model of an index or a probe. Raises ConfigError if the model was replaced by another one."""
    found = find_model(model or manifest.model_uri, s3, batch_tokens=batch_tokens)
    if found.fingerprint != manifest.fingerprint:
        raise ConfigError(
            f"{model or manifest.model_uri} is not the model that {place} was built with ({manifest.model})",
            remedy=f"pass that model with --model, or build {place} again",
        )
    return found
