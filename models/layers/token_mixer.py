"""Base of classifiers that mix positions without attention: a stem, residual blocks, a mean, a linear layer."""

from collections.abc import Iterable

from torch import Tensor, nn


class TokenMixer(nn.Module):
    """Classifier; (N, in_channels, H, W) -> logits (N, classes).

    Module `final` passes on the map (N, dim, h, w) after the last block.
    """

    def __init__(self, stem: nn.Module, blocks: Iterable[nn.Module], dim: int, classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.final = nn.Identity()
        self.classifier = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.classifier(self.final(x).mean((2, 3)))


def strided_stem(in_channels: int, dim: int, stride: int) -> nn.Sequential:
    """Build a stem of two 3x3 convolutions, each with the given stride."""
    return nn.Sequential(
        nn.Conv2d(in_channels, dim // 2, 3, stride, padding=1),
        nn.Conv2d(dim // 2, dim, 3, stride, padding=1),
    )
