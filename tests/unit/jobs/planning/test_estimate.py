"""The arithmetic of a plan, compared with the data order, with counted parameters, and with sums done by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io.loading.order import DataOrder, SourceRows
from data_io.task import Kind
from jobs.errors import ConfigError
from jobs.planning.architecture import KNOWN_MODELS, Architecture, architecture_of
from jobs.planning.estimate import DataSize, Plan, SourceSize, estimate_job, memory_of
from jobs.spec.job import EmbeddingJob, apply_overrides, parse_job_spec
from jobs.spec.yaml12 import RawSpec
from ray_app.job_spec import JobSpec, ModelSpec
from tests.support.job_specs import job_spec

QUESTIONS = SourceSize("questions", Kind.RETRIEVAL, rows=10_000, negatives=24)
TOPICS = SourceSize("topics", Kind.CLUSTERING, rows=1_000, negatives=24)
SENTIMENT = SourceSize("sentiment", Kind.CLASSIFICATION, rows=100, negatives=1)
DATA = DataSize((QUESTIONS, TOPICS, SENTIMENT), version="any")


def spec(*overrides: str, **sections: Any) -> JobSpec:
    job: EmbeddingJob = parse_job_spec(apply_overrides(RawSpec("job.yaml", job_spec(sections)), overrides))
    return job.worker_spec


@given(
    rows=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    micro_batch_size=st.integers(1, 40),
    slots=st.integers(1, 9),
    epochs=st.integers(1, 3),
    step_source=st.sampled_from(["independent", "same", "mixed"]),
)
def test_steps_are_those_of_the_data_order(
    rows: list[int], micro_batch_size: int, slots: int, epochs: int, step_source: Any
) -> None:
    train = {
        "epochs": epochs,
        "micro_batch_size": micro_batch_size,
        "global_batch_size": micro_batch_size * slots,
        "step_source": step_source,
    }
    sources = tuple(SourceSize(f"source-{i}", Kind.RETRIEVAL, rows=count, negatives=7) for i, count in enumerate(rows))
    order = DataOrder(
        [SourceRows(source.name, np.array([source.rows], dtype=np.int32)) for source in sources],
        micro_batch_size=micro_batch_size,
        micro_batches_per_step=slots,
        seed=0,
        step_source=step_source,
    )

    plan = estimate_job(spec(train=train), DataSize(sources), None)

    assert plan.steps_per_epoch == order.steps_per_epoch
    assert plan.micro_batches_per_epoch == order.micro_batches_per_epoch
    assert plan.total_steps == epochs * order.steps_per_epoch


def test_parameters_are_those_of_the_published_models() -> None:
    # Counted on transformers' Qwen3Model, without the language model's head.
    assert {name: shape.parameters for name, shape in KNOWN_MODELS.items()} == {
        "Qwen/Qwen3-0.6B": 596_049_920,
        "Qwen/Qwen3-1.7B": 1_720_574_976,
        "Qwen/Qwen3-4B": 4_022_468_096,
    }


def test_a_small_architecture_counts_with_the_data_sets_vocabulary() -> None:
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 4,
    }
    model = ModelSpec.model_validate({"architecture": {**sizes, "intermediate_size": 16}})

    shape = architecture_of(model, vocabulary_size=100)

    assert shape is not None
    embedding, attention, feed_forward, norms = 128 * 8, 4 * 8 * 4 + 2 * 4, 3 * 8 * 16, 2 * 8 + 8
    assert shape.parameters == embedding + attention + feed_forward + norms


def test_the_shape_of_a_local_model_is_read_from_its_directory(tmp_path: Any) -> None:
    shape = KNOWN_MODELS["Qwen/Qwen3-0.6B"]
    fields = {name: getattr(shape, name) for name in Architecture.__dataclass_fields__}
    (tmp_path / "config.json").write_text(str(fields).replace("'", '"'))

    assert architecture_of(ModelSpec(name_or_path=str(tmp_path))) == shape
    assert architecture_of(ModelSpec(name_or_path="some/other-model")) is None


def test_more_workers_reduce_only_the_memory_that_zero_2_divides() -> None:
    shape = KNOWN_MODELS["Qwen/Qwen3-0.6B"]
    job = spec(preset="f2llm-0.6b")

    one, sixteen = (memory_of(job, [QUESTIONS], shape, workers=w) for w in (1, 16))

    assert one.weights == sixteen.weights == 2 * shape.parameters
    assert one.optimizer == 12 * shape.parameters
    assert sixteen.optimizer == -(-12 * shape.parameters // 16)
    assert one.gradients == 6 * shape.parameters
    assert one.activations == sixteen.activations
    assert one.total - sixteen.total == (one.gradients - sixteen.gradients) + (one.optimizer - sixteen.optimizer)


def test_activations_are_the_longest_micro_batch_and_fall_with_checkpointing() -> None:
    shape = KNOWN_MODELS["Qwen/Qwen3-0.6B"]

    kept = memory_of(spec("train.gradient_checkpointing=false"), [QUESTIONS], shape, workers=1).activations
    recomputed = memory_of(spec(), [QUESTIONS], shape, workers=1).activations
    shorter = memory_of(spec("model.max_seq_length=512"), [QUESTIONS], shape, workers=1).activations

    inputs = 28 * 2 * 1024 * (32 * 9 * 1024)  # layers x bytes x hidden size x (rows x texts x tokens)
    assert inputs < recomputed < kept
    assert shorter * 2 == recomputed


def test_a_checkpoint_has_12_bytes_per_parameter_for_any_number_of_workers() -> None:
    shape = KNOWN_MODELS["Qwen/Qwen3-4B"]

    sizes = {estimate_job(spec(f"workers.replicas={w}"), DATA, shape).checkpoint_bytes for w in (1, 2, 16)}

    assert sizes == {12 * shape.parameters}


def test_tokens_are_counted_with_the_manifests_means_and_cut_at_the_longest_text() -> None:
    counted = SourceSize("a", Kind.RETRIEVAL, rows=100, negatives=24, query_tokens=10, document_tokens=4000)

    plan = estimate_job(spec(), DataSize((counted,)), None)

    assert plan.tokens_per_epoch == 100 * (10 + 8 * 1024)
    assert plan.texts_per_epoch == 100 * 9


def test_deleted_tokens_are_not_counted() -> None:
    whole, half = (estimate_job(spec(f"train.token_deletion={share}"), DATA, None) for share in (0, 0.5))

    assert half.tokens_per_epoch * 2 == whole.tokens_per_epoch
    assert half.texts_per_epoch == whole.texts_per_epoch


def test_without_token_counts_every_text_is_the_longest_and_the_plan_says_so() -> None:
    plan = estimate_job(spec(), DATA, None)

    texts = 10_000 * 9 + 1_000 * 9 + 100 * 3
    assert (plan.texts_per_epoch, plan.tokens_per_epoch) == (texts, texts * 1024)
    assert plan.tokens_are == "an upper bound"
    assert any("max_seq_length=1024" in assumption for assumption in plan.assumptions)


@pytest.mark.parametrize(("revision", "said"), [(None, True), ("c" * 40, False)])
def test_a_plan_names_the_models_of_the_hub_without_a_revision(revision: str | None, said: bool) -> None:
    plan = estimate_job(spec(model={"name_or_path": "org/base", "revision": revision}), DATA, None)

    assert any("model: the commit of org/base at the first start" in each for each in plan.assumptions) is said


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.warmup_steps=44"], "train.warmup_steps=44 is not below the 44 steps"),
        (["workers.replicas=3", "train.warmup_steps=4"], "workers.replicas=3 does not divide the 16 micro-batches"),
        (["checkpoint.every=500 steps"], "checkpoint.every=500 steps"),
        (["data.hard_negatives.classification=4"], "sentiment has 1 per row"),
        (["data.sources=[topics]"], "train.in_batch=step has no effect"),
        (["model.name_or_path=some/other"], "the shape of some/other is unknown"),
        (["model.name_or_path=null", "model.architecture={}"], "the data set has no tokenizer"),
        (["workers.gpus=0"], "596 million parameters on CPU"),
    ],
)
def test_the_plan_warns_about_surprises(overrides: list[str], words: str) -> None:
    quiet = plan_of("workers.gpus=1", "checkpoint.every=10 steps", "train.warmup_steps=4")

    plan = plan_of(*overrides)

    assert quiet.warnings == ()
    assert any(words in warning for warning in plan.warnings)


@pytest.mark.parametrize(
    ("data", "sources", "words", "fix"),
    [
        (
            DATA,
            "[question]",
            "question is not in the manifest of data; the data set has questions, topics",
            "`questions`",
        ),
        (DATA, "[zzz]", "zzz is not in the manifest", "use one of these names"),
        (
            DataSize((SourceSize("empty", Kind.RETRIEVAL, 0, 7),)),
            "[empty]",
            "empty has no rows",
            "remove it from spec.data.sources",
        ),
        (DataSize(()), "null", "has no source to train on", "f2llm data prepare"),
    ],
)
def test_a_job_spec_that_does_not_fit_the_data_set_is_refused(
    data: DataSize, sources: str, words: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        estimate_job(spec(f"data.sources={sources}"), data, None)

    assert words in caught.value.message
    assert fix in (caught.value.remedy or "")


def test_dims_beyond_the_embedding_are_refused_with_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"asks for 2048 values, .* hidden_size=1024") as caught:
        plan_of("train.matryoshka_dims=[128, 256, 2048]")

    assert caught.value.remedy == "set train.matryoshka_dims: [128,256]"


def plan_of(*overrides: str) -> Plan:
    job = spec(*overrides)
    return estimate_job(job, DATA, architecture_of(job.model))
