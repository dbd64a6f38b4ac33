"""What is wrong with a network's name or with its weights: one line, whatever characters a file has put into it."""

from erf.errors import ErfError


class _LineError(ErfError, ValueError):
    """An error whose message is one printable line."""

    def __init__(self, message: str) -> None:
        words = " ".join(message.split())
        # A control character in a name of a file would act on the terminal.
        super().__init__("".join(one if one.isprintable() else ascii(one)[1:-1] for one in words))


class ModelError(_LineError):
    """A network was asked for by an unknown name, with options that it does not have, or would run code."""


class WeightsError(_LineError):
    """A weights file that cannot be read, would run code, or does not fit the network."""
