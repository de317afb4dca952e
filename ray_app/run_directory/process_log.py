"""The log of a process: in memory for error reports, and written to the run directory at the end."""

import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from data_io.errors import StorageError
from data_io.storage.store import Store
from ray_app.run_directory.exit_record import LOG_LINES
from ray_app.structured_log import LogFormat, StructuredFormatter

_OURS = ("data_io", "ray_app")


def _is_worth_keeping(record: logging.LogRecord) -> bool:
    """All records of our own code, and warnings of libraries, some of which log very much."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OURS


class ProcessLog:
    """The log so far, in memory. If `console` is set, lines also go to standard error in that format."""

    def __init__(self, context: Callable[[], Mapping[str, Any]] = dict, console: LogFormat | None = None) -> None:
        self._records = io.StringIO()
        self.handlers = [_handler(self._records, LogFormat.TEXT, context)]
        if console is not None:
            self.handlers.append(_handler(sys.stderr, console, context))

    @property
    def text(self) -> str:
        return self._records.getvalue()

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines of the log, at most LOG_LINES, oldest first."""
        return tuple(self.text.splitlines()[-LOG_LINES:])


def _handler(stream: TextIO, log_format: LogFormat, context: Callable[[], Mapping[str, Any]]) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.addFilter(_is_worth_keeping)
    handler.setFormatter(StructuredFormatter(log_format, context))
    return handler


@contextmanager
def process_log(
    run: Store, key: str, *, context: Callable[[], Mapping[str, Any]] = dict, console: LogFormat | None = None
) -> Iterator[ProcessLog]:
    """Collect the log of the block: our own records, and warnings of all libraries.

    At the end of the block the log is written to the run directory, even after an error. `context` returns the fields
    of every line. With `console` the lines go to standard error too.
    """
    log, root = ProcessLog(context, console), logging.getLogger()
    for handler in log.handlers:
        root.addHandler(handler)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield log
    finally:
        logging.captureWarnings(False)
        for handler in log.handlers:
            root.removeHandler(handler)
        with suppress(StorageError):  # a log that cannot be written must not fail the run or hide its error
            run.put(key, log.text.encode())
