"""Laws of the job spec: it survives a round trip through YAML, and its fields override its preset."""

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ConfigError, UsageError
from jobs.spec.cluster import Toleration, VolumeMount
from jobs.spec.fields import SpecField
from jobs.spec.job import SPEC_FIELDS, EmbeddingJob, apply_overrides, parse_job_spec
from jobs.spec.presets import PRESET_NAMES, PRESETS
from jobs.spec.yaml12 import RawSpec, read_yaml, write_yaml
from tests.support.job_specs import job_spec, section_text, specs


def parse(value: dict[str, Any], *overrides: str) -> EmbeddingJob:
    return parse_job_spec(apply_overrides(RawSpec("job.yaml", value), overrides))


@given(specs(), st.dictionaries(section_text(), section_text(), max_size=3))
def test_a_job_spec_survives_the_way_through_its_effective_yaml(spec: dict[str, Any], labels: dict[str, str]) -> None:
    job = parse(job_spec(spec, metadata={"labels": labels}))

    again = parse_job_spec(read_yaml(job.to_yaml(), "effective"))

    assert again == job
    assert again.to_yaml() == job.to_yaml()


@given(specs())
def test_the_effective_job_spec_reads_the_same_by_rules_of_yaml_1_1(spec: dict[str, Any]) -> None:
    job = parse(job_spec(spec))

    assert yaml.safe_load(job.to_yaml()) == job.to_dict()


@given(section_text())
def test_any_text_stays_text_through_yaml(text: str) -> None:
    written = write_yaml({"key": text})

    assert read_yaml(written, "written").value == {"key": text}


# Fields that are null or an empty list if the job spec leaves them out.
SECTIONS_THAT_MAY_BE_EMPTY = (
    "spec.model.architecture",
    "spec.train.teacher",
    "spec.train.skip_micro_batches",
    "spec.cluster.volumes",
    "spec.cluster.head.tolerations",
    "spec.cluster.worker.tolerations",
)


def test_the_effective_job_spec_has_every_field_of_the_spec() -> None:
    effective = parse(job_spec()).to_dict()

    said = {name for name in SPEC_FIELDS if name.startswith("spec.") and _has(effective, name)}

    below_empty = {name for name in SPEC_FIELDS if name.rpartition(".")[0] in SECTIONS_THAT_MAY_BE_EMPTY}
    assert said | below_empty == {name for name in SPEC_FIELDS if name.startswith("spec.")}


# For fields whose other value does not follow from the type, or breaks a rule across fields on its own.
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "spec.model.architecture": {"model.name_or_path": None, "model.architecture": {"hidden_size": 64}},
    "spec.train.global_batch_size": {"train.global_batch_size": 1024},
    "spec.train.micro_batch_size": {"train.micro_batch_size": 8},
    "spec.train.min_learning_rate": {"train.min_learning_rate": 1e-9},
    "spec.train.matryoshka_dims": {"train.matryoshka_dims": [64, 128]},
    "spec.train.matryoshka_weights": {"train.matryoshka_dims": [64, 128], "train.matryoshka_weights": [0.5, 1.0]},
    "spec.evaluation.tasks": {"evaluation.tasks": ["faq:sts=faq.parquet"]},
    "spec.train.token_deletion": {"train.token_deletion": 0.1},
    "spec.train.teacher": {"train.teacher": {"name_or_path": "other"}},
    "spec.workers.max": {"workers.max": 64},
    "spec.checkpoint.every": {"checkpoint.every": "9 min"},
    "spec.workers.prestart": {"workers.prestart": True},
    "spec.data.sources": {"data.sources": ["one"]},
    "spec.cluster.volumes": {"cluster.volumes": [VolumeMount(name="m", mount_path="/m", claim="m").model_dump()]},
    "spec.cluster.head.tolerations": {"cluster.head.tolerations": [Toleration(key="gpu").model_dump()]},
    "spec.cluster.worker.tolerations": {"cluster.worker.tolerations": [Toleration(key="gpu").model_dump()]},
    "spec.cluster.head.memory": {"cluster.head.memory": "8Gi"},
    "spec.cluster.worker.memory": {"cluster.worker.memory": "8Gi"},
    "spec.cluster.worker.shared_memory": {"cluster.worker.shared_memory": "8Gi"},
    "spec.storage.s3.endpoint_url": {"storage.s3.endpoint_url": "https://s3.example.org"},
    "spec.train.skip_micro_batches": {
        "train.skip_micro_batches": [{"epoch": 0, "source": "faq", "micro_batch": 3}],
    },
}
LEAVES = [
    field
    for name, field in SPEC_FIELDS.items()
    if name.startswith("spec.")
    and (field.section is None or name in SECTIONS_THAT_MAY_BE_EMPTY)
    and name.rpartition(".")[0] not in SECTIONS_THAT_MAY_BE_EMPTY
    and name != "spec.preset"
]


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("field", LEAVES, ids=lambda field: field.name)
def test_fields_of_the_job_spec_override_the_preset(preset: str, field: SpecField) -> None:
    bare = {"preset": preset, "data": {"uri": "elsewhere"}}
    by_preset = _spec_of(bare)
    said = OTHER_VALUES.get(field.name) or {
        field.name.removeprefix("spec."): _another(field, _at(by_preset, field.name))
    }
    raw = job_spec_without_model(bare)

    job = parse(raw, *(f"{path}={json.dumps(value)}" for path, value in said.items()))

    for path, value in said.items():
        effective = _at(job.to_dict(), f"spec.{path}")
        assert effective != _at(by_preset, f"spec.{path}")
        assert effective == value or effective.items() >= value.items()


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_a_preset_with_a_data_set_is_a_whole_job_spec(preset: str) -> None:
    effective = _spec_of({"preset": preset, "data": {"uri": "data"}})

    for path, value in _leaves(PRESETS[preset]):  # type: ignore[index]
        assert _at(effective, f"spec.{path}") == value


