"""The part of the job spec that defines the training. Standard library and pydantic only.

One model, `JobSpec`, is `spec` of the YAML file, part of the schema of the CustomResourceDefinition, and the
configuration that every worker receives. Field names follow transformers' TrainingArguments if it has the field.
Defaults are those of the recipe for the 0.6B model.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
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
    """A Qwen3 that is built with random weights, for the demo and for tests. Presets load weights instead."""

    hidden_size: PositiveInt = Field(128, description="Width of the residual stream and of the embedding.")
    num_hidden_layers: PositiveInt = Field(2, description="Number of decoder layers.")
    num_attention_heads: PositiveInt = Field(2, description="Number of query heads.")
    num_key_value_heads: PositiveInt = Field(
        1, description="Number of key and value heads; it must divide num_attention_heads."
    )
    head_dim: PositiveInt = Field(64, description="Width of one attention head.")
    intermediate_size: PositiveInt = Field(384, description="Width inside the feed-forward block.")
    rope_theta: Annotated[float, Field(gt=0)] = Field(1_000_000.0, description="Base of the rotary position encoding.")
    initializer_range: Annotated[float, Field(gt=0)] = Field(
        0.02, description="Standard deviation of the random initial weights."
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
    """The backbone: weights from the Hugging Face Hub or a directory, or a small architecture to train from scratch."""

    name_or_path: str | None = Field(
        None,
        description="Decoder model that provides the initial weights: Hub id, such as Qwen/Qwen3-0.6B, or local "
        "directory.",
    )
    revision: str | None = Field(
        None,
        description="Revision on the Hub: commit, tag or branch. null: the default branch. A run keeps the commit of "
        "its first start. Set a commit to repeat it.",
    )
    architecture: Qwen3Architecture | None = Field(
        None, description="Build this Qwen3 with random weights. Set it instead of name_or_path to train from scratch."
    )
    tokenizer: str | None = Field(
        None,
        description="Hub id (ORG/NAME or ORG/NAME@REVISION) or directory of the tokenizer. null: that of name_or_path, "
        "or tokenizer/ of the data set if name_or_path is null.",
    )
    max_seq_length: Annotated[int, Field(ge=2, le=131072)] = Field(
        1024,
        description="Most tokens per text, including the final EOS token; longer texts are cut. Lower it to save "
        "memory.",
    )
    attn_implementation: Literal["auto", "flash_attention_2", "varlen", "sdpa"] = Field(
        "auto",
        description="Attention kernel. auto: on a GPU flash-attn if it is installed, or torch's varlen kernel; sdpa on "
        "CPU and with fp32.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.name_or_path is None and self.architecture is None:
            raise ValueError(
                "name_or_path and architecture are both null, and one of them is required; set name_or_path: "
                "Qwen/Qwen3-0.6B"
            )
        if self.name_or_path is not None and self.architecture is not None:
            raise ValueError(
                f"name_or_path={self.name_or_path} and architecture={{hidden_size: {self.architecture.hidden_size}, "
                "...} are both set, and only one of them can be; set architecture: null or name_or_path: null"
            )
        return self

    @property
    def tokenizer_source(self) -> tuple[str | None, str | None]:
        """Directory or Hub id of the tokenizer, and its revision on the Hub."""
        if self.tokenizer is None:
            return self.name_or_path, self.revision
        if Path(self.tokenizer).exists():
            return self.tokenizer, None
        name, _, revision = self.tokenizer.partition("@")
        return name, revision or None

    @property
    def needs_tokenizer_of_data(self) -> bool:
        """Whether the tokenizer must come from the data set, because the model brings none."""
        return self.tokenizer is None and self.name_or_path is None


class SkippedMicroBatch(Section):
    """One micro-batch by its position in the data order, as the error about a non-finite loss prints it."""

    epoch: Annotated[int, Field(ge=0)] = Field(description="Epoch, counted from 0.")
    source: str | None = Field(None, description="Name of the source. Leave it out if step_source is mixed.")
    micro_batch: Annotated[int, Field(ge=0)] = Field(
        description="Number of the micro-batch within its source in that epoch, counted from 0. If step_source is "
        "mixed: number within the epoch."
    )


class TeacherSpec(Section):
    """A teacher model: its embeddings of the same texts are an additional training target (as in F2LLM-v2)."""

    name_or_path: str = Field(
        description="Sentence-transformers model: Hub id, or a directory such as model/ of a run."
    )
    revision: str | None = Field(
        None,
        description="Revision on the Hub: commit, tag or branch. null: the default branch. A run keeps the commit of "
        "its first start. Set a commit to repeat it.",
    )
    max_seq_length: PositiveInt | None = Field(
        None,
        description="Most tokens per text that the teacher reads, counted by its own tokenizer. null: the teacher's "
        "limit.",
    )
    weight: PositiveFloat = Field(
        1.0,
        description="Weight of the distillation loss, which is the distance to the teacher's embeddings. Each "
        "contrastive loss has weight 1.",
    )


class TrainSpec(Section):
    """The optimization. Each default is the value of the published recipe (arXiv 2510.02294, Table 1, and its code)."""

    epochs: PositiveInt = Field(2, description="Number of passes over the data. Each epoch uses every row once.")
    global_batch_size: PositiveInt = Field(
        512,
        description="Examples per optimizer step over all workers; it does not depend on their number. It must be a "
        "multiple of micro_batch_size.",
    )
    micro_batch_size: PositiveInt = Field(
        32,
        description="Examples per forward and backward pass of a worker, from one source unless step_source is mixed. "
        "Lower it if a GPU runs out of memory.",
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        1e-5, description="Peak learning rate, reached after the warm-up."
    )
    min_learning_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        1e-7, description="Lowest learning rate after the warm-up. It must not exceed learning_rate."
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        500,
        description="Optimizer steps of linear warm-up to learning_rate; the cosine decay follows. Lower it if the job "
        "has few steps.",
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(0.01, description="Decoupled weight decay of AdamW.")
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Decay rate of AdamW's first moment.")
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.98, description="Decay rate of AdamW's second moment.")
    adam_epsilon: Annotated[float, Field(gt=0, le=1)] = Field(
        1e-8, description="Small constant in the denominator of AdamW's update, for numerical stability."
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Norm to which the gradient of a step is clipped."
    )
    temperature: Annotated[float, Field(gt=0, le=10)] = Field(
        0.05, description="Temperature of the contrastive losses, which divide cosine similarities by it."
    )
    in_batch: Literal["step", "micro_batch", "off"] = Field(
        "step",
        description="In-batch negatives for retrieval sources. step: the positives of the whole step, across workers; "
        "micro_batch: those of the micro-batch; off: none.",
    )
    matryoshka_dims: Annotated[tuple[PositiveInt, ...], Field(max_length=32)] = Field(
        (),
        description="Train the first N values of the embedding to work alone, for each N listed (Matryoshka). "
        "Ascending, for example [64, 128, 256]. Empty: off.",
    )
    matryoshka_weights: Annotated[tuple[PositiveFloat, ...], Field(max_length=32)] | None = Field(
        None,
        description="Loss weight of each of matryoshka_dims; the whole embedding has weight 1. null: the weights of "
        "the F2LLM-v2 code, 1 / (n sqrt(D / d)). D is the embedding's width; n is 2 for the largest d, 3 for the next.",
    )
    teacher: TeacherSpec | None = Field(
        None,
        description="Embedding model to distill from, in addition to the contrastive losses. null: no distillation.",
    )
    token_deletion: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share of the tokens of each text that training deletes at random (augmentation). Each epoch "
        "deletes different ones. 0: off.",
    )
    step_source: Literal["independent", "same", "mixed"] = Field(
        "independent",
        description="Sources within a step. independent: each micro-batch has one source, drawn by itself; same: all "
        "micro-batches share one; mixed: each example is drawn by itself.",
    )
    source_sampling: Literal["proportional", "uniform"] = Field(
        "proportional",
        description="Probability of drawing a source. proportional: by its remaining rows; uniform: equal for all that "
        "have rows left, so small ones end early. Both use each row once per epoch.",
    )
    precision: Literal["bf16", "fp32"] = Field(
        "bf16",
        description="Number format of the forward and backward pass. The losses and the optimizer always use fp32. Use "
        "fp32 for small models on CPU.",
    )
    gradient_checkpointing: bool = Field(
        True,
        description="Recompute the activations of each layer in the backward pass: slower, but much less memory. Set "
        "false if memory is sufficient.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Seed of the data order and of random weights.")
    record_examples: bool = Field(
        False,
        description="Write a hash of each query that was used to examples.jsonl, to verify that each row was used "
        "exactly once.",
    )

    skip_micro_batches: tuple[SkippedMicroBatch, ...] = Field(
        (),
        description="Micro-batches to leave out, for example those that made the loss non-finite. They count as "
        "consumed with weight 0 and provide no negatives. The rest of the order does not change.",
    )

    @property
    def micro_batches_per_step(self) -> int:
        """G: the micro-batches of a step (docs/developers/design.md#data-order)."""
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
                    f"skip_micro_batches has source={skip.source}, but step_source is {self.step_source}; "
                    + ("remove source: a mixed micro-batch has many" if mixed else "name the source of the micro-batch")
                )
        return self

    @model_validator(mode="after")
    def _matryoshka_in_order(self) -> Self:
        if problem := out_of_order(self.matryoshka_dims, self.matryoshka_weights):
            raise ValueError(problem)
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
    """The Ray Train workers. No field here changes the result, so all of them may change when a run is resumed."""

    replicas: PositiveInt = Field(
        1,
        description="Number of workers. Outside Kubernetes: the default of min and max. On Kubernetes: the number of "
        "worker pods, which you can change at any time, for example with `kubectl scale`.",
    )
    min: PositiveInt | None = Field(
        None,
        description="Fewest workers to train with. null: `replicas` outside Kubernetes, 1 on Kubernetes. On Kubernetes "
        "a start waits for all `replicas` pods. With `min` set, it begins with fewer after the start timeout of the "
        "operator.",
    )
    max: PositiveInt | None = Field(
        None,
        description="Most workers to train with. null: `replicas` outside Kubernetes. On Kubernetes it is only an "
        "upper limit for `replicas`, and null sets no limit. Workers beyond one per micro-batch of a step are idle.",
    )
    resize_interval_seconds: Annotated[float, Field(ge=1)] = Field(
        60,
        description="Seconds between two checks for additional workers. Each resize costs a checkpoint and a restart "
        "of the workers.",
    )
    hang_timeout_seconds: Annotated[float, Field(ge=1)] | None = Field(
        None,
        description="Seconds after which a step counts as hung, and the workers are restarted. null: 10 times the "
        "median step time, at least 60 s (180 s while a worker waits for the object store).",
    )
    prestart: bool | None = Field(
        None,
        description="Keep one pre-warmed idle process per worker, so that a restart takes seconds. Each needs about 1 "
        "GB of memory. null: true on a Ray cluster, false on a single machine.",
    )
    cpus: Annotated[float, Field(gt=0)] = Field(1, description="CPUs per worker.")
    gpus: Annotated[int, Field(ge=0, le=1)] = Field(0, description="GPUs per worker: 0 trains on CPU, 1 on a GPU.")

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
    """The location of run directories, and the connection for all s3:// URIs of the job spec."""

    uri: str = Field(
        "runs",
        description="Directory or s3:// prefix for run directories; that of the job is <uri>/<metadata.name>. On "
        "Kubernetes: s3://, or a directory of a mounted volume.",
    )
    s3: S3Options = Field(
        default_factory=S3Options, description="Connection to S3-compatible storage, used for every s3:// URI."
    )


