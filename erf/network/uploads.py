"""Copies of images to a GPU, made from pinned memory while the GPU computes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erf.network.devices import is_memory_error


@dataclass(frozen=True)
class Upload:
    """Pixels (C, H, W) that are on a device, or on the way to it."""

    pixels: Tensor
    copied: torch.cuda.Event | None = None
    """Occurs when the copy is complete; None for pixels that are in place."""

    def arrived(self) -> Tensor:
        """The pixels; the device will have them before it does what it is told next."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.pixels.device)
            stream.wait_event(self.copied)
            # Else their memory could be given to the next copy before the pass has read them.
            self.pixels.record_stream(stream)
        return self.pixels


@dataclass(frozen=True)
class Uploader:
    """Starts copies to a device; called by the threads that decode ahead."""

    device: torch.device
    stream: torch.cuda.Stream | None = None
    """Stream of the copies; None leaves pixels in host memory."""

    @classmethod
    def to(cls, device: torch.device) -> "Uploader":
        """An uploader with a stream of its own, where the device is a GPU of CUDA."""
        return cls(device, torch.cuda.Stream(device) if device.type == "cuda" else None)

    def __call__(self, pixels: NDArray[np.float32]) -> Upload:
        host = torch.from_numpy(pixels)
        if self.stream is None:
            return Upload(host)
        try:
            with torch.cuda.stream(self.stream):
                copy = host.pin_memory().to(self.device, non_blocking=True)
                return Upload(copy, self.stream.record_event())
        except RuntimeError as error:
            if not is_memory_error(error):
                raise
            return Upload(host)  # copied with its batch, or alone where that does not fit
