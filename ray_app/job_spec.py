"""The part of the document that says what to train and how. Standard library and pydantic only.

`JobSpec` is `spec` of the YAML file, the schema of the custom resource and what every worker receives: one model.
Field names follow transformers' TrainingArguments where it has one. Defaults are the recipe's for the 0.6B model.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from data_io.data_spec import DataSpec, S3Options, Section
from data_io.errors import ConfigError
from data_io.evaluation.task import parse_task
from data_io.storage.address import without_credentials

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
EVERY_PATTERN = r"^(auto|[1-9][0-9]* steps?|([1-9][0-9]*([.][0-9]+)?|0[.][0-9]*[1-9][0-9]*) min)$"


class Qwen3Architecture(Section):
    """A Qwen3 to build with random weights, for the demo and for tests; presets load weights instead."""

    hidden_size: PositiveInt = Field(128, description="Width of the residual stream, and of the embedding.")
    num_hidden_layers: PositiveInt = Field(2, description="Decoder layers.")
    num_attention_heads: PositiveInt = Field(2, description="Query heads.")
    num_key_value_heads: PositiveInt = Field(1, description="Key and value heads; must divide num_attention_heads.")
    head_dim: PositiveInt = Field(64, description="Width of one head.")
    intermediate_size: PositiveInt = Field(384, description="Width inside the feed-forward block.")
    rope_theta: Annotated[float, Field(gt=0)] = Field(1_000_000.0, description="Base of the rotary position encoding.")
    initializer_range: Annotated[float, Field(gt=0)] = Field(
        0.02, description="Standard deviation of the first weights."
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}; set num_key_value_heads: 1"
            )
        return self


class ModelSpec(Section):
    """The backbone: weights from the Hugging Face hub or a directory, or a small architecture to start from nothing."""

    name_or_path: str | None = Field(
        None, description="Hub id or local directory of a decoder model, such as Qwen/Qwen3-0.6B."
    )
    revision: str | None = Field(None, description="Hub revision; pin it for a run that must be repeatable.")
    architecture: Qwen3Architecture | None = Field(None, description="Build this Qwen3 with random weights instead.")
    tokenizer: str | None = Field(
        None,
        description="Hub id or directory of the tokenizer; null means name_or_path, or tokenizer/ in the data set.",
    )
    max_seq_length: Annotated[int, Field(ge=2, le=131072)] = Field(
        1024, description="Tokens per text, the closing EOS included."
    )
    attn_implementation: Literal["auto", "flash_attention_2", "varlen", "sdpa"] = Field(
        "auto",
        description="auto: flash-attn where installed on a GPU, else torch's varlen kernel; sdpa on CPU and for fp32.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.name_or_path is None and self.architecture is None:
            raise ValueError(
                "name_or_path=null and architecture=null, and one of them is needed; set name_or_path: Qwen/Qwen3-0.6B"
            )
        if self.name_or_path is not None and self.architecture is not None:
            raise ValueError(
                f"name_or_path={self.name_or_path} and architecture={{hidden_size: {self.architecture.hidden_size}, "
                "...} are both given, and only one can be; set architecture: null or name_or_path: null"
            )
        return self

    @property
    def needs_tokenizer_of_data(self) -> bool:
        """Whether the only tokenizer there can be is one that the data set brings along."""
        return self.tokenizer is None and self.name_or_path is None


class SkippedMicroBatch(Section):
    """One micro-batch by its place in the data order, as the error of a step that is not finite names it."""

    epoch: Annotated[int, Field(ge=0)] = Field(description="Epoch, counted from 0.")
    source: str | None = Field(None, description="Name of the source; left out where step_source is mixed.")
    micro_batch: Annotated[int, Field(ge=0)] = Field(
        description="Micro-batch of the source in that epoch, from 0; of the epoch where step_source is mixed."
    )


class TeacherSpec(Section):
    """An embedding model whose embeddings of the same texts are learnt too (distillation, as in F2LLM-v2)."""

    name_or_path: str = Field(
        description="A sentence-transformers model: hub id, or a directory such as model/ of a run."
    )
    revision: str | None = Field(None, description="Hub revision; pin it for a run that must be repeatable.")
    max_seq_length: PositiveInt | None = Field(
        None, description="Tokens of a text that it reads, counted by its own tokenizer; null means its own limit."
    )
    weight: PositiveFloat = Field(1.0, description="What the distance to its embeddings counts beside the losses.")


class TrainSpec(Section):
    """The optimization. Every default is the published recipe's (arXiv 2510.02294, Table 1, and its released code)."""

    epochs: PositiveInt = Field(2, description="Passes over the data; every row is used once in each.")
    global_batch_size: PositiveInt = Field(
        512, description="Examples per optimizer step, whatever the number of workers."
    )
    micro_batch_size: PositiveInt = Field(
        32, description="Examples that are embedded together; of one source unless step_source is mixed."
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(1e-5, description="Learning rate at the end of warm-up.")
    min_learning_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        1e-7, description="Floor of the learning rate after warm-up; at most learning_rate."
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        500, description="Optimizer steps over which the learning rate rises to its peak; the cosine starts after them."
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(0.01, description="Decoupled weight decay of AdamW.")
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Decay of AdamW's first moment.")
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.98, description="Decay of AdamW's second moment.")
    adam_epsilon: Annotated[float, Field(gt=0, le=1)] = Field(
        1e-8, description="Term that keeps AdamW's division finite."
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Norm to which the step's gradient is clipped."
    )
    temperature: Annotated[float, Field(gt=0, le=10)] = Field(
        0.05, description="Temperature of both losses: cosine similarities are divided by it."
    )
    in_batch: Literal["step", "micro_batch", "off"] = Field(
        "step",
        description="Pool of the in-batch loss: positives of the whole step, of the micro-batch, or no such loss.",
    )
    matryoshka_dims: Annotated[tuple[PositiveInt, ...], Field(max_length=32)] = Field(
        (),
        description="Both losses count for the first so many values of the embeddings too, so that these alone may be "
        "used (Matryoshka), as in [64, 128, 256]; ascending.",
    )
    matryoshka_weights: Annotated[tuple[PositiveFloat, ...], Field(max_length=32)] | None = Field(
        None,
        description="What the losses of each of matryoshka_dims count; the whole embedding's count 1. null: those of "
        "F2LLM-v2's code, 1 / (n sqrt(D / d)), n = 2 for the largest d below the embedding's D, 3 for the next.",
    )
    teacher: TeacherSpec | None = Field(
        None, description="A larger embedding model to learn from, besides the losses; null learns from none."
    )
    token_deletion: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share of the tokens of every text that training leaves out at random, others in each epoch "
        "(augmentation); 0 leaves texts whole.",
    )
    step_source: Literal["independent", "same", "mixed"] = Field(
        "independent",
        description="Whether the micro-batches of a step draw their sources one by one, share one, or are mixed: every "
        "example is then drawn by itself, so that a micro-batch has examples of many sources.",
    )
    source_sampling: Literal["proportional", "uniform"] = Field(
        "proportional",
        description="How often a source comes up: by what is left of it, or all that have rows left equally often, so "
        "that small ones end early. Every row is used once an epoch in both.",
    )
    precision: Literal["bf16", "fp32"] = Field(
        "bf16",
        description="Arithmetic of the forward and backward pass; the losses and the optimizer are fp32 in both.",
    )
    gradient_checkpointing: bool = Field(
        True, description="Compute each layer's activations again in the backward pass instead of keeping them."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Seed of the data order and of first weights.")
    record_examples: bool = Field(
        False, description="Write the hash of every query used to examples.jsonl, so that exactly-once can be audited."
    )

    skip_micro_batches: tuple[SkippedMicroBatch, ...] = Field(
        (),
        description="Micro-batches that weigh nothing, such as those of a step whose loss was not finite: they count "
        "as consumed and are in no loss and in no pool; all others are what they would have been.",
    )

    @property
    def micro_batches_per_step(self) -> int:
        """G: the slots of a step (docs/developers/design.md#data-order)."""
        return self.global_batch_size // self.micro_batch_size

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        if self.global_batch_size % self.micro_batch_size:
            lower = max(1, self.global_batch_size // self.micro_batch_size) * self.micro_batch_size
            raise ValueError(
                f"global_batch_size={self.global_batch_size} is not a multiple of "
                f"micro_batch_size={self.micro_batch_size}; set global_batch_size: {lower}"
            )
        return self

    @model_validator(mode="after")
    def _skips_fit_the_step_source(self) -> Self:
        mixed = self.step_source == "mixed"
        for skip in self.skip_micro_batches:
            if (skip.source is None) != mixed:
                raise ValueError(
                    f"skip_micro_batches has source={skip.source} where step_source is {self.step_source}; "
                    + ("leave source out: a mixed micro-batch has many" if mixed else "name the micro-batch's source")
                )
        return self

    @model_validator(mode="after")
    def _matryoshka_in_order(self) -> Self:
        if mend := out_of_order(self.matryoshka_dims, self.matryoshka_weights):
            raise ValueError(mend)
        return self

    @model_validator(mode="after")
    def _floor_below_peak(self) -> Self:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate={self.min_learning_rate:g} is above learning_rate={self.learning_rate:g}; "
                f"set min_learning_rate: {self.learning_rate / 100:g}"
            )
        return self


class WorkersSpec(Section):
    """The Ray Train workers. None of these change the result, so all of them may change between two runs of a job."""

    replicas: PositiveInt = Field(1, description="Workers to start with.")
    min: PositiveInt | None = Field(None, description="Fewest workers to train with; null means replicas.")
    max: PositiveInt | None = Field(None, description="Most workers to train with; null means replicas.")
    resize_interval_seconds: Annotated[float, Field(ge=1)] = Field(
        60, description="Least time between two looks for more workers; each resize costs a checkpoint and a start."
    )
    hang_timeout_seconds: Annotated[float, Field(ge=1)] | None = Field(
        None,
        description="A step that takes longer is a hang, and the workers are started again; null means 10 times the "
        "median step, at least 60 s (180 s while a worker waits for the store).",
    )
    prestart: bool | None = Field(
        None,
        description="Keep an idle process beside each worker that has imported everything, so that a restart takes "
        "seconds; about 1 GB of memory each. null: on a cluster yes, on this machine alone no.",
    )
    cpus: Annotated[float, Field(gt=0)] = Field(1, description="CPU cores of a worker.")
    gpus: Annotated[int, Field(ge=0, le=1)] = Field(0, description="GPUs of a worker: 0 trains on CPU, 1 on a GPU.")

    @property
    def lowest(self) -> int:
        return self.replicas if self.min is None else self.min

    @property
    def highest(self) -> int:
        return self.replicas if self.max is None else self.max

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lowest <= self.replicas <= self.highest:
            given = ", ".join(
                f"{name}={value}"
                for name, value in (("min", self.min), ("replicas", self.replicas), ("max", self.max))
                if value is not None
            )
            low, high = min(self.lowest, self.replicas), max(self.highest, self.replicas)
            raise ValueError(f"{given}: replicas must lie between min and max; set min: {low} and max: {high}")
        return self


class StorageSpec(Section):
    """Where run directories live, and how the document's s3:// URIs are reached."""

    uri: str = Field("runs", description="Directory or s3:// prefix; the run directory is <uri>/<metadata.name>.")
    s3: S3Options = Field(default_factory=S3Options, description="How to reach S3-compatible storage.")


class CheckpointSpec(Section):
    """When a run can be taken up again."""

    every: Annotated[str, Field(pattern=EVERY_PATTERN)] = Field(
        "auto",
        description="How often: `500 steps`, `10 min`, or `auto`, the time that loses least by what a save takes and "
        "how often workers fail (Young and Daly). One is always written at the end.",
    )
    keep: PositiveInt = Field(2, description="Complete checkpoints to keep; the newest is never deleted.")

    @property
    def every_steps(self) -> int | None:
        """Steps between two, None where that is a time."""
        return int(self.every.split()[0]) if "step" in self.every else None

    @property
    def every_seconds(self) -> float | None:
        """Seconds between two, None where that is `auto` or a number of steps."""
        return 60 * float(self.every.split()[0]) if "min" in self.every else None


EVALUATION_RESOURCE = "f2llm_evaluation"
"""The custom resource of Ray that the node has on which checkpoints are measured beside training."""


class EvaluationSpec(Section):
    """What is measured before and after training. Sets are named in the data set's manifest."""

    enabled: bool = Field(True, description="Measure the model on the held-out sets after training.")
    before: bool = Field(
        True, description="Also measure the model before its first step, so that the report can compare."
    )
    checkpoints: bool = Field(
        False, description="Measure checkpoints too, beside training, and keep the best of them as the model `best`."
    )
    tasks: Annotated[tuple[str, ...], Field(max_length=100)] = Field(
        (),
        description="Measure the model on these too, with mteb: its tasks and benchmarks by name, and tasks of your "
        "own as NAME:KIND=FILE, as for `f2llm evaluate --task`.",
    )
    max_queries: PositiveInt | None = Field(None, description="Use at most this many queries of a set; null means all.")
    batch_tokens: PositiveInt = Field(16384, description="Tokens embedded at once.")

    @property
    def measures_tasks(self) -> bool:
        return self.enabled and bool(self.tasks)

    @field_validator("tasks")
    @classmethod
    def _known_forms(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for text in tasks:
            if without_credentials(text) != text:
                raise ValueError(
                    f"{without_credentials(text)!r} has credentials in its address; put them into the environment"
                )
            try:
                parse_task(text)
            except ConfigError as error:
                raise ValueError(f"{error.message}; write it {error.remedy}") from error
        return tasks


class JobSpec(Section):
    """`spec` of an EmbeddingJob, complete: presets are already merged in."""

    model: ModelSpec
    data: DataSpec
    train: TrainSpec = Field(default_factory=TrainSpec)
    workers: WorkersSpec = Field(default_factory=WorkersSpec)
    storage: StorageSpec = Field(default_factory=StorageSpec)
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)

    @model_validator(mode="after")
    def _dims_of_the_architecture(self) -> Self:
        # The width of a model that is loaded is not known before it is.
        built, dims = self.model.architecture, self.train.matryoshka_dims
        if built is not None and (mend := too_wide(dims, built.hidden_size)):
            raise ValueError(f"{mend} or model.architecture.hidden_size: {dims[-1]}")
        return self

    @model_validator(mode="after")
    def _kernel_takes_the_precision(self) -> Self:
        kernel = self.model.attn_implementation
        if self.train.precision == "fp32" and kernel not in ("auto", "sdpa"):
            raise ValueError(
                f"model.attn_implementation={kernel} takes 16-bit numbers alone, and train.precision=fp32; "
                "set model.attn_implementation: auto or train.precision: bf16"
            )
        return self

    @model_validator(mode="after")
    def _every_gpu_has_work(self) -> Self:
        slots, fewest = self.train.micro_batches_per_step, self.workers.lowest
        # A CPU worker without a micro-batch runs empty passes and changes nothing; a GPU would be paid for nothing.
        if self.workers.gpus and slots < fewest:
            field = "workers.replicas" if self.workers.min is None else "workers.min"
            raise ValueError(
                f"train.global_batch_size={self.train.global_batch_size} is {slots} micro-batches of "
                f"train.micro_batch_size={self.train.micro_batch_size}, less than {field}={fewest}; set "
                f"train.global_batch_size: {fewest * self.train.micro_batch_size} or workers.min: {slots}"
            )
        return self


def out_of_order(dims: Sequence[int], weights: Sequence[float] | None) -> str | None:
    """What is wrong with matryoshka_dims that do not ascend, or weights that are not one each; None where nothing is.

    What to set instead follows the last semicolon, as in `too_wide`.
    """
    if list(dims) != (ascending := sorted(set(dims))):
        return (
            f"matryoshka_dims={_text(dims)} does not ascend; set matryoshka_dims: {_text(ascending)} "
            "and matryoshka_weights: null"
        )
    if weights is not None and len(weights) != len(dims):
        return (
            f"matryoshka_weights={_text(weights)} are {len(weights)}, and matryoshka_dims={_text(dims)} are "
            f"{len(dims)}; set matryoshka_weights: null"
        )
    return None


def too_wide(dims: Sequence[int], hidden_size: int) -> str | None:
    """What is wrong with matryoshka_dims that embeddings of `hidden_size` values do not have; None where nothing is."""
    if not dims or dims[-1] <= hidden_size:
        return None
    return (
        f"train.matryoshka_dims={_text(dims)} asks for {dims[-1]} values, and the model's embeddings have "
        f"hidden_size={hidden_size}; set train.matryoshka_dims: {_text(dim for dim in dims if dim <= hidden_size)}"
    )


def _text(values: Iterable[float]) -> str:
    """Numbers as a document lists them."""
    return f"[{','.join(f'{value:g}' for value in values)}]"