class CheckpointSpec(Section):
    """Checkpoints, from which a run resumes."""

    every: Annotated[str, Field(pattern=EVERY_PATTERN)] = Field(
        "auto",
        description="Interval: `500 steps`, `10 min`, or `auto`. auto minimizes lost time, from the measured cost of a "
        "save and the failure rate of workers (Young and Daly). The last step always writes one.",
    )
    keep: PositiveInt = Field(2, description="Number of complete checkpoints to keep. The newest is never deleted.")

    @property
    def every_steps(self) -> int | None:
        """Steps between two checkpoints; None if `every` is a time or `auto`."""
        return int(self.every.split()[0]) if "step" in self.every else None

    @property
    def every_seconds(self) -> float | None:
        """Seconds between two checkpoints; None if `every` is a number of steps or `auto`."""
        return 60 * float(self.every.split()[0]) if "min" in self.every else None


EVALUATION_RESOURCE = "f2llm_evaluation"
"""Ray's name for the resource of the node that evaluates checkpoints during training."""


class EvaluationSpec(Section):
    """Evaluation before, during and after training, on the held-out sets that the manifest of the data set lists."""

    enabled: bool = Field(True, description="Evaluate the model on the held-out sets after training.")
    before: bool = Field(
        True, description="Also evaluate the model before the first step, so that the report can compare the two."
    )
    checkpoints: bool = Field(
        False,
        description="Also evaluate checkpoints during training, and keep the best of them as the model `best`. On "
        "Kubernetes this takes one more pod like a worker's.",
    )
    tasks: Annotated[tuple[str, ...], Field(max_length=100)] = Field(
        (),
        description="Additional tasks to evaluate with mteb: its tasks and benchmarks by name, and your own as "
        "NAME:KIND=FILE, as for `f2llm evaluate --task`.",
    )
    max_queries: PositiveInt | None = Field(None, description="Most queries to use per held-out set. null: all.")
    batch_tokens: PositiveInt = Field(
        16384, description="Tokens per batch during evaluation. Lower it if memory runs out."
    )

    @property
    def measures_tasks(self) -> bool:
        return self.enabled and bool(self.tasks)

    @field_validator("tasks")
    @classmethod
    def _known_forms(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for text in tasks:
            if without_credentials(text) != text:
                raise ValueError(
                    f"{without_credentials(text)!r} contains credentials; put them into environment variables"
                )
            try:
                parse_task(text)
            except ConfigError as error:
                raise ValueError(f"{error.message}; write it {error.remedy}") from error
        return tasks


class JobSpec(Section):
    """`spec` of an EmbeddingJob with its preset already merged in."""

    model: ModelSpec
    data: DataSpec
    train: TrainSpec = Field(default_factory=TrainSpec)
    workers: WorkersSpec = Field(default_factory=WorkersSpec)
    storage: StorageSpec = Field(default_factory=StorageSpec)
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)

    @model_validator(mode="after")
    def _dims_of_the_architecture(self) -> Self:
        # The width of a pretrained model is unknown until it is loaded.
        built, dims = self.model.architecture, self.train.matryoshka_dims
        if built is not None and (problem := too_wide(dims, built.hidden_size)):
            raise ValueError(f"{problem} or model.architecture.hidden_size: {dims[-1]}")
        return self

    @model_validator(mode="after")
    def _kernel_takes_the_precision(self) -> Self:
        kernel = self.model.attn_implementation
        if self.train.precision == "fp32" and kernel not in ("auto", "sdpa"):
            raise ValueError(
                f"model.attn_implementation={kernel} supports only 16-bit numbers, but train.precision=fp32; "
                "set model.attn_implementation: auto or train.precision: bf16"
            )
        return self

    @model_validator(mode="after")
    def _every_gpu_has_work(self) -> Self:
        slots, fewest = self.train.micro_batches_per_step, self.workers.lowest
        # A CPU worker without a micro-batch runs empty passes and changes no result; an idle GPU costs money.
        if self.workers.gpus and slots < fewest:
            field = "workers.replicas" if self.workers.min is None else "workers.min"
            raise ValueError(
                f"train.global_batch_size={self.train.global_batch_size} gives {slots} micro-batches of "
                f"train.micro_batch_size={self.train.micro_batch_size}, fewer than {field}={fewest}; set "
                f"train.global_batch_size: {fewest * self.train.micro_batch_size} or workers.min: {slots}"
            )
        return self


