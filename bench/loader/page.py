"""The page of the loader benchmark, with all numbers and ratios from the measurements."""

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench.loader.methods import DECODING_THREADS, MICRO_BATCH, REQUESTS_IN_FLIGHT, STORED, USED
from bench.support.report import machine, table

NAMES = {
    "ours": "this project",
    "raw": "obstore + pyarrow alone (the limit)",
    "hf": "HF datasets, streaming",
    "ray": "Ray Data",
    "mosaic": "mosaicml-streaming",
    "released": "as the released code: all in memory",
}
PEERS = ("hf", "ray", "mosaic", "released")
PEER_GOAL, LIMIT_GOAL, FIRST_BATCH_GOAL_S, FLAT_GOAL = 2.0, 0.9, 1.0, 1.1

HOW = f"""\
How each was used.

- Same for all: {DECODING_THREADS} threads or processes that decode, {REQUESTS_IN_FLIGHT} concurrent requests if that
  can be set. No own shuffling, because rows are stored shuffled, and no tokenizing. The Parquet files are written by
  this project (zstd, row groups of 256 rows). Locally they are the same files that the S3 server serves.
- this project: `Loader` over `Reader` with every checksum verified, prefetching 4 steps of 16 micro-batches; the next
  source by the plan, 7 negatives drawn per row group. The first batch is a whole first step.
- the limit: footers read at the start, projected row groups in random order, same draw of negatives. `obstore` is used
  for ranged GETs or a memory map, `pyarrow` to decode. It has no plan, no checksums and no retries, and a micro-batch
  comes from one row group.
- HF datasets: `load_dataset("parquet", streaming=True, columns=...)` per source, `.batch({MICRO_BATCH})`,
  `interleave_datasets` by size; on S3 with the documented scan options for prefetching, and s3fs without its
  read-ahead cache. Always the first {USED} negatives, because columns cannot change within a stream. Its pause of 5 s
  at the end of every source counts if a source ends during the measurement.
- Ray Data: one `read_parquet().select_columns(...)` of all sources, `iter_batches(prefetch_batches=16)`;
  micro-batches mix sources, because one Dataset per source starves on few CPUs. Ray is started before the timing.
- mosaicml-streaming: MDS shards, not compressed, one `Stream` per source, `device_per_stream`, read in the process;
  whole samples of {STORED} negatives, of which {USED} are drawn. Its cache directory is empty at the start of each
  measurement from S3.
- the released code: `pyarrow` reads all columns of all sources into memory. Each source has a shuffled `DataLoader`
  over a `datasets.Dataset`. The next source is drawn by size, negatives are drawn in the collate function."""


def render(results: Sequence[dict[str, Any]], facts: dict[str, float], arguments: argparse.Namespace) -> str:
    mine = [result for result in results if result["rows"] == arguments.rows]
    text = [
        "# Loading examples\n",
        f"`python -m bench.loader --rows {arguments.rows} --rounds {arguments.rounds} "
        f"--seconds {arguments.seconds:g}`: {arguments.rows:,} generated rows in three sources (60, 30, 10%), "
        f"{STORED} negatives of about 795 characters, {facts.get('parquet_mb', 0):,.0f} MB of Parquet. An example is "
        f"a query, a positive and {USED} negatives as Python strings, in micro-batches of {MICRO_BATCH} from one "
        "source. Every measurement is a separate process, and "
        f"methods take turns; median of {arguments.rounds} rounds, lowest to highest in brackets. Warm page cache, "
        "real S3 server (versitygw) on loopback behind a proxy that adds the latency to every request.\n",
    ]
    for place in _in_order(result["place"] for result in mine):
        text += [f"## {_title(place)}\n", _place_table(mine, place) + "\n"]
    text += ["## Goals\n", table(["goal", "measured", "met"], _goals(results, arguments.rows)) + "\n", HOW + "\n"]
    text += [
        "Time to the first batch excludes imports and Ray's start; the time from the start of the process includes "
        "them. Memory is the highest sum of anonymous and shared memory over the process and its children, sampled "
        "every 0.1 s; mapped files do not count. The proxy counted the requests: before the first batch, and per "
        "1,000 returned examples after it (including read-ahead).\n"
    ]
    if "generate_s" in facts:
        text.append(f"Preparation: the data set in {facts['generate_s']:.0f} s")
        if "convert_s" in facts:
            text[-1] += f"; its MDS copy ({facts['mds_mb']:,.0f} MB) in {facts['convert_s']:.0f} s more"
        text[-1] += ".\n"
    text.append(machine("pyarrow", "obstore") + "; " + _versions(mine))
    return "\n".join(text)