def test_presets_have_the_published_hyperparameters() -> None:
    found = {
        name: (
            v["model"]["name_or_path"],
            v["train"]["learning_rate"],
            v["train"]["micro_batch_size"],
            v["workers"]["replicas"],
        )
        for name, v in PRESETS.items()
    }

    assert found == {
        "f2llm-0.6b": ("Qwen/Qwen3-0.6B", 1e-5, 32, 16),
        "f2llm-1.7b": ("Qwen/Qwen3-1.7B", 9e-6, 32, 16),
        "f2llm-4b": ("Qwen/Qwen3-4B", 8e-6, 16, 32),
    }
    assert {
        (v["train"]["global_batch_size"], v["train"]["warmup_steps"], v["train"]["epochs"]) for v in PRESETS.values()
    } == {(512, 500, 2)}


# Each breaks exactly one rule across fields; the message must name the fields that break it.
BROKEN_RULES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "heads": ({"model": {"name_or_path": None, "architecture": {"num_attention_heads": 3, "num_key_value_heads": 2}}},
              {"num_attention_heads=3", "num_key_value_heads=2"}),
    "no model": ({"model": {"name_or_path": None}}, {"name_or_path and architecture are both null"}),
    "two models": ({"model": {"architecture": {"hidden_size": 64}}},
                   {"name_or_path=Qwen/Qwen3-0.6B", "architecture={hidden_size: 64"}),
    "batches": ({"train": {"global_batch_size": 100, "micro_batch_size": 32}},
                {"global_batch_size=100", "micro_batch_size=32"}),
    "batch below micro-batch": ({"train": {"global_batch_size": 3, "micro_batch_size": 32}},
                                {"global_batch_size=3", "micro_batch_size=32"}),
    "floor above peak": ({"train": {"min_learning_rate": 0.5}}, {"min_learning_rate=0.5", "learning_rate=1e-05"}),
    "dims out of order": ({"train": {"matryoshka_dims": [256, 64, 64]}}, {"matryoshka_dims=[256,64,64]"}),
    "weights of other dims": ({"train": {"matryoshka_dims": [64, 128], "matryoshka_weights": [1.0]}},
                              {"matryoshka_weights=[1] has 1 values", "matryoshka_dims=[64,128] has 2"}),
    "dims of a wider model": ({"model": {"name_or_path": None, "architecture": {"hidden_size": 64}},
                               "train": {"matryoshka_dims": [16, 128]}},
                              {"train.matryoshka_dims=[16,128]", "hidden_size=64"}),
    "min above replicas": ({"workers": {"min": 5, "replicas": 2}}, {"min=5", "replicas=2"}),
    "max below replicas": ({"workers": {"max": 1, "replicas": 2}}, {"max=1", "replicas=2"}),
    "min above max": ({"workers": {"min": 5, "replicas": 2, "max": 1}}, {"min=5", "replicas=2", "max=1"}),
    "idle replicas": ({"train": {"global_batch_size": 64, "micro_batch_size": 32},
                       "workers": {"replicas": 3, "gpus": 1}},
                      {"train.global_batch_size=64", "train.micro_batch_size=32", "workers.replicas=3"}),
    "idle minimum": ({"train": {"global_batch_size": 64, "micro_batch_size": 32},
                      "workers": {"min": 3, "replicas": 4, "gpus": 1}},
                     {"train.global_batch_size=64", "train.micro_batch_size=32", "workers.min=3"}),
}  # fmt: skip


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_a_broken_rule_names_the_fields_with_their_values_and_what_would_work(rule: str) -> None:
    spec, named = BROKEN_RULES[rule]

    with pytest.raises(ConfigError) as caught:
        parse(job_spec(spec))

    assert all(text in caught.value.message for text in named)
    proposals = _proposals(caught.value)
    assert proposals
    for proposal in proposals:
        parse(job_spec(spec), *proposal)  # every proposal is valid on its own


