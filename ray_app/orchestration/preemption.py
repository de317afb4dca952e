"""Tells a training worker that it must exit: SIGTERM, for example from a preempted pod."""

import signal
import threading
from types import FrameType

from ray_app.ray_runtime.private_api import WorkerCallback


class PreemptionNotice(WorkerCallback):  # type: ignore[misc]
    """Runs in every worker. After SIGTERM a worker finishes its step, writes a checkpoint, and then exits.

    Ray's own handler would end the process at once. Only the main thread can replace it. The handler runs when that
    thread next runs Python code: Ray Train asks it for its state every second.
    """

    def after_init_train_context(self) -> None:
        signal.signal(signal.SIGTERM, _on_sigterm)


_received = threading.Event()


def sigterm_received() -> bool:
    """Whether this process has received SIGTERM."""
    return _received.is_set()


def _on_sigterm(_: int, __: FrameType | None) -> None:
    _received.set()
