"""User-facing exceptions: one line with what was found, what was expected, and what to do."""


class ErfError(Exception):
    """Base of all errors that a user can fix."""


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


class CheckpointError(ErfError, OSError):
    """Progress of an interrupted run that is in use, damaged, or of another run."""


class UnfinishedRunError(CheckpointError):
    """Progress of an interrupted run, without an instruction to resume or discard it."""


class LockedError(CheckpointError):
    """Progress or an output that another process is writing."""


class LostProcessError(ErfError):
    """One of several processes that has ended too early."""


class InterruptedRunError(ErfError):
    """A run that was asked to stop; what was done is kept if there is a checkpoint."""


class InsufficientMemoryError(ErfError, MemoryError):
    """A run that does not fit into memory."""


class TrainingError(ErfError):
    """A training that cannot go on, such as one whose loss is not finite."""


class SelfCheckWarning(UserWarning):
    """A run that falls back to a slower way of computing, or that could not be checked."""
