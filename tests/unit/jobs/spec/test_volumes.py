"""Directories of a job spec that no pod has, and the rule of the CustomResourceDefinition about them."""

import pytest

from jobs.errors import ConfigError
from jobs.kube.crd_rules import rules
from jobs.spec.job import EmbeddingJob, apply_overrides, parse_job_spec
from jobs.spec.volumes import (
    MOUNT_REMEDY,
    OUTWARD_REMEDY,
    not_mounted,
    outward,
    refuse_unmounted_directories,
    volume_of,
)
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
        ("/disk2/data", "/disk/runs", "data.uri"),
        ("/disk2", "/disk/runs", "data.uri"),
    ],
)
def test_a_directory_without_a_volume_is_refused_with_the_message_of_the_crd(
    data: str, storage: str, field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unmounted_directories(job(data, storage, DISK))

    assert (caught.value.message, caught.value.remedy) == (not_mounted(field), MOUNT_REMEDY)
    assert f"{not_mounted(field)}; {MOUNT_REMEDY}" in {rule.message for rule in rules()}


@pytest.mark.parametrize("uri", ["/disk/../etc", "/disk/..", "/disk/./data", ".."])
def test_a_path_that_could_lead_out_of_its_volume_is_refused_with_the_message_of_the_crd(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unmounted_directories(job(uri, "/disk/runs", DISK))

    assert (caught.value.message, caught.value.remedy) == (outward("data.uri"), OUTWARD_REMEDY)
    assert f"{outward('data.uri')}; {OUTWARD_REMEDY}" in {rule.message for rule in rules()}


def test_a_path_belongs_to_the_innermost_volume() -> None:
    inner = {"name": "inner", "claim": "inner", "mount_path": "/disk/data"}
    found = job("/disk/data/a", "/disk/runs", DISK, inner)

    volumes = [volume_of(found, path) for path in ("/disk/data", "/disk/data/a", "/disk/data2", "/disk", "/dis")]

    assert [each and each.name for each in volumes] == ["inner", "inner", "disk", "disk", None]


@pytest.mark.parametrize("path", ["/tmp/../etc/f2llm/x", "/tmp/.", "/..", "/tmp/x/..", "/a:b", "/a//b", "/a/", "a"])
def test_a_volume_is_mounted_only_at_a_plain_path(path: str) -> None:
    with pytest.raises(ConfigError, match="mount_path"):
        job("/disk/data", "/disk/runs", {**DISK, "mount_path": path})


@pytest.mark.parametrize("path", ["/tmp/models", "/.cache", "/a/..b", "/a/b..c/...", "/a.b"])
def test_a_volume_can_be_mounted_at_a_path_with_dots_in_names(path: str) -> None:
    assert job("s3://bucket/data", "s3://bucket/runs", {**DISK, "mount_path": path})


@pytest.mark.parametrize(
    "cluster",
    [
        {"service_account": "../../kube-system/rolebindings/x"},
        {"priority_class": "a/b"},
        {"secrets": ["a/b"]},
        {"image_pull_secrets": [".."]},
        {"volumes": [{**DISK, "claim": "a/b"}]},
    ],
    ids=str,
)
def test_a_name_of_an_object_is_no_path(cluster: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="with a letter or digit at both ends"):
        parse_job_spec(RawSpec("job.yaml", job_spec({"cluster": cluster})))
