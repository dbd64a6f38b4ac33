"""Errors about models and weights; each message is a single printable line, whatever characters a file contains."""

from erf.errors import ErfError


class _LineError(ErfError, ValueError):
    """An error whose message is one printable line."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        words = " ".join(message.split())
        # A control character in a name taken from a file would act on the terminal.
        super().__init__("".join(one if one.isprintable() else ascii(one)[1:-1] for one in words), remedy=remedy)


class ModelError(_LineError):
    """A network was requested by an unknown name, with unsupported options, or would run untrusted code."""


class WeightsError(_LineError):
    """A weights file that cannot be read, would run code, or does not fit the network."""
