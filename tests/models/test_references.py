"""Whole networks against plain re-implementations, block by block as the papers write them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from erf.models import create_model
from tests.agreement import assert_gradients_agree

State = dict[str, Tensor]


def norm_relu(x: Tensor, state: State, name: str) -> Tensor:
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    mean, variance, scale, shift = (part[None, :, None, None] for part in parts)
    return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)


def residual_block(x: Tensor, state: State, name: str, stride: int) -> Tensor:
    """nyukat/GMIC, src/modeling/modules.py, in words: pre-activation, shortcut taken after the first activation."""
    out = norm_relu(x, state, f"{name}.bn1")
    shortcut = state.get(f"{name}.shortcut.weight")
    residual = x if shortcut is None else functional.conv2d(out, shortcut, stride=stride)
    out = functional.conv2d(out, state[f"{name}.conv1.weight"], stride=stride, padding=1)
    out = norm_relu(out, state, f"{name}.bn2")
    return functional.conv2d(out, state[f"{name}.conv2.weight"], padding=1) + residual


def attention(x: Tensor, state: State, name: str) -> Tensor:
    """Performer-ReLU with the full matrix of weights between positions."""
    n, channels, height, width = x.shape
    tokens, size = x.flatten(2).transpose(1, 2), channels // 8

    def linear(u: Tensor, part: str) -> Tensor:
        return u @ state[f"{name}.{part}.weight"].T + state[f"{name}.{part}.bias"]

    q, k, v = (linear(tokens, part).reshape(n, -1, 8, size).transpose(1, 2) for part in ("to_q", "to_k", "to_v"))
    projection = state[f"{name}.fast_attention.projection_matrix"]
    q, k = ((size**-0.25 * u @ projection.T).clamp(min=0) + 1e-3 for u in (q, k))
    weights = q @ k.transpose(2, 3)
    mixed = (weights / weights.sum(-1, keepdim=True) @ v).transpose(1, 2).reshape(n, -1, channels)
    return linear(mixed, "to_out").transpose(1, 2).reshape(n, channels, height, width)


def attention_block(x: Tensor, state: State, name: str, stride: int) -> Tensor:
    """Algorithm 1 of the HCT paper, line by line."""
    residual = x
    out = norm_relu(x, state, f"{name}.bn1")
    shortcut = state.get(f"{name}.shortcut.weight")
    if shortcut is not None:
        residual = functional.conv2d(out, shortcut, stride=stride)
    out = attention(out, state, f"{name}.attention")
    out = out + x
    out = norm_relu(out, state, f"{name}.bn2")
    out = functional.conv2d(out, state[f"{name}.conv2.weight"], stride=stride, padding=1)
    return out + residual


def reference(x: Tensor, state: State, strides: tuple[int, ...], conv_stages: int) -> Tensor:
    x = functional.conv2d(x, state["stem.weight"], stride=2, padding=3)
    x = functional.max_pool2d(x, 3, 2)
    for stage, stride in enumerate(strides):
        block = residual_block if stage < conv_stages else attention_block
        x = block(x, state, f"stage{stage + 1}.0", stride)
        x = block(x, state, f"stage{stage + 1}.1", 1)
    return norm_relu(x, state, "final.norm")


@pytest.mark.parametrize(
    ("name", "strides", "conv_stages"),
    [("gmic", (2, 2, 2, 2, 2), 5), ("gmic-nyu", (1, 2, 2, 2, 2), 5), ("hct", (2, 2, 2, 2, 2), 3)],
)
def test_features_equal_the_reference(name: str, strides: tuple[int, ...], conv_stages: int) -> None:
    model: Any = create_model(name).double()
    generator = torch.Generator().manual_seed(1)
    for key, value in model.state_dict().items():  # as after training: no norm is the identity
        if ("bn" in key or "norm" in key) and value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5)
    x = torch.randn(2, 1, 224, 160, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        ours, theirs = model.features(x), reference(x, dict(model.state_dict()), strides, conv_stages)
    # Float64 through 22 layers; sums in another order.
    assert_gradients_agree(ours, theirs, rtol=1e-11)
