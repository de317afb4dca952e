"""Measurements of the loader benchmark: makes the data, starts server and proxy if needed, and runs a process."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.loader.data import VERSION, write_rows
from bench.loader.methods import Place
from bench.support.s3_place import BUCKET, folder_of, run_s3_place
from bench.support.slow_proxy import SlowProxy, cache_folder, read_counts, run_slow_proxy
from ray_app.run_directory.driver_lease import process_started

ROOT = Path(__file__).parents[2]
MOSAIC = ("mosaicml-streaming==0.13.0", "torch==2.13.0", "pyarrow==26.0.1")
SAMPLE_SECONDS = 0.1
LIMIT_SECONDS = 180.0
"""Time limit of a measurement, after which it counts as failed."""


@dataclass(frozen=True)
class Data:
    """A generated data set of one size, and the time it took to make."""

    cache: Path
    shards: dict[str, list[str]]
    facts: dict[str, float]


def prepare_data(rows: int, *, mosaic: bool) -> Data:
    """The data set of `rows` rows in the user's cache directory, made if it does not exist."""
    from data_io.data_spec import S3Options
    from data_io.dataset.manifest import load_manifest
    from data_io.storage.store import open_store

    cache = data_folder(rows)
    cache.mkdir(parents=True, exist_ok=True)
    noted = cache / "facts.json"
    facts: dict[str, float] = json.loads(noted.read_text()) if noted.exists() else {}
    if "generate_s" not in facts or (mosaic and "convert_s" not in facts):
        with run_s3_place(cache) as server:
            os.environ.update(server.credentials)
            options = S3Options(endpoint_url=server.endpoint, allow_http=True)
            if "generate_s" not in facts:
                began = time.monotonic()
                write_rows(open_store(f"s3://{BUCKET}/data", options), rows)
                facts["generate_s"] = time.monotonic() - began
                facts["parquet_mb"] = _megabytes(folder_of(cache) / "data")
                noted.write_text(json.dumps(facts))
            if mosaic and "convert_s" not in facts:
                facts |= _convert(cache, rows)
                _upload(cache / "mds", open_store(f"s3://{BUCKET}/mds", options))
                noted.write_text(json.dumps(facts))
    manifest = load_manifest(open_store(str(folder_of(cache) / "data")))
    shards = {entry.name: [shard.key for shard in manifest.shards(entry.name)] for entry in manifest.sources}
    return Data(cache, shards, facts)


def data_folder(rows: int) -> Path:
    return cache_folder() / f"loader-v{VERSION}-{rows}"


@dataclass
class Measurer:
    """Runs measurements of one data set at one place."""

    data: Data
    endpoint: str | None
    proxy: SlowProxy | None
    environment: dict[str, str]

    def measure(self, method: str, *, seconds: float) -> dict[str, Any]:
        """One process of `method`: its results, or {"failed": its last output line}."""
        counts = read_counts(self.proxy.counts_url) if self.proxy else {"requests": 0, "bytes": 0}
        with tempfile.TemporaryDirectory(dir=self.data.cache, ignore_cleanup_errors=True) as scratch:
            place = Place(str(folder_of(self.data.cache)), BUCKET, self.endpoint, scratch, self.data.shards)
            setting = {
                "method": method,
                "place": asdict(place),
                "seconds": seconds,
                "counts_url": self.proxy.counts_url if self.proxy else None,
                "counts": counts,
                "started": time.monotonic(),
            }
            return _run_child(setting, self.environment, scratch)


@contextmanager
def open_place(data: Data, name: str) -> Iterator[Measurer]:
    """`local`, or `s3-<milliseconds>`: a server behind a proxy that adds this latency to every request."""
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    clean |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    if name == "local":
        yield Measurer(data, None, None, clean)
        return
    with ExitStack() as stack:
        server = stack.enter_context(run_s3_place(data.cache))
        proxy = stack.enter_context(run_slow_proxy(server.endpoint, latency_ms=float(name.removeprefix("s3-"))))
        addresses = {"AWS_ENDPOINT_URL": proxy.endpoint, "S3_ENDPOINT_URL": proxy.endpoint}
        yield Measurer(data, proxy.endpoint, proxy, clean | server.credentials | addresses)


