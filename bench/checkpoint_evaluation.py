"""The cost of evaluation during training: step times with and without `evaluation.checkpoints`, on Ray.

    python -m bench.checkpoint_evaluation [--rounds 3] [--steps 60] [--every 20] [--data runs/data]

Both runs train the demo's job spec for some steps with the same data and checkpoints, in turn. Only one of them
evaluates each checkpoint, on the demo's held-out sets, in a separate process on the same machine. The data set is made
if it does not exist.
"""

import argparse
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, median

from bench.support.report import machine, spread, table, write_result
from data_io.storage.store import open_store
from jobs.spec.demo import demo_job_spec
from ray_app.run_directory.evaluation_curve import read_curve
from tests.support.command import f2llm
from tests.support.small_training import read_lines, write_job_spec

FOLDER = Path("build/checkpoint-evaluation")
WARM_UP = 5
WORKERS = (1, 2)


@dataclass(frozen=True)
class Measured:
    """A run: seconds of its steps after the warm-up, and of each evaluation."""

    steps: list[float]
    measured: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--data", type=Path, default=Path("runs/data"))
    arguments = parser.parse_args()
    if not (arguments.data / "manifest.json").exists():
        _do("data", "prepare", "demo", str(arguments.data))
    found: dict[int, dict[bool, list[Measured]]] = {workers: {False: [], True: []} for workers in WORKERS}
    for number, workers, turn in product(range(arguments.rounds), WORKERS, range(2)):
        evaluating = (number + turn) % 2 == 1
        seen = _train(arguments, workers, evaluating=evaluating)
        found[workers][evaluating].append(seen)
        print(
            f"{workers} workers {'with' if evaluating else 'without'}: {median(seen.steps):.3f} s per step", flush=True
        )
    _report(arguments, found)


def _train(arguments: argparse.Namespace, workers: int, *, evaluating: bool) -> Measured:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    job_spec = demo_job_spec(FOLDER / "runs")
    spec = job_spec["spec"]
    spec["data"]["uri"] = str(arguments.data)
    spec["evaluation"] = {"enabled": False, "checkpoints": evaluating}
    spec["checkpoint"] = {"every": f"{arguments.every} steps", "keep": 2}
    job = write_job_spec(FOLDER / "job.yaml", job_spec)
    _do("run", str(job), "--workers", str(workers), "--steps", str(arguments.steps), "--quiet")
    run = FOLDER / "runs" / job_spec["metadata"]["name"]
    steps = [line["seconds"] for line in read_lines(run / "metrics.jsonl")]
    return Measured(steps[WARM_UP:], [each.seconds for each in read_curve(open_store(str(run)))])


def _do(*arguments: str) -> None:
    done = f2llm(*arguments, timeout=1800)
    if done.returncode != 0:
        raise SystemExit(done.stderr)


def _report(arguments: argparse.Namespace, found: dict[int, dict[bool, list[Measured]]]) -> None:
    rows = []
    for (workers, sides), what in product(found.items(), ("median", "mean")):
        value = median if what == "median" else fmean
        without, evaluating = ([float(value(each.steps)) for each in sides[side]] for side in (False, True))
        rows.append(
            [f"{workers}, {what} step", spread(without, 3), spread(evaluating, 3), _ratios(without, evaluating)]
        )
    measured = [spent for sides in found.values() for each in sides[True] for spent in each.measured]
    command = f"--rounds {arguments.rounds} --steps {arguments.steps} --every {arguments.every}"
    text = [
        "# Evaluation during training\n",
        f"`python -m bench.checkpoint_evaluation {command}`: the demo's job spec on Ray, {arguments.steps} steps, "
        f"a checkpoint every {arguments.every}, one CPU per worker. With `evaluation.checkpoints` a process of the "
        "lowest priority exports and evaluates checkpoints on the same machine: with one worker it has its own "
        "CPU, with two it shares theirs. Seconds, median "
        f"of {arguments.rounds} runs, lowest to highest in brackets; the first {WARM_UP} steps are left out.\n",
        table(["workers", "without", "with", "ratio"], rows),
        f"\n{len(measured)} checkpoints were evaluated, {median(measured):.1f} s each "
        f"({min(measured):.1f}-{max(measured):.1f}); checkpoints with a newer one available were skipped.\n",
        machine("ray", "torch", "deepspeed"),
    ]
    write_result("checkpoint_evaluation", "\n".join(text))


def _ratios(without: list[float], evaluating: list[float]) -> str:
    return spread([b / a for a, b in zip(without, evaluating, strict=True)], 2)


if __name__ == "__main__":
    main()
