"""DANet on ResNet-50, as compared in the SRB paper.

Papers: Fu et al. Dual attention network for scene segmentation. CVPR 2019 (arXiv 1809.02983); Li et al., ICME 2020,
Table 1. Backbone from timm; no available library has this head, so it is ours.

Reconstruction from the printed 49.49 M parameters: a ResNet-50 that keeps its unused classifier for 1000 classes, and
the head with 512 channels and three classifiers: 49,485,488. The logits come from both kinds of attention together; the
classifiers for each kind alone are used in training only.

The scales of both kinds of attention start at 0, as in the paper: an untrained DANet has the receptive field of its
convolutions. `scale` sets another initial value.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .layers.library import timm_model
from .layers.segmenter import LAYERS, OUTPUT_STRIDE, SIZE, Segmenter, conv3x3_norm_relu, upsample
from .registry import ModelCard, register


class PositionAttention(nn.Module):
    """Position attention: adds a weighted mean of all positions to each; keeps the shape (N, C, h, w)."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.full((1,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))
        weights = (query.transpose(1, 2) @ key).softmax(-1)  # (N, h*w, h*w)
        return x + self.scale * (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])


class ChannelAttention(nn.Module):
    """Channel attention: adds a weighted mean of all channels to each, dissimilar ones weighted most; keeps the shape.

    The shape is (N, C, h, w).
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        energy = flat @ flat.transpose(1, 2)  # (N, C, C)
        weights = (energy.amax(-1, keepdim=True) - energy).softmax(-1)
        return x + self.scale * (weights @ flat).unflatten(2, x.shape[2:])


class DualAttentionHead(nn.Module):
    """Segmentation head with position and channel attention; (N, channels, h, w) -> logits (N, classes, h, w)."""

    def __init__(self, channels: int, classes: int, scale: float) -> None:
        super().__init__()
        inner = channels // 4
        self.position = nn.Sequential(
            conv3x3_norm_relu(channels, inner), PositionAttention(inner, scale), conv3x3_norm_relu(inner, inner)
        )
        self.channel = nn.Sequential(
            conv3x3_norm_relu(channels, inner), ChannelAttention(scale), conv3x3_norm_relu(inner, inner)
        )
        self.both, self.by_position, self.by_channel = (
            nn.Sequential(nn.Dropout(0.1), nn.Conv2d(inner, classes, 1)) for _ in range(3)
        )

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of both kinds of attention together, of position alone, and of channel alone."""
        position, channel = self.position(x), self.channel(x)
        return self.both(position + channel), self.by_position(position), self.by_channel(channel)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(self.position(x) + self.channel(x))


class DANet(Segmenter):
    """DANet; (N, in_channels, H, W) -> logits (N, classes, H, W).

    In training mode a tuple of three: these logits, and those of position and of channel attention alone.
    """

    def __init__(
        self, in_channels: int = 3, classes: int = 2, scale: float = 0.0, output_stride: int = OUTPUT_STRIDE
    ) -> None:
        backbone = timm_model("resnet50", in_chans=in_channels, output_stride=output_stride)
        super().__init__(backbone, DualAttentionHead(2048, classes, scale))

    def forward(self, x: Tensor) -> Any:
        if not self.training:
            return super().forward(x)
        head: Any = self.head
        return tuple(upsample(logits, x) for logits in head.branches(self.backbone.forward_features(x)))


register(
    ModelCard(
        name="danet",
        summary="dual attention on ResNet-50",
        paper="Li et al. 2020 (SRB, doi 10.1109/ICME46284.2020.9102949)",
        build=DANet,
        parameters=49_485_488,
        layers=LAYERS,
        in_channels=3,
        input_size=SIZE,
        default_layer="head",
    )
)
