"""User-facing exceptions: one line with what was found, what was expected, and what to do."""


class ErfError(Exception):
    """Base of all errors that a user can fix; as a text, the message with its remedy.

    Args:
        message: what was found and what was expected, in one line.
        remedy: what to do; '' for the remedy of the class, if it has one. Names of arguments and functions are in
            backticks, such as "a smaller `size`" or "`overwrite=True`", so that a program around the library can
            replace them by its own.
    """

    remedy = ""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy or type(self).remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class InputError(ErfError, ValueError):
    """An argument, a folder or a manifest that cannot be used."""


class ImageError(ErfError, ValueError):
    """One image that cannot be used; a run skips it unless it is strict."""


class LayerError(ErfError, ValueError):
    """A layer or unit that the network does not have, or that yields no map."""


class NoGradientError(LayerError):
    """A layer from which no gradient reaches the input."""

    def __init__(self, message: str, layer: str) -> None:
        super().__init__(message)
        self.layer = layer


class FormatError(ErfError, ValueError):
    """A file that is not an ERF file, is damaged, or was written by a newer version."""


class OutputError(ErfError, OSError):
    """A file that cannot be written."""


class OutputExistsError(OutputError):
    """A file that exists and must not be replaced."""

    remedy = "choose another name, or ask for `overwrite=True`"


class CheckpointError(ErfError, OSError):
    """Progress of an interrupted run that is in use, damaged, or of another run."""

    remedy = "repeat the settings with which it began, or start again with `overwrite=True`"


class UnfinishedRunError(CheckpointError):
    """Progress of an interrupted run, without an instruction to resume or discard it."""

    remedy = "go on with `resume=True`, or start again with `overwrite=True`"


class LockedError(CheckpointError):
    """Progress or an output that another process is writing."""

    remedy = "wait, or choose another output"


class LostProcessError(ErfError):
    """One of several processes that has ended too early."""


class InterruptedRunError(ErfError):
    """A run that was asked to stop; what was done is kept if there is a checkpoint."""


class InsufficientMemoryError(ErfError, MemoryError):
    """A run that does not fit into memory."""


class TrainingError(ErfError):
    """A training that cannot go on, such as one whose loss is not finite."""


class AssumptionWarning(UserWarning):
    """A value that neither the caller nor the network gives, so that one was assumed."""


class ImageWarning(UserWarning):
    """Images of a run that were used, but whose preprocessing or gradient calls for a look."""


class SelfCheckWarning(UserWarning):
    """A run that falls back to a slower way of computing, or that could not be checked."""
