"""What Ray Train is told of a run."""

import os
import tempfile
from typing import Any, cast

import pytest

from data_io.data_spec import DataSpec
from data_io.storage.store import open_store
from ray_app.job_spec import JobSpec, ModelSpec, StorageSpec
from ray_app.orchestration.trainer import make_trainer
from ray_app.orchestration.worker import WorkerConfig


def test_ray_keeps_its_own_record_out_of_the_home_which_a_containers_user_may_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    spec = JobSpec(model=ModelSpec(name_or_path="none"), data=DataSpec(uri="/data"), storage=StorageSpec(uri="/runs"))
    config = cast("WorkerConfig", {"name": "run", "run": open_store("/runs/run"), "prestart": False})

    trainer: Any = make_trainer(spec, None, config)

    kept = trainer.run_config.storage_path
    assert os.path.dirname(kept) == tempfile.gettempdir()
