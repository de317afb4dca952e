"""Checkpoints of a replaced attempt are never used."""

import pytest

from data_io.storage.store import open_store
from ray_app.errors import RunConflict
from ray_app.run_directory.attempts import begin_attempt, is_fenced_off, list_attempts, refuse_if_replaced
from ray_app.run_directory.checkpoint_manifest import MANIFEST_FILE, CheckpointName, list_checkpoints


def test_a_checkpoint_beyond_the_start_of_a_later_attempt_does_not_belong_to_the_run() -> None:
    run = open_store("memory://attempts")
    for number, step in ((1, 0), (2, 20), (3, 30)):
        begin_attempt(run, number, step)
    written = [(10, 1), (20, 1), (25, 1), (30, 2), (40, 2), (35, 3)]  # 25 and 40 were written by replaced attempts
    for step, attempt in written:
        run.put(f"{CheckpointName(step, attempt).folder}/{MANIFEST_FILE}", b"{}")

    assert list_attempts(run) == {1: 0, 2: 20, 3: 30}
    assert [(name.step, name.attempt) for name in list_checkpoints(run)] == [(35, 3), (30, 2), (20, 1), (10, 1)]


def test_an_attempt_ends_once_a_later_one_has_begun() -> None:
    run = open_store("memory://replaced")
    refuse_if_replaced(run, 1)
    begin_attempt(run, 1, 0)
    refuse_if_replaced(run, 1)
    begin_attempt(run, 2, 5)

    refuse_if_replaced(run, 2)
    with pytest.raises(RunConflict, match=r"attempt 1 at .* was replaced by attempt 2"):
        refuse_if_replaced(run, 1)


def test_without_later_attempts_nothing_is_fenced_off() -> None:
    assert not is_fenced_off(1, 10**6, {})
    assert not is_fenced_off(2, 10**6, {1: 0, 2: 5})
