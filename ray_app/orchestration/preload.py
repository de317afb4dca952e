"""The setup hook of the run's processes: one that will train imports all that it needs before it is given work."""

import gc
import os
from contextlib import suppress

from ray_app.orchestration.prestart import MARK, READY


def preload() -> None:
    """Ray calls this in every process that it starts for the job; one without the mark of training stays as it is.

    What fails here fails again where training begins, and is reported there.
    """
    if not MARK.items() <= os.environ.items():
        return
    gc.disable()  # an import makes a million objects and next to no garbage: walking them takes a fifth of the time
    with suppress(Exception):
        import ray.train.torch  # noqa: F401

        import ray_app.orchestration.worker
        import ray_app.training.loop  # noqa: F401
        from ray_app.ray_runtime.private_api import set_process_title

        set_process_title(READY)
    gc.freeze()
    gc.enable()
