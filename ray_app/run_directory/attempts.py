"""The attempts at a run, each with the step it went on from: `attempts/attempt-3.from-00000020`.

An attempt that was replaced may still be alive for a while: paused, or cut off from its driver. Its checkpoints beyond
the step that a later attempt began with are never used, and it ends at its next one.
"""

import re

from data_io.storage.store import Store
from ray_app.errors import RunConflict

_FOLDER = "attempts"
_NAME = re.compile(rf"{_FOLDER}/attempt-(\d+)\.from-(\d+)")


def begin_attempt(run: Store, number: int, step: int) -> None:
    """Write down that attempt `number` goes on from `step`: from now on earlier ones cannot get beyond it."""
    run.put(f"{_FOLDER}/attempt-{number}.from-{step:08d}", b"{}\n")


def list_attempts(run: Store) -> dict[int, int]:
    """The step that each attempt went on from, by its number."""
    matches = (_NAME.fullmatch(info.key) for info in run.list(f"{_FOLDER}/"))
    return {int(match[1]): int(match[2]) for match in matches if match}


def is_fenced_off(attempt: int, step: int, attempts: dict[int, int]) -> bool:
    """Whether a later attempt went on from before `step`."""
    return any(number > attempt and start < step for number, start in attempts.items())


def refuse_if_replaced(run: Store, attempt: int) -> None:
    """Raises RunConflict where a later attempt has begun."""
    latest = max(list_attempts(run), default=attempt)
    if latest > attempt:
        raise RunConflict(
            f"attempt {attempt} at {run.uri} was replaced by attempt {latest}; it ends here",
            remedy="nothing is lost: the later attempt goes on",
        )
