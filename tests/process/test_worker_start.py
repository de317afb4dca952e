"""The modules that a worker loads before its first step."""

import os
import subprocess
import sys

import pytest

from ray_app.job_spec import WorkersSpec
from ray_app.orchestration.prestart import MARK
from ray_app.orchestration.trainer import environment_of_workers


def test_a_start_does_not_load_the_compiler_that_deepspeeds_muon_would_load() -> None:
    program = "import sys, ray_app.training.engine; print('torch._inductor.compile_fx' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "False"


def test_deepspeed_prints_nothing_on_standard_output_which_is_for_json() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}

    done = subprocess.run(
        [sys.executable, "-c", "import ray_app.training.engine"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == ""


@pytest.mark.parametrize("module", ["ray_app.checkpointing.weights", "ray_app.export.run", "ray_app.export.merge"])
def test_a_checkpoint_is_read_without_deepspeed_and_ray(module: str) -> None:
    program = f"import sys, {module}; print({{'deepspeed', 'ray'}} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_the_driver_loads_no_more_than_ray_train_itself() -> None:
    """Neither does Ray Train's controller, which imports the same modules. This would cost seconds at each start."""
    program = (
        "import sys, ray_app.orchestration.driver; "
        "heavy = {'deepspeed', 'transformers', 'sentence_transformers', 'torch.distributed.checkpoint'}; "
        "print(heavy & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_using_a_model_loads_neither_deepspeed_nor_ray() -> None:
    program = (
        "import sys, ray_app.inference.model_source, ray_app.inference.embed_files; "
        "print({'deepspeed', 'ray'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


@pytest.mark.parametrize(("environment", "loaded"), [(MARK, True), ({}, False)])
def test_a_training_worker_has_loaded_all_its_code_and_other_processes_have_loaded_none_of_it(
    environment: dict[str, str], loaded: bool
) -> None:
    program = (
        "import sys; from ray_app.orchestration.preload import preload; preload(); "
        "trains = ('ray_app.training.loop', 'ray_app.orchestration.worker', 'ray.train.torch', 'deepspeed'); "
        "print({name in sys.modules for name in trains})"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == str({loaded})


def test_a_worker_that_will_get_a_gpu_loads_everything_without_looking_for_gpus() -> None:
    """Ray assigns one of the node's GPUs later, and CUDA keeps the list of GPUs that it saw first."""
    program = (
        "import torch, ray_app.orchestration.preload\n"
        "asked = []\n"
        "for name in ('is_available', 'device_count', 'init', '_lazy_init'):\n"
        "    setattr(torch.cuda, name, lambda *_, name=name: asked.append(name) or 8)\n"
        "ray_app.orchestration.preload.preload()\n"
        "import sys; print('deepspeed' in sys.modules, asked)"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    environment = {**inherited, **MARK, **environment_of_workers(WorkersSpec(gpus=1))}

    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "True []"


@pytest.mark.parametrize(("gpus", "accelerator"), [(0, "cpu"), (1, "cuda")])
def test_deepspeed_gets_the_device_and_never_looks_for_one(gpus: int, accelerator: str) -> None:
    assert environment_of_workers(WorkersSpec(gpus=gpus))["DS_ACCELERATOR"] == accelerator
