"""Spectral residual blocks, in which a unitary transform connects every position of a map with every other.

Paper: Li et al. Spectrally-enforced global receptive field for contextual medical image segmentation and
classification. ICME 2020 (doi 10.1109/ICME46284.2020.9102949), equations 1 to 7 and Fig. 2. No code is public.

Choices where the paper gives no details; the first three follow from the parameters in its Table 3:
- grouped convolutions (4 groups in SRB_F, 2 in SRB_A; fewer where the channels are not divisible), without bias;
- in SRB_F, W and B of the spectral ReLU cover the half spectrum of a real map, and real and imaginary parts are
  separate, adjacent channels;
- one batch norm, after the second convolution; one alpha per block;
- W starts at 1 and B at 0, which is a plain ReLU.

alpha starts at 0, as in the paper: an untrained block is the identity, and its network has the receptive field that it
would have without the block. `alpha` sets another initial value.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn


class SpectralReLU(nn.Module):
    """max(W z + B, 0) with W and B per frequency, the same for all channels; keeps the shape (N, C, h, w).

    W and B belong to one size of the spectrum. Another size raises `ValueError`, unless `resize` is set, which
    interpolates them linearly over frequency.
    """

    def __init__(self, spectrum: tuple[int, int], resize: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(spectrum))
        self.bias = nn.Parameter(torch.zeros(spectrum))
        self.resize = resize

    def forward(self, z: Tensor) -> Tensor:
        found, expected = (z.shape[-2], z.shape[-1]), tuple(self.weight.shape)
        if found == expected:
            return (self.weight * z + self.bias).relu()
        if not self.resize:
            raise ValueError(
                f"spectral ReLU has parameters for {expected[0]}x{expected[1]} frequencies, found "
                f"{found[0]}x{found[1]}: build the network with the size of its input, or with resize=True"
            )
        weight, bias = (resample_spectrum(plane, found) for plane in (self.weight, self.bias))
        return (weight * z + bias).relu()


def resample_spectrum(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate a plane over the half spectrum to other numbers of frequencies.

    Args:
        plane: values per frequency, (rows, columns); rows ordered 0, 1, ... -1, columns from 0 up.
        size: numbers of frequencies (h, w) of the result.
    """
    rows, columns = plane.shape
    down = _between(torch.arange(size[0]) * rows / size[0], rows, wrap=True)
    # The last column is the highest frequency of both planes.
    across = _between(torch.arange(size[1]) * (columns - 1) / max(size[1] - 1, 1), columns, wrap=False)
    return down.to(plane) @ plane @ across.to(plane).T


def _between(places: Tensor, length: int, wrap: bool) -> Tensor:
    """Return the matrix (places, length) of linear interpolation at fractional positions."""
    below = places.floor().long()
    above = (below + 1) % length if wrap else (below + 1).clamp(max=length - 1)
    share = (places - below)[:, None]
    one = torch.eye(length)
    return (1 - share) * one[below] + share * one[above]


class SpectralResidualBlock(nn.Module):
    """Base class of SRB_F and SRB_A; keeps the shape (N, C, H, W). Subclasses define the transform and its inverse."""

    width: ClassVar[int]
    """Real channels in the spectrum per channel of the map."""
    groups: ClassVar[int]

    def __init__(self, channels: int, spectrum: tuple[int, int], alpha: float, resize: bool = False) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"spectral residual block of {channels} channels; expected an even number")
        outer, inner = self.width * channels, channels // 2
        groups = math.gcd(self.groups, inner)
        self.reduce = nn.Conv2d(outer, inner, 1, groups=groups, bias=False)
        self.relu = SpectralReLU(spectrum, resize)
        self.expand = nn.Conv2d(inner, outer, 1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outer)
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))

    def transform(self, x: Tensor) -> Tensor:
        """Transform a map (N, C, H, W) to the real channels of its spectrum."""
        raise NotImplementedError

    def inverse(self, z: Tensor, size: torch.Size) -> Tensor:
        """Transform the real channels of a spectrum back to a map (N, C, H, W) with (H, W) = `size`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.expand(self.relu(self.reduce(self.transform(x)))))
        return x + self.alpha * self.inverse(z, x.shape[2:])


class FourierBlock(SpectralResidualBlock):
    """SRB_F, the spectral residual block with a Fourier transform; `size` is the (H, W) of the map."""

    width = 2
    groups = 4

    def __init__(self, channels: int, size: tuple[int, int], alpha: float = 0.0, resize: bool = False) -> None:
        super().__init__(channels, (size[0], size[1] // 2 + 1), alpha, resize)

    def transform(self, x: Tensor) -> Tensor:
        spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))  # (N, C, H, W/2 + 1, 2)
        return spectrum.movedim(-1, 2).flatten(1, 2)

    def inverse(self, z: Tensor, size: torch.Size) -> Tensor:
        spectrum = torch.view_as_complex(z.unflatten(1, (-1, 2)).movedim(2, -1).contiguous())
        return torch.fft.irfft2(spectrum, s=size, norm="ortho")


class OrthogonalBlock(SpectralResidualBlock):
    """SRB_A, the spectral residual block with a learned transform X -> P X Q.

    P and Q are orthogonal and belong to one size (H, W) of the map.

    Call `reorthogonalise` after each update.
    """

    width = 1
    groups = 2

    def __init__(self, channels: int, size: tuple[int, int], alpha: float = 0.0) -> None:
        super().__init__(channels, size, alpha)
        self.p = nn.Parameter(torch.empty(size[0], size[0]))
        self.q = nn.Parameter(torch.empty(size[1], size[1]))
        nn.init.orthogonal_(self.p)
        nn.init.orthogonal_(self.q)

    def transform(self, x: Tensor) -> Tensor:
        found, expected = tuple(x.shape[2:]), (len(self.p), len(self.q))
        if found != expected:
            raise ValueError(
                f"SRB_A has learned transforms for maps of {expected[0]}x{expected[1]}, found {found[0]}x{found[1]}: "
                "build the network with the size of its input"
            )
        return self.p @ x @ self.q

    def inverse(self, z: Tensor, size: torch.Size) -> Tensor:
        return self.p.T @ z @ self.q.T


@torch.no_grad()
def reorthogonalise(model: nn.Module) -> None:
    """Replace the matrices of every SRB_A in a model by the orthogonal factor of their QR decomposition, in place.

    The signs, which QR leaves undetermined, are chosen so that an orthogonal matrix does not change. Call it after each
    update of the parameters (equations 5 and 6 of the paper).
    """
    for module in model.modules():
        if isinstance(module, OrthogonalBlock):
            for matrix in (module.p, module.q):
                orthogonal, triangular = torch.linalg.qr(matrix)
                matrix.copy_(orthogonal * torch.where(triangular.diagonal() < 0, -1.0, 1.0))
