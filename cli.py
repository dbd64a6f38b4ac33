"""Launcher for a checkout that is not installed: `python cli.py compute --model hct`."""

from erf.__main__ import main

if __name__ == "__main__":
    main()
