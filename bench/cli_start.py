"""Start-up time of `f2llm --help`, and the heavy modules that it does not load.

python -m bench.cli_start [--runs 15]
"""

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

from bench.support.report import machine, table, write_result

HEAVY = ("torch", "ray", "deepspeed", "transformers", "pyarrow", "numpy", "obstore", "kopf", "pydantic", "rich")
_LOADED = (
    "import contextlib, io, sys\n"
    "from jobs.cli.main import main\n"
    "sys.argv = ['f2llm', '--help']\n"
    "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
    "    main()\n"
    "print(' '.join(sys.modules))\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    rows = [
        ["python -c pass", _spread(_seconds([sys.executable, "-c", "pass"], arguments.runs))],
        ["f2llm --help", _spread(_seconds([sys.executable, "-m", "jobs.cli", "--help"], arguments.runs))],
        ["import torch, for comparison", _spread(_seconds([sys.executable, "-c", "import torch"], 3))],
    ]
    loaded = subprocess.check_output([sys.executable, "-c", _LOADED], text=True).split()
    verdict = ", ".join(f"{name}: {'LOADED' if name in loaded else 'no'}" for name in HEAVY)
    text = [
        "# Start of the command line\n",
        f"`python -m bench.cli_start --runs {arguments.runs}`: wall time of a process, median, lowest to highest.\n",
        table(["command", "ms"], rows) + "\n",
        f"Modules in `sys.modules` after `f2llm --help`: {verdict}.\n",
        machine("typer"),
    ]
    write_result("cli_start", "\n".join(text))


def _seconds(command: list[str], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        start = perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(perf_counter() - start)
    return times


def _spread(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.0f} ({min(seconds) * 1000:.0f}-{max(seconds) * 1000:.0f})"


if __name__ == "__main__":
    main()