def _place_table(results: Sequence[dict[str, Any]], place: str) -> str:
    head = ["loader", "examples/s", "of the limit", "first batch s", "from start s", "memory MB", "requests before"]
    head += ["requests per 1,000", "MB/s"]
    rows = []
    for method, name in NAMES.items():
        found = [r for r in results if r["method"] == method and r["place"] == place]
        done = [r for r in found if "failed" not in r]
        if not done:
            why = f"failed: {found[-1]['failed']}" if found else "not measured"
            rows.append([name, why, *[""] * (len(head) - 2)])
            continue
        limit = _ratios(results, place, "raw", method)
        rows.append(
            [
                name,
                _spread([r["examples_per_s"] for r in done], ",.0f"),
                f"{median(limit):.2f}" if limit else "-",
                _spread([r["first_batch_s"] for r in done], ".2f"),
                f"{median(r['first_batch_from_start_s'] for r in done):.1f}",
                _spread([r["memory_mb"] for r in done], ",.0f"),
                "-" if place == "local" else f"{median(r['requests_at_start'] for r in done):.0f}",
                "-" if place == "local" else f"{median(r['requests'] / r['examples'] * 1000 for r in done):.1f}",
                "-" if place == "local" else f"{median(_mb_per_s(r) for r in done):.0f}",
            ]
        )
    return table(head, rows)


def _goals(results: Sequence[dict[str, Any]], rows: int) -> list[list[str]]:
    mine = [r for r in results if r["rows"] == rows]
    goals = []
    peers = {peer: ratios for peer in PEERS if (ratios := _ratios(mine, "s3-25", peer, "ours"))}
    if peers:
        best = min(peers, key=lambda peer: median(peers[peer]))
        measured = f"{_spread(peers[best], '.2f')}, {NAMES[best]}"
        goals.append(
            _goal(
                f"S3 at 25 ms: at least {PEER_GOAL:g} times the best peer", measured, median(peers[best]) >= PEER_GOAL
            )
        )
    if ratios := _ratios(mine, "local", "raw", "ours"):
        goals.append(
            _goal(f"local: at least {LIMIT_GOAL} of the limit", _spread(ratios, ".2f"), median(ratios) >= LIMIT_GOAL)
        )
    for place in _in_order(r["place"] for r in mine):
        if firsts := [r["first_batch_s"] for r in _of(mine, place, "ours")]:
            measured = _spread(firsts, ".2f") + " s"
            goals.append(
                _goal(
                    f"first batch under {FIRST_BATCH_GOAL_S:g} s, {_title(place)}",
                    measured,
                    median(firsts) < FIRST_BATCH_GOAL_S,
                )
            )
    for place in _in_order(r["place"] for r in mine):
        smaller = [r for r in results if r["rows"] < rows]
        many, few = (median([r["memory_mb"] for r in _of(x, place, "ours")] or [0]) for x in (mine, smaller))
        if many and few:
            measured = f"{few:,.0f} MB -> {many:,.0f} MB, {many / few:.2f}"
            what = (
                f"memory at most {FLAT_GOAL:g} times for {rows / smaller[0]['rows']:g} times the rows, {_title(place)}"
            )
            goals.append(_goal(what, measured, many / few <= FLAT_GOAL))
    return goals or [["-", "not measured", "-"]]


def _goal(what: str, measured: str, met: bool) -> list[str]:
    return [what, measured, "yes" if met else "NO"]


def _of(results: Sequence[dict[str, Any]], place: str, method: str) -> list[dict[str, Any]]:
    return [r for r in results if r["place"] == place and r["method"] == method and "failed" not in r]


def _ratios(results: Sequence[dict[str, Any]], place: str, below: str, above: str) -> list[float]:
    """examples/s of `above` divided by those of `below`, within each round."""
    by_round = {r["round"]: r["examples_per_s"] for r in _of(results, place, below)}
    return [r["examples_per_s"] / by_round[r["round"]] for r in _of(results, place, above) if r["round"] in by_round]


def _mb_per_s(result: dict[str, Any]) -> float:
    rate: float = result["mb"] / result["examples"] * result["examples_per_s"]
    return rate


def _spread(values: Sequence[float], how: str) -> str:
    written: Callable[[float], str] = lambda value: format(value, how)  # noqa: E731
    return f"{written(median(values))} ({written(min(values))}-{written(max(values))})"


def _in_order(places: Any) -> list[str]:
    return list(dict.fromkeys(places))


def _title(place: str) -> str:
    return "local disk" if place == "local" else f"S3 with {place.removeprefix('s3-')} ms added"


def _versions(results: Sequence[dict[str, Any]]) -> str:
    found = {name: number for r in results for name, number in r.get("versions", {}).items()}
    return "measured with " + ", ".join(f"{name} {number}" for name, number in sorted(found.items()))
