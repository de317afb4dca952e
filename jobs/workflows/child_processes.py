"""Run `f2llm` commands as child processes, several in parallel. They end when their parent process ends."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import sleep
from typing import IO

from ray_app.signals import listening

_POLL_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Command:
    """A command line of `f2llm`, with its name in messages and its standard input."""

    name: str
    arguments: tuple[str, ...]
    stdin: str = ""


@dataclass(frozen=True)
class Ended:
    """The exit code of a command (below 0: the signal that killed it), and the last error that it printed."""

    name: str
    exit_code: int
    error: str


def run_commands(
    commands: Sequence[Command],
    *,
    parallel: int,
    on_end: Callable[[Ended], None],
    on_look: Callable[[list[str]], None],
) -> int | None:
    """Run the commands in order, `parallel` at once. Returns the signal that stopped them, or None if all ended.

    `on_end` is called for each command that ended, and `on_look` several times per second with the names of the running
    commands. On SIGINT or SIGTERM, the running commands get SIGTERM and no other command starts. Call it from the main
    thread: the kernel kills a command when the thread that started it ends, also after kill -9.
    """
    waiting, running = list(commands), list[_Child]()
    try:
        with listening() as interruption:
            told = False
            while running or (waiting and not interruption.signal):
                while waiting and len(running) < parallel and not interruption.signal:
                    running.append(_Child(waiting.pop(0)))
                if interruption.signal and not told:
                    for child in running:
                        child.process.terminate()
                    told = True
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    on_end(child.ended())
                on_look([child.command.name for child in running])
                sleep(_POLL_SECONDS if running else 0)
        return interruption.signal
    finally:
        for child in running:
            child.process.kill()
            child.ended()


class _Child:
    def __init__(self, command: Command) -> None:
        self.command = command
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *command.arguments],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            preexec_fn=_ends_with(os.getpid()),
        )
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(command.stdin.encode())

    def ended(self) -> Ended:
        code = self.process.wait()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").splitlines()
        self._said.close()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return Ended(self.command.name, code, errors[-1] if errors else "")


def _ends_with(parent: int) -> Callable[[], None]:
    """A function for a new process to run first, so that the kernel kills the process when its parent ends."""
    libc = ctypes.CDLL(None)

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before prctl
            os._exit(1)

    return in_child
