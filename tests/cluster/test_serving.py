"""A model served by real pods, under KubeRay, in a namespace that admits only restricted pods."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer

from data_io.storage.folder_copy import upload_folder
from data_io.storage.store import open_store
from tests.support.command import f2llm
from tests.support.exported import export_small_model
from tests.support.real_cluster import IMAGE, SECRETS, RealCluster
from tests.support.real_jobs import MINUTES, job, say
from tests.support.serving import Site
from tests.support.small_training import sentence, write_job_spec
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]
TEXTS = [sentence(number) for number in range(40)]
KEY = "key-of-clients-5f3a"


def test_two_pods_serve_a_model_and_then_another_without_a_lost_request(cluster: RealCluster, tmp_path: Path) -> None:
    kubectl = cluster.kubectl
    first, second = (_model(cluster, tmp_path, name, width=width) for name, width in (("first", 48), ("second", 32)))
    kubectl("create", "secret", "generic", "api-key", f"--from-literal=F2LLM_API_KEY={KEY}")
    job_spec = job(cluster, "search")
    job_spec["spec"]["cluster"]["secrets"] = ["s3", "api-key"]
    path = write_job_spec(tmp_path / "job.yaml", job_spec)
    write_job_spec(tmp_path / "config.yaml", {"image": IMAGE, "image_pull_policy": "Never"})

    began = time.monotonic()
    _apply(cluster, path, "first")
    service = Site(f"http://{wait_for(lambda: _address(cluster), 'the service', seconds=5 * MINUTES)}:8000")
    wait_for(service.is_healthy, "health", seconds=8 * MINUTES)
    say(
        f"answers {time.monotonic() - began:.0f} s after it was applied",
        kubectl("get", "rayservice,pods", "-o", "wide"),
    )
    assert service.post({"model": "search", "input": "x"})[0] == 401
    np.testing.assert_allclose(_embed(service, TEXTS), first, atol=1e-5)

    with _asking(service) as answers:
        began = time.monotonic()
        _apply(cluster, path, "second")
        wait_for(lambda: len(answers[-1][1]) == 32, "the other model", seconds=8 * MINUTES)
        say(f"the other model answers after {time.monotonic() - began:.0f} s")
        wait_for(lambda: all(len(vector) == 32 for _, vector in answers[-40:]), "no copy of the first", seconds=MINUTES)
        wait_for(lambda: len(_copies(service)) == 2, "two copies", seconds=MINUTES)
    assert {status for status, _ in answers} == {200}
    assert {len(vector) for _, vector in answers} == {48, 32}
    np.testing.assert_allclose(_embed(service, TEXTS), second, atol=1e-5)

    objects = kubectl("get", "rayservices,rayclusters,pods,configmaps,events,services", "-o", "json")
    assert not [key for key in (*SECRETS, KEY) if key in objects]
    kubectl("delete", "rayservice,networkpolicy,poddisruptionbudget", "search")
    wait_for(lambda: kubectl("get", "pods", "-o", "name") == "", "pods go", seconds=3 * MINUTES)


def _model(cluster: RealCluster, folder: Path, name: str, *, width: int) -> Any:
    """Export a model into the bucket; returns its vectors of TEXTS."""
    exported = export_small_model(folder / name, TEXTS, max_tokens=48, width=width)
    upload_folder(exported, open_store(f"s3://bucket/models/{name}", cluster.s3))
    return SentenceTransformer(str(exported), device="cpu").encode(TEXTS)


def _apply(cluster: RealCluster, job_spec: Path, model: str) -> None:
    address = f"s3://bucket/models/{model}"
    how = ("--name", "search", "--replicas", "2", "--config", job_spec.with_name("config.yaml"))
    printed = f2llm("render", "--serve", address, job_spec, *how)
    assert printed.returncode == 0, printed.stderr
    for each in yaml.safe_load_all(printed.stdout):
        cluster.kubectl.apply(each)


def _address(cluster: RealCluster) -> str:
    found = json.loads(cluster.kubectl("get", "services", "-o", "json"))["items"]
    return next((each["spec"]["clusterIP"] for each in found if each["metadata"]["name"] == "search-serve-svc"), "")


def _embed(service: Site, texts: list[str]) -> Any:
    status, answer = service.post({"model": "search", "input": texts}, key=KEY)
    assert status == 200, answer
    return np.array([each["embedding"] for each in answer["data"]], dtype=np.float32)


def _copies(service: Site) -> list[str]:
    status, text = service.get("/metrics")
    assert status == 200
    return [line for line in text.splitlines() if line.startswith("f2llm_serve_texts_total")]


@contextmanager
def _asking(service: Site) -> Iterator[list[tuple[int, Any]]]:
    """Four clients that send requests continuously; yields their answers so far, by status and vector."""
    answers: list[tuple[int, Any]] = []
    stop = Event()

    def ask(client: int) -> None:
        while not stop.is_set():
            status, answer = service.post({"model": "search", "input": TEXTS[client]}, key=KEY)
            answers.append((status, answer["data"][0]["embedding"] if status == 200 else answer))

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask, client) for client in range(4)]
        try:
            wait_for(lambda: len(answers) > 8, "answers", seconds=MINUTES)
            yield answers
        finally:
            stop.set()
    for each in asking:
        each.result()
