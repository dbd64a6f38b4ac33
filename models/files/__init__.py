"""Tensors in untrusted weights files: `open_tensors`."""

from .opening import open_tensors
from .sections import StoredTensor

__all__ = ["StoredTensor", "open_tensors"]
