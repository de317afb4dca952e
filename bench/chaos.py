"""Chaos tests: runs with random failures must train exactly like a run without failures.

    make chaos                    or: python -m bench.chaos [--runs 8] [--events 13] [--seed 1]
    python -m bench.chaos --name recovery --pause 40 --only "worker killed" "node drained" "node added"

Each run is `f2llm run` in fp32 on a Ray cluster of simulated nodes, with data and run directory on a real S3 server.
Events drawn from the seed hit it during training, one after another; then it is stopped. Every example must have been
used exactly once per epoch, in the order of the plan, and every loss must equal that of one worker without failures.
Runs append to bench/results/<name>.jsonl, and the page shows all of them. `--fresh` deletes the earlier runs.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.support.chaos_events import EVENTS, Disturbed
from bench.support.report import RESULTS, machine, table, write_result
from data_io.storage.store import open_store
from tests.support.plain_workers import train_in_processes
from tests.support.ray_nodes import ray_nodes
from tests.support.s3_server import S3Server, find_server, run_s3_server
from tests.support.small_training import read_lines, small_job_spec, write_job_spec, write_small_dataset

FAILED = Path("build/chaos")
TOLERANCE = 1e-4
SCALE = 4
"""524 examples: 9 steps of 64 per epoch, the last one short."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--events", type=int, default=13, help="events per run")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run; each further run adds 1")
    parser.add_argument("--only", nargs="*", choices=list(EVENTS), help="only these events")
    parser.add_argument("--pause", type=float, default=0, help="seconds before each event, to pre-warm workers")
    parser.add_argument("--name", default="chaos", help="name of the record and the page")
    parser.add_argument("--fresh", action="store_true", help="delete the earlier runs")
    arguments = parser.parse_args()
    program = find_server()
    if program is None:
        raise SystemExit("no S3 server found: run tools/s3-server.sh")
    record = RESULTS / f"{arguments.name}.jsonl"
    if arguments.fresh:
        record.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        expected = _Undisturbed(Path(folder))
        for seed in range(arguments.seed, arguments.seed + arguments.runs):
            server_folder = Path(folder) / f"s3-{seed}"
            server_folder.mkdir()
            with run_s3_server(program, server_folder) as server:
                os.environ.update(server.environment)
                _run(seed, arguments, server, Path(folder), expected, record)
            write_result(arguments.name, _page(arguments.name, read_lines(record)))


def _job_spec(data: str, runs: str) -> dict[str, Any]:
    job_spec = small_job_spec(data, runs, epochs=1000, global_batch_size=64, learning_rate=1e-5, min_learning_rate=1e-6)
    job_spec["spec"] |= {
        "evaluation": {"enabled": False},
        "checkpoint": {"every": "15 steps", "keep": 3},
        "workers": {"replicas": 1, "min": 1, "max": 3, "resize_interval_seconds": 10},
    }
    return job_spec


class _Undisturbed:
    """A run of one worker in a plain process, which trains as many steps as requested."""

    def __init__(self, folder: Path) -> None:
        self._data, self.folder = str(folder / "data"), folder / "undisturbed"
        self.folder.mkdir()
        write_small_dataset(open_store(self._data), scale=SCALE)

    def metrics(self, steps: int) -> list[dict[str, Any]]:
        path = self.folder / "metrics.jsonl"
        if not path.exists() or len(read_lines(path)) < steps:
            (self.folder / "group").unlink(missing_ok=True)
            train_in_processes(self._data, self.folder, 1, _job_spec(self._data, "unused"), steps=steps)
        return read_lines(path)[:steps]


