"""Ray Train's trainer of a run: the workers, their arguments, and the hooks."""

import os
import secrets
import tempfile
from typing import Any

import ray_app.ray_runtime.environment  # noqa: F401 # isort: skip - must be imported before Ray

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from ray_app.job_spec import JobSpec, WorkersSpec
from ray_app.orchestration.callbacks import FailureWatch
from ray_app.orchestration.preemption import PreemptionNotice
from ray_app.orchestration.prestart import MARK
from ray_app.orchestration.resize import CheckpointBeforeResize, CountAvailableWorkers, useful_workers
from ray_app.orchestration.worker import COLLECTIVE_TIMEOUT, WorkerConfig, train_worker

# glibc returns large blocks to the system after each use. Keeping them makes a step on CPU up to 1.3 times as fast.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
    "MALLOC_TOP_PAD_": str(2**26),
}


def make_trainer(spec: JobSpec, monitor: Any, config: WorkerConfig) -> TorchTrainer:
    """A trainer that calls each worker with `config`. The hooks report the workers' failures to the actor `monitor`."""
    workers, micro_batches = spec.workers, spec.train.micro_batches_per_step
    most = useful_workers(workers.highest, fewest=workers.lowest, micro_batches=micro_batches)
    return TorchTrainer(
        train_worker,
        train_loop_config=dict(config),
        scaling_config=ScalingConfig(
            # A pair even if both are equal: only then does Ray Train check the free resources before it places workers.
            num_workers=(workers.lowest, most),
            elastic_resize_monitor_interval_s=workers.resize_interval_seconds,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})},
        ),
        torch_config=TorchConfig(
            backend="nccl" if workers.gpus else "gloo", timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())
        ),
        # Ray's own record of the run is not used: the run directory is the record. Ray creates a directory for it
        # anyway, by default in the home directory, which may not exist in a container.
        run_config=RunConfig(
            storage_path=os.path.join(tempfile.gettempdir(), f"ray_results_{os.getuid()}"),
            name=f"{config['name']}-{secrets.token_hex(4)}",
            worker_runtime_env={"env_vars": MARK},
            # Ray Train restarts the workers after any failure. The monitor decides when the run fails.
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
    """Train to the end. An exception is appended to `outcome`."""
    try:
        trainer.fit()
    except BaseException as error:  # the main thread raises it
        outcome.append(error)


def environment_of_workers(workers: WorkersSpec) -> dict[str, str]:
    """Environment variables that the run's processes have from their start."""
    environment = {"OMP_NUM_THREADS": str(max(1, int(workers.cpus)))}
    if workers.gpus:
        # Otherwise DeepSpeed looks for GPUs when it is imported (orchestration/preload.py). That is before Ray assigns
        # one of the node's GPUs to this process, and CUDA would keep the list of all GPUs.
        return environment | {"DS_ACCELERATOR": "cuda"}
    return environment | {"DS_ACCELERATOR": "cpu", **_KEEP_MEMORY}
