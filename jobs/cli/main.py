"""`f2llm`, the console script. The command line is imported inside `main`, so that Ctrl-C is caught from the start."""

import os
import signal
import sys

from jobs.cli.output.error_report import stopped

READER_GONE = 128 + signal.SIGPIPE
"""The exit code of a command whose output is closed early, as in `f2llm schema | head -c 1`."""


def main() -> None:
    """Run the command line of this process and exit with its exit code."""
    try:
        from jobs.cli.app import call

        code = call(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = stopped(sys.argv[1:])
    except BrokenPipeError:
        code = READER_GONE
        # Flushing the rest of the buffer at exit would fail again, print an error and exit with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
