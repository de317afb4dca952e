"""Print the error of a failed or interrupted command: one message on stderr, and JSON on stdout with --json."""

import sys
from collections.abc import Sequence

from data_io.errors import F2LLMError
from data_io.wording import shown


def stopped(arguments: Sequence[str]) -> int:
    """The exit code after Ctrl-C. With --json, an error object is printed too; people need no message."""
    if "--json" in arguments:
        import json

        facts = {
            "class": "user",
            "exit_code": 130,
            "message": "stopped by Ctrl-C",
            "remedy": "run the same command again",
        }
        print(json.dumps({"error": facts}, indent=2))
    return 130


def report_error(error: F2LLMError, arguments: Sequence[str]) -> None:
    if "--debug" in arguments:
        import traceback

        print(shown(traceback.format_exc()), end="", file=sys.stderr)
    print(shown(f"error: {error}"), file=sys.stderr)
    if "--json" in arguments:
        import json

        facts = {
            "class": error.error_class,
            "exit_code": error.exit_code,
            "message": error.message,
            "remedy": error.remedy,
        }
        print(json.dumps({"error": facts}, indent=2, allow_nan=False))
