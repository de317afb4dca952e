"""`python -m jobs.cli`: the command line without the console script."""

from jobs.cli.main import main

main()
