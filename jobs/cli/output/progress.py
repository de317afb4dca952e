"""Progress of a run: a live bar on a terminal, otherwise a plain line every few seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, TextIO

from data_io.wording import shown
from jobs.formatting import PHASE_WORDS, numbers

if TYPE_CHECKING:
    from rich.console import Console

    from ray_app.run_directory.status import RunStatus

OnStatus = Callable[["RunStatus"], None]


@contextmanager
def progress(stream: TextIO, *, quiet: bool = False) -> Iterator[OnStatus]:
    """A function that shows each new status. With `quiet` it shows nothing.

    It ignores a closed stream: closing the terminal must not end the training.
    """
    if quiet:
        yield lambda status: None
        return
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(console) as on_status:
            yield _unless_closed(on_status)
    else:
        yield _unless_closed(PlainLines(stream))


def _unless_closed(on_status: OnStatus) -> OnStatus:
    def show(status: "RunStatus") -> None:
        with suppress(OSError):
            on_status(status)

    return show


class PlainLines:
    """A line for each change of phase or message, and one every few seconds in between, until the run ends."""

    def __init__(self, stream: TextIO, *, every_seconds: float = 5.0, clock: Callable[[], float] = monotonic) -> None:
        self._stream = stream
        self._every_seconds = every_seconds
        self._clock = clock
        self._phase = self._message = ""
        self._step = -1
        self._due = 0.0

    def __call__(self, status: "RunStatus") -> None:
        if status.phase.is_end:
            return  # the caller prints how the run ended
        phase, message = status.phase.value, status.message
        if phase != self._phase or (message and message != self._message):
            self._write(": ".join(filter(None, (PHASE_WORDS[phase], message))))
        self._phase, self._message = phase, message
        now = self._clock()
        if phase == "Training" and status.loss is not None and status.step != self._step and now >= self._due:
            self._write("  ".join(numbers(status)))
            self._step, self._due = status.step, now + self._every_seconds

    def _write(self, line: str) -> None:
        self._stream.write(f"{shown(line)}\n")
        self._stream.flush()


@contextmanager
def _bar(console: "Console") -> Iterator[OnStatus]:
    from rich.progress import BarColumn, Progress, TextColumn

    # Without markup, which a message could contain.
    numbers_column = TextColumn("{task.fields[numbers]}", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), numbers_column)
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("preparing", total=None, numbers="")

        def on_status(status: "RunStatus") -> None:
            training = status.phase.value == "Training" and status.total_steps > 0
            bar.update(
                task,
                description=PHASE_WORDS[status.phase.value],
                # Without a total the bar pulses. The other phases have no step count.
                total=status.total_steps if training or status.phase.is_end else None,
                completed=status.step,
                numbers="  ".join(numbers(status)) if status.total_steps else shown(status.message),
            )

        yield on_status
