"""The command line as users run it: a separate process, with its exit code and output."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

F2LLM = (sys.executable, "-m", "jobs.cli")


def f2llm(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run([*F2LLM, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False)


class Running:
    """A running command, in its own session, so that it can be killed with all its child processes. The end of a `with`
    block kills a command that still runs.
    """

    def __init__(
        self,
        *arguments: str | Path,
        log: Path,
        program: Sequence[str] = F2LLM,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is added to the environment of this process."""
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*program, *map(str, arguments)],
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float = 600) -> None:
        """Wait for a condition. Fails with the output of the command if the command ends before, or after a timeout."""
        deadline = time.monotonic() + timeout
        while not condition():
            ended = self._process.poll()
            assert ended is None, f"it ended with {ended}:\n{self._log.read_text()}"
            assert time.monotonic() < deadline, f"not within {timeout} s:\n{self._log.read_text()}"
            time.sleep(0.05)

    def kill_all(self) -> None:
        """kill -9 for the command and all its child processes, as after a power failure."""
        deadline = time.monotonic() + 60
        while left := [pid for pid in self._session() if not _is_zombie(pid)]:  # one may start another meanwhile
            assert time.monotonic() < deadline, f"kill -9 does not end {left}"
            for pid in left:
                _signal(pid, signal.SIGKILL)
            time.sleep(0.01)
        self._process.wait()

    def kill_one(self, title: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal (default: SIGKILL) to the child process with this title."""
        pid = next(pid for pid in self._session() if title in _title_of(pid))
        _signal(pid, number)

    def send(self, number: signal.Signals) -> None:
        """Send a signal only to the command."""
        self._process.send_signal(number)

    def wait(self, timeout: float = 600) -> int:
        """Wait for the end, and return the exit code."""
        return self._process.wait(timeout)

    def terminate(self, timeout: float = 400) -> int:
        """Send SIGTERM only to the command; returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout)

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def _session(self) -> list[int]:
        """The command, until its exit code was collected, and all its child processes."""
        return [pid for pid in _processes() if _session_of(pid) == self._process.pid]


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return -1


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].startswith(b"Z")
    except OSError:
        return True


def _title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
