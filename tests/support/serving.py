"""A model served over HTTP as users run it: the command in a separate process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.command import Running
from tests.support.s3_server import free_port


@contextmanager
def serving(model: Path, *options: str, log: Path, environment: dict[str, str] | None = None) -> Iterator["Service"]:
    """`f2llm serve` until the end of the block; it is healthy when the block begins."""
    port = free_port()
    with Running("serve", model, "--port", str(port), *options, log=log, environment=environment) as running:
        service = Service(f"http://127.0.0.1:{port}", running)
        try:
            running.wait_until(service.is_healthy)
            yield service
        finally:
            running.terminate()


class Site:
    """The URL of a served model."""

    def __init__(self, url: str) -> None:
        self.url = url

    def is_healthy(self) -> bool:
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of an answer."""
        try:
            with urlopen(self.url + path, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def post(self, body: bytes | dict[str, Any], *, key: str | None = None) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a request for embeddings."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        try:
            with urlopen(Request(f"{self.url}/v1/embeddings", data, headers), timeout=120) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)


class Service(Site):
    """The URL and the process."""

    def __init__(self, url: str, running: Running) -> None:
        super().__init__(url)
        self.running = running
