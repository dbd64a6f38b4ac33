"""WaveMix: a classifier that mixes positions by wavelet transforms.

Papers: Jeevan et al. WaveMix (arXiv 2205.14375); compared in Jeevan et al. Magnification invariant medical image
analysis (arXiv 2302.11488). Source of configuration: pranavphoenix/WaveMix (MIT), read for facts; the code is ours,
with its own wavelet transform (`layers/wavelet.py`), because the public package cannot be imported with NumPy 2.

The paper states neither width, depth, levels nor stem. Choice: 224 channels and 10 blocks (the authors' best on the
same images), one level, and the stem with 4x4 patches; `dim`, `depth`, `levels` and `stem='strided'` (two 3x3
convolutions at full size, or with `stride`) give the others. `order` above 1 selects Daubechies wavelets instead of
Haar's.
"""

import torch
from torch import Tensor, nn

from .errors import ModelError
from .layers.token_mixer import TokenMixer, strided_stem
from .layers.wavelet import WaveletTransform
from .registry import ModelCard, register

SIZE = (224, 224)


def _mix(in_channels: int, hidden: int, out_channels: int, dropout: float) -> list[nn.Module]:
    """1x1 convolution, GELU, dropout, 1x1 convolution."""
    return [
        nn.Conv2d(in_channels, hidden, 1),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Conv2d(hidden, out_channels, 1),
    ]


class WaveMixBlock(nn.Module):
    """WaveMix block: wavelet levels, from coarse to fine mixed and doubled in size; keeps the shape (N, dim, H, W)."""

    def __init__(self, dim: int, levels: int, widen: int, dropout: float, order: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(dim, dim // 4, 1)
        self.transform = WaveletTransform(order)
        self.levels = nn.ModuleList()
        for level in range(1, levels + 1):
            incoming = dim if level == levels else dim + dim // 2
            outgoing = dim if level == 1 else dim // 2
            self.levels.append(
                nn.Sequential(
                    *_mix(incoming, widen * dim, dim, dropout),
                    nn.ConvTranspose2d(dim, outgoing, 4, stride=2, padding=1),
                    nn.BatchNorm2d(outgoing),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        low, bands = self.reduce(x), []
        for _ in self.levels:
            low, details = self.transform(low)
            bands.append(torch.cat([low, details.flatten(1, 2)], dim=1))
        coarser: list[Tensor] = []
        for band, mix in zip(reversed(bands), reversed(self.levels), strict=True):
            coarser = [mix(torch.cat([band, *coarser], dim=1))]
        return coarser[0]


class WaveMix(TokenMixer):
    """WaveMix classifier; (N, in_channels, H, W) -> logits (N, classes).

    Height and width of the stem's output must be divisible by 2**levels.

    Args:
        in_channels: channels of the input.
        classes: number of logits.
        dim: channels of each block, a multiple of 4.
        depth: number of blocks.
        levels: wavelet levels per block.
        stem: 'patches' or 'strided'.
        stride: stride of both convolutions of the strided stem.
        patch: side of the patches, in pixels.
        widen: hidden channels of the mixing, as a multiple of `dim`.
        dropout: probability of dropout within the mixing.
        order: vanishing moments of the wavelet; 1 is Haar.

    Raises:
        ModelError: `dim` or `stem` is not supported.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        dim: int = 224,
        depth: int = 10,
        levels: int = 1,
        stem: str = "patches",
        stride: int = 1,
        patch: int = 4,
        widen: int = 2,
        dropout: float = 0.5,
        order: int = 1,
    ) -> None:
        if dim % 4:
            raise ModelError(f"wavemix: dim={dim}, expected a multiple of 4")
        if stem not in ("patches", "strided"):
            raise ModelError(f"wavemix: stem '{stem}' not known, expected 'patches' or 'strided'")
        first = _patches(in_channels, dim, patch) if stem == "patches" else strided_stem(in_channels, dim, stride)
        blocks = [WaveMixBlock(dim, levels, widen, dropout, order) for _ in range(depth)]
        super().__init__(first, blocks, dim, classes)


def _patches(in_channels: int, dim: int, patch: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, dim // 4, 3, padding=1),
        nn.Conv2d(dim // 4, dim // 2, 3, padding=1),
        nn.Conv2d(dim // 2, dim, patch, patch),
        nn.GELU(),
        nn.BatchNorm2d(dim),
    )


register(
    ModelCard(
        name="wavemix",
        summary="WaveMix-224/10, one level of Haar wavelets, 4x4 patches",
        paper="Jeevan et al. 2023 (magnification, arXiv 2302.11488)",
        build=WaveMix,
        parameters=10_635_298,
        layers=("stem", *(f"blocks.{index}" for index in range(10)), "final"),
        in_channels=3,
        input_size=SIZE,
    )
)
