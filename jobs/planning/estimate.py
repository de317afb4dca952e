"""An estimate of a job before it starts: steps, tokens, memory per worker, checkpoint size.

Pure arithmetic on the job spec, the sizes of the sources and the shape of the model. Sizes are in bytes. The result
lists every assumption.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_io.task import Kind
from jobs.errors import ConfigError
from jobs.planning.architecture import ASSUMED_VOCABULARY, Architecture
from ray_app.checkpointing.interval import ASSUMED_SECONDS_BETWEEN_FAILURES, best_interval
from ray_app.inference.hub import hub_models
from ray_app.job_spec import JobSpec, too_wide

GIB = 2**30
# DeepSpeed's default reduce_bucket_size, in elements.
_REDUCE_BUCKET = 500_000_000
_COPY_BYTES_PER_SECOND = 10**9
_STORE_BYTES_PER_SECOND = 10**8
_CUDA_CONTEXT_BYTES = 1 * GIB


@dataclass(frozen=True)
class SourceSize:
    """The size of one source from the manifest. Token means are None if they have not been counted."""

    name: str
    kind: Kind
    rows: int
    negatives: int
    query_tokens: float | None = None
    document_tokens: float | None = None
    unmined: bool = False


@dataclass(frozen=True)
class DataSize:
    """All sources of a data set, its held-out sets with their metrics, and the vocabulary size of its tokenizer (None
    without a tokenizer).
    """

    sources: tuple[SourceSize, ...]
    evaluations: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    vocabulary_size: int | None = None
    version: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Memory:
    """Bytes per worker. `activations` are those of the longest possible micro-batch."""

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.buffers + self.activations


@dataclass(frozen=True)
class Plan:
    """The estimate. Values that depend on the shape of the model are None if it is unknown."""

    sources: int
    examples_per_epoch: int
    micro_batches_per_epoch: int
    micro_batches_per_step: int
    steps_per_epoch: int
    total_steps: int
    texts_per_epoch: int
    tokens_per_epoch: int
    tokens_are: str
    workers: int
    rounds_per_step: int
    checkpoints: int | None
    parameters: int | None
    memory: Memory | None
    checkpoint_bytes: int | None
    checkpoint_seconds: float | None
    model_bytes: int | None
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        if self.memory is not None:
            values["memory"]["total"] = self.memory.total
        return values


def select_sources(spec: JobSpec, data: DataSize) -> tuple[SourceSize, ...]:
    """The sources of the job. Raises ConfigError for a name that is not in the manifest, or for an empty source."""
    known = {source.name: source for source in data.sources}
    wanted = spec.data.choose(tuple(known))
    for name in wanted:
        if known[name].rows == 0:
            raise ConfigError(
                f"spec.data.sources: {name} has no rows in {spec.data.uri}",
                remedy="remove it from spec.data.sources, or prepare the data set again",
            )
    if not wanted:
        raise ConfigError(
            f"{spec.data.uri} has no source to train on",
            remedy="prepare the data set again; see `f2llm data prepare --help`",
        )
    return tuple(known[name] for name in wanted)


def estimate_job(spec: JobSpec, data: DataSize, architecture: Architecture | None) -> Plan:
    """Estimate a job. Raises ConfigError if the data set or the model does not fit the job spec."""
    sources = select_sources(spec, data)
    if architecture is not None and (problem := too_wide(spec.train.matryoshka_dims, architecture.hidden_size)):
        message, _, remedy = problem.rpartition("; ")
        raise ConfigError(f"spec.{message}", remedy=remedy)
    train, workers = spec.train, spec.workers.replicas
    slots = train.micro_batches_per_step
    micro_batches = [-(-source.rows // train.micro_batch_size) for source in sources]
    if train.step_source == "mixed":
        micro_batches = [-(-sum(source.rows for source in sources) // train.micro_batch_size)]
    if train.step_source == "same":
        steps = sum(-(-count // slots) for count in micro_batches)
    else:
        steps = -(-sum(micro_batches) // slots)
    total_steps = steps * train.epochs
    texts, tokens, counted = _tokens(spec, sources)
    return Plan(
        sources=len(sources),
        examples_per_epoch=sum(source.rows for source in sources),
        micro_batches_per_epoch=sum(micro_batches),
        micro_batches_per_step=slots,
        steps_per_epoch=steps,
        total_steps=total_steps,
        texts_per_epoch=texts,
        tokens_per_epoch=tokens,
        tokens_are="mean lengths of the manifest" if counted else "an upper bound",
        workers=workers,
        rounds_per_step=-(-slots // workers),
        checkpoints=-(-total_steps // every_steps) if (every_steps := spec.checkpoint.every_steps) else None,
        parameters=None if architecture is None else architecture.parameters,
        memory=None if architecture is None else memory_of(spec, sources, architecture, workers=workers),
        checkpoint_bytes=None if architecture is None else 12 * architecture.parameters,
        checkpoint_seconds=None if architecture is None else _best_interval(architecture, workers),
        model_bytes=None if architecture is None else _weight_bytes(spec) * architecture.parameters,
        assumptions=tuple(_assumptions(spec, data, architecture, counted=counted)),
        warnings=tuple(_warnings(spec, data, sources, architecture, total_steps=total_steps)),
    )


def memory_of(spec: JobSpec, sources: Sequence[SourceSize], architecture: Architecture, *, workers: int) -> Memory:
    """Memory of one of `workers` workers with ZeRO stage 2, for the longest micro-batch that the job spec allows."""
    size, count = _weight_bytes(spec), architecture.parameters
    texts = max(_texts_per_row(spec, source) for source in sources) * spec.train.micro_batch_size
    tokens = texts * spec.model.max_seq_length
    layer = size * architecture.layer_values_per_token * tokens
    boundary = size * architecture.hidden_size * tokens
    layers = architecture.num_hidden_layers
    return Memory(
        weights=size * count,
        gradients=-(-(size + 4) * count // workers),
        optimizer=-(-12 * count // workers),
        buffers=size * min(count, _REDUCE_BUCKET) + (_CUDA_CONTEXT_BYTES if spec.workers.gpus else 0),
        activations=layers * boundary + 2 * layer if spec.train.gradient_checkpointing else (layers + 1) * layer,
    )


def _best_interval(architecture: Architecture, workers: int) -> float:
    """Seconds between checkpoints that minimize lost time, from assumptions instead of measurements."""
    share = 12 * architecture.parameters / workers
    return best_interval(
        stall_seconds=share / _COPY_BYTES_PER_SECOND,
        save_seconds=share / _STORE_BYTES_PER_SECOND,
        seconds_between_failures=ASSUMED_SECONDS_BETWEEN_FAILURES,
    )


def _weight_bytes(spec: JobSpec) -> int:
    return 2 if spec.train.precision == "bf16" else 4


def _texts_per_row(spec: JobSpec, source: SourceSize) -> int:
    return 2 + min(spec.data.hard_negatives.of(source.kind), source.negatives)


def _tokens(spec: JobSpec, sources: Iterable[SourceSize]) -> tuple[int, int, bool]:
    """(texts per epoch, tokens per epoch, whether the token means of all sources are known)."""
    longest = spec.model.max_seq_length
    texts, tokens, counted = 0, 0.0, True
    for source in sources:
        counted = counted and source.query_tokens is not None and source.document_tokens is not None
        query = min(longest, source.query_tokens or longest)
        document = min(longest, source.document_tokens or longest)
        per_row = _texts_per_row(spec, source)
        texts += source.rows * per_row
        tokens += source.rows * (query + (per_row - 1) * document)
    return texts, round(tokens * (1 - spec.train.token_deletion)), counted


def _assumptions(spec: JobSpec, data: DataSize, architecture: Architecture | None, *, counted: bool) -> Iterable[str]:
    longest, size = spec.model.max_seq_length, _weight_bytes(spec)
    if not counted:
        yield f"tokens: without token counts, every text counts as max_seq_length={longest}"
    for role, place in hub_models(spec):
        if "@" not in place:
            yield f"{role}: the commit of {place} at the first start of the run, since no revision is set"
    if architecture is None:
        return
    if spec.model.architecture is not None and data.vocabulary_size is None:
        yield f"vocabulary: {ASSUMED_VOCABULARY} ids, since the data set has no tokenizer"
    yield f"weights: {size} bytes per parameter on every worker ({spec.train.precision})"
    yield f"gradients: {size} + 4 bytes per parameter (as computed, and in fp32 for the update), divided by the workers"
    yield "optimizer: 12 bytes per parameter (fp32 weight and two moments), divided by the workers (ZeRO stage 2)"
    yield f"buffers: a reduce bucket of 500 million elements{', 1 GiB of CUDA context' if spec.workers.gpus else ''}"
    kept = "each layer's input, and two layers in full" if spec.train.gradient_checkpointing else "every layer in full"
    yield f"activations: every text of a micro-batch {longest} tokens long, packed without padding; {kept}"
    if spec.train.teacher is not None:
        yield f"teacher: memory and time of {spec.train.teacher.name_or_path} on every worker are not included"
    yield "checkpoint: 12 bytes per parameter, for any number of workers"
    yield (
        f"time between checkpoints: each worker copies {_COPY_BYTES_PER_SECOND // 10**9} GB/s and uploads "
        f"{_STORE_BYTES_PER_SECOND // 10**6} MB/s, one failure per day; `checkpoint.every: auto` measures them"
    )


def _warnings(
    spec: JobSpec,
    data: DataSize,
    sources: Sequence[SourceSize],
    architecture: Architecture | None,
    *,
    total_steps: int,
) -> Iterable[str]:
    train, workers, slots = spec.train, spec.workers.replicas, spec.train.micro_batches_per_step
    from_scratch = spec.model.architecture is not None and spec.model.tokenizer is None
    if from_scratch and data.version and data.vocabulary_size is None:
        yield (
            "the run will be refused: model.tokenizer is not set, and the data set has no tokenizer; "
            "prepare the data set with --tokenizer-vocabulary, or set model.tokenizer"
        )
    if train.precision == "bf16" and not spec.workers.gpus:
        yield (
            "train.precision is bf16 and workers.gpus is 0: most CPUs compute with bf16 several times slower than with "
            "fp32; set train.precision: fp32, or workers.gpus: 1"
        )
    if train.warmup_steps >= total_steps:
        yield (
            f"train.warmup_steps={train.warmup_steps} is not below the {total_steps} steps of the job, so the learning "
            f"rate never reaches its peak; try train.warmup_steps: {total_steps // 10}"
        )
    if slots % workers:
        rounds = -(-slots // workers)
        yield (
            f"workers.replicas={workers} does not divide the {slots} micro-batches of a step, so workers are idle for "
            f"{1 - slots / (rounds * workers):.0%} of a step; the result is the same"
        )
    if (spec.checkpoint.every_steps or 0) >= total_steps:
        yield f"checkpoint.every={spec.checkpoint.every}: a job of {total_steps} steps has only its last checkpoint"
    for source in sources:
        wanted = spec.data.hard_negatives.of(source.kind)
        if source.negatives < wanted:
            yield (
                f"data.hard_negatives.{source.kind}={wanted}, but {source.name} has {source.negatives} per row, "
                "which training uses"
            )
    if train.in_batch != "off" and not any(source.kind.uses_in_batch_negatives for source in sources):
        yield f"train.in_batch={train.in_batch} has no effect: no source has the task type retrieval"
    if architecture is None:
        yield f"the shape of {spec.model.name_or_path} is unknown, so memory and checkpoint size are not estimated"
    elif not spec.workers.gpus and architecture.parameters > 200_000_000:
        millions = architecture.parameters // 1_000_000
        yield f"workers.gpus=0: {millions} million parameters on CPU take days; set workers.gpus: 1"
