"""A worker that is told to end, by SIGTERM, leaves behind a checkpoint and not in the middle of a step."""

import signal
import threading
from types import FrameType

from ray.train.v2._internal.execution.callback import WorkerCallback  # the only hook in a worker's main thread

_told = threading.Event()


class HearTerminate(WorkerCallback):  # type: ignore[misc]
    """Runs in every worker. Ray itself would end the process at once; only a main thread may say otherwise.

    The signal is heard when that thread next runs Python: Ray Train asks it for its state every second.
    """

    def after_init_train_context(self) -> None:
        signal.signal(signal.SIGTERM, _hear)


def told_to_end() -> bool:
    """Whether this process has had a SIGTERM."""
    return _told.is_set()


def _hear(_: int, __: FrameType | None) -> None:
    _told.set()
