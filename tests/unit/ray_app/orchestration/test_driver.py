"""A run from the driver's side, without Ray: its checks before the start, and when it stops waiting."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from data_io.errors import F2LLMError
from data_io.storage.store import open_store
from ray_app.errors import CapacityError
from ray_app.job_spec import JobSpec
from ray_app.orchestration import driver
from ray_app.orchestration.active_run import ActiveRun
from ray_app.orchestration.monitor import RunState
from ray_app.ray_runtime import environment as ray_environment
from ray_app.run_directory.status import RunStatus
from ray_app.signals import Interruption
from tests.support.small_training import small_job_spec, write_small_dataset


def _spec(folder: Path, **workers: Any) -> JobSpec:
    job_spec = small_job_spec(str(folder / "data"), str(folder / "runs"))
    job_spec["spec"]["workers"] = workers
    return JobSpec.model_validate(job_spec["spec"])


@pytest.mark.parametrize(("there", "refused"), [(0, True), (1, True), (2, False)])
def test_an_embedded_run_is_refused_if_the_machine_has_too_few_gpus_for_workers_min(
    there: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Started(F2LLMError):
        pass

    def start(**_: Any) -> Any:
        raise Started("it is")

    monkeypatch.setattr(ray_environment, "EMBEDDED", True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(driver, "cluster", start)
    write_small_dataset(open_store(str(tmp_path / "data")))
    spec = _spec(tmp_path, gpus=1, replicas=3, min=2)

    with pytest.raises(CapacityError if refused else Started) as raised:
        driver.run("small", spec, job_spec_yaml="", differences=lambda _: [], changes=lambda _: [])

    if refused:
        assert f"2 GPUs are requested, but this machine has {there or 'none'}" in str(raised.value)
        assert "`--set workers.gpus=0` to train on CPU" in str(raised.value.remedy)


class _Actor:
    """The monitor's state with the interface of an actor, in this process."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._state, name))


class _Endless:
    """A trainer of Ray Train whose workers wait for resources until the test ends."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def fit(self) -> None:
        self.ended.wait()


@pytest.fixture
def endless() -> Iterator[_Endless]:
    trainer = _Endless()
    yield trainer
    trainer.ended.set()


@dataclass
class Stage:
    """A run whose monitor is in this process, and its messages."""

    phases: driver.Phases
    run: ActiveRun
    said: list[str]


@pytest.fixture
def stage(endless: _Endless, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(driver, "make_trainer", lambda *_: endless)

    def make(monitor: RunState, interruption: Interruption) -> Stage:
        said: list[str] = []
        spec = _spec(tmp_path, replicas=3, min=2)
        run, data = open_store(str(tmp_path / "runs")), open_store(str(tmp_path / "data"))
        lease: Any = SimpleNamespace(holder="this", store_unreachable_since=None, refuse_if_lost=lambda: None)
        status = RunStatus(name="small")
        active = ActiveRun("small", spec, data, run, status, lambda status: said.append(status.message), lease)
        return Stage(driver.Phases(active, _Actor(monitor), interruption), active, said)

    return make


def test_a_signal_ends_a_run_whose_workers_wait_for_resources(stage: Callable[..., Stage]) -> None:
    now, interruption = 0.0, Interruption()
    monitor = RunState(clock=lambda: now)
    monitor.wait_for_room(True)
    now = 60.0
    interruption.signal = 15
    made = stage(monitor, interruption)

    made.phases.train(None, evaluates_checkpoints=False)

    assert "waiting for resources for 2 workers" in made.said
    assert "SIGTERM: ending, no worker is running" in made.said
