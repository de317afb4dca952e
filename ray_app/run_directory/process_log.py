"""What a process logs, kept for the run directory and for whoever asks why it ended."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from data_io.errors import StorageError
from data_io.storage.store import Store
from ray_app.run_directory.exit_record import LOG_LINES

_OURS = ("data_io", "ray_app")


def _is_worth_keeping(record: logging.LogRecord) -> bool:
    """How things go says only our own code; of libraries, some of which say all they do, warnings are enough."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OURS


class ProcessLog:
    """The log so far, in memory."""

    def __init__(self) -> None:
        self._records = io.StringIO()
        self.handler = logging.StreamHandler(self._records)
        self.handler.addFilter(_is_worth_keeping)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    @property
    def text(self) -> str:
        return self._records.getvalue()

    @property
    def last_lines(self) -> tuple[str, ...]:
        """At most LOG_LINES of them, oldest first."""
        return tuple(self.text.splitlines()[-LOG_LINES:])


@contextmanager
def process_log(run: Store, key: str) -> Iterator[ProcessLog]:
    """Keep what is logged in the block: warnings of all libraries, and how things go of our own. It is in the run
    directory when the block ends, however it ends.
    """
    log, root = ProcessLog(), logging.getLogger()
    root.addHandler(log.handler)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield log
    finally:
        logging.captureWarnings(False)
        root.removeHandler(log.handler)
        with suppress(StorageError):  # a log is not worth a run, nor the error that ended it
            run.put(key, log.text.encode())
