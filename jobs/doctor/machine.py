"""Checks of this machine: whether it can train, and how to fix problems."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jobs.doctor import library_probes as probes
from jobs.doctor.check import Check
from jobs.errors import F2LLMError
from jobs.extras import install_hint, missing_data_libraries

GIB = 2**30
_PROBE_SECONDS = 120


def examine(
    *, directory: Path, store_check: Callable[[], list[str]] | None = None, uri: str | None = None
) -> list[Check]:
    """Every check. Runs are written below `directory`; `store_check` probes the object store at `uri`."""
    with ThreadPoolExecutor(max_workers=2) as pool:  # each import keeps one CPU busy
        facts = dict(zip(probes.PROBES, pool.map(_probe, probes.PROBES), strict=True))
    return [
        check_python(sys.version_info[:3]),
        *check_torch(facts["torch"]),
        *(check_library(name, facts[name]) for name in ("transformers", "ray", "deepspeed")),
        check_data_libraries(),
        check_cpus(_cpus()),
        check_memory(_memory_bytes()),
        *([check_shared_memory(shutil.disk_usage("/dev/shm").free)] if Path("/dev/shm").is_dir() else []),
        check_disk(shutil.disk_usage(_existing(directory)).free, directory),
        *([] if store_check is None else [check_store(uri or "", store_check)]),
    ]


def can_run(checks: list[Check]) -> bool:
    """Whether a run on CPU can work here."""
    return all(check.status != "missing" for check in checks)


def check_python(version: tuple[int, int, int]) -> Check:
    text = ".".join(map(str, version))
    if version < (3, 11):
        return Check("Python", "missing", text, "install Python 3.11 or newer")
    return Check("Python", "ok", text)


def check_torch(facts: dict[str, Any]) -> Iterator[Check]:
    """Version, device, and the attention kernel that `attn_implementation: auto` selects."""
    if "error" in facts:
        yield Check("torch", "missing", facts["error"], install_hint("train"))
        return
    yield Check("torch", "ok", facts["version"])
    if not facts["gpus"]:
        why = "this torch is built without CUDA" if facts["cuda"] is None else "no GPU found"
        yield Check("device", "ok", f"CPU ({why})")
        yield Check("attention kernel", "ok", "sdpa, on packed rows")
        return
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory'] / GIB:.0f} GiB)" for gpu in facts["gpus"])
    yield Check("device", "ok", gpus)
    if facts["flash_attn"]:
        yield Check("attention kernel", "ok", f"flash-attn {facts['flash_attn']}")
    elif facts["varlen_attn"]:
        yield Check("attention kernel", "ok", "torch's varlen_attn; flash-attn is not installed and not needed")
    else:
        yield Check("attention kernel", "warn", "sdpa only", install_hint("flash-attn"))


def check_library(name: str, facts: dict[str, Any]) -> Check:
    if "error" in facts:
        return Check(name, "missing", facts["error"], install_hint("train"))
    return Check(name, "ok", facts["version"])


def check_data_libraries() -> Check:
    """The libraries that read and write data sets."""
    if absent := missing_data_libraries():
        return Check("data libraries", "missing", f"not installed: {', '.join(absent)}", install_hint("data"))
    return Check("data libraries", "ok", "obstore, pyarrow, tokenizers, xxhash")


def check_cpus(cpus: float) -> Check:
    if cpus < 2:
        return Check("CPUs", "warn", f"{cpus:g}", "two workers would share one CPU; use --workers 1")
    return Check("CPUs", "ok", f"{cpus:g}")


def check_memory(available: int) -> Check:
    text = f"{available / GIB:.1f} GiB available"
    if available < 4 * GIB:
        return Check("memory", "warn", text, "the demo needs about 4 GiB with two workers; use --workers 1")
    return Check("memory", "ok", text)


def check_shared_memory(free: int) -> Check:
    """Ray keeps its object store in /dev/shm. On disk it is slow."""
    text = f"{free / GIB:.1f} GiB free"
    if free < GIB // 4:
        return Check("/dev/shm", "warn", text, "start the container with --shm-size=2g")
    return Check("/dev/shm", "ok", text)


def check_disk(free: int, directory: Path) -> Check:
    text = f"{free / GIB:.1f} GiB free for {directory}"
    if free < 2 * GIB:
        return Check("disk", "warn", text, "the demo needs about 1 GiB; free some space, or use --dir")
    return Check("disk", "ok", text)


def check_store(uri: str, probe: Callable[[], list[str]]) -> Check:
    """Whether objects in the store can be listed, written, read and deleted."""
    try:
        return Check("store", "ok", f"{uri}: {', '.join(probe())}")
    except F2LLMError as error:
        return Check("store", "missing", error.message, error.remedy)


def _probe(name: str) -> dict[str, Any]:
    environment = (
        {**os.environ, "DS_ACCELERATOR": os.environ.get("DS_ACCELERATOR", "cpu")} if name == "deepspeed" else None
    )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "jobs.doctor.library_probes", name],
            capture_output=True,
            timeout=_PROBE_SECONDS,
            env=environment,
            check=False,
        )
        facts: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"error": f"importing {name} took more than {_PROBE_SECONDS} s"}
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"error": f"importing {name} failed: {last[0]}"}
    return facts


def _cpus() -> float:
    """CPUs that this process can use, within a container's quota."""
    cpus = float(len(os.sched_getaffinity(0)))
    quota = _read(Path("/sys/fs/cgroup/cpu.max")).split()
    return min(cpus, int(quota[0]) / int(quota[1])) if len(quota) == 2 and quota[0].isdigit() else cpus


def _memory_bytes() -> int:
    """Available memory, within a container's limit."""
    lines = (line.split() for line in _read(Path("/proc/meminfo")).splitlines())
    available = next((int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"), 0)
    limit, used = _read(Path("/sys/fs/cgroup/memory.max")).strip(), _read(Path("/sys/fs/cgroup/memory.current")).strip()
    return min(available, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else available


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _existing(directory: Path) -> Path:
    return next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())
