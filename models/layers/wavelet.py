"""Two-dimensional discrete wavelet transform with orthonormal Daubechies wavelets.

Paper: Daubechies. Orthonormal bases of compactly supported wavelets. Comm. Pure Appl. Math. 1988; Mallat's pyramid.
Maps are extended periodically, so that every level halves them exactly; Haar needs no extension.
"""

from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional


def daubechies(order: int) -> NDArray[np.float64]:
    """Compute the minimal-phase low-pass filter (2 * order,) with `order` vanishing moments; order 1 is Haar.

    Spectral factorisation: the filter keeps those roots inside the unit circle of the polynomial that the vanishing
    moments leave. Their error is at most 1e-10 up to order 10; beyond that rounding errors grow.

    Raises:
        ValueError: `order` is not 1 to 10.
    """
    if not 1 <= order <= 10:
        raise ValueError(f"Daubechies wavelet of order {order}; expected 1 to 10")
    polynomial = [comb(order - 1 + k, k) for k in reversed(range(order))]  # in y = (2 - z - 1/z) / 4
    filter_ = np.array([1.0 + 0j])
    for y in np.roots(polynomial):
        pair = np.roots([1, 4 * y - 2, 1])  # z + 1/z = 2 - 4y
        filter_ = np.convolve(filter_, [1, -pair[np.argmin(np.abs(pair))]])
    for _ in range(order):
        filter_ = np.convolve(filter_, [1, 1])
    real = filter_.real
    return real * (np.sqrt(2) / real.sum())


class WaveletTransform(nn.Module):
    """One level of the transform: (N, C, H, W) -> approximation (N, C, H/2, W/2), details (N, C, 3, H/2, W/2).

    Details are differences along y, along x, and along both; PyWavelets calls them horizontal, vertical, diagonal.
    H and W must be even.
    """

    def __init__(self, order: int = 1) -> None:
        super().__init__()
        low = daubechies(order)
        high = low[::-1] * np.resize([1.0, -1.0], len(low))  # the quadrature mirror filter
        bank = [np.outer(y, x) for y, x in ((low, low), (high, low), (low, high), (high, high))]
        self.bank = np.stack(bank)[:, None]
        self.reach = 2 * order - 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"wavelet transform of a map of {x.shape[2]}x{x.shape[3]}, expected even height and width")
        channels = x.shape[1]
        if self.reach:
            before, after = self.reach // 2, self.reach - self.reach // 2
            x = functional.pad(x, (before, after, before, after), mode="circular")
        bank = torch.as_tensor(self.bank, dtype=x.dtype, device=x.device).repeat(channels, 1, 1, 1)
        bands = functional.conv2d(x, bank, stride=2, groups=channels)
        bands = bands.unflatten(1, (channels, 4))
        return bands[:, :, 0], bands[:, :, 1:]
