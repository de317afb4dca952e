"""The cost of a start with a manifest of the size of the recipe's second version: 10,000 shards, 60 million rows.

    python -m bench.start [--shards 10000] [--rows 60000000] [--sources 157] [--runs 5]

The manifest is real, written and read like any other; its shards do not exist. Every run is a separate process. Seconds
and memory are those of reading it, compared with a process that only imports the needed modules. If there is an S3
server (tools/s3-server.sh), the manifest is also read from it, through a proxy that counts requests.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.support.report import machine, table, write_result

WHAT = ("load the manifest", "make the plan", "the first step's order and rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=60_000_000)
    parser.add_argument("--sources", type=int, default=157)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_measure(arguments.child)))
        return
    from data_io.storage.store import open_store

    lines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "data"
        start = perf_counter()
        _write(str(local), arguments.rows, arguments.shards, arguments.sources)
        written = perf_counter() - start
        stored = sum(path.stat().st_size for path in local.iterdir())
        lines += _lines("local directory", str(local), arguments.runs, None)
        with ExitStack() as stack:
            from tests.support.faulty_store import run_faulty_store
            from tests.support.s3_server import find_server, run_s3_server

            if (program := find_server()) is not None:
                server = stack.enter_context(run_s3_server(program, Path(folder) / "s3"))
                os.environ.update(server.environment)
                target = open_store(f"{server.uri}/data", server.options)
                for path in local.iterdir():
                    target.put(path.name, path.read_bytes())
                proxy = stack.enter_context(run_faulty_store(server.endpoint))
                os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
                lines += _lines(
                    "S3 server", f"{server.uri}/data", arguments.runs, lambda: proxy.counts().get("requests", 0)
                )
    text = [
        f"# A start on {arguments.shards:,} shards and {arguments.rows:,} rows in {arguments.sources} sources\n",
        f"`python -m bench.start --shards {arguments.shards} --rows {arguments.rows} --sources {arguments.sources} "
        f"--runs {arguments.runs}`: median of {arguments.runs} processes, lowest to highest in brackets. "
        f"The manifest is {stored / 1e6:.1f} MB (made and written in {written:.1f} s).\n",
        table(["from", "what", "measured"], lines) + "\n",
        machine("numpy", "pyarrow", "obstore"),
    ]
    write_result("start", "\n".join(text))


def _lines(place: str, uri: str, runs: int, requests: object) -> list[list[str]]:
    command = [sys.executable, "-m", "bench.start", "--child", uri]
    found = []
    for _ in range(runs):
        before = requests() if callable(requests) else 0
        found.append(json.loads(subprocess.check_output(command, text=True)))
        found[-1]["requests"] = (requests() if callable(requests) else 2) - before
    lines = [[place, what, _spread([run[what] for run in found], "s", 2)] for what in WHAT]
    lines.append([place, "peak memory, above the imports", _spread([run["mb"] for run in found], "MB", 0)])
    lines.append([place, "requests", _spread([run["requests"] for run in found], "", 0)])
    return lines


def _measure(uri: str) -> dict[str, float]:
    from data_io.dataset.manifest import load_manifest
    from data_io.loading.order import DataOrder, SourceRows
    from data_io.storage.store import open_store

    store = open_store(uri)
    before = _peak_megabytes()
    seconds = [perf_counter()]
    manifest = load_manifest(store)
    seconds.append(perf_counter())
    plan = DataOrder(
        [SourceRows(source.name, manifest.row_groups(source.name).rows) for source in manifest.sources],
        micro_batch_size=16,
        micro_batches_per_step=32,
        seed=0,
    )
    seconds.append(perf_counter())
    for part in plan.step(0).parts:
        plan.select_rows(epoch=0, part=part)
    seconds.append(perf_counter())
    spent = {what: end - start for what, start, end in zip(WHAT, seconds[:-1], seconds[1:], strict=True)}
    return {**spent, "mb": _peak_megabytes() - before}


def _write(uri: str, rows: int, shards: int, sources: int) -> None:
    """A manifest like that of 60 million rows: a few large sources and a long tail, row groups of 256."""
    import numpy as np

    from data_io.dataset.manifest import Manifest, RowGroups, Shard, SourceData, SourceEntry, save_manifest
    from data_io.storage.store import open_store
    from data_io.task import Kind

    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, sources + 1)
    sizes = np.maximum(256, (weights / weights.sum() * rows).astype(np.int64))
    groups_a_shard = max(1, -(-rows // 256 // shards))
    data = []
    for number, size in enumerate(sizes.tolist()):
        groups, columns = -(-size // 256), 28
        count = -(-groups // groups_a_shard)
        group_rows = np.full(groups, 256, dtype=np.int32)
        group_rows[-1] = (size - 1) % 256 + 1
        shard = (np.arange(groups) // groups_a_shard).astype(np.int32)
        chunk_bytes = rng.integers(60_000, 120_000, size=(groups, columns), dtype=np.int32)
        offset = np.cumsum(chunk_bytes.sum(axis=1, dtype=np.int64)) % 2**32
        data.append(
            SourceData(
                SourceEntry(name=f"source-{number}", kind=Kind.RETRIEVAL, negatives=24, rows=size),
                tuple(
                    Shard(
                        key=f"sources/source-{number}/{i:05d}-{rng.integers(2**48):012x}.parquet",
                        size=2**28,
                        rows=int(group_rows[shard == i].sum()) if count < 50 else groups_a_shard * 256,
                        etag=f'"{rng.bytes(16).hex()}"',
                        sha256=rng.bytes(32).hex(),
                    )
                    for i in range(count)
                ),
                RowGroups(
                    shard=shard,
                    rows=group_rows,
                    offset=offset,
                    chunk_bytes=chunk_bytes,
                    chunk_crc=rng.integers(2**32, size=(groups, columns), dtype=np.uint32),
                ),
            )
        )
    save_manifest(open_store(uri), Manifest(data))


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _spread(values: list[float], unit: str, digits: int) -> str:
    return f"{median(values):.{digits}f} {unit} ({min(values):.{digits}f}-{max(values):.{digits}f})".replace("  ", " ")


if __name__ == "__main__":
    main()
