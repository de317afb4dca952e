"""A resize that nobody forces waits for a checkpoint: Ray Train by itself would end the workers where they are."""

from time import monotonic, sleep
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback  # the only hook before a resize

_POLL_SECONDS = 0.5
_MOST_SECONDS = 900.0
"""A step and a checkpoint take less. After that the resize is done, and steps are repeated."""


class CheckpointBeforeResize(ControllerCallback):  # type: ignore[misc]
    """Runs in Ray Train's controller."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Ask the workers to write a checkpoint and leave, and wait until they have, or until they are gone."""
        if not ray.get(self._monitor.request_regroup.remote()):
            return
        began = monotonic()
        while ray.get(self._monitor.workers_are_there.remote()) and monotonic() - began < _MOST_SECONDS:
            sleep(_POLL_SECONDS)
