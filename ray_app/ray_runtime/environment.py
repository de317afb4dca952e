"""Environment variables that Ray reads during its import. Therefore import this module before Ray.

An embedded cluster (no RAY_ADDRESS) listens on a port of this machine, so it gets a token that only this process and
its children know. Usage statistics are always off. Workers stay in the current directory, because paths in a job spec
are relative to it; Ray Train would move them to its own directory.
"""

import os
import secrets

from ray_app.errors import CapacityError

EMBEDDED = not os.environ.get("RAY_ADDRESS")

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
# In order: the intervals of Ray Train's health checks and of its checks for preemption notices; how long it waits for
# resources that it expected but that are gone, before it counts again; how long it waits for dead workers to shut down.
# Ray's defaults (2, 5, 60 and 30) make every recovery longer, the last one by 15 s. The last variable: Ray Serve's
# proxy has 5 s to load by default, which is too short on a busy machine.
for name, seconds in (
    ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", 1),
    ("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", 1),
    ("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", 3),
    ("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", 1),
    ("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", 60),
):
    os.environ.setdefault(name, str(seconds))
if EMBEDDED and "RAY_AUTH_MODE" not in os.environ:
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def check_gpus(gpus: int, *, of_job: bool = False) -> None:
    """Raises CapacityError if an embedded Ray would wait for GPUs that this machine does not have.

    `of_job`: the number comes from a job spec (workers.gpus), not from an option `--gpus`.
    """
    if not EMBEDDED or not gpus:
        return
    import torch

    if gpus > (there := torch.cuda.device_count()):
        if not of_job:
            fewer = f"use `--gpus {there}`" if there else "leave out `--gpus` to use the CPU"
        elif there:
            fewer = f"use `--workers {there}`, or `--set workers.gpus=0` to train on CPU"
        else:
            fewer = "use `--set workers.gpus=0` to train on CPU"
        raise CapacityError(
            f"{gpus} {'GPU is' if gpus == 1 else 'GPUs are'} requested, but this machine has {there or 'none'}",
            remedy=f"{fewer}; or set RAY_ADDRESS to a Ray cluster with enough GPUs",
        )