def out_of_order(dims: Sequence[int], weights: Sequence[float] | None) -> str | None:
    """The problem if matryoshka_dims do not ascend, or do not have one weight each; None if they are valid.

    The fix follows the last semicolon, as in `too_wide`.
    """
    if list(dims) != (ascending := sorted(set(dims))):
        return (
            f"matryoshka_dims={_text(dims)} does not ascend; set matryoshka_dims: {_text(ascending)} "
            "and matryoshka_weights: null"
        )
    if weights is not None and len(weights) != len(dims):
        return (
            f"matryoshka_weights={_text(weights)} has {len(weights)} values, and matryoshka_dims={_text(dims)} has "
            f"{len(dims)}; set matryoshka_weights: null"
        )
    return None


def too_wide(dims: Sequence[int], hidden_size: int) -> str | None:
    """The problem if matryoshka_dims exceed an embedding of `hidden_size` values; None if they are valid."""
    if not dims or dims[-1] <= hidden_size:
        return None
    return (
        f"train.matryoshka_dims={_text(dims)} asks for {dims[-1]} values, but the model's embeddings have "
        f"hidden_size={hidden_size}; set train.matryoshka_dims: {_text(dim for dim in dims if dim <= hidden_size)}"
    )


def _text(values: Iterable[float]) -> str:
    """Numbers as a list in YAML."""
    return f"[{','.join(f'{value:g}' for value in values)}]"
