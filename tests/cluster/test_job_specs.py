"""Job specs on a real API server: which it accepts, its defaults, and its messages about invalid ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli.app import call
from jobs.errors import ConfigError
from jobs.spec.job import parse_job_spec
from jobs.spec.presets import merged
from jobs.spec.yaml12 import RawSpec
from tests.support.job_specs import job_spec
from tests.support.kubectl import Kubectl, Refused

SAMPLES = sorted((Path(__file__).parents[2] / "k8s" / "samples").glob("*.yaml"))
GOOD = job_spec({"storage": {"uri": "s3://bucket/runs"}, "data": {"uri": "s3://bucket/data"}})


def volumes(*names_and_paths: tuple[str, str]) -> dict[str, Any]:
    mounted = [{"name": name, "mount_path": path, "claim": "c"} for name, path in names_and_paths]
    return {"spec": {"cluster": {"volumes": mounted}}}


# A change of a valid job spec, and words of the message. Only the API server denies those with True: on one machine
# they are valid.
BAD: tuple[tuple[dict[str, Any], str, bool], ...] = (
    ({"metadata": {"name": "a" * 41}}, "at most 40 characters", False),
    ({"metadata": {"name": "1st-run"}}, "begin with a letter", False),
    ({"metadata": {"name": "Run"}}, "RFC 1123", False),
    ({"metadata": {"name": "my.run"}}, "begin with a letter", False),
    ({"spec": {"model": None}}, "write preset: f2llm-0.6b", False),
    ({"spec": {"data": None}}, "data", False),
    ({"spec": {"data": {"uri": None}}}, "uri", False),
    ({"spec": {"storage": {"uri": None}}}, "write storage: {uri: s3://bucket/prefix}", True),
    ({"spec": {"storage": {"uri": "runs"}}}, "spec.storage.uri is a directory", True),
    ({"spec": {"data": {"uri": "/data"}}}, "spec.data.uri is a directory", True),
    ({"spec": {"data": {"sources": []}}}, "at least 1", False),
    ({"spec": {"data": {"verify": "maybe"}}}, '"always", "never"', False),
    ({"spec": {"data": {"prefetch_steps": 0}}}, "greater than or equal to 1", False),
    ({"spec": {"data": {"loader_threads": 65}}}, "less than or equal to 64", False),
    ({"spec": {"data": {"hard_negatives": {"retrieval": -1}}}}, "greater than or equal to 0", False),
    ({"spec": {"data": {"cache": {"max_bytes": 1}}}}, "equal to 1048576", False),
    ({"spec": {"model": {"max_seq_length": 1}}}, "greater than or equal to 2", False),
    ({"spec": {"model": {"attn_implementation": "eager"}}}, '"varlen"', False),
    ({"spec": {"model": {"architecture": {"hidden_size": 64}}}}, "only one of them can be", False),
    ({"spec": {"model": {"name_or_path": None, "architecture": {"num_attention_heads": 3, "num_key_value_heads": 2}}}},
     "write num_key_value_heads: 1", False),
    ({"spec": {"model": {"name_or_path": None, "architecture": {"hidden_size": 0}}}}, "equal to 1", False),
    ({"spec": {"preset": "f2llm-8b"}}, '"f2llm-0.6b"', False),
    ({"spec": {"train": {"epochs": 0}}}, "greater than or equal to 1", False),
    ({"spec": {"train": {"epochs": "2"}}}, "must be of type integer", False),
    ({"spec": {"train": {"epoch": 2}}}, "unknown field", False),
    ({"spec": {"train": {"global_batch_size": 100, "micro_batch_size": 32}}}, "not a multiple", False),
    ({"spec": {"train": {"learning_rate": 0}}}, "greater than 0", False),
    ({"spec": {"train": {"learning_rate": 1e-5, "min_learning_rate": 1e-4}}}, "above learning_rate", False),
    ({"spec": {"train": {"adam_beta1": 1.0}}}, "less than 1", False),
    ({"spec": {"train": {"in_batch": False}}}, "must be of type string", False),
    ({"spec": {"train": {"in_batch": "all"}}}, '"micro_batch"', False),
    ({"spec": {"train": {"precision": "fp16"}}}, '"bf16", "fp32"', False),
    ({"spec": {"train": {"seed": -1}}}, "greater than or equal to 0", False),
    ({"spec": {"train": {"temperature": 11}}}, "less than or equal to 10", False),
    ({"spec": {"train": {"matryoshka_dims": [128, 64]}}}, "must ascend", False),
    ({"spec": {"train": {"matryoshka_dims": [64, 64]}}}, "must ascend", False),
    ({"spec": {"train": {"matryoshka_dims": [0]}}}, "greater than or equal to 1", False),
    ({"spec": {"train": {"matryoshka_dims": [64], "matryoshka_weights": [1.0, 0.5]}}}, "differ in length", False),
    ({"spec": {"model": {"name_or_path": None, "architecture": {"hidden_size": 64}},
               "train": {"matryoshka_dims": [128]}}}, "exceeds the width of the embedding", False),
    ({"spec": {"model": {"attn_implementation": "varlen"}, "train": {"precision": "fp32"}}},
     "supports only 16-bit numbers", False),
    ({"spec": {"workers": {"replicas": 0}}}, "greater than or equal to 1", False),
    ({"spec": {"workers": {"replicas": 2, "min": 3}}}, "replicas is below min", False),
    ({"spec": {"workers": {"replicas": 4, "max": 3}}}, "replicas is above max", False),
    ({"spec": {"workers": {"min": 4, "max": 3}}}, "min is above max", False),
    ({"spec": {"workers": {"gpus": 2}}}, "less than or equal to 1", False),
    ({"spec": {"workers": {"replicas": 8, "gpus": 1}, "train": {"global_batch_size": 64, "micro_batch_size": 32}}},
     "GPUs would be idle", False),
    ({"spec": {"checkpoint": {"every": "0 steps"}}}, "should match", False),
    ({"spec": {"suspend": "yes"}}, "must be of type boolean", False),
    ({"spec": {"cluster": {"worker": {"memory": "lots"}}}}, "should match", False),
    ({"spec": {"cluster": {"max_retries": -1}}}, "greater than or equal to 0", False),
    ({"spec": {"cluster": {"pod_template": {}}}}, "unknown field", False),
    ({"spec": {"cluster": {"volumes": [{"name": "m", "mount_path": "/m"}]}}}, "needs exactly one of claim", False),
    ({"spec": {"cluster": {"volumes": [{"name": "m", "mount_path": "m", "claim": "m"}]}}}, "should match", False),
    (volumes(("My_Data", "/m")), "should match", False),
    (volumes(("m", "/m/")), "should match", False),
    (volumes(("scratch", "/m")), "a name other than", False),
    (volumes(("m", "/dev/shm")), "a name other than", False),
    (volumes(("m", "/etc/f2llm/m")), "a name other than", False),
    (volumes(("m", "/tmp/../etc/f2llm/x")), "should match", False),
    (volumes(("m", "/tmp/.")), "should match", False),
    (volumes(("m", "/a:b")), "should match", False),
    ({"spec": {"data": {"uri": "/models2"}, **volumes(("m", "/models"))["spec"]}},
     "spec.data.uri is a directory", True),
    ({"spec": {"data": {"uri": "/models/../etc"}, **volumes(("m", "/models"))["spec"]}},
     "spec.data.uri has a part `.` or `..`", True),
    ({"spec": {"storage": {"uri": "s3://bucket/runs/.."}}}, "spec.storage.uri has a part `.` or `..`", False),
    ({"spec": {"cluster": {"service_account": "../../kube-system/rolebindings/x"}}}, "should match", False),
    ({"spec": {"cluster": {"secrets": ["a/b"]}}}, "should match", False),
    ({"spec": {"cluster": {"volumes": [{"name": "m", "mount_path": "/m", "claim": "a/b"}]}}}, "should match", False),
    (volumes(("m", "/m"), ("m", "/n")), "Duplicate value", False),
    (volumes(("m", "/m"), ("n", "/m")), "the same mount_path", False),
    ({"spec": {"cluster": {"head": {"tolerations": [{"operator": "In"}]}}}}, '"Equal", "Exists"', False),
)  # fmt: skip


def without_nulls(value: Any) -> Any:
    return {k: without_nulls(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


@pytest.mark.parametrize(("change", "says", "only_there"), BAD, ids=lambda value: json.dumps(value)[:60])
def test_an_invalid_job_spec_is_refused_with_a_fix(
    kubectl: Kubectl, change: dict[str, Any], says: str, only_there: bool
) -> None:
    bad = without_nulls(merged(GOOD, change))

    with pytest.raises(Refused) as caught:
        kubectl.apply(bad, "--dry-run=server")

    assert says in str(caught.value)
    if not only_there:
        with pytest.raises(ConfigError):
            parse_job_spec(RawSpec("job.yaml", bad))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_accepted_and_means_the_same(kubectl: Kubectl, path: Path) -> None:
    written = yaml.safe_load(path.read_text())

    stored = kubectl.apply(written, "--dry-run=server")

    assert spec_of(stored) == spec_of(written)


def spec_of(value: dict[str, Any]) -> Any:
    metadata = {"name": value["metadata"]["name"]}
    return parse_job_spec(RawSpec("job", {**value, "metadata": metadata})).spec


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_the_effective_job_spec_is_accepted_as_it_is(
    kubectl: Kubectl, capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    call(["validate", str(path), "--json"])
    effective = json.loads(capsys.readouterr().out)["job_spec"]

    stored = kubectl.apply(effective, "--dry-run=server")

    assert spec_of(stored) == spec_of(effective)


@pytest.fixture
def started(kubectl: Kubectl) -> Iterator[dict[str, Any]]:
    """A job whose first attempt is counted in its status."""
    job = merged(GOOD, {"metadata": {"name": "started"}, "spec": {"workers": {"replicas": 2, "max": 4}}})
    kubectl.apply(job)
    kubectl("patch", "ej", "started", "--subresource=status", "--type=merge", "-p", '{"status": {"attempt": 1}}')
    yield job
    kubectl("delete", "ej", "started")


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"seed": 9}},
        {"train": {"precision": "fp32"}},
        {"model": {"name_or_path": "Qwen/Qwen3-4B"}},
        {"model": {"revision": "abc"}},
        {"data": {"sources": ["one"]}},
        {"data": {"hard_negatives": {"retrieval": 3}}},
        {"preset": "f2llm-4b"},
    ],
    ids=json.dumps,
)
def test_a_started_job_keeps_its_recipe(kubectl: Kubectl, started: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        kubectl.apply(merged(started, {"spec": change}))

    assert "cannot change once the job has started" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"workers": {"replicas": 4}},
        {"checkpoint": {"every": "9 steps"}},
        {"data": {"uri": "s3://moved/data"}},
        {"suspend": True},
        {"cluster": {"image": "other", "env": {"NCCL_DEBUG": "WARN"}}},
    ],
    ids=json.dumps,
)
def test_a_started_job_may_change_fields_that_change_no_step(
    kubectl: Kubectl, started: dict[str, Any], change: dict[str, Any]
) -> None:
    kubectl.apply(merged(started, {"spec": change}))


def test_scale_sets_the_replicas_within_their_bounds(kubectl: Kubectl, started: dict[str, Any]) -> None:
    kubectl("scale", "ej/started", "--replicas=3")

    assert kubectl.get("ej", "started")["spec"]["workers"]["replicas"] == 3
    with pytest.raises(Refused, match="replicas is above max"):
        kubectl("scale", "ej/started", "--replicas=5")
