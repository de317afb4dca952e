"""Reading F2LLM-shaped rows: this project's loader and five other ways, from a disk and from a real S3 server.

    python -m bench.loader [--rows 200000] [--rounds 3] [--seconds 4] [--methods ours,raw,hf,ray,mosaic,released]
                           [--places local,s3-0,s3-25] [--small] [--report] [--fresh]

Every measurement is a separate process and is stored next to the data as soon as it is finished. An interrupted run
resumes, `--fresh` starts from the beginning, `--report` only writes the page. Measurements of other versions of the
sources or with other options are kept separate.
"""

import argparse
import hashlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

from bench.loader.methods import METHODS
from bench.loader.page import render
from bench.loader.run import ROOT, data_folder, open_place, prepare_data
from bench.support.report import write_result

PLACES = ("local", "s3-0", "s3-25")
FLATNESS = 10
"""Factor by which the second data set, for our memory use, is smaller."""


def main() -> None:
    arguments = _parse()
    # A plain exit on SIGTERM would leave the measured process and the server running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = _Results(arguments)
    if not arguments.report:
        _measure(arguments, results)
    page = render(results.found, results.facts(), arguments)
    if arguments.small:
        print(page)
    else:
        write_result("loader", page)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="how long examples are counted after the first batch"
    )
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--places", default=",".join(PLACES), help="local, or s3-<milliseconds of added latency>")
    parser.add_argument("--small", action="store_true", help="20,000 rows, and only print the page")
    parser.add_argument("--report", action="store_true", help="write the page from earlier measurements")
    parser.add_argument("--fresh", action="store_true", help="delete earlier measurements with these options")
    arguments = parser.parse_args()
    arguments.methods = arguments.methods.split(",")
    arguments.places = arguments.places.split(",")
    if unknown := set(arguments.methods) - set(METHODS):
        parser.error(f"unknown method {', '.join(sorted(unknown))}; expected {', '.join(METHODS)}")
    if arguments.small:
        arguments.rows = 20_000
    return arguments


def _measure(arguments: argparse.Namespace, results: "_Results") -> None:
    # The page cache and the load of the machine change: methods take turns within a place, places within a round.
    plan = [(arguments.rows, method) for method in arguments.methods]
    if "ours" in arguments.methods and not arguments.small:
        plan.append((arguments.rows // FLATNESS, "ours"))
    data = {
        rows: prepare_data(rows, mosaic=("mosaic" in arguments.methods)) for rows, method in plan if method != "ours"
    }
    data = {rows: data.get(rows) or prepare_data(rows, mosaic=False) for rows, _ in plan}
    for number in range(arguments.rounds):
        for place in arguments.places:
            for rows in data:
                missing = [
                    method
                    for of_rows, method in plan
                    if of_rows == rows and not results.has(method, place, rows, number)
                ]
                if not missing:
                    continue
                with open_place(data[rows], place) as measurer:
                    for method in missing:
                        found = measurer.measure(method, seconds=arguments.seconds)
                        results.keep(method, place, rows, number, found)
                        print(_line(method, place, rows, number, found), flush=True)


def _line(method: str, place: str, rows: int, number: int, found: dict[str, Any]) -> str:
    head = f"round {number + 1}, {place}, {rows:,} rows, {method}:"
    if "failed" in found:
        return f"{head} FAILED: {found['failed']}"
    return (
        f"{head} {found['examples_per_s']:,.0f} examples/s, first batch {found['first_batch_s']:.2f} s, "
        f"{found['memory_mb']:,.0f} MB, {found['requests'] / found['examples'] * 1000:.1f} requests per 1,000 examples"
    )


class _Results:
    """Measurements with these options and this version of the sources, by method, place, rows and round."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._folder = data_folder(arguments.rows)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = self._folder / f"results-{_state(arguments.seconds)}.json"
        if arguments.fresh:
            self._path.unlink(missing_ok=True)
        self.found: list[dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else []
        if arguments.report and not self.found:
            raise SystemExit(f"no measurement with these options and sources ({self._path.name} does not exist)")

    def has(self, *key: object) -> bool:
        return any(_key(result) == key and "failed" not in result for result in self.found)

    def keep(self, method: str, place: str, rows: int, number: int, found: dict[str, Any]) -> None:
        key = (method, place, rows, number)
        self.found = [result for result in self.found if _key(result) != key]
        self.found.append({"method": method, "place": place, "rows": rows, "round": number} | found)
        stage = self._path.with_suffix(".part")
        stage.write_text(json.dumps(self.found, indent=1))
        stage.rename(self._path)

    def facts(self) -> dict[str, float]:
        noted = self._folder / "facts.json"
        facts: dict[str, float] = json.loads(noted.read_text()) if noted.exists() else {}
        return facts


def _key(result: dict[str, Any]) -> tuple[object, ...]:
    return result["method"], result["place"], result["rows"], result["round"]


def _state(seconds: float) -> str:
    digest = hashlib.sha256(str(seconds).encode())
    for pattern in ("data_io/**/*.py", "bench/loader/[cdm]*.py", "bench/slow_proxy/*.go"):
        for path in sorted(Path(ROOT).glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    main()
