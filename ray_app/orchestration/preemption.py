"""How a training worker learns that it is to end: SIGTERM, as from a preempted pod."""

import signal
import threading
from types import FrameType

from ray_app.ray_runtime.private_api import WorkerCallback


class PreemptionNotice(WorkerCallback):  # type: ignore[misc]
    """Runs in every worker: one that is told to end, by SIGTERM, leaves behind a checkpoint and not within a step.

    Ray itself would end the process at once; only a main thread may say otherwise. The signal is heard when that thread
    next runs Python: Ray Train asks it for its state every second.
    """

    def after_init_train_context(self) -> None:
        signal.signal(signal.SIGTERM, _hear)


_told = threading.Event()


def sigterm_received() -> bool:
    """Whether this process has had a SIGTERM."""
    return _told.is_set()


def _hear(_: int, __: FrameType | None) -> None:
    _told.set()
