"""What the command line does with embeddings, each through the door to heavy modules (`jobs.backend`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from jobs.backend import function, pieces_run, quiet_libraries
from jobs.errors import ConfigError
from jobs.models import instruction_of, query_prefix

if TYPE_CHECKING:
    from applications.classify import Predicted, ProbeManifest
    from applications.cluster import Clusters
    from applications.index import Built
    from applications.index_files import IndexManifest
    from applications.search import Hit, Method
    from data_io.config import S3Options
    from data_io.work import Run
    from jobs.backend import Target


def index(
    address: str,
    out: str,
    s3: "S3Options",
    *,
    model: str,
    batch_tokens: int,
    workers: int | None,
    gpus: int,
    **options: Any,
) -> "Built":
    """Index the texts of files in `out`."""
    quiet_libraries()
    open_store, build = function("open_store"), function("build_index")
    found = function("find_exported")(open_store(model, s3), batch_tokens=batch_tokens)
    built: Built = build(found, address, open_store(out, s3), run=_run(workers, gpus), **options)
    return built


def search(
    place: str,
    s3: "S3Options",
    queries: Sequence[str],
    *,
    method: "Method",
    k: int,
    model: str | None,
    prompt: str | None,
    instruction: str | None,
) -> "list[list[Hit]]":
    """The best k texts of an index for each query. The model is loaded where vectors are compared only."""
    quiet_libraries()
    with function("open_index")(function("open_store")(place, s3)) as opened:

        def encode(texts: Sequence[str]) -> Any:
            manifest: IndexManifest = opened.manifest
            found = _model_of(place, manifest, model, s3)
            prefix = query_prefix(found, prompt, instruction)
            encoder = function("open_encoder")(found, function("Cut")(manifest.cut))
            return encoder.encode([prefix + text for text in texts])

        hits: list[list[Hit]] = list(opened.search(queries, encode, method=method, k=k))
    return hits


def like(place: str, s3: "S3Options", ids: Sequence[str], *, k: int) -> "list[Hit]":
    """The k texts of an index that are nearest to these."""
    quiet_libraries()
    with function("open_index")(function("open_store")(place, s3)) as opened:
        hits: list[Hit] = opened.like(ids, k=k)
    return hits


def train_classifier(address: str, out: str, s3: "S3Options", **options: Any) -> "ProbeManifest":
    """Train a linear probe on labelled texts into `out`; options as `_made_of_texts` has them."""
    trained: ProbeManifest = _made_of_texts("train", address, out, s3, **options)
    return trained


def cluster_texts(address: str, out: str, s3: "S3Options", **options: Any) -> "Clusters":
    """Group the texts of files into `out`, with a map; options as `_made_of_texts` has them."""
    grouped: Clusters = _made_of_texts("cluster_texts", address, out, s3, **options)
    return grouped


def _made_of_texts(
    make: "Target",
    address: str,
    out: str,
    s3: "S3Options",
    *,
    model: str,
    prompt: str | None,
    instruction: str | None,
    batch_tokens: int,
    workers: int | None,
    gpus: int,
    **options: Any,
) -> Any:
    """What `make` makes in `out` of texts behind the model's prompt of that name, or behind an instruction."""
    quiet_libraries()
    open_store, made = function("open_store"), function(make)
    found = function("find_exported")(open_store(model, s3), batch_tokens=batch_tokens)
    before = instruction_of(found, prompt, instruction)
    return made(found, address, open_store(out, s3), instruction=before, run=_run(workers, gpus), **options)


def predict_labels(
    probe: str,
    address: str,
    out: str,
    s3: "S3Options",
    *,
    model: str | None,
    batch_tokens: int,
    workers: int | None,
    gpus: int,
    **options: Any,
) -> "Predicted":
    """Label the texts of files with a probe."""
    quiet_libraries()
    open_store = function("open_store")
    manifest, weights = function("read_probe")(open_store(probe, s3))
    found = _model_of(probe, manifest, model, s3, batch_tokens=batch_tokens)
    predicted: Predicted = function("predict")(
        found, (manifest, weights), address, open_store(out, s3), run=_run(workers, gpus), **options
    )
    return predicted


def _run(workers: int | None, gpus: int) -> "Run":
    """As `pieces_run`, but a single piece starts no Ray: few texts are done before it would be there."""

    def run(work: Callable[[Any], Any], pieces: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        todo = list(pieces)
        here = function("in_process")
        none: AbstractContextManager[dict[str, Any]] = nullcontext({})
        with pieces_run(workers, gpus=gpus) if gpus or len(todo) > 1 else none as options:
            yield from options.get("run", here)(work, todo)

    return run


def _model_of(
    place: str,
    manifest: "IndexManifest | ProbeManifest",
    model: str | None,
    s3: "S3Options",
    **options: Any,
) -> Any:
    """The model that an index or a probe was made with. Raises ConfigError where another lies in its place."""
    found = function("find_exported")(function("open_store")(model or manifest.model_uri, s3), **options)
    if found.fingerprint != manifest.fingerprint:
        raise ConfigError(
            f"{model or manifest.model_uri} is not the model that {place} was made with ({manifest.model})",
            remedy="name the folder of that model with --model, or make it again",
        )
    return found
