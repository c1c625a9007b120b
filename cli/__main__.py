"""`python -m cli`: the `distill` command where its script is not installed."""

from cli.main import main

main()
