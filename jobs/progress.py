"""Where a run stands, while it runs: a live bar on a terminal, now and then a plain line elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from ray_app.status import RunStatus

OnStatus = Callable[["RunStatus"], None]

PHASE_WORDS = {
    "Preparing": "preparing",
    "EvaluatingBefore": "evaluating before training",
    "Training": "training",
    "EvaluatingAfter": "exporting and evaluating after training",
    "Succeeded": "done",
    "Stopped": "stopped",
    "Failed": "failed",
}
"""What a phase is called in front of people; status.json keeps the names of ray_app.status.Phase."""


@contextmanager
def progress(stream: TextIO, *, quiet: bool = False) -> Iterator[OnStatus]:
    """What to call with each new status. Nothing is shown where `quiet`, nor where nobody reads the stream any more: a
    terminal that was closed ends no training.
    """
    if quiet:
        yield lambda status: None
        return
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(console) as on_status:
            yield _heard_or_not(on_status)
    else:
        yield _heard_or_not(PlainLines(stream))


def _heard_or_not(on_status: OnStatus) -> OnStatus:
    def show(status: "RunStatus") -> None:
        with suppress(OSError):
            on_status(status)

    return show


class PlainLines:
    """A line for every change of phase or message, and one every few seconds in between, until the run ends."""

    def __init__(self, stream: TextIO, *, every_seconds: float = 5.0, clock: Callable[[], float] = monotonic) -> None:
        self._stream = stream
        self._every_seconds = every_seconds
        self._clock = clock
        self._phase = self._message = ""
        self._step = -1
        self._due = 0.0

    def __call__(self, status: "RunStatus") -> None:
        if status.phase.is_end:
            return  # how a run ended is the caller's to say
        phase, message = status.phase.value, status.message
        if phase != self._phase or (message and message != self._message):
            self._write(": ".join(filter(None, (PHASE_WORDS[phase], message))))
        self._phase, self._message = phase, message
        now = self._clock()
        if phase == "Training" and status.loss is not None and status.step != self._step and now >= self._due:
            self._write("  ".join(numbers(status)))
            self._step, self._due = status.step, now + self._every_seconds

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def numbers(status: "RunStatus") -> list[str]:
    """What a status says of the training, piece by piece; what is not known yet is left out."""
    pieces = [f"step {status.step}/{status.total_steps}"]
    if status.loss is not None:
        pieces.append(f"loss {status.loss:.3f}")
    if status.examples_per_second is not None:
        pieces.append(f"{short_number(status.examples_per_second)} examples/s")
    if status.tokens_per_second is not None:
        pieces.append(f"{short_number(status.tokens_per_second)} tokens/s")
    if status.data_wait_share is not None:
        pieces.append(f"data wait {status.data_wait_share:.0%}")
    if status.eta_seconds is not None:
        pieces.append(f"ETA {duration(status.eta_seconds)}")
    return pieces


def short_number(value: float) -> str:
    """Three figures: 0.52, 8.31, 86, 9.4k, 1.2M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


@contextmanager
def _bar(console: "Console") -> Iterator[OnStatus]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TextColumn("{task.fields[numbers]}"))
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("preparing", total=None, numbers="")

        def on_status(status: "RunStatus") -> None:
            training = status.phase.value == "Training" and status.total_steps > 0
            bar.update(
                task,
                description=PHASE_WORDS[status.phase.value],
                # Without a total the bar pulses: nobody counts the other phases.
                total=status.total_steps if training or status.phase.is_end else None,
                completed=status.step,
                numbers="  ".join(numbers(status)) if status.total_steps else status.message,
            )

        yield on_status
