"""Events that can disturb a run, and the time until the next step after each."""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.command import F2LLM
from tests.support.ray_nodes import RayNodes
from tests.support.runs import events
from tests.support.s3_server import S3Server

MOST_NODES = 3
MOST_SECONDS = 300.0
STORE_AWAY_SECONDS = 30.0
NOTICE_SECONDS = 60.0


class Disturbed:
    """A running job on simulated nodes. `folder` has the objects of its run directory, as the S3 server stores them."""

    def __init__(
        self, job: Path, folder: Path, nodes: RayNodes, server: S3Server, chance: random.Random, *, log: Path
    ) -> None:
        self.folder, self.nodes, self.server, self.chance, self.log = folder, nodes, server, chance, log
        self._job = job
        self._driver: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start the driver and wait for the first step of its workers."""
        before = len(self.starts())
        self.start_driver()
        self.wait(lambda: len(self.starts()) > before)

    def start_driver(self) -> None:
        environment = {**os.environ, **self.nodes.environment(), **self.server.environment}
        with self.log.open("ab") as log:
            self._driver = subprocess.Popen(
                [*F2LLM, "run", str(self._job)], env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def suffer(self, kind: str) -> dict[str, Any]:
        """Cause an event and wait for the next step. Returns the time this took and the number of recomputed steps."""
        shown, begin = self.step(), time.time()
        before = len(self.starts())
        seconds = EVENTS[kind].happen(self)
        if seconds is None:  # the run has recovered with the first step of the next workers
            self.wait(lambda: len(self.starts()) > before or self.ended)
            seconds = time.time() - begin
        resumed = [event for event in self.events("Started") + self.events("Resumed") if _when(event) > begin]
        lost = max((max(shown - event["step"], event.get("steps_lost", 0)) for event in resumed), default=0)
        starts = [start for start in self.starts() if _when(start) > begin]
        return {
            "seconds": round(seconds, 1),
            "steps_lost": max(0, lost),
            "step": shown,
            "workers": resumed[-1]["workers"] if resumed else None,
            "profile": starts[-1]["seconds"] if starts else None,
        }

    def make_steps(self, count: int) -> None:
        goal = self.step() + count
        self.wait(lambda: self.step() >= goal or self.ended)

    def stop(self) -> None:
        """Stop the run with a checkpoint."""
        self._driver.terminate()
        code = self._driver.wait(timeout=300)
        assert code == 143, f"the run exited with {code}: {self.log.read_text(errors='replace')[-3000:]}"

    def kill_driver(self) -> None:
        self._driver.kill()
        self._driver.wait()

    def kill(self) -> None:
        if self._driver.poll() is None:
            self.kill_driver()

    @property
    def ended(self) -> bool:
        return self._driver.poll() is not None

    def step(self) -> int:
        """The last step that the driver has reported."""
        shown = re.findall(rb"^step (\d+)/", self.log.read_bytes(), re.MULTILINE) if self.log.exists() else []
        return int(shown[-1]) if shown else 0

    def events(self, name: str) -> list[dict[str, Any]]:
        return events(self.folder, name)

    def starts(self) -> list[dict[str, Any]]:
        """One event per group of workers that has finished a step."""
        return self.events("StartProfile")

    def checkpoints(self, *, complete: bool) -> list[Path]:
        """Newest last."""
        folders = (self.folder / "checkpoints").glob("step-*")
        return sorted(each for each in folders if (each / "manifest.json").exists() is complete)

    def wait(self, condition: Callable[[], bool], *, seconds: float = MOST_SECONDS, every: float = 0.05) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or (self.ended and self._driver.returncode != 0):
                raise AssertionError(f"no further step:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(every)


@dataclass(frozen=True)
class Event:
    """`happen` returns the seconds until the next step, or None if it starts other workers."""

    text: str
    happen: Callable[[Disturbed], float | None]
    possible: Callable[[Disturbed], bool] = lambda run: True


def _kill_worker(run: Disturbed) -> None:
    run.nodes.kill_worker(run.chance.choice(run.nodes.workers()))


def _tell_worker_to_end(run: Disturbed) -> None:
    run.nodes.kill_worker(run.chance.choice(run.nodes.workers()), signal.SIGTERM)


def _remove_node(run: Disturbed) -> None:
    run.nodes.remove(run.chance.choice(run.nodes.at_work()))


def _add_node(run: Disturbed) -> float:
    before = len(run.starts())
    run.nodes.add()
    run.wait(lambda: len(run.starts()) > before or run.ended)
    if run.ended:
        return 0.0
    start = run.starts()[-1]
    saved = [event for event in run.events("Checkpointed") if _when(event) < _when(start)]
    return _when(start) - _when(saved[-1])


def _drain_node(run: Disturbed) -> None:
    before = len(run.starts())
    node = run.nodes.drain(run.chance.choice(run.nodes.at_work()), seconds=NOTICE_SECONDS)
    run.wait(lambda: len(run.starts()) > before or run.ended)
    run.nodes.finish_drain(node)


def _kill_driver(run: Disturbed) -> None:
    run.kill_driver()
    run.start_driver()


def _interrupt_upload(run: Disturbed) -> None:
    known = set(run.checkpoints(complete=False))
    run.wait(lambda: bool(set(run.checkpoints(complete=False)) - known) or run.ended, every=0.001)
    _kill_worker(run)


def _damage_checkpoint(run: Disturbed) -> None:
    newest = run.checkpoints(complete=True)[-1]
    largest = max(newest.glob("__*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[run.chance.randrange(len(content))] ^= 1 << run.chance.randrange(8)
    largest.write_bytes(content)
    _kill_worker(run)


def _store_away(run: Disturbed) -> float:
    run.server.process.send_signal(signal.SIGSTOP)
    time.sleep(STORE_AWAY_SECONDS)
    run.server.process.send_signal(signal.SIGCONT)
    back, shown = time.time(), run.step()
    run.wait(lambda: run.step() != shown or run.ended)
    return time.time() - back


def _when(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _room(run: Disturbed) -> bool:
    return run.nodes.count() < MOST_NODES


def _two_at_work(run: Disturbed) -> bool:
    return len(run.nodes.at_work()) > 1


def _at_work(run: Disturbed) -> bool:
    return bool(run.nodes.workers())


EVENTS: dict[str, Event] = {
    "worker killed": Event("kill -9 for one worker", _kill_worker, _at_work),
    "worker told to end": Event("SIGTERM for one worker", _tell_worker_to_end, _at_work),
    "node removed": Event("kill -9 for all processes of a node with a worker", _remove_node, _two_at_work),
    "node added": Event(
        "a node joins, and the number of workers grows", _add_node, lambda run: run.nodes.count() < MOST_NODES
    ),
    "node drained": Event(f"an interruption notice of {NOTICE_SECONDS:.0f} s for a node", _drain_node, _two_at_work),
    "driver killed": Event("kill -9 for `f2llm run`, which is then restarted", _kill_driver),
    "upload interrupted": Event("kill -9 for a worker during the upload of a checkpoint", _interrupt_upload, _at_work),
    "checkpoint damaged": Event(
        "one bit of the newest checkpoint is flipped, then a worker is killed",
        _damage_checkpoint,
        lambda run: len(run.checkpoints(complete=True)) > 1 and _at_work(run),
    ),
    "store away": Event(
        f"the S3 server does not answer for {STORE_AWAY_SECONDS:.0f} s; seconds count from its next answer", _store_away
    ),
}
