"""Which job specs can resume a run that another job spec started."""

from typing import Any

import pytest

from jobs.errors import ConfigError
from jobs.spec.diff import MAY_CHANGE, changes_from, differences, differences_from
from jobs.spec.job import SPEC_FIELDS, EmbeddingJob, apply_overrides, parse_job_spec
from jobs.spec.yaml12 import RawSpec
from tests.support.job_specs import is_in_a_list, job_spec


def parse(value: dict[str, Any], *overrides: str) -> EmbeddingJob:
    return parse_job_spec(apply_overrides(RawSpec("job.yaml", value), overrides))


# A change of each single field of the spec, and whether a run can resume with it.
CHANGES = {
    "model.name_or_path=other": False,
    "model.revision=abc": False,
    "model.tokenizer=other": False,
    "model.max_seq_length=64": False,
    "model.attn_implementation=sdpa": True,
    "data.uri=s3://elsewhere/data": True,
    "data.sources=[one]": False,
    "data.hard_negatives.retrieval=3": False,
    "data.hard_negatives.clustering=3": False,
    "data.hard_negatives.classification=0": False,
    "data.prefetch_steps=9": True,
    "data.loader_threads=9": True,
    "data.verify=never": True,
    "data.cache.path=/cache": True,
    "data.cache.max_bytes=1000000000": True,
    "train.epochs=9": False,
    "train.global_batch_size=1024": False,
    "train.micro_batch_size=16": False,
    "train.learning_rate=1e-4": False,
    "train.min_learning_rate=1e-8": False,
    "train.warmup_steps=9": False,
    "train.weight_decay=0.5": False,
    "train.adam_beta1=0.5": False,
    "train.adam_beta2=0.5": False,
    "train.adam_epsilon=1e-7": False,
    "train.max_grad_norm=9": False,
    "train.temperature=0.5": False,
    "train.in_batch=off": False,
    "train.matryoshka_dims=[64, 128]": False,
    "train.matryoshka_weights=[]": False,
    "train.token_deletion=0.1": False,
    "train.step_source=same": False,
    "train.source_sampling=uniform": False,
    "train.precision=fp32": False,
    "train.gradient_checkpointing=false": False,
    "train.seed=9": False,
    "train.record_examples=true": True,
    "train.skip_micro_batches=[{epoch: 0, source: faq, micro_batch: 3}]": True,
    "workers.replicas=3": True,
    "workers.min=1": True,
    "workers.max=9": True,
    "workers.resize_interval_seconds=9": True,
    "workers.hang_timeout_seconds=9": True,
    "workers.prestart=true": True,
    "workers.cpus=2": True,
    "workers.gpus=1": True,
    "storage.uri=elsewhere": True,
    "storage.s3.endpoint_url=https://s3.example.org": True,
    "storage.s3.region=eu": True,
    "storage.s3.allow_http=true": True,
    "checkpoint.every=9 steps": True,
    "checkpoint.keep=9": True,
    "evaluation.enabled=false": True,
    "evaluation.before=false": True,
    "evaluation.checkpoints=true": True,
    "evaluation.tasks=[STSBenchmark]": True,
    "evaluation.max_queries=9": True,
    "evaluation.batch_tokens=9": True,
    "suspend=true": True,
    "cluster.image=other": True,
    "cluster.image_pull_secrets=[one]": True,
    "cluster.profiles=[one]": True,
    "cluster.service_account=other": True,
    "cluster.priority_class=high": True,
    "cluster.env={NCCL_DEBUG: WARN}": True,
    "cluster.secrets=[one]": True,
    "cluster.volumes=[{name: models, mount_path: /models, claim: models}]": True,
    "cluster.max_retries=9": True,
    "cluster.stop_timeout_seconds=9": True,
    "cluster.head.cpus=2": True,
    "cluster.worker.shared_memory=8Gi": True,
} | {
    f"cluster.{pod}.{change}": True
    for pod in ("head", "worker")
    for change in ("memory=8Gi", "resources={efa: '1'}", "node_selector={pool: gpu}", "tolerations=[{key: gpu}]")
}


@pytest.mark.parametrize(("change", "goes_on"), CHANGES.items())
def test_a_run_resumes_with_another_value_only_if_no_step_changes(change: str, goes_on: bool) -> None:
    frozen, new = parse(job_spec()), parse(job_spec(), change)

    found = differences(frozen, new)

    assert [difference.path for difference in found] == ([] if goes_on else [change.partition("=")[0]])


def test_the_changes_above_are_all_fields_of_the_spec() -> None:
    leaves = {
        name.removeprefix("spec.")
        for name, field in SPEC_FIELDS.items()
        if name.startswith("spec.")
        and (field.section is None or field.expected.startswith("a list of mappings"))
        and ".architecture." not in name
        and ".teacher." not in name
        and not is_in_a_list(field)
    }
    leaves = {"train.skip_micro_batches" if "skip_micro_batches" in name else name for name in leaves}

    assert {change.partition("=")[0] for change in CHANGES} == leaves - {"preset"}


def test_every_pattern_of_may_change_names_a_field() -> None:
    for pattern in MAY_CHANGE:
        assert f"spec.{pattern.removesuffix('.*')}" in SPEC_FIELDS


def test_allowed_changes_are_reported_with_both_values() -> None:
    frozen = parse(job_spec()).to_yaml()
    new = parse(job_spec(), "workers.replicas=3", "train.seed=9")

    assert [str(change) for change in changes_from(frozen, new)] == ["spec.workers.replicas: 1 in the run, 3 here"]


def test_a_preset_and_its_values_written_out_are_the_same_job_spec() -> None:
    by_name = parse({**job_spec(), "spec": {"preset": "f2llm-4b", "data": {"uri": "data"}}})
    written_out = by_name.to_dict()
    written_out["spec"]["preset"] = None

    assert differences(by_name, parse(written_out)) == []


def test_metadata_does_not_count() -> None:
    frozen, new = parse(job_spec()), parse(job_spec(), "metadata.name=other", "metadata.labels.team=search")

    assert differences(frozen, new) == []


def test_an_architecture_differs_by_its_fields() -> None:
    model = {"model": {"name_or_path": None, "architecture": {"hidden_size": 64}}}
    frozen, new = parse(job_spec(model)), parse(job_spec(model), "model.architecture.hidden_size=128")

    assert [str(difference) for difference in differences(frozen, new)] == [
        "spec.model.architecture.hidden_size: 64 in the run, 128 here"
    ]


def test_an_invalid_frozen_job_spec_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"job\.yaml of the run directory"):
        differences_from("half a docu", parse(job_spec()))
