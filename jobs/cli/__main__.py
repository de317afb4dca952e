"""`python -m jobs.cli`: the command line where no console script is installed."""

from jobs.cli.main import main

main()
