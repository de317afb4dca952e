"""Ray Train's trainer of a run: its workers, what they are called with, and the hooks around them."""

import os
import secrets
import tempfile
from typing import Any

import ray_app.ray_runtime.environment  # noqa: F401 # isort: skip - before Ray, which reads what it sets

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from ray_app.job_spec import JobSpec, WorkersSpec
from ray_app.orchestration.callbacks import FailureWatch
from ray_app.orchestration.preemption import PreemptionNotice
from ray_app.orchestration.prestart import MARK
from ray_app.orchestration.resize import CheckpointBeforeResize, CountAvailableWorkers, useful_workers
from ray_app.orchestration.worker import COLLECTIVE_TIMEOUT, WorkerConfig, train_worker

# glibc gives big blocks back to the system after each use; keeping them makes a step on CPU up to 1.3 times as fast.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
    "MALLOC_TOP_PAD_": str(2**26),
}


def make_trainer(spec: JobSpec, monitor: Any, config: WorkerConfig) -> TorchTrainer:
    """The trainer of workers that are called with `config`; what happens to them is told to the actor `monitor`."""
    workers, micro_batches = spec.workers, spec.train.micro_batches_per_step
    most = useful_workers(workers.highest, fewest=workers.lowest, micro_batches=micro_batches)
    return TorchTrainer(
        train_worker,
        train_loop_config=dict(config),
        scaling_config=ScalingConfig(
            # A pair even where both are the same: only then does Ray Train look at what there is before it places them.
            num_workers=(workers.lowest, most),
            elastic_resize_monitor_interval_s=workers.resize_interval_seconds,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})},
        ),
        torch_config=TorchConfig(
            backend="nccl" if workers.gpus else "gloo", timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())
        ),
        # Ray's own record of the run is not needed: our run directory is the truth about it. Ray makes a directory for it
        # even so, by default in the home, which a container's user may not have.
        run_config=RunConfig(
            storage_path=os.path.join(tempfile.gettempdir(), f"ray_results_{os.getuid()}"),
            name=f"{config['name']}-{secrets.token_hex(4)}",
            worker_runtime_env={"env_vars": MARK},
            # It starts the workers again whatever ends them; when to give up is the monitor's decision.
            failure_config=FailureConfig(max_failures=-1),
            callbacks=[
                CheckpointBeforeResize(monitor, prestart=config["prestart"]),
                CountAvailableWorkers(config["run"].uri, monitor, micro_batches=micro_batches),
                FailureWatch(monitor),
                PreemptionNotice(),
            ],
        ),
    )


def fit(trainer: TorchTrainer, outcome: list[BaseException]) -> None:
    """Train to the end; what is raised is put into `outcome`."""
    try:
        trainer.fit()
    except BaseException as error:  # handed to the main thread, which raises it
        outcome.append(error)


def environment_of_workers(workers: WorkersSpec) -> dict[str, str]:
    """What the run's processes have in their environment from their start on."""
    environment = {"OMP_NUM_THREADS": str(max(1, int(workers.cpus)))}
    if workers.gpus:
        # Or DeepSpeed looks for a GPU when it is imported (orchestration/preload.py), before Ray has said which of the
        # node's is this process's, and CUDA keeps all that it saw then.
        return environment | {"DS_ACCELERATOR": "cuda"}
    return environment | {"DS_ACCELERATOR": "cpu", **_KEEP_MEMORY}
