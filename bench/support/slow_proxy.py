"""A proxy in front of an S3 server that adds latency and counts requests and bytes.

It is a Go program, because a Python proxy was slower than the code to measure.
"""

import hashlib
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "slow_proxy" / "main.go"


@dataclass(frozen=True)
class SlowProxy:
    """A running proxy: the URL for clients, and the URL of its counters."""

    endpoint: str
    counts_url: str


@contextmanager
def run_slow_proxy(target: str, *, latency_ms: float) -> Iterator[SlowProxy]:
    """A proxy in front of `target` (http://host:port) that delays every request. It stops at the end of the block."""
    command = [str(_build()), "-target", target, "-latency", f"{latency_ms}ms"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            addresses = json.loads(process.stdout.readline())
            yield SlowProxy(addresses["proxy"], addresses["counts"])
        finally:
            process.stdin.close()


def read_counts(url: str) -> dict[str, int]:
    """`requests` and `bytes` (of answers) since the proxy started."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no other proxy for loopback
    with opener.open(url, timeout=5) as answer:
        counts: dict[str, int] = json.load(answer)
    return counts


def cache_folder() -> Path:
    """Directory for data that takes long to make."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "f2llm-ray" / "bench"


def _build() -> Path:
    """The program, built once per version of its source."""
    program = cache_folder() / f"slow-proxy-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise SystemExit(
            "the latency proxy of this measurement is a Go program, and `go` is not on PATH; "
            "install Go 1.21 or newer, or measure with --places local"
        )
    program.parent.mkdir(parents=True, exist_ok=True)
    stage = program.with_name(f"{program.name}.{os.getpid()}")
    subprocess.run([go, "build", "-o", str(stage), str(SOURCE)], check=True, env={**os.environ, "GO111MODULE": "off"})
    stage.rename(program)
    return program
