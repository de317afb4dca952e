"""The operator's Lease while the API server answers, and after it stops answering."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kubernetes import client

from jobs.controller import leader_election as lease
from jobs.controller.leader_election import LeaderLease
from jobs.kube.api import KubeApi
from tests.support.http_server import serving_in_a_thread
from tests.support.waiting import wait_for


class OneLease(ThreadingHTTPServer):
    """Stores a single object. Once it `hangs`, it accepts requests and does not answer."""

    daemon_threads = True

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.hangs, self.over = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: OneLease

    def do_GET(self) -> None:
        self._answer(self.server.stored)

    def do_POST(self) -> None:
        self.server.stored = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self.server.stored)

    do_PUT = do_POST

    def _answer(self, value: dict[str, Any] | None) -> None:
        if self.server.hangs.is_set():
            self.server.over.wait()
            return
        content = json.dumps(value or {"message": "not found"}).encode()
        self.send_response(200 if value else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[OneLease]:
    running = OneLease()
    with serving_in_a_thread(running):
        yield running
        running.over.set()


@pytest.fixture
def leader(server: OneLease, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeaderLease]:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 3.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 1.0)
    configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")
    with closing(KubeApi(client.ApiClient(configuration), "default")) as api:
        candidate = LeaderLease(api, name="operator", namespace="default", identity="one")
        yield candidate
        server.over.set()
        candidate.stop()


def test_a_leader_without_answers_does_not_lead_longer_than_its_lease(leader: LeaderLease, server: OneLease) -> None:
    leader._api = replace(leader._api, answer_seconds=600)  # it is still waiting then
    lost = threading.Event()
    leader.wait()
    server.hangs.set()

    leader.keep(lost=lost.set)

    assert lost.wait(60)


def test_a_leader_that_gets_answers_stays_leader(
    leader: LeaderLease, server: OneLease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 600.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    lost, renewed = threading.Event(), set[str]()
    leader.wait()

    leader.keep(lost=lost.set)

    def told() -> int:
        renewed.add((server.stored or {})["spec"]["renewTime"])
        return len(renewed)

    wait_for(lambda: told() > 3, "it is renewed")
    assert not lost.is_set()


def test_a_released_lease_is_not_acquired_again(
    leader: LeaderLease, server: OneLease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.001)
    leader.wait()
    leader.keep(lost=lambda: None)

    leader.release()

    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("lease-")] == []
    assert server.stored is not None
    assert server.stored["spec"]["holderIdentity"] == ""
