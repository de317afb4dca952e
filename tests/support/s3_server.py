"""A real S3 server for tests: versitygw on a temporary directory, on a free port of the loopback address."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from data_io.data_spec import S3Options

VERSION = "v1.8.0"
"""The same as in tools/s3-server.sh, which builds it."""
START_SECONDS = 20.0
ATTEMPTS = 3  # another process may take the free port before the server does


@dataclass(frozen=True)
class S3Server:
    """A running server with one bucket. The root user and the other administrator may do everything, the stranger
    nothing.
    """

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    stranger_access_key: str
    stranger_secret_key: str = field(repr=False)
    other_access_key: str
    other_secret_key: str = field(repr=False)
    folder: Path
    """The directory with its objects: <directory>/<bucket>/<key>."""
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def options(self) -> S3Options:
        return S3Options(endpoint_url=self.endpoint, region="us-east-1", allow_http=True)

    def make_bucket(self) -> str:
        """A new bucket of the root user; returns its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        self.folder.joinpath(name).mkdir()  # for this server a directory is a bucket
        return name

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which a process reaches the server without options in its job spec."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }


def find_server() -> Path | None:
    """The server's program: $F2LLM_VERSITYGW, the one that `make test` built, or one on PATH. None if it does not
    exist.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "f2llm-ray" / f"versitygw-{VERSION}" / "versitygw"
    named = os.environ.get("F2LLM_VERSITYGW")
    for candidate in (named, str(built), shutil.which("versitygw")):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    return None


@contextmanager
def run_s3_server(program: Path, folder: Path) -> Iterator[S3Server]:
    """Start the server on `folder` (empty); always stop it at the end. Raises RuntimeError with its log."""
    server = _start(program, folder)
    try:
        yield server
    finally:
        server.process.terminate()
        try:
            server.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait(timeout=5)


def free_port() -> int:
    """A currently unused port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(program: Path, folder: Path) -> S3Server:
    bucket, log = "bucket", folder / "server.log"
    objects, attributes, users = folder / "objects", folder / "attributes", folder / "users"
    # Attributes are stored in files next to the objects, since not every file system of /tmp has extended attributes.
    for path in (objects / bucket, attributes, users):
        path.mkdir(parents=True)
    access_key, secret_key = secrets.token_hex(10), secrets.token_urlsafe(30)
    stranger = {"access": secrets.token_hex(10), "secret": secrets.token_urlsafe(30), "role": "user"}
    other = {"access": secrets.token_hex(10), "secret": secrets.token_urlsafe(30), "role": "admin"}
    accounts = {user["access"]: user for user in (stranger, other)}
    users.joinpath("users.json").write_text(json.dumps({"accessAccounts": accounts}))
    for _ in range(ATTEMPTS):
        port = free_port()
        command = [str(program), "--port", f"127.0.0.1:{port}", "--health", "/health", "--quiet"]
        command += ["--iam-dir", str(users), "posix", "--sidecar", str(attributes), str(objects)]
        if killer := shutil.which("setpriv"):  # so that a killed test run leaves no server running
            command = [killer, "--pdeathsig", "KILL", *command]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        environment |= {"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}
        with log.open("ab") as output:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if _answers(f"http://127.0.0.1:{port}/health", process):
            return S3Server(
                endpoint=f"http://127.0.0.1:{port}",
                bucket=bucket,
                access_key=access_key,
                secret_key=secret_key,
                stranger_access_key=stranger["access"],
                stranger_secret_key=stranger["secret"],
                other_access_key=other["access"],
                other_secret_key=other["secret"],
                folder=objects,
                process=process,
            )
        process.kill()
        process.wait(timeout=5)
    raise RuntimeError(f"{program} does not start:\n{log.read_text(errors='replace')[-2000:]}")


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers. False if it exited or did not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback goes through no proxy
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(url, timeout=1):
                return process.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    return False
