"""Base of the ResNet segmentation networks: a dilated backbone, a head, and logits at the size of the input."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from .residual import conv1x1

SIZE = (512, 512)

LAYERS = (*(f"backbone.layer{index}" for index in range(1, 5)), "head")

OUTPUT_STRIDE = 8


class Segmenter(nn.Module):
    """Segmentation network; (N, in_channels, H, W) -> logits (N, classes, H, W).

    The head's logits, at 1/8 of the size, are up-sampled to the input.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.head = head

    def forward(self, x: Tensor) -> Any:
        return upsample(self.head(self.backbone.forward_features(x)), x)


def upsample(logits: Tensor, like: Tensor) -> Tensor:
    """Interpolate logits (N, C, h, w) bilinearly to the size of another map (..., H, W)."""
    return functional.interpolate(logits, size=like.shape[2:], mode="bilinear", align_corners=False)


def conv3x3_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def conv1x1_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(conv1x1(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