def test_an_override_may_leave_out_the_prefix_and_takes_yaml() -> None:
    raw = job_spec()

    job = parse(
        raw,
        "train.epochs=1",
        "spec.train.in_batch=off",
        "data.sources=[a, b]",
        "train.learning_rate=1e-4",
        "train.seed=7",
    )

    assert (job.spec.train.epochs, job.spec.train.in_batch, job.spec.data.sources) == (1, "off", ("a", "b"))
    assert (job.spec.train.learning_rate, job.spec.train.seed) == (1e-4, 7)
    assert "train" not in raw["spec"]


def test_an_override_reaches_labels_and_sections_that_are_not_there() -> None:
    job = parse(job_spec(), "metadata.labels.team=search", "model.name_or_path=", "model.architecture.hidden_size=64")

    assert job.metadata.labels == {"team": "search"}
    assert job.spec.model.architecture is not None
    assert job.spec.model.architecture.hidden_size == 64


@pytest.mark.parametrize(
    ("assignment", "fix"),
    [
        ("trian.epochs=1", "`train.epochs`"),
        ("epochs=1", "`train.epochs`"),
        ("train.microbatch_size=1", "`train.micro_batch_size`"),
        ("train.epochs", "--set path=value"),
        ("nothing.like.it=1", "f2llm explain"),
    ],
)
def test_an_override_of_an_unknown_field_is_a_usage_error_with_close_names(assignment: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(job_spec(), assignment)

    assert fix in (caught.value.remedy or "")


def test_a_bad_override_is_reported_as_the_override_and_not_as_a_line_of_the_file() -> None:
    raw = read_yaml(write_yaml(job_spec({"train": {"epochs": 3}})), "job.yaml")

    with pytest.raises(ConfigError, match=r"^--set train\.epochs=two: spec\.train\.epochs: found `two`"):
        parse_job_spec(apply_overrides(raw, ["train.epochs=two"]))


def test_workers_receive_the_spec_without_the_preset_and_the_kubernetes_fields() -> None:
    job = parse(job_spec({"preset": "f2llm-4b", "train": {"epochs": 1}}))

    spec = job.worker_spec

    assert not hasattr(spec, "preset")
    assert spec.train == job.spec.train
    assert spec.model_dump() == job.spec.model_dump(exclude={"preset", "suspend", "cluster"})


def job_spec_without_model(spec: dict[str, Any]) -> dict[str, Any]:
    return {**job_spec(), "spec": spec}


def _spec_of(spec: dict[str, Any]) -> dict[str, Any]:
    return parse(job_spec_without_model(spec)).to_dict()


def _at(value: dict[str, Any], name: str) -> Any:
    for key in name.split("."):
        value = value[key]
    return value


def _has(value: Any, name: str) -> bool:
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def _leaves(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in values.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def _another(field: SpecField, value: Any) -> Any:
    """A valid value of the field other than `value`."""
    if field.expected.startswith("one of"):
        choices = field.expected.removeprefix("one of ").split(", ")
        return next(choice for choice in choices if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2
    if isinstance(value, int):
        return value - 1 if field.path[-1] == "gpus" else value + 1 if value < 8 else value - 1
    if field.open_mapping:
        return {"key": "value"}
    if field.expected.startswith("a list of strings"):
        return ["something-else"]
    return 2 if "number" in field.expected or "integer" in field.expected else "something-else"


def _proposals(error: ConfigError) -> list[list[str]]:
    """`set a: 1 and b: 2` -> [[a=1, b=2]], `set a: 1 or b: 2` -> [[a=1], [b=2]], with whole paths."""
    section = re.search(r"(spec(?:\.\w+)*): ", error.message)
    assert section is not None
    assert error.remedy is not None
    pairs = re.findall(r"([\w.]+): (\S+)", error.remedy.removeprefix("set "))
    assignments = [f"{section[1]}.{path}={value}" for path, value in pairs]
    return [[a] for a in assignments] if " or " in error.remedy else [assignments]
