"""Commands as processes of their own: how many at once, how they end, and that they end with who started them."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.workflows.child_processes import Command, Ended, run_commands
from tests.support.job_specs import job_spec
from tests.support.waiting import wait_for

# A pipe that nobody writes into is a document that is never read to its end.
STARTS_ONE_THAT_WAITS = """
import sys
from jobs.workflows.child_processes import Command, run_commands
commands = [Command(name, ("validate", sys.argv[1])) for name in ("first", "second")]
print(run_commands(commands, parallel=1, on_end=print, on_look=lambda names: None), flush=True)
"""


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    os.mkfifo(path)
    return path


def waiting(pipe: Path) -> list[int]:
    """Processes that read the pipe's document, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"validate" in words and str(pipe).encode() in words:
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def starter(pipe: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose first command waits. Nothing is left of them when the block ends."""
    command = [sys.executable, "-c", STARTS_ONE_THAT_WAITS, str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: len(waiting(pipe)) == 1, "one waits")
            yield process
        finally:
            process.kill()
            process.wait()
            for pid in waiting(pipe):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_every_command_is_run_and_what_it_said_is_told_with_no_more_at_once_than_asked_for() -> None:
    good = Command("good", ("validate", "-"), str(job_spec()).replace("'", '"'))
    bad = Command("bad", ("validate", "-"), "kind: EmbeddingJob")
    ended: list[Ended] = []
    seen: list[list[str]] = []

    stopped = run_commands([good, bad, good], parallel=2, on_end=ended.append, on_look=seen.append)

    assert stopped is None
    assert sorted((each.name, each.exit_code) for each in ended) == [("bad", 3), ("good", 0), ("good", 0)]
    assert [bool(each.error) for each in ended] == [each.name == "bad" for each in ended]
    assert max(map(len, seen)) == 2


def test_kill_9_of_who_started_a_command_ends_the_command(pipe: Path) -> None:
    with starter(pipe) as process:
        process.kill()
        process.wait()

        wait_for(lambda: not waiting(pipe), "none waits")


def test_a_signal_is_passed_on_and_no_other_command_is_started(pipe: Path) -> None:
    with starter(pipe) as process:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)

        assert said.splitlines() == ["Ended(name='first', exit_code=-15, error='')", "15"]
        assert not waiting(pipe)
