"""A real S3 server on a persistent directory: objects uploaded once are available to later measurements."""

import secrets
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.s3_server import find_server, free_port

BUCKET = "bench"
START_SECONDS = 20.0


@dataclass(frozen=True)
class S3Place:
    """A running server. Its objects are plain files at `folder`/<key>, so the same bytes can be read locally."""

    endpoint: str
    credentials: dict[str, str]
    folder: Path


def folder_of(cache: Path) -> Path:
    """The directory of the objects of a server on `cache`."""
    return cache / "objects" / BUCKET


@contextmanager
def run_s3_place(cache: Path) -> Iterator[S3Place]:
    """A server on `cache`, stopped at the end of the block."""
    program = find_server()
    if program is None:
        raise SystemExit("no S3 server found; build it with tools/s3-server.sh")
    for folder in (folder_of(cache), cache / "attributes"):
        folder.mkdir(parents=True, exist_ok=True)
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    port = free_port()
    command = [str(program), "--port", f"127.0.0.1:{port}", "--health", "/health", "--quiet"]
    command += ["posix", "--sidecar", str(cache / "attributes"), str(cache / "objects")]
    if killer := shutil.which("setpriv"):  # so that the server ends if the measurement is killed
        command = [killer, "--pdeathsig", "KILL", *command]
    environment = {"HOME": str(cache), "ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}
    with (cache / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, cache / "server.log")
        credentials = {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield S3Place(f"http://127.0.0.1:{port}", credentials, folder_of(cache))
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise SystemExit(f"the S3 server does not start:\n{log.read_text(errors='replace')[-2000:]}")
