"""The command `erf`, also as `python -m erf`."""

from erf.process import prepare


def main() -> None:
    """Run the command line in a process that is ready for it."""
    prepare()
    # Takes a third of a second, in which a signal would else end in a traceback.
    from erf.cli import main as run

    run()


if __name__ == "__main__":
    main()
