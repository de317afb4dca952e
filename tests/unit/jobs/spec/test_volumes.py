"""Directories of a job spec that no pod has, and the rule of the CustomResourceDefinition about them."""

import pytest

from jobs.errors import ConfigError
from jobs.kube.crd_rules import rules
from jobs.spec.job import EmbeddingJob, apply_overrides, parse_job_spec
from jobs.spec.volumes import MOUNT_REMEDY, not_mounted, refuse_unmounted_directories
from jobs.spec.yaml12 import RawSpec
from tests.support.job_specs import job_spec

DISK = {"name": "disk", "claim": "disk", "mount_path": "/disk"}


def job(data: str, storage: str, *volumes: dict[str, str]) -> EmbeddingJob:
    value = job_spec({"data": {"uri": data}, "storage": {"uri": storage}, "cluster": {"volumes": list(volumes)}})
    return parse_job_spec(apply_overrides(RawSpec("job.yaml", value), ()))


@pytest.mark.parametrize(
    ("data", "storage"),
    [("s3://bucket/data", "s3://bucket/runs"), ("/disk/data", "s3://bucket/runs"), ("s3://bucket/data", "/disk/runs")],
)
def test_object_stores_and_mounted_directories_are_accepted(data: str, storage: str) -> None:
    refuse_unmounted_directories(job(data, storage, DISK))


@pytest.mark.parametrize(
    ("data", "storage", "field"),
    [
        ("data", "s3://bucket/runs", "data.uri"),
        ("s3://bucket/data", "runs", "storage.uri"),
        ("/other/data", "/disk/runs", "data.uri"),
    ],
)
def test_a_directory_without_a_volume_is_refused_with_the_message_of_the_crd(
    data: str, storage: str, field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unmounted_directories(job(data, storage, DISK))

    assert (caught.value.message, caught.value.remedy) == (not_mounted(field), MOUNT_REMEDY)
    assert f"{not_mounted(field)}; {MOUNT_REMEDY}" in {rule.message for rule in rules()}
