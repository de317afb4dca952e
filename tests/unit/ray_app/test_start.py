"""What a worker loads before its first step."""

import os
import subprocess
import sys

import pytest

from ray_app.spares import MARK


def test_no_start_pays_for_the_compiler_that_deepspeeds_muon_would_load() -> None:
    program = "import sys, ray_app.engine; print('torch._inductor.compile_fx' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(("environment", "loaded"), [(MARK, True), ({}, False)])
def test_a_worker_of_training_has_loaded_all_that_it_runs_and_other_processes_nothing(
    environment: dict[str, str], loaded: bool
) -> None:
    program = (
        "import sys, ray_app.spares; ray_app.spares.preload(); "
        "print({name in sys.modules for name in ('ray_app.loop', 'ray_app.worker', 'ray.train.torch', 'deepspeed')})"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == str({loaded})
