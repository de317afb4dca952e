"""The setup hook of the run's processes: a training process imports everything before it gets work."""

import gc
import os
from contextlib import suppress

from ray_app.orchestration.prestart import MARK, READY


def preload() -> None:
    """Ray calls this in every process that it starts for the job. Only processes marked for training import anything.

    Errors are ignored here: they occur again when training begins, and are reported then.
    """
    if not MARK.items() <= os.environ.items():
        return
    gc.disable()  # imports create a million objects and almost no garbage; collecting takes a fifth of the time
    with suppress(Exception):
        import ray.train.torch  # noqa: F401

        import ray_app.orchestration.worker
        import ray_app.training.loop  # noqa: F401
        from ray_app.ray_runtime.private_api import set_process_title

        set_process_title(READY)
    gc.freeze()
    gc.enable()
