"""The attempts at a run, each with the step that it resumed from: `attempts/attempt-3.from-00000020`.

A replaced attempt can stay alive for a while, paused or cut off from its driver. If it writes checkpoints beyond the
step from which a later attempt resumed, they are never used. It ends at its next checkpoint.
"""

import re

from data_io.storage.store import Store
from ray_app.errors import RunConflict

_FOLDER = "attempts"
_NAME = re.compile(rf"{_FOLDER}/attempt-(\d{{1,9}})\.from-(\d{{1,9}})")


def begin_attempt(run: Store, number: int, step: int) -> None:
    """Record that attempt `number` resumes from `step`. Later checkpoints of earlier attempts are void from now on."""
    run.put(f"{_FOLDER}/attempt-{number}.from-{step:08d}", b"{}\n")


def list_attempts(run: Store) -> dict[int, int]:
    """The step that each attempt resumed from, by attempt number."""
    matches = (_NAME.fullmatch(info.key) for info in run.list(f"{_FOLDER}/"))
    return {int(match[1]): int(match[2]) for match in matches if match}


def is_fenced_off(attempt: int, step: int, attempts: dict[int, int]) -> bool:
    """Whether a later attempt resumed from a step before `step`."""
    return any(number > attempt and start < step for number, start in attempts.items())


def refuse_if_replaced(run: Store, attempt: int) -> None:
    """Raises RunConflict if a later attempt has begun."""
    latest = max(list_attempts(run), default=attempt)
    if latest > attempt:
        raise RunConflict(
            f"attempt {attempt} at {run.uri} was replaced by attempt {latest} and stops",
            remedy=f"no action is needed: attempt {latest} continues the run",
        )
