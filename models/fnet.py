"""2D-FNet: a classifier that mixes positions and channels by Fourier transforms.

Papers: Lee-Thorp et al. FNet. NAACL 2022 (arXiv 2105.03824), for text; its two-dimensional form is compared in Jeevan
et al. Magnification invariant medical image analysis (arXiv 2302.11488). Source of configuration:
pranavphoenix/VisionXformer, read for facts; the code is ours.

The paper states neither width nor depth. Choice: 64 channels, 8 blocks, hidden width 128, full resolution, because its
authors' code mixes pixels and the paper mentions its large memory consumption.

Deviation: the transforms are orthonormal. The batch norm that follows absorbs their scale, so a trained network
computes the same function. Untrained and without batch statistics, activations of the public form grow by sqrt(C H W)
in each block and overflow.
"""

import torch
from torch import Tensor, nn

from .layers.token_mixer import TokenMixer, strided_stem
from .registry import ModelCard, register

SIZE = (224, 224)


class FourierMixing(nn.Module):
    """Real part of the Fourier transform over channels, rows and columns; keeps the shape (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fftn(x, dim=(1, 2, 3), norm="ortho").real


class FNetBlock(nn.Sequential):
    """Fourier mixing, batch norm, two 1x1 convolutions; keeps the shape (N, dim, H, W)."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mixing = FourierMixing()
        self.norm = nn.BatchNorm2d(dim)
        self.widen = nn.Conv2d(dim, hidden, 1)
        self.active = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Conv2d(hidden, dim, 1)


class FNet2d(TokenMixer):
    """2D-FNet classifier; (N, in_channels, H, W) -> logits (N, classes)."""

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        dim: int = 64,
        depth: int = 8,
        hidden: int = 128,
        stride: int = 1,
        dropout: float = 0.5,
    ) -> None:
        stem = strided_stem(in_channels, dim, stride)
        super().__init__(stem, [FNetBlock(dim, hidden, dropout) for _ in range(depth)], dim, classes)


register(
    ModelCard(
        name="fnet",
        summary="2D-FNet, 64 channels, 8 blocks at full resolution",
        paper="Jeevan et al. 2023 (magnification, arXiv 2302.11488)",
        build=FNet2d,
        parameters=153_154,
        layers=("stem", *(f"blocks.{index}" for index in range(8)), "final"),
        in_channels=3,
        input_size=SIZE,
    )
)