def mosaic_python() -> Path:
    """The interpreter of mosaicml-streaming's own environment, because it needs another torchvision."""
    folder = cache_folder() / "mosaic"
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != " ".join(MOSAIC):
        uv = str(ROOT / "tools" / "uv.sh")
        print(f"installing {', '.join(MOSAIC)} into {folder}", flush=True)
        subprocess.run(
            [uv, "venv", "-q", "--clear", "--no-project", "--python", sys.executable, str(folder)], check=True
        )
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *MOSAIC], check=True)
        stamp.write_text(" ".join(MOSAIC))
    return python


def _convert(cache: Path, rows: int) -> dict[str, float]:
    """Write MDS shards under cache/mds. Returns the seconds it took, without the upload."""
    from data_io.dataset.manifest import load_manifest
    from data_io.storage.store import open_store

    print(f"converting {rows:,} rows for mosaicml-streaming", flush=True)
    manifest = load_manifest(open_store(str(folder_of(cache) / "data")))
    shards = {entry.name: [shard.key for shard in manifest.shards(entry.name)] for entry in manifest.sources}
    out = cache / "mds"
    place = Place(str(folder_of(cache)), BUCKET, None, str(out), shards)
    subprocess.run(["rm", "-rf", str(out)], check=True)
    found = _run_child({"method": "convert", "place": asdict(place)}, dict(os.environ), str(cache), limit=1800)
    if "failed" in found:
        raise SystemExit(f"mosaicml-streaming cannot convert the rows: {found['failed']}")
    return {"convert_s": found["seconds"], "mds_mb": _megabytes(out)}


def _upload(folder: Path, store: Any) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(str(path.relative_to(folder)), path.read_bytes())
            path.unlink()


def _run_child(
    setting: dict[str, Any], environment: dict[str, str], scratch: str, *, limit: float = LIMIT_SECONDS
) -> dict[str, Any]:
    own = setting["method"] in ("mosaic", "convert")
    python = str(mosaic_python()) if own else sys.executable
    environment = environment | {"PYTHONPATH": str(ROOT), "HF_HOME": f"{scratch}/hf"}
    process = subprocess.Popen(
        [python, "-m", "bench.loader.child", json.dumps(setting)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    memory = _Memory(process.pid)
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        out, err = "", f"no result after {limit:.0f} s"
    finally:
        for pid, started in memory.stop():  # a child that exceeded its time limit, and its own children
            if started and process_started(pid) == started:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()
    lines = out.splitlines()
    if process.returncode != 0 or not lines:
        return {"failed": (err.strip().splitlines() or ["it exited without an error message"])[-1][:300]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found | {"memory_mb": memory.peak_bytes / 1e6}


class _Memory:
    """The highest sum of memory that is not file-backed, over a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._seen = {(pid, process_started(pid))}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> set[tuple[int, str]]:
        """Every process of the tree that was ever seen, with its start time, because process ids are reused."""
        self._end.set()
        self._thread.join()
        return self._seen

    def _watch(self) -> None:
        while not self._end.wait(SAMPLE_SECONDS):
            found, pids = _tree_bytes(self._pid)
            self.peak_bytes = max(self.peak_bytes, found)
            self._seen |= {(pid, process_started(pid)) for pid in pids}


def _tree_bytes(root: int) -> tuple[int, set[int]]:
    """Anonymous memory of all processes, and shared memory of the one that maps most (the others map the same)."""
    waiting, pids, anonymous, shared = [root], set(), 0, 0
    while waiting:
        pid = waiting.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            for task in os.listdir(f"/proc/{pid}/task"):
                waiting += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="utf-8").split())
        except OSError:  # it has exited
            continue
        pids.add(pid)
        sizes = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Rss"))
        anonymous += _bytes(sizes, "RssAnon")
        shared = max(shared, _bytes(sizes, "RssShmem"))
    return anonymous + shared, pids


def _bytes(sizes: dict[str, str], name: str) -> int:
    return int(sizes.get(name, "0 kB").split()[0]) * 1024


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
