"""`f2llm`, the console script. The command line itself is loaded in here, so that Ctrl-C meets it from the start on."""

import sys
from collections.abc import Sequence


def main() -> None:
    """Run the command line of this process, and end with its exit code."""
    try:
        from jobs.cli.app import call

        code = call(sys.argv[1:])
    except KeyboardInterrupt:
        code = stopped(sys.argv[1:])
    sys.exit(code)


def stopped(arguments: Sequence[str]) -> int:
    """The exit code after Ctrl-C. Whoever pressed it knows; a program that asked for --json is told."""
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
