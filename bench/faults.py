"""Time lost to an unreliable store: the same epoch is read through a proxy, once per type of fault.

    python -m bench.faults [--scale 40] [--runs 3]

Data, order and reader are the same in all rows. The proxy is a separate process in front of a real S3 server
(tools/s3-server.sh) and adds 25 ms to every request. Shares are of the requests for shards; each run has its own seed.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from bench.support.report import machine, table, write_result
from data_io.data_spec import HardNegatives, S3Options
from data_io.dataset.manifest import load_manifest
from data_io.dataset.reader import Reader
from data_io.dataset.tokenizer import TokenTexts
from data_io.loading.loader import Loader
from data_io.loading.order import DataOrder, SourceRows
from data_io.storage.ranged_reads import ReadStats
from data_io.storage.store import Store, open_store
from tests.support.faulty_store import Faults, run_proxy_process
from tests.support.s3_server import find_server, run_s3_server
from tests.support.small_training import write_small_dataset

NONE = Faults(latency_seconds=0.025, only="/sources/")
KINDS = {
    "none": NONE,
    "5% answered 503, 8 times in a row": replace(NONE, busy=0.05),
    "1% truncated": replace(NONE, cut=0.01),
    "1% stalled": replace(NONE, stalled=0.01),
    "1% with a flipped bit": replace(NONE, flipped=0.01),
    "1% two seconds late": replace(NONE, slow=0.01, slow_seconds=2.0),
    "all of them": replace(NONE, busy=0.05, cut=0.01, stalled=0.01, flipped=0.01, slow=0.01, slow_seconds=2.0),
}


class _OneToken:
    """Stands for a tokenizer, because only reading is measured."""

    def encode(self, texts: list[str]) -> TokenTexts:
        return TokenTexts(ids=np.zeros(len(texts), dtype=np.int32), lengths=np.ones(len(texts), dtype=np.int32))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=int, default=40, help="131 rows each")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    program = find_server()
    if program is None:
        raise SystemExit("no S3 server found: run tools/s3-server.sh")
    lines, usual = [], 0.0
    with tempfile.TemporaryDirectory() as folder, run_s3_server(program, Path(folder)) as server:
        os.environ.update(server.environment)
        uri = f"{server.uri}/data"
        rows = sum(s.rows for s in write_small_dataset(open_store(uri, server.options), scale=arguments.scale).sources)
        for kind, faults in KINDS.items():
            seconds, stats = [], ReadStats()
            for seed in range(arguments.runs):
                with run_proxy_process(server.endpoint, replace(faults, seed=seed)) as proxy:
                    options = S3Options(endpoint_url=proxy.endpoint, region="us-east-1", allow_http=True)
                    spent, read = _epoch(open_store(uri, options), rows)
                seconds.append(spent)
                stats += read
            usual = usual or median(seconds)
            lost = f"{median(seconds) - usual:+.2f} s ({100 * (median(seconds) / usual - 1):+.0f}%)"
            spread = f"{median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"
            counted = [f"{n / arguments.runs:.0f}" for n in (stats.requests, stats.retries, stats.hedges)]
            won = f"{stats.hedges_won / arguments.runs:.0f}"
            lines.append([kind, spread, "" if kind == "none" else lost, *counted, won])
    head = ["faults", "epoch", "lost", "requests", "repeated", "hedged requests", "won"]
    text = [
        "# Time lost to an unreliable store\n",
        f"`python -m bench.faults --scale {arguments.scale} --runs {arguments.runs}`: {rows:,} rows, row groups of 16, "
        f"25 ms per request; median of {arguments.runs} seeds, lowest to highest in brackets; counts are means.\n",
        table(head, lines) + "\n",
        machine("obstore", "pyarrow"),
    ]
    write_result("faults", "\n".join(text))


def _epoch(store: Store, rows: int) -> tuple[float, ReadStats]:
    manifest = load_manifest(store)
    plan = DataOrder(
        [SourceRows(source.name, manifest.row_groups(source.name).rows) for source in manifest.sources],
        micro_batch_size=8,
        micro_batches_per_step=8,
        seed=0,
    )
    reader = Reader(store, manifest)
    loader = Loader(
        plan,
        manifest.sources,
        reader,
        _OneToken(),  # type: ignore[arg-type]
        hard_negatives=HardNegatives(),
        first_step=0,
        end_step=plan.steps_per_epoch,
        rank=0,
        world_size=1,
    )
    start, seen = perf_counter(), 0
    for step in loader:
        seen += sum(batch.rows for batch in step.micro_batches)
    seconds = perf_counter() - start
    reader.close()
    loader.close()
    if seen != rows:
        raise SystemExit(f"read {seen} of {rows} rows")
    return seconds, reader.stats


if __name__ == "__main__":
    main()
