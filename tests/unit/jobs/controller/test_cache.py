"""The objects of one job among all objects that the operator watches."""

from copy import deepcopy

from jobs.controller.cache import Cache, Index, slim_job, slim_ray_cluster, slim_ray_job
from jobs.kube.driver_report import STOP_KEY
from jobs.kube.names import ELASTIC_GATE
from jobs.kube.observed import Observed
from jobs.kube.resource import job_spec_of, key_of
from jobs.manifests.job import attempt_objects
from jobs.manifests.operator_config import OperatorConfig
from jobs.manifests.pods import JOB_SPEC_FILE
from tests.support.kubernetes_objects import UID, pods, ray_cluster, ray_job, resource, under_way

OWNED = {"metadata": {"ownerReferences": [{"kind": "EmbeddingJob", "name": "job", "uid": UID}]}}


def sights_of(**indices: Index) -> Cache:
    nothing: dict[str, Index] = {name: {} for name in ("jobs", "ray_jobs", "ray_clusters", "config_maps", "pods")}
    return Cache(**{**nothing, **indices})


def test_the_job_spec_of_an_attempt_is_found_after_the_job_has_changed() -> None:
    began, _ = attempt_objects(
        job_spec_of(resource({"workers": {"replicas": 3}})), OperatorConfig(), attempt=1, uid=UID
    )
    cache = sights_of(config_maps={key_of(began): [("a", began)]})

    observed = cache.of(resource({"workers": {"replicas": 4}}), under_way())

    assert "replicas: 3" in observed.job_spec
    assert not cache.of(resource(), under_way(attempt=2)).job_spec


def test_objects_with_the_names_of_a_job_that_it_does_not_own_are_not_read() -> None:
    foreign = {"metadata": {"ownerReferences": None}, "data": {STOP_KEY: "request", JOB_SPEC_FILE: "spec: {}"}}
    cache = sights_of(
        config_maps={("team", "job-progress"): [("a", foreign)], ("team", "job-1"): [("b", foreign)]},
        ray_jobs={("team", "job-1"): [("c", {**ray_job(), **foreign})]},
    )

    observed = cache.of(resource(), under_way())

    assert (observed.ray_job, observed.stop_request, observed.job_spec) == (None, "", "")


def test_a_job_is_kept_without_the_record_of_its_managers() -> None:
    stored = resource()
    stored["metadata"]["managedFields"] = [{"manager": "kubectl"}]

    assert slim_job(stored) == resource()


def test_the_number_of_admitted_workers_is_kept_without_pod_templates() -> None:
    label = {"kueue.x-k8s.io/queue-name": "default"}
    queued = job_spec_of(resource({"workers": {"replicas": 3}}))
    _, stored = attempt_objects(queued, OperatorConfig(), attempt=1, uid=UID)
    cluster = {"metadata": {"name": "c"}, "spec": stored["spec"]["rayClusterSpec"]}
    gated = deepcopy(cluster)
    gated["spec"]["workerGroupSpecs"][0]["template"]["spec"]["schedulingGates"] = [{"name": ELASTIC_GATE}]
    stored["metadata"]["labels"] |= label

    held = slim_ray_job(stored)

    assert "template" not in str(held)
    assert Observed(held, slim_ray_cluster(cluster)).admitted_workers == 3
    assert Observed(held, slim_ray_cluster(gated)).admitted_workers is None
    assert Observed(ray_job(), slim_ray_cluster(cluster)).admitted_workers is None


def test_objects_deleted_during_a_gap_of_the_watch_are_forgotten() -> None:
    """A watch that restarts lists the existing objects, and does not report deleted ones."""
    job, old = resource(), resource()
    (head, *workers) = pods()
    key = key_of(job)
    cache = sights_of(
        jobs={key: [("old-job", old), ("new-job", job)], ("team", "other"): [("other", old)]},
        ray_jobs={("team", "job-1"): [("ray-job-uid", ray_job())]},
        ray_clusters={("team", "job-1-abcde"): [("ray-cluster", ray_cluster())]},
        config_maps={("team", "job-progress"): [("words", {"data": {STOP_KEY: "request"}, **OWNED})]},
        pods={key: [("head", head), *((each.name, each) for each in workers)]},
    )
    before = cache.of(job, under_way())

    missed = cache.forget(gone := {"old-job", "other", "ray-job-uid", "words", "head", "worker-0"})

    after = cache.of(job, under_way())
    assert missed
    assert not cache.forget(gone)
    assert (before.ray_job, before.ray_cluster, before.stop_request) == (ray_job(), ray_cluster(), "request")
    assert (after.ray_job, after.ray_cluster, after.stop_request) == (None, None, "")
    assert [pod.name for pod in before.pods] == ["head", "worker-0", "worker-1"]
    assert [pod.name for pod in after.pods] == ["worker-1"]
    assert cache.job(key) is job
    assert cache.jobs() == [job]
