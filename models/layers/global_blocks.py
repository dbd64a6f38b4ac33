"""Residual blocks that relate all positions of a map; the baselines of the spectral residual blocks.

Papers: Wang et al. Non-local neural networks. CVPR 2018 (arXiv 1711.07971); Chen et al. A2-Nets: double attention
networks. NeurIPS 2018 (arXiv 1810.11579). The widths (C/2 and C/4), the missing biases and the single batch norm
reproduce the parameters in Table 3 of Li et al., ICME 2020.

Choice: non-local blocks compare embedded positions by softmax; `softmax=False` divides the dot products by the number
of positions instead. As in its paper, the scale of a non-local block's batch norm starts at 0, so an untrained block is
the identity; `scale` sets another initial value. The A2 paper does not mention this, so its scale starts at 1.
"""

from torch import Tensor, nn

from .residual import conv1x1


class NonLocalBlock(nn.Module):
    """Non-local block: adds a weighted mean of all positions to each; keeps the shape (N, C, H, W)."""

    def __init__(self, channels: int, softmax: bool = True, scale: float = 0.0) -> None:
        super().__init__()
        inner = channels // 2
        self.theta = conv1x1(channels, inner)
        self.phi = conv1x1(channels, inner)
        self.g = conv1x1(channels, inner)
        self.expand = conv1x1(inner, channels)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.constant_(self.norm.weight, scale)
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = (conv(x).flatten(2) for conv in (self.theta, self.phi, self.g))  # (N, C/2, H*W)
        affinity = theta.transpose(1, 2) @ phi  # (N, H*W, H*W)
        weights = affinity.softmax(-1) if self.softmax else affinity / affinity.shape[-1]
        mixed = g @ weights.transpose(1, 2)
        return x + self.norm(self.expand(mixed.unflatten(2, x.shape[2:])))


class DoubleAttentionBlock(nn.Module):
    """A2 block: gathers the map's features in C/4 descriptors and distributes them; keeps the shape (N, C, H, W)."""

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        inner = channels // 4
        self.features = conv1x1(channels, inner)
        self.gather = conv1x1(channels, inner)
        self.hand_out = conv1x1(channels, inner)
        self.expand = conv1x1(inner, channels)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.constant_(self.norm.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x).flatten(2)
        gathered = features @ self.gather(x).flatten(2).softmax(-1).transpose(1, 2)  # (N, C/4, C/4)
        mixed = gathered @ self.hand_out(x).flatten(2).softmax(1)
        return x + self.norm(self.expand(mixed.unflatten(2, x.shape[2:])))
