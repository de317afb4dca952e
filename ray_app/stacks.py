"""What the threads of this process are doing, for people who look for the reason of a hang."""

import sys
import threading
import traceback

_COLLECTIVES = "torch.distributed.distributed_c10d"


def is_in_collective(thread: int) -> bool:
    """Whether a thread waits for other workers, as far as Python sees: on a GPU it may wait for the device instead."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_globals.get("__name__") == _COLLECTIVES:
            return True
        frame = frame.f_back
    return False


def describe_stacks(first: int) -> str:
    """The Python stack of every thread but the one that asks, innermost call last; thread `first` comes first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    frames.pop(threading.get_ident())
    parts = []
    for ident in sorted(frames, key=lambda ident: ident != first):
        stack = "".join(traceback.format_stack(frames[ident]))
        parts.append(f"Thread {names.get(ident, ident)}:\n{stack}")
    return "\n".join(parts)
