"""`python -m erf`."""

from erf.cli import main

main()
