"""What Ray reads from the environment when it is first imported; so this must be imported before it.

An embedded cluster (no RAY_ADDRESS) listens on a port of this machine: it gets a token that only this process and its
children know. Usage statistics are off everywhere. Workers stay in the current directory, to which a document's paths are
relative; Ray Train would move them into one of its own.
"""

import os
import secrets

from ray_app.errors import CapacityError

EMBEDDED = not os.environ.get("RAY_ADDRESS")

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
# How often Ray Train looks after its workers and for notices of preemption, how long it waits for a place that it has
# counted on and that is gone (it then counts again), and for workers that are dead to say goodbye before it ends them.
# Its own values (2, 5, 60 and 30) make every recovery longer, the last one by 15 s. Ray Serve's proxy would have 5 s to
# load, which a busy machine does not give it.
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


def check_gpus(gpus: int) -> None:
    """Raises CapacityError where an embedded Ray would wait for GPUs that this machine does not have."""
    if not EMBEDDED or not gpus:
        return
    import torch

    if gpus > (there := torch.cuda.device_count()):
        raise CapacityError(
            f"{gpus} GPUs are asked for, and this machine has {there}",
            remedy="ask for fewer, or set RAY_ADDRESS to a cluster that has them",
        )
