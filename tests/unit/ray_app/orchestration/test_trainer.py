"""The configuration of Ray Train for a run."""

import os
import tempfile
from typing import Any, cast

import pytest

from data_io.data_spec import DataSpec
from data_io.storage.store import open_store
from ray_app.job_spec import JobSpec, ModelSpec, StorageSpec
from ray_app.orchestration.trainer import make_trainer
from ray_app.orchestration.worker import WorkerConfig


def test_rays_own_record_is_not_in_the_home_directory_which_may_not_exist_in_a_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    spec = JobSpec(model=ModelSpec(name_or_path="none"), data=DataSpec(uri="/data"), storage=StorageSpec(uri="/runs"))
    config = cast("WorkerConfig", {"name": "run", "run": open_store("/runs/run"), "prestart": False})

    trainer: Any = make_trainer(spec, None, config)

    kept = trainer.run_config.storage_path
    assert os.path.dirname(kept) == tempfile.gettempdir()
