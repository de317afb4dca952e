"""Requests to a busy API server are retried."""

import json
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from jobs.errors import KubernetesError
from jobs.kube.api import KubeApi, connect
from tests.support.http_server import serving_in_a_thread


class Busy(ThreadingHTTPServer):
    """Answers the first `refusals` requests with 429 and Retry-After, and later ones normally."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.asked = refusals, list[str]()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Busy

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def _answer(self) -> None:
        self.server.asked.append(self.command)
        busy = len(self.server.asked) <= self.server.refusals
        content = json.dumps({"message": "storage is (re)initializing"} if busy else {"items": [], "metadata": {}})
        self.send_response(429 if busy else 200)
        if busy:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Busy]:
    running = Busy(request.param)
    with serving_in_a_thread(running):
        yield running


@pytest.fixture
def api(server: Busy, tmp_path: Path) -> Iterator[KubeApi]:
    port = server.server_address[1]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "clusters": [{"name": "one", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "one", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    with closing(connect(kubeconfig=str(tmp_path / "kubeconfig"))) as connected:
        yield connected


@pytest.mark.parametrize("server", [3], indirect=True)
def test_reads_and_writes_are_retried_when_a_busy_server_says_so(api: KubeApi, server: Busy) -> None:
    assert api.list("EmbeddingJob")["items"] == []
    server.refusals = len(server.asked) + 2

    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}})

    assert server.asked == ["GET"] * 4 + ["POST"] * 3


@pytest.mark.parametrize("server", [1000], indirect=True)
def test_a_server_that_stays_busy_is_an_error_with_its_message(api: KubeApi, server: Busy) -> None:
    with pytest.raises(KubernetesError, match="initializing"):
        api.list("EmbeddingJob")

    assert len(server.asked) == 11
