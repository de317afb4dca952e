"""The progress of a running run."""

import io

import pytest

from data_io.wording import counted
from jobs.cli.output.progress import PlainLines, progress
from jobs.formatting import duration, numbers, short_number
from ray_app.run_directory.status import Phase, RunStatus

TRAINING = RunStatus(
    name="job",
    phase=Phase.TRAINING,
    step=12,
    total_steps=400,
    loss=3.2123,
    examples_per_second=86.2,
    tokens_per_second=9_412,
    data_wait_share=0.02,
    eta_seconds=200,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_closed_stream_does_not_end_the_run() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with progress(Closed()) as show:
        show(TRAINING)


def test_a_line_has_all_known_metrics() -> None:
    assert "  ".join(numbers(TRAINING)) == (
        "step 12/400  loss 3.212  86.2 examples/s  9.41k tokens/s  data wait 2%  ETA 3 min 20 s"
    )
    assert numbers(RunStatus(name="job", total_steps=400)) == ["step 0/400"]


def test_between_changes_of_phase_there_is_one_line_every_few_seconds() -> None:
    out, clock = io.StringIO(), Clock()
    show = PlainLines(out, every_seconds=5, clock=clock)

    show(RunStatus(name="job", phase=Phase.PREPARING))
    for step in range(1, 21):  # twenty steps, one a second
        clock.now += 1
        show(TRAINING.model_copy(update={"step": step}))
    show(RunStatus(name="job", phase=Phase.EVALUATING_AFTER))

    lines = out.getvalue().splitlines()
    steps = ["step 1/400", "step 6/400", "step 11/400", "step 16/400"]
    assert [line.split("  ")[0] for line in lines] == [
        "preparing",
        "training",
        *steps,
        "exporting and evaluating after training",
    ]


def test_a_step_is_never_printed_twice() -> None:
    out, clock = io.StringIO(), Clock()
    show = PlainLines(out, every_seconds=5, clock=clock)

    for _ in range(10):
        clock.now += 10
        show(TRAINING)

    assert out.getvalue().count("step 12/400") == 1


def test_a_message_is_printed_when_it_appears_and_not_when_it_disappears() -> None:
    out = io.StringIO()
    show = PlainLines(out, clock=Clock())

    show(TRAINING)
    show(TRAINING.model_copy(update={"message": "SIGTERM: writing a checkpoint"}))
    show(TRAINING)

    assert [line.split("  ")[0] for line in out.getvalue().splitlines()] == [
        "training",
        "step 12/400",
        "training: SIGTERM: writing a checkpoint",
    ]


def test_every_phase_has_words() -> None:
    out = io.StringIO()
    show = PlainLines(out, clock=Clock())

    for phase in Phase:
        show(RunStatus(name="job", phase=phase))

    assert len(out.getvalue().splitlines()) == sum(not phase.is_end for phase in Phase)


def test_quiet_prints_nothing_and_a_pipe_gets_plain_lines() -> None:
    quiet, pipe = io.StringIO(), io.StringIO()

    with progress(quiet, quiet=True) as on_status:
        on_status(TRAINING)
    with progress(pipe) as on_status:
        on_status(TRAINING)

    assert quiet.getvalue() == ""
    assert "step 12/400" in pipe.getvalue()
    assert "\x1b" not in pipe.getvalue()


def test_a_terminal_gets_a_bar_that_shows_every_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]

    with progress(terminal) as on_status:
        for phase in Phase:
            on_status(TRAINING.model_copy(update={"phase": phase}))

    assert "\x1b" in terminal.getvalue()
    assert "step 12/400" in terminal.getvalue()
    assert "ETA 3 min 20 s" in terminal.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5234, "0.523"),
        (8.31, "8.31"),
        (86.2, "86.2"),
        (999.4, "999"),
        (999.9, "1k"),
        (9_412, "9.41k"),
        (1.2e6, "1.2M"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert short_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.9, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "row", "0 rows"),
        (1, "source", "1 source"),
        (1234, "row", "1,234 rows"),
        (2, "query", "2 queries"),
        (1, "hard negative", "1 hard negative"),
        (4, "micro-batch", "4 micro-batches"),
    ],
)
def test_a_noun_has_its_plural_unless_the_number_is_one(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text
