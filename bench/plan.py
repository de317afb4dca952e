"""The data order for a data set of the size of the recipe's second version: 60 million rows in 157 sources.

    python -m bench.plan [--rows 60000000] [--sources 157] [--runs 5]

Every run is a separate process. Seconds and memory are those of the plan and the first epoch's order, compared with a
process that only imports the needed modules.
"""

import argparse
import json
import resource
import subprocess
import sys
from statistics import median
from time import perf_counter

from bench.support.report import machine, table, write_result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=60_000_000)
    parser.add_argument("--sources", type=int, default=157)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_measure(arguments.rows, arguments.sources, arguments.micro_batch)))
        return
    command = [sys.executable, "-m", "bench.plan", "--child", "--rows", str(arguments.rows)]
    command += ["--sources", str(arguments.sources), "--micro-batch", str(arguments.micro_batch)]
    runs = [json.loads(subprocess.check_output(command, text=True)) for _ in range(arguments.runs)]
    rows = [
        ["first epoch's order", _spread([run["seconds"] for run in runs], "s", 2)],
        ["peak memory, above the imports", _spread([run["megabytes"] for run in runs], "MB", 0)],
        ["peak memory, the whole process", _spread([run["process_megabytes"] for run in runs], "MB", 0)],
        [
            "one further step, rows of its 32 micro-batches selected",
            _spread([run["step_ms"] for run in runs], "ms", 2),
        ],
    ]
    text = [
        f"# The plan of {arguments.rows:,} rows in {arguments.sources} sources\n",
        f"`python -m bench.plan --rows {arguments.rows} --sources {arguments.sources} --runs {arguments.runs}`: "
        f"{runs[0]['micro_batches']:,} micro-batches of {arguments.micro_batch}; median of {arguments.runs} processes, "
        "lowest to highest in brackets.\n",
        table(["what", "measured"], rows) + "\n",
        machine("numpy"),
    ]
    write_result("plan", "\n".join(text))


def _measure(rows: int, sources: int, micro_batch: int) -> dict[str, float]:
    import numpy as np

    from data_io.loading.order import DataOrder, SourceRows

    # A few large sources and a long tail, as in the recipe; each in row groups of 256.
    weights = 1 / np.arange(1, sources + 1)
    sizes = np.maximum(1, (weights / weights.sum() * rows).astype(np.int64))
    described = []
    for number, size in enumerate(sizes):
        groups = np.full(-(-int(size) // 256), 256, dtype=np.int32)
        groups[-1] = (int(size) - 1) % 256 + 1
        described.append(SourceRows(f"source-{number}", groups))
    before = _peak_megabytes()
    start = perf_counter()
    plan = DataOrder(described, micro_batch_size=micro_batch, micro_batches_per_step=32, seed=0)
    plan.step(0)
    seconds = perf_counter() - start
    peak = _peak_megabytes()
    start = perf_counter()
    for index in range(1, 51):
        for part in plan.step(index).parts:
            plan.select_rows(epoch=0, part=part)
    return {
        "seconds": seconds,
        "megabytes": peak - before,
        "process_megabytes": peak,
        "step_ms": (perf_counter() - start) / 50 * 1000,
        "micro_batches": plan.micro_batches_per_epoch,
    }


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _spread(values: list[float], unit: str, digits: int) -> str:
    return f"{median(values):.{digits}f} {unit} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    main()
