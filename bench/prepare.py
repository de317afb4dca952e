"""Preparing N and 10 N rows in bounded memory, with one process and with two.

    python -m bench.prepare [--rows 20000] [--memory 64] [--files 8]

The rows have the recipe's shape: a query, a positive and 24 negatives, about 20 KB together. One row in fifty is a
repeated row. N is more than one full shard (16,384 rows), because a whole encoded shard is in memory. Every preparation
is a separate process. Its memory is the largest resident size of the process or any process it started, sampled 20
times per second. Pages that processes share count for each of them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.support.report import machine, table, write_result

NEGATIVES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--memory", type=int, default=64, help="MiB of texts per process")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    lines, versions = [], dict[str, str]()
    with tempfile.TemporaryDirectory() as temporary:
        for rows in (arguments.rows, 10 * arguments.rows):
            files = Path(temporary, f"files-{rows}")
            size = _write_files(files, rows, arguments.files)
            for workers in arguments.workers:
                out = Path(temporary, f"out-{rows}-{workers}")
                seconds, peak, version = _prepare(files, out, workers, arguments.memory)
                assert versions.setdefault(rows, version) == version
                speed, megabytes = f"{rows / seconds:,.0f}", f"{peak / 1e6:,.0f}"
                lines.append([f"{rows:,}", f"{size / 1e6:,.0f}", str(workers), f"{seconds:.1f}", speed, megabytes])
    head = ["rows", "MB of JSON lines", "workers", "s", "rows/s", "MB in the largest process"]
    said = (
        f"Preparing rows with {NEGATIVES} negatives from {arguments.files} files, --memory {arguments.memory}: "
        f"`python -m bench.prepare`. One run each; the version is the same with one worker and with two. "
        f"Seconds include the start of the command, and of Ray with two workers."
    )
    write_result("prepare", f"{said}\n\n{table(head, lines)}\n\n{machine('pyarrow', 'obstore', 'ray')}")


def _write_files(folder: Path, rows: int, files: int) -> int:
    """Write JSON lines with texts cut from one long random text. Returns their bytes."""
    folder.mkdir()
    draw = np.random.default_rng(rows)
    words = [bytes(draw.integers(97, 123, draw.integers(2, 11), dtype=np.uint8)).decode() for _ in range(20_000)]
    long = " ".join(words[i] for i in draw.zipf(1.3, 400_000) % len(words))

    def text(mean: int) -> str:
        length = 1 + int(draw.exponential(mean))
        start = int(draw.integers(0, len(long) - length - 1))
        return long[start : start + length]

    line = ""
    for number in range(files):
        with (folder / f"{number}.jsonl").open("w") as out:
            for i in range(rows // files):
                if i % 50 != 1:
                    texts = [text(850) for _ in range(NEGATIVES)]
                    names = {f"negative_{n}": f"{wrong} {n}" for n, wrong in enumerate(texts, start=1)}
                    line = json.dumps({"query": f"{number} {i} {text(60)}", "positive": f"yes {text(600)}", **names})
                out.write(line + "\n")
    return sum(path.stat().st_size for path in folder.iterdir())


def _prepare(files: Path, out: Path, workers: int, memory: int) -> tuple[float, int, str]:
    """Seconds, bytes of the largest process, and the data set's version."""
    command = [sys.executable, "-m", "jobs.cli", "data", "prepare", "files", str(out)]
    command += ["--source", f"web:retrieval={files}", "--workers", str(workers), "--memory", str(memory)]
    command += ["--quiet", "--json"]
    began, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        while process.poll() is None:
            peak = max(peak, *(_resident(pid) for pid in _session(process.pid)), 0)
            time.sleep(0.05)
        seconds = time.monotonic() - began
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0
    return seconds, peak, json.loads(said)["version"]


def _session(leader: int) -> list[int]:
    """Processes of the session, and processes that Ray started for it in other sessions."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = {leader}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return list(found)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