def _run(
    seed: int, arguments: argparse.Namespace, server: S3Server, folder: Path, expected: _Undisturbed, record: Path
) -> None:
    chance = random.Random(seed)
    bucket = server.make_bucket()
    write_small_dataset(open_store(f"s3://{bucket}/data", server.options), scale=SCALE)
    job_spec = _job_spec(f"s3://{bucket}/data", f"s3://{bucket}/runs")
    job_spec["spec"]["storage"]["s3"] = server.options.model_dump()
    job = write_job_spec(folder / f"job-{seed}.yaml", job_spec)
    with ray_nodes() as nodes:
        run = Disturbed(
            job, server.folder / bucket / "runs" / "small", nodes, server, chance, log=folder / f"log-{seed}"
        )
        try:
            for _ in range(2):
                nodes.add()
            run.start()
            print(f"run {seed}: the first step is done", flush=True)
            for number in range(arguments.events):
                run.make_steps(chance.randint(3, 25))
                time.sleep(arguments.pause)
                if run.ended:
                    break
                kind = chance.choice([name for name in arguments.only or EVENTS if EVENTS[name].possible(run)])
                event = {"seed": seed, "number": number, "event": kind, **run.suffer(kind)}
                _write(record, event)
            run.stop()
            verdict = _compare(run.folder, expected)
        except BaseException:
            kept = FAILED / f"failed-{seed}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(run.folder, kept)
            shutil.copy(run.log, kept / "driver.log")
            print(f"run {seed} is kept in {kept}", file=sys.stderr)
            raise
        finally:
            run.kill()
    _write(record, {"seed": seed, "verdict": verdict})


def _write(record: Path, line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
    with record.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _compare(run: Path, expected: _Undisturbed) -> dict[str, Any]:
    """Raises if an example was used twice or never, or if a loss differs."""
    ours = [(line["step"], line["loss"]) for line in read_lines(run / "metrics.jsonl")]
    theirs = [(line["step"], line["loss"]) for line in expected.metrics(len(ours))]
    assert [step for step, _ in ours] == [step for step, _ in theirs], "steps are missing or repeated"
    examples = read_lines(expected.folder / "examples.jsonl")[: len(ours)]
    assert read_lines(run / "examples.jsonl") == examples, "other examples, or another order"
    furthest = max(abs(a - b) / abs(b) for (_, a), (_, b) in zip(ours, theirs, strict=True))
    assert furthest <= TOLERANCE, f"a loss is off by {furthest:.1e}"
    return {"steps": len(ours), "furthest_loss": furthest}


def _page(name: str, lines: list[dict[str, Any]]) -> str:
    events = [line for line in lines if "event" in line]
    verdicts = [line["verdict"] for line in lines if "verdict" in line]
    whole = {line["seed"] for line in lines if "verdict" in line}
    counted = [event for event in events if event["seed"] in whole]
    rows = []
    for kind in [*EVENTS, "all"]:
        of_kind = [event for event in counted if kind in (event["event"], "all")]
        if of_kind:
            rows.append([kind, str(len(of_kind)), *_spread(of_kind, "seconds"), *_spread(of_kind, "steps_lost")])
    happened = {event["event"] for event in counted}
    what = [f"- {kind}: {event.text}" for kind, event in EVENTS.items() if kind in happened]
    head = ("event", "times", "seconds, median", "p95", "most", "steps lost, median", "p95", "most")
    furthest = max((verdict["furthest_loss"] for verdict in verdicts), default=0.0)
    return "\n".join(
        [
            f"# {name.capitalize()}: runs with failures train like a run without failures",
            "",
            f"`python -m bench.chaos --name {name}`: {len(verdicts)} runs, "
            f"{sum(verdict['steps'] for verdict in verdicts)} steps, {len(counted)} events. In every run "
            "each example was used exactly once per epoch and in the order of the "
            f"plan. The largest difference of a loss from that of one worker without failures is {furthest:.1e} "
            f"(limit: {TOLERANCE:g}).",
            "",
            table(head, rows),
            "",
            "Seconds: from the event until the next step; for an added node, the pause between steps.",
            "Lost steps: counted from the last step that the driver had reported; it reports every 5 s.",
            "Checkpoints every 15 steps. Median duration of a worker's start by phase: " + _phases(counted) + ".",
            "",
            "The events:",
            "",
            *what,
            "",
            machine("ray", "torch", "deepspeed"),
        ]
    )


def _phases(events: list[dict[str, Any]]) -> str:
    profiles = [event["profile"] for event in events if event.get("profile")]
    phases = profiles[0] if profiles else {}
    return ", ".join(f"{phase} {median(profile[phase] for profile in profiles):.1f} s" for phase in phases)


def _spread(events: list[dict[str, Any]], key: str) -> list[str]:
    values = sorted(event[key] for event in events)
    p95 = values[min(len(values) - 1, int(0.95 * len(values)))]
    return [f"{value:.1f}" if key == "seconds" else f"{value:.0f}" for value in (median(values), p95, values[-1])]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
